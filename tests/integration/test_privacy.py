"""With LOG_ADDRESSES=none or hash no address stands in any line, whoever wrote it."""

import io
import json
from collections.abc import Callable

import pytest
from aws_lambda_powertools import Logger
from hypothesis import given
from hypothesis import strategies as st
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws.stack_key import stack_key
from bouncer.aws.telemetry import Telemetry
from bouncer.settings import LogAddresses
from tests.integration.builders import BOUNCES

LOCAL = st.from_regex(r"[A-Za-z0-9!#$%&*+/=?^_`{|}~-]{1,20}", fullmatch=True)
ADDRESS = st.builds("{}@{}.example".format, LOCAL, st.from_regex("[a-z]{1,9}", fullmatch=True))
AROUND = st.sampled_from(
    ["%s", "<%s>", "no item for %s.", "{'Recipient': '%s'}", "to=%s, x", "\n%s\n"]
)


def lines(addresses: LogAddresses, log: Callable[[Logger], None], key: bytes = b"k" * 32) -> str:
    stream = io.StringIO()
    logger = Logger(service="svc", stream=stream, logger_handler=None, serialize_stacktrace=False)
    for handler in logger.handlers:
        handler.setStream(stream)  # type: ignore[attr-defined]  # powertools keeps the first one
    Telemetry(logger, service="svc", addresses=addresses, key=lambda: key)
    log(logger)
    return stream.getvalue()


@pytest.mark.parametrize("addresses", [LogAddresses.NONE, LogAddresses.HASH])
@given(address=ADDRESS, around=AROUND)
def test_no_address_stands_in_a_line_an_exception_or_a_field(
    addresses: LogAddresses, address: str, around: str
) -> None:
    def log(logger: Logger) -> None:
        text = around % address
        logger.warning(text, extra={"why": text, "all": [{text: (text,)}]})
        try:
            int(text)
        except ValueError:
            logger.exception("failed")

    written = lines(addresses, log)
    assert address not in written
    assert "failed" in written


def test_a_hash_is_the_same_by_the_same_key_and_another_by_another() -> None:
    def hashed(key: bytes) -> str:
        line = lines(LogAddresses.HASH, lambda logger: logger.info("pat@sender.example"), key)
        found: str = json.loads(line)["message"]
        return found

    assert hashed(b"a" * 32) == hashed(b"a" * 32) != hashed(b"b" * 32)


def test_a_stack_has_one_key_whoever_asks_first(dynamodb: DynamoDBClient) -> None:
    first = stack_key(dynamodb, BOUNCES)
    assert len(first) == 32
    assert stack_key(dynamodb, BOUNCES) == first
