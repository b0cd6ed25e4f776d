"""The policy: which mail is refused, for which recipient, as what, and in which words.

`load` reads a file and refuses what is wrong in it; `decide` gives every recipient the
decision of the first rule whose conditions all hold. Pure: nothing here knows AWS.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from bouncer import conditions as when
from bouncer import policy_check as check
from bouncer.address import domain_of, normalise_domain
from bouncer.bounce import (
    EXPLANATION_LIMIT,
    BouncedRecipient,
    BounceType,
    ExtensionField,
    MessageDsn,
)
from bouncer.conditions import Facts, PolicyError
from bouncer.guards import MARKER
from bouncer.mailboxes import Mailbox, Status
from bouncer.message import InboundMessage
from bouncer.policy_file import (
    Action,
    MailboxSection,
    MessageDsnSection,
    PolicyFile,
    RuleSection,
    SendBounceSection,
    read,
)
from bouncer.text import clean, fill, in_units


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
    """One rule tried for one recipient: the condition that did not hold, or None."""

    rule: str
    failed: str | None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule with its conditions compiled to tests."""

    section: RuleSection
    envelope: Envelope
    mail_tests: dict[str, when.MailTest]
    mail_refusals: dict[str, when.MailTest]
    recipient_tests: dict[str, when.RecipientTest]
    recipient_refusals: dict[str, when.RecipientTest]
    needs_size_for_text: bool

    def fails_mail(self, mail: InboundMessage) -> str | None:
        for name, test in self.mail_tests.items():
            if not test(mail):
                return f"when.{name}"
        for name, test in self.mail_refusals.items():
            if test(mail):
                return f"unless.{name}"
        return None

    def fails_recipient(self, mail: InboundMessage, facts: Facts) -> str | None:
        for name, test in self.recipient_tests.items():
            if not test(mail, facts):
                return f"when.{name}"
        for name, test in self.recipient_refusals.items():
            if test(mail, facts):
                return f"unless.{name}"
        return None


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A checked policy."""

    file: PolicyFile
    shared: tuple[Rule, ...]
    by_domain: dict[str, tuple[Rule, ...]]
    mailboxes: tuple[Mailbox, ...] | None
    """The static list, or None when the directory is a table."""
    bounce_senders: frozenset[str]
    """Every sender that a rule names; the deployment must be allowed to use each."""

    def rules_for(self, recipient: str) -> tuple[Rule, ...]:
        return self.by_domain.get(domain_of(recipient), self.shared)


# --- Deciding --------------------------------------------------------------------------------


def decide(policy: Policy, mail: InboundMessage, facts: Iterable[Facts]) -> list[Decision]:
    """One decision a recipient, in the order of `facts`.

    Raises:
        SizeNeeded: a rule that was reached asks for the size and nobody has looked it up.
    """
    live: dict[int, list[Rule]] = {}
    decisions = []
    for fact in facts:
        rules = policy.rules_for(fact.recipient)
        if id(rules) not in live:
            live[id(rules)] = [rule for rule in rules if rule.fails_mail(mail) is None]
        decided = next(rule for rule in live[id(rules)] if rule.fails_recipient(mail, fact) is None)
        decisions.append(_decision(decided, mail, fact))
    return decisions


def trials(policy: Policy, mail: InboundMessage, facts: Facts) -> list[Trial]:
    """The rules that `decide` tries for one recipient, up to the one that decides."""
    tried = []
    for rule in policy.rules_for(facts.recipient):
        failed = rule.fails_mail(mail) or rule.fails_recipient(mail, facts)
        tried.append(Trial(rule.section.name, failed))
        if failed is None:
            break
    return tried


def _decision(rule: Rule, mail: InboundMessage, facts: Facts) -> Decision:
    section = rule.section
    outcome = {
        Action.ACCEPT: Outcome.ACCEPT,
        Action.DROP: Outcome.DROP,
        Action.BOUNCE: Outcome.BOUNCE,
        Action.DEFER: Outcome.BOUNCE,
    }[section.action]
    return Decision(
        recipient=facts.recipient,
        outcome=outcome,
        reason=section.name,
        bounce=_bounced(rule, mail, facts) if outcome is Outcome.BOUNCE else None,
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
        explanation=clean(fill(section.send_bounce.explanation or "", values), EXPLANATION_LIMIT),
        dsn_fields=None if fields is None else fields.filled(values, facts.now),
    )


def _values(rule: Rule, mail: InboundMessage, facts: Facts) -> dict[str, str]:
    box = facts.mailbox
    size = facts.known_size() if rule.needs_size_for_text else facts.size
    asked = rule.section.when.larger_than
    limits = when.listed(asked, "larger_than") if asked is not None else [when.MAILBOX_LIMIT]
    fixed = [when.parse_size(each) for each in limits if each != when.MAILBOX_LIMIT]
    limit = when.size_limit(box, own=when.MAILBOX_LIMIT in limits, fixed=min(fixed, default=None))
    return {
        "recipient": facts.recipient,
        "domain": domain_of(facts.recipient),
        "sender": mail.reverse_path or "",
        "subject": next(iter(mail.header("Subject")), ""),
        "message_id": mail.message_id,
        "received_at": mail.received_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
        "size": in_units(size),
        "limit": in_units(limit),
        "quota": in_units(box.quota_bytes) if box else "",
        "used": in_units(box.used_bytes) if box else "",
        "new_address": (box.moved_to or "") if box and box.tell_new_address else "not disclosed",
        "rule": rule.section.name,
    }


# --- Loading ---------------------------------------------------------------------------------


def load_file(path: Path) -> Policy:
    """Read and check a policy file.

    Raises:
        PolicyError: see `load`.
        OSError: it cannot be read.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path} is not UTF-8: save it as UTF-8") from error
    return load(text, str(path))


def load(text: str, origin: str = "policy.toml") -> Policy:
    """Read and check a policy.

    Args:
        text: TOML, or JSON of the same shape when it begins with `{`.
        origin: the file's name, for the error.

    Raises:
        PolicyError: every mistake that was found, each with its place and how to mend it.
    """
    file, raw = read(text, origin)
    problems = [*check.guards_problems(file.guards), *check.domains_problems(file.domains)]
    shared = _rules(file.rules, file.send_bounce, "rules", problems)
    by_domain = {}
    for domain, section in file.domains.items():
        place = f'domains."{domain}".rules'
        unknown = section.rules.keys() - {rule.name for rule in file.rules}
        problems.extend(f'{place}."{name}": no shared rule has this name' for name in unknown)
        overridden = _overridden(raw["rules"], raw["domains"][domain].get("rules", {}))
        send_bounce = _layered(file.send_bounce, section.send_bounce)
        by_domain[normalise_domain(domain)] = _rules(overridden, send_bounce, place, problems)
    mailboxes = _static_mailboxes(file.mailboxes, problems)
    if problems:
        raise PolicyError("\n".join(f"{origin}: {each}" for each in dict.fromkeys(problems)))
    rules = [*shared, *(rule for of_domain in by_domain.values() for rule in of_domain)]
    return Policy(
        file=file,
        shared=shared,
        by_domain=by_domain,
        mailboxes=mailboxes,
        bounce_senders=frozenset(filter(None, (rule.envelope.bounce_sender for rule in rules))),
    )


def _rules(
    sections: Iterable[RuleSection],
    send_bounce: SendBounceSection,
    place: str,
    problems: list[str],
) -> tuple[Rule, ...]:
    inherited = [_inherit(section, send_bounce) for section in sections]
    for index, problem in check.rules_problems(inherited):
        name = inherited[index].name if inherited else ""
        problems.append(f'{place}[{index}] "{name}": {problem}')
    rules = []
    for index, section in enumerate(inherited):
        try:
            if section.enabled:
                rules.append(_compile(section))
        except PolicyError as error:
            problems.append(f'{place}[{index}] "{section.name}": {error}')
    return tuple(rules)


def _inherit(rule: RuleSection, send_bounce: SendBounceSection) -> RuleSection:
    """The rule with what it leaves to the file's, or its domain's, `send_bounce`."""
    own = _layered(rule.send_bounce, SendBounceSection(explanation=rule.explanation))
    temporary = rule.action is Action.DEFER and not (rule.bounce_type or rule.recipient_dsn_fields)
    return msgspec.structs.replace(
        rule,
        send_bounce=_layered(send_bounce, own),
        bounce_type=BounceType.TEMPORARY_FAILURE if temporary else rule.bounce_type,
    )


def _compile(section: RuleSection) -> Rule:
    fields = section.recipient_dsn_fields
    texts = [section.send_bounce.explanation or "", *(fields.texts().values() if fields else ())]
    return Rule(
        section=section,
        envelope=_envelope(section.send_bounce),
        mail_tests=when.compile_mail_tests(section.when),
        mail_refusals=when.compile_mail_tests(section.unless),
        recipient_tests=when.compile_recipient_tests(section.when),
        recipient_refusals=when.compile_recipient_tests(section.unless),
        needs_size_for_text=any("{size}" in text for text in texts),
    )


def _envelope(section: SendBounceSection) -> Envelope:
    dsn = section.message_dsn or MessageDsnSection()
    fields = {MARKER: "auto-generated", **(dsn.extension_fields or {})}
    return Envelope(
        bounce_sender=section.bounce_sender,
        bounce_sender_arn=section.bounce_sender_arn,
        reporting_mta=dsn.reporting_mta,
        arrival_date=dsn.arrival_date is not False,
        extension_fields=tuple(fields.items()),
    )


def _layered(below: SendBounceSection, above: SendBounceSection) -> SendBounceSection:
    """`above` where it says something, else `below`; so too inside of message_dsn."""
    dsn = None
    if below.message_dsn is not None or above.message_dsn is not None:
        under, over = below.message_dsn or MessageDsnSection(), above.message_dsn
        dsn = _said_first(over or MessageDsnSection(), under)
    return msgspec.structs.replace(_said_first(above, below), message_dsn=dsn)


def _said_first[Section: msgspec.Struct](above: Section, below: Section) -> Section:
    said = {
        name: value
        for name in above.__struct_fields__
        if (value := getattr(above, name)) is not None
    }
    return msgspec.structs.replace(below, **said)


def _overridden(
    rules: list[dict[str, Any]], overrides: Mapping[str, dict[str, Any]]
) -> list[RuleSection]:
    """The shared rules with one domain's overrides laid over them, field by field."""
    merged = []
    for rule in rules:
        given = overrides.get(rule["name"], {})
        override = {name: value for name, value in given.items() if value is not None}
        # The two ways to say what it bounces as exclude each other: the override's wins.
        ways = {"bounce_type", "recipient_dsn_fields"}
        kept = {k: v for k, v in rule.items() if k not in ways} if ways & set(override) else rule
        merged.append(msgspec.convert(_merge_tables(kept, override), RuleSection))
    return merged


def _merge_tables(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for name, value in above.items():
        nested = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = _merge_tables(result[name], value) if nested else value
    return result


def _static_mailboxes(
    sections: dict[str, MailboxSection] | None, problems: list[str]
) -> tuple[Mailbox, ...] | None:
    if sections is None:
        return None
    problems.extend(check.mailboxes_problems(sections))
    boxes = []
    for address, section in sections.items():
        try:
            boxes.append(
                Mailbox(
                    address=address,
                    status=Status(section.status),
                    quota_bytes=_size_or_none(section.quota),
                    used_bytes=when.parse_size(section.used),
                    size_limit_bytes=_size_or_none(section.size_limit),
                    alias_for=section.alias_for,
                    moved_to=section.moved_to,
                    tell_new_address=section.tell_new_address,
                    catch_all=section.catch_all,
                    separator=section.separator,
                )
            )
        except PolicyError as error:
            problems.append(f'mailboxes."{address}": {error}')
    return tuple(boxes)


def _size_or_none(value: int | str | None) -> int | None:
    return None if value is None else when.parse_size(value)
