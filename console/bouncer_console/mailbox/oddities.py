"""What looks wrong in a directory: mistakes, which no mail survives, and warnings."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import batched
from typing import Literal

import msgspec

from bouncer.address import normalise
from bouncer.mailboxes import (
    DEFAULT_SEPARATOR,
    Mailbox,
    Status,
    address_problems,
    candidates,
    domain_entry,
    domain_key_of,
    limits_of_alias,
    resolve,
    target_problems,
)

_TARGETS_A_READ = 50
Kind = Literal["mistake", "warning"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that looks wrong."""

    kind: Kind
    address: str
    problem: str


def oddities(mailbox: Mailbox, now: datetime) -> Iterator[Finding]:
    """What looks wrong in an entry that is looked at alone."""
    address = mailbox.address
    for problem in address_problems(address):
        yield Finding("mistake", address, problem)
    if address != normalise(address):
        yield Finding(
            "mistake", address, f"no mail ever finds it: its key has to be {normalise(address)}"
        )
    for problem in limits_of_alias(mailbox):
        yield Finding("warning", address, problem)
    until = mailbox.status_until
    if until is not None and mailbox.status is Status.ACTIVE:
        yield Finding("warning", address, "status_until does nothing with the status active")
    elif until is not None and not mailbox.disabled(now):
        yield Finding(
            "warning",
            address,
            f"status_until {until} has passed: it takes mail; `bouncer mailbox enable` clears it",
        )
    if mailbox.tell_new_address and not mailbox.moved_to:
        yield Finding("warning", address, "tell_new_address does nothing without moved_to")
    if mailbox.used_bytes < 0:
        yield Finding("warning", address, "used_bytes is negative: see `bouncer mailbox recount`")
    if not address.startswith("@") and (
        not mailbox.catch_all or mailbox.separator != DEFAULT_SEPARATOR
    ):
        yield Finding("warning", address, "catch_all and separator are for @domain entries only")


def findings(
    mailboxes: Iterable[Mailbox],
    now: datetime,
    *,
    look_up: Callable[[Sequence[str]], Mapping[str, Mailbox]] | None = None,
    domains: Collection[str] = (),
    imported: bool = False,
) -> list[Finding]:
    """What looks wrong in all of them, each by itself and together.

    Args:
        look_up: reads entries by their keys; without it, all of `mailboxes` are kept.
        domains: domains that the directory speaks for without an `@domain` entry.
        imported: whether an import is still to make the `@domain` entries.
    """
    found: list[Finding] = []
    defaults: dict[str, Mailbox] = {}
    occurring: set[str] = set()
    postmasters: set[str] = set()
    leading: list[Mailbox] = []
    kept: dict[str, Mailbox] = {}
    for each in mailboxes:
        found += oddities(each, now)
        key = domain_key_of(each.address)
        occurring.add(key)
        if each.address.startswith("@"):
            defaults[each.address] = each
        elif each.address.startswith("postmaster@"):
            postmasters.add(key)
        if each.alias_for or each.moved_to:
            leading.append(each)
        if look_up is None:
            kept[each.address] = each
    if imported:
        defaults = {key: domain_entry(key) for key in occurring} | defaults
    found += _of_domains(occurring, defaults, postmasters, domains)
    for some in batched(leading, _TARGETS_A_READ, strict=False):
        found += _of_targets(some, look_up or _among(kept), defaults, domains)
    return found


def _among(kept: Mapping[str, Mailbox]) -> Callable[[Sequence[str]], Mapping[str, Mailbox]]:
    return lambda keys: {key: kept[key] for key in keys if key in kept}


def _of_domains(
    occurring: set[str],
    defaults: Mapping[str, Mailbox],
    postmasters: set[str],
    domains: Collection[str],
) -> Iterator[Finding]:
    for key in sorted(occurring - {"@"}):
        if key not in defaults and key[1:] not in domains:
            yield Finding(
                "warning",
                key,
                "the directory has addresses of the domain and no entry for it, so nobody is "
                "unknown there. If it has all of them: "
                f"bouncer mailbox add {key} --no-catch-all --domain",
            )
        caught = key in defaults and defaults[key].catch_all
        if key not in postmasters and not caught:
            yield Finding(
                "warning",
                key,
                f"postmaster{key} is missing (RFC 5321 §4.5.1): add it, or an alias",
            )


def _of_targets(
    leading: Sequence[Mailbox],
    look_up: Callable[[Sequence[str]], Mapping[str, Mailbox]],
    defaults: Mapping[str, Mailbox],
    domains: Collection[str],
) -> Iterator[Finding]:
    targets = [to for each in leading for to in (each.alias_for, each.moved_to) if to]
    keys = [key for each in targets for key in candidates(each)]
    entries = {**{key: defaults[key] for key in keys if key in defaults}, **look_up(keys)}
    for each in leading:
        nowhere = list(target_problems(each, entries, domains))
        for problem in nowhere:
            yield Finding("mistake", each.address, problem)
        taker = resolve(each.alias_for, entries) if each.alias_for else None
        if taker is not None and taker.alias_for and not nowhere:
            yield Finding(
                "warning",
                each.address,
                f"{taker.address} is an alias itself, and only one step is followed: "
                f"write alias_for {taker.alias_for}",
            )
