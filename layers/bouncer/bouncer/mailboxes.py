"""The mailbox directory: which addresses exist, and what each may hold.

How an address is found: itself, then without its tag, then the domain's catch-all entry.
The item format is documented in docs/mailboxes.md, so that any system can write it.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

import msgspec

from bouncer.address import is_deliverable, is_domain, normalise, split

Separator = Literal["+", "-", ""]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]

DEFAULT_SEPARATOR: Separator = "+"
_SEPARATORS: tuple[Separator, ...] = ("+", "-")


class Status(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


class MailboxState(StrEnum):
    """What a policy can ask of a recipient's mailbox."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CATCH_ALL = "catch-all"
    DISABLED = "disabled"
    MOVED = "moved"
    FULL = "full"


class Mailbox(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of the directory: an address, or `@domain` for a domain's defaults."""

    address: str
    status: Status = Status.ACTIVE
    status_until: datetime | None = None
    """A status other than active ends here; None: it stays."""
    quota_bytes: NotNegative | None = None
    used_bytes: int = 0
    quota_messages_per_day: NotNegative | None = None
    messages_day: str = ""
    """The UTC day (YYYY-MM-DD) that `messages_today` counts."""
    messages_today: int = 0
    size_limit_bytes: NotNegative | None = None
    alias_for: str | None = None
    """The address whose mailbox takes the mail; one step, an alias of an alias is not followed."""
    moved_to: str | None = None
    tell_new_address: bool = False
    """Whether a sender may be told `moved_to`."""

    # Only in an `@domain` entry
    catch_all: bool = True
    separator: Separator = DEFAULT_SEPARATOR
    """What begins a tag, as in user+tag@domain; "" turns tags off for the domain."""

    def disabled(self, now: datetime) -> bool:
        ended = self.status_until is not None and _aware(self.status_until) <= now
        return self.status is Status.DISABLED and not ended

    def over_daily_quota(self, now: datetime) -> bool:
        if self.quota_messages_per_day is None:
            return False
        today = self.messages_day == counting_day(self.messages_day, now)
        return (self.messages_today if today else 0) >= self.quota_messages_per_day

    def full(self) -> bool:
        return self.quota_bytes is not None and self.used_bytes >= self.quota_bytes

    def without_room(self, size: int) -> bool:
        return self.quota_bytes is not None and self.used_bytes + size > self.quota_bytes


def utc_day(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%d")


def counting_day(messages_day: str, now: datetime) -> str:
    """The day that a mail counts into: today's, or the next where another saw midnight first."""
    tomorrow = utc_day(now + timedelta(days=1))
    return tomorrow if messages_day == tomorrow else utc_day(now)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Directory(Protocol):
    """Where mailboxes are looked up."""

    def look_up(self, recipients: Iterable[str]) -> Mapping[str, Mailbox | None]:
        """The mailbox of each recipient, None for one that does not exist."""
        ...


def candidates(recipient: str) -> tuple[str, ...]:
    """The keys that may answer for a recipient, the nearest first.

    Both separators are asked for at once, so that one read settles every domain's own.
    """
    address = normalise(recipient)
    local, domain = split(address)
    keys = [address]
    for separator in _SEPARATORS:
        base, found, _ = local.partition(separator)
        if found and base:
            keys.append(f"{base}@{domain}")
    return (*dict.fromkeys(keys), f"@{domain}")


def resolve(recipient: str, entries: Mapping[str, Mailbox]) -> Mailbox | None:
    """The mailbox that answers for a recipient, with what it inherits from its domain's entry."""
    address = normalise(recipient)
    local, domain = split(address)
    defaults = entries.get(f"@{domain}")
    separator = defaults.separator if defaults else DEFAULT_SEPARATOR
    base, tagged, _ = local.partition(separator) if separator else (local, "", "")
    untagged = f"{base}@{domain}" if tagged and base else address
    mailbox = entries.get(address) or entries.get(untagged)
    if mailbox is None:
        return defaults if defaults is not None and defaults.catch_all else None
    if defaults is None:
        return mailbox
    return msgspec.structs.replace(
        mailbox,
        quota_bytes=_first(mailbox.quota_bytes, defaults.quota_bytes),
        quota_messages_per_day=_first(
            mailbox.quota_messages_per_day, defaults.quota_messages_per_day
        ),
        size_limit_bytes=_first(mailbox.size_limit_bytes, defaults.size_limit_bytes),
    )


def _first(own: int | None, inherited: int | None) -> int | None:
    return inherited if own is None else own


class StaticDirectory:
    """A directory held in memory: the `[mailboxes]` of a policy, or a file for `explain`."""

    def __init__(self, entries: Iterable[Mailbox]) -> None:
        self._entries = {normalise(each.address): each for each in entries}

    def look_up(self, recipients: Iterable[str]) -> dict[str, Mailbox | None]:
        return {
            each: follow_alias(resolve(each, self._entries), self._entries) for each in recipients
        }


def follow_alias(mailbox: Mailbox | None, entries: Mapping[str, Mailbox]) -> Mailbox | None:
    """The mailbox that an alias stands for; a disabled or moved alias answers for itself.

    An alias whose target has no entry is kept: it may lead outside of this directory.
    """
    if mailbox is None or not mailbox.alias_for:
        return mailbox
    if mailbox.status is not Status.ACTIVE or mailbox.moved_to:
        return mailbox
    return resolve(mailbox.alias_for, entries) or mailbox


class EntryError(ValueError):
    """An entry that nobody can mean; the text says what and how to mend it."""


def check_entry(mailbox: Mailbox) -> None:
    """Refuse an entry that no mail would ever find, or that leads nowhere.

    Raises:
        EntryError: one of its addresses is none.
    """
    local, domain = split(mailbox.address)
    if not (is_deliverable(normalise(mailbox.address)) if local and domain else is_domain(domain)):
        raise EntryError(f"address {mailbox.address!r}: write user@domain, or @domain")
    for field in ("alias_for", "moved_to"):
        target = getattr(mailbox, field)
        if target is None:
            continue
        if not is_deliverable(normalise(target)):
            raise EntryError(f"{field} {target!r}: write user@domain")
        if normalise(target) == normalise(mailbox.address):
            raise EntryError(f"{field} {target!r} is the address itself")


def from_fields(fields: Mapping[str, Any]) -> Mailbox:
    """A mailbox from its fields by name, as a file or a table has them.

    Raises:
        msgspec.ValidationError: a value has the wrong type; the text names the field.
    """
    until = fields.get("status_until")
    if isinstance(until, str) and _DATE.fullmatch(until):
        fields = {**fields, "status_until": f"{until}T00:00:00Z"}
    return msgspec.convert(fields, Mailbox, strict=False)


_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def from_item(item: Mapping[str, Any], names: Mapping[str, str]) -> Mailbox:
    """A DynamoDB item as a mailbox.

    Args:
        item: attribute name to plain value.
        names: field name to attribute name, where a table of the user's own calls it otherwise.

    Raises:
        msgspec.ValidationError: a value has the wrong type; the text names the field.
    """
    fields = {
        field: item[names.get(field, field)]
        for field in Mailbox.__struct_fields__
        if item.get(names.get(field, field)) is not None
    }
    return from_fields(fields)
