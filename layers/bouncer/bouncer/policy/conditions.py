"""The conditions of a rule: what each asks, and how it is answered.

A condition is asked of the mail (sender, verdicts, headers) or of one recipient (address,
mailbox, size). The former are answered once a mail, whatever its number of recipients.

An answer is yes, no or None: nobody knows. A rule decides only by what is known, so an unknown
condition makes no rule hold, neither under `when` nor under `unless`.
"""

import fnmatch
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, time
from decimal import Decimal
from typing import Annotated, Any

import msgspec

from bouncer.address import normalise, normalise_domain, split
from bouncer.mailboxes import Mailbox, MailboxState, Way
from bouncer.message import HeadersNeeded, InboundMessage
from bouncer.text import in_units

MAILBOX_LIMIT = "mailbox"
"""`larger_than = "mailbox"`: larger than the mailbox's own limit."""


class SizeNeeded(Exception):  # noqa: N818  (no error: it asks for a fact that costs a request)
    """A condition depends on the mail's size, which nobody has looked up yet."""


class PolicyError(ValueError):
    """A policy is wrong. The text names the place and how to mend it."""


Strings = str | list[str]

_UNITS = {
    "": 1,
    "b": 1,
    "bytes": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")

VERDICTS = ("PASS", "FAIL", "GRAY", "PROCESSING_FAILED", "DISABLED")
DMARC_POLICIES = ("none", "quarantine", "reject")


def parse_size(value: int | str) -> int:
    """Bytes: `1500`, `"25 MB"` (decimal units) or `"24 MiB"` (binary ones)."""
    if isinstance(value, int):
        return _sensible(value, str(value))
    found = _SIZE.fullmatch(value)
    if found is None or found[2].lower() not in _UNITS:
        raise PolicyError(f"{value!r} is not a size: write a number and a unit, as in '25 MB'")
    return _sensible(int(Decimal(found[1]) * _UNITS[found[2].lower()]), value)


def _sensible(size: int, text: str) -> int:
    if not 0 <= size < 2**63:
        raise PolicyError(f"{text[:50]} is not a size: it has to be from 0 to 8 EiB")
    return size


class Conditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rule asks. A list means "any of"; absent means "not asked"."""

    recipient: Strings | None = None
    sender: Strings | None = None
    mailbox: Strings | None = None
    larger_than: int | Strings | None = None
    spam: Strings | None = None
    virus: Strings | None = None
    spf: Strings | None = None
    dkim: Strings | None = None
    dmarc: Strings | None = None
    dmarc_policy: Strings | None = None
    header: dict[str, bool | Strings] | None = None
    more_recipients_than: Annotated[int, msgspec.Meta(ge=0)] | None = None
    time_of_day: Strings | None = None

    def given(self) -> Iterator[tuple[str, Any]]:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None:
                yield name, value


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one recipient's mailbox and of the mail's size."""

    recipient: str
    mailbox: Mailbox | None
    """The one that takes the mail, an alias followed."""
    now: datetime
    entry: str = ""
    """The directory's entry that was found, before an alias of it was followed."""
    way: Way | None = None
    """How it was found."""
    domain_known: bool = True
    """Whether the directory speaks for the recipient's domain."""
    size: int | None = None
    """Bytes as stored; None when it could not be had."""
    size_asked: bool = True
    """False as long as nobody has looked the size up."""

    def known_size(self) -> int | None:
        if not self.size_asked:
            raise SizeNeeded
        return self.size

    def has_state(self, state: MailboxState) -> bool | None:
        box = self.mailbox
        if box is None:
            unknown = MailboxState.UNKNOWN if self.domain_known else MailboxState.UNKNOWN_DOMAIN
            return state is unknown
        match state:
            case MailboxState.UNKNOWN | MailboxState.UNKNOWN_DOMAIN:
                return False
            case MailboxState.KNOWN:
                return True
            case MailboxState.CATCH_ALL:
                return self.way is Way.CATCH_ALL or box.address.startswith("@")
            case MailboxState.MOVED:
                return box.moved_to is not None
            case MailboxState.DISABLED:
                return box.disabled(self.now)
            case MailboxState.FULL:
                return self._full(box)

    def _full(self, box: Mailbox) -> bool | None:
        if box.full() or box.over_daily_quota(self.now):
            return True
        if box.quota_bytes is None:
            return False
        size = self.known_size()
        return None if size is None else box.without_room(size)


type MailTest = Callable[[InboundMessage], bool | None]
type RecipientTest = Callable[[InboundMessage, Facts], bool | None]


def any_of(answers: Iterable[bool | None]) -> bool | None:
    """Yes if one is; else nobody knows if one is unknown. Stops at the first yes."""
    unknown = False
    for answer in answers:
        if answer:
            return True
        unknown = unknown or answer is None
    return None if unknown else False


def compile_mail_tests(conditions: Conditions) -> dict[str, MailTest]:
    """The conditions that are about the mail as a whole, by name."""
    makers: dict[str, Callable[[Any], MailTest]] = {
        "sender": _sender,
        "spam": lambda value: _verdict("spam", value),
        "virus": lambda value: _verdict("virus", value),
        "spf": lambda value: _verdict("spf", value),
        "dkim": lambda value: _verdict("dkim", value),
        "dmarc": lambda value: _verdict("dmarc", value),
        "dmarc_policy": _dmarc_policy,
        "header": _header,
        "more_recipients_than": lambda value: lambda mail: len(mail.recipients) > value,
        "time_of_day": _time_of_day,
    }
    return {name: makers[name](value) for name, value in conditions.given() if name in makers}


def compile_recipient_tests(conditions: Conditions) -> dict[str, RecipientTest]:
    """The conditions that are about one recipient, by name; the one that costs most is last."""
    makers: dict[str, Callable[[Any], RecipientTest]] = {
        "recipient": _recipient,
        "mailbox": _mailbox,
        "larger_than": _larger_than,
    }
    return {name: makers[name](value) for name, value in conditions.given() if name in makers}


def said(name: str, asked: Any, mail: InboundMessage, facts: Facts) -> str:
    """What a condition is about, as it is for this mail and recipient, in words."""
    match name:
        case "header":
            return ", ".join(_header_said(each, mail) for each in asked)
        case "recipient":
            now = facts.recipient
        case "sender":
            now = mail.reverse_path or "<>"
        case "mailbox":
            now = " and ".join(_states(facts))
        case "larger_than":
            name, now = "size", in_units(facts.size) or "unknown"
        case "more_recipients_than":
            name, now = "number of recipients", str(len(mail.recipients))
        case "time_of_day":
            name, now = "time of day", f"{mail.received_at:%H:%M} UTC"
        case "dmarc_policy":
            now = mail.dmarc_policy or "not given"
        case _:
            now = getattr(mail.verdicts, name) or "not given"
    return f"{name} is {now}"


def _states(facts: Facts) -> Iterator[str]:
    """The states of a mailbox, the most telling ones only: a full one is known, too."""
    states = [state for state in MailboxState if _known_state(facts, state)]
    telling = [state for state in states if state is not MailboxState.KNOWN]
    yield from telling or states


def _known_state(facts: Facts, state: MailboxState) -> bool:
    try:
        return facts.has_state(state) is True
    except SizeNeeded:
        return False


_SAID_LIMIT = 60


def _header_said(name: str, mail: InboundMessage) -> str:
    values = mail.header_text(name)
    if values:
        shown = values[0] if len(values[0]) <= _SAID_LIMIT else values[0][:_SAID_LIMIT] + "…"
        return f"header.{name} is {shown!r}"
    return f"header.{name} is {'absent' if mail.headers_whole else 'unknown, for headers are cut'}"


def listed(value: Any, what: str) -> list[Any]:
    """One value or a list as a list; an empty list can never hold."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise PolicyError(f"{what} is an empty list, which nothing matches: remove it")
    return values


class AddressPattern(msgspec.Struct, frozen=True, kw_only=True):
    """Tests normalised addresses."""

    matches: Callable[[str], bool]
    address: str | None = None
    """The only address that it matches, if that is so."""
    domain: str | None = None
    """The domain whose addresses it matches, all of them and no other, if that is so."""
    prefix: str = ""
    """What every address of ASCII letters begins with that it matches."""

    def __call__(self, address: str) -> bool:
        return self.matches(address)


def address_pattern(pattern: str) -> AddressPattern:
    """`user@example.com`, `@example.com`, `@.example.com` (subdomains) or a glob with `*`, `?`."""
    local, domain = split(pattern.strip())
    if not domain or any(character.isspace() for character in pattern.strip()):
        raise PolicyError(
            f"{pattern!r} is not an address pattern: write user@domain, @domain, "
            "@.domain for its subdomains, or a glob such as sales-*@domain"
        )
    if "*" in pattern or "?" in pattern:
        whole = f"{local.lower() or '*'}@{_glob_domain(domain)}"
        regex = _glob(whole)
        literal = re.split(r"[*?]", whole)[0]
        return AddressPattern(
            matches=lambda address: regex.match(address) is not None,
            prefix=literal if literal.isascii() else "",
        )
    if domain.startswith("."):
        suffix = "." + normalise_domain(domain[1:])
        return AddressPattern(
            matches=lambda address: (
                address.endswith(suffix) and (not local or address.startswith(f"{local.lower()}@"))
            )
        )
    if not local:
        domain = normalise_domain(domain)
        return AddressPattern(matches=lambda address: address.endswith("@" + domain), domain=domain)
    exact = normalise(pattern)
    return AddressPattern(matches=lambda address: address == exact, address=exact)


def _glob(pattern: str) -> re.Pattern[str]:
    """`*` and `?` are the only wildcards; fnmatch's `[…]` would make a class of `[SPAM]`."""
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")), re.IGNORECASE)


def _glob_domain(domain: str) -> str:
    labels = domain.lower().rstrip(".").split(".")
    for label in labels:
        if not label.isascii() and set("*?") & set(label):
            raise PolicyError(
                f"{label!r} in {domain!r}: a label with * or ? is compared in its ASCII form "
                "(xn--…): write it so, or without the wildcard"
            )
    return ".".join(normalise_domain(label) for label in labels)


def _any_address(patterns: Any, what: str) -> Callable[[str], bool]:
    tests = [address_pattern(each) for each in listed(patterns, what)]
    return lambda address: any(test(address) for test in tests)


def _recipient(value: Any) -> RecipientTest:
    matches = _any_address(value, "recipient")
    return lambda _, facts: matches(normalise(facts.recipient))


def _sender(value: Any) -> MailTest:
    values = listed(value, "sender")
    patterns = [each for each in values if each != "<>"]
    null = len(patterns) < len(values)
    matches = _any_address(patterns, "sender") if patterns else None

    def test(mail: InboundMessage) -> bool:
        if mail.reverse_path is None:
            return null
        return matches is not None and matches(normalise(mail.reverse_path))

    return test


def _one_of(value: Any, what: str, allowed: tuple[str, ...]) -> frozenset[str]:
    values = listed(value, what)
    for each in values:
        if each not in allowed:
            raise PolicyError(f"{what} {each!r}: write one of {', '.join(allowed)}")
    return frozenset(values)


def _mailbox(value: Any) -> RecipientTest:
    names = _one_of(value, "mailbox", tuple(MailboxState))
    # `full` may need the size, so it is asked last.
    states = sorted(
        (MailboxState(each) for each in names), key=lambda each: each is MailboxState.FULL
    )
    return lambda _, facts: any_of(facts.has_state(state) for state in states)


def _larger_than(value: Any) -> RecipientTest:
    own, fixed = size_limits(value)

    def test(_: InboundMessage, facts: Facts) -> bool | None:
        limit = size_limit(facts.mailbox, own=own, fixed=fixed)
        if limit is None:
            return False
        size = facts.known_size()
        return None if size is None else size > limit

    return test


def size_limits(value: Any) -> tuple[bool, int | None]:
    """What `larger_than` asks for: whether the mailbox's own limit counts, and the rule's."""
    values = listed(value, "larger_than")
    sizes = [parse_size(each) for each in values if each != MAILBOX_LIMIT]
    return MAILBOX_LIMIT in values, min(sizes, default=None)


def size_limit(mailbox: Mailbox | None, *, own: bool, fixed: int | None) -> int | None:
    """The limit that binds: the smaller of the rule's and, if the rule asks, the mailbox's."""
    return smaller(fixed, mailbox.size_limit_bytes if own and mailbox is not None else None)


def smaller(one: int | None, other: int | None) -> int | None:
    """The smaller of two limits, either of which may not be there."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _verdict(name: str, value: Any) -> MailTest:
    wanted = _one_of(value, name, VERDICTS)
    return lambda mail: getattr(mail.verdicts, name) in wanted


def _dmarc_policy(value: Any) -> MailTest:
    wanted = _one_of(value, "dmarc_policy", DMARC_POLICIES)
    return lambda mail: mail.dmarc_policy.lower() in wanted


def _header(value: dict[str, bool | Strings]) -> MailTest:
    tests = [_one_header(name, wanted) for name, wanted in value.items()]
    if not tests:
        raise PolicyError("header is empty: name a header, as in header.X-Loop = true")

    def test(mail: InboundMessage) -> bool | None:
        answers = [each(mail) for each in tests]
        if False in answers:
            return False
        if None not in answers:
            return True
        if not mail.stored_asked:
            raise HeadersNeeded
        return None

    return test


def _one_header(name: str, wanted: bool | Strings) -> MailTest:
    if isinstance(wanted, bool):
        return lambda mail: wanted if mail.header(name) else _absent(mail, not wanted)
    regexes = [
        _glob(unicodedata.normalize("NFC", each)) for each in listed(wanted, f"header.{name}")
    ]

    def test(mail: InboundMessage) -> bool | None:
        values = (
            unicodedata.normalize("NFC", each.strip())
            for each in dict.fromkeys((*mail.header_text(name), *mail.header(name)))
        )
        found = any(regex.match(value) for value in values for regex in regexes)
        return True if found else _absent(mail, False)

    return test


def _absent(mail: InboundMessage, answer: bool) -> bool | None:
    """The answer where a header is not to be seen: nobody knows if the headers are cut."""
    return answer if mail.headers_whole else None


def _time_of_day(value: Any) -> MailTest:
    spans = [_span(each) for each in listed(value, "time_of_day")]

    def test(mail: InboundMessage) -> bool:
        received = mail.received_at.time()
        return any(
            start <= received < end if start < end else received >= start or received < end
            for start, end in spans
        )

    return test


def _span(text: str) -> tuple[time, time]:
    found = _HOURS.fullmatch(text)
    if found is None:
        raise PolicyError(f"time_of_day {text!r}: write hours in UTC, as in '22:00-06:00'")
    start, end = time(int(found[1]), int(found[2])), time(int(found[3]), int(found[4]))
    if start == end:
        raise PolicyError(f"time_of_day {text!r} is empty: its ends are the same")
    return start, end
