"""A mail, as the lines of the log tell of it: from the functions' JSON to one value a mail.

What stands in a line was written by our functions, and much of it chosen by whoever sent the mail:
a line that is not as expected is counted and left out, and no text is longer than anyone's.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from bouncer.address import domain_of
from bouncer.aws.telemetry import BOUNCE_HANDLED, MAIL_HANDLED
from bouncer.guards import NOT_TOLD, OtherReason

PATTERN = f'"message": ?"(?:{MAIL_HANDLED}|{BOUNCE_HANDLED})"'
"""The lines that tell of mails."""
REFUSED_PATTERN = f'"outcome": ?"(?:bounce|drop)"|"message": ?"{BOUNCE_HANDLED}"'
"""Those of mails of which somebody was refused."""

TEXT_LIMIT = 1000

_UNSETTLED = frozenset({"", "claimed", "queued", "dead-lettered"})
BUDGETS = frozenset(NOT_TOLD - {OtherReason.WINDOW_CLOSED})
"""Reasons for which our own limits held a bounce back."""


class RecipientFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided of one recipient, and what became of the bounce."""

    recipient: str = ""
    """The address, its hash, or "" where the log has none."""
    outcome: str = ""
    """accept, drop or bounce; "" where only the queue's worker has told of it."""
    reason: str = ""
    dry_run: bool = False
    entry: str = ""
    """The directory's entry that answered, where it is another address."""
    way: str = ""
    """How that entry was found."""
    state: str = ""
    """The bounce's, as the log has it: the ledger knows of later ones."""
    bounce_type: str = ""
    status: str = ""
    bounce_id: str = ""
    error_code: str = ""
    detail: str = ""
    withheld: bool = False
    repeated: bool = False

    @property
    def settled(self) -> bool:
        return self.state not in _UNSETTLED


class MailFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One mail."""

    message_id: str
    """SES's."""
    at: datetime
    """When it was decided."""
    received_at: datetime | None = None
    sender: str = ""
    """The reverse-path, its hash, "<>" for the null one, or "" where the log has none."""
    sender_domain: str = ""
    """The sender's domain, or its hash."""
    client: str = ""
    """The host that SES had it from: an IP address, or its hash."""
    message_id_header: str = ""
    size: int | None = None
    suppressed: str = ""
    """Why the sender is told of nobody."""
    objections: tuple[str, ...] = ()
    """Every guard that objected."""
    disposition: str = ""
    policy: str = ""
    """The digest of the policy that decided."""
    observed: bool = False
    """It was handled in observe mode: nothing was sent or stopped."""
    late: bool = False
    """The audit found it."""
    recipients: tuple[RecipientFacts, ...] = ()

    @property
    def when(self) -> datetime:
        return self.received_at or self.at

    @property
    def refused(self) -> tuple[RecipientFacts, ...]:
        """Recipients of whom the policy says that the sender is to be told."""
        return tuple(each for each in self.recipients if each.outcome == "bounce")

    @property
    def would_bounce(self) -> tuple[RecipientFacts, ...]:
        """Recipients whose bounce only observe mode kept from being sent."""
        if not self.observed or self.suppressed != OtherReason.OBSERVE_MODE:
            return ()
        # A bounce of a rule on trial never came to be, so it has no state.
        return tuple(each for each in self.refused if each.state)

    @property
    def would_drop(self) -> tuple[RecipientFacts, ...]:
        """Recipients whose mail only observe mode let go on."""
        if not self.observed:
            return ()
        return tuple(each for each in self.recipients if each.outcome == "drop")

    @property
    def on_trial(self) -> tuple[RecipientFacts, ...]:
        """Recipients that a rule with `dry_run` would have refused."""
        return tuple(
            each
            for each in self.recipients
            if each.dry_run and not each.state and (each.outcome == "bounce" or not self.observed)
        )

    @property
    def held_back(self) -> tuple[RecipientFacts, ...]:
        """Recipients of whom a guard or a budget kept the sender from being told."""
        if not self.suppressed or self.suppressed == OtherReason.OBSERVE_MODE:
            return ()
        return tuple(each for each in self.refused if each.state)

    @property
    def only_objection(self) -> str:
        """The one guard or budget without which the sender would have been told."""
        return self.suppressed if len(self.objections) < 2 else ""


type Text = Annotated[str, msgspec.Meta(max_length=TEXT_LIMIT)]


class _Recipient(msgspec.Struct, frozen=True, kw_only=True):
    recipient: Text | None = None
    outcome: Text | None = None
    reason: Text | None = None
    dry_run: bool = False
    entry: Text | None = None
    way: Text | None = None
    state: Text | None = None
    bounce_type: Text | None = None
    status: Text | None = None
    bounce_id: Text | None = None
    error_code: Text | None = None
    detail: str | None = None
    withheld: bool = False
    repeated: bool | None = None


class _Line(msgspec.Struct, frozen=True, kw_only=True, rename={"late": "found-undecided"}):
    message: str
    ses_message_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    received_at: datetime | None = None
    sender: Text | None = None
    sender_domain: Text | None = None
    client: Text | None = None
    message_id_header: Text | None = None
    size: int | None = None
    suppressed: Text | None = None
    objections: tuple[Text, ...] = ()
    disposition: Text | None = None
    policy: Text | None = None
    observed: bool = False
    late: bool = False
    recipients: tuple[_Recipient, ...] = ()


_DECODER = msgspec.json.Decoder(_Line)


def parse_line(text: str, at: datetime) -> MailFacts | None:
    """What a log line tells of a mail; None for any other line, and for one that is broken."""
    try:
        line = _DECODER.decode(text)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    if line.message not in (MAIL_HANDLED, BOUNCE_HANDLED):
        return None
    sender = line.sender or ""
    received = line.received_at
    suppressed = line.suppressed or ""
    return MailFacts(
        message_id=line.ses_message_id,
        at=at,
        received_at=received.astimezone(UTC) if received and received.tzinfo else None,
        sender=sender,
        sender_domain=line.sender_domain or (domain_of(sender) if "@" in sender else ""),
        client=line.client or "",
        message_id_header=line.message_id_header or "",
        size=line.size,
        suppressed=suppressed,
        objections=line.objections,
        disposition=line.disposition or "",
        policy=line.policy or "",
        observed=line.observed,
        late=line.late,
        recipients=tuple(map(_recipient, line.recipients)),
    )


def _recipient(each: _Recipient) -> RecipientFacts:
    told: dict[str, Any] = {
        name: value for name in each.__struct_fields__ if (value := getattr(each, name)) is not None
    }
    told["detail"] = told.get("detail", "")[:TEXT_LIMIT]
    return RecipientFacts(**told)


def merged(lines: Iterable[MailFacts]) -> list[MailFacts]:
    """One value a mail of all lines that tell of it, the mail decided last first.

    A mail has a line for each rule of the set that named the function, for each delivery of the
    event, and for each time that the queue's worker had a bounce of it.
    """
    mails: dict[str, list[MailFacts]] = {}
    for each in lines:
        mails.setdefault(each.message_id, []).append(each)
    found = [_one(sorted(its, key=lambda each: each.at)) for its in mails.values()]
    return sorted(found, key=lambda each: each.at, reverse=True)


def _one(its: list[MailFacts]) -> MailFacts:
    if len(its) == 1:
        return its[0]
    decided = [each for each in its if each.disposition] or its
    recipients: list[RecipientFacts] = []
    for line in its:
        for each in line.recipients:
            _add(recipients, each)
    # What a repeated delivery finds to have been sent is no news, nor why it is not sent again.
    told = next((each for each in decided if each.suppressed), decided[0])
    return msgspec.structs.replace(
        decided[0],
        suppressed=told.suppressed,
        objections=told.objections,
        disposition=decided[-1].disposition,
        observed=any(each.observed for each in decided),
        late=any(each.late for each in decided),
        recipients=tuple(recipients),
    )


def _add(known: list[RecipientFacts], later: RecipientFacts) -> None:
    for place, earlier in enumerate(known):
        if not _same(earlier, later):
            continue
        told = {
            name: value
            for name in later.__struct_fields__
            if (value := getattr(later, name)) not in ("", False)
        }
        if earlier.settled and later.repeated:
            return
        if earlier.reason:
            told.pop("reason", None)  # the worker's line may have the fate's own
        known[place] = msgspec.structs.replace(earlier, **told)
        return
    known.append(later)


def _same(earlier: RecipientFacts, later: RecipientFacts) -> bool:
    if earlier.recipient or later.recipient:
        return earlier.recipient.lower() == later.recipient.lower()
    # Without addresses: the worker's fate belongs to a bounce that waits, and no other is known.
    return not later.outcome and not earlier.settled and earlier.reason == later.reason
