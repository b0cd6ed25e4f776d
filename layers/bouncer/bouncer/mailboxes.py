"""The mailbox directory: which addresses exist, and what each may hold.

How an address is found: itself, then without its tag, then the domain's catch-all entry. Only a
domain that the directory knows has unknown addresses: one with an `@domain` entry.
The item format is documented in docs/mailboxes.md, so that any system can write it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

import msgspec

from bouncer.address import domain_of, is_deliverable, is_domain, normalise, split
from bouncer.backend import BackendUnavailableError

Separator = Literal["+", "-", ""]
NotNegative = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

LIMITS = ("quota_bytes", "size_limit_bytes", "quota_messages_per_day")
"""What a mailbox may hold; an `@domain` entry has them for all of its addresses."""

DEFAULT_SEPARATOR: Separator = "+"
_SEPARATORS = "+-"
_LOCAL_PART_LIMIT = 64  # RFC 5321 §4.5.3.1.1


class Status(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


class MailboxState(StrEnum):
    """What a policy can ask of a recipient's mailbox."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    """Its domain is in the directory, and the address is not."""
    UNKNOWN_DOMAIN = "unknown-domain"
    """The directory says nothing of its domain, so nobody can tell."""
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
        """Usage below zero, which deletions nobody counted make, is none: no further room."""
        return self.quota_bytes is not None and max(self.used_bytes, 0) + size > self.quota_bytes


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

    def look_up(self, recipients: Iterable[str]) -> Mapping[str, "Answer"]:
        """What is said of each recipient, under the spelling that it was asked by.

        Raises:
            DirectoryUnavailableError: not all was read; nobody is unknown because of that.
        """
        ...


class DirectoryUnavailableError(BackendUnavailableError):
    """The directory did not answer: nobody knows who is there."""


class Way(StrEnum):
    """How an entry was found for a recipient."""

    ADDRESS = "address"
    TAG = "without its tag"
    CATCH_ALL = "catch-all"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a directory says of one recipient."""

    mailbox: Mailbox | None = None
    """The mailbox that takes the mail, an alias followed; None when there is none."""
    entry: str = ""
    """The address of the entry that was found, before an alias of it was followed."""
    way: Way | None = None
    domain_known: bool = True
    """Whether the directory speaks for the recipient's domain; where it does not, that there
    is no mailbox means nothing."""


def candidates(recipient: str) -> tuple[str, ...]:
    """The keys that may answer for a recipient, the nearest first.

    All separators are asked for at once, so that one read settles every domain's own.
    """
    address = normalise(recipient)
    local, domain = split(address)
    # Longer than any entry's local part may be, a prefix is no key.
    cuts = [
        at
        for at in range(min(len(local) - 1, _LOCAL_PART_LIMIT), 0, -1)
        if local[at] in _SEPARATORS
    ]
    return (address, *(f"{local[:at]}@{domain}" for at in cuts), f"@{domain}")


def resolve(recipient: str, entries: Mapping[str, Mailbox]) -> Mailbox | None:
    """The mailbox that answers for a recipient, with what it inherits from its domain's entry."""
    return _found(recipient, entries)[0]


def _found(
    recipient: str, entries: Mapping[str, Mailbox]
) -> tuple[Mailbox | None, str, Way | None]:
    """The mailbox that answers, the key of its entry, and how it was found."""
    address, *untagged, domain_key = candidates(recipient)
    local, _ = split(address)
    defaults = entries.get(domain_key)
    separator = defaults.separator if defaults else DEFAULT_SEPARATOR
    # The separator that ended a prefix stands right after it.
    tagless = [key for key in untagged if separator and local[len(split(key)[0])] == separator]
    for key in (address, *tagless):
        if key in entries:
            way = Way.ADDRESS if key == address else Way.TAG
            return _with_defaults(entries[key], defaults), key, way
    if defaults is not None and defaults.catch_all:
        return defaults, domain_key, Way.CATCH_ALL
    return None, "", None


def _with_defaults(mailbox: Mailbox, defaults: Mailbox | None) -> Mailbox:
    if defaults is None:
        return mailbox
    inherited = {name: getattr(defaults, name) for name in LIMITS if getattr(mailbox, name) is None}
    return msgspec.structs.replace(mailbox, **inherited)


def answer(recipient: str, entries: Mapping[str, Mailbox], domains: Collection[str] = ()) -> Answer:
    """What the entries say of a recipient.

    Args:
        entries: by address, at least those that `candidates` names, of an alias's target too.
        domains: domains that the directory speaks for without an `@domain` entry.
    """
    mailbox, entry, way = _found(recipient, entries)
    domain = domain_of(recipient)
    return Answer(
        mailbox=follow_alias(mailbox, entries),
        entry=entry,
        way=way,
        domain_known=domain in domains or f"@{domain}" in entries,
    )


def as_imported(entries: Iterable[Mailbox]) -> dict[str, Mailbox]:
    """The entries by address, as an import of them leaves an empty directory.

    Each domain that occurs gets an `@domain` entry, which says that the domain is in here.
    """
    found = {normalise(each.address): each for each in entries}
    return {key: domain_entry(key) for key in map(domain_key_of, found)} | found


def domain_key_of(address: str) -> str:
    """The address of the entry for an address's domain."""
    return f"@{domain_of(address)}"


def domain_entry(key: str) -> Mailbox:
    """The entry that says of a domain: it is in here, and it has these addresses only."""
    return Mailbox(address=key, catch_all=False)


class StaticDirectory:
    """A directory held in memory: the `[mailboxes]` of a policy, or a file for `explain`."""

    def __init__(self, entries: Iterable[Mailbox]) -> None:
        self._entries = as_imported(entries)

    def look_up(self, recipients: Iterable[str]) -> dict[str, Answer]:
        return {each: answer(each, self._entries) for each in recipients}


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
    """Refuse an entry that no mail would ever find, that refuses every mail, or leads nowhere.

    Raises:
        EntryError: the first thing that is wrong with it.
    """
    for problem in entry_problems(mailbox):
        raise EntryError(problem)


def entry_problems(mailbox: Mailbox) -> Iterator[str]:
    """What nobody can mean in an entry looked at alone, each with its mend."""
    yield from address_problems(mailbox.address)
    yield from (problem for _, problem in _field_problems(mailbox))


def address_problems(address: str) -> Iterator[str]:
    """Why no mail would ever find an entry under this address."""
    local, domain = split(address)
    if set("*%?") & set(address):
        meant = f"@{domain}" if is_domain(domain) else "@domain"
        yield (
            f"address {address!r} is a pattern, and the directory has none: "
            f"write {meant} for every address of a domain"
        )
    elif "@" not in address and is_domain(address):
        yield f"address {address!r}: write @{address} for the domain, or user@{address}"
    elif not local.isascii():
        yield f"address {address!r}: SES takes no mail for a local part that is not ASCII"
    elif not (is_deliverable(normalise(address)) if local and domain else is_domain(domain)):
        yield f"address {address!r}: write user@domain, or @domain"


def _field_problems(mailbox: Mailbox) -> Iterator[tuple[str, str]]:
    """Fields that nobody can mean so, each with why and the mend."""
    for name in LIMITS:
        if getattr(mailbox, name) == 0:
            yield (
                name,
                f"{name} 0 would refuse every mail: leave it empty for no limit, "
                "or write status disabled",
            )
    for name in ("alias_for", "moved_to"):
        target = getattr(mailbox, name)
        if target is None:
            continue
        if any(address_problems(target)) or not split(target)[0]:
            yield name, f"{name} {target!r}: write user@domain"
        elif normalise(target) == normalise(mailbox.address):
            yield name, f"{name} {target!r} is the address itself"


def limits_of_alias(mailbox: Mailbox) -> Iterator[str]:
    """Limits that an alias has in vain: the mailbox that takes the mail has its own."""
    if mailbox.alias_for and not mailbox.address.startswith("@"):
        for name in LIMITS:
            if getattr(mailbox, name) is not None:
                yield (
                    f"{name} of an alias limits nothing: the limits are those of "
                    f"{mailbox.alias_for}; leave it empty"
                )


def unsaid_catch_all(mailbox: Mailbox, named: Collection[str]) -> Iterator[str]:
    """An `@domain` entry with defaults for its addresses that leaves open whether all exist."""
    given = [name for name in (*LIMITS, "separator") if name in named]
    if mailbox.address.startswith("@") and given and "catch_all" not in named:
        yield (
            f"{mailbox.address} has {', '.join(given)} and does not say catch_all: write true if "
            "every address of the domain exists, false if only those with an entry do"
        )


def target_problems(
    mailbox: Mailbox, entries: Mapping[str, Mailbox], domains: Collection[str] = ()
) -> Iterator[str]:
    """Where an entry leads nowhere, although the directory speaks for the target's domain.

    Args:
        entries, domains: as `answer` has them.
    """
    for name in ("alias_for", "moved_to"):
        target = getattr(mailbox, name)
        if target is None:
            continue
        _, key, _ = _found(target, entries)
        known = domain_of(target) in domains or domain_key_of(target) in entries
        if key == normalise(mailbox.address):
            yield f"{name} {target!r} leads back to the entry itself: write another address"
        elif known and not key:
            yield (
                f"{name} {target!r} leads nowhere: the directory has its domain and not the "
                "address; add that first, or write another"
            )


def usable(mailbox: Mailbox) -> tuple[Mailbox, list[str]]:
    """An entry without the fields that nobody can mean so, and why each was left out.

    For what others wrote into a table: a mistake there must not bounce anyone's mail.
    """
    bad = list(_field_problems(mailbox))
    return msgspec.structs.replace(mailbox, **{name: None for name, _ in bad}), [
        f"{problem}; it counts as empty" for _, problem in bad
    ]


def moment_of(text: str) -> datetime:
    """An ISO 8601 date or time, in UTC, which it is in without an offset.

    Raises:
        ValueError: it is none.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(
            f"{text!r} is not ISO 8601: write it as in 2026-11-21T12:00:00Z"
        ) from error


def from_fields(fields: Mapping[str, Any]) -> Mailbox:
    """A mailbox from its fields by name, as a file or a table has them.

    Raises:
        msgspec.ValidationError: a value has the wrong type; the text names the field.
    """
    until = fields.get("status_until")
    if isinstance(until, str):
        try:
            fields = {**fields, "status_until": moment_of(until)}
        except ValueError as error:
            raise msgspec.ValidationError(f"{error} - at `$.status_until`") from error
    return msgspec.convert(fields, Mailbox, strict=False)


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
