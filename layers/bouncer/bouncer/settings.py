"""What the functions are told by their environment; the template sets every name of it."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self

import msgspec

from bouncer import timing
from bouncer.address import normalise_domain
from bouncer.delivery.calls import Terms
from bouncer.inbound import LateBounces
from bouncer.limiter import Pace
from bouncer.plan import Disposition
from bouncer.policy.file import Mode

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Margin = Annotated[float, msgspec.Meta(ge=timing.LEAST_WINDOW_MARGIN)]


class SettingsError(ValueError):
    """The environment is incomplete or wrong; the text names the variable."""


class UsageMode(StrEnum):
    """Who keeps the mailboxes' usage."""

    EXTERNAL = "external"
    MANAGED = "managed"


class LogAddresses(StrEnum):
    """How mail addresses, which are personal data, stand in the log."""

    FULL = "full"
    HASH = "hash"
    NONE = "none"


class _Environment(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """Variables by their names in lower case."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """
        Raises:
            SettingsError: a variable is missing or has a value of the wrong kind.
        """
        # The template passes an unused optional parameter as "": that is "not set".
        given = {name: value for name, value in environment.items() if value}
        try:
            return msgspec.convert(given, cls, strict=False)
        except msgspec.ValidationError as error:
            raise SettingsError(f"environment: {error}; the template sets it") from error


class PaceSettings(_Environment, frozen=True, kw_only=True, rename="upper"):
    """What everybody needs who calls SES."""

    pace_table: str
    """The table whose limiter paces the calls: this stack's own, or another one's."""
    send_interval_seconds: Annotated[float, msgspec.Meta(gt=0)] = 1.0

    @property
    def pace(self) -> Pace:
        return Pace(interval=self.send_interval_seconds)


class Settings(PaceSettings, frozen=True, kw_only=True, rename="upper"):
    """What both functions that send need."""

    bounce_table: str
    bounce_queue_url: str
    wait_budget_seconds: Seconds = 3.0
    window_margin_seconds: Margin = 300.0
    ledger_retention_days: Annotated[int, msgspec.Meta(ge=3)] = 14
    log_addresses: LogAddresses = LogAddresses.FULL

    @property
    def terms(self) -> Terms:
        return Terms(
            wait_budget=self.wait_budget_seconds,
            window_margin=timedelta(seconds=self.window_margin_seconds),
            penalty=2 * self.send_interval_seconds,
        )

    @property
    def ledger_retention(self) -> timedelta:
        return timedelta(days=self.ledger_retention_days)


class StopScope(StrEnum):
    """How far refused mail stops."""

    RULE = "rule"
    """This rule, which was for the refused recipients only."""
    RULE_SET = "rule-set"
    """All rules; true only of a rule that takes mail for every recipient."""

    @property
    def disposition(self) -> Disposition:
        whole = self is StopScope.RULE_SET
        return Disposition.STOP_RULE_SET if whole else Disposition.STOP_RULE


class SendSettings(Settings, frozen=True, kw_only=True, rename="upper"):
    """For the queue's worker."""

    bounce_dead_letter_queue_url: str
    bounce_queue_max_receives: Annotated[int, msgspec.Meta(ge=1)]
    """After so many tries the queue gives a message up (its RedrivePolicy)."""


class DecidingSettings(Settings, frozen=True, kw_only=True, rename="upper"):
    """What both functions that decide need."""

    aws_region: str
    bounce_sender: str
    mode: Mode = Mode.OBSERVE
    mailbox_table: str
    mailbox_attributes: str = ""
    """`field=attribute` pairs, comma-separated, where the user's table has other names."""
    mailbox_domains: str = ""
    """Domains, comma-separated, that the user's table speaks for without `@domain` entries."""
    usage: UsageMode = UsageMode.EXTERNAL
    mail_bucket: str = ""
    mail_prefix: str = ""
    policy_application: str = ""
    policy_environment: str = ""
    policy_profile: str = ""


class InboundSettings(DecidingSettings, frozen=True, kw_only=True, rename="upper"):
    """For the function that the receipt rule calls."""

    event_dead_letter_queue_url: str
    refused_mail_stops: StopScope = StopScope.RULE
    mark_refused_mail: bool = False
    """Whether the stored copy of a refused mail gets the tag by which it expires."""


class AuditSettings(DecidingSettings, frozen=True, kw_only=True, rename="upper"):
    """For the function that handles what the receipt rule's function has missed."""

    late_bounces: LateBounces = LateBounces.UNKNOWN


def attribute_names(pairs: str) -> dict[str, str]:
    """`field=attribute` pairs, comma-separated, as the stack's MailboxAttributes has them."""
    split = (pair.partition("=") for pair in pairs.split(",") if pair.strip())
    return {field.strip(): name.strip() for field, _, name in split if name.strip()}


def domain_names(names: str) -> frozenset[str]:
    """Domains, comma-separated, as the stack's MailboxDomains has them."""
    return frozenset(normalise_domain(each) for each in names.split(",") if each.strip())


def stored_prefix(prefix: str) -> str:
    """What stands before a message id in the key of a stored mail.

    Recorded of SES: it puts the slash in where the rule's prefix lacks one.
    """
    return f"{prefix}/" if prefix and not prefix.endswith("/") else prefix


class UsageSettings(_Environment, frozen=True, kw_only=True, rename="upper"):
    """For the function that hears of deleted mail."""

    bounce_table: str
    mailbox_table: str
    mail_prefix: str = ""
    ledger_retention_days: Annotated[int, msgspec.Meta(ge=3)] = 14
    log_addresses: LogAddresses = LogAddresses.FULL

    @property
    def ledger_retention(self) -> timedelta:
        return timedelta(days=self.ledger_retention_days)


class RulesSettings(PaceSettings, frozen=True, kw_only=True, rename="upper"):
    """For the function that keeps the receipt rules in step with the directory."""

    mailbox_table: str
    mailbox_attributes: str = ""
    mailbox_domains: str = ""
    receipt_rule_set: str
    receipt_rule: str
    log_addresses: LogAddresses = LogAddresses.FULL
