"""`bouncer rules`."""

import re
from functools import partial
from typing import Any

import boto3
import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_ses import SESClient

from bouncer.aws import receipt_rules
from bouncer.limiter import Limiter
from bouncer_console import deployment
from tests.integration.builders import (
    ALICE,
    know_domain,
    put_mailbox,
)
from tests.integration.conftest import VirtualTime
from tests.integration.console.builders import (
    Stack,
    bouncer,
    error_of,
    printed_json,
    text_of,
)


@pytest.fixture
def rules(stack: Stack, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch) -> SESClient:
    """Two rule sets; in one of them is the deployed rule."""
    time = VirtualTime()
    limiter = partial(Limiter, clock=time.clock, monotonic=time.monotonic, sleep=time.sleep)
    monkeypatch.setattr(deployment, "Limiter", limiter)
    know_domain(dynamodb)
    client: SESClient = boto3.client("ses")
    for name in ("inbound", "other"):
        client.create_receipt_rule_set(RuleSetName=name)
    rule: Any = {"Name": "ses-bouncer", "Enabled": True, "Actions": [], "Recipients": []}
    client.create_receipt_rule(RuleSetName="inbound", Rule=rule)
    return client


def test_a_stack_that_stops_the_whole_set_is_not_narrowed(
    rules: SESClient, stack: Stack, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb)
    stack.outputs["RefusedMailStops"] = "rule-set"
    assert "StopScope=rule" in error_of("rules", "sync", "--yes")
    rule = rules.describe_receipt_rule(RuleSetName="inbound", RuleName="ses-bouncer")["Rule"]
    assert rule["Recipients"] == []


def active(rules: SESClient) -> str | None:
    return rules.describe_active_receipt_rule_set().get("Metadata", {}).get("Name")


def test_a_rule_set_is_made_the_active_one(rules: SESClient) -> None:
    assert "inbound is the active rule set now." in text_of("rules", "activate", "inbound")
    assert active(rules) == "inbound"


def test_the_active_one_may_be_activated_again(rules: SESClient) -> None:
    bouncer("rules", "activate", "inbound")
    assert "already" in text_of("rules", "activate", "inbound")


def test_another_active_set_is_not_replaced(rules: SESClient) -> None:
    rules.set_active_receipt_rule_set(RuleSetName="other")
    complaint = error_of("rules", "activate", "inbound")
    assert "other is the active rule set, and its rules would stop working" in complaint
    assert "bouncer rules activate inbound --replace" in complaint
    assert active(rules) == "other"


def test_another_active_set_is_replaced_when_told_to(rules: SESClient) -> None:
    rules.set_active_receipt_rule_set(RuleSetName="other")
    assert "instead of other" in text_of("rules", "activate", "inbound", "--replace")
    assert active(rules) == "inbound"


def test_a_rule_set_that_is_not_there_is_named(rules: SESClient) -> None:
    assert "RuleSetDoesNotExist" in error_of("rules", "activate", "nowhere")
    assert active(rules) is None


def named(rules: SESClient) -> list[str]:
    (only,) = rules.describe_receipt_rule_set(RuleSetName="inbound")["Rules"]
    return sorted(only.get("Recipients", []))


def test_a_sync_shows_the_difference_first(rules: SESClient, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb)
    rules.set_active_receipt_rule_set(RuleSetName="inbound")
    report = printed_json("rules", "sync", "--dry-run")
    assert report == {
        "changes": [
            {
                "name": "ses-bouncer",
                "after": None,
                "recipients": [ALICE],
                "added": [ALICE],
                "removed": [],
                "new": False,
                "narrows": True,
                "settings": False,
            }
        ],
        "hints": [],
        "dry_run": True,
    }
    assert f"+{ALICE}" in text_of("rules", "sync", "--dry-run")
    assert named(rules) == []


def test_a_sync_names_the_directorys_addresses(rules: SESClient, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb)
    put_mailbox(dynamodb, "bob@example.com")
    assert "2 recipients are named" in bouncer("rules", "sync", "--yes").stderr
    assert named(rules) == [ALICE, "bob@example.com"]
    assert "in step with the directory" in text_of("rules", "sync", "--yes")


def test_a_sync_with_json_prints_the_changes_and_makes_them(
    rules: SESClient, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb)
    report = printed_json("rules", "sync", "--yes")
    assert [change["added"] for change in report["changes"]] == [[ALICE]]
    assert named(rules) == [ALICE]


@pytest.mark.parametrize(("typed", "code", "changed"), [("y\n", 0, True), ("n\n", 1, False)])
def test_a_sync_asks_before_it_changes_anything(
    rules: SESClient, dynamodb: DynamoDBClient, typed: str, code: int, changed: bool
) -> None:
    put_mailbox(dynamodb)
    result = bouncer("rules", "sync", typed=typed, code=code)
    assert "Change 1 rules of inbound?" in result.stderr
    assert named(rules) == ([ALICE] if changed else [])


def test_a_sync_says_where_ses_cannot_refuse(rules: SESClient, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, "@example.com")
    rules.set_active_receipt_rule_set(RuleSetName="inbound")
    other: Any = {"Name": "other", "Enabled": True, "Actions": [], "Recipients": ["example.org"]}
    rules.create_receipt_rule(RuleSetName="inbound", Rule=other)
    hints = printed_json("rules", "sync", "--dry-run")["hints"]
    assert [re.split(r"[ ,]", hint)[0] for hint in hints] == ["example.com", "the"]
    assert "SES refuses nobody there" in hints[0]
    assert "the rule other" in hints[1]


@pytest.mark.parametrize("is_active", [None, "other"])
def test_a_sync_says_when_its_rule_set_is_not_the_active_one(
    rules: SESClient, dynamodb: DynamoDBClient, is_active: str | None
) -> None:
    put_mailbox(dynamodb)
    if is_active:
        rules.set_active_receipt_rule_set(RuleSetName=is_active)
    hint = (
        "inbound is not the active rule set: nothing happens before "
        "`bouncer rules activate inbound`"
    )
    assert printed_json("rules", "sync", "--dry-run")["hints"] == [hint]
    assert f"note: {hint}" in bouncer("rules", "sync", "--yes").stdout
    assert named(rules) == [ALICE]


def test_a_sync_names_a_mailbox_that_cannot_be_read(
    rules: SESClient, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, quota_bytes="much")
    assert f"{ALICE}: " in bouncer("rules", "sync", "--yes").stderr
    assert named(rules) == [ALICE]


def test_a_sync_of_an_empty_directory_is_refused(rules: SESClient) -> None:
    assert "the directory is empty" in error_of("rules", "sync", "--yes")
    assert named(rules) == []


def test_a_sync_without_the_deployed_rule_is_refused(
    rules: SESClient, stack: Stack, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb)
    stack.outputs["ReceiptRule"] = "another"
    assert "has no rule another: deploy it first" in error_of("rules", "sync", "--yes")


def test_an_interrupted_sync_says_what_holds_and_the_next_one_goes_on(
    rules: SESClient, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule for everyone is narrowed last: until then nobody in the directory is refused."""
    for number in range(600):
        put_mailbox(dynamodb, f"user{number:03d}@example.com")
    whole = receipt_rules.ReceiptRules._apply
    calls = 0

    def breaks_off(self: Any, *change: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError("the connection is gone")
        whole(self, *change)

    monkeypatch.setattr(receipt_rules.ReceiptRules, "_apply", breaks_off)
    complaint = error_of("rules", "sync", "--yes")
    assert "1 of 2 changes are made. ses-bouncer is still for everyone" in complaint
    assert "bouncer rules sync" in complaint
    standing = rules.describe_receipt_rule_set(RuleSetName="inbound")["Rules"]
    assert [len(rule.get("Recipients", [])) for rule in standing] == [0, 100]
    bouncer("rules", "sync", "--yes")
    standing = rules.describe_receipt_rule_set(RuleSetName="inbound")["Rules"]
    assert [len(rule["Recipients"]) for rule in standing] == [500, 100]
