"""The DSN that SES would send for a SendBounce request: what a mail client gets to see.

RFC 3464 fields in an RFC 6522 multipart/report. SES does not document its texts, so those of
the human-readable part are this project's.
"""

import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage, Message
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from typing import Any

from bouncer.delivery.bounce import STATUS, BounceType
from bouncer_console.mail import REGION

_SMTP_CODE = {
    BounceType.DOES_NOT_EXIST: 550,
    BounceType.MESSAGE_TOO_LARGE: 552,
    BounceType.EXCEEDED_QUOTA: 552,
    BounceType.CONTENT_REJECTED: 550,
    BounceType.UNDEFINED: 554,
    BounceType.TEMPORARY_FAILURE: 450,
}
_DEFAULT_TEXT = {
    BounceType.DOES_NOT_EXIST: "mailbox does not exist",
    BounceType.MESSAGE_TOO_LARGE: "message too large",
    BounceType.EXCEEDED_QUOTA: "mailbox full",
    BounceType.CONTENT_REJECTED: "message content rejected",
    BounceType.UNDEFINED: "unknown failure",
    BounceType.TEMPORARY_FAILURE: "temporary failure",
}
_RESULT = {
    "failed": "could not be delivered to",
    "delayed": "has not been delivered yet to",
    "delivered": "was delivered to",
    "relayed": "was relayed to",
    "expanded": "was delivered to the list",
}


def build_dsn(
    request: Mapping[str, Any],
    *,
    reverse_path: str,
    original: Message | None,
    bounce_id: str,
    now: datetime,
) -> bytes:
    """The bounce message for a SendBounce request.

    Args:
        request: the parameters as boto3 names them.
        reverse_path: whom it goes to; it is sent from the null reverse-path.
        original: the mail that is bounced; its headers are returned, its body is not.
    """
    recipients = request["BouncedRecipientInfoList"]
    report = MIMEMultipart("report", policy=SMTP)
    report.set_param("report-type", "delivery-status")
    report["Return-Path"] = "<>"
    report["From"] = request["BounceSender"]
    report["To"] = reverse_path
    report["Date"] = format_datetime(now.astimezone(UTC))
    report["Message-ID"] = make_msgid(bounce_id, f"{REGION}.amazonses.com")
    report["Subject"] = _subject(recipients)
    report["Auto-Submitted"] = "auto-replied"
    if original is not None and original.get("Message-ID"):
        report["In-Reply-To"] = report["References"] = _line(original["Message-ID"])
    report.attach(MIMEText(_explanation(request), "plain", "us-ascii", policy=SMTP))
    report.attach(_delivery_status(request, now))
    if original is not None:
        report.attach(_returned_headers(original))
    return report.as_bytes(policy=SMTP)


def _subject(recipients: Sequence[Mapping[str, Any]]) -> str:
    actions = {each.get("RecipientDsnFields", {}).get("Action", "failed") for each in recipients}
    kind = {"failed": "Failure", "delayed": "Delay"}.get(actions.pop(), "Success")
    return f"Delivery Status Notification ({kind})"


def _explanation(request: Mapping[str, Any]) -> str:
    lines = [request["Explanation"], ""] if request.get("Explanation") else []
    for each in request["BouncedRecipientInfoList"]:
        fields = _recipient_fields(each)
        lines += [
            f"Your message {_RESULT[fields['Action']]} {each['Recipient']}",
            f"    ({fields.get('Diagnostic-Code', fields['Status'])})",
        ]
    return "\r\n".join(lines) + "\r\n"


def _recipient_fields(recipient: Mapping[str, Any]) -> dict[str, str]:
    """The per-recipient block, from the type or from the fields (RFC 3464 §2.3)."""
    given = recipient.get("RecipientDsnFields")
    if given is None:
        bounce_type = BounceType(recipient["BounceType"])
        status = STATUS[bounce_type]
        return {
            "Final-Recipient": f"rfc822; {recipient['Recipient']}",
            "Action": "failed",
            "Status": status,
            "Diagnostic-Code": (
                f"smtp; {_SMTP_CODE[bounce_type]} {status} {_DEFAULT_TEXT[bounce_type]}"
            ),
        }
    fields = {
        "Final-Recipient": f"rfc822; {given.get('FinalRecipient', recipient['Recipient'])}",
        "Action": given["Action"],
        "Status": given["Status"],
        "Remote-MTA": given.get("RemoteMta"),
        "Diagnostic-Code": given.get("DiagnosticCode"),
        "Last-Attempt-Date": _date(given.get("LastAttemptDate")),
        **{each["Name"]: each["Value"] for each in given.get("ExtensionFields", [])},
    }
    return {name: value for name, value in fields.items() if value}


def _delivery_status(request: Mapping[str, Any], now: datetime) -> MIMEBase:
    dsn = request.get("MessageDsn", {})
    mta = dsn.get("ReportingMta", f"dns; inbound-smtp.{REGION}.amazonaws.com")
    message_fields = {
        "Reporting-MTA": mta,
        "Arrival-Date": _date(dsn.get("ArrivalDate")) or format_datetime(now.astimezone(UTC)),
        **{each["Name"]: each["Value"] for each in dsn.get("ExtensionFields", [])},
    }
    blocks = [message_fields, *map(_recipient_fields, request["BouncedRecipientInfoList"])]
    part = MIMEBase("message", "delivery-status", policy=SMTP)
    for block in blocks:
        lines = EmailMessage(policy=SMTP.clone(max_line_length=None))
        for name, value in block.items():
            lines[name] = value
        part.attach(lines)
    return part


def _returned_headers(original: Message) -> MIMEText:
    # RFC 6522 §3: the third part is the message or its headers; a body may be anyone's secret.
    headers = "".join(_folded(f"{name}: {_line(value)}") for name, value in original.items())
    part = MIMEText(headers.encode("ascii", "replace").decode(), "rfc822-headers", policy=SMTP)
    del part["Content-Disposition"]
    return part


def _date(value: datetime | None) -> str:
    return format_datetime(value.astimezone(UTC)) if value else ""


def _folded(field: str) -> str:
    """One header field, in lines that SMTP takes (RFC 5322 §2.1.1)."""
    lines = textwrap.wrap(field, 990, subsequent_indent=" ", break_on_hyphens=False)
    return "\r\n".join(lines) + "\r\n"


def _line(value: object) -> str:
    return " ".join(str(value).split())
