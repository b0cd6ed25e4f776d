"""The table as people and imports write it: usage is the mail's own, and is left alone."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws.mailbox_table import USAGE_FIELDS, Change, MailboxEntry, MailboxTable
from bouncer.mailboxes import Mailbox, Status
from tests.fakes.bounces import NOBODY
from tests.integration.builders import (
    ALICE,
    MAILBOXES,
    Answer,
    create_mailbox_table,
    fail,
    mailbox_of,
    put_mailbox,
    requests_of,
    stored,
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


def entry(address: str = ALICE, **fields: Any) -> MailboxEntry:
    """What a file has of an address; a field that is None is named to be emptied."""
    return MailboxEntry(mailbox=Mailbox(address=address, **fields), named=frozenset(fields))


def kinds(changes: list[Change]) -> dict[str, str]:
    return {change.address: change.kind for change in changes}


def test_an_import_adds_changes_and_leaves_alone(table: MailboxTable) -> None:
    table.add(Mailbox(address="same@example.com", quota_bytes=1))
    table.add(Mailbox(address="other@example.com", quota_bytes=1))
    changes = table.put(
        [
            entry("same@example.com", quota_bytes=1),
            entry("other@example.com", quota_bytes=2),
            entry("new@example.com"),
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
    (change,) = table.put([entry(quota_bytes=2, moved_to=None)], dry_run=True)
    assert change.fields == {"quota_bytes": (1, 2), "moved_to": ("alice@new.example", None)}


def test_a_field_that_an_entry_names_without_a_value_is_emptied(
    table: MailboxTable, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, quota_bytes=1, size_limit_bytes=9)
    table.put([entry(quota_bytes=None)])
    assert mailbox_of(dynamodb) == {"address": ALICE, "size_limit_bytes": "9"}


def test_a_field_that_is_empty_already_is_not_emptied_again(table: MailboxTable) -> None:
    table.put([entry()])
    assert kinds(table.put([entry(quota_bytes=None, moved_to=None)])) == {ALICE: "unchanged"}


def test_fields_that_an_entry_does_not_name_stay(table: MailboxTable) -> None:
    table.add(WHOLE)
    (change,) = table.put([entry(quota_bytes=2000)])
    assert change.fields == {"quota_bytes": (1000, 2000)}
    assert only(table) == msgspec.structs.replace(WHOLE, quota_bytes=2000)


def test_an_entry_that_names_nothing_changes_nothing(table: MailboxTable) -> None:
    table.add(WHOLE)
    assert kinds(table.put([entry()])) == {ALICE: "unchanged"}
    assert only(table) == WHOLE


def test_a_dry_run_changes_nothing(table: MailboxTable) -> None:
    table.add(Mailbox(address=ALICE, quota_bytes=1))
    changes = table.put([entry(quota_bytes=2), entry(NOBODY)], dry_run=True)
    assert kinds(changes) == {ALICE: "changed", NOBODY: "added"}
    assert only(table).quota_bytes == 1


@pytest.mark.parametrize("given", [{}, {"used_bytes": 0}, {"used_bytes": 9, "messages_today": 9}])
def test_an_import_never_touches_the_usage_of_an_entry(
    table: MailboxTable, dynamodb: DynamoDBClient, given: dict[str, Any]
) -> None:
    put_mailbox(dynamodb, used_bytes=500, messages_day="2026-11-21", messages_today=3)
    (change,) = table.put([entry(quota_bytes=1000, **given)])
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
    table.put([entry(quota_bytes=2)])
    assert mailbox_of(dynamodb)["department"] == "Sales"


def test_an_entry_that_is_named_twice_in_a_batch_gets_what_came_last(table: MailboxTable) -> None:
    table.put([entry(quota_bytes=1), entry(quota_bytes=2)])
    assert only(table).quota_bytes == 2


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are noted, not taken."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def hundred() -> Iterator[MailboxEntry]:
    return (entry(f"user{number}@example.com") for number in range(100))


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
    table.put([entry(f"user{number}@example.com") for number in range(25)])
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


def test_a_scan_sees_what_was_just_written(table: MailboxTable, dynamodb: DynamoDBClient) -> None:
    asked: list[Any] = []

    def note(params: dict[str, Any], **_: Any) -> None:
        asked.append(params.get("ConsistentRead"))

    dynamodb.meta.events.register("provide-client-params.dynamodb.Scan", note)
    list(table.scan())
    assert asked == [True]


# --- A table of the user's own ---------------------------------------------------------------

USERS = "users"
NAMES = {"address": "email", "status": "state", "quota_bytes": "quota"}


@pytest.fixture
def users(dynamodb: DynamoDBClient) -> MailboxTable:
    """A table whose attributes have names of its own."""
    create_mailbox_table(dynamodb, USERS, key="email")
    return MailboxTable(dynamodb, USERS, names=NAMES)


def user_of(dynamodb: DynamoDBClient) -> dict[str, str]:
    return stored(dynamodb, USERS, email=ALICE)


def test_fields_stand_under_the_tables_own_names(
    users: MailboxTable, dynamodb: DynamoDBClient
) -> None:
    assert users.add(WHOLE)
    assert user_of(dynamodb).keys() == {
        NAMES.get(field, field) for field in Mailbox.__struct_fields__
    }
    assert only(users) == WHOLE
    assert users.get([ALICE]) == {ALICE: WHOLE}


def test_an_entry_that_exists_under_the_tables_own_key_is_not_added_again(
    users: MailboxTable,
) -> None:
    users.add(Mailbox(address=ALICE, quota_bytes=1))
    assert not users.add(Mailbox(address=ALICE, quota_bytes=2))
    assert only(users).quota_bytes == 1


def test_a_change_sets_and_removes_the_tables_own_names(
    users: MailboxTable, dynamodb: DynamoDBClient
) -> None:
    users.add(Mailbox(address=ALICE, quota_bytes=1, status=Status.DISABLED))
    assert users.change(ALICE, {"quota_bytes": 7}, ["status"])
    assert user_of(dynamodb) == {"email": ALICE, "quota": "7"}
    assert not users.change(NOBODY, {"quota_bytes": 7})


def test_an_entry_is_removed_by_the_tables_own_key(
    users: MailboxTable, dynamodb: DynamoDBClient
) -> None:
    users.add(Mailbox(address=ALICE))
    assert users.remove(ALICE)
    assert user_of(dynamodb) == {}
    assert not users.remove(ALICE)


def test_an_import_writes_the_tables_own_names(
    users: MailboxTable, dynamodb: DynamoDBClient
) -> None:
    entries = [entry(quota_bytes=5), entry(NOBODY, quota_bytes=6)]
    users.add(Mailbox(address=ALICE, quota_bytes=4))
    assert kinds(users.put(entries)) == {ALICE: "changed", NOBODY: "added"}
    assert user_of(dynamodb) == {"email": ALICE, "quota": "5"}
    assert kinds(users.put(entries)) == {ALICE: "unchanged", NOBODY: "unchanged"}


# --- Items that cannot be read ---------------------------------------------------------------


class Bad:
    """A table with one good entry and one that cannot be read."""

    def __init__(self, dynamodb: DynamoDBClient) -> None:
        self.told: list[tuple[str, str]] = []
        put_mailbox(dynamodb, quota_bytes="much", moved_to="alice@new.example")
        put_mailbox(dynamodb, NOBODY, quota_bytes=5)
        self.table = MailboxTable(
            dynamodb, MAILBOXES, on_bad_item=lambda *each: self.told.append(each)
        )


@pytest.fixture
def bad(dynamodb: DynamoDBClient) -> Bad:
    return Bad(dynamodb)


READABLE = {ALICE: Mailbox(address=ALICE), NOBODY: Mailbox(address=NOBODY, quota_bytes=5)}


def test_an_item_that_cannot_be_read_stops_no_scan_and_is_told(bad: Bad) -> None:
    assert {each.address: each for each in bad.table.scan()} == READABLE
    ((address, why),) = bad.told
    assert address == ALICE
    assert "quota_bytes" in why


def test_an_item_that_cannot_be_read_is_found_all_the_same_and_is_told(bad: Bad) -> None:
    assert bad.table.get([ALICE, NOBODY]) == READABLE
    assert [address for address, _ in bad.told] == [ALICE]


def test_an_item_that_cannot_be_read_is_named_by_the_tables_own_key(
    users: MailboxTable, dynamodb: DynamoDBClient
) -> None:
    dynamodb.put_item(TableName=USERS, Item={"email": {"S": ALICE}, "state": {"S": "sleeping"}})
    assert only(users) == Mailbox(address=ALICE)


def test_an_import_mends_an_item_that_cannot_be_read(bad: Bad, dynamodb: DynamoDBClient) -> None:
    assert kinds(bad.table.put([entry(quota_bytes=7)])) == {ALICE: "changed"}
    assert mailbox_of(dynamodb) == {
        "address": ALICE,
        "quota_bytes": "7",
        "moved_to": "alice@new.example",
    }
