"""`bouncer mailbox recount`."""

from datetime import UTC, datetime, timedelta

import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_s3 import S3Client

from bouncer.aws.usage import DynamoUsage
from bouncer.mailboxes import Mailbox
from tests.integration.builders import (
    ALICE,
    BOUNCES,
    MAILBOXES,
    mailbox_of,
    put_mail,
    put_mailbox,
)
from tests.integration.console.builders import (
    Stack,
    error_of,
    printed_json,
    text_of,
)


@pytest.fixture
def drifted(stack: Stack, dynamodb: DynamoDBClient, s3: S3Client) -> DynamoDBClient:
    """An hour ago a mailbox took mail of 100 and of 30 bytes; nobody heard of a deletion."""
    put_mailbox(dynamodb)
    usage = DynamoUsage(
        dynamodb, bounce_table=BOUNCES, mailbox_table=MAILBOXES, remember=timedelta(days=14)
    )
    for message_id, size in (("msg1", 100), ("msg2", 30)):
        moment = datetime.now(UTC) - timedelta(hours=1)
        usage.charge(Mailbox(address=ALICE), message_id, size, moment, enforce=True)
    put_mail(s3, "msg1", b"x" * 100)
    return dynamodb


def test_a_recount_reports_what_is_off_and_changes_nothing(drifted: DynamoDBClient) -> None:
    assert printed_json("mailbox", "recount") == {
        "drift": [{"address": ALICE, "used_bytes": 130, "stored_bytes": 100}],
        "deletions_missed": ["msg2"],
        "applied": False,
    }
    assert "1 mailboxes are off" in text_of("mailbox", "recount")
    assert mailbox_of(drifted)["used_bytes"] == "130"


def test_what_somebody_else_counts_is_not_recounted(stack: Stack, drifted: DynamoDBClient) -> None:
    stack.outputs["Usage"] = "external"
    assert "does not keep the mailboxes' usage" in error_of("mailbox", "recount", "--apply")
    assert mailbox_of(drifted)["used_bytes"] == "130"


def test_a_recount_sets_right_what_is_off(drifted: DynamoDBClient) -> None:
    assert printed_json("mailbox", "recount", "--apply")["applied"] is True
    assert mailbox_of(drifted)["used_bytes"] == "100"
    assert printed_json("mailbox", "recount") == {
        "drift": [],
        "deletions_missed": [],
        "applied": False,
    }
