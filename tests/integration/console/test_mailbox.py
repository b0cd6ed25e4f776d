"""`bouncer mailbox`: one entry at a time."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
import typer
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.mailboxes import utc_day
from bouncer_console.output import stream_json, stream_table
from tests.fakes.bounces import NOBODY
from tests.integration.builders import (
    ALICE,
    MAILBOXES,
    create_mailbox_table,
    item,
    know_domain,
    mailbox_of,
    put_mailbox,
    stored,
)
from tests.integration.console.builders import (
    EVENTS,
    Stack,
    bouncer,
    error_of,
    file,
    mailbox,
    own_table,
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


def test_the_list_has_every_entry(dynamodb: DynamoDBClient) -> None:
    for address in ("b@example.com", ALICE, "c@example.com"):
        put_mailbox(dynamodb, address, quota_bytes=5)
    listed = json.loads(mailbox("list", "--json").stdout)
    assert {each["address"] for each in listed} == {ALICE, "b@example.com", "c@example.com"}
    header, _, *lines = mailbox("list").stdout.splitlines()
    assert header.split() == ["address", "status", "used", "quota", "size", "limit", "leads", "to"]
    assert sorted(line.split()[0] for line in lines) == [ALICE, "b@example.com", "c@example.com"]


@pytest.mark.parametrize(
    ("options", "listed"),
    [
        (["--domain", "Example.ORG"], {"x@example.org", "@example.org"}),
        (["--status", "disabled"], {"off@example.com"}),
        (["--fuller-than", "90"], {"full@example.com", "busy@example.com"}),
        (["--fuller-than", "0", "--domain", "example.org"], {"x@example.org", "@example.org"}),
        (["--suspicious"], {"Upper@example.com", "was@example.com"}),
    ],
)
def test_the_list_is_of_what_is_asked_for(
    dynamodb: DynamoDBClient, options: list[str], listed: set[str]
) -> None:
    put_mailbox(dynamodb, quota_bytes=100, used_bytes=89)
    put_mailbox(dynamodb, "x@example.org")
    put_mailbox(dynamodb, "@example.org")
    put_mailbox(dynamodb, "off@example.com", status="disabled")
    was = {"status": "disabled", "status_until": "2020-01-01T00:00:00Z"}
    put_mailbox(dynamodb, "was@example.com", **was)
    put_mailbox(dynamodb, "full@example.com", quota_bytes=100, used_bytes=90)
    today = utc_day(datetime.now(UTC))
    day = {"quota_messages_per_day": 3, "messages_today": 3, "messages_day": today}
    put_mailbox(dynamodb, "busy@example.com", **day)
    put_mailbox(dynamodb, "Upper@example.com")
    shown = json.loads(mailbox("list", "--json", *options).stdout)
    assert {each["address"] for each in shown} == listed


def test_an_empty_list_is_a_list(dynamodb: DynamoDBClient) -> None:
    assert json.loads(mailbox("list", "--json").stdout) == []


def test_the_first_rows_are_written_before_the_last_are_read() -> None:
    """Whatever the table's size, it is never whole in memory."""
    read: list[int] = []
    shown: list[int] = []

    def rows() -> Iterator[tuple[int]]:
        for number in range(3):
            read.append(number)
            yield (number,)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer, "echo", lambda *_, **__: shown.append(len(read)))
        stream_table((("n", 3),), rows())
        stream_json({"n": n} for (n,) in rows())
    assert shown[:5] == [0, 0, 1, 2, 3]
    assert shown[5] == 4


# --- Who takes an address's mail -------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "entry", "way", "taken_by"),
    [
        ("alice+tag@example.com", ALICE, "without its tag", ALICE),
        ("sales@example.com", "sales@example.com", "address", ALICE),
        ("x@shop.example", "@shop.example", "catch-all", ALICE),
        (ALICE, ALICE, "address", ALICE),
    ],
)
def test_show_says_who_takes_the_mail(
    dynamodb: DynamoDBClient, address: str, entry: str, way: str, taken_by: str
) -> None:
    put_mailbox(dynamodb)
    put_mailbox(dynamodb, "sales@example.com", alias_for=ALICE)
    put_mailbox(dynamodb, "@shop.example", alias_for=ALICE)
    shown = json.loads(mailbox("show", address, "--json").stdout)
    assert (shown["entry"], shown["way"], shown["taken_by"]) == (entry, way, taken_by)
    text = mailbox("show", address).stdout
    assert ("no entry of its own" in text) is (address != entry)
    assert (f"{taken_by} takes its mail" in text) is (taken_by != entry)


def test_show_tells_an_unknown_address_from_an_unknown_domain(dynamodb: DynamoDBClient) -> None:
    know_domain(dynamodb)
    told = [
        error_of("mailbox", "show", each, "--table", MAILBOXES)
        for each in (NOBODY, "x@example.org")
    ]
    assert ["says nothing of its domain" in each for each in told] == [False, True]


# --- Status ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["set", "--status", "active"], ["enable"]])
@pytest.mark.parametrize("until", ["2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z"])
def test_a_status_that_is_set_is_not_undone_by_an_old_end(
    dynamodb: DynamoDBClient, command: list[str], until: str
) -> None:
    put_mailbox(dynamodb, status="disabled", status_until=until)
    name, *options = command
    mailbox(name, ALICE, *options)
    assert mailbox_of(dynamodb) == {"address": ALICE, "status": "active"}


def test_disabling_for_good_by_set_drops_the_old_end(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, status="disabled", status_until="2020-01-01T00:00:00Z")
    mailbox("set", ALICE, "--status", "disabled")
    assert mailbox_of(dynamodb) == {"address": ALICE, "status": "disabled"}


# --- A table of the user's own ---------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["add", NOBODY],
        ["set", ALICE, "--quota", "1"],
        ["disable", ALICE],
        ["enable", ALICE],
        ["remove", ALICE],
    ],
    ids=lambda command: command[0],
)
def test_a_table_of_the_users_own_is_not_written_unasked(
    stack: Stack, dynamodb: DynamoDBClient, command: list[str]
) -> None:
    own_table(stack, dynamodb)
    dynamodb.put_item(TableName="users", Item=item(email=ALICE))
    before = dynamodb.scan(TableName="users")["Items"]
    assert "say --own-table" in error_of("mailbox", *command)
    assert dynamodb.scan(TableName="users")["Items"] == before
    bouncer("mailbox", *command, "--own-table")
    assert dynamodb.scan(TableName="users")["Items"] != before
    assert stored(dynamodb, "users", email="@example.com") == {}


# --- Check -----------------------------------------------------------------------------------


def found_by_check(*arguments: Any, code: int = 0) -> set[tuple[str, str]]:
    report = json.loads(bouncer("mailbox", "check", *arguments, "--json", code=code).stdout)
    return {(each["kind"], each["address"]) for each in report["findings"]}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"address": "Upper@example.com"}, "mistake"),
        ({"address": "*@example.com"}, "mistake"),
        ({"address": "a@example.com", "alias_for": "gone@example.com"}, "mistake"),
        ({"address": "a@example.com", "alias_for": "a+x@example.com"}, "mistake"),
        ({"address": "a@example.com", "moved_to": "gone@example.com"}, "mistake"),
        ({"address": "a@example.com", "alias_for": "sales@example.com"}, "warning"),
        (
            {
                "address": "a@example.com",
                "status": "disabled",
                "status_until": "2020-01-01T00:00:00Z",
            },
            "warning",
        ),
        ({"address": "a@example.com", "status_until": "2099-01-01T00:00:00Z"}, "warning"),
        ({"address": "a@example.com", "tell_new_address": True}, "warning"),
        ({"address": "a@example.com", "catch_all": False}, "warning"),
        ({"address": "a@example.com", "alias_for": ALICE, "quota_bytes": 5}, "warning"),
        ({"address": "a@example.com", "used_bytes": -5}, "warning"),
    ],
    ids=str,
)
def test_check_reports_what_looks_wrong_in_the_directory(
    dynamodb: DynamoDBClient, fields: dict[str, Any], kind: str
) -> None:
    know_domain(dynamodb)
    put_mailbox(dynamodb)
    put_mailbox(dynamodb, "postmaster@example.com", alias_for=ALICE)
    put_mailbox(dynamodb, "sales@example.com", alias_for=ALICE)
    assert found_by_check("--table", MAILBOXES) == set()
    put_mailbox(dynamodb, **fields)
    code = int(kind == "mistake")
    assert (kind, fields["address"]) in found_by_check("--table", MAILBOXES, code=code)


def test_check_reports_domains_without_entry_and_without_postmaster(
    dynamodb: DynamoDBClient,
) -> None:
    put_mailbox(dynamodb)
    put_mailbox(dynamodb, "@shop.example")
    report = json.loads(mailbox("check", "--json").stdout)
    problems = [each["problem"] for each in report["findings"] if each["address"] == "@example.com"]
    assert any("no entry for it" in each for each in problems)
    assert any("postmaster@example.com is missing" in each for each in problems)
    assert not [each for each in report["findings"] if each["address"] == "@shop.example"]


def test_check_of_a_file_reports_mistakes_and_what_is_missing(tmp_path: Path) -> None:
    path = file(tmp_path, "b.csv", f"address,quota_bytes\n{ALICE},0\nbob@example.com,\n")
    result = bouncer("mailbox", "check", path, code=1)
    assert "line 2: quota_bytes 0 would refuse every mail" in result.stdout.replace("\n", " ")
    assert found_by_check(path, code=1) == {("mistake", ""), ("warning", "@example.com")}


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
    bouncer("mailbox", "add", ALICE, "--quota", "7", "--own-table")
    bouncer("mailbox", "set", NOBODY, "--quota", "6", "--own-table")
    listed = [(each["address"], each["quota_bytes"]) for each in printed_json("mailbox", "list")]
    assert sorted(listed) == [(ALICE, 7), (NOBODY, 6)]
    assert stored(dynamodb, "users", email=ALICE) == {"email": ALICE, "quota": "7"}


def test_while_the_stack_is_live_an_address_is_not_the_first_word_about_its_domain(
    stack: Stack, dynamodb: DynamoDBClient
) -> None:
    stack.parameters["Mode"] = "enforce"
    assert "Say --domain" in error_of("mailbox", "add", ALICE)
    assert dynamodb.scan(TableName=MAILBOXES)["Items"] == []
    bouncer("mailbox", "add", ALICE, "--no-domain")
    bouncer("mailbox", "add", NOBODY, "--domain")
    bouncer("mailbox", "add", "third@example.com")
    assert len(dynamodb.scan(TableName=MAILBOXES)["Items"]) == 4
    bouncer("mailbox", "remove", "@example.com")
    assert "has an entry already" in error_of("mailbox", "add", ALICE)


@pytest.mark.parametrize("own", [False, True])
def test_while_the_stack_is_live_a_domains_addresses_are_not_unknown_unsaid(
    stack: Stack, dynamodb: DynamoDBClient, own: bool
) -> None:
    key, options = "@example.com", ["--own-table"] * own
    if own:
        own_table(stack, dynamodb)
    stack.parameters["Mode"] = "enforce"

    def shown() -> bool:
        return bool(printed_json("mailbox", "show", key)["catch_all"])

    unsaid = ("mailbox", "add", key, "--no-catch-all", *options)
    assert "Say --domain if so" in error_of(*unsaid)
    assert "Say --domain if so" in error_of(*unsaid, "--no-domain")
    bouncer("mailbox", "add", key, "--catch-all", *options)  # which makes nobody unknown
    assert "has an entry already" in error_of(*unsaid)
    ends = ("mailbox", "set", key, "--no-catch-all", *options)
    assert "Say --domain if so" in error_of(*ends)
    assert shown()
    bouncer("mailbox", "set", key, "--quota", "5", *options)
    bouncer(*ends, "--domain")
    assert not shown()
    bouncer(*ends)  # it is so already
    bouncer("mailbox", "remove", key, *options)
    said = bouncer(*unsaid, "--domain")
    assert "without an entry are unknown from now on" in said.stderr
    assert not shown()


def test_the_mend_that_check_proposes_is_done_on_a_live_stack(
    stack: Stack, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb)
    stack.parameters["Mode"] = "enforce"
    problems = [each["problem"] for each in printed_json("mailbox", "check")["findings"]]
    (mend,) = (each.partition(": bouncer ")[2] for each in problems if ": bouncer " in each)
    bouncer(*mend.split())
    assert mailbox_of(dynamodb, "@example.com")["catch_all"] == "False"
