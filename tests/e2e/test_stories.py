"""Real mail in over SMTP, the deployed application, real DSNs out."""

import email
import shutil
import subprocess
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from flufl.bounce import all_failures, scan_message

from local.demo import mail_story, malformed_story
from local.stories import STORIES, Story
from tests.e2e.conftest import Site


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_each_story_comes_out_as_told(site: Site, story: Story) -> None:
    rows = mail_story(site.aws, site.outputs, story)
    assert [row.problems for row in rows] == [[] for _ in rows]


def test_a_malformed_event_is_kept_and_the_mail_goes_on(site: Site) -> None:
    assert malformed_story(site.aws, site.outputs).problems == []


def test_one_dsn_tells_programs_and_people_about_all_that_failed(site: Site) -> None:
    message_id = site.mail("nobody@example.com", "full@example.com", "alice@example.com")
    site.trace(message_id)
    (call,) = site.bounces(message_id)
    raw = Path(call["dsn"]).read_bytes()

    temporary, permanent = all_failures(email.message_from_bytes(raw))
    assert sorted(temporary) == []
    assert sorted(permanent) == [b"full@example.com", b"nobody@example.com"]

    report = email.message_from_bytes(raw, policy=default)
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    assert report["Return-Path"] == "<>"
    assert report["Auto-Submitted"] is None  # recorded: SES writes none
    assert report["To"] == "pat@sender.example"
    kinds = [part.get_content_type() for part in report.iter_parts()]
    assert kinds == ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    parts: Any = report.get_payload()
    blocks = parts[1].get_payload()
    assert [block["Status"] for block in blocks] == [None, "5.1.1", "5.2.2"]
    assert blocks[0]["Reporting-MTA"].startswith("dns; ")
    assert blocks[0]["X-Ses-Bouncer"]
    text = parts[0].get_content()
    assert "no mailbox nobody@example.com" in text
    assert "mailbox full@example.com is full" in text


def test_a_soft_bounce_is_read_as_temporary(site: Site) -> None:
    """The DSN of a TemporaryFailure is one to programs too."""
    message_id = site.mail("alice@example.com")
    site.trace(message_id)
    site.client("ses").send_bounce(
        OriginalMessageId=message_id,
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=[
            {
                "Recipient": "alice@example.com",
                "RecipientDsnFields": {"Action": "delayed", "Status": "4.2.0"},
            }
        ],
    )
    (call,) = site.bounces(message_id)
    raw = Path(call["dsn"]).read_bytes()
    assert scan_message(email.message_from_bytes(raw)) == set()
    temporary, _ = all_failures(email.message_from_bytes(raw))
    assert temporary == {b"alice@example.com"}


@pytest.mark.skipif(shutil.which("swaks") is None, reason="swaks is not installed")
def test_swaks_gets_its_bounce(site: Site) -> None:
    done = subprocess.run(
        [
            "swaks", "--server", f"127.0.0.1:{site.aws.smtp_port}",
            "--from", "you@sender.example", "--to", "typo@example.com",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )  # fmt: skip
    accepted = [line for line in done.stdout.splitlines() if "<-  250 OK " in line]
    message_id = accepted[-1].split()[-1]
    assert site.result(message_id) == "STOP_RULE_SET"
    assert len(site.bounces(message_id)) == 1


@pytest.mark.parametrize(
    ("headers", "guard"),
    [
        # DMARC's PASS would prove the sender without SPF.
        ([("X-Local-SPF", "FAIL"), ("X-Local-DMARC", "GRAY")], "spf-failed"),
        ([("X-Local-DMARC", "FAIL"), ("X-Local-DMARC-Policy", "reject")], "dmarc-failed"),
        ([("Auto-Submitted", "auto-replied")], "auto-submitted"),
        ([("List-Id", "<l.sender.example>")], "list-mail"),
        ([("X-Auto-Response-Suppress", "All")], "response-suppressed"),
    ],
)
def test_a_guard_keeps_the_sender_from_being_told(
    site: Site, headers: list[tuple[str, str]], guard: str
) -> None:
    message_id = site.mail("nobody@example.com", headers=headers)
    decided = site.decided(message_id)
    assert decided["suppressed"] == guard
    assert [each["state"] for each in decided["recipients"]] == ["suppressed"]
    assert site.bounces(message_id) == []


def test_header_text_cannot_reach_into_the_dsn(site: Site) -> None:
    """A subject with line breaks and another's header stays text."""
    data = (
        b"From: pat@sender.example\r\nTo: nobody@example.com\r\n"
        b"Subject: =?utf-8?q?x=0D=0ABcc=3A_victim=40example=2Eorg?=\r\n\r\nHi\r\n"
    )
    message_id = site.mail_raw(data, "pat@sender.example", "nobody@example.com")
    site.trace(message_id)
    (call,) = site.bounces(message_id)
    report = email.message_from_bytes(Path(call["dsn"]).read_bytes())
    assert report["Bcc"] is None
    assert report["To"] == "pat@sender.example"
