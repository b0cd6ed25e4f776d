"""What can be wrong in a policy although every value has the right type."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from bouncer.address import is_deliverable, is_domain, normalise, normalise_domain
from bouncer.delivery.bounce import (
    EXPLANATION_LIMIT,
    BounceError,
    BounceType,
    DsnAction,
    check_arn,
    check_extension,
    check_typed,
)
from bouncer.guards import MARKER, NOT_CONFIGURABLE, GuardName, OtherReason
from bouncer.mailboxes import (
    Mailbox,
    as_imported,
    entry_problems,
    limits_of_alias,
    target_problems,
    unsaid_catch_all,
)
from bouncer.policy.file import (
    Action,
    GuardsSection,
    MessageDsnSection,
    OneAnswerSection,
    RecipientDsnSection,
    RuleSection,
    SendBounceSection,
)
from bouncer.text import VARIABLES, TextError, check_template, in_ascii

_RESERVED = frozenset([*GuardName, *OtherReason])


def rules_problems(rules: Iterable[RuleSection]) -> Iterator[tuple[int, str]]:
    """What is wrong in a list of rules, each with the index of its rule.

    Args:
        rules: with the parameters that they inherit already laid under their own.
    """
    names: set[str] = set()
    last: tuple[int, RuleSection] | None = None
    for_everyone: RuleSection | None = None
    for index, rule in enumerate(rules):
        if rule.name in names:
            yield index, "another rule has this name; reason codes are unique"
        if rule.name in _RESERVED:
            yield index, "the name is the code of a guard; choose another"
        names.add(rule.name)
        if rule.enabled:
            last = index, rule
            yield from ((index, problem) for problem in _rule_problems(rule))
            if not _conditions(rule):
                for_everyone = for_everyone or rule
    if last is not None and for_everyone is not None and _conditions(last[1]):
        yield (
            last[0],
            f'never decides: "{for_everyone.name}" above has no conditions; '
            "move this rule up, above it",
        )
    elif for_everyone is None:
        yield (
            last[0] if last else 0,
            "the last rule must have no conditions, so that every recipient is decided: "
            'end with name = "accept", action = "accept"',
        )


def _conditions(rule: RuleSection) -> bool:
    return any(rule.when.given()) or any(rule.unless.given())


def _rule_problems(rule: RuleSection) -> Iterator[str]:
    if rule.action in (Action.BOUNCE, Action.DEFER):
        yield from _outcome_problems(rule)
        yield from _text_problems("explanation", rule.send_bounce.explanation, lines=True)
        if len(in_ascii(rule.send_bounce.explanation or "")) > EXPLANATION_LIMIT:
            yield f"explanation has over {EXPLANATION_LIMIT} characters: shorten it"
        if rule.recipient_dsn_fields is not None:
            yield from _dsn_problems(rule.recipient_dsn_fields)
            told = rule.recipient_dsn_fields.action
            if told not in (DsnAction.FAILED, DsnAction.DELAYED) and not rule.keep:
                yield f"a DSN that says {told.value!r} is for mail that does not stop: keep = true"
        if rule.recipient_arn is not None:
            yield from _arn_problems("recipient_arn", rule.recipient_arn)
        yield from _send_bounce_problems(rule.send_bounce)
        return
    for name in ("bounce_type", "recipient_dsn_fields", "recipient_arn", "explanation"):
        if getattr(rule, name) is not None:
            yield f"{name} goes with action 'bounce' or 'defer', not with {rule.action.value!r}"
    if rule.keep:
        yield f"keep goes with a bounce, not with {rule.action.value!r}"


def _outcome_problems(rule: RuleSection) -> Iterator[str]:
    fields = rule.recipient_dsn_fields
    if rule.bounce_type is not None and fields is not None:
        yield "give bounce_type or recipient_dsn_fields, not both: SES does not say which wins"
    if rule.bounce_type is None and fields is None:
        yield f"say what it bounces as: bounce_type = one of {', '.join(BounceType)}"
    if rule.action is Action.DEFER and (
        rule.bounce_type not in (None, BounceType.TEMPORARY_FAILURE)
        or (fields is not None and not fields.status.startswith("4"))
    ):
        yield "defer is temporary: bounce_type 'TemporaryFailure' or a 4.x.x status"


def _text_problems(place: str, text: str | None, *, lines: bool = False) -> Iterator[str]:
    try:
        check_template(text or "", lines=lines)
    except TextError as error:
        yield f"{place}: {error}"


def _dsn_problems(fields: RecipientDsnSection) -> Iterator[str]:
    problems = [
        problem
        for place, text in fields.texts().items()
        for problem in _text_problems(f"recipient_dsn_fields.{place}", text)
    ]
    yield from problems
    if problems:
        return  # they cannot be filled
    try:
        for name, text in fields.extension_fields.items():
            check_extension(name, in_ascii(text))
        fields.filled({}, datetime.now(UTC)).check()
    except BounceError as error:
        yield f"recipient_dsn_fields: {error}"


def _arn_problems(place: str, arn: str) -> Iterator[str]:
    try:
        check_arn(place, arn)
    except BounceError as error:
        yield str(error)


def _send_bounce_problems(section: SendBounceSection) -> Iterator[str]:
    if section.bounce_sender is not None and not is_deliverable(section.bounce_sender):
        yield f"send_bounce.bounce_sender {section.bounce_sender!r}: write an address"
    if section.bounce_sender_arn is not None:
        yield from _arn_problems("send_bounce.bounce_sender_arn", section.bounce_sender_arn)
    dsn = section.message_dsn or MessageDsnSection()
    try:
        if dsn.reporting_mta is not None:
            check_typed("reporting_mta", dsn.reporting_mta)
        for name, value in (dsn.extension_fields or {}).items():
            check_extension(name, in_ascii(value))
            if name.lower() == MARKER.lower():
                yield f"send_bounce.message_dsn: {name} is set in every bounce already: remove it"
    except BounceError as error:
        yield f"send_bounce.message_dsn: {error}"
    texts = {"reporting_mta": dsn.reporting_mta or "", **(dsn.extension_fields or {})}
    for place, text in texts.items():
        if any(f"{{{name}}}" in text for name in VARIABLES):
            yield (
                f"send_bounce.message_dsn: {place} is about the whole message and takes no "
                "variables: put them into recipient_dsn_fields"
            )


def domains_problems(sections: Iterable[str]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for domain in sections:
        if not is_domain(domain):
            yield f'domains."{domain}": write a domain, as in domains."example.com"'
        other = seen.setdefault(normalise_domain(domain), domain)
        if other != domain:
            yield f'domains."{domain}" is the same domain as "{other}": write both as one'


def guards_problems(section: GuardsSection) -> Iterator[str]:
    for domain in section.own_domains:
        if not is_domain(domain):
            yield f"guards.own_domains: {domain!r} is no domain: write it as in 'example.com'"
    for name in section.off:
        if name in NOT_CONFIGURABLE:
            yield f"guards.off: {name.value!r} cannot be switched off"


_SAME_FOR_EVERY_STATE = frozenset(
    {"recipient", "domain", "sender", "subject", "message_id", "received_at"}
)


def one_answer_problems(
    section: OneAnswerSection | None, rules: Iterable[RuleSection]
) -> Iterator[str]:
    """What would tell the states of mailboxes apart although one answer is asked for."""
    if section is None:
        return
    for problem in _text_problems("explanation", section.explanation, lines=True):
        yield f"one_answer: {problem}"
    if len(in_ascii(section.explanation)) > EXPLANATION_LIMIT:
        yield f"one_answer: explanation has over {EXPLANATION_LIMIT} characters: shorten it"
    for name in VARIABLES:
        if f"{{{name}}}" in section.explanation and name not in _SAME_FOR_EVERY_STATE:
            yield f"one_answer: {{{name}}} tells the mailboxes' states apart: leave it out"
    for rule in rules:
        if rule.enabled and rule.keep:
            yield (
                f'one_answer: "{rule.name}" bounces and lets the mail go on (keep), which only a '
                "mailbox that exists does: leave keep out, or one_answer"
            )


def mailboxes_problems(
    boxes: Mapping[str, Mailbox], named: Mapping[str, frozenset[str]]
) -> Iterator[str]:
    """What an import would refuse, and a second spelling of an address.

    Args:
        boxes: by their addresses as they are written.
        named: the fields that each of them names, as the policy calls them.
    """
    entries = as_imported(boxes.values())
    seen: dict[str, str] = {}
    for address, box in boxes.items():
        other = seen.setdefault(normalise(address), address)
        if other != address:
            yield f'mailboxes."{address}" is the same address as "{other}": keep one of the two'
        fields = {_FIELD_NAMES.get(name, name) for name in named[address]}
        alone = list(entry_problems(box))
        together = () if alone else target_problems(box, entries)
        for problem in (*alone, *unsaid_catch_all(box, fields), *limits_of_alias(box), *together):
            yield f'mailboxes."{address}": {_in_the_policys_words(problem)}'


_FIELD_NAMES = {"quota": "quota_bytes", "size_limit": "size_limit_bytes"}
"""A section's names of a mailbox's fields, where sizes have units."""


def _in_the_policys_words(problem: str) -> str:
    for ours, field in _FIELD_NAMES.items():
        problem = problem.replace(field, ours)
    return problem.replace("leave it empty", "leave it out")
