"""The event that a receipt rule's Lambda action delivers, and what is read from it.

https://docs.aws.amazon.com/ses/latest/dg/receiving-email-action-lambda-event.html
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

import msgspec

from bouncer.address import normalise
from bouncer.headers import Header, bounded, decoded

# SES's own have some 40 letters and digits; what no key of a table can be would fail a whole batch.
_MESSAGE_ID = re.compile(r"[!-~]{1,200}")


class MalformedEventError(ValueError):
    """The event is not what SES documents. The text names the place."""


class HeadersNeeded(Exception):  # noqa: N818  (no error: it asks for a fact that costs a request)
    """The outcome depends on headers that the event lacks, and nobody has asked the stored mail."""


class InvocationType(StrEnum):
    """How the receipt rule calls the function; only REQUEST_RESPONSE honours a disposition."""

    EVENT = "Event"
    REQUEST_RESPONSE = "RequestResponse"


# What an event may lack may also be null or without its value: it counts as absent then.


class _Header(msgspec.Struct, frozen=True):
    name: str | None = None
    value: str | None = None


class _Verdict(msgspec.Struct, frozen=True):
    status: str | None = None


class _CommonHeaders(msgspec.Struct, frozen=True, rename="camel"):
    return_path: str | None = None
    subject: Any = None
    message_id: Any = None
    date: Any = None


class _Mail(msgspec.Struct, frozen=True, rename="camel"):
    message_id: str
    timestamp: datetime
    source: str | None = None
    headers: list[_Header | None] | None = None
    headers_truncated: Any = False
    common_headers: _CommonHeaders | None = None


class _Action(msgspec.Struct, frozen=True, rename="camel"):
    invocation_type: str | None = None


class _Receipt(msgspec.Struct, frozen=True, rename="camel"):
    recipients: tuple[str, ...]
    spam_verdict: _Verdict | None = None
    virus_verdict: _Verdict | None = None
    spf_verdict: _Verdict | None = None
    dkim_verdict: _Verdict | None = None
    dmarc_verdict: _Verdict | None = None
    dmarc_policy: Any = None
    """A string in every recorded event, an object in AWS's own sample code."""
    action: _Action | None = None


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


class InboundMessage(msgspec.Struct, frozen=True, kw_only=True, dict=True):
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
    """Those of the event."""
    common: tuple[Header, ...] = ()
    """Subject, Message-ID and Date of `commonHeaders`, which SES never cuts."""
    headers_truncated: bool = False
    """Whether the event lacks headers, or even all of them."""
    stored: tuple[Header, ...] | None = None
    """All headers of the stored mail; None when they were not asked for or could not be had."""
    stored_asked: bool = True
    """False as long as nobody has asked for them, and somebody could."""
    verdicts: Verdicts = Verdicts()
    dmarc_policy: str = ""
    invocation_type: str = InvocationType.EVENT

    @property
    def headers_whole(self) -> bool:
        """Whether a header that is not to be seen is not there; else nobody knows."""
        return not self.headers_truncated or self.stored is not None

    def all_headers(self) -> Iterator[Header]:
        """Those of the event and of the stored mail: what stands in either is there."""
        yield from self.headers
        yield from self.common
        yield from self.stored or ()

    def header(self, name: str) -> list[str]:
        """Each different value of a header, in order; names compare without case (RFC 5322)."""
        return list(self._by_name.get(name.lower(), ()))

    @cached_property
    def _by_name(self) -> dict[str, dict[str, None]]:
        found: dict[str, dict[str, None]] = {}
        for each in self.all_headers():
            found.setdefault(each.name.lower(), {})[each.value] = None
        return found

    def header_text(self, name: str) -> list[str]:
        """The same, with encoded words (RFC 2047) as text."""
        return list(dict.fromkeys(map(decoded, self.header(name))))

    def count(self, name: str) -> int:
        """How often a header occurs, by the copy that has it most often."""
        wanted = name.lower()
        copies = (self.headers, self.stored or ())
        return max(sum(each.name.lower() == wanted for each in copy) for copy in copies)

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
        MalformedEventError: it is no JSON, or something that the bouncer needs is missing or of
            another type.
    """
    try:
        try:
            msgspec.json.encode(event)
        except UnicodeEncodeError:
            event = _whole_characters(event)
        records = msgspec.convert(event, _Event).records
    except msgspec.ValidationError as error:
        raise MalformedEventError(f"not an SES receipt event: {error}") from error
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise MalformedEventError(f"not an SES receipt event: it is no JSON: {error}") from error
    if not records:
        raise MalformedEventError("not an SES receipt event: `$.Records` is empty")
    return [_message(record.ses.mail, record.ses.receipt) for record in records]


def _whole_characters(value: Any) -> Any:
    """The same with U+FFFD for each half of a surrogate pair.

    JSON's \\u escapes let halves in, and nothing that comes later does: a sender who has one in
    a header must not keep the mail from being decided.
    """
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole_characters(name): _whole_characters(each) for name, each in value.items()}
    return [*map(_whole_characters, value)] if isinstance(value, list) else value


class _Notice(_Ses, frozen=True, rename="camel"):
    notification_type: str = ""


def parse_notice(text: str) -> InboundMessage | None:
    """Read what SES publishes to an action's topic about a mail; its headers end at 10 KB.

    https://docs.aws.amazon.com/ses/latest/dg/receiving-email-notifications-contents.html

    Returns:
        None for a message that tells of no mail, such as SES's trial when a rule is made.

    Raises:
        MalformedEventError: it tells of a mail, and something that the bouncer needs is missing; or
            it is an object that nobody can read.
    """
    try:
        told = json.loads(text)
        if "\\u" in text or not text.isascii():  # what else has no halves
            told = _whole_characters(told)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{"):
            raise MalformedEventError(f"not an SES receipt notice: {error}") from error
        return None
    if not isinstance(told, dict) or told.get("notificationType") != "Received":
        return None
    try:
        notice = msgspec.convert(told, _Notice)
    except msgspec.ValidationError as error:
        raise MalformedEventError(f"not an SES receipt notice: {error}") from error
    return _message(notice.mail, notice.receipt)


def _message(mail: _Mail, receipt: _Receipt) -> InboundMessage:
    if not _MESSAGE_ID.fullmatch(mail.message_id):
        raise MalformedEventError("not an SES receipt event: `mail.messageId` is none of SES's")
    block = bounded(_headers(mail.headers or []))
    common = mail.common_headers or _CommonHeaders()
    action = receipt.action or _Action()
    cut = mail.headers is None or _is_set(mail.headers_truncated) or not block.whole
    return InboundMessage(
        message_id=mail.message_id,
        received_at=_in_utc(mail.timestamp),
        source=mail.source or "",
        return_path=common.return_path,
        recipients=_each_once(receipt.recipients),
        headers=block.headers,
        common=_common(common),
        headers_truncated=cut,
        verdicts=Verdicts(
            spam=_status(receipt.spam_verdict),
            virus=_status(receipt.virus_verdict),
            spf=_status(receipt.spf_verdict),
            dkim=_status(receipt.dkim_verdict),
            dmarc=_status(receipt.dmarc_verdict),
        ),
        dmarc_policy=receipt.dmarc_policy if isinstance(receipt.dmarc_policy, str) else "",
        invocation_type=action.invocation_type or InvocationType.EVENT,
    )


def _each_once(recipients: tuple[str, ...]) -> tuple[str, ...]:
    """Who is named twice, be it in another case, is decided on once."""
    spellings: dict[str, str] = {}
    for each in recipients:
        spellings.setdefault(normalise(each), each)
    return tuple(spellings.values())


def _headers(given: list[_Header | None]) -> Iterator[Header]:
    for each in given:
        if each is not None and each.name is not None and each.value is not None:
            yield Header(each.name, each.value)


def _common(common: _CommonHeaders) -> tuple[Header, ...]:
    fields = {"Subject": common.subject, "Message-ID": common.message_id, "Date": common.date}
    told = (Header(name, value) for name, value in fields.items() if isinstance(value, str))
    return bounded(told).headers


def _status(verdict: _Verdict | None) -> str:
    return (verdict.status if verdict is not None else None) or ""


def _is_set(flag: Any) -> bool:
    """Whatever does not clearly say no says yes: half of the headers must not pass for all."""
    return flag not in (None, False, 0, "") and str(flag).strip().lower() != "false"


def _in_utc(stamp: datetime) -> datetime:
    # At the ends of the calendar, adding a day overflows; the consoles' samples are of 1970.
    if not 1970 <= stamp.year < 9000:
        raise MalformedEventError(f"not an SES receipt event: `mail.timestamp` is {stamp}")
    return stamp.replace(tzinfo=UTC) if stamp.tzinfo is None else stamp.astimezone(UTC)
