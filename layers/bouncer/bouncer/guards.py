"""When not to send a bounce: each reason a named, pure predicate of the mail.

A bounce that goes to a forged sender is spam with our user's name on it. The guards are
asked in this order, the cheapest and surest first, and before anything is spent.
docs/guards.md explains each, with what happens when it is switched off.
"""

import re
from collections.abc import Callable, Collection
from email.utils import getaddresses
from enum import StrEnum

import msgspec

from bouncer.address import domain_of, is_deliverable, normalise, normalise_domain, split
from bouncer.message import InboundMessage

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


NOT_CONFIGURABLE = frozenset({GuardName.NULL_SENDER, GuardName.VIRUS_FOUND})
"""RFC 5321 §6.1 forbids the one; the other would send a virus's forged sender a notice."""

# RFC 5321 §6.3: loop detection by counting should allow at least 100 Received fields.
DEFAULT_MAX_RECEIVED = 100


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """What the guards look at."""

    mail: InboundMessage
    bounce_senders: frozenset[str]
    """Every address that bounces of this deployment come from."""
    own_domains: frozenset[str] = frozenset()
    """Normalised domains that are ours beside those of the recipients and the bounce sender."""
    max_received: int = DEFAULT_MAX_RECEIVED

    @property
    def reverse_path(self) -> str:
        return self.mail.reverse_path or ""


def _null_sender(at: Circumstances) -> bool:
    return at.mail.reverse_path is None


def _undeliverable_sender(at: Circumstances) -> bool:
    return not is_deliverable(at.reverse_path)


def _auto_submitted(at: Circumstances) -> bool:
    return any(_first_token(value) != "no" for value in at.mail.header("Auto-Submitted"))


def _report(at: Circumstances) -> bool:
    types = {_first_token(value) for value in at.mail.header("Content-Type")}
    return bool(types & {"multipart/report", "message/delivery-status"}) or bool(
        at.mail.header("X-Failed-Recipients")
    )


def _role_sender(at: Circumstances) -> bool:
    local = split(normalise(at.reverse_path))[0]
    base = local.partition("+")[0]
    return (
        re.sub("[._-]", "", base) in _ROLES
        or base.startswith("owner-")
        or base.endswith(("-request", "-owner"))
        or "-bounces" in local
    )


# Without the separators, which everyone writes otherwise: no-reply, no_reply, no.reply.
_ROLES = frozenset({"mailerdaemon", "postmaster", "noreply", "donotreply"})


def _list_mail(at: Circumstances) -> bool:
    return any(header.name.lower().startswith("list-") for header in at.mail.headers) or any(
        _first_token(value) in {"bulk", "junk", "list"} for value in at.mail.header("Precedence")
    )


def _response_suppressed(at: Circumstances) -> bool:
    asked = {
        token.strip().lower()
        for value in at.mail.header("X-Auto-Response-Suppress")
        for token in value.split(",")
    }
    return bool(asked & {"all", "ndr"})


def _own_address(at: Circumstances) -> bool:
    ours = {normalise(each) for each in (*at.bounce_senders, *at.mail.recipients)}
    return normalise(at.reverse_path) in ours


def _own_domain(at: Circumstances) -> bool:
    recipients = {domain_of(each) for each in at.mail.recipients}
    ours = at.own_domains | recipients | {domain_of(each) for each in at.bounce_senders}
    return domain_of(at.reverse_path) in ours


def _mail_loop(at: Circumstances) -> bool:
    return bool(at.mail.header(MARKER)) or len(at.mail.header("Received")) > at.max_received


def _unproven_sender(at: Circumstances) -> bool:
    verdicts = at.mail.verdicts
    # SPF authenticates the domain of MAIL FROM itself (RFC 7208 §2.4); DKIM and DMARC speak
    # for the From header, so they prove the reverse-path only where its domain is the same.
    if verdicts.spf == "PASS":
        return False
    domain = domain_of(at.reverse_path)
    authors = getaddresses(at.mail.header("From"), strict=True)
    if {domain_of(address) for _, address in authors} != {domain}:
        return True
    if verdicts.dmarc == "PASS":
        return False
    # DKIM's PASS does not say whose signature it was: no stranger's may be among them.
    signers = map(_signer, at.mail.header("DKIM-Signature"))
    return verdicts.dkim != "PASS" or not all(_within(domain, each) for each in signers)


def _signer(signature: str) -> str:
    """The `d=` of a DKIM-Signature (RFC 6376 §3.5)."""
    tags = (tag.partition("=") for tag in signature.split(";"))
    return next((value.strip() for name, _, value in tags if name.strip() == "d"), "")


def _within(domain: str, parent: str) -> bool:
    parent = normalise_domain(parent)
    return domain == parent or (bool(parent) and domain.endswith(f".{parent}"))


def _first_token(value: str) -> str:
    return value.replace("(", ";").partition(";")[0].strip().lower()


class Guard(msgspec.Struct, frozen=True):
    name: GuardName
    stops: Callable[[Circumstances], bool]
    source: str


GUARDS: tuple[Guard, ...] = (
    Guard(GuardName.NULL_SENDER, _null_sender, "RFC 5321 §6.1, RFC 3834 §2: MUST NOT"),
    Guard(GuardName.UNDELIVERABLE_SENDER, _undeliverable_sender, "RFC 5321 §4.1.2; SES is 7-bit"),
    Guard(GuardName.VIRUS_FOUND, lambda at: at.mail.verdicts.virus == "FAIL", "RFC 5321 §6.2"),
    Guard(GuardName.SPAM_FOUND, lambda at: at.mail.verdicts.spam == "FAIL", "RFC 5321 §6.2"),
    Guard(GuardName.DMARC_FAILED, lambda at: at.mail.verdicts.dmarc == "FAIL", "RFC 7489 §10.3"),
    Guard(GuardName.SPF_FAILED, lambda at: at.mail.verdicts.spf == "FAIL", "RFC 7208 §8.4"),
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
        lambda at: at.mail.headers_truncated,
        "the guards above would have judged by half of the headers",
    ),
)


def objection(at: Circumstances, off: Collection[GuardName]) -> GuardName | None:
    """The first guard that says no, or None if the sender may be answered."""
    for guard in GUARDS:
        if (guard.name in NOT_CONFIGURABLE or guard.name not in off) and guard.stops(at):
            return guard.name
    return None
