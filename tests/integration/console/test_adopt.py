"""`bouncer adopt`."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws.usage import DynamoUsage
from bouncer.delivery.ledger import BounceState
from bouncer.mailboxes import Mailbox
from tests.integration.builders import ALICE, BOUNCES, MAILBOXES, mailbox_of, put_mailbox
from tests.integration.console.builders import Stack, error_of, printed_json, settle, text_of

OLD = "ses-bouncer-BounceTable-OLD"


@pytest.fixture
def old(stack: Stack, dynamodb: DynamoDBClient) -> DynamoDBClient:
    """An earlier stack's table, which knows of a mail that was counted and one that was bounced."""
    described = dynamodb.describe_table(TableName=BOUNCES)["Table"]
    dynamodb.create_table(
        TableName=OLD,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=described["AttributeDefinitions"],
        KeySchema=described["KeySchema"],
    )
    put_mailbox(dynamodb)
    usage_in(dynamodb, OLD).charge(
        Mailbox(address=ALICE), "stored", 100, datetime.now(UTC) - timedelta(days=9), enforce=True
    )
    items: list[dict[str, Any]] = [
        {"pk": {"S": "message#told"}, "sk": {"S": "recipient#x@example.com"}},
        {"pk": {"S": "limiter"}, "sk": {"S": "send-bounce"}, "next_slot": {"N": "9"}},
        {"pk": {"S": "key"}, "sk": {"S": "log"}, "secret": {"B": b"old"}},
        {"pk": {"S": "budget#domain#sender.example"}, "sk": {"S": "period#86400"}},
    ]
    for item in items:
        dynamodb.put_item(TableName=OLD, Item=item)
    return dynamodb


def usage_in(dynamodb: DynamoDBClient, table: str) -> DynamoUsage:
    return DynamoUsage(
        dynamodb, bounce_table=table, mailbox_table=MAILBOXES, remember=timedelta(days=14)
    )


def items_of(dynamodb: DynamoDBClient) -> set[tuple[str, str]]:
    items = dynamodb.scan(TableName=BOUNCES)["Items"]
    return {(each["pk"]["S"], each["sk"]["S"]) for each in items}


def test_a_mail_of_before_is_given_back_once_its_record_is_adopted(old: DynamoDBClient) -> None:
    assert mailbox_of(old)["used_bytes"] == "100"
    assert "2 records were taken over" in text_of("adopt", OLD)
    assert usage_in(old, BOUNCES).give_back({"stored"}) == set()
    assert mailbox_of(old)["used_bytes"] == "0"


def test_only_what_is_known_of_mails_is_taken_over(old: DynamoDBClient) -> None:
    printed_json("adopt", OLD)
    assert {pk for pk, _ in items_of(old)} == {"message#stored", "message#told"}


def test_what_waited_in_the_old_queue_is_left_out_for_nobody_will_send_it(
    old: DynamoDBClient,
) -> None:
    for state in (BounceState.QUEUED, BounceState.CLAIMED, BounceState.SENT):
        item: dict[str, Any] = {
            "pk": {"S": f"message#{state}"},
            "sk": {"S": "recipient#x@y.example"},
        }
        old.put_item(TableName=OLD, Item=item | {"state": {"S": state}})
    printed_json("adopt", OLD)
    assert {pk for pk, _ in items_of(old)} == {"message#stored", "message#told", "message#sent"}


def test_what_this_stack_knows_itself_stays_and_it_may_be_repeated(old: DynamoDBClient) -> None:
    settle(old, BounceState.SENT, message_id="msg1")
    standing = old.scan(TableName=BOUNCES)["Items"]
    (line,) = standing
    key = {"pk": line["pk"], "sk": line["sk"]}
    old.put_item(TableName=OLD, Item={**key, "state": {"S": "rejected"}})
    assert printed_json("adopt", OLD) == {"from": OLD, "to": BOUNCES, "copied": 2, "known": 1}
    assert old.get_item(TableName=BOUNCES, Key=key)["Item"] == line
    assert printed_json("adopt", OLD) == {"from": OLD, "to": BOUNCES, "copied": 0, "known": 3}


def test_its_own_table_or_none_is_an_error(stack: Stack) -> None:
    assert "this stack's own" in error_of("adopt", BOUNCES)
    assert "not found" in error_of("adopt", "nowhere").lower()


def test_a_table_that_is_no_ledger_is_an_error(old: DynamoDBClient) -> None:
    """Who mistakes the directory for it would delete the ledger next."""
    assert "-BounceTable-" in error_of("adopt", MAILBOXES)
    old.create_table(
        TableName="notes",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )
    old.put_item(TableName="notes", Item={"pk": {"S": "message#1"}})
    assert "-BounceTable-" in error_of("adopt", "notes")
    assert items_of(old) == set()
