"""The table as people and imports write it: usage is the mail's own, and is left alone."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws.mailbox_table import USAGE_FIELDS, Change, MailboxTable
from bouncer.mailboxes import Mailbox, Status
from tests.integration.builders import (
    ALICE,
    MAILBOXES,
    NOBODY,
    Answer,
    fail,
    mailbox_of,
    put_mailbox,
    requests_of,
)

WHOLE = Mailbox(
    address=ALICE,
    status=Status.DISABLED,
    status_until=datetime(2026, 12, 1, tzinfo=UTC),
    quota_bytes=1000,
    used_bytes=10,
    quota_messages_per_day=5,
    messages_day="2026-11-21",
    messages_today=2,
    size_limit_bytes=100,
    alias_for="bob@example.com",
    moved_to="alice@new.example",
    tell_new_address=True,
    catch_all=False,
    separator="",
)


@pytest.fixture
def table(dynamodb: DynamoDBClient) -> MailboxTable:
    return MailboxTable(dynamodb, MAILBOXES)


def only(table: MailboxTable) -> Mailbox:
    (mailbox,) = table.scan()
    return mailbox


@pytest.mark.parametrize("mailbox", [Mailbox(address=ALICE), WHOLE], ids=["bare", "whole"])
def test_an_entry_comes_back_as_it_was_added(table: MailboxTable, mailbox: Mailbox) -> None:
    assert table.add(mailbox)
    assert only(table) == mailbox
    assert table.get([ALICE]) == {ALICE: mailbox}


def test_an_entry_that_exists_is_not_added_again(table: MailboxTable) -> None:
    table.add(Mailbox(address=ALICE, quota_bytes=1))
    assert not table.add(Mailbox(address=ALICE, quota_bytes=2))
    assert only(table).quota_bytes == 1


def test_a_change_sets_and_removes_what_it_names_and_nothing_else(table: MailboxTable) -> None:
    table.add(WHOLE)
    assert table.change(ALICE, {"quota_bytes": 7, "tell_new_address": False}, ["moved_to"])
    after = only(table)
    assert (after.quota_bytes, after.tell_new_address, after.moved_to) == (7, False, None)
    assert (after.used_bytes, after.size_limit_bytes) == (10, 100)


def test_a_change_that_only_removes_works(table: MailboxTable) -> None:
    table.add(WHOLE)
    assert table.change(ALICE, {}, ["quota_bytes", "status_until"])
    assert (only(table).quota_bytes, only(table).status_until) == (None, None)


def test_what_has_no_entry_is_neither_changed_nor_removed_nor_made(table: MailboxTable) -> None:
    assert not table.change(ALICE, {"quota_bytes": 7})
    assert not table.remove(ALICE)
    assert list(table.scan()) == []


def test_an_entry_is_removed(table: MailboxTable) -> None:
    table.add(Mailbox(address=ALICE))
    assert table.remove(ALICE)
    assert table.get([ALICE]) == {}


def test_a_write_that_fails_for_another_reason_is_an_error(
    table: MailboxTable, dynamodb: DynamoDBClient
) -> None:
    fail(dynamodb, "PutItem", Answer(code="AccessDeniedException"))
    with pytest.raises(ClientError, match="AccessDenied"):
        table.add(Mailbox(address=ALICE))


# --- Imports ---------------------------------------------------------------------------------


def kinds(changes: list[Change]) -> dict[str, str]:
    return {change.address: change.kind for change in changes}


def test_an_import_adds_changes_and_leaves_alone(table: MailboxTable) -> None:
    table.add(Mailbox(address="same@example.com", quota_bytes=1))
    table.add(Mailbox(address="other@example.com", quota_bytes=1))
    changes = table.put(
        [
            Mailbox(address="same@example.com", quota_bytes=1),
            Mailbox(address="other@example.com", quota_bytes=2),
            Mailbox(address="new@example.com"),
        ]
    )
    assert kinds(changes) == {
        "same@example.com": "unchanged",
        "other@example.com": "changed",
        "new@example.com": "added",
    }
    quotas = {box.address: box.quota_bytes for box in table.scan()}
    assert quotas == {"same@example.com": 1, "other@example.com": 2, "new@example.com": None}


def test_a_change_says_what_was_and_what_becomes(table: MailboxTable) -> None:
    table.add(Mailbox(address=ALICE, quota_bytes=1, moved_to="alice@new.example"))
    (change,) = table.put([Mailbox(address=ALICE, quota_bytes=2)], dry_run=True)
    assert change.fields == {"quota_bytes": (1, 2), "moved_to": ("alice@new.example", None)}


def test_a_dry_run_changes_nothing(table: MailboxTable) -> None:
    table.add(Mailbox(address=ALICE, quota_bytes=1))
    changes = table.put(
        [Mailbox(address=ALICE, quota_bytes=2), Mailbox(address=NOBODY)], dry_run=True
    )
    assert kinds(changes) == {ALICE: "changed", NOBODY: "added"}
    assert only(table).quota_bytes == 1


@pytest.mark.parametrize("given", [{}, {"used_bytes": 0}, {"used_bytes": 9, "messages_today": 9}])
def test_an_import_never_touches_the_usage_of_an_entry(
    table: MailboxTable, dynamodb: DynamoDBClient, given: dict[str, Any]
) -> None:
    put_mailbox(dynamodb, used_bytes=500, messages_day="2026-11-21", messages_today=3)
    (change,) = table.put([Mailbox(address=ALICE, quota_bytes=1000, **given)])
    assert not USAGE_FIELDS & set(change.fields)
    after = mailbox_of(dynamodb)
    assert (after["used_bytes"], after["messages_day"], after["messages_today"]) == (
        "500",
        "2026-11-21",
        "3",
    )
    assert after["quota_bytes"] == "1000"


def test_an_import_keeps_attributes_that_are_none_of_ours(
    table: MailboxTable, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, department="Sales")
    table.put([Mailbox(address=ALICE, quota_bytes=2)])
    assert mailbox_of(dynamodb)["department"] == "Sales"


def test_an_entry_that_is_named_twice_in_a_batch_gets_what_came_last(table: MailboxTable) -> None:
    table.put([Mailbox(address=ALICE, quota_bytes=1), Mailbox(address=ALICE, quota_bytes=2)])
    assert only(table).quota_bytes == 2


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are noted, not taken."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def hundred() -> Iterator[Mailbox]:
    return (Mailbox(address=f"user{number}@example.com") for number in range(100))


def test_a_hundred_new_entries_cost_one_read_and_four_writes(
    table: MailboxTable, dynamodb: DynamoDBClient
) -> None:
    seen = requests_of(dynamodb)
    table.put(list(hundred()))
    assert seen == ["BatchGetItem", *["BatchWriteItem"] * 4]
    assert len(list(table.scan())) == 100


def test_what_is_as_it_should_be_costs_no_write(
    table: MailboxTable, dynamodb: DynamoDBClient
) -> None:
    table.put(list(hundred()))
    seen = requests_of(dynamodb)
    assert set(kinds(table.put(list(hundred()))).values()) == {"unchanged"}
    assert seen == ["BatchGetItem"]


def test_what_was_left_unwritten_is_written_again_after_a_pause(
    table: MailboxTable, dynamodb: Any, quick: list[float]
) -> None:
    left: list[Any] = []

    def keep_back(params: dict[str, Any], **_: Any) -> dict[str, Any]:
        requests = params["RequestItems"][MAILBOXES]
        left[:] = requests[10:]
        return {"RequestItems": {MAILBOXES: requests[:10]}}

    def tell(parsed: dict[str, Any], **_: Any) -> None:
        if left:
            parsed["UnprocessedItems"] = {MAILBOXES: list(left)}

    dynamodb.meta.events.register("provide-client-params.dynamodb.BatchWriteItem", keep_back)
    dynamodb.meta.events.register("after-call.dynamodb.BatchWriteItem", tell)
    table.put([Mailbox(address=f"user{number}@example.com") for number in range(25)])
    assert len(list(table.scan())) == 25
    assert quick == [0.05, 0.1]


def test_what_was_left_unread_is_read_again(table: MailboxTable, dynamodb: DynamoDBClient) -> None:
    table.add(Mailbox(address=ALICE))
    answers = [{MAILBOXES: {"Keys": [{"address": {"S": ALICE}}]}}]

    def tell(parsed: dict[str, Any], **_: Any) -> None:
        if answers:
            parsed["Responses"] = {}
            parsed["UnprocessedKeys"] = answers.pop()

    dynamodb.meta.events.register("after-call.dynamodb.BatchGetItem", tell)
    assert set(table.get([ALICE])) == {ALICE}
