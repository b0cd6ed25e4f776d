"""The scheduled function that keeps the receipt rules in step with the directory."""

import boto3
import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_ses import SESClient

from bouncer.aws import clients
from functions.receipt_rules import app
from tests.integration.builders import (
    ALICE,
    BOUNCES,
    MAILBOXES,
    Answer,
    Context,
    create_mailbox_table,
    fail,
    item,
    know_domain,
    put_mailbox,
    requests_of,
    stored,
)
from tests.integration.conftest import Printed, Services

SET, BASE = "inbound", "ses-bouncer"


@pytest.fixture
def ses(
    monkeypatch: pytest.MonkeyPatch,
    services: Services,
    printed: Printed,
) -> SESClient:
    """With the deployed rule, which names nobody yet."""
    know_domain(services.dynamodb)
    services.start(
        monkeypatch, SEND_INTERVAL_SECONDS="0.001", RECEIPT_RULE_SET=SET, RECEIPT_RULE=BASE
    )
    client: SESClient = boto3.client("ses")
    client.create_receipt_rule_set(RuleSetName=SET)
    client.create_receipt_rule(RuleSetName=SET, Rule={"Name": BASE, "Enabled": True, "Actions": []})
    monkeypatch.setattr(clients, "ses_rules", lambda: client)
    return client


def run() -> None:
    context = Context(function_name="ses-bouncer-rules")
    app.handler({}, context)


def recipients(ses: SESClient) -> list[str]:
    (only,) = ses.describe_receipt_rule_set(RuleSetName=SET)["Rules"]
    return sorted(only.get("Recipients", []))


def test_each_call_takes_its_turn_in_the_stacks_pace(
    ses: SESClient, dynamodb: DynamoDBClient
) -> None:
    """And where there is none, as the table does not answer, it is made all the same."""
    put_mailbox(dynamodb, ALICE)
    run()
    first = float(stored(dynamodb, BOUNCES, pk="limiter", sk="send-bounce")["next_slot"])
    run()
    assert float(stored(dynamodb, BOUNCES, pk="limiter", sk="send-bounce")["next_slot"]) > first
    dynamodb.delete_table(TableName=BOUNCES)
    put_mailbox(dynamodb, "bob@example.com")
    run()
    assert recipients(ses) == [ALICE, "bob@example.com"]


def test_the_rules_name_the_directorys_addresses(
    ses: SESClient, dynamodb: DynamoDBClient, printed: Printed
) -> None:
    put_mailbox(dynamodb, ALICE)
    put_mailbox(dynamodb, "closed@example.com", status="disabled")
    put_mailbox(dynamodb, "@shop.example.com")
    run()
    assert recipients(ses) == [ALICE, "closed@example.com", "shop.example.com"]
    line = printed.line("rules in step")
    assert (line["changed"], line["recipients"]) == ([BASE], 3)
    assert line["whole_domains"] == ["shop.example.com"]


def test_a_run_that_finds_everything_in_step_changes_nothing(
    ses: SESClient, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, ALICE)
    run()
    seen = requests_of(ses)
    run()
    assert "UpdateReceiptRule" not in seen


def test_a_mailbox_that_was_removed_is_named_no_more(
    ses: SESClient, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, ALICE)
    put_mailbox(dynamodb, "bob@example.com")
    run()
    dynamodb.delete_item(TableName=MAILBOXES, Key={"address": {"S": "bob@example.com"}})
    run()
    assert recipients(ses) == [ALICE]


def test_a_table_of_the_users_own_is_read_under_its_own_names(
    ses: SESClient, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_mailbox_table(dynamodb, "users", key="email")
    for entry in ({"email": ALICE}, {"email": "@shop.example.com", "everyone": True}):
        dynamodb.put_item(TableName="users", Item=item(**entry))
    monkeypatch.setenv("MAILBOX_TABLE", "users")
    monkeypatch.setenv("MAILBOX_ATTRIBUTES", "address=email,catch_all=everyone")
    monkeypatch.setenv("MAILBOX_DOMAINS", "example.com")
    run()
    assert recipients(ses) == [ALICE, "shop.example.com"]


def test_a_mailbox_that_cannot_be_read_stays_named_and_stops_nothing(
    ses: SESClient, dynamodb: DynamoDBClient, printed: Printed
) -> None:
    put_mailbox(dynamodb, ALICE, quota_bytes="much")
    put_mailbox(dynamodb, "bob@example.com")
    run()
    assert recipients(ses) == [ALICE, "bob@example.com"]
    line = printed.line("MailboxItemInvalid")
    assert line["mailbox"] == ALICE
    assert "quota_bytes" in line["detail"]


def test_an_empty_directory_leaves_the_rules_as_they_are_and_says_why(
    ses: SESClient, printed: Printed
) -> None:
    """A rule without recipients would take mail for everyone."""
    run()
    assert recipients(ses) == []
    assert "the directory is empty" in printed.line("rules not in step")["why"]


def test_without_the_deployed_rule_nothing_is_changed_and_it_says_why(
    ses: SESClient, dynamodb: DynamoDBClient, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_mailbox(dynamodb, ALICE)
    monkeypatch.setenv("RECEIPT_RULE", "another")
    run()
    assert "has no rule another" in printed.line("rules not in step")["why"]


def test_a_failure_of_ses_is_raised_and_the_next_run_begins_anew(
    ses: SESClient, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, ALICE)
    fail(ses, "UpdateReceiptRule", Answer(code="LimitExceeded"))
    with pytest.raises(ses.exceptions.LimitExceededException):
        run()
    run()
    assert recipients(ses) == [ALICE]
