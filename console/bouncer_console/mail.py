"""A received mail as SES has it, and the event that a Lambda action gets for it.

https://docs.aws.amazon.com/ses/latest/dg/receiving-email-action-lambda-event.html
"""

import secrets
import string
from datetime import UTC, datetime
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from email.utils import format_datetime, getaddresses
from typing import Any

import msgspec

REGION = "us-east-1"
_ID_ALPHABET = string.ascii_lowercase + string.digits
_HEADERS_LIMIT = 50_000
"""Bytes of headers that a Lambda action's event holds; beyond, `headersTruncated` is true."""
_NOTICE_HEADERS_LIMIT = 10_000
"""The same for what is published to a topic."""

CONTROL_PREFIX = "X-Local-"
"""A header such as `X-Local-SPF: FAIL` sets a verdict, for there is no DNS here."""


class Verdicts(msgspec.Struct, frozen=True, kw_only=True):
    """What SES's checks say; settable, because nothing is checked here."""

    spam: str = "PASS"
    virus: str = "PASS"
    spf: str = "PASS"
    dkim: str = "PASS"
    dmarc: str = "PASS"
    dmarc_policy: str = ""


class ReceivedMail(msgspec.Struct, frozen=True, kw_only=True):
    """One mail, accepted for its envelope recipients."""

    message_id: str
    received_at: datetime
    mail_from: str
    recipients: tuple[str, ...]
    raw: bytes
    verdicts: Verdicts

    def parsed(self) -> Message:
        return BytesParser(policy=compat32).parsebytes(self.raw)


def new_message_id() -> str:
    """An id of the length and alphabet of SES's."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(40))


def receive(
    data: bytes,
    *,
    mail_from: str,
    recipients: tuple[str, ...],
    client: str = "127.0.0.1",
    helo: str = "localhost",
    defaults: Verdicts | None = None,
    message_id: str | None = None,
) -> ReceivedMail:
    """Take a mail in: an id, a time, the verdicts, and the headers that SES adds."""
    fields, body = _split(data)
    control = {
        name[len(CONTROL_PREFIX) :].lower().replace("-", "_"): value
        for name, value, _ in fields
        if name.lower().startswith(CONTROL_PREFIX.lower())
    }
    kept = [raw for name, _, raw in fields if not name.lower().startswith(CONTROL_PREFIX.lower())]
    set_here = {name: control[name] for name in Verdicts.__struct_fields__ if name in control}
    verdicts = msgspec.structs.replace(defaults or Verdicts(), **set_here)
    received_at = datetime.now(UTC)
    if "received_at" in control:
        received_at = datetime.fromisoformat(control["received_at"]).astimezone(UTC)
    message_id = message_id or new_message_id()
    added = _added_headers(
        message_id=message_id,
        received_at=received_at,
        mail_from=mail_from,
        recipients=recipients,
        client=client,
        helo=helo,
        verdicts=verdicts,
    )
    head = b"".join(f"{name}: {value}\r\n".encode() for name, value in added) + b"".join(kept)
    return ReceivedMail(
        message_id=message_id,
        received_at=received_at,
        mail_from=mail_from,
        recipients=recipients,
        raw=head + b"\r\n" + body,
        verdicts=verdicts,
    )


def _split(data: bytes) -> tuple[list[tuple[str, str, bytes]], bytes]:
    """Header fields (name, unfolded value, raw bytes) and the body."""
    head, _, body = data.replace(b"\r\n", b"\n").partition(b"\n\n")
    fields: list[bytes] = []
    for line in head.split(b"\n"):
        if line[:1] in b" \t" and fields:
            fields[-1] += b"\n" + line
        elif line:
            fields.append(line)
    parsed = []
    for field in fields:
        name, _, value = field.partition(b":")
        unfolded = " ".join(value.decode("utf-8", "replace").split())
        parsed.append((name.decode("ascii", "replace").strip(), unfolded, _crlf(field) + b"\r\n"))
    return parsed, _crlf(body)


def _crlf(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n")


def _added_headers(
    *,
    message_id: str,
    received_at: datetime,
    mail_from: str,
    recipients: tuple[str, ...],
    client: str,
    helo: str,
    verdicts: Verdicts,
) -> list[tuple[str, str]]:
    mta = f"inbound-smtp.{REGION}.amazonaws.com"
    domain = mail_from.rpartition("@")[2]
    spf, dkim, dmarc = (each.lower() for each in (verdicts.spf, verdicts.dkim, verdicts.dmarc))
    return [
        ("Return-Path", f"<{mail_from}>"),
        (
            "Received",
            f"from {helo} ({helo} [{client}]) by {mta} with SMTP id {message_id} "
            f"for {recipients[0]}; {format_datetime(received_at)}",
        ),
        ("X-SES-Spam-Verdict", verdicts.spam),
        ("X-SES-Virus-Verdict", verdicts.virus),
        ("Received-SPF", f"{spf} (spfCheck: domain of {domain}) client-ip={client};"),
        (
            "Authentication-Results",
            f"amazonses.com; spf={spf} smtp.mailfrom={mail_from}; "
            f"dkim={dkim} header.d={domain}; dmarc={dmarc} header.from={domain};",
        ),
    ]


def lambda_event(
    mail: ReceivedMail,
    *,
    recipients: tuple[str, ...],
    function_arn: str,
    invocation_type: str = "RequestResponse",
    scanned: bool = True,
) -> dict[str, Any]:
    """The event for the recipients that one rule matched.

    Args:
        scanned: the rule's ScanEnabled; without it spam and virus are DISABLED.
    """
    parsed = mail.parsed()
    headers, truncated = _headers(parsed)
    verdicts = mail.verdicts
    receipt: dict[str, Any] = {
        "timestamp": _timestamp(mail.received_at),
        "processingTimeMillis": 100,
        "recipients": list(recipients),
        "spamVerdict": {"status": verdicts.spam if scanned else "DISABLED"},
        "virusVerdict": {"status": verdicts.virus if scanned else "DISABLED"},
        "spfVerdict": {"status": verdicts.spf},
        "dkimVerdict": {"status": verdicts.dkim},
        "dmarcVerdict": {"status": verdicts.dmarc},
        "action": {
            "type": "Lambda",
            "functionArn": function_arn,
            "invocationType": invocation_type,
        },
    }
    if verdicts.dmarc == "FAIL":
        receipt["dmarcPolicy"] = verdicts.dmarc_policy or "none"
    return {
        "Records": [
            {
                "eventSource": "aws:ses",
                "eventVersion": "1.0",
                "ses": {
                    "mail": {
                        "timestamp": _timestamp(mail.received_at),
                        "source": mail.mail_from or "<>",
                        "messageId": mail.message_id,
                        "destination": _addresses(parsed, "To", "Cc"),
                        "headersTruncated": truncated,
                        "headers": headers,
                        "commonHeaders": _common_headers(parsed, mail.mail_from),
                    },
                    "receipt": receipt,
                },
            }
        ]
    }


def topic_notice(
    mail: ReceivedMail,
    *,
    recipients: tuple[str, ...],
    action: dict[str, Any],
    scanned: bool = True,
) -> dict[str, Any]:
    """What SES publishes to the topic of an action of a rule.

    https://docs.aws.amazon.com/ses/latest/dg/receiving-email-notifications-contents.html

    Args:
        action: the receipt's own words about it, such as its type and where it stored the mail.
    """
    event = lambda_event(mail, recipients=recipients, function_arn="", scanned=scanned)
    ses: dict[str, Any] = event["Records"][0]["ses"]
    headers, truncated = _headers(mail.parsed(), _NOTICE_HEADERS_LIMIT)
    told = ses["mail"] | {"headers": headers, "headersTruncated": truncated}
    return {
        "notificationType": "Received",
        "mail": told,
        "receipt": ses["receipt"] | {"action": action},
    }


def _headers(parsed: Message, limit: int = _HEADERS_LIMIT) -> tuple[list[dict[str, str]], bool]:
    kept: list[dict[str, str]] = []
    size = 0
    for name, value in parsed.items():
        size += len(name) + len(str(value))
        if size > limit:
            return kept, True
        kept.append({"name": name, "value": " ".join(str(value).split())})
    return kept, False


def _common_headers(parsed: Message, mail_from: str) -> dict[str, Any]:
    common: dict[str, Any] = {"returnPath": mail_from}
    for key, name in (("from", "From"), ("to", "To"), ("cc", "Cc"), ("replyTo", "Reply-To")):
        values = [str(each) for each in parsed.get_all(name, [])]
        if values:
            common[key] = values
    singles = (
        ("date", "Date"),
        ("messageId", "Message-ID"),
        ("subject", "Subject"),
        ("sender", "Sender"),
    )
    for key, name in singles:
        if parsed.get(name) is not None:
            common[key] = " ".join(str(parsed[name]).split())
    return common


def _addresses(parsed: Message, *names: str) -> list[str]:
    values = [str(value) for name in names for value in parsed.get_all(name, [])]
    return [address for _, address in getaddresses(values) if address]


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
