"""With LOG_ADDRESSES=none or hash nobody is named in anything that a function says.

Every story, every mail of the corpus and every failure goes through the functions as Lambda runs
them, in awslambdaric, and all that comes out is searched: log lines, metrics, Lambda's own error
output, what it keeps of an error with a dead letter, and what it puts in the trace.
"""

import base64
import io
import json
import logging
import quopri
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from aws_lambda_powertools import Logger
from awslambdaric import bootstrap
from awslambdaric.lambda_runtime_marshaller import LambdaMarshaller
from botocore.exceptions import EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws import clients, stack_key
from bouncer.aws.discretion import Discretion
from bouncer.aws.telemetry import Telemetry
from bouncer.delivery.queue import encode
from bouncer.guards import GUARDS, GuardName, OtherReason
from bouncer.inbound import Planner
from bouncer.policy.load import load_file
from bouncer.settings import LogAddresses
from bouncer_console.mail import lambda_event, receive, topic_notice
from functions.inbound import app as inbound
from functions.inbound import audit
from functions.receipt_rules import app as rules
from functions.send import app as send
from functions.usage import app as usage
from local.stories import STORIES, event_of
from tests.fakes.bounces import bounce
from tests.integration.builders import (
    BOUNCES,
    MAILBOXES,
    PREFIX,
    QUEUE_KEY,
    Answer,
    SesServer,
    fail,
    fail_with,
    item,
    know_domain,
    know_key,
    put_mailbox,
    reserve_until,
)
from tests.integration.conftest import Printed, Services
from tests.unit.builders import CORPUS, SHIPPED_POLICY
from tests.unit.test_event_mutations import mutants

QUIET = [LogAddresses.NONE, LogAddresses.HASH]

# Who and what stands in the mail below, each a word that occurs nowhere else.
SENDER, COPIED, AUTHOR = "qzsender", "qzcopied", "qzauthor"
KNOWN, FULL, CLOSED, UNKNOWN = "qzknown", "qzfull", "qzclosed", "qzunknown"
MESSAGE_ID, SUBJECT, DOMAIN = "qzmessageid", "qzsubject", "qzsenderdomain"
WORDS = (SENDER, COPIED, AUTHOR, KNOWN, FULL, CLOSED, UNKNOWN, MESSAGE_ID, SUBJECT)
RECIPIENTS = tuple(f"{each}@example.com" for each in (KNOWN, FULL, CLOSED, UNKNOWN))
MAIL = f"""From: "{AUTHOR}, the author" <{AUTHOR}@{DOMAIN}.example>
To: {", ".join(RECIPIENTS)}
Cc: =?utf-8?q?{COPIED}=40other.example?= <{COPIED}@other.example>
Subject: {SUBJECT} for {KNOWN}
Message-ID: <{MESSAGE_ID}@{DOMAIN}.example>
Date: Mon, 1 Dec 2025 10:00:00 +0000
Received: from {DOMAIN}.example (unknown [192.0.2.9]) for <{KNOWN}@example.com>; Mon, 1 Dec 2025
 10:00:00 +0000

Body
""".replace("\n", "\r\n").encode()


def shapes(word: str) -> Iterator[str]:
    """An address and its local part, as a program may spell it."""
    address = f"{word}@example.com"
    yield from (word, word.upper(), address, address.upper(), f"<{address}>")
    yield from (f'"{word} x"@example.com', f"{word} (there) @ example.com", f"{word} at example")
    yield from (quote(address), quote(quote(address)), address.replace("@", "&#64;"))
    yield from (address.replace("@", "\\u0040"), address.replace("@", "\uff20"))
    yield f"{word}@m\u00fcller.example".encode("idna").decode()
    yield quopri.encodestring(address.encode(), quotetabs=True, header=True).decode()
    yield base64.b64encode(address.encode()).decode()


EVERY_SHAPE = " | ".join(each for word in WORDS for each in shapes(word))
SECRETS = {word.lower() for word in WORDS} | {
    base64.b64encode(f"{word}@example.com".encode()).decode()[:8].lower() for word in WORDS
}


class Runtime:
    """Lambda's side of a function: what it is posted, and what it prints itself."""

    def __init__(self) -> None:
        self.marshaller = LambdaMarshaller()
        self.posted: list[str] = []

    def post_invocation_result(self, _id: str, result: str, *_: object) -> None:
        self.posted.append(result)

    def post_invocation_error(self, _id: str, error: str, fault: str, *_: object) -> None:
        self.posted += [error, fault]

    def log_error(self, lines: list[str]) -> None:
        self.posted += lines


class Site:
    """Every function of a stack that is to be quiet."""

    def __init__(
        self, services: Services, ses: SesServer, printed: Printed, log_of_others: io.StringIO
    ) -> None:
        self.services, self.ses, self._printed = services, ses, printed
        self._log_of_others = log_of_others
        self._runtime = Runtime()
        self.failures = 0

    def run(self, function: ModuleType, event: Any) -> str | None:
        """The function's answer as JSON; None when it ended with an error."""
        runtime = Runtime()
        bootstrap.handle_event_request(
            runtime, function.handler, "request-1",
            json.dumps(event).encode(), "application/json", None, None,
            "arn:aws:lambda:us-east-1:123456789012:function:f", (time.time() + 60) * 1000,
            None, runtime,
        )  # fmt: skip
        self._runtime.posted += runtime.posted
        failed = len(runtime.posted) > 1
        self.failures += failed
        return None if failed else runtime.posted[0]

    def cold(self) -> None:
        for function in (inbound, audit, send, usage):
            function.application.cache_clear()

    @property
    def said(self) -> str:
        """All of it, as the reader of the log, the metrics and the traces sees it."""
        return "\n".join(
            [self._printed.text, self._log_of_others.getvalue(), *self._runtime.posted]
        )


@contextmanager
def log_of_others() -> Iterator[io.StringIO]:
    """As Lambda's runtime prints what libraries log."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    yield log
    logging.getLogger().removeHandler(handler)
    logging.captureWarnings(capture=False)


@pytest.fixture(params=QUIET)
def addresses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    chosen: str = request.param.value
    monkeypatch.setenv("LOG_ADDRESSES", chosen)
    return chosen


@pytest.fixture
def site(
    addresses: str,
    monkeypatch: pytest.MonkeyPatch,
    services: Services,
    ses_server: SesServer,
    printed: Printed,
) -> Iterator[Site]:
    services.start(
        monkeypatch,
        USAGE="managed",
        RECEIPT_RULE_SET="inbound",
        RECEIPT_RULE="ses-bouncer",
        AWS_LAMBDA_FUNCTION_NAME="f",
        AWS_LAMBDA_FUNCTION_VERSION="1",
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE="512",
        AWS_LAMBDA_LOG_GROUP_NAME="g",
        AWS_LAMBDA_LOG_STREAM_NAME="s",
        POWERTOOLS_LOGGER_LOG_EVENT="true",  # an operator's, for another function
    )
    dynamodb = services.dynamodb
    know_key(dynamodb)
    know_domain(dynamodb)
    put_mailbox(dynamodb, f"{KNOWN}@example.com", quota_bytes=1000, used_bytes=900)
    put_mailbox(dynamodb, f"{FULL}@example.com", quota_bytes=1, used_bytes=1)
    put_mailbox(dynamodb, f"{CLOSED}@example.com", status="disabled")
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the SDK's pauses, and ours
    with log_of_others() as log:
        site = Site(services, ses_server, printed, log)
        site.cold()
        yield site


@cache
def received(data: bytes, mail_from: str, recipients: tuple[str, ...]) -> Any:
    return receive(
        data, mail_from=mail_from, recipients=recipients, client="192.0.2.9", helo="mx.example"
    )


def the_event(how: str = "RequestResponse") -> Any:
    mail = received(MAIL, f"{SENDER}@{DOMAIN}.example", RECIPIENTS)
    event = lambda_event(mail, recipients=RECIPIENTS, function_arn="f")
    event["Records"][0]["ses"]["receipt"]["action"]["invocationType"] = how
    return event


def the_notice() -> Any:
    mail = received(MAIL, f"{SENDER}@{DOMAIN}.example", RECIPIENTS)
    return topic_notice(mail, recipients=RECIPIENTS, action={"type": "S3"})


def batch(*bodies: Any) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": f"id{number}",
                "body": each if isinstance(each, str) else json.dumps(each),
                "attributes": {"ApproximateReceiveCount": "20"},
            }
            for number, each in enumerate(bodies)
        ]
    }


def queued(message_id: str = "msg1") -> str:
    return encode(bounce(message_id, *RECIPIENTS, explanation=f"no {UNKNOWN} here"), QUEUE_KEY)


def deletion(key: str = f"{PREFIX}msg1") -> Any:
    return {"detail": {"object": {"key": key}}}


def told_in(said: str) -> list[str]:
    small = said.lower()
    return sorted(each for each in SECRETS if each in small)


# --- Every mail --------------------------------------------------------------------------------

_FOUND = re.compile(r"[^\s<>\"(),;:=]+@[^\s<>\"(),;:]+")


def people(event: Any) -> set[str]:
    """Every address and Message-ID that an event holds, and the local parts of both."""
    text = json.dumps(event, ensure_ascii=False)
    found = {each.strip(".'\\").lower() for each in _FOUND.findall(text)}
    return found | {each.rpartition("@")[0] for each in found}


def words_of(said: str) -> set[str]:
    return set(re.split(r"[^a-z0-9.!#$%&'*+/=?^_`{|}~@-]+", said.lower()))


def told_of(said: str, words: set[str], event: Any) -> list[str]:
    """Whom of an event's people the output names: an address anywhere, a local part as a word."""
    return [
        each
        for each in people(event)
        if len(each) > 2 and (each in said.lower() if "@" in each else each in words)
    ]


def corpus() -> Iterator[Any]:
    for path in sorted(CORPUS.glob("*/*.eml")):
        data = path.read_bytes()
        mail_from = data.split(b"\r\n", 1)[0].decode("ascii").partition(": ")[2]
        mail = received(data, mail_from.strip("<>"), ("qznobody@example.com",))
        yield lambda_event(mail, recipients=mail.recipients, function_arn="f")


def test_no_story_and_no_mail_of_the_corpus_names_anybody(site: Site) -> None:
    events = [*(event_of(story) for story in STORIES), *corpus()]
    assert len(events) > 100
    site.run(inbound, the_event())
    rules = {rule.section.name for rule in load_file(SHIPPED_POLICY).shared}
    ours = (
        words_of(site.said) | rules | {*GuardName, *OtherReason}
    )  # a line about nobody, and codes
    for event in events:
        site.run(inbound, event)
    said = site.said
    assert said.count("mail handled") > len(events)
    words = words_of(said) - ours
    assert sorted({named for event in events for named in told_of(said, words, event)}) == []


def test_no_malformed_event_names_anybody(site: Site) -> None:
    for mutant in islice(mutants(9), 100):
        site.run(inbound, mutant)
    said = site.said
    assert "MalformedEventError" in said
    addresses = _FOUND.findall(said)
    assert [each for each in addresses if "." in each.rpartition("@")[2]] == []


# --- Every failure -----------------------------------------------------------------------------

ERRORS: dict[str, Callable[[], Answer | Exception]] = {
    "refused": lambda: Answer(code="ValidationException", message=EVERY_SHAPE),
    "unreachable": lambda: EndpointConnectionError(endpoint_url=EVERY_SHAPE),
    "a-bug": lambda: RuntimeError(EVERY_SHAPE),
}
BACKENDS = [
    *[("dynamodb", each) for each in ("BatchGetItem", "UpdateItem", "TransactWriteItems")],
    *[("dynamodb", each) for each in ("PutItem", "GetItem", "Query", "Scan")],
    *[("s3", each) for each in ("HeadObject", "GetObject")],
    *[("sqs", each) for each in ("SendMessage", "GetQueueAttributes")],
]


@contextmanager
def failing(client: Any, operation: str, error: Callable[[], Answer | Exception]) -> Iterator[None]:
    """Every call of an operation fails meanwhile."""
    inside = True

    def answers() -> Iterator[Answer | Exception]:
        while inside:
            yield error()

    fail_with(client, operation, answers())
    yield
    inside = False


def run_all(site: Site) -> None:
    site.run(inbound, the_event())
    site.run(inbound, the_event("Event"))
    site.run(audit, batch(the_notice()))
    site.run(send, batch(queued(), "x"))
    site.run(usage, batch(deletion()))
    site.run(rules, {})


@pytest.mark.parametrize(("service", "operation"), BACKENDS)
def test_no_failing_backend_names_anybody(site: Site, service: str, operation: str) -> None:
    for error in ERRORS.values():
        with failing(getattr(site.services, service), operation, error):
            run_all(site)
        assert told_in(site.said) == []
    assert site.said


def test_what_is_searched_for_is_found_where_everything_may_be_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_ADDRESSES", "full")
    site.cold()
    with failing(site.services.dynamodb, "BatchGetItem", ERRORS["a-bug"]):
        run_all(site)
    assert site.failures
    assert set(told_in(site.said)) == SECRETS


def test_no_refusal_of_ses_names_anybody(site: Site) -> None:
    message = EVERY_SHAPE.replace("&", "&amp;").replace("<", "&lt;")
    answers = [(400, "MessageRejected"), (400, "Throttling"), (500, "Failure"), (403, message)]
    for number, (status, code) in enumerate(answers):
        site.ses.answers = [(status, code, message)] * 20
        event = the_event()
        event["Records"][0]["ses"]["mail"]["messageId"] = f"msg{number}"
        site.run(inbound, event)
        site.run(send, batch(queued(f"queued{number}")))
        assert len(site.ses.answers) < 20
        assert told_in(site.said) == []


def test_no_bounce_that_has_to_wait_names_anybody(site: Site) -> None:
    reserve_until(site.services.dynamodb, time.time() + 60)
    site.run(inbound, the_event())
    assert '"queued"' in site.said
    for number, error in enumerate(ERRORS.values()):
        event = the_event()
        event["Records"][0]["ses"]["mail"]["messageId"] = f"msg{number}"
        with failing(site.services.sqs, "SendMessage", error):
            site.run(inbound, event)
    assert "EventKept" in site.said
    assert told_in(site.said) == []


def test_no_limit_that_is_met_names_anybody(site: Site) -> None:
    for _ in range(2):
        site.run(inbound, the_event())
    site.services.dynamodb.delete_table(TableName=MAILBOXES)
    site.cold()
    run_all(site)
    assert told_in(site.said) == []


def test_no_guard_policy_or_plan_that_raises_names_anybody(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError(EVERY_SHAPE) from KeyError(EVERY_SHAPE)

    monkeypatch.setattr(type(GUARDS[0]), "stops", property(lambda _: broken), raising=False)
    run_all(site)
    monkeypatch.setattr(Planner, "plan", broken)
    run_all(site)
    assert "ValueError, by KeyError" in site.said
    assert told_in(site.said) == []


POISON = [
    EVERY_SHAPE,
    json.dumps(EVERY_SHAPE),
    json.dumps({EVERY_SHAPE: EVERY_SHAPE}),
    json.dumps({"version": EVERY_SHAPE, "bounce": {EVERY_SHAPE: 1}}),
    json.dumps({"version": 1, "bounce": {"bounce_type": EVERY_SHAPE}}),
    encode(bounce("msg1", *RECIPIENTS), b"forged" * 6),
    queued().replace("DoesNotExist", UNKNOWN),
    queued().replace("unknown-recipient", UNKNOWN),
    json.dumps({"detail": {"object": {"key": {EVERY_SHAPE: 1}}}}),
    json.dumps({"detail": {EVERY_SHAPE: {}}}),
    json.dumps({"notificationType": "Received", "mail": {"timestamp": EVERY_SHAPE}}),
    json.dumps({"notificationType": "Received", "mail": {"messageId": EVERY_SHAPE}}),
]


def test_no_poison_message_names_anybody(site: Site) -> None:
    for function in (send, audit, usage):
        site.run(function, batch(*POISON))
    assert "PoisonError" in site.said
    assert told_in(site.said) == []


def test_no_item_of_the_directory_names_anybody(site: Site) -> None:
    for field in ("quota_bytes", "status", "alias_for", "moved_to", "status_until", "catch_all"):
        for number, word in enumerate(WORDS):
            address = f"{word}{number}@example.com"
            entry = item(address=address, **{field: f"{word} x"})
            site.services.dynamodb.put_item(TableName=MAILBOXES, Item=entry)
        event = the_event()
        recipients = [f"{word}{number}@example.com" for number, word in enumerate(WORDS)]
        event["Records"][0]["ses"]["receipt"]["recipients"] = recipients
        site.run(inbound, event)
        site.run(rules, {})
    assert "MailboxItemInvalid" in site.said
    assert told_in(site.said) == []


def test_no_failing_rule_names_anybody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_SES")  # the receipt rules are moto's
    ses = boto3.client("ses")
    ses.create_receipt_rule_set(RuleSetName="inbound")
    monkeypatch.setattr(clients, "ses_rules", lambda: ses)
    site.run(rules, {})  # there is no rule: a SyncError
    assert "SyncError" in site.said
    rule: Any = {"Name": "ses-bouncer", "Enabled": True, "Actions": []}
    ses.create_receipt_rule(RuleSetName="inbound", Rule=rule)
    for operation in ("DescribeReceiptRuleSet", "UpdateReceiptRule"):
        for error in ERRORS.values():
            before = site.failures
            with failing(ses, operation, error):
                site.run(rules, {})
            assert site.failures == before + 1
    assert told_in(site.said) == []


def test_no_library_and_no_warning_names_anybody(site: Site) -> None:
    site.run(inbound, the_event())
    others = logging.getLogger("urllib3.connectionpool")
    others.warning("Retrying %s", EVERY_SHAPE)
    others.warning(f"to {UNKNOWN}@example.com")
    others.error("Failed: %s", EVERY_SHAPE, exc_info=ValueError(EVERY_SHAPE))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(EVERY_SHAPE, stacklevel=1)
    assert "Retrying" in site.said
    assert told_in(site.said) == []


def test_no_wrong_setting_names_anybody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_ADDRESSES", f"nobody {UNKNOWN}")
    monkeypatch.setenv("SEND_INTERVAL_SECONDS", UNKNOWN)
    site.cold()
    run_all(site)
    assert "SettingsError" in site.said
    assert told_in(site.said) == []


# --- One line ----------------------------------------------------------------------------------

LOCAL = st.from_regex(r"[A-Za-z0-9!#$%&*+/=?^_`{|}~-]{1,20}", fullmatch=True)
ADDRESS = st.builds("{}@{}.example".format, LOCAL, st.from_regex("[a-z]{1,9}", fullmatch=True))
AROUND = st.sampled_from(
    ["%s", "<%s>", "no item for %s.", "{'Recipient': '%s'}", "to=%s, x", "\n%s\n"]
)


def lines(addresses: LogAddresses, log: Callable[[Logger], None], key: bytes = b"k" * 32) -> str:
    stream = io.StringIO()
    logger = Logger(service="svc", stream=stream, logger_handler=None, serialize_stacktrace=False)
    for handler in logger.handlers:
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(stream)  # powertools keeps the first one
    Telemetry(logger, service="svc", discretion=Discretion(addresses, lambda: key))
    log(logger)
    return stream.getvalue()


@pytest.mark.parametrize("addresses", QUIET)
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


def test_a_text_of_any_length_is_looked_through_as_far_as_it_is_printed() -> None:
    line = Discretion(LogAddresses.NONE).line("a" * 10**6 + "@example.com")
    assert line == "a" * 20_000


def test_an_error_tells_its_type_its_code_and_where_it_was_raised(
    dynamodb: DynamoDBClient,
) -> None:
    fail(dynamodb, "GetItem", Answer(code="ValidationException", message=EVERY_SHAPE))

    def log(logger: Logger) -> None:
        try:
            dynamodb.get_item(TableName=BOUNCES, Key=item(pk="a", sk="b"))
        except Exception:
            logger.exception("failed")

    (line,) = map(json.loads, lines(LogAddresses.NONE, log).splitlines())
    assert line["exception_name"] == "ClientError"
    assert "ClientError ValidationException at GetItem" in line["exception"]
    assert Path(__file__).name in line["exception"]


def test_a_hash_is_the_same_by_the_same_key_and_another_by_another() -> None:
    def hashed(key: bytes) -> str:
        line = lines(LogAddresses.HASH, lambda logger: logger.info("pat@sender.example"), key)
        found: str = json.loads(line)["message"]
        return found

    assert hashed(b"a" * 32) == hashed(b"a" * 32) != hashed(b"b" * 32)


def test_a_stack_has_one_key_whoever_asks_first(dynamodb: DynamoDBClient) -> None:
    first = stack_key.stack_key(dynamodb, BOUNCES)
    assert len(first) == 32
    assert stack_key.stack_key(dynamodb, BOUNCES) == first
