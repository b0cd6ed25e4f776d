"""Reading a policy: the file, checked, inherited, compiled; every mistake named with its mend."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bouncer.address import normalise_domain
from bouncer.delivery.bounce import (
    BounceType,
)
from bouncer.guards import MARKER
from bouncer.mailboxes import Mailbox, Status
from bouncer.policy import check
from bouncer.policy import conditions as when
from bouncer.policy.asking import compile_recipients
from bouncer.policy.conditions import PolicyError
from bouncer.policy.decide import Envelope, Outcome, Policy, Rule
from bouncer.policy.file import (
    Action,
    MailboxSection,
    MessageDsnSection,
    OneAnswerSection,
    Places,
    RuleSection,
    SendBounceSection,
    read,
)
from bouncer.policy.places import steps_of
from bouncer.text import VARIABLES, in_ascii


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
    shared = _rules(file.rules, file.send_bounce, file.one_answer, "rules", problems)
    problems += check.one_answer_problems(file.one_answer, file.rules)
    by_domain = {}
    for domain, section in file.domains.items():
        place = f'domains."{domain}".rules'
        unknown = section.rules.keys() - {rule.name for rule in file.rules}
        problems.extend(f'{place}."{name}": no shared rule has this name' for name in unknown)
        overridden = _overridden(raw["rules"], raw["domains"][domain].get("rules", {}))
        send_bounce = _layered(file.send_bounce, section.send_bounce)
        rules = _rules(overridden, send_bounce, file.one_answer, place, problems)
        by_domain[normalise_domain(domain)] = rules
        problems += check.one_answer_problems(file.one_answer, overridden)
    mailboxes = _static_mailboxes(file.mailboxes, raw.get("mailboxes"), problems)
    if problems:
        places = Places(text)
        placed = (
            f"{origin}{places.of(steps_of(each, raw))}: {each}" for each in dict.fromkeys(problems)
        )
        raise PolicyError("\n".join(placed))
    every_rule = [*shared, *(rule for of_domain in by_domain.values() for rule in of_domain)]
    return Policy(
        file=file,
        shared=shared,
        by_domain=by_domain,
        mailboxes=mailboxes,
        bounce_senders=frozenset(
            filter(None, (rule.envelope.bounce_sender for rule in every_rule))
        ),
        digest=hashlib.sha256(msgspec.json.encode(raw, enc_hook=str, order="sorted")).hexdigest()[
            :12
        ],
    )


def _rules(
    sections: Iterable[RuleSection],
    send_bounce: SendBounceSection,
    one_answer: OneAnswerSection | None,
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
                rules.append(_compile(_as_one_answer(section, send_bounce, one_answer)))
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


_OUTCOMES = {
    Action.ACCEPT: Outcome.ACCEPT,
    Action.DROP: Outcome.DROP,
    Action.BOUNCE: Outcome.BOUNCE,
    Action.DEFER: Outcome.BOUNCE,
}


def _as_one_answer(
    rule: RuleSection, send_bounce: SendBounceSection, answer: OneAnswerSection | None
) -> RuleSection:
    """The rule with nothing in its bounce by which it differs from another rule's."""
    if answer is None or rule.action not in (Action.BOUNCE, Action.DEFER):
        return rule
    return msgspec.structs.replace(
        rule,
        bounce_type=answer.bounce_type,
        recipient_dsn_fields=None,
        send_bounce=msgspec.structs.replace(send_bounce, explanation=answer.explanation),
    )


def _compile(section: RuleSection) -> Rule:
    fields = section.recipient_dsn_fields
    texts = (section.send_bounce.explanation or "", *(fields.texts().values() if fields else ()))
    tests = when.compile_mail_tests(section.when)
    refusals = when.compile_mail_tests(section.unless)
    asked = section.when.larger_than
    return Rule(
        section=section,
        envelope=_envelope(section.send_bounce),
        mail_tests=tests,
        mail_refusals=refusals,
        recipient_tests=when.compile_recipient_tests(section.when),
        recipient_refusals=when.compile_recipient_tests(section.unless),
        on_mail=(
            *((test, True) for test in tests.values()),
            *((test, False) for test in refusals.values()),
        ),
        on_recipients=compile_recipients(section.when, section.unless),
        outcome=_OUTCOMES[section.action],
        variables=frozenset(name for name in VARIABLES if any(f"{{{name}}}" in t for t in texts)),
        limits=when.size_limits(when.MAILBOX_LIMIT if asked is None else asked),
    )


def _envelope(section: SendBounceSection) -> Envelope:
    dsn = section.message_dsn or MessageDsnSection()
    own = {name: in_ascii(value) for name, value in (dsn.extension_fields or {}).items()}
    fields = {MARKER: "auto-generated", **own}
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
    sections: dict[str, MailboxSection] | None, raw: Mapping[str, Any] | None, problems: list[str]
) -> tuple[Mailbox, ...] | None:
    """The `[mailboxes]`, by the same checks as an import.

    Args:
        raw: the plain tables, which tell what a section names.
    """
    if sections is None or raw is None:
        return None
    boxes: dict[str, Mailbox] = {}
    for address, section in sections.items():
        try:
            boxes[address] = Mailbox(
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
        except PolicyError as error:
            problems.append(f'mailboxes."{address}": {error}')
    named = {address: frozenset(raw[address]) for address in boxes}
    problems.extend(check.mailboxes_problems(boxes, named))
    return tuple(boxes.values())


def _size_or_none(value: int | str | None) -> int | None:
    return None if value is None else when.parse_size(value)
