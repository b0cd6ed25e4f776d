"""The function that hears of deleted mail: the bytes come back, once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws.usage import DynamoUsage
from bouncer.mailboxes import Mailbox
from bouncer.usage import UsageUnavailableError
from functions.usage import app
from tests.integration.builders import (
    ALICE,
    BOUNCES,
    BUCKET,
    MAILBOXES,
    PREFIX,
    Answer,
    Context,
    fail,
    mailbox_of,
    put_mailbox,
    requests_of,
)
from tests.integration.conftest import Printed, Services


@pytest.fixture
def counted(
    monkeypatch: pytest.MonkeyPatch,
    services: Services,
    printed: Printed,
) -> DynamoDBClient:
    """A mailbox with one mail of 100 bytes."""
    environment = {"BOUNCE_TABLE": BOUNCES, "MAILBOX_TABLE": MAILBOXES, "MAIL_PREFIX": PREFIX}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    app.application.cache_clear()
    dynamodb = services.dynamodb
    put_mailbox(dynamodb)
    usage = DynamoUsage(
        dynamodb, bounce_table=BOUNCES, mailbox_table=MAILBOXES, remember=timedelta(days=14)
    )
    usage.charge(Mailbox(address=ALICE), "msg1", 100, datetime.now(UTC), enforce=True)
    return dynamodb


def deleted(key: str) -> None:
    """EventBridge's event, as S3 makes it."""
    event: dict[str, Any] = {
        "version": "0",
        "detail-type": "Object Deleted",
        "source": "aws.s3",
        "detail": {
            "version": "0",
            "bucket": {"name": BUCKET},
            "object": {"key": key, "etag": "", "sequencer": "006100"},
            "reason": "DeleteObject",
            "deletion-type": "Permanently Deleted",
        },
    }
    context: Any = Context(function_name="ses-bouncer-usage")
    app.handler(event, context)


def test_a_deleted_mail_gives_its_bytes_back(counted: DynamoDBClient, printed: Printed) -> None:
    deleted(PREFIX + "msg1")
    assert mailbox_of(counted)["used_bytes"] == "0"
    line = printed.line("mail deleted")
    assert (line["ses_message_id"], line["mailboxes"]) == ("msg1", 1)


def test_an_event_that_comes_twice_gives_nothing_more_back(counted: DynamoDBClient) -> None:
    deleted(PREFIX + "msg1")
    deleted(PREFIX + "msg1")
    assert mailbox_of(counted)["used_bytes"] == "0"


@pytest.mark.parametrize("key", [PREFIX + "msg2", PREFIX + "AMAZON_SES_SETUP_NOTIFICATION"])
def test_what_was_never_counted_changes_nothing(counted: DynamoDBClient, key: str) -> None:
    deleted(key)
    assert mailbox_of(counted)["used_bytes"] == "100"


@pytest.mark.parametrize("key", ["other/msg1", "msg1"])
def test_what_is_not_under_the_prefix_is_none_of_ours(counted: DynamoDBClient, key: str) -> None:
    seen = requests_of(counted)
    deleted(key)
    assert seen == []


def test_a_failure_is_raised_so_that_it_is_tried_again(counted: DynamoDBClient) -> None:
    fail(counted, "TransactWriteItems", Answer(code="InternalServerError", status=500))
    with pytest.raises(UsageUnavailableError):
        deleted(PREFIX + "msg1")
    deleted(PREFIX + "msg1")
    assert mailbox_of(counted)["used_bytes"] == "0"
