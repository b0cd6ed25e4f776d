"""The event that a receipt rule's Lambda action delivers, and what is read from it.

https://docs.aws.amazon.com/ses/latest/dg/receiving-email-action-lambda-event.html
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec


class MalformedEventError(ValueError):
    """The event is not what SES documents. The text names the place."""


class InvocationType(StrEnum):
    """How the receipt rule calls the function; only REQUEST_RESPONSE honours a disposition."""

    EVENT = "Event"
    REQUEST_RESPONSE = "RequestResponse"


class Header(msgspec.Struct, frozen=True):
    name: str
    value: str


class _Verdict(msgspec.Struct, frozen=True):
    status: str = ""


class _CommonHeaders(msgspec.Struct, frozen=True, rename="camel"):
    return_path: str | None = None


class _Mail(msgspec.Struct, frozen=True, rename="camel"):
    message_id: str
    timestamp: datetime
    source: str | None = None
    headers: tuple[Header, ...] = ()
    headers_truncated: bool = False
    common_headers: _CommonHeaders = _CommonHeaders()


class _Action(msgspec.Struct, frozen=True, rename="camel"):
    invocation_type: str = InvocationType.EVENT


class _Receipt(msgspec.Struct, frozen=True, rename="camel"):
    recipients: tuple[str, ...]
    spam_verdict: _Verdict = _Verdict()
    virus_verdict: _Verdict = _Verdict()
    spf_verdict: _Verdict = _Verdict()
    dkim_verdict: _Verdict = _Verdict()
    dmarc_verdict: _Verdict = _Verdict()
    dmarc_policy: str | None = None
    action: _Action = _Action()


class _Ses(msgspec.Struct, frozen=True):
    mail: _Mail
    receipt: _Receipt


class _Record(msgspec.Struct, frozen=True):
    ses: _Ses


class _Event(msgspec.Struct, frozen=True, rename={"records": "Records"}):
    records: tuple[_Record, ...]


class Verdicts(msgspec.Struct, frozen=True):
    """PASS, FAIL, GRAY, PROCESSING_FAILED or DISABLED, as SES wrote them; "" when absent.

    Only the exact word PASS counts as passed, so that a new or missing value is never proof.
    """

    spam: str = ""
    virus: str = ""
    spf: str = ""
    dkim: str = ""
    dmarc: str = ""


class InboundMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One mail, for the envelope recipients that one receipt rule matched."""

    message_id: str
    """SES's own id: the S3 object's name and SendBounce's OriginalMessageId."""
    received_at: datetime
    """When SES took the mail: the 24-hour window of SendBounce starts here."""
    source: str
    """Envelope MAIL FROM as the event has it; see `reverse_path`."""
    recipients: tuple[str, ...]
    return_path: str | None = None
    """`commonHeaders.returnPath`, as the event has it."""
    headers: tuple[Header, ...] = ()
    headers_truncated: bool = False
    verdicts: Verdicts = Verdicts()
    dmarc_policy: str = ""
    invocation_type: str = InvocationType.EVENT

    def header(self, name: str) -> list[str]:
        """Every value of a header, in order; names compare without case (RFC 5322 §1.2.2)."""
        wanted = name.lower()
        return [each.value for each in self.headers if each.name.lower() == wanted]

    @property
    def reverse_path(self) -> str | None:
        """Where a bounce would go, or None for the null reverse-path (RFC 5321 §4.5.5).

        SES does not document what `mail.source` holds for `MAIL FROM:<>`, so every
        plausible spelling counts, in `commonHeaders.returnPath` and a `Return-Path` header too.
        """
        source = _bare(self.source)
        told = (self.return_path, *self.header("Return-Path"))
        if not source or any(value is not None and not _bare(value) for value in told):
            return None
        return source


def _bare(path: str) -> str:
    path = path.strip()
    if path.startswith("<") and path.endswith(">"):
        path = path[1:-1].strip()
    return path


def parse_event(event: Any) -> list[InboundMessage]:
    """Read an SES event; all samples hold one record, but nothing promises it.

    Raises:
        MalformedEventError: something that the bouncer needs is missing or of another type.
    """
    try:
        records = msgspec.convert(event, _Event).records
    except msgspec.ValidationError as error:
        raise MalformedEventError(f"not an SES receipt event: {error}") from error
    if not records:
        raise MalformedEventError("not an SES receipt event: `$.Records` is empty")
    return [_message(record.ses.mail, record.ses.receipt) for record in records]


def _message(mail: _Mail, receipt: _Receipt) -> InboundMessage:
    if not mail.message_id:
        raise MalformedEventError("not an SES receipt event: `mail.messageId` is empty")
    return InboundMessage(
        message_id=mail.message_id,
        received_at=_in_utc(mail.timestamp),
        source=mail.source or "",
        return_path=mail.common_headers.return_path,
        recipients=tuple(dict.fromkeys(receipt.recipients)),
        headers=mail.headers,
        headers_truncated=mail.headers_truncated,
        verdicts=Verdicts(
            spam=receipt.spam_verdict.status,
            virus=receipt.virus_verdict.status,
            spf=receipt.spf_verdict.status,
            dkim=receipt.dkim_verdict.status,
            dmarc=receipt.dmarc_verdict.status,
        ),
        dmarc_policy=receipt.dmarc_policy or "",
        invocation_type=receipt.action.invocation_type,
    )


def _in_utc(stamp: datetime) -> datetime:
    if not 2000 <= stamp.year < 9000:  # at the ends of the calendar, adding a day overflows
        raise MalformedEventError(f"not an SES receipt event: `mail.timestamp` is {stamp}")
    return stamp.replace(tzinfo=UTC) if stamp.tzinfo is None else stamp.astimezone(UTC)
