"""The events in events/ are made of the mails beside them, and come out as their story says."""

import json
from pathlib import Path

import pytest

from bouncer.message import MalformedEventError
from bouncer.policy.load import load
from bouncer_console.explain.desk import Desk
from bouncer_console.explain.mails import read_mails
from local.stack import BOUNCE_SENDER, EVENTS
from local.stories import MALFORMED, STORIES, Story, as_text, event_of, write
from tests.unit.builders import SHIPPED_POLICY

STORY = pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)

DESK = Desk(
    policy=SHIPPED_POLICY,
    mailboxes=EVENTS / "mailboxes.csv",
    bounce_sender=BOUNCE_SENDER,
    region="us-east-1",
)


@STORY
def test_the_event_file_is_exactly_what_its_mail_makes(story: Story) -> None:
    assert (EVENTS / f"{story.name}.json").read_text() == as_text(event_of(story))


def test_the_folder_holds_the_stories_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    there = {path.name: path.read_text() for path in EVENTS.glob("*.json")}
    assert there == written
    assert {path.stem for path in EVENTS.glob("*.eml")} == {story.name for story in STORIES}


@STORY
def test_the_story_comes_out_as_it_says(story: Story) -> None:
    path = EVENTS / f"{story.name}.json"
    (mail,) = read_mails(path)
    told = DESK.explain(mail, path).as_json()
    names = ("recipient", "outcome", "reason", "bounce_type", "status", "dry_run")
    assert [tuple(each[name] for name in names) for each in told["recipients"]] == [
        (each.recipient, each.outcome, each.reason, each.bounce_type, each.status, False)
        for each in story.expected
    ]
    assert told["suppressed"] == story.suppressed
    assert told["disposition"] == story.disposition
    bounced = (told["send_bounce"] or {}).get("BouncedRecipientInfoList", [])
    assert [each["Recipient"] for each in bounced] == [each.recipient for each in story.bounced]


@STORY
def test_the_mail_itself_comes_out_like_its_event(story: Story) -> None:
    path = EVENTS / f"{story.name}.eml"
    (from_eml,) = read_mails(path, story.mail_from, list(story.recipients))
    (from_json,) = read_mails(path.with_suffix(".json"))
    told, expected = (DESK.explain(mail, path).as_json() for mail in (from_eml, from_json))
    for field in ("recipients", "suppressed", "disposition"):
        assert told[field] == expected[field]


def test_the_malformed_event_says_what_is_missing() -> None:
    assert "receipt" not in json.loads(MALFORMED.read_text())["Records"][0]["ses"]
    with pytest.raises(MalformedEventError, match=r"`receipt` - at `\$.Records\[0\].ses`"):
        read_mails(MALFORMED)


def test_the_stories_tell_of_every_rule_and_of_every_outcome() -> None:
    told = {each.reason for story in STORIES for each in story.expected}
    shipped = load(SHIPPED_POLICY.read_text("utf-8"))
    assert {rule.section.name for rule in shipped.shared} <= told
    assert {each.outcome for story in STORIES for each in story.expected} == {
        "accept",
        "drop",
        "bounce",
    }
