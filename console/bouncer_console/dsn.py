"""The DSN that SES would send for a SendBounce request: what a mail client gets to see.

RFC 3464 fields in an RFC 6522 multipart/report. Each part says how its shape is known:
recorded from the bounces of SES's receipt rules, documented, inferred, or unverified.
Written as text, for no library lets every field of a request through as it is.
"""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from bouncer.delivery.bounce import STATUS, BounceType
from bouncer_console.mail import REGION

# Documented for SES's own bounce templates, inferred for SendBounce.
_SMTP_CODE = {
    BounceType.DOES_NOT_EXIST: 550,
    BounceType.MESSAGE_TOO_LARGE: 552,
    BounceType.EXCEEDED_QUOTA: 552,
    BounceType.CONTENT_REJECTED: 550,
    BounceType.UNDEFINED: 554,
    BounceType.TEMPORARY_FAILURE: 450,
}
# Unverified: SES's words for its types.
_DEFAULT_TEXT = {
    BounceType.DOES_NOT_EXIST: "mailbox does not exist",
    BounceType.MESSAGE_TOO_LARGE: "message too large",
    BounceType.EXCEEDED_QUOTA: "mailbox full",
    BounceType.CONTENT_REJECTED: "message content rejected",
    BounceType.UNDEFINED: "unknown failure",
    BounceType.TEMPORARY_FAILURE: "temporary failure",
}
_NOT_DELIVERED = "This message could not be delivered."  # recorded

type Fields = Iterable[tuple[str, str]]


def build_dsn(
    request: Mapping[str, Any],
    *,
    reverse_path: str,
    original: Fields | None,
    bounce_id: str,
    now: datetime,
) -> bytes:
    """The bounce message for a SendBounce request.

    Args:
        request: the parameters as boto3 names them.
        reverse_path: whom it goes to; it is sent from the null reverse-path.
        original: the header fields of the mail that is bounced, which are returned; its body
            is not.
    """
    recipients = request["BouncedRecipientInfoList"]
    boundary = f"----=_Part_{bounce_id.replace('-', '')[:32]}"
    head = [
        ("Return-Path", "<>"),
        ("Date", format_datetime(now.astimezone(UTC))),
        ("From", request["BounceSender"]),
        ("To", reverse_path),
        ("Message-ID", f"<{bounce_id}@{REGION}.amazonses.com>"),
        ("Subject", _subject(recipients)),  # recorded
        ("MIME-Version", "1.0"),
        (
            "Content-Type",
            f'multipart/report; boundary="{boundary}"; report-type=delivery-status',
        ),
        # Recorded: it leaves as any mail of SES does. There is no Auto-Submitted.
        ("X-SES-Outgoing", f"{now.astimezone(UTC):%Y.%m.%d}-192.0.2.1"),
    ]
    parts = [
        # Documented: the Explanation, or a text of SES's; recorded: that text of a receipt rule.
        ("text/plain; charset=us-ascii", _lines(request.get("Explanation") or _NOT_DELIVERED)),
        ("message/delivery-status", _delivery_status(request, now)),
    ]
    if original is not None:  # recorded: headers only (RFC 6522 §3)
        parts.append(("text/rfc822-headers", _block(original)))
    body = "".join(
        f"--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: 7bit\r\n\r\n{text}\r\n"
        for kind, text in parts
    )
    text = f"{_block(head)}\r\n{body}--{boundary}--\r\n"
    return text.encode("ascii", "replace")


def _subject(recipients: Sequence[Mapping[str, Any]]) -> str:
    actions = {each.get("RecipientDsnFields", {}).get("Action", "failed") for each in recipients}
    # Recorded for failures, inferred for the rest.
    kind = {"failed": "Failure", "delayed": "Delay"}.get(actions.pop(), "Success")
    return f"Delivery Status Notification ({kind})"


def _delivery_status(request: Mapping[str, Any], now: datetime) -> str:
    dsn = request.get("MessageDsn", {})
    about_all = [
        # Documented: SES's default.
        ("Reporting-MTA", dsn.get("ReportingMta", f"dns; inbound-smtp.{REGION}.amazonaws.com")),
        ("Arrival-Date", _date(dsn.get("ArrivalDate") or now)),
        *((each["Name"], each["Value"]) for each in dsn.get("ExtensionFields", [])),
    ]
    blocks = [about_all, *map(_recipient_fields, request["BouncedRecipientInfoList"])]
    return "\r\n".join(map(_block, blocks))


def _recipient_fields(recipient: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The per-recipient block, from the type or from the fields (RFC 3464 §2.3).

    Recorded: the first five and their order. Inferred: what stands after them.
    """
    address, given = recipient["Recipient"], recipient.get("RecipientDsnFields")
    if given is None:
        kind = BounceType(recipient["BounceType"])
        status = STATUS[kind]
        code = f"smtp; {_SMTP_CODE[kind]} {status} {_DEFAULT_TEXT[kind]}"
        given = {"Action": "failed", "Status": status, "DiagnosticCode": code}
    fields = [
        ("Action", given["Action"]),
        ("Final-Recipient", f"rfc822; {given.get('FinalRecipient', address)}"),
        ("Original-Recipient", f"rfc822; {address}"),
        ("Diagnostic-Code", given.get("DiagnosticCode", "")),
        ("Status", given["Status"]),
        ("Remote-MTA", given.get("RemoteMta", "")),
        ("Last-Attempt-Date", _date(given.get("LastAttemptDate"))),
        *((each["Name"], each["Value"]) for each in given.get("ExtensionFields", [])),
    ]
    return [(name, value) for name, value in fields if value]


def _date(value: datetime | None) -> str:
    """Recorded of Arrival-Date: `Thu, 01 Oct 15 13:48:54 UTC`."""
    return value.astimezone(UTC).strftime("%a, %d %b %y %H:%M:%S UTC") if value else ""


def _lines(text: str) -> str:
    return "".join(
        f"{part}\r\n" for line in text.splitlines() for part in textwrap.wrap(line, 990) or [""]
    )


def _block(fields: Fields) -> str:
    return "".join(_folded(fields))


def _folded(fields: Fields) -> Iterator[str]:
    """Header fields in lines that SMTP takes (RFC 5322 §2.1.1); no value ends its line."""
    for name, value in fields:
        field = f"{name}: {' '.join(str(value).split())}"
        lines = textwrap.wrap(field, 990, subsequent_indent=" ", break_on_hyphens=False)
        yield "\r\n".join(lines) + "\r\n"
