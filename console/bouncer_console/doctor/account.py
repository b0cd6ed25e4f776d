"""What the doctor looks at, as values; `reader` reads it.

Whatever cannot be read is an `Unread` with the reason, so that one missing permission costs one
answer and not all of them.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from bouncer.address import domain_of
from bouncer.mailboxes import Mailbox
from bouncer_console.deployment import Deployment
from bouncer_console.policy_in_force import InForce

DIRECTORY_LIMIT = 100_000
"""Entries of the directory that are looked at; a larger one is judged by its first."""


class Unread(msgspec.Struct, frozen=True):
    """It could not be read; `why` is AWS's or DNS's own word for it."""

    why: str


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """One deployed function, and its last 24 hours."""

    name: str
    architecture: str = ""
    layer_architectures: tuple[str, ...] = ()
    errors: float = 0
    throttles: float = 0
    reserved: int | None = None
    """Its reserved concurrency, if it has one."""


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    messages: int
    oldest_seconds: float | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt rule, as far as it matters to others."""

    name: str
    enabled: bool = False
    recipients: tuple[str, ...] = ()
    """Empty: it is for everyone."""
    actions: tuple[Mapping[str, Any], ...] = ()

    @property
    def stops(self) -> bool:
        """Whether it ends the rule set for the mail that it takes."""
        return any("StopAction" in each or "BounceAction" in each for each in self.actions)

    def action(self, kind: str) -> Mapping[str, Any] | None:
        found = (each[kind] for each in self.actions if kind in each)
        return next(found, None)


class StoredSample(msgspec.Struct, frozen=True, kw_only=True):
    """Some stored mails, and which of them no record tells of."""

    looked_at: int
    without_record: tuple[str, ...]
    outside_prefix: int = 0
    """Objects of the bucket whose key is not the deployed prefix and an id."""


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """SES's standing of the account in this Region."""

    production: bool
    enabled: bool
    enforcement: str
    daily_quota: float
    sent_today: float


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """Another stack of ours in this account and Region."""

    stack: str
    pace_table: str
    interval: float


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was read."""

    now: datetime
    region: str
    command_version: str
    bounce_sender: str | Unread
    rule_set: str | Unread
    deployment: Deployment | Unread
    stack_status: str | Unread
    stack_version: str | Unread
    sending: Sending | Unread
    after_rule: str
    """The rule that ours comes after; empty: none."""
    recipients: tuple[str, ...]
    """Addresses and domains that our rule is for; empty: everyone."""
    identities: Mapping[str, str] | Unread
    """Identity to its verification status, of those that could cover the bounce sender."""
    receiving: Mapping[str, str] | Unread
    """The same of those that could cover the recipients."""
    active_rule_set: str | Unread | None
    rules: tuple[Rule, ...] | Unread
    functions: Mapping[str, Function] | Unread
    may_invoke: bool | Unread
    """Whether the function's own policy lets SES invoke it from our rule."""
    may_store: bool | Unread
    may_publish: bool | Unread
    concurrency_left: int | Unread
    queues: Mapping[str, Queue] | Unread
    """By the name of the stack's output."""
    next_slot: float | Unread | None
    """Epoch seconds; None when no bounce was ever sent."""
    neighbours: tuple[Neighbour, ...] | Unread
    """Other stacks that call the same SES."""
    clock_ahead: float | Unread
    """Seconds by which this machine's clock is ahead of DynamoDB's."""
    would_refuse: float | Unread
    """Recipients of the last 24 hours whose mail was only said to be refused."""
    alarms: Mapping[str, str] | Unread
    """Alarm to its state."""
    silent_alarms: tuple[str, ...] | Unread
    """Alarms that tell nobody."""
    directory: tuple[Mailbox, ...] | Unread
    policy: InForce | Unread = Unread("not read yet")
    unreadable: tuple[str, ...] = ()
    """Addresses whose item cannot be read."""
    mx: Mapping[str, tuple[str, ...] | Unread] = {}
    """Domain to its mail exchangers."""
    dmarc: Mapping[str, str] | Unread = Unread("not asked")
    """The DMARC record that governs the bounce sender's domain, tag to value; empty: none."""
    sample: StoredSample | Unread = Unread("not asked")
    kept: tuple[str, ...] | Unread = ()
    """Tables and buckets of an earlier stack of this name that nobody uses."""


def with_parents(domain: str) -> list[str]:
    """A domain, and those above it but for the last label's."""
    labels = domain.split(".")
    return [".".join(labels[n:]) for n in range(len(labels) - 1)]


def domain_named(recipient: str) -> str:
    """The domain of what a receipt rule is for: an address, a domain, or the dot before one."""
    return recipient.rpartition("@")[2].lstrip(".").lower()


def own_domains(account: Account) -> frozenset[str]:
    """The domains that mail is received for: the directory's, and those that the rule names."""
    boxes = () if isinstance(account.directory, Unread) else account.directory
    found = {domain_of(box.address) for box in boxes}
    rule = our_rule(account)
    if rule is not None:
        found |= {domain_named(each) for each in rule.recipients}
    return frozenset(domain for domain in found if domain)


def our_rule(account: Account) -> Rule | None:
    """The receipt rule that the stack names, if it is there."""
    if isinstance(account.rules, Unread) or isinstance(account.deployment, Unread):
        return None
    name = account.deployment.outputs.get("ReceiptRule")
    return next((rule for rule in account.rules if rule.name == name), None)
