"""Any bytes, under any name, to any command: an answer or one clear error, never a traceback."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bouncer_console.main import app
from tests.fakes.bounces import NOBODY
from tests.integration.builders import ALICE
from tests.integration.console.builders import EVENTS, SHIPPED, bouncer, file, printed_json

FUZZ = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

MAIL = (EVENTS / "unknown-recipient.eml").read_bytes()
EVENT = (EVENTS / "unknown-recipient.json").read_bytes()
POLICY = SHIPPED.read_bytes()
BOXES = (EVENTS / "mailboxes.csv").read_bytes()
JSON_BOXES = json.dumps([{"address": ALICE, "quota_bytes": 5}, {"address": NOBODY}]).encode()
SPICE = [
    b"\x00", b"\r", b"\n", b"\r\n\r\n", b"\xff", b"\xe2\x80\xae", b'"', b"<", b">", b",",
    b";", b"@",
    b"=?utf-8?b?Cg==?=", b"=?x?q?=0A?=", b"[", b"{", b"}", b"-1", b"1e999", b"null", b"\\ud800",
    b"9" * 40, b"\x1b[31m", b"(" * 200, b"[" * 5000, b": ", b" :", b"\t",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, seed: bytes) -> bytes:
    """A good file with some bytes cut, doubled or put in; now and then anything at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 30))
        match draw(st.sampled_from(["cut", "put", "double"])):
            case "cut":
                del data[at : at + length]
            case "put":
                data[at:at] = draw(st.sampled_from(SPICE))
            case "double":
                data[at:at] = data[at : at + length]
    return bytes(data)


def answered(*arguments: str | Path) -> str:
    """The command ends with a status and with words."""
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 1, 2)
    assert result.exit_code == 0 or result.output.strip()
    return result.output


@FUZZ
@given(data=mutated(MAIL))
@pytest.mark.parametrize("command", ["explain", "preview", "replay"])
def test_any_mail(tmp_path: Path, command: str, data: bytes) -> None:
    boxes = file(tmp_path, "boxes.csv", "address\nalice@example.com\n")
    answered(command, file(tmp_path, "mail.eml", data), "--mailboxes", boxes)


@FUZZ
@given(data=mutated(EVENT))
@pytest.mark.parametrize("command", ["explain", "preview", "replay"])
def test_any_event(tmp_path: Path, command: str, data: bytes) -> None:
    boxes = file(tmp_path, "boxes.csv", "address\nalice@example.com\n")
    answered(command, file(tmp_path, "event.json", data), "--mailboxes", boxes)


@FUZZ
@given(data=mutated(POLICY))
def test_any_policy(tmp_path: Path, data: bytes) -> None:
    path = file(tmp_path, "policy.toml", data)
    answered("policy", "check", path)
    answered("explain", EVENTS / "accepted.json", "--policy", path)


@FUZZ
@given(data=mutated(BOXES) | mutated(JSON_BOXES))
@pytest.mark.parametrize("name", ["boxes.csv", "boxes.json", "boxes.jsonl"])
def test_any_mailboxes(tmp_path: Path, name: str, data: bytes) -> None:
    path = file(tmp_path, name, data)
    answered("mailbox", "check", path)
    answered("explain", EVENTS / "accepted.json", "--mailboxes", path)


# --- What was met ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"From: =?utf-8?q?a=0Ab?= <pat@sender.example>\nTo: nobody@example.com\n\nx",
        b'From: pat@sender.example\nTo: "\n\nx',
        b"From: Doe, Pat <pat@sender.example>\nTo: nobody@example.com\n\nx",
        b"X-Local-Received-At: yesterday\nFrom: a@b.example\nTo: nobody@example.com\n\n",
    ],
)
def test_a_mail_that_parsers_stumble_over_is_answered(tmp_path: Path, data: bytes) -> None:
    answered("explain", file(tmp_path, "mail.eml", data), "--rcpt-to", NOBODY)


def test_the_address_behind_a_comma_in_a_name_is_the_sender(tmp_path: Path) -> None:
    data = b"From: Doe, Pat <pat@sender.example>\r\nTo: nobody@example.com\r\n\r\nx"
    path = file(tmp_path, "mail.eml", data)
    assert printed_json("explain", path)["sender"] == "pat@sender.example"
    assert "its sender is taken to be pat@sender.example" in bouncer("explain", path).stderr


def test_one_bad_mail_in_a_folder_is_one_line_of_the_summary(tmp_path: Path) -> None:
    file(tmp_path, "good.eml", MAIL)
    file(tmp_path, "bad.eml", b"\xff\x00")
    file(tmp_path, "deep.json", "[" * 100_000)
    file(tmp_path, "mailboxes.csv", "address\nalice@example.com\n")
    report = printed_json("replay", tmp_path)
    assert report["mails"] == 1
    assert sorted(Path(each["file"]).name for each in report["unreadable"]) == [
        "bad.eml",
        "deep.json",
    ]


# --- What an explanation says ----------------------------------------------------------------


def test_an_eml_arrives_at_the_time_that_is_pretended(tmp_path: Path) -> None:
    path = file(tmp_path, "mail.eml", MAIL)
    boxes = file(tmp_path, "boxes.csv", "address\nalice@example.com\n")
    for now in ("2020-01-31", "2030-01-31T12:00+02:00"):
        explained = printed_json("explain", path, "--now", now, "--mailboxes", boxes)
        assert explained["suppressed"] != "window-closed"


@pytest.mark.parametrize(
    ("size", "reason"),
    [("26 MB", "too-large"), ("24 MiB", "too-large"), ("25000000", "accept"), ("5kb", "accept")],
)
def test_a_size_may_have_a_unit(tmp_path: Path, size: str, reason: str) -> None:
    explained = printed_json("explain", EVENTS / "accepted.json", "--size", size)
    assert explained["recipients"][0]["reason"] == reason


def test_a_size_that_is_none_is_refused() -> None:
    result = bouncer("explain", EVENTS / "accepted.json", "--size", "huge", code=2)
    assert "'huge' is not a size" in re.sub(r"\s+", " ", result.output)


def test_an_explanation_tells_facts_rules_and_guards() -> None:
    explained: Any = printed_json("explain", EVENTS / "several-recipients.json")
    nobody, full, _ = explained["recipients"]
    assert (nobody["facts"]["domain_known"], nobody["facts"]["entry"]) == (True, None)
    assert full["facts"]["states"] == ["known", "full"]
    assert (full["facts"]["entry"], full["facts"]["way"]) == ("full@example.com", "address")
    tried = {each["rule"]: each for each in full["rules"]}
    assert tried["unknown-recipient"]["why"] == "mailbox is full; needs unknown"
    assert tried["over-quota"]["holds"] is True
    assert explained["proof"] == "spf"
    assert {each["answer"] for each in explained["guards"]} == {"no objection"}


def test_a_guard_that_objects_is_told(tmp_path: Path) -> None:
    explained = printed_json("explain", EVENTS / "own-address.json")
    answers = {each["guard"]: each["answer"] for each in explained["guards"]}
    assert answers["own-address"] == "objects"


def test_short_is_the_rule_that_decides_and_verbose_is_all() -> None:
    event = EVENTS / "over-quota.json"
    short, verbose = (bouncer("explain", event, *more).stdout for more in ((), ("--verbose",)))
    assert "over-quota" in short
    assert "mailbox-moved" not in short
    assert "full@example.com answers (address); it is known, full" in short
    assert "mailbox is full; needs moved" in verbose
    assert "auto-submitted" in verbose
