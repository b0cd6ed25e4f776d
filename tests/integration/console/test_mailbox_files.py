"""`bouncer mailbox import` and `export`."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mypy_boto3_dynamodb import DynamoDBClient
from typer.testing import CliRunner

from bouncer.aws.directory import DynamoDirectory
from bouncer.aws.mailbox_table import MailboxEntry, MailboxTable
from bouncer.mailboxes import Mailbox, Status
from bouncer_console.mailbox import target
from bouncer_console.mailbox.files import _cell, _rows, _without_formula, write_mailboxes
from bouncer_console.main import app
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
    fail_after,
    file,
    mailbox,
    own_table,
    thousand,
)


def test_an_import_of_a_thousand_is_safe_to_repeat_and_never_touches_usage(
    tmp_path: Path, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, "user0007@example.com", used_bytes=77, messages_today=7)
    path = file(tmp_path, "boxes.csv", thousand(1000))
    counts = [
        json.loads(mailbox("import", path, "--json").stdout)["counts"],
        json.loads(mailbox("import", path, "--json").stdout)["counts"],
    ]
    assert counts == [{"added": 999, "changed": 1}, {"unchanged": 1000}]
    listed = {each["address"] for each in json.loads(mailbox("list", "--json").stdout)}
    assert len(listed - {"@example.com"}) == 1000
    kept = mailbox_of(dynamodb, "user0007@example.com")
    assert (kept["used_bytes"], kept["messages_today"], kept["quota_bytes"]) == ("77", "7", "1000")


def test_a_dry_run_shows_the_difference_and_changes_nothing(
    tmp_path: Path, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, quota_bytes=5)
    boxes = [
        {"address": ALICE, "quota_bytes": 6, "status": "disabled", "size_limit_bytes": 7},
        {"address": NOBODY},
    ]
    path = file(tmp_path, "boxes.json", boxes)
    report = json.loads(mailbox("import", path, "--dry-run", "--json").stdout)
    assert report["dry_run"] is True
    assert report["counts"] == {"changed": 1, "added": 1}
    differences = {each["address"]: each["difference"] for each in report["changes"]}
    assert differences[NOBODY] == ""
    assert sorted(differences[ALICE].split(", ")) == [
        "quota_bytes: 5 -> 6",
        "size_limit_bytes: none -> 7",
        "status: none -> disabled",
    ]
    assert "1 would be added, 1 would be changed" in mailbox("import", path, "--dry-run").stdout
    assert mailbox_of(dynamodb)["quota_bytes"] == "5"
    assert mailbox_of(dynamodb, NOBODY) == {}


def test_entries_that_a_file_does_not_name_stay(tmp_path: Path, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb)
    mailbox("import", file(tmp_path, "boxes.csv", f"address\n{NOBODY}\n"))
    assert mailbox_of(dynamodb)["address"] == ALICE


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("boxes.csv", "address,quota\na@example.com,5\n", "line 2: no field is called quota"),
        ("boxes.csv", "address\na@example.com,5\n", "line 2: it has more cells than the header"),
        ("boxes.csv", "address\nalice\n", "line 2: address 'alice': write user@domain"),
        ("boxes.csv", "address,quota_bytes\na@example.com,many\n", "line 2: Expected `int"),
        ("boxes.json", '[{"address": "a@example.com"}, 5]', "entry 2: it is not an object"),
        ("boxes.json", '[{"address": "a@example.com"', "is not JSON"),
        ("boxes.json", '[{"quota_bytes": 5}]', "missing required field `address`"),
        ("boxes.csv", "address,quota_bytes\na@example.com,-5\n", "line 2: Expected `int` >= 0"),
        ("boxes.csv", "address\na@example.com\n@localhost\n", "line 3: address '@localhost'"),
        (
            "boxes.json",
            [{"address": ALICE, "alias_for": "bob"}],
            "entry 1: alias_for 'bob': write user@domain",
        ),
        (
            "boxes.json",
            [{"address": ALICE, "moved_to": ALICE}],
            f"entry 1: moved_to '{ALICE}' is the address itself",
        ),
        ("boxes.csv", b"address\ncaf\xe9@example.com\n", "is not UTF-8: save it as UTF-8"),
        ("boxes.json", b'[{"address": "caf\xe9@example.com"}]', "boxes.json is not"),
        ("boxes.csv", 'address,moved_to\na@example.com,"b@c.example\n', "is not CSV"),
        ("boxes.csv", 'address\n"a@example.com"x\n', "is not CSV"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_the_entry(
    tmp_path: Path, dynamodb: DynamoDBClient, name: str, content: Any, complaint: str
) -> None:
    path = file(tmp_path, name, content)
    told = error_of("mailbox", "import", path, "--table", MAILBOXES)
    assert str(path) in told
    assert complaint in told


FULL_ENTRY: dict[str, Any] = {
    "quota_bytes": 5,
    "size_limit_bytes": 9,
    "status": "disabled",
    "moved_to": "alice@new.example",
    "used_bytes": 3,
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("boxes.csv", f"address,quota_bytes\n{ALICE},6\n"),
        ("boxes.json", [{"address": ALICE, "quota_bytes": 6}]),
        ("boxes.jsonl", {"address": ALICE, "quota_bytes": 6}),
    ],
)
def test_fields_that_a_file_does_not_name_stay(
    tmp_path: Path, dynamodb: DynamoDBClient, name: str, content: Any
) -> None:
    put_mailbox(dynamodb, **FULL_ENTRY)
    before = mailbox_of(dynamodb)
    mailbox("import", file(tmp_path, name, content))
    assert mailbox_of(dynamodb) == before | {"quota_bytes": "6"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("boxes.csv", f"address,quota_bytes,moved_to,status,used_bytes\n{ALICE},,,,\n"),
        (
            "boxes.json",
            [
                dict.fromkeys(("quota_bytes", "moved_to", "status", "used_bytes"))
                | {"address": ALICE}
            ],
        ),
    ],
)
def test_an_empty_cell_and_a_null_empty_a_field(
    tmp_path: Path, dynamodb: DynamoDBClient, name: str, content: Any
) -> None:
    put_mailbox(dynamodb, **FULL_ENTRY)
    mailbox("import", file(tmp_path, name, content))
    assert mailbox_of(dynamodb) == {"address": ALICE, "size_limit_bytes": "9", "used_bytes": "3"}


@pytest.mark.parametrize(
    ("cell", "kept"), [("none", ""), ("-", "-"), ("+", None), ("", None)], ids=repr
)
def test_a_separator_in_csv_is_one_or_none_or_the_default(
    tmp_path: Path, dynamodb: DynamoDBClient, cell: str, kept: str | None
) -> None:
    put_mailbox(dynamodb, "@example.com", separator="-")
    path = file(tmp_path, "boxes.csv", f"address,separator\n@example.com,{cell}\n")
    mailbox("import", path)
    assert mailbox_of(dynamodb, "@example.com").get("separator") == kept


@pytest.mark.parametrize(
    "content",
    [f' \n\t[{{"address": "{ALICE}"}}]', f'\n\n{{"address": "{ALICE}"}}\n'],
    ids=["list", "lines"],
)
def test_json_may_begin_with_white_space(
    tmp_path: Path, dynamodb: DynamoDBClient, content: str
) -> None:
    mailbox("import", file(tmp_path, "boxes.json", content))
    assert mailbox_of(dynamodb) == {"address": ALICE}


def test_a_status_until_in_a_file_may_be_a_date(tmp_path: Path, dynamodb: DynamoDBClient) -> None:
    rows = f"address,status,status_until\n{ALICE},disabled,2099-12-01\n"
    mailbox("import", file(tmp_path, "boxes.csv", rows))
    assert mailbox_of(dynamodb)["status_until"] == "2099-12-01T00:00:00Z"


WHOLE: list[dict[str, Any]] = [
    {"address": "@example.com", "catch_all": False, "separator": "-", "size_limit_bytes": 9},
    {"address": "@tagless.example", "separator": ""},
    {"address": ALICE, "quota_bytes": 5, "tell_new_address": True, "moved_to": "a@new.example"},
    {"address": "bob@example.com", "status": "disabled", "status_until": "2026-12-01T00:00:00Z"},
]


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_what_is_exported_is_imported_as_it_was(
    tmp_path: Path, dynamodb: DynamoDBClient, name: str
) -> None:
    for fields in WHOLE:
        put_mailbox(dynamodb, **fields)
    mailbox("export", tmp_path / name)
    report = json.loads(mailbox("import", tmp_path / name, "--json").stdout)
    assert report["counts"] == {"unchanged": len(WHOLE)}
    for fields in WHOLE:
        dynamodb.delete_item(TableName=MAILBOXES, Key={"address": {"S": fields["address"]}})
    mailbox("import", tmp_path / name)
    again = {each["address"]: each for each in json.loads(mailbox("list", "--json").stdout)}
    for fields in WHOLE:
        assert {k: again[fields["address"]][k] for k in fields} == fields


def test_an_export_without_a_file_is_printed_a_line_an_entry(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb)
    put_mailbox(dynamodb, NOBODY)
    lines = [json.loads(line) for line in mailbox("export").stdout.splitlines()]
    assert {each["address"] for each in lines} == {ALICE, NOBODY}


# --- What is found before anything is written ------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (
            "b.csv",
            f"address,status\n{ALICE},disabled\n{NOBODY},\nAlice@Example.com,\n",
            "line 4: alice@example.com is on line 2 already",
        ),
        (
            "b.json",
            [{"address": ALICE}, {"address": ALICE}],
            "entry 2: alice@example.com is on entry 1",
        ),
        (
            "b.csv",
            "address,alias_for,alias_for\na@example.com,b@example.net,\n",
            "the header has alias_for twice",
        ),
        (
            "b.json",
            '[{"address": "a@example.com", "status": null, "status": "active"}]',
            "entry 1: it has the field status twice",
        ),
        ("b.json", [{"address": ["a@example.com"]}], "address is a list or an object"),
        ("b.csv", "quota_bytes\n5\n", "the header has no column address"),
        ("b.csv", "", "the header has no column address"),
        ("b.csv", "address\n*@example.com\n", "line 2: address '*@example.com' is a pattern"),
        (
            "b.csv",
            "address,quota_bytes\na@example.com,0\n",
            "quota_bytes 0 would refuse every mail",
        ),
        ("b.csv", "address,quota_bytes\n@example.com,5\n", "does not say catch_all"),
        (
            "b.csv",
            "address,alias_for\na@example.com,b@example.com\n",
            "line 2: alias_for 'b@example.com' leads nowhere",
        ),
        (
            "b.csv",
            "address,moved_to\na@example.com,b@example.com\n",
            "line 2: moved_to 'b@example.com' leads nowhere",
        ),
        ("b.csv", "address,alias_for\na@example.com,a+x@example.com\n", "leads back to the entry"),
        (
            "b.csv",
            "address,alias_for,quota_bytes\na@example.com,b@example.net,5\n",
            "quota_bytes of an alias limits nothing",
        ),
    ],
)
def test_a_mistake_is_found_before_anything_is_written(
    tmp_path: Path, dynamodb: DynamoDBClient, name: str, content: Any, complaint: str
) -> None:
    path = file(tmp_path, name, content)
    before = dynamodb.scan(TableName=MAILBOXES)["Items"]
    for options in ([], ["--dry-run"]):
        assert complaint in error_of("mailbox", "import", path, "--table", MAILBOXES, *options)
    assert complaint in error_of("explain", EVENTS / "accepted.json", "--mailboxes", path)
    assert dynamodb.scan(TableName=MAILBOXES)["Items"] == before


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path, dynamodb: DynamoDBClient) -> None:
    path = file(tmp_path, "b.csv", "address\nalice\nbob\n" + "x\n" * 30)
    told = error_of("mailbox", "import", path, "--table", MAILBOXES)
    assert "line 2: address 'alice'" in told
    assert "line 3: address 'bob'" in told
    assert "and 12 more" in told


@pytest.mark.parametrize(
    "content",
    [
        f"address,quota_bytes\n{ALICE},5\n,\n , \n\n{NOBODY},6\n,,\n",
        f"Address , QUOTA_BYTES,\n{ALICE},5,\n{NOBODY},6,,,\n",
        f"address;quota_bytes\n{ALICE};5\n;\n{NOBODY};6\n",
        f"address\tquota_bytes\n{ALICE}\t5\n{NOBODY}\t6\n",
        f"\ufeffaddress,quota_bytes\r\n{ALICE},5\r\n{NOBODY},6\r\n",
    ],
    ids=["blank rows", "spaces and empty columns", "semicolons", "tabs", "of a spreadsheet"],
)
def test_what_spreadsheets_write_is_read(
    tmp_path: Path, dynamodb: DynamoDBClient, content: str
) -> None:
    mailbox("import", file(tmp_path, "boxes.csv", content))
    kept = {each: mailbox_of(dynamodb, each)["quota_bytes"] for each in (ALICE, NOBODY)}
    assert kept == {ALICE: "5", NOBODY: "6"}


def test_a_row_that_ends_early_empties_nothing(tmp_path: Path, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, quota_bytes=5)
    mailbox("import", file(tmp_path, "boxes.csv", f"address,quota_bytes\n{ALICE}\n"))
    assert mailbox_of(dynamodb)["quota_bytes"] == "5"


ADDRESSES = st.builds(
    "{}@{}".format, st.sampled_from("abcd"), st.sampled_from(["example.com", "example.org"])
)
ROWS = st.lists(
    st.tuples(
        ADDRESSES | st.sampled_from(["@example.com", "@example.org"]),
        st.sampled_from(["", "1", "2"]),
        st.sampled_from(["", "active", "disabled"]),
    ),
    max_size=8,
    unique_by=lambda row: row[0],
)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(first=ROWS, second=ROWS)
def test_a_dry_run_counts_as_the_run_does(
    tmp_path: Path, dynamodb: DynamoDBClient, first: Any, second: Any
) -> None:
    for rows in (first, second):
        lines = [f"{address},{quota},{status},false" for address, quota, status in rows]
        path = file(tmp_path, "b.csv", "\n".join(["address,quota_bytes,status,catch_all", *lines]))
        asked = json.loads(mailbox("import", path, "--dry-run", "--json").stdout)
        done = json.loads(mailbox("import", path, "--json").stdout)
        assert asked | {"dry_run": False} == done
    dynamodb.delete_table(TableName=MAILBOXES)
    create_mailbox_table(dynamodb, MAILBOXES)


def test_an_import_speaks_for_the_domains_that_occur_and_an_own_entry_stays(
    tmp_path: Path, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, "@example.org", separator="-")
    path = file(tmp_path, "b.csv", f"address\n{ALICE}\nx@example.org\ny@example.net\n")
    report = json.loads(mailbox("import", path, "--json").stdout)
    assert report["domains"] == ["@example.com", "@example.net"]
    assert mailbox_of(dynamodb, "@example.com") == {"address": "@example.com", "catch_all": "False"}
    assert mailbox_of(dynamodb, "@example.org") == {"address": "@example.org", "separator": "-"}


@pytest.mark.parametrize("writes", range(6))
def test_an_import_that_breaks_off_bounces_nobody_and_says_what_is_written(
    tmp_path: Path, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """However many writes get through, no mailbox of the file is ever unknown."""
    addresses = [f"user{number}@example.com" for number in range(110)]
    path = file(
        tmp_path,
        "b.csv",
        "\n".join(["address,catch_all", "@example.com,false", *(f"{each}," for each in addresses)]),
    )
    monkeypatch.setattr(target, "client", lambda *_: dynamodb)
    fail_after(dynamodb, "BatchWriteItem", writes)
    result = bouncer("mailbox", "import", path, "--table", MAILBOXES, code=1)
    assert f"{min(25 * writes, 110)} of 111 entries are as the file has them" in result.stderr
    said = DynamoDirectory(dynamodb, MAILBOXES, {}).look_up(addresses)
    assert all(each.mailbox or not each.domain_known for each in said.values())


def test_an_empty_cell_never_empties_a_column_of_the_users_own(
    tmp_path: Path, stack: Stack, dynamodb: DynamoDBClient
) -> None:
    own_table(stack, dynamodb)
    dynamodb.put_item(TableName="users", Item=item(email=ALICE, quota=5, city="Bern"))
    path = file(tmp_path, "b.csv", f"address,quota_bytes,status\n{ALICE},,disabled\n")
    assert "--own-table" in error_of("mailbox", "import", path)
    assert stored(dynamodb, "users", email=ALICE)["quota"] == "5"
    result = bouncer("mailbox", "import", path, "--own-table")
    assert "1 empty cells left the table of your own as it is" in result.stderr
    assert stored(dynamodb, "users", email=ALICE) == {
        "email": ALICE,
        "quota": "5",
        "city": "Bern",
        "status": "disabled",
    }


def test_a_long_import_says_how_far_it_is_off_a_terminal(
    tmp_path: Path, dynamodb: DynamoDBClient
) -> None:
    result = mailbox("import", file(tmp_path, "b.csv", thousand(1000)))
    assert "mailboxes: 1,000 of 1,000" in result.stderr
    assert "entries read: 1,001" in mailbox("list").stderr


# --- Spreadsheets ------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "'=", "'"])
def test_no_cell_of_an_export_is_a_formula_and_an_import_reads_what_was_exported(
    tmp_path: Path, first: str
) -> None:
    address = f"{first}cmd|'/c_calc'!a1@example.com" if first != "@" else "@shop.example.com"
    entry = Mailbox(address=address, moved_to=f"{first}x@example.net" if first != "@" else None)
    path = tmp_path / "export.csv"
    with path.open("w", newline="") as file:
        write_mailboxes([entry], file, as_csv=True)
    with path.open(newline="") as file:
        _, cells = csv.reader(file)
    assert [cell for cell in cells if len(cell) > 1 and cell[0] in "=+-@\t\r"] == []
    ((read, _),) = [(row.fields["address"], row) for row in _rows(path)]
    assert read == address


@given(st.text(min_size=1))
def test_what_is_quoted_for_a_spreadsheet_is_read_back_exactly(text: str) -> None:
    cell = text.strip()
    assume(cell and cell.lower() not in ("true", "false"))
    assert _cell("address", _without_formula(cell)) == cell


A_WHOLE_FILE = {
    "b.csv": (
        "address,status,quota_bytes\nalice@example.com,active,9000000\n"
        "bob@example.com,,9000000\nnew@example.com,disabled,\n"
    ),
    "b.jsonl": (
        '{"address": "alice@example.com", "status": "active", "quota_bytes": 9000000}\n'
        '{"address": "bob@example.com", "quota_bytes": 9000000}\n'
        '{"address": "new@example.com", "status": "disabled"}\n'
    ),
}


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", A_WHOLE_FILE)
def test_a_file_that_is_cut_off_anywhere_bounces_nobody_on_a_live_stack(
    tmp_path: Path, stack: Stack, dynamodb: DynamoDBClient, name: str, own: bool
) -> None:
    """Of a domain that the directory knows: whatever is left of the file, who had mail gets it."""
    stack.parameters["Mode"] = "enforce"
    table, names = MAILBOXES, {}
    if own:
        own_table(stack, dynamodb)
        table, names = "users", {"address": "email", "quota_bytes": "quota"}
    before = [
        Mailbox(address="@example.com", catch_all=False),
        Mailbox(address=ALICE, used_bytes=1_500_000, quota_bytes=2_000_000),
        Mailbox(address="bob@example.com", used_bytes=10),
    ]
    MailboxTable(dynamodb, table, names=names).put(
        [MailboxEntry(mailbox=each, named=frozenset()) for each in before]
    )
    whole, taken = A_WHOLE_FILE[name], 0
    for cut in range(20, len(whole) + 1):
        path = file(tmp_path, name, whole[:cut])
        done = CliRunner().invoke(
            app, ["mailbox", "import", str(path), "--new-domains", *(["--own-table"] * own)]
        )
        taken += done.exit_code == 0
        said = DynamoDirectory(dynamodb, table, names).look_up([ALICE, "bob@example.com"])
        for each in said.values():
            assert each.mailbox, whole[:cut]
            assert not each.mailbox.full(), whole[:cut]
            assert each.mailbox.status is Status.ACTIVE, whole[:cut]
            assert each.mailbox.quota_bytes in (None, 2_000_000, 9_000_000), whole[:cut]
    assert 3 <= taken < 10, "whole lines are taken"


def test_a_csv_without_its_last_line_break_is_refused_on_a_live_stack(
    tmp_path: Path, stack: Stack, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, used_bytes=500, quota_bytes=1000)
    know_domain(dynamodb)
    stack.parameters["Mode"] = "enforce"
    path = file(tmp_path, "b.csv", f"address,quota_bytes\n{ALICE},1")
    told = error_of("mailbox", "import", path)
    assert "if the file is whole, end it with a line break" in told
    assert mailbox_of(dynamodb)["quota_bytes"] == "1000"
    dry = bouncer("mailbox", "import", path, "--dry-run")
    assert "without --dry-run it is refused" in dry.stderr
    stack.parameters["Mode"] = "observe"
    assert "Is the file whole?" in bouncer("mailbox", "import", path).stderr


@pytest.fixture(params=[False, True], ids=["the stack's", "the user's"])
def options(request: pytest.FixtureRequest, stack: Stack, dynamodb: DynamoDBClient) -> list[str]:
    """What the commands have to be told of whose table it is."""
    if request.param:
        own_table(stack, dynamodb)
    return ["--own-table"] * request.param


@pytest.mark.parametrize(
    ("before", "content"),
    [
        (None, "@example.com,false\n"),
        (None, "@example.com,true\n"),
        ("true", "@example.com,false\n"),
        ("true", f"{ALICE},\n"),
        ("false", "@example.com,false\n"),
        ("false", f"{ALICE},\n"),
    ],
)
def test_no_address_of_a_domain_becomes_unknown_unsaid_while_the_stack_is_live(
    tmp_path: Path, stack: Stack, options: list[str], before: str | None, content: str
) -> None:
    path = file(tmp_path, "b.csv", f"address,catch_all\n{content}")
    if before is not None:
        first = file(tmp_path, "a.csv", f"address,catch_all\n@example.com,{before}\n")
        bouncer("mailbox", "import", first, *options)
    stack.parameters["Mode"] = "enforce"
    if content.endswith("false\n") and before != "false":
        assert "say --new-domains" in error_of("mailbox", "import", path, *options)
        options.append("--new-domains")
    bouncer("mailbox", "import", path, *options)


def test_a_domain_of_the_stacks_parameter_is_spoken_for_until_it_has_a_catch_all(
    tmp_path: Path, stack: Stack, dynamodb: DynamoDBClient
) -> None:
    own_table(stack, dynamodb)
    stack.parameters |= {"Mode": "enforce", "MailboxDomains": "example.com"}
    path = file(tmp_path, "b.csv", "address,catch_all\n@example.com,false\n")
    bouncer("mailbox", "import", path, "--own-table")
    dynamodb.put_item(TableName="users", Item=item(email="@example.com"))
    assert "say --new-domains" in error_of("mailbox", "import", path, "--own-table")


@pytest.mark.parametrize("name", A_WHOLE_FILE)
def test_the_first_word_about_a_domain_on_a_live_stack_is_said_twice(
    tmp_path: Path, stack: Stack, dynamodb: DynamoDBClient, name: str
) -> None:
    path = file(tmp_path, name, A_WHOLE_FILE[name])
    stack.parameters["Mode"] = "enforce"
    assert "no address of example.com is unknown yet" in error_of("mailbox", "import", path)
    assert dynamodb.scan(TableName=MAILBOXES)["Items"] == []
    bouncer("mailbox", "import", path, "--new-domains")
    more = file(tmp_path, "more.csv", "address\nbob@example.com\n")
    bouncer("mailbox", "import", more)  # of a domain that it speaks for already
    assert len(dynamodb.scan(TableName=MAILBOXES)["Items"]) == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("address,quota_bytes\na@example.com,5\nb@example.com", "line 3: the file ends within"),
        ("address,quota_bytes\na@example.com,5\nb@exam", "line 3: the file ends within this line"),
    ],
)
def test_a_last_line_that_is_cut_off_is_refused(
    tmp_path: Path, dynamodb: DynamoDBClient, content: str, said: str
) -> None:
    path = file(tmp_path, "b.csv", content)
    assert said in error_of("mailbox", "import", path, "--table", MAILBOXES)


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        ("address,quota_bytes\na@example.com,100", True),
        ("address,quota_bytes\na@example.com,1000\n", False),
        ("address,quota_bytes\r\na@example.com\r\n", False),
        ("address\ra@example.com\r", False),
    ],
)
def test_whether_a_file_without_its_last_line_break_is_whole_is_asked(
    tmp_path: Path, dynamodb: DynamoDBClient, content: str, asked: bool
) -> None:
    result = mailbox("import", file(tmp_path, "b.csv", content))
    assert ("Is the file whole?" in result.stderr) is asked
