"""What becomes of a mail: who is told what, and whether the mail goes on."""

from typing import Any

import msgspec
import pytest

from tests.fakes.bounces import BOUNCE_SENDER, NOBODY
from tests.integration.builders import ALICE, BOUNCES, put_mail, put_mailbox, recipients_of, stored
from tests.integration.inbound.site import Site


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """A mailbox, a mail to it, and what SendBounce is asked for."""

    name: str
    mailbox: dict[str, Any] | None = None
    recipient: str = ALICE
    size: int = 1000
    bounce: tuple[str, str] | None = None
    """The bounce's name of the parameter that says what it is, and its value."""
    reason: str = "accept"


_TYPE = "BounceType"
_STATUS = "RecipientDsnFields.Status"
STORIES = [
    Story(
        name="unknown", recipient=NOBODY, bounce=(_TYPE, "DoesNotExist"), reason="unknown-recipient"
    ),
    Story(
        name="over quota",
        mailbox={"quota_bytes": 100, "used_bytes": 100},
        bounce=(_TYPE, "ExceededQuota"),
        reason="over-quota",
    ),
    Story(
        name="no room for this mail",
        mailbox={"quota_bytes": 1000, "used_bytes": 100},
        bounce=(_TYPE, "ExceededQuota"),
        reason="over-quota",
    ),
    Story(
        name="too large for the mailbox",
        mailbox={"size_limit_bytes": 999},
        bounce=(_TYPE, "MessageTooLarge"),
        reason="too-large",
    ),
    Story(
        name="disabled",
        mailbox={"status": "disabled"},
        bounce=(_STATUS, "5.2.1"),
        reason="mailbox-disabled",
    ),
    Story(
        name="moved",
        mailbox={"moved_to": "alice@new.example"},
        bounce=(_STATUS, "5.1.6"),
        reason="mailbox-moved",
    ),
    Story(name="known", mailbox={}),
    Story(name="room left", mailbox={"quota_bytes": 2000, "used_bytes": 100}),
    Story(name="just small enough", mailbox={"size_limit_bytes": 1000}),
    Story(name="tagged", mailbox={}, recipient="alice+news@example.com"),
    Story(name="in another case", mailbox={}, recipient="Alice@Example.COM"),
    Story(
        name="disabled until yesterday",
        mailbox={"status": "disabled", "status_until": "2020-01-01T00:00:00Z"},
    ),
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_how_a_mail_comes_out(site: Site, story: Story) -> None:
    if story.mailbox is not None:
        put_mailbox(site.dynamodb, **story.mailbox)
    put_mail(site.s3, "msg1", bytes(story.size))
    disposition = site.mail(story.recipient)
    line = site.printed.line("mail handled")
    assert line["recipients"][0]["reason"] == story.reason
    if story.bounce is None:
        assert (disposition, site.ses.calls) == ("CONTINUE", [])
        return
    (call,) = site.ses.calls
    name, value = story.bounce
    assert call.parameters[f"BouncedRecipientInfoList.member.1.{name}"] == value
    assert call.parameters["OriginalMessageId"] == "msg1"
    assert call.parameters["BounceSender"] == BOUNCE_SENDER
    assert disposition == "STOP_RULE_SET"
    assert site.state(story.recipient) == "sent"
    assert site.printed.counts[f"BounceSent:{story.reason}"] == 1


def test_of_several_recipients_the_refused_ones_share_a_bounce_and_the_mail_goes_on(
    site: Site,
) -> None:
    put_mailbox(site.dynamodb)
    put_mailbox(site.dynamodb, "full@example.com", quota_bytes=1, used_bytes=1)
    assert site.mail(NOBODY, "full@example.com", ALICE) == "CONTINUE"
    (call,) = site.ses.calls
    assert recipients_of(call) == [NOBODY, "full@example.com"]
    assert (site.state(NOBODY), site.state("full@example.com"), site.state(ALICE)) == (
        "sent",
        "sent",
        None,
    )


def test_the_sender_reads_why_in_the_policys_words(site: Site) -> None:
    site.mail(NOBODY)
    (call,) = site.ses.calls
    assert call.parameters["Explanation"].startswith(f"There is no mailbox {NOBODY} here.")


@pytest.mark.parametrize("verdict", ["spam", "virus"])
def test_what_is_foul_is_dropped_without_a_word(site: Site, verdict: str) -> None:
    assert site.mail(NOBODY, **{verdict: "FAIL"}) == "STOP_RULE_SET"
    assert site.ses.calls == []
    assert site.printed.counts == {f"RecipientDropped:{verdict}": 1}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"sender": ""}, "null-sender"),
        ({"sender": "<>"}, "null-sender"),
        ({"sender": NOBODY}, "own-address"),
        ({"sender": BOUNCE_SENDER}, "own-address"),
        ({"sender": "other@example.com", "spf": "GRAY", "dmarc": "GRAY"}, "own-domain"),
        ({"spf": "FAIL", "dkim": "GRAY", "dmarc": "GRAY"}, "spf-failed"),
        ({"spf": "GRAY", "dkim": "GRAY", "dmarc": "GRAY"}, "unproven-sender"),
        ({"headers": [("List-Id", "<x>")]}, "list-mail"),
        ({"headers": [("Auto-Submitted", "auto-replied")]}, "auto-submitted"),
        ({"headers_truncated": True}, "headers-truncated"),
    ],
)
def test_whom_nobody_may_answer_is_not_answered(
    site: Site, fields: dict[str, Any], reason: str
) -> None:
    assert site.mail(NOBODY, **fields) == "STOP_RULE_SET"
    assert site.ses.calls == []
    assert site.state() == "suppressed"
    assert site.printed.line("mail handled")["suppressed"] == reason
    assert site.printed.counts[f"BounceSuppressed:{reason}"] == 1


def test_a_bounce_sender_is_never_told_of_and_the_ledger_and_the_record_say_so(
    site: Site,
) -> None:
    """Somebody, often a robot, answered a bounce: who else stands in the mail is told of."""
    assert site.mail(BOUNCE_SENDER, NOBODY) == "STOP_RULE_SET"
    (call,) = site.ses.calls
    assert recipients_of(call) == [NOBODY]
    assert (site.state(BOUNCE_SENDER), site.state(NOBODY)) == ("suppressed", "sent")
    assert site.printed.counts["BounceSuppressed:bounce-sender-recipient"] == 1
    line = site.printed.line("mail handled")
    assert {each["state"] for each in line["recipients"]} == {"suppressed", "sent"}
    record = stored(site.dynamodb, BOUNCES, pk="message#msg1", sk="mail")
    assert BOUNCE_SENDER in record["recipients"]
    assert NOBODY in record["recipients"]


def test_a_mail_to_the_bounce_sender_alone_ends_in_silence(site: Site) -> None:
    assert site.mail(BOUNCE_SENDER) == "STOP_RULE_SET"
    assert site.ses.calls == []
    assert site.state(BOUNCE_SENDER) == "suppressed"
    assert site.printed.line("mail handled")["suppressed"] == "bounce-sender-recipient"


def test_truncated_headers_are_read_again_from_the_stored_mail(site: Site) -> None:
    put_mail(site.s3, "msg1", b"From: pat@sender.example\r\nPrecedence: bulk\r\n\r\n")
    site.mail(NOBODY, headers_truncated=True)
    assert site.printed.line("mail handled")["suppressed"] == "list-mail"


def test_truncated_headers_that_say_nothing_stop_no_bounce(site: Site) -> None:
    put_mail(site.s3, "msg1", b"From: pat@sender.example\r\n\r\n")
    site.mail(NOBODY, headers_truncated=True)
    assert site.state() == "sent"


def test_who_has_spent_his_budget_is_not_told_and_keeps_his_mail(site: Site) -> None:
    """The shipped policy allows a sender 100 recipients a day."""
    for number in range(2):
        recipients = [f"nobody{number}-{each}@example.com" for each in range(50)]
        assert site.mail(*recipients, message_id=f"msg{number}") == "STOP_RULE_SET"
    sent = len(site.ses.calls)
    assert site.mail(NOBODY, message_id="one-more") == "CONTINUE"
    assert len(site.ses.calls) == sent
    assert site.printed.lines[-1]["suppressed"] == "sender-budget"
    assert site.printed.counts["SenderNotTold:sender-budget"] == 1


def test_a_mail_that_is_suppressed_leaves_a_line_in_the_ledger(site: Site) -> None:
    site.mail(NOBODY, sender="")
    entry = stored(site.dynamodb, BOUNCES, pk="message#msg1", sk=f"recipient#{NOBODY}")
    assert (entry["state"], entry["reason"]) == ("suppressed", "null-sender")
