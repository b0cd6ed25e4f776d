"""`bouncer explain`, `preview` and `replay`."""

import json
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from local.stories import STORIES, Story
from tests.fakes.bounces import NOBODY
from tests.integration.builders import ALICE, MAILBOXES, put_mailbox, ses_event
from tests.integration.console.builders import (
    DROPS,
    EVENTS,
    LATIN_1,
    POLICY,
    SHIPPED,
    bouncer,
    error_of,
    file,
    printed_json,
    text_of,
)


def test_explain_prints_one_object_of_the_documented_shape() -> None:
    explained = printed_json("explain", EVENTS / "several-recipients.json")
    more = {"sender", "proof", "verdicts", "dmarc_policy", "headers_whole", "size", "guards"}
    assert more <= explained.keys()
    assert all({"facts", "rules", "not_told"} <= each.keys() for each in explained["recipients"])
    shape = {name: value for name, value in explained.items() if name not in more} | {
        "recipients": [
            {k: v for k, v in each.items() if k not in ("facts", "rules", "not_told")}
            for each in explained["recipients"]
        ]
    }
    assert shape == {
        "message_id": explained["message_id"],
        "disposition": "CONTINUE",
        "suppressed": None,
        "recipients": [
            {
                "recipient": "nobody@example.com",
                "outcome": "bounce",
                "reason": "unknown-recipient",
                "bounce_type": "DoesNotExist",
                "status": "5.1.1",
                "dry_run": False,
            },
            {
                "recipient": "full@example.com",
                "outcome": "bounce",
                "reason": "over-quota",
                "bounce_type": "ExceededQuota",
                "status": "5.2.2",
                "dry_run": False,
            },
            {
                "recipient": "alice@example.com",
                "outcome": "accept",
                "reason": "accept",
                "bounce_type": None,
                "status": None,
                "dry_run": False,
            },
        ],
        "one_answer": False,
        "send_bounce": explained["send_bounce"],
    }
    assert explained["send_bounce"]["OriginalMessageId"] == explained["message_id"]
    assert [
        (each["Recipient"], each["BounceType"])
        for each in explained["send_bounce"]["BouncedRecipientInfoList"]
    ] == [("nobody@example.com", "DoesNotExist"), ("full@example.com", "ExceededQuota")]


def test_explain_prints_a_list_for_an_event_of_several_records(tmp_path: Path) -> None:
    events = [ses_event(ALICE, message_id="msg1"), ses_event(NOBODY, message_id="msg2")]
    event = {"Records": [record for each in events for record in each["Records"]]}
    explained = printed_json("explain", file(tmp_path, "event.json", event))
    assert [(each["message_id"], each["recipients"][0]["recipient"]) for each in explained] == [
        ("msg1", ALICE),
        ("msg2", NOBODY),
    ]


NO_ID = """
version = 1
[[rules]]
name = "no-message-id"
when.header.Message-ID = false
action = "drop"
[[rules]]
name = "accept"
action = "accept"
"""


@pytest.mark.parametrize(
    ("stored", "reason", "whole"),
    [
        ("From: pat@sender.example\n\nHi\n", "no-message-id", True),
        ("From: pat@sender.example\nMessage-ID: <1@sender.example>\n\nHi\n", "accept", True),
        (None, "accept", False),
    ],
    ids=["without", "with", "not there"],
)
def test_where_an_events_headers_are_cut_the_mail_beside_it_is_asked(
    tmp_path: Path, stored: str | None, reason: str, whole: bool
) -> None:
    event = file(tmp_path, "event.json", ses_event(NOBODY, headers_truncated=True))
    if stored is not None:
        file(tmp_path, "event.eml", stored)
    rules = file(tmp_path, "policy.toml", NO_ID)
    explained = printed_json("explain", event, "--policy", rules)
    assert explained["recipients"][0]["reason"] == reason
    assert explained["headers_whole"] is whole
    (tried, *_) = explained["recipients"][0]["rules"]
    assert tried["unknown"] is not whole


def test_a_recipient_that_no_bounce_can_name_keeps_the_mail_going_and_is_said(
    tmp_path: Path,
) -> None:
    boxes = file(tmp_path, "boxes.csv", "address,catch_all\n@ex\u00e4mple.com,false\n")
    event = file(tmp_path, "event.json", ses_event("j\u00fcrgen@ex\u00e4mple.com"))
    explained = printed_json("explain", event, "--mailboxes", boxes)
    assert (explained["disposition"], explained["send_bounce"]) == ("CONTINUE", None)
    assert "7-bit ASCII" in explained["recipients"][0]["not_told"]
    assert "cannot be in a bounce" in text_of("explain", event, "--mailboxes", boxes)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_explain_says_of_every_story_how_it_comes_out(story: Story) -> None:
    explained = printed_json("explain", EVENTS / f"{story.name}.json")
    assert (explained["disposition"], explained["suppressed"]) == (
        story.disposition,
        story.suppressed,
    )
    assert [
        (each["recipient"], each["outcome"], each["reason"], each["bounce_type"])
        for each in explained["recipients"]
    ] == [(each.recipient, each.outcome, each.reason, each.bounce_type) for each in story.expected]
    assert (explained["send_bounce"] is not None) == bool(story.bounced)


def test_explain_reads_a_mail_as_ses_would_deliver_it() -> None:
    explained = printed_json(
        "explain",
        EVENTS / "accepted.eml",
        "--mail-from",
        "pat@sender.example",
        "--rcpt-to",
        ALICE,
        "--rcpt-to",
        NOBODY,
    )
    assert [(each["recipient"], each["outcome"]) for each in explained["recipients"]] == [
        (ALICE, "accept"),
        (NOBODY, "bounce"),
    ]


@pytest.fixture
def shouted(tmp_path: Path) -> Path:
    """A mail whose file name is in capitals, as other systems write it."""
    return file(tmp_path, "MAIL.EML", (EVENTS / "accepted.eml").read_bytes())


def test_a_mails_suffix_may_be_in_any_case(shouted: Path) -> None:
    explained = printed_json("explain", shouted, "--rcpt-to", NOBODY)
    assert explained["recipients"][0]["recipient"] == NOBODY
    assert printed_json("replay", shouted.parent)["mails"] == 1


def test_the_size_of_a_mail_is_its_files_whatever_the_suffixs_case(shouted: Path) -> None:
    boxes = file(shouted.parent, "mailboxes.csv", f"address,size_limit_bytes\n{ALICE},1\n")
    result = bouncer("explain", shouted, "--rcpt-to", ALICE, "--mailboxes", boxes, "--json")
    assert json.loads(result.stdout)["recipients"][0]["reason"] == "too-large"
    assert "The size is not in an event" not in result.stderr


@pytest.mark.parametrize("command", ["explain", "preview"])
def test_a_mail_that_names_nobody_needs_a_recipient(tmp_path: Path, command: str) -> None:
    path = file(tmp_path, "mail.eml", "From: pat@sender.example\r\nSubject: Hello\r\n\r\nBody")
    complaint = error_of(command, path)
    assert "mail.eml names nobody in To or Cc: say who with --rcpt-to" in complaint
    mailboxes = file(tmp_path, "boxes.csv", "address\nalice@example.com\n")
    bouncer(command, path, "--rcpt-to", NOBODY, "--mailboxes", mailboxes)


@pytest.mark.parametrize("mail_from", ["<>", ""])
def test_explain_knows_the_null_sender_of_a_mail(mail_from: str) -> None:
    explained = printed_json(
        "explain", EVENTS / "unknown-recipient.eml", "--mail-from", mail_from, "--rcpt-to", NOBODY
    )
    assert (explained["suppressed"], explained["send_bounce"]) == ("null-sender", None)


def test_explain_shows_a_person_which_rule_decided_and_why_the_others_did_not() -> None:
    text = text_of("explain", EVENTS / "over-quota.json", "--verbose")
    for part in ("over-quota", "when.mailbox", "ExceededQuota", "SendBounce", "STOP_RULE_SET"):
        assert part in text


def test_explain_shows_a_person_which_guard_stopped_the_bounce() -> None:
    text = text_of("explain", EVENTS / "null-sender.json")
    assert "suppressed by null-sender (RFC 5321" in text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--size", "30000000"], "too-large"),
        (["--size", "100"], "accept"),
        (["--now", "2099-01-01T12:00:00"], "accept"),
    ],
)
def test_explain_takes_facts_from_its_options(options: list[str], reason: str) -> None:
    explained = printed_json("explain", EVENTS / "accepted.json", *options)
    assert explained["recipients"][0]["reason"] == reason


@pytest.mark.parametrize(
    ("now", "suppressed"),
    [
        ("2099-01-02T11:00:00", None),
        ("2099-01-02T11:00:00Z", None),
        ("2099-01-02T13:30:00+02:00", None),
        ("2099-01-02T11:30:00-02:00", "window-closed"),
        ("2099-01-03", "window-closed"),
    ],
)
def test_explain_pretends_that_it_is_then(now: str, suppressed: str | None) -> None:
    event = EVENTS / "unknown-recipient.json"
    assert printed_json("explain", event, "--now", now)["suppressed"] == suppressed


@pytest.mark.parametrize(
    "command",
    [
        ["explain", "event.json", "--now"],
        ["replay", "event.json", "--now"],
        ["mailbox", "disable", ALICE, "--until"],
        ["send-bounce", "--received-at"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("text", ["noon", "2026-13-01", "21.11.2026"])
def test_a_time_that_is_none_is_refused_with_how_to_write_it(command: list[str], text: str) -> None:
    complaint = error_of(*command, text, code=2)
    assert f"'{text}' is not ISO 8601" in complaint
    assert command[-1] in complaint


def test_explain_uses_the_stacks_bounce_sender() -> None:
    explained = printed_json(
        "explain", EVENTS / "unknown-recipient.json", "--bounce-sender", "bounces@example.org"
    )
    assert explained["send_bounce"]["BounceSender"] == "bounces@example.org"


def test_explain_takes_another_policy_and_other_mailboxes(tmp_path: Path) -> None:
    explained = printed_json(
        "explain",
        EVENTS / "unknown-recipient.json",
        "--policy",
        file(tmp_path, "policy.toml", DROPS),
        "--mailboxes",
        file(tmp_path, "mailboxes.json", [{"address": ALICE}]),
    )
    assert explained["recipients"][0]["outcome"] == "drop"


def test_explain_asks_a_table(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, NOBODY)
    event = EVENTS / "unknown-recipient.json"
    explained = printed_json("explain", event, "--table", MAILBOXES)
    assert explained["recipients"][0]["outcome"] == "accept"


def test_explain_says_when_nobody_told_it_a_mailbox_or_the_size(tmp_path: Path) -> None:
    event = file(tmp_path, "event.json", ses_event(ALICE))
    assert (
        "nothing is known of any domain, and nobody is unknown" in bouncer("explain", event).stderr
    )
    boxes = file(tmp_path, "boxes.json", [{"address": ALICE}])
    hint = bouncer("explain", event, "--mailboxes", boxes).stderr
    assert "The size is not in an event" in hint


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("event.json", "not JSON", "is not JSON"),
        ("event.json", {"Records": []}, "not an SES receipt event"),
        ("event.json", [1, 2], "not an SES receipt event"),
        ("event.json", {"Records": [{"ses": {"mail": {}}}]}, "missing required field"),
    ],
)
@pytest.mark.parametrize("command", ["explain", "preview"])
def test_an_event_that_cannot_be_read_is_named(
    tmp_path: Path, command: str, name: str, content: Any, complaint: str
) -> None:
    assert complaint in error_of(command, file(tmp_path, name, content))


@pytest.mark.parametrize("command", ["explain", "preview", "replay"])
def test_a_file_that_is_not_there_is_named(command: str) -> None:
    assert "nowhere.json" in error_of(command, "nowhere.json")


@pytest.mark.parametrize("command", ["explain", "preview", "replay"])
def test_a_bad_policy_is_named(tmp_path: Path, command: str) -> None:
    policy = file(tmp_path, "bad.toml", "version = 7")
    event = EVENTS / "accepted.json"
    assert "bad.toml" in error_of(command, event, "--policy", policy)


@pytest.mark.parametrize("command", ["explain", "preview", "replay"])
def test_a_policy_that_is_not_utf_8_is_named(tmp_path: Path, command: str) -> None:
    policy = file(tmp_path, "bad.toml", LATIN_1)
    complaint = error_of(command, EVENTS / "accepted.json", "--policy", policy)
    assert f"{policy} is not UTF-8: save it as UTF-8" in complaint


@pytest.mark.parametrize("command", ["explain", "preview", "replay"])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("address,quota\na@example.com,5\n", "line 2: no field is called quota"),
        ("address\nalice\n", "line 2: address"),
        (b"address\ncaf\xe9@example.com\n", "is not UTF-8"),
    ],
)
def test_mailboxes_that_are_wrong_are_named(
    tmp_path: Path, command: str, content: str | bytes, complaint: str
) -> None:
    boxes = file(tmp_path, "boxes.csv", content)
    told = error_of(command, EVENTS / "unknown-recipient.json", "--mailboxes", boxes)
    assert str(boxes) in told
    assert complaint in told


@pytest.mark.parametrize("command", ["explain", "preview"])
def test_a_bounce_that_ses_would_refuse_is_named(command: str) -> None:
    event = EVENTS / "unknown-recipient.json"
    complaint = error_of(command, event, "--bounce-sender", "bänce@example.com")
    assert "bounce_sender" in complaint


def test_the_malformed_story_is_told_what_it_lacks() -> None:
    assert "receipt" in error_of("explain", EVENTS / "malformed.json")


def test_preview_prints_the_dsn_as_the_sender_gets_it() -> None:
    dsn = message_from_string(bouncer("preview", EVENTS / "several-recipients.json").stdout)
    assert dsn.get_content_type() == "multipart/report"
    assert "pat@sender.example" in dsn["To"]
    (status,) = [
        part for part in dsn.walk() if part.get_content_type() == "message/delivery-status"
    ]
    blocks: Any = status.get_payload()
    assert [block["Status"] for block in blocks[1:]] == ["5.1.1", "5.2.2"]


@pytest.mark.parametrize(
    ("story", "why"), [("accepted", "none decided"), ("null-sender", "null-sender")]
)
def test_preview_of_what_sends_nothing_says_so(story: str, why: str) -> None:
    assert f"no bounce is sent ({why})" in error_of("preview", EVENTS / f"{story}.json")


def test_replay_sums_up_by_reason(tmp_path: Path) -> None:
    file(tmp_path, "one.json", ses_event(NOBODY, ALICE))
    file(tmp_path, "two.json", ses_event(NOBODY, sender="<>"))
    file(tmp_path, "mailboxes.csv", f"address\n{ALICE}\n")
    report = printed_json("replay", tmp_path)
    counted = {"outcome": "bounce", "reason": "unknown-recipient"}
    assert report == {
        "mails": 2,
        "unreadable": [],
        "recipients": [
            {"outcome": "accept", "reason": "accept", "suppressed": None, "count": 1},
            {**counted, "suppressed": None, "count": 1},
            {**counted, "suppressed": "null-sender", "count": 1},
        ],
        "changes": None,
    }


def test_replay_against_another_policy_shows_whose_outcome_changes(tmp_path: Path) -> None:
    event = file(tmp_path, "one.json", ses_event(NOBODY, ALICE))
    report = printed_json(
        "replay",
        event,
        "--policy",
        file(tmp_path, "old.toml", POLICY),
        "--against",
        file(tmp_path, "new.toml", DROPS),
        "--mailboxes",
        file(tmp_path, "boxes.json", [{"address": ALICE}]),
    )
    assert report["changes"] == [
        {
            "file": str(event),
            "recipient": NOBODY,
            "was": "bounce unknown-recipient",
            "becomes": "drop unknown-recipient",
        }
    ]


def test_replay_of_the_same_policy_changes_nobody() -> None:
    report = printed_json("replay", EVENTS, "--against", SHIPPED)
    assert report["changes"] == []


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "JSON"])
def test_replay_of_nothing_readable_fails_and_says_why(tmp_path: Path, options: list[str]) -> None:
    file(tmp_path, "one.json", "not JSON")
    file(tmp_path, "two.eml", "Subject: nobody's\r\n\r\n")
    printed = bouncer("replay", tmp_path, *options, code=1).stdout
    for part in ("one.json is not JSON", "two.eml names nobody in To or Cc"):
        assert part in printed


def test_replay_goes_on_past_what_cannot_be_read() -> None:
    report = printed_json("replay", EVENTS)
    assert report["mails"] == len(STORIES)
    (unreadable,) = report["unreadable"]
    assert unreadable["file"].endswith("malformed.json")
