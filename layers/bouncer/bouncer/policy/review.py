"""What in a valid policy can hardly be meant: rules that never decide, bounces never sent."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from bouncer.address import split
from bouncer.guards import GuardName
from bouncer.headers import Header
from bouncer.mailboxes import MailboxState
from bouncer.message import InboundMessage, Verdicts
from bouncer.policy.conditions import MAILBOX_LIMIT, Conditions, Facts, listed, parse_size
from bouncer.policy.decide import Decision, Policy, decide, explained
from bouncer.policy.file import Action, RuleSection

# Every state but the two unknown ones is also known.
_EVERY_STATE = frozenset(MailboxState)
_KNOWN_STATES = _EVERY_STATE - {MailboxState.UNKNOWN, MailboxState.UNKNOWN_DOMAIN}

_GUARDED = {
    "virus": GuardName.VIRUS_FOUND,
    "spam": GuardName.SPAM_FOUND,
    "dmarc": GuardName.DMARC_FAILED,
    "spf": GuardName.SPF_FAILED,
}


def review(policy: Policy) -> list[str]:
    """Warnings, each with its rule; an empty list when nothing is odd."""
    places = {"rules": policy.shared} | {
        f'domains."{domain}".rules': rules for domain, rules in policy.by_domain.items()
    }
    found = []
    for place, rules in places.items():
        sections = [rule.section for rule in rules]
        for index, rule in enumerate(sections):
            found += [
                f'{place} "{rule.name}": {problem}'
                for problem in (
                    *_shadowed(rule, sections[:index]),
                    *_impossible(rule),
                    *_never_sent(rule, policy.file.guards.off),
                )
            ]
    return list(dict.fromkeys(found))


# --- Who must be reachable -------------------------------------------------------------------

_REACHABLE = ("postmaster", "abuse")


def unreachable(policy: Policy) -> list[str]:
    """Warnings for role addresses that the policy refuses where the directory lacks them.

    RFC 5321 §4.5.1 has every domain take mail for postmaster, RFC 2142 for abuse.
    """
    domains = {"rules": _ANY_DOMAIN} | {
        f'domains."{domain}".rules': domain for domain in policy.by_domain
    }
    return [
        f'{place} "{decided.reason}": refuses {role}@ where it is no mailbox: begin with a rule of '
        f'when.recipient = "{role}@*", action = "accept" (RFC 5321 section 4.5.1, RFC 2142)'
        for place, domain in domains.items()
        for role in _REACHABLE
        for decided in [_decided(policy, f"{role}@{domain}")]
        if not decided.delivered
    ]


_ANY_DOMAIN = "any.example"


def _decided(policy: Policy, recipient: str) -> Decision:
    """What becomes of an ordinary mail to an address that the directory lacks."""
    now = datetime.now(UTC)
    mail = InboundMessage(
        message_id="example",
        received_at=now,
        source="pat@sender.example",
        recipients=(recipient,),
        headers=(Header("Subject", "Hello"), Header("Message-ID", "<1@sender.example>")),
        verdicts=Verdicts(spam="PASS", virus="PASS", spf="PASS", dkim="PASS", dmarc="PASS"),
    )
    (decided,) = decide(policy, mail, [Facts(recipient=recipient, mailbox=None, now=now, size=9)])
    return decided


# --- What a sender reads ---------------------------------------------------------------------


class SampleText(msgspec.Struct, frozen=True, kw_only=True):
    """An explanation as an example's sender reads it."""

    place: str
    """The rule that it is of, such as `rules "too-large"`."""
    text: str
    transliterated: bool
    """Whether the policy has it in letters that a 7-bit DSN cannot hold."""


SAMPLE_VALUES: Mapping[str, str] = {
    "recipient": "alex@example.com",
    "domain": "example.com",
    "sender": "pat@sender.example",
    "subject": "Lunch on Friday",
    "message_id": "o3vrnil0e2ic28trm7dfhrc2v0clambda4nbp0g1",
    "received_at": "2026-11-21 09:00:00 UTC",
    "size": "31.4 MB",
    "limit": "25 MB",
    "quota": "1 GB",
    "used": "999.5 MB",
    "new_address": "alex@example.net",
}


def sample_texts(policy: Policy) -> list[SampleText]:
    """Each explanation of the policy, filled in with an example; a domain's only if its own."""
    samples: list[SampleText] = []
    shared = {_explanation(rule.section) for rule in policy.shared}
    for domain, rules in (("", policy.shared), *policy.by_domain.items()):
        values = dict(SAMPLE_VALUES)
        if domain:
            values |= {"domain": domain, "recipient": f"alex@{domain}"}
        for rule in rules:
            text = _explanation(rule.section)
            if not text or (domain and text in shared):
                continue
            place = f'domains."{domain}".rules' if domain else "rules"
            samples.append(
                SampleText(
                    place=f'{place} "{rule.section.name}"',
                    text=explained(text, values | {"rule": rule.section.name}),
                    transliterated=not text.isascii(),
                )
            )
    return samples


def _explanation(rule: RuleSection) -> str:
    bounces = rule.action in (Action.BOUNCE, Action.DEFER)
    return (rule.send_bounce.explanation or "") if bounces else ""


# --- Rules -----------------------------------------------------------------------------------


def _shadowed(rule: RuleSection, earlier: Sequence[RuleSection]) -> Iterator[str]:
    for other in earlier:
        if _covers(other, rule):
            yield (
                f'never decides: whatever it is for, "{other.name}" above has decided before; '
                "move it up"
            )
            return


def _covers(earlier: RuleSection, later: RuleSection) -> bool:
    """Whether the earlier rule holds wherever the later one does."""
    wanted = dict(later.when.given())
    refused = dict(later.unless.given())
    return all(
        _always(name, value) or (name in wanted and _implies(name, wanted[name], value))
        for name, value in earlier.when.given()
    ) and all(
        name in refused and _implies(name, value, refused[name])
        for name, value in earlier.unless.given()
    )


def _always(name: str, value: Any) -> bool:
    return name == "mailbox" and _states(value) == _EVERY_STATE


def _implies(name: str, narrow: Any, wide: Any) -> bool:
    """Whether a condition with the value `narrow` holds only where one with `wide` does."""
    match name:
        case "mailbox":
            return _states(narrow) <= _states(wide)
        case "larger_than":
            return all(_size_implies(each, listed(wide, name)) for each in listed(narrow, name))
        case "more_recipients_than":
            return bool(narrow >= wide)
        case "header":
            return all(h in narrow and _header_implies(narrow[h], wide[h]) for h in wide)
        case "recipient" | "sender":
            return all(_pattern_implies(each, listed(wide, name)) for each in listed(narrow, name))
        case _:
            return set(listed(narrow, name)) <= set(listed(wide, name))


def _states(value: Any) -> frozenset[str]:
    states = frozenset(listed(value, "mailbox"))
    return states | _KNOWN_STATES if MailboxState.KNOWN in states else states


def _size_implies(narrow: Any, wide: list[Any]) -> bool:
    if narrow == MAILBOX_LIMIT:
        return MAILBOX_LIMIT in wide
    return any(parse_size(narrow) >= parse_size(each) for each in wide if each != MAILBOX_LIMIT)


def _header_implies(narrow: Any, wide: Any) -> bool:
    if wide is True:
        return narrow is not False
    if isinstance(narrow, bool) or isinstance(wide, bool):
        return bool(narrow is wide)
    return set(listed(narrow, "header")) <= set(listed(wide, "header"))


def _pattern_implies(narrow: str, wide: list[str]) -> bool:
    local, domain = split(narrow.lower())
    patterns = {each.lower() for each in wide}
    # `.example.com` is another domain's pattern, and a glob may reach into several.
    plain = not set("*?") & set(domain) and not domain.startswith(".")
    return f"{local}@{domain}" in patterns or (plain and f"@{domain}" in patterns)


def _impossible(rule: RuleSection) -> Iterator[str]:
    wanted, refused = dict(rule.when.given()), dict(rule.unless.given())
    for name in wanted.keys() & refused.keys():
        if _implies(name, wanted[name], refused[name]):
            yield f"never decides: when.{name} holds only where unless.{name} forbids it"
    if _states_of(rule.when) == {MailboxState.UNKNOWN} and wanted.get("larger_than") in (
        MAILBOX_LIMIT,
        [MAILBOX_LIMIT],
    ):
        yield "never decides: an unknown mailbox has no limit of its own"
    if (
        "dmarc_policy" in wanted
        and "dmarc" in wanted
        and "FAIL" not in listed(wanted["dmarc"], "dmarc")
    ):
        yield "never decides: SES gives dmarc_policy only when dmarc is FAIL"


def _states_of(conditions: Conditions) -> set[str]:
    return set(listed(conditions.mailbox, "mailbox")) if conditions.mailbox is not None else set()


def _never_sent(rule: RuleSection, off: Sequence[GuardName]) -> Iterator[str]:
    if rule.action not in (Action.BOUNCE, Action.DEFER):
        return
    wanted = dict(rule.when.given())
    if listed(wanted.get("sender", [None]), "sender") == ["<>"]:
        yield "bounces nothing: a null sender is never answered"
    for name, guard in _GUARDED.items():
        if name in wanted and set(listed(wanted[name], name)) == {"FAIL"} and guard not in off:
            yield f"bounces nothing: the guard {guard.value} stops it; the mail is dropped"
