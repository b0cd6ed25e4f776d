"""What SES was recorded to do, and the emulator does too: events, notifications, DSNs, keys."""

import email
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bouncer.settings import stored_prefix
from bouncer_console.dsn import build_dsn
from bouncer_console.mail import (
    LAMBDA_HEADERS_LIMIT,
    SNS_HEADERS_LIMIT,
    Verdicts,
    cut_headers,
    lambda_event,
    receive,
    topic_notice,
)

NOW = datetime(2015, 10, 1, 13, 48, 54, tzinfo=UTC)


def event_of(data: bytes, **fields: Any) -> Any:
    mail = receive(data, mail_from="pat@sender.example", recipients=("a@example.com",), **fields)
    return lambda_event(mail, recipients=mail.recipients, function_arn="arn")["Records"][0]["ses"]


def header(ses: Any, name: str) -> list[str]:
    return [each["value"] for each in ses["mail"]["headers"] if each["name"] == name]


# --- Events ----------------------------------------------------------------------------------


@given(
    fields=st.lists(st.tuples(st.text("ab", min_size=1), st.text("cd ")), max_size=20),
    limit=st.integers(0, 200),
)
def test_whole_headers_go_from_the_end(fields: list[tuple[str, str]], limit: int) -> None:
    kept, truncated = cut_headers(fields, limit)
    assert [(each["name"], each["value"]) for each in kept] == fields[: len(kept)]
    assert truncated is (len(kept) < len(fields))
    assert sum(len(f"{name}: {value}\r\n") for name, value in fields[: len(kept)]) <= limit


def test_an_event_has_more_headers_than_a_notification_and_both_have_every_common_one() -> None:
    data = b"".join(b"X-Pad: %s\r\n" % (b"x" * 900) for _ in range(30)) + b"Subject: End\r\n\r\n"
    mail = receive(data, mail_from="", recipients=("a@example.com",))
    event = lambda_event(mail, recipients=mail.recipients, function_arn="arn")
    told = topic_notice(mail, recipients=mail.recipients, action={"type": "S3"})
    whole, cut = event["Records"][0]["ses"]["mail"], told["mail"]
    assert (whole["headersTruncated"], cut["headersTruncated"]) == (False, True)
    assert len(cut["headers"]) < len(whole["headers"])
    assert whole["commonHeaders"]["subject"] == cut["commonHeaders"]["subject"] == "End"
    assert (SNS_HEADERS_LIMIT, LAMBDA_HEADERS_LIMIT) == (10_000, 50_000)
    assert told["receipt"]["recipients"] == ["a@example.com"]
    assert told["notificationType"] == "Received"


def test_values_come_unfolded_decoded_and_signatures_joined() -> None:
    ses = event_of(
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?q?_aus_Bern?=\r\n"
        b"X-Long: one\r\n\ttwo\r\n  three\r\n"
        b"DKIM-Signature: v=1; d=s.example;\r\n b=abc\r\n def;\r\n bh=x y\r\n"
        b"X-Bad: =?nosuch?q?=41?=\r\n\r\nBody"
    )
    assert header(ses, "Subject") == ["Grüße aus Bern"]
    assert header(ses, "X-Long") == ["one two three"]
    assert header(ses, "DKIM-Signature") == ["v=1; d=s.example; b=abcdef; bh=x y"]
    assert header(ses, "X-Bad") == ["=?nosuch?q?=41?="]


@pytest.mark.parametrize(
    ("dmarc", "policy", "told"),
    [("PASS", "", None), ("FAIL", "", "none"), ("FAIL", "reject", "reject")],
)
def test_the_dmarc_policy_is_a_word_and_only_there_when_dmarc_fails(
    dmarc: str, policy: str, told: str | None
) -> None:
    ses = event_of(b"Subject: x\r\n\r\n", defaults=Verdicts(dmarc=dmarc, dmarc_policy=policy))
    assert ses["receipt"].get("dmarcPolicy") == told


@pytest.mark.parametrize(
    ("prefix", "key"),
    [("", ""), ("inbox", "inbox/"), ("inbox/", "inbox/"), ("email/x/inbox", "email/x/inbox/")],
)
def test_the_slash_is_put_in_where_a_prefix_lacks_it(prefix: str, key: str) -> None:
    assert stored_prefix(prefix) == key


# --- DSNs ------------------------------------------------------------------------------------

FIELDS = {
    "Action": "failed",
    "Status": "5.2.1",
    "DiagnosticCode": "smtp; 550 off",
    "ExtensionFields": [{"Name": "X-More", "Value": "1"}],
}


def dsn(**changes: Any) -> bytes:
    request = {
        "OriginalMessageId": "m1",
        "BounceSender": "mailer-daemon@example.com",
        "BouncedRecipientInfoList": [
            {"Recipient": "a@example.com", "BounceType": "DoesNotExist"},
            {"Recipient": "b@example.com", "RecipientDsnFields": FIELDS},
        ],
        "MessageDsn": {"ReportingMta": "dns; mx.example.com", "ArrivalDate": NOW},
    } | changes
    return build_dsn(
        request,
        reverse_path="pat@sender.example",
        original=[("Subject", "Grüße\r\nBcc: x"), ("X-Long", "word " * 400)],
        bounce_id="b1",
        now=NOW,
    )


def test_a_dsn_has_the_recorded_shape() -> None:
    report: Any = email.message_from_bytes(dsn())
    assert report["Subject"] == "Delivery Status Notification (Failure)"
    assert report["Auto-Submitted"] is None
    text, status, headers = report.get_payload()
    assert text.get_payload().strip() == "This message could not be delivered."
    assert status.get_content_type() == "message/delivery-status"
    assert headers.get_content_type() == "text/rfc822-headers"
    about_all, first, second = status.get_payload()
    assert about_all.items() == [
        ("Reporting-MTA", "dns; mx.example.com"),
        ("Arrival-Date", "Thu, 01 Oct 15 13:48:54 UTC"),
    ]
    recorded = ["Action", "Final-Recipient", "Original-Recipient", "Diagnostic-Code", "Status"]
    assert first.keys() == recorded
    assert second.items() == [
        ("Action", "failed"),
        ("Final-Recipient", "rfc822; b@example.com"),
        ("Original-Recipient", "rfc822; b@example.com"),
        ("Diagnostic-Code", "smtp; 550 off"),
        ("Status", "5.2.1"),
        ("X-More", "1"),
    ]


def test_an_explanation_stands_in_place_of_the_text_line_by_line() -> None:
    report: Any = email.message_from_bytes(dsn(Explanation="One.\nTwo."))
    assert report.get_payload(0).get_payload().split() == ["One.", "Two."]


def test_no_value_ends_its_line_and_no_line_is_too_long_for_smtp() -> None:
    data = dsn(BounceSender="x@example.com\r\nBcc: victim@example.org")
    assert max(map(len, data.split(b"\r\n"))) <= 998
    report: Any = email.message_from_bytes(data)
    assert report["Bcc"] is None
    assert b"\nBcc" not in data
