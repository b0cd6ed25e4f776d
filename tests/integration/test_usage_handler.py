"""The function that hears of deleted mail: the bytes come back, once."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws.usage import DynamoUsage
from bouncer.mailboxes import Mailbox
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
    stored,
)
from tests.integration.conftest import Printed, Services


@pytest.fixture
def counted(
    monkeypatch: pytest.MonkeyPatch,
    services: Services,
    printed: Printed,
) -> DynamoDBClient:
    """A mailbox with one mail of 100 bytes."""
    services.start(monkeypatch, app)
    dynamodb = services.dynamodb
    put_mailbox(dynamodb)
    usage = DynamoUsage(
        dynamodb, bounce_table=BOUNCES, mailbox_table=MAILBOXES, remember=timedelta(days=14)
    )
    usage.charge(Mailbox(address=ALICE), "msg1", 100, datetime.now(UTC), enforce=True)
    return dynamodb


def deleted(*keys: str) -> list[str]:
    """EventBridge's events, as S3 makes them, from the queue; the keys that come back."""
    records = [{"messageId": key, "body": json.dumps(object_deleted(key))} for key in keys]
    context = Context(function_name="ses-bouncer-usage")
    answer = app.handler({"Records": records}, context)
    return [each["itemIdentifier"] for each in answer["batchItemFailures"]]


def object_deleted(key: str) -> dict[str, Any]:
    return {
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


def test_a_deleted_mail_gives_its_bytes_back(counted: DynamoDBClient, printed: Printed) -> None:
    deleted(PREFIX + "msg1")
    assert mailbox_of(counted)["used_bytes"] == "0"
    line = printed.line("mail deleted")
    assert (line["mails"], line["failed"]) == (1, [])


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


def test_what_failed_comes_back_to_the_queue_and_the_rest_does_not(
    counted: DynamoDBClient,
) -> None:
    fail(counted, "TransactWriteItems", Answer(code="InternalServerError", status=500))
    assert deleted(PREFIX + "msg1", PREFIX + "msg2") == [PREFIX + "msg1"]
    assert deleted(PREFIX + "msg1") == []
    assert mailbox_of(counted)["used_bytes"] == "0"


def test_what_is_deleted_together_is_given_back_in_few_writes_and_exactly(
    counted: DynamoDBClient,
) -> None:
    usage = DynamoUsage(
        counted, bounce_table=BOUNCES, mailbox_table=MAILBOXES, remember=timedelta(days=14)
    )
    for number in range(120):
        name = f"many{number}"
        counted.put_item(TableName=BOUNCES, Item=_record(name, number))
    usage_before = 100 + sum(range(120))
    put_mailbox(counted, used_bytes=usage_before)
    assert usage.give_back({"many7", "many8"}) == set()
    seen = requests_of(counted)
    keys = [f"{PREFIX}many{number}" for number in range(120)]
    assert deleted(*keys, *keys) == []
    assert seen.count("TransactWriteItems") == 3
    assert mailbox_of(counted)["used_bytes"] == "100"


def _record(message_id: str, size: int) -> dict[str, Any]:
    return {
        "pk": {"S": f"message#{message_id}"},
        "sk": {"S": f"usage#{ALICE}"},
        "size": {"N": str(size)},
        "mailbox": {"S": ALICE},
        "counted_at": {"N": "1000"},
    }


def test_two_deliveries_of_the_same_deletions_at_once_give_back_once(
    counted: DynamoDBClient,
) -> None:
    """The other one comes between the look-up of the records and the write."""
    counted.put_item(TableName=BOUNCES, Item=_record("msg2", 50))
    put_mailbox(counted, used_bytes=150)
    usage = DynamoUsage(
        counted, bounce_table=BOUNCES, mailbox_table=MAILBOXES, remember=timedelta(days=14)
    )
    stale = usage._records("msg1") + usage._records("msg2")
    usage.give_back({"msg1"})
    usage._give_back_together(stale)
    assert mailbox_of(counted)["used_bytes"] == "0"


@pytest.mark.parametrize("collisions", [0, 2])
def test_deletions_of_a_mailbox_that_is_gone_are_marked_and_make_none(
    counted: DynamoDBClient, collisions: int
) -> None:
    """Its marks are written one by one then, and may collide; nothing is left to be tried again."""
    counted.put_item(TableName=BOUNCES, Item=_record("msg2", 50))
    counted.delete_item(TableName=MAILBOXES, Key={"address": {"S": ALICE}})
    gone = [{"Code": "None"}, {"Code": "None"}, {"Code": "ConditionalCheckFailed"}]
    collided = [{"Code": "TransactionConflict"}]
    fail(
        counted,
        "TransactWriteItems",
        *(
            Answer(code="TransactionCanceledException", more={"CancellationReasons": reasons})
            for reasons in [gone, *[collided] * collisions]
        ),
    )
    assert deleted(PREFIX + "msg1", PREFIX + "msg2") == []
    for message_id in ("msg1", "msg2"):
        record = stored(counted, BOUNCES, pk=f"message#{message_id}", sk=f"usage#{ALICE}")
        assert {"returned_at", "expires_at"} <= set(record)
    assert stored(counted, MAILBOXES, address=ALICE) == {}
    put_mailbox(counted, used_bytes=7)
    assert deleted(PREFIX + "msg1", PREFIX + "msg2") == []
    assert mailbox_of(counted)["used_bytes"] == "7"


def test_what_cannot_be_read_comes_back_until_it_is_a_dead_letter(
    counted: DynamoDBClient,
) -> None:
    context = Context(function_name="ses-bouncer-usage")
    answer = app.handler({"Records": [{"messageId": "x", "body": "{}"}]}, context)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "x"}]}
