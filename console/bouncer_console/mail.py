"""A received mail as SES has it, and the event that a Lambda action gets for it.

https://docs.aws.amazon.com/ses/latest/dg/receiving-email-action-lambda-event.html
"""

import contextlib
import re
import secrets
import string
from collections.abc import Sequence
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.utils import format_datetime, formataddr, getaddresses
from typing import Any

import msgspec

from bouncer.headers import BLOCK_LIMIT, read_block
from bouncer.mailboxes import moment_of

REGION = "us-east-1"
_ID_ALPHABET = string.ascii_lowercase + string.digits

LAMBDA_HEADERS_LIMIT = 50_000
SNS_HEADERS_LIMIT = 10_000
"""Bytes of headers that an event, or a notification, holds; beyond, `headersTruncated` is true
(documented: 50 KB and 10 KB)."""

type Fields = Sequence[tuple[str, str]]
"""Header fields, unfolded, in their order."""

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

    def fields(self) -> list[tuple[str, str]]:
        return header_fields(self.raw)


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
    received_at: datetime | None = None,
) -> ReceivedMail:
    """Take a mail in: an id, a time, the verdicts, and the headers that SES adds.

    Args:
        received_at: now, if absent; the mail's own `X-Local-Received-At` goes before both.
    """
    fields, rest = _split(data)
    control = {
        name[len(CONTROL_PREFIX) :].lower().replace("-", "_"): value
        for name, value, _ in fields
        if name.lower().startswith(CONTROL_PREFIX.lower())
    }
    kept = [raw for name, _, raw in fields if not name.lower().startswith(CONTROL_PREFIX.lower())]
    set_here = {name: control[name] for name in Verdicts.__struct_fields__ if name in control}
    verdicts = msgspec.structs.replace(defaults or Verdicts(), **set_here)
    received_at = received_at or datetime.now(UTC)
    with contextlib.suppress(ValueError):  # a mail may say anything
        received_at = moment_of(control.get("received_at", ""))
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
    head = b"".join(
        f"{name}: {value}\r\n".encode("utf-8", "replace") for name, value in added
    ) + b"".join(kept)
    return ReceivedMail(
        message_id=message_id,
        received_at=received_at,
        mail_from=mail_from,
        recipients=recipients,
        raw=head + rest,
        verdicts=verdicts,
    )


def header_fields(data: bytes) -> list[tuple[str, str]]:
    """The header fields of a mail, unfolded; lines that are no field are left out."""
    return [(each.name, each.value) for each in read_block(data).headers]


def _split(data: bytes) -> tuple[list[tuple[str, str, bytes]], bytes]:
    """Header fields (name, unfolded value, raw bytes), and what follows them.

    Fields beyond what is read of a mail anywhere are not looked at: they follow as they are.
    """
    head, _, body = data.replace(b"\r\n", b"\n").partition(b"\n\n")
    end = len(head) if len(head) <= BLOCK_LIMIT else head.rfind(b"\n", 0, BLOCK_LIMIT) + 1
    fields: list[list[bytes]] = []
    for line in head[:end].split(b"\n"):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1].append(line)
        elif line:
            fields.append([line])
    parsed = []
    for field in map(b"\n".join, fields):
        name, _, value = field.partition(b":")
        # Recorded: a folded value comes with its folds as one space.
        unfolded = re.sub(r"\s*\n\s*", " ", value.decode("utf-8", "replace")).strip()
        parsed.append((name.decode("ascii", "replace").strip(), unfolded, _crlf(field) + b"\r\n"))
    beyond = head[end:] and head[end:] + b"\n"
    return parsed, _crlf(beyond + b"\n" + body)


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
    action = {"type": "Lambda", "functionArn": function_arn, "invocationType": invocation_type}
    ses = {
        "mail": _mail(mail, LAMBDA_HEADERS_LIMIT),
        "receipt": _receipt(mail, recipients, action, scanned=scanned),
    }
    return {"Records": [{"eventSource": "aws:ses", "eventVersion": "1.0", "ses": ses}]}


def topic_notice(
    mail: ReceivedMail,
    *,
    recipients: tuple[str, ...],
    action: dict[str, Any],
    scanned: bool = True,
) -> dict[str, Any]:
    """What SES publishes to the topic of a rule's action, whatever becomes of the action.

    Args:
        action: the receipt's, such as `{"type": "S3", "topicArn": …, "bucketName": …}`.
    """
    return {
        "notificationType": "Received",
        "mail": _mail(mail, SNS_HEADERS_LIMIT),
        "receipt": _receipt(mail, recipients, action, scanned=scanned),
    }


def _receipt(
    mail: ReceivedMail, recipients: tuple[str, ...], action: dict[str, Any], *, scanned: bool
) -> dict[str, Any]:
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
        "action": action,
    }
    if verdicts.dmarc == "FAIL":  # recorded: a string, and only then
        receipt["dmarcPolicy"] = verdicts.dmarc_policy or "none"
    return receipt


def _mail(mail: ReceivedMail, limit: int) -> dict[str, Any]:
    fields = [(name, _as_ses_shows(name, value)) for name, value in mail.fields()]
    headers, truncated = cut_headers(fields, limit)
    return {
        "timestamp": _timestamp(mail.received_at),
        "source": mail.mail_from or "<>",  # unverified for the null sender
        "messageId": mail.message_id,
        "destination": addresses_of(fields, "To", "Cc"),
        "headersTruncated": truncated,
        "headers": headers,
        "commonHeaders": _common_headers(fields, mail.mail_from),
    }


def cut_headers(fields: Fields, limit: int) -> tuple[list[dict[str, str]], bool]:
    """The headers that fit, and whether any are missing: whole ones go, from the end (recorded)."""
    kept: list[dict[str, str]] = []
    size = 0
    for name, value in fields:
        size += len(f"{name}: {value}\r\n".encode("utf-8", "replace"))
        if size > limit:
            return kept, True
        kept.append({"name": name, "value": value})
    return kept, False


_SIGNATURE = re.compile(r"(\bb=)([^;]*)")


def _as_ses_shows(name: str, value: str) -> str:
    """Recorded: encoded words (RFC 2047) come decoded, the `b=` of a signature joined."""
    if name.lower() == "dkim-signature":
        return _SIGNATURE.sub(lambda found: found[1] + "".join(found[2].split()), value)
    if "=?" not in value or len(value) > LAMBDA_HEADERS_LIMIT:  # no event has room for more
        return value
    try:
        text = str(make_header(decode_header(value)))
    except (ValueError, LookupError):  # bad Base64, an unknown charset
        return value
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _common_headers(fields: Fields, mail_from: str) -> dict[str, Any]:
    """Recorded: complete, also where `headers` are cut."""
    common: dict[str, Any] = {"returnPath": mail_from}
    for key, name in (("from", "From"), ("to", "To"), ("cc", "Cc"), ("replyTo", "Reply-To")):
        values = [entry for value in _values(fields, name) for entry in _entries(value)]
        if values:
            common[key] = values
    singles = (
        ("date", "Date"),
        ("messageId", "Message-ID"),
        ("subject", "Subject"),
        ("sender", "Sender"),
    )
    for key, name in singles:
        for value in _values(fields, name)[:1]:
            common[key] = value
    return common


def _values(fields: Fields, *names: str) -> list[str]:
    wanted = {each.lower() for each in names}
    return [value for name, value in fields if name.lower() in wanted]


def _entries(value: str) -> list[str]:
    """The addresses of a field with their names, one by one; the field itself if it has none."""
    pairs = [(name, address) for name, address in _pairs([value]) if "@" in address]
    if len(pairs) < 2:
        return [value]
    return [
        formataddr((name, address)) if name.isascii() else f"{name} <{address}>"
        for name, address in pairs
    ]


def addresses_of(fields: Fields, *names: str) -> list[str]:
    """The addresses in these fields, whatever their grammar is worth."""
    return [address for _, address in _pairs(_values(fields, *names)) if "@" in address]


def _pairs(values: list[str]) -> list[tuple[str, str]]:
    try:
        # Not strict: of `Doe, Pat <pat@example.com>` the address is wanted all the same.
        return getaddresses(values, strict=False)
    except (ValueError, IndexError, RecursionError):
        return []


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
