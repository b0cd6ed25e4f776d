"""Which recipients SES's receipt rules have to name, so that SES itself refuses the others.

Where the enabled rules of the active set list addresses, SES answers 550 5.1.1 at RCPT TO for
any other: no mail, no bounce. Pure: the difference is a value; aws/receipt_rules.py applies it.
"""

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from bouncer.address import domain_of, normalise
from bouncer.mailboxes import DEFAULT_SEPARATOR, Mailbox

RECIPIENTS_A_RULE = 500
RULES_A_SET = 200
"""SES's quotas: https://docs.aws.amazon.com/ses/latest/dg/quotas.html"""


class SyncError(Exception):
    """The directory cannot be projected onto rules; the text says why, and what then holds."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The recipients that the rules have to name."""

    recipients: frozenset[str]
    whole_domains: tuple[str, ...]
    """Domains named as a whole: SES takes every address there, and the bouncer answers."""


class RuleChange(msgspec.Struct, frozen=True, kw_only=True):
    """What has to happen to one rule."""

    name: str
    after: str | None
    """For a new rule: the one it follows."""
    recipients: tuple[str, ...]
    """All of them, as they have to be; none deletes the rule."""
    added: tuple[str, ...]
    removed: tuple[str, ...]
    new: bool = False
    narrows: bool = False
    """It was for everyone: whoever no rule names is refused from now on."""
    settings: bool = False
    """A copy whose actions, scan or TLS settings are no longer the stack's."""


def wanted(mailboxes: Iterable[Mailbox], domains: Collection[str] = ()) -> Wanted:
    """What the directory's entries need of SES.

    Args:
        domains: domains that the directory speaks for without an `@domain` entry.

    A disabled or moved mailbox stays named: its sender is told more by the bouncer than by a
    bare "unknown". A domain with a catch-all, or with a tag separator that SES does not know,
    can only be named as a whole; so can one that the directory does not speak for, where
    addresses that it lacks may exist. Keys that no mail finds are left out.
    """
    entries = [each for each in mailboxes if each.address == normalise(each.address)]
    defaults = {each.address[1:]: each for each in entries if each.address.startswith("@")}
    listed = [each.address for each in entries if not each.address.startswith("@")]
    whole = {
        domain
        for domain, its in defaults.items()
        if its.catch_all or its.separator not in (DEFAULT_SEPARATOR, "")
    } | {domain_of(each) for each in listed} - {*defaults, *domains}
    single = {each for each in listed if domain_of(each) not in whole}
    return Wanted(recipients=frozenset(single | whole), whole_domains=tuple(sorted(whole)))


def rule_name(base: str, number: int) -> str:
    """The name of the n-th rule of ours; the first has the base name itself."""
    return base if number == 1 else f"{base}-{number:03d}"


def is_ours(base: str, name: str) -> bool:
    return name == base or re.fullmatch(rf"{re.escape(base)}-[0-9]{{3}}", name) is not None


def changes(
    rules: Mapping[str, Sequence[str]],
    base: str,
    recipients: frozenset[str],
    others: int,
    stale: frozenset[str] = frozenset(),
) -> list[RuleChange]:
    """The smallest set of rule changes: what is named already stays where it is.

    In this order nobody who is in the directory is refused on the way, wherever it is
    interrupted: what adds comes first, what removes after it, and a rule that was for everyone
    is narrowed last.

    Args:
        rules: our rules as they are, name to recipients, in order; at least the base rule.
        base: the name of the rule that the others are copies of.
        others: how many rules of the set are not ours.
        stale: our copies that differ from the base rule in more than their recipients.

    Raises:
        SyncError: it does not fit into SES's quotas, or there is nothing to name.
    """
    if not recipients:
        raise SyncError(
            "the directory is empty, and a rule without recipients would take mail for everyone: "
            "add mailboxes first"
        )
    room = (RULES_A_SET - others) * RECIPIENTS_A_RULE
    if len(recipients) > room:
        raise SyncError(
            f"{len(recipients)} addresses do not fit: SES takes {RECIPIENTS_A_RULE} a rule and "
            f"{RULES_A_SET} rules a set, {room} beside your own rules. The rules stay as they "
            "are; unknown addresses are answered by the bouncer, one a second"
        )
    kept = {name: [r for r in its if r in recipients] for name, its in rules.items()}
    placed = set(itertools.chain.from_iterable(kept.values()))
    missing = sorted(recipients - placed)
    for its in kept.values():
        room = RECIPIENTS_A_RULE - len(its)
        its.extend(missing[:room])
        missing = missing[room:]
    if not kept[base]:  # it must name someone, or it takes mail for everyone
        donor = next(name for name, its in reversed(kept.items()) if its)
        kept[base], kept[donor] = kept[donor], []
    numbers = itertools.count(1)
    for chunk in itertools.batched(missing, RECIPIENTS_A_RULE, strict=False):
        name = next(n for n in (rule_name(base, i) for i in numbers) if n not in kept)
        kept[name] = list(chunk)
    return _differences(rules, kept, stale)


def _differences(
    rules: Mapping[str, Sequence[str]], kept: Mapping[str, list[str]], stale: frozenset[str]
) -> list[RuleChange]:
    found = []
    previous: str | None = None
    for name, recipients in kept.items():
        before = set(rules.get(name, ()))
        after = set(recipients)
        settings = name in stale and bool(after)
        if before != after or settings:
            found.append(
                RuleChange(
                    name=name,
                    after=previous,
                    recipients=tuple(sorted(after)),
                    added=tuple(sorted(after - before)),
                    removed=tuple(sorted(before - after)),
                    new=name not in rules,
                    narrows=name in rules and not before,
                    settings=settings,
                )
            )
        if recipients:
            previous = name
    return sorted(found, key=lambda change: (change.narrows, bool(change.removed)))
