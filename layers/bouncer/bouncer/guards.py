"""When not to send a bounce: each reason a named, pure predicate of the mail.

A bounce that goes to a forged sender is spam with our user's name on it. The guards are
asked in this order, the cheapest and surest first, and before anything is spent.
docs/guards.md explains each, with what happens when it is switched off.
"""

import re
from collections.abc import Callable, Collection
from enum import StrEnum
from functools import cached_property

import msgspec

from bouncer.address import domain_of, is_deliverable, normalise, split
from bouncer.headers import keyword, keywords, named_addresses
from bouncer.message import HeadersNeeded, InboundMessage
from bouncer.proof import Doubt, Proof, is_proven, prove

MARKER = "X-Ses-Bouncer"
"""Extension field of every DSN that this project causes, looked for in what comes in."""


class GuardName(StrEnum):
    """The reason codes of the guards; all but the first can be switched off in a policy."""

    NULL_SENDER = "null-sender"
    UNDELIVERABLE_SENDER = "undeliverable-sender"
    AUTO_SUBMITTED = "auto-submitted"
    REPORT = "report"
    ROLE_SENDER = "role-sender"
    LIST_MAIL = "list-mail"
    RESPONSE_SUPPRESSED = "response-suppressed"
    OWN_ADDRESS = "own-address"
    OWN_DOMAIN = "own-domain"
    MAIL_LOOP = "mail-loop"
    VIRUS_FOUND = "virus-found"
    SPAM_FOUND = "spam-found"
    DMARC_FAILED = "dmarc-failed"
    SPF_FAILED = "spf-failed"
    UNPROVEN_SENDER = "unproven-sender"
    HEADERS_TRUNCATED = "headers-truncated"


class OtherReason(StrEnum):
    """Why a bounce was not sent, where no guard of the mail was the reason."""

    OBSERVE_MODE = "observe-mode"
    WINDOW_CLOSED = "window-closed"
    SENDER_BUDGET = "sender-budget"
    SENDER_DOMAIN_BUDGET = "sender-domain-budget"
    CLIENT_BUDGET = "client-budget"
    QUEUE_SHARE = "queue-share"
    BOUNCE_SENDER_RECIPIENT = "bounce-sender-recipient"
    """It was addressed to a bounce sender: somebody answered a bounce."""
    TAKEN_OUT = "taken-out"
    """An operator took it out of the queue."""
    GUARD_FAILED = "guard-failed"
    """A guard raised: nobody knows what it would have said."""
    DECIDED_OTHERWISE = "decided-otherwise"
    """Its bounce was begun and never sent; who decided again did not refuse it any more."""


NOT_TOLD = frozenset(
    {
        OtherReason.WINDOW_CLOSED,
        OtherReason.SENDER_BUDGET,
        OtherReason.SENDER_DOMAIN_BUDGET,
        OtherReason.CLIENT_BUDGET,
        OtherReason.QUEUE_SHARE,
    }
)
"""Reasons that are ours, not the mail's: its sender ought to have been told."""

NOT_CONFIGURABLE = frozenset({GuardName.NULL_SENDER, GuardName.VIRUS_FOUND})
"""RFC 5321 §6.1 forbids the one; the other would send a virus's forged sender a notice."""

# RFC 5321 §6.3: loop detection by counting should allow at least 100 Received fields.
DEFAULT_MAX_RECEIVED = 100


class Circumstances(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What the guards look at."""

    mail: InboundMessage
    bounce_senders: frozenset[str]
    """Every address that bounces of this deployment come from."""
    own_domains: frozenset[str] = frozenset()
    """Normalised domains that are ours beside those of the recipients and the bounce sender."""
    max_received: int = DEFAULT_MAX_RECEIVED
    refused: frozenset[str] | None = None
    """The recipients whom the bounce is about; None: all of the mail's."""

    @property
    def reverse_path(self) -> str:
        return self.mail.reverse_path or ""

    @cached_property
    def proof(self) -> Proof | Doubt:
        return prove(self.mail)


type Answer = bool | None
"""Whether a guard objects; None where only headers could tell that are cut."""


def _found(at: Circumstances, seen: bool) -> Answer:
    """What is seen in headers is there; what is not may stand where they are cut."""
    return True if seen else (False if at.mail.headers_whole else None)


def _unproven(at: Circumstances) -> Answer:
    if at.proof is Doubt.HEADERS_CUT:
        return None
    return not is_proven(at.proof)


def _null_sender(at: Circumstances) -> Answer:
    return at.mail.reverse_path is None


def _undeliverable_sender(at: Circumstances) -> Answer:
    return not is_deliverable(at.reverse_path)


def _dmarc_failed(at: Circumstances) -> Answer:
    return at.mail.verdicts.dmarc == "FAIL" and _unproven(at)


def _spf_failed(at: Circumstances) -> Answer:
    return at.mail.verdicts.spf == "FAIL" and _unproven(at)


def _unproven_sender(at: Circumstances) -> Answer:
    # SPF's PASS and FAIL are the business of the two guards above.
    return at.mail.verdicts.spf not in ("PASS", "FAIL") and _unproven(at)


def _own_address(at: Circumstances) -> Answer:
    refused = at.mail.recipients if at.refused is None else at.refused
    sender = normalise(at.reverse_path)
    if sender in {normalise(each) for each in (*at.bounce_senders, *refused)}:
        return True
    # Senders who copy themselves are told of the others, if they are proven.
    to_itself = sender in {normalise(each) for each in at.mail.recipients}
    return to_itself and _unproven(at)


def _own_domain(at: Circumstances) -> Answer:
    recipients = {domain_of(each) for each in at.mail.recipients}
    ours = at.own_domains | recipients | {domain_of(each) for each in at.bounce_senders}
    return domain_of(at.reverse_path) in ours and _unproven(at)


def _mail_loop(at: Circumstances) -> Answer:
    hops = at.mail.count("Received")
    return _found(at, bool(at.mail.header(MARKER)) or hops > at.max_received)


def _auto_submitted(at: Circumstances) -> Answer:
    return _found(at, any(keyword(each) != "no" for each in at.mail.header("Auto-Submitted")))


def _report(at: Circumstances) -> Answer:
    types = {keyword(value) for value in at.mail.header("Content-Type")}
    return _found(
        at,
        bool(types & _REPORT_TYPES)
        or bool(at.mail.header("X-Failed-Recipients"))
        or any(
            _is_mail_system(value)
            for name in ("From", "Sender", "Return-Path")
            for value in at.mail.header(name)
        ),
    )


_REPORT_TYPES = {
    "multipart/report",
    "message/delivery-status",
    "message/global-delivery-status",
    "message/disposition-notification",
    "message/feedback-report",
}


def _is_mail_system(value: str) -> bool:
    """Whether a mail system wrote it: `MAILER-DAEMON`, `postmaster`, nobody at all (`<>`)."""
    return any(
        not each.address
        or _role(each.address) in _MAIL_SYSTEMS
        or re.sub("[^a-z]", "", each.name.lower()) in _MAIL_SYSTEM_NAMES
        for each in named_addresses(value)
    )


def _role(address: str) -> str:
    """The local part without its tag and separators: everyone writes no-reply otherwise."""
    local = split(normalise(address))[0] if "@" in address else address.lower()
    return re.sub("[._ -]", "", local.partition("+")[0])


_MAIL_SYSTEMS = frozenset({"mailerdaemon", "maildaemon", "postmaster"})
_MAIL_SYSTEM_NAMES = frozenset(
    {"mailerdaemon", "maildeliverysubsystem", "maildeliverysystem", "maildeliveryservice"}
)
_ROLES = _MAIL_SYSTEMS | {"noreply", "donotreply"}


def _role_sender(at: Circumstances) -> Answer:
    local = split(normalise(at.reverse_path))[0]
    base = local.partition("+")[0]
    return (
        _role(at.reverse_path) in _ROLES
        or base.startswith("owner-")
        or base.endswith(("-request", "-owner"))
        or "-bounces" in local
    )


def _list_mail(at: Circumstances) -> Answer:
    # Senders of one-to-one mail have to carry List-Unsubscribe too (RFC 8058, large hosts' rules).
    return _found(
        at,
        any(
            name.startswith("list-") and not name.startswith("list-unsubscribe")
            for name in (each.name.lower() for each in at.mail.all_headers())
        )
        or any(
            keywords(value) & {"bulk", "junk", "list"} for value in at.mail.header("Precedence")
        ),
    )


def _response_suppressed(at: Circumstances) -> Answer:
    asked = at.mail.header("X-Auto-Response-Suppress")
    return _found(at, any(keywords(value) & {"all", "ndr"} for value in asked))


def _headers_truncated(at: Circumstances) -> Answer:
    return not at.mail.headers_whole


class Guard(msgspec.Struct, frozen=True):
    name: GuardName
    stops: Callable[[Circumstances], Answer]
    source: str


GUARDS: tuple[Guard, ...] = (
    Guard(GuardName.NULL_SENDER, _null_sender, "RFC 5321 §6.1, RFC 3834 §2: MUST NOT"),
    Guard(GuardName.UNDELIVERABLE_SENDER, _undeliverable_sender, "RFC 5321 §4.1.2; SES is 7-bit"),
    Guard(GuardName.VIRUS_FOUND, lambda at: at.mail.verdicts.virus == "FAIL", "RFC 5321 §6.2"),
    Guard(GuardName.SPAM_FOUND, lambda at: at.mail.verdicts.spam == "FAIL", "RFC 5321 §6.2"),
    Guard(GuardName.DMARC_FAILED, _dmarc_failed, "RFC 7489 §10.3"),
    Guard(GuardName.SPF_FAILED, _spf_failed, "RFC 7208 §8.4"),
    Guard(GuardName.OWN_ADDRESS, _own_address, "RFC 5321 §6.3: loops"),
    Guard(GuardName.OWN_DOMAIN, _own_domain, "RFC 5321 §6.3: loops"),
    Guard(GuardName.MAIL_LOOP, _mail_loop, "RFC 5321 §6.3: loops"),
    Guard(GuardName.AUTO_SUBMITTED, _auto_submitted, "RFC 3834 §2 and §5"),
    Guard(GuardName.REPORT, _report, "RFC 3464 §2, RFC 6522"),
    Guard(GuardName.ROLE_SENDER, _role_sender, "RFC 3834 §2: MAY"),
    Guard(GuardName.LIST_MAIL, _list_mail, "RFC 3834 §2: MAY; RFC 2076 §3.9"),
    Guard(GuardName.RESPONSE_SUPPRESSED, _response_suppressed, "[MS-OXCMAIL] §2.1.3.2.14"),
    Guard(GuardName.UNPROVEN_SENDER, _unproven_sender, "RFC 7208 §2.4: SPF speaks for MAIL FROM"),
    Guard(
        GuardName.HEADERS_TRUNCATED,
        _headers_truncated,
        "the guards above would have judged by half of the headers",
    ),
)


def objections(
    at: Circumstances, off: Collection[GuardName]
) -> tuple[GuardName | OtherReason, ...]:
    """Every guard that says no, in their order; none if the sender may be answered.

    A guard that raises is an objection of its own: what a sender writes must not be a way past.

    Raises:
        HeadersNeeded: no guard objects, but the stored mail's headers could show one.
    """
    answers = [
        (guard, answer_of(guard, at))
        for guard in GUARDS
        if guard.name in NOT_CONFIGURABLE or guard.name not in off
    ]
    # Without the headers, that they are cut is no answer yet.
    open_question = not at.mail.headers_whole and not at.mail.stored_asked
    found = [
        guard.name if answer is True else answer
        for guard, answer in answers
        if answer and not (open_question and guard.name is GuardName.HEADERS_TRUNCATED)
    ]
    if found:
        return tuple(dict.fromkeys(found))
    if open_question:
        raise HeadersNeeded
    # Who cannot prove the sender for want of headers has not proven it, whatever is off.
    return tuple(
        guard.name for guard, answer in answers if answer is None and guard.name in _PROVING
    )


_PROVING = frozenset(
    {
        GuardName.DMARC_FAILED,
        GuardName.SPF_FAILED,
        GuardName.OWN_ADDRESS,
        GuardName.OWN_DOMAIN,
        GuardName.UNPROVEN_SENDER,
    }
)


def answer_of(guard: Guard, at: Circumstances) -> Answer | OtherReason:
    """What one guard says; GUARD_FAILED where it raised."""
    try:
        return guard.stops(at)
    except Exception:  # noqa: BLE001  (whatever it is, the sender chose what it was raised by)
        return OtherReason.GUARD_FAILED
