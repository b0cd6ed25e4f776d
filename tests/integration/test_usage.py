"""Usage in DynamoDB: what it costs, leaves behind and does when transactions collide."""

from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws.usage import DynamoUsage
from bouncer.mailboxes import Mailbox
from bouncer.usage import Charged, Full, UsageBusyError, UsageUnavailableError
from tests.contract.test_usage import NOON, REMEMBER, At
from tests.integration.builders import (
    ALICE,
    BOUNCES,
    MAILBOXES,
    Answer,
    fail,
    mailbox_of,
    requests_of,
    stored,
)


@pytest.fixture
def at(dynamodb: DynamoDBClient) -> At:
    at = At(dynamodb)
    at.put(ALICE, quota_bytes=1000)
    return at


def record_of(dynamodb: DynamoDBClient, message_id: str = "msg1") -> dict[str, str]:
    return stored(dynamodb, BOUNCES, pk=f"message#{message_id}", sk=f"usage#{ALICE}")


@pytest.mark.parametrize("enforce", [True, False])
def test_a_mailbox_that_was_removed_since_the_look_up_costs_one_transaction_and_no_record(
    at: At, dynamodb: DynamoDBClient, enforce: bool
) -> None:
    seen = at.mailbox()
    at.remove(ALICE)
    asked = requests_of(dynamodb)
    at.charge(mailbox=seen, enforce=enforce)
    assert asked == ["TransactWriteItems"]
    assert (mailbox_of(dynamodb), record_of(dynamodb)) == ({}, {})


def test_a_mail_of_a_mailbox_that_is_gone_is_marked_as_given_back(
    at: At, dynamodb: DynamoDBClient
) -> None:
    at.charge()
    at.remove(ALICE)
    at.usage.give_back({"msg1"})
    assert "returned_at" in record_of(dynamodb)


def conflict() -> Answer:
    """Another transaction was at the same mailbox."""
    reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
    return Answer(code="TransactionCanceledException", more={"CancellationReasons": reasons})


def test_a_record_stays_as_long_as_the_mail_and_a_little_longer(
    at: At, dynamodb: DynamoDBClient
) -> None:
    at.charge()
    assert "expires_at" not in record_of(dynamodb)
    at.usage.give_back({"msg1"})
    assert float(record_of(dynamodb)["expires_at"]) == (NOON + REMEMBER).timestamp()


def test_forgetting_a_mail_leaves_the_counter_alone(at: At, dynamodb: DynamoDBClient) -> None:
    at.charge()
    usage = DynamoUsage(dynamodb, bounce_table=BOUNCES, mailbox_table=MAILBOXES, remember=REMEMBER)
    usage.forget("msg1")
    assert at.used == 100
    assert "returned_at" in record_of(dynamodb)
    assert at.usage.give_back({"msg1"}) == set()
    assert at.used == 100


@pytest.mark.parametrize("conflicts", [1, 5, 11])
def test_transactions_that_collide_are_tried_again_after_growing_pauses(
    at: At, dynamodb: DynamoDBClient, conflicts: int
) -> None:
    fail(dynamodb, "TransactWriteItems", *[conflict()] * conflicts)
    assert isinstance(at.charge(), Charged)
    assert at.used == 100
    assert len(at.pauses) == conflicts
    assert all(pause <= min(0.01 * 2**n, 0.8) for n, pause in enumerate(at.pauses))


def test_collisions_without_end_are_given_up(at: At, dynamodb: DynamoDBClient) -> None:
    fail(dynamodb, "TransactWriteItems", *[conflict()] * 100)
    with pytest.raises(UsageBusyError):
        at.charge()
    assert at.used == 0


def test_who_collides_with_the_mail_that_filled_the_mailbox_is_refused_without_another_try(
    at: At, dynamodb: DynamoDBClient
) -> None:
    before = at.mailbox()
    at.charge("msg1", size=1000)
    fail(dynamodb, "TransactWriteItems", conflict())
    seen = requests_of(dynamodb)
    full = at.charge("msg2", mailbox=before)
    assert isinstance(full, Full)
    assert full.mailbox.used_bytes == 1000
    assert seen == ["TransactWriteItems", "GetItem", "GetItem"]


def test_who_collides_with_himself_is_counted_once_though_he_filled_the_mailbox(
    at: At, dynamodb: DynamoDBClient
) -> None:
    before = at.mailbox()
    at.charge("msg1", size=1000)
    fail(dynamodb, "TransactWriteItems", conflict())
    again = at.charge("msg1", size=1000, mailbox=before)
    assert again == Charged(mailbox=at.mailbox(), repeated=True)
    assert at.used == 1000


def test_giving_back_is_tried_again_too(at: At, dynamodb: DynamoDBClient) -> None:
    at.charge()
    fail(dynamodb, "TransactWriteItems", *[conflict()] * 3)
    assert at.usage.give_back({"msg1"}) == set()
    assert at.used == 0
    assert len(at.pauses) == 3


def test_giving_back_is_given_up_in_the_end(at: At, dynamodb: DynamoDBClient) -> None:
    at.charge()
    fail(dynamodb, "TransactWriteItems", *[conflict()] * 50)
    assert at.usage.give_back({"msg1"}) == {"msg1"}


TROUBLES: list[Answer | Exception] = [
    Answer(code="ProvisionedThroughputExceededException"),
    Answer(code="InternalServerError", status=500),
    EndpointConnectionError(endpoint_url="https://dynamodb"),
]


@pytest.mark.parametrize(
    "trouble", TROUBLES, ids=lambda each: getattr(each, "code", type(each).__name__)
)
def test_counters_that_do_not_answer_are_an_error(
    at: At, dynamodb: DynamoDBClient, trouble: Any
) -> None:
    fail(dynamodb, "TransactWriteItems", trouble)
    fail(dynamodb, "Query", trouble)
    with pytest.raises(UsageUnavailableError):
        at.charge()
    assert at.usage.give_back({"msg1"}) == {"msg1"}


def test_a_charge_costs_one_transaction_a_recipient(at: At, dynamodb: DynamoDBClient) -> None:
    seen = requests_of(dynamodb)
    mailbox = Mailbox(address=ALICE, quota_bytes=1000)
    at.charge(mailbox=mailbox)
    at.charge(mailbox=mailbox)
    assert seen == ["TransactWriteItems"] * 2
