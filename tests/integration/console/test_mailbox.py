"""`bouncer mailbox`: one entry at a time."""

import json
from email import message_from_string
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from tests.integration.builders import (
    ALICE,
    MAILBOXES,
    NOBODY,
    create_mailbox_table,
    item,
    mailbox_of,
    put_mailbox,
    stored,
)
from tests.integration.console.builders import (
    EVENTS,
    Stack,
    bouncer,
    error_of,
    mailbox,
    printed_json,
)


def test_a_mailbox_is_added_and_shown(dynamodb: DynamoDBClient) -> None:
    mailbox("add", "Alice@Example.com", "--quota", "1 GB", "--size-limit", "20 MiB")
    shown = json.loads(mailbox("show", ALICE, "--json").stdout)
    assert (shown["address"], shown["quota_bytes"], shown["size_limit_bytes"]) == (
        ALICE,
        10**9,
        20 * 2**20,
    )
    assert "1000000000" in mailbox("show", ALICE).stdout


def test_a_domains_entry_has_a_catch_all_and_a_separator(dynamodb: DynamoDBClient) -> None:
    mailbox("add", "@example.com", "--no-catch-all", "--separator", "-")
    shown = json.loads(mailbox("show", "@example.com", "--json").stdout)
    assert (shown["catch_all"], shown["separator"]) == (False, "-")


def test_a_mailbox_of_the_stack_needs_no_table(stack: Stack, dynamodb: DynamoDBClient) -> None:
    bouncer("mailbox", "add", ALICE)
    assert mailbox_of(dynamodb)["address"] == ALICE


def test_an_entry_that_exists_is_left_as_it_is(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, quota_bytes=5)
    complaint = error_of("mailbox", "add", ALICE, "--quota", "1 GB", "--table", MAILBOXES)
    assert "has an entry already" in complaint
    assert mailbox_of(dynamodb)["quota_bytes"] == "5"


@pytest.mark.parametrize(
    ("options", "attribute", "value"),
    [
        (["--quota", "2 kB"], "quota_bytes", "2000"),
        (["--used", "7"], "used_bytes", "7"),
        (["--messages-per-day", "50"], "quota_messages_per_day", "50"),
        (["--alias-for", "bob@example.com"], "alias_for", "bob@example.com"),
        (["--moved-to", "alice@new.example", "--tell"], "tell_new_address", "True"),
        (["--status", "disabled"], "status", "disabled"),
    ],
)
def test_an_entry_is_changed_in_what_is_named(
    dynamodb: DynamoDBClient, options: list[str], attribute: str, value: str
) -> None:
    put_mailbox(dynamodb, size_limit_bytes=9)
    mailbox("set", ALICE, *options)
    assert mailbox_of(dynamodb)[attribute] == value
    assert mailbox_of(dynamodb)["size_limit_bytes"] == "9"


@pytest.mark.usefixtures("dynamodb")
def test_what_was_done_can_be_had_as_json() -> None:
    def done(*arguments: str) -> Any:
        return printed_json("mailbox", *arguments, "--table", MAILBOXES)

    assert done("add", "Alice@Example.com") == {"address": ALICE, "done": "added"}
    assert done("set", ALICE, "--quota", "1 GB") == {"address": ALICE, "done": "changed"}
    ends = "2099-01-31T00:00:00+00:00"
    assert done("disable", ALICE, "--until", ends) == {
        "address": ALICE,
        "done": "disabled",
        "until": "2099-01-31T00:00:00Z",
    }
    assert done("remove", ALICE) == {"address": ALICE, "done": "removed"}


def test_a_preview_can_be_had_as_json() -> None:
    shown = printed_json("preview", EVENTS / "unknown-recipient.json")
    assert shown["to"] == "pat@sender.example"
    assert message_from_string(shown["dsn"]).get_content_type() == "multipart/report"


def test_a_field_is_removed(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, quota_bytes=5, size_limit_bytes=9)
    mailbox("set", ALICE, "--unset", "quota_bytes", "--unset", "size_limit_bytes")
    assert set(mailbox_of(dynamodb)) == {"address"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "say what to change"),
        (["--unset", "quota"], "no field is called quota"),
        (["--quota", "a lot"], "'a lot' is not a size"),
        (["--separator", "#"], "separator"),
        (["--messages-per-day", "-1"], "Expected `int` >= 0"),
        (["--alias-for", "bob"], "alias_for 'bob': write user@domain"),
        (["--alias-for", "ALICE@example.com"], "is the address itself"),
        (["--moved-to", "@new.example"], "moved_to '@new.example': write user@domain"),
        (["--moved-to", ALICE], "is the address itself"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(
    dynamodb: DynamoDBClient, options: list[str], complaint: str
) -> None:
    put_mailbox(dynamodb)
    assert complaint in error_of("mailbox", "set", ALICE, *options, "--table", MAILBOXES)
    assert set(mailbox_of(dynamodb)) == {"address"}


@pytest.mark.parametrize(
    ("address", "options", "complaint"),
    [
        ("alice", [], "write user@domain, or @domain"),
        ("@localhost", [], "write user@domain, or @domain"),
        ("al ice@example.com", [], "write user@domain, or @domain"),
        (ALICE, ["--alias-for", "bob"], "alias_for 'bob': write user@domain"),
        (ALICE, ["--alias-for", ALICE], "is the address itself"),
        (ALICE, ["--moved-to", "Alice@Example.com"], "is the address itself"),
        (ALICE, ["--messages-per-day", "-1"], "Expected `int` >= 0"),
    ],
)
def test_an_entry_that_makes_no_sense_is_not_added(
    dynamodb: DynamoDBClient, address: str, options: list[str], complaint: str
) -> None:
    assert complaint in error_of("mailbox", "add", address, *options, "--table", MAILBOXES)
    assert json.loads(mailbox("list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("until", "kept"),
    [
        ("2099-12-01", "2099-12-01T00:00:00Z"),
        ("2099-12-01T08:00:00", "2099-12-01T08:00:00Z"),
        ("2099-12-01T08:00:00Z", "2099-12-01T08:00:00Z"),
        ("2099-12-01T08:00:00+02:00", "2099-12-01T06:00:00Z"),
    ],
)
def test_a_mailbox_is_disabled_until_a_time(
    dynamodb: DynamoDBClient, until: str, kept: str
) -> None:
    put_mailbox(dynamodb)
    mailbox("disable", ALICE, "--until", until)
    assert (mailbox_of(dynamodb)["status"], mailbox_of(dynamodb)["status_until"]) == (
        "disabled",
        kept,
    )


def test_a_mailbox_is_disabled_for_good(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, status="disabled", status_until="2099-12-01T08:00:00Z")
    mailbox("disable", ALICE)
    assert mailbox_of(dynamodb) == {"address": ALICE, "status": "disabled"}


def test_a_mailbox_is_not_disabled_until_a_time_that_has_passed(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb)
    options = ["--until", "2020-01-01", "--table", MAILBOXES]
    assert "has passed" in error_of("mailbox", "disable", ALICE, *options)
    assert mailbox_of(dynamodb) == {"address": ALICE}


def test_a_mailbox_is_removed(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb)
    mailbox("remove", ALICE)
    assert mailbox_of(dynamodb) == {}


@pytest.mark.parametrize(
    "command", [["show"], ["set", "--quota", "1"], ["disable"], ["remove"]], ids=lambda c: c[0]
)
def test_what_has_no_entry_is_named(dynamodb: DynamoDBClient, command: list[str]) -> None:
    name, *options = command
    complaint = error_of("mailbox", name, NOBODY, *options, "--table", MAILBOXES)
    assert f"{NOBODY} has no entry" in complaint


def test_a_table_that_is_not_there_is_named() -> None:
    assert "ResourceNotFoundException" in error_of("mailbox", "list", "--table", "nowhere")


def test_the_list_is_sorted(dynamodb: DynamoDBClient) -> None:
    for address in ("b@example.com", ALICE, "c@example.com"):
        put_mailbox(dynamodb, address, quota_bytes=5)
    listed = json.loads(mailbox("list", "--json").stdout)
    assert [each["address"] for each in listed] == [ALICE, "b@example.com", "c@example.com"]
    text = mailbox("list").stdout
    assert text.index(ALICE) < text.index("b@example.com") < text.index("c@example.com")


@pytest.mark.parametrize("command", ["list", "export"])
def test_an_entry_that_cannot_be_read_stops_nothing_and_is_named(
    dynamodb: DynamoDBClient, command: str
) -> None:
    put_mailbox(dynamodb, quota_bytes="much")
    put_mailbox(dynamodb, NOBODY, quota_bytes=5)
    result = mailbox(command)
    assert ALICE in result.stdout
    assert NOBODY in result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{ALICE}: ")
    assert "quota_bytes" in line


def test_the_stacks_own_table_is_used_under_its_own_names(
    stack: Stack, dynamodb: DynamoDBClient
) -> None:
    create_mailbox_table(dynamodb, "users", key="email")
    stack.outputs["MailboxTable"] = "users"
    stack.parameters["MailboxAttributes"] = "address=email,quota_bytes=quota"
    dynamodb.put_item(TableName="users", Item=item(email=NOBODY, quota=5))
    bouncer("mailbox", "add", ALICE, "--quota", "7")
    bouncer("mailbox", "set", NOBODY, "--quota", "6")
    listed = [(each["address"], each["quota_bytes"]) for each in printed_json("mailbox", "list")]
    assert listed == [(ALICE, 7), (NOBODY, 6)]
    assert stored(dynamodb, "users", email=ALICE) == {"email": ALICE, "quota": "7"}
