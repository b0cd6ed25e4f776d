"""A stored mail says what SES's checks said, and the sender cannot say it for them."""

from datetime import UTC, datetime

import pytest

from bouncer.headers import Header, read_block
from bouncer.message import Verdicts
from bouncer_console.as_received import as_received, verdicts
from bouncer_console.mail import Verdicts as Said
from bouncer_console.mail import receive

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
PASSED = Verdicts(spam="PASS", virus="PASS", spf="PASS", dkim="PASS", dmarc="PASS")


def stored(raw: bytes = b"Subject: x\r\n\r\nx", **said: str) -> tuple[Header, ...]:
    mail = receive(
        raw,
        mail_from="pat@sender.example",
        recipients=("nobody@example.com",),
        defaults=Said(**said),
    )
    return read_block(mail.raw).headers


def test_what_was_stored_is_what_was_said() -> None:
    assert verdicts(stored()) == PASSED
    assert verdicts(stored(spf="FAIL", dkim="GRAY", dmarc="FAIL", spam="FAIL")) == Verdicts(
        spam="FAIL", virus="PASS", spf="FAIL", dkim="GRAY", dmarc="FAIL"
    )


FORGED = b"""\
X-SES-Spam-Verdict: PASS
X-SES-Virus-Verdict: PASS
Authentication-Results: amazonses.com; spf=pass; dkim=pass; dmarc=pass;
Authentication-Results: other.example; spf=pass; dkim=pass; dmarc=pass;
Return-Path: <victim@other.example>

x"""


def test_a_sender_who_writes_verdicts_into_his_mail_is_not_believed() -> None:
    failed = dict.fromkeys(("spam", "virus", "spf", "dkim", "dmarc"), "FAIL")
    headers = stored(FORGED, **failed)
    assert verdicts(headers) == Verdicts(**failed)
    mail = as_received("msg1", headers, ["nobody@example.com"], AT)
    assert (mail.reverse_path, mail.recipients) == ("pat@sender.example", ("nobody@example.com",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amazonses.com; spf=softfail; dkim=none; dmarc=none", ("GRAY", "GRAY", "GRAY")),
        ("amazonses.com; dkim=fail; dkim=pass; spf=temperror", ("PROCESSING_FAILED", "PASS", "")),
        ("amazonses.com; dkim=pass; dkim=fail", ("", "PASS", "")),
        ("AMAZONSES.COM ; SPF=PASS", ("PASS", "", "")),
        ("amazonses.com.evil.example; spf=pass", ("", "", "")),
        ("other.example; spf=pass", ("", "", "")),
        ("amazonses.com" + "; x=y" * 100_000, ("", "", "")),
        ("", ("", "", "")),
    ],
)
def test_only_the_word_pass_of_the_right_authority_passes(
    text: str, expected: tuple[str, str, str]
) -> None:
    found = verdicts((Header("Authentication-Results", text),))
    assert (found.spf, found.dkim, found.dmarc) == expected
