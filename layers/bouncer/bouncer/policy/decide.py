"""Deciding: the policy's first rule whose conditions all hold, for each recipient on its own.

Pure: nothing here knows AWS, and nothing is looked up.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from bouncer.address import domain_of
from bouncer.delivery.bounce import (
    EXPLANATION_LIMIT,
    BouncedRecipient,
    ExtensionField,
    MessageDsn,
)
from bouncer.mailboxes import Mailbox
from bouncer.message import HeadersNeeded, InboundMessage
from bouncer.policy import conditions as when
from bouncer.policy.asking import Asked, Recipients
from bouncer.policy.conditions import Facts, SizeNeeded
from bouncer.policy.file import PolicyFile, RuleSection
from bouncer.text import apart, clean_lines, fill, in_ascii


class Outcome(StrEnum):
    ACCEPT = "accept"
    DROP = "drop"
    BOUNCE = "bounce"


class Envelope(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """SendBounce's parameters about the message; absent ones are the deployment's own."""

    bounce_sender: str | None = None
    bounce_sender_arn: str | None = None
    reporting_mta: str | None = None
    arrival_date: bool = True
    extension_fields: tuple[tuple[str, str], ...] = ()

    def message_dsn(self, received_at: datetime, default_mta: str) -> MessageDsn:
        return MessageDsn(
            reporting_mta=self.reporting_mta or default_mta,
            arrival_date=received_at if self.arrival_date else None,
            extension_fields=tuple(
                ExtensionField(name, value) for name, value in self.extension_fields
            ),
        )


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy says of one recipient, and why."""

    recipient: str
    outcome: Outcome
    reason: str
    """The name of the rule that decided."""
    bounce: BouncedRecipient | None = None
    envelope: Envelope = Envelope()
    dry_run: bool = False
    keep: bool = False

    @property
    def delivered(self) -> bool:
        """Whether the mail is still meant for this recipient."""
        return self.outcome is Outcome.ACCEPT or self.dry_run or self.keep


class Trial(msgspec.Struct, frozen=True):
    """One rule tried for one recipient."""

    rule: str
    failed: str | None
    """The condition that did not hold, such as `when.mailbox`; None: the rule decides."""
    why: str = ""
    """How it is instead: "mailbox is known; needs unknown"."""
    unknown: bool = False
    """Whether nobody knows if it holds, which is not enough for a rule to decide."""


class Tried(msgspec.Struct, frozen=True):
    """What came of some conditions of a rule; nothing of all three: all of them hold."""

    failed: str | None = None
    """The first that is known not to hold."""
    unknown: str | None = None
    """The first of which nobody knows, nor can find out."""
    needs: SizeNeeded | HeadersNeeded | None = None
    """What the first asks for of which somebody could find out."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule with its conditions compiled to tests."""

    section: RuleSection
    envelope: Envelope
    mail_tests: dict[str, when.MailTest]
    mail_refusals: dict[str, when.MailTest]
    recipient_tests: dict[str, when.RecipientTest]
    recipient_refusals: dict[str, when.RecipientTest]
    on_mail: tuple[tuple[when.MailTest, bool], ...]
    """The same without their names, each with the answer by which it holds."""
    on_recipients: tuple[Asked, ...]
    outcome: Outcome
    variables: frozenset[str]
    """Everything that is filled in for a recipient."""
    limits: tuple[bool, int | None]
    """The size limits that a text may tell; see `conditions.size_limits`."""

    def holds(self, mail: InboundMessage, recipients: Recipients, left: int) -> int:
        """Which of the recipients that are left this rule decides.

        Raises:
            SizeNeeded, HeadersNeeded: that is what it depends on for one of them, and on
                nothing else.
        """
        headers_needed: HeadersNeeded | None = None
        for test, wanted in self.on_mail:
            try:
                if test(mail) is not wanted:
                    return 0
            except HeadersNeeded as need:
                headers_needed = need
            except Exception:  # noqa: BLE001  (whatever a mail makes a test raise, nobody knows)
                return 0
        size_needed = 0
        for each in self.on_recipients:
            holds, needs = each.holds(mail, recipients)
            left &= holds
            if not left:
                return 0
            size_needed |= needs
        if left & size_needed:
            raise SizeNeeded
        if headers_needed is not None:
            raise headers_needed
        return left

    def tried_on_mail(self, mail: InboundMessage) -> Tried:
        return _tried(self.mail_tests, self.mail_refusals, mail)

    def tried_on_recipient(self, mail: InboundMessage, facts: Facts) -> Tried:
        return _tried(self.recipient_tests, self.recipient_refusals, mail, facts)


def _tried(
    tests: Mapping[str, Callable[..., bool | None]],
    refusals: Mapping[str, Callable[..., bool | None]],
    *about: Any,
) -> Tried:
    unknown: str | None = None
    needs: SizeNeeded | HeadersNeeded | None = None
    for place, asked, wanted in (("when", tests, True), ("unless", refusals, False)):
        for name, test in asked.items():
            try:
                answer = test(*about)
            except (SizeNeeded, HeadersNeeded) as need:
                needs = needs or need
                continue
            except Exception:  # noqa: BLE001  (whatever a mail makes a test raise, nobody knows)
                answer = None
            if answer is None:
                unknown = unknown or f"{place}.{name}"
            elif answer is not wanted:
                return Tried(failed=f"{place}.{name}")
    return Tried(unknown=unknown, needs=needs)


def _holds(on_mail: Tried, on_recipient: Tried) -> bool:
    """Whether a rule decides, by what came of all its conditions.

    Raises:
        SizeNeeded, HeadersNeeded: that is what it depends on, and on nothing else.
    """
    if on_mail.failed or on_recipient.failed or on_mail.unknown or on_recipient.unknown:
        return False
    needs = on_recipient.needs or on_mail.needs
    if needs is not None:
        raise needs
    return True


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A checked policy."""

    file: PolicyFile
    shared: tuple[Rule, ...]
    by_domain: dict[str, tuple[Rule, ...]]
    mailboxes: tuple[Mailbox, ...] | None
    """The static list, or None when the directory is a table."""
    bounce_senders: frozenset[str]
    """Every sender that a rule names; the deployment must be allowed to use each."""
    digest: str
    """Of what it says, in TOML or JSON: two policies of one digest are the same."""

    def rules_for(self, recipient: str) -> tuple[Rule, ...]:
        return self.by_domain.get(domain_of(recipient), self.shared)


# --- Deciding --------------------------------------------------------------------------------


def decide(policy: Policy, mail: InboundMessage, facts: Iterable[Facts]) -> list[Decision]:
    """One decision a recipient, in the order of `facts`.

    Raises:
        SizeNeeded: a rule that was reached asks for the size and nobody has looked it up.
        HeadersNeeded: it asks for a header that the event may lack, and nobody has looked.
    """
    known = list(facts)
    by_rules: dict[int, tuple[tuple[Rule, ...], list[Facts]]] = {}
    for fact in known:
        rules = policy.rules_for(fact.recipient)
        by_rules.setdefault(id(rules), (rules, []))[1].append(fact)
    decided: dict[int, Decision] = {}
    for rules, its in by_rules.values():
        recipients = Recipients(its)
        left = recipients.everybody
        for rule in rules:
            held = rule.holds(mail, recipients, left)
            if held:
                for fact in recipients.only(held):
                    decided[id(fact)] = _decision(rule, mail, fact)
                left &= ~held
                if not left:
                    break
    return [decided[id(fact)] for fact in known]


def trials(policy: Policy, mail: InboundMessage, facts: Facts) -> list[Trial]:
    """The rules that `decide` tries for one recipient, up to the one that decides."""
    tried = []
    for rule in policy.rules_for(facts.recipient):
        both = (rule.tried_on_mail(mail), rule.tried_on_recipient(mail, facts))
        failed = both[0].failed or both[1].failed
        unknown = both[0].unknown or both[1].unknown
        if failed or unknown:
            tried.append(_trial(rule, failed or unknown or "", mail, facts, unknown=not failed))
        elif _holds(*both):
            tried.append(Trial(rule.section.name, None))
            break
    return tried


def _trial(
    rule: Rule, condition: str, mail: InboundMessage, facts: Facts, *, unknown: bool
) -> Trial:
    place, _, name = condition.partition(".")
    given = rule.section.when if place == "when" else rule.section.unless
    asked = getattr(given, name)
    wants = "needs" if place == "when" else "excludes"
    why = f"{when.said(name, asked, mail, facts)}; {wants} {_written(asked)}"
    return Trial(rule.section.name, condition, why, unknown)


def _written(asked: Any) -> str:
    """A condition's value as a person writes it."""
    match asked:
        case bool():
            return "any value" if asked else "none"
        case list():
            return " or ".join(map(_written, asked))
        case dict():
            return ", ".join(f"{name}: {_written(value)}" for name, value in asked.items())
        case _:
            return str(asked)


def _decision(rule: Rule, mail: InboundMessage, facts: Facts) -> Decision:
    section = rule.section
    return Decision(
        recipient=facts.recipient,
        outcome=rule.outcome,
        reason=section.name,
        bounce=_bounced(rule, mail, facts) if rule.outcome is Outcome.BOUNCE else None,
        envelope=rule.envelope,
        dry_run=section.dry_run,
        keep=section.keep,
    )


def _bounced(rule: Rule, mail: InboundMessage, facts: Facts) -> BouncedRecipient:
    section = rule.section
    values = _values(rule, mail, facts)
    fields = section.recipient_dsn_fields
    return BouncedRecipient(
        recipient=facts.recipient,
        reason=section.name,
        bounce_type=section.bounce_type,
        recipient_arn=section.recipient_arn,
        explanation=explained(section.send_bounce.explanation or "", values),
        dsn_fields=None if fields is None else fields.filled(values, facts.now),
    )


def explained(template: str, values: Mapping[str, str]) -> str:
    """A text for people, filled and cleaned."""
    return clean_lines(fill(in_ascii(template), values), EXPLANATION_LIMIT)


def _values(rule: Rule, mail: InboundMessage, facts: Facts) -> dict[str, str]:
    """The values of the variables that the rule's texts have."""
    values = {
        name: _VALUES[name](rule, mail, facts) for name in rule.variables if name not in _SIZES
    }
    sizes = {name: _SIZES[name](rule, facts) for name in _SIZES if name in rule.variables}
    return {**values, **apart(sizes)} if sizes else values


_VALUES: Mapping[str, Callable[[Rule, InboundMessage, Facts], str]] = {
    "recipient": lambda _rule, _mail, facts: facts.recipient,
    "domain": lambda _rule, _mail, facts: domain_of(facts.recipient),
    "sender": lambda _rule, mail, _facts: mail.reverse_path or "",
    "subject": lambda _rule, mail, _facts: next(iter(mail.header_text("Subject")), ""),
    "message_id": lambda _rule, mail, _facts: mail.message_id,
    "received_at": lambda _rule, mail, _facts: f"{mail.received_at:%Y-%m-%d %H:%M:%S UTC}",
    "new_address": lambda _rule, _mail, facts: _new_address(facts.mailbox),
    "rule": lambda rule, _mail, _facts: rule.section.name,
}
_SIZES: Mapping[str, Callable[[Rule, Facts], int | None]] = {
    "size": lambda _, facts: facts.known_size(),
    "limit": lambda rule, facts: when.size_limit(
        facts.mailbox, own=rule.limits[0], fixed=rule.limits[1]
    ),
    "quota": lambda _, facts: facts.mailbox.quota_bytes if facts.mailbox else None,
    "used": lambda _, facts: facts.mailbox.used_bytes if facts.mailbox else None,
}


def _new_address(mailbox: Mailbox | None) -> str:
    return (mailbox.moved_to or "") if mailbox and mailbox.tell_new_address else "not disclosed"
