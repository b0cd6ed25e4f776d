"""`bouncer mailbox import` and `export`."""

import json
from pathlib import Path
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from tests.integration.builders import (
    ALICE,
    MAILBOXES,
    NOBODY,
    mailbox_of,
    put_mailbox,
)
from tests.integration.console.builders import (
    error_of,
    file,
    mailbox,
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
    assert len(json.loads(mailbox("list", "--json").stdout)) == 1000
    kept = mailbox_of(dynamodb, "user0007@example.com")
    assert (kept["used_bytes"], kept["messages_today"], kept["quota_bytes"]) == ("77", "7", "1000")


def test_a_dry_run_shows_the_difference_and_changes_nothing(
    tmp_path: Path, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, quota_bytes=5)
    boxes = [{"address": ALICE, "quota_bytes": 6}, {"address": NOBODY}]
    path = file(tmp_path, "boxes.json", boxes)
    report = json.loads(mailbox("import", path, "--dry-run", "--json").stdout)
    assert report["dry_run"] is True
    assert report["counts"] == {"changed": 1, "added": 1}
    assert {each["address"]: each["difference"] for each in report["changes"]} == {
        ALICE: "quota_bytes: 5 -> 6",
        NOBODY: "",
    }
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
        ("boxes.csv", "address,quota\na@example.com,5\n", "entry 1: no field is called quota"),
        ("boxes.csv", "address\na@example.com,5\n", "entry 1 has more cells than the header"),
        ("boxes.csv", "address\nalice\n", "entry 1: address 'alice': write user@domain"),
        ("boxes.csv", "address,quota_bytes\na@example.com,many\n", "entry 1: Expected `int"),
        ("boxes.json", '[{"address": "a@example.com"}, 5]', "entry 2 is not an object"),
        ("boxes.json", '[{"address": "a@example.com"', "is not JSON"),
        ("boxes.json", '[{"quota_bytes": 5}]', "missing required field `address`"),
        ("boxes.csv", "address,quota_bytes\na@example.com,-5\n", "entry 1: Expected `int` >= 0"),
        ("boxes.csv", "address\na@example.com\n@localhost\n", "entry 2: address '@localhost'"),
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
