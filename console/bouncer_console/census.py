"""What a directory adds up to: how many entries of which kind, how full, and in which domains.

Pure, and of one size whatever the directory's: an entry is looked at once and forgotten.
"""

from collections import Counter
from datetime import datetime

import msgspec

from bouncer.address import domain_of
from bouncer.mailboxes import Mailbox
from bouncer_console.mailbox.oddities import oddities

STEPS = ("0", "10", "20", "30", "40", "50", "60", "70", "80", "90", "full")
"""Percent of a quota from which on a mailbox is counted there."""


class DomainShare(msgspec.Struct):
    """What a domain has."""

    entries: int = 0
    used_bytes: int = 0
    full: int = 0
    """Mailboxes without room."""
    disabled: int = 0


class Census(msgspec.Struct):
    """Counted so far."""

    now: datetime
    entries: int = 0
    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    """mailboxes, aliases, moved, domain entries; and, of any of them, disabled."""
    odd: int = 0
    """Entries in which something looks wrong, each looked at alone."""
    used_bytes: int = 0
    quota_bytes: int = 0
    """Of the entries' own quotas."""
    fullness: Counter[str] = msgspec.field(default_factory=Counter)
    """By the names of STEPS: mailboxes that have a quota of their own."""
    domains: dict[str, DomainShare] = msgspec.field(default_factory=dict)

    def add(self, box: Mailbox) -> None:
        self.entries += 1
        domain = domain_of(box.address)
        share = self.domains.get(domain)
        if share is None:
            share = self.domains[domain] = DomainShare()
        share.entries += 1
        self.kinds[_kind(box)] += 1
        if box.disabled(self.now):
            self.kinds["disabled"] += 1
            share.disabled += 1
        if any(oddities(box, self.now)):
            self.odd += 1
        used = max(box.used_bytes, 0)
        self.used_bytes += used
        share.used_bytes += used
        if box.quota_bytes and not box.address.startswith("@"):
            self.quota_bytes += box.quota_bytes
            step = STEPS[min(used * 10 // box.quota_bytes, 10)]
            self.fullness[step] += 1
            share.full += step == "full"

    def largest(self, number: int) -> list[tuple[str, DomainShare]]:
        """The domains with the most entries."""
        ranked = sorted(self.domains.items(), key=lambda each: (-each[1].entries, each[0]))
        return ranked[:number]


def _kind(box: Mailbox) -> str:
    if box.address.startswith("@"):
        return "domain entries"
    if box.moved_to:
        return "moved"
    return "aliases" if box.alias_for else "mailboxes"
