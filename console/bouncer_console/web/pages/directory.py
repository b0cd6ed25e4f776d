"""The directory: find an entry among a million, look at it, change it."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.responses import Response

from bouncer.address import is_deliverable, is_domain, normalise
from bouncer.aws.mailbox_table import MailboxTable
from bouncer.mailboxes import (
    Answer,
    Mailbox,
    Status,
    counting_day,
    domain_key_of,
    moment_of,
)
from bouncer.policy.conditions import parse_size
from bouncer_console import plots
from bouncer_console.census import STEPS, Census
from bouncer_console.mailbox.edit import change
from bouncer_console.mailbox.files import MailboxFileError
from bouncer_console.mailbox.look import Filter
from bouncer_console.mailbox.oddities import oddities
from bouncer_console.mailbox.target import Target
from bouncer_console.web.site import Ask, Page, ProblemError, get, post
from bouncer_console.web.text import link

SHOWN = 50
_READ_AT_ONCE = 5000
"""Entries a call; DynamoDB stops at 1 MB by itself, which is some 10,000."""
_CALLS = 100
"""After so many calls a search rests, and says where it is: some 12,500 read units, or $0.002."""
_SEARCH_IS_FRESH = 30.0
_LIST_IS_FRESH = 5.0
"""Seconds; a change made here is seen at once."""
_COUNTED_AT_ONCE = 1000
_CENSUS_IS_FRESH = 3600.0
_LARGEST = 25
_UNITS_AN_ENTRY, _DOLLARS_A_UNIT = 0.02, 0.125e-6
"""An entry has some 150 bytes, half a read unit 4 KB; us-east-1's list price of November 2026."""

_SIZES = ("quota_bytes", "size_limit_bytes")
_TEXTS = ("alias_for", "moved_to")


class Found(msgspec.Struct, kw_only=True):
    """What a search has found so far."""

    boxes: list[Mailbox]
    read: int = 0
    next: str | None = None
    """After which address it goes on; None: there is no more."""


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody looks for, and where in the table."""

    beginning: str = ""
    domain: str | None = None
    status: Status | None = None
    fuller_than: int | None = None
    suspicious: bool = False
    after: str | None = None

    @property
    def narrow(self) -> bool:
        """Whether most entries are none of those."""
        return self != Search(after=self.after)

    def run(self, table: MailboxTable, says: Callable[[str], None]) -> Found:
        """Read on until a page is full; never more of the table at once than one call brings."""
        found = Found(boxes=[], next=self.after)
        wanted = Filter(
            domain=self.domain,
            status=self.status,
            fuller_than=self.fuller_than,
            suspicious=self.suspicious,
        )
        limit = _READ_AT_ONCE if self.narrow else SHOWN
        for _ in range(_CALLS):
            part = table.part(
                found.next,
                limit=limit,
                beginning=self.beginning,
                containing=f"@{self.domain}" if self.domain else "",
            )
            found.read += part.read
            for box in part.mailboxes:
                if wanted(box):
                    found.boxes.append(box)
                    if len(found.boxes) == SHOWN:
                        # The next page begins behind this one, wherever the call ended.
                        more = part.next is not None or box is not part.mailboxes[-1]
                        found.next = box.address if more else None
                        return found
            found.next = part.next
            if part.next is None:
                return found
            says(f"{found.read:,} entries looked at, {len(found.boxes)} found")
        return found


def show(ask: Ask) -> Response:
    """The list, or the entry that the field for finding names."""
    typed = ask.query.get("find", "").strip()[:320]
    key = normalise(typed) if "@" in typed else typed.lower()
    domains = ask.query.get("kind") == "domains"
    if is_deliverable(key) and not domains:
        return _one(ask, key)
    search = _search(ask.query, key, domains=domains)
    target = Target.of(ask.deployment)
    job = ask.job(
        ("directory", ask.site.stack, search),
        lambda says: search.run(target.table, says),
        fresh=_SEARCH_IS_FRESH if search.narrow else _LIST_IS_FRESH,
        wait=1.2,
    )
    found = job.answer() if job.done else None
    rows: list[dict[str, Any]] = []
    if found is not None:
        keys = [domain_key_of(each.address) for each in found.boxes]
        defaults = target.table.get(keys)
        now = datetime.now(UTC)
        rows = [_row(each, defaults.get(domain_key_of(each.address)), now) for each in found.boxes]
    kept = {
        name: ask.query.get(name, "")[:320] for name in ("kind", "find", "status", "fuller", "odd")
    }
    return ask.show(
        "directory.html",
        asking=None if job.done else job,
        search=search,
        query=kept,
        found=found,
        rows=rows,
        more=link("/directory", **kept, after=found.next) if found and found.next else None,
        about=target.table.about(),
        own=target.own,
    )


def _search(query: Mapping[str, str], key: str, *, domains: bool) -> Search:
    domain = key[1:] if key.startswith("@") and is_domain(key[1:]) and not domains else None
    beginning = "" if domain else f"@{key.lstrip('@')}" if domains else key
    return Search(
        beginning=beginning,
        domain=domain,
        status=Status(query["status"]) if query.get("status") in list(Status) else None,
        fuller_than=_number(query.get("fuller", ""), 1_000_000),
        suspicious=query.get("odd") == "yes",
        after=query.get("after", "")[:320] or None,
    )


def _number(text: str, most: int) -> int | None:
    text = text.strip().removesuffix("%").strip()
    return min(int(text), most) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _row(box: Mailbox, domain: Mailbox | None, now: datetime) -> dict[str, Any]:
    """An entry as the list and its own page show it; limits come from its domain where it has
    none."""
    own = box.address.startswith("@")

    def limit(name: str) -> int | None:
        value: int | None = getattr(box, name)
        if value is None and domain is not None and not own:
            value = getattr(domain, name)
        return value

    until = box.status_until
    today = box.messages_today if box.messages_day == counting_day(box.messages_day, now) else 0
    state, kind = "takes mail", "good"
    if box.disabled(now):
        state, kind = f"disabled{f' until {until:%Y-%m-%d %H:%M} UTC' if until else ''}", "bad"
    elif box.moved_to:
        state, kind = "moved", "warning"
    elif box.alias_for and not own:
        state, kind = "alias", ""
    elif own:
        state, kind = ("every address exists", "warning") if box.catch_all else ("listed only", "")
    return {
        "address": box.address,
        "state": state,
        "kind": kind,
        "disabled": box.disabled(now),
        "leads_to": box.alias_for or box.moved_to,
        "used": max(box.used_bytes, 0),
        "quota": limit("quota_bytes"),
        "today": today,
        "daily": limit("quota_messages_per_day"),
        "size_limit": limit("size_limit_bytes"),
        "counts": not own and not box.alias_for,
        "odd": [each.problem for each in oddities(box, now)],
    }


# --- All of it --------------------------------------------------------------------------------


def whole(ask: Ask) -> Response:
    """What the directory adds up to; all of it is read, so it is asked for by name."""
    table = Target.of(ask.deployment).table
    job = ask.job(
        ("census", ask.site.stack), lambda says: _counted(table, says), fresh=_CENSUS_IS_FRESH
    )
    if not job.done:
        return ask.show("census.html", asking=job, census=None)
    census = job.answer()
    largest = census.largest(_LARGEST)
    return ask.show(
        "census.html",
        census=census,
        plot=_fullness(census) if census.fullness else None,
        largest=largest,
        others=len(census.domains) - len(largest),
        others_entries=census.entries - sum(each.entries for _, each in largest),
        dollars=census.entries * _UNITS_AN_ENTRY * _DOLLARS_A_UNIT,
    )


def _counted(table: MailboxTable, says: Callable[[str], None]) -> Census:
    census, after = Census(now=datetime.now(UTC)), None
    about = table.about()
    while True:
        part = table.part(after, limit=_COUNTED_AT_ONCE)
        for box in part.mailboxes:
            census.add(box)
        of = f" of about {about:,}" if about > census.entries else ""
        says(f"{census.entries:,}{of} entries counted")
        after = part.next
        if after is None:
            return census


def _fullness(census: Census) -> Any:
    return plots.bars(
        {step: census.fullness[step] for step in STEPS},
        title="Mailboxes by percent of their quota",
    )


def count_again(ask: Ask) -> Response:
    ask.site.jobs.forget(("census",))
    return ask.go("/directory/whole")


# --- One entry --------------------------------------------------------------------------------


def one(ask: Ask) -> Response:
    return _one(ask, normalise(ask.query.get("address", "")[:320]))


def _one(ask: Ask, key: str) -> Response:
    """One entry; of an address without one, who takes its mail."""
    target = Target.of(ask.deployment)
    box = target.table.get([key]).get(key)
    said = target.asks(key) if not key.startswith("@") else Answer()
    taker = said.mailbox
    domain_key = domain_key_of(key)
    shown = box or taker
    now = datetime.now(UTC)
    domain = target.table.get([domain_key]).get(domain_key)
    return ask.show(
        "mailbox.html",
        key=key,
        box=box,
        row=_row(shown, domain, now) if shown else None,
        way=said.way,
        entry=said.entry,
        taker=taker.address if taker and taker.address != key else None,
        domain=domain,
        domain_key=domain_key,
        speaks=said.domain_known or domain is not None,
        own=target.own,
        values=_values(box) if box else {},
        problems=list(_beyond(box, target)) if box else [],
    )


def _beyond(box: Mailbox, target: Target) -> Iterator[str]:
    try:
        target.check_targets(box)
    except MailboxFileError as error:
        yield str(error)


def _values(box: Mailbox) -> dict[str, str]:
    """What the form's fields hold."""
    until = box.status_until
    return {
        **{
            name: "" if getattr(box, name) is None else size_text(getattr(box, name))
            for name in _SIZES
        },
        "quota_messages_per_day": ""
        if box.quota_messages_per_day is None
        else str(box.quota_messages_per_day),
        **{name: getattr(box, name) or "" for name in _TEXTS},
        "tell_new_address": "yes" if box.tell_new_address else "",
        "catch_all": "yes" if box.catch_all else "",
        "separator": box.separator,
        "status": box.status.value,
        "status_until": f"{until:%Y-%m-%dT%H:%M:%SZ}" if until else "",
    }


def size_text(value: int) -> str:
    """Bytes as the form takes them again, in the largest unit that leaves nothing over."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value and value % length == 0:
            return f"{value // length} {unit}"
    return str(value)


def save(ask: Ask) -> Response:
    """Change an entry to what the form holds; only what differs is written."""
    key, target = _to_write(ask)
    standing = target.table.get([key]).get(key)
    if standing is None:
        ask.fail(f"{key} has no entry any more.", status=404)
    was = _values(standing)
    fields: dict[str, Any] = {}
    gone: list[str] = []
    for name, old in was.items():
        new = ask.form.get(name, "").strip()
        if new == old or (name in _ONLY_DOMAIN and not key.startswith("@")):
            continue
        if new or name in ("tell_new_address", "catch_all", "separator"):
            fields[name] = _read(name, new)
        else:
            gone.append(name)
    if not fields and not gone:
        return ask.done("Nothing was different, so nothing was changed.", _to(key))
    if target.live and was["catch_all"] and fields.get("catch_all") is False and not ask.sure:
        return ask.question(
            f"Let every address of {key[1:]} without an entry be unknown?",
            yes="Save it",
            post="/directory/save",
            fields={"address": key} | {name: ask.form.get(name, "") for name in was},
            no=_to(key),
            detail=f"The stack is live: mail for an address of {key[1:]} without an entry is "
            "bounced from then on.",
        )
    _change(ask, target, key, fields, gone, domain=ask.sure)
    names = ", ".join([*fields, *gone])
    return ask.done(f"{key} is changed: {names}.", _to(key))


_ONLY_DOMAIN = frozenset({"catch_all", "separator"})


def _read(name: str, text: str) -> Any:
    if name in _SIZES:
        return parse_size(text)
    if name == "quota_messages_per_day":
        number = _number(text, 2**63 - 1)
        if number is None:
            raise ProblemError(f"{text!r} is no number of messages.")
        return number
    if name in ("tell_new_address", "catch_all"):
        return text == "yes"
    if name == "status_until":
        try:
            return f"{moment_of(text):%Y-%m-%dT%H:%M:%SZ}"
        except ValueError as error:
            raise ProblemError(str(error)) from error
    return text


def disable(ask: Ask) -> Response:
    key, target = _to_write(ask)
    if not ask.sure:
        return ask.question(
            f"Let {key} take no mail?",
            yes="Disable it",
            post="/directory/disable",
            fields={"address": key},
            no=_to(key),
            detail=f"bouncer mailbox disable {shlex.quote(key)}",
        )
    _change(ask, target, key, {"status": "disabled"}, ["status_until"])
    return ask.done(f"{key} is disabled: it takes no mail.", _to(key))


def enable(ask: Ask) -> Response:
    key, target = _to_write(ask)
    _change(ask, target, key, {"status": "active"}, ["status_until"])
    return ask.done(f"{key} takes mail again.", _to(key))


def _change(
    ask: Ask,
    target: Target,
    key: str,
    fields: dict[str, Any],
    gone: list[str],
    *,
    domain: bool = False,
) -> None:
    change(target, key, fields, gone, domain=domain)
    ask.site.jobs.forget(("directory",))


def _to_write(ask: Ask) -> tuple[str, Target]:
    """
    Raises:
        ProblemError: the table is the user's own.
    """
    key = normalise(ask.form.get("address", "")[:320])
    target = Target.of(ask.deployment)
    if target.own:
        raise ProblemError(
            "The directory is a table of your own, and this page only reads it.",
            "Change it where it is kept, or by `bouncer mailbox set … --own-table`.",
            409,
        )
    return key, target


def _to(key: str) -> str:
    return link("/directory/entry", address=key)


PAGE = Page(
    path="/directory",
    title="Directory",
    views=[
        get("", show),
        get("/entry", one),
        get("/whole", whole),
        post("/whole", count_again),
        post("/save", save),
        post("/disable", disable),
        post("/enable", enable),
    ],
)
