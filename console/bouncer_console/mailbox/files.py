"""Files of mailboxes, read and written a line at a time: JSON, JSON Lines or CSV."""

import codecs
import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import ijson
import msgspec

from bouncer.address import normalise
from bouncer.aws.mailbox_table import MailboxEntry
from bouncer.mailboxes import (
    Mailbox,
    as_imported,
    domain_key_of,
    entry_problems,
    from_fields,
    limits_of_alias,
    target_problems,
    unsaid_catch_all,
)

FIELDS = Mailbox.__struct_fields__

NO_SEPARATOR = "none"
"""How a CSV cell says that there are no tags; an empty one takes the default."""

_PROBLEMS_SHOWN = 20
_DELIMITERS = ",;\t"


class MailboxFileError(ValueError):
    """A file or an entry is wrong; the text names the file, the place and the mend."""


class Row(msgspec.Struct, frozen=True):
    """One entry as a file has it."""

    place: str
    """`line 5` of a CSV, `entry 5` of JSON."""
    fields: dict[str, Any]
    empty: frozenset[str] = frozenset()
    """Fields whose CSV cell is empty; they are None in `fields`."""
    problem: str = ""
    """Why it cannot be read, or nothing."""


class Survey:
    """What a whole file says: every mistake in it, the addresses, who leads where.

    An address is remembered by its line, so that a second line for it is found however far
    away it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.places: dict[str, str] = {}
        self.leading: list[Mailbox] = []
        """The entries that lead to another address."""
        self.defaults: dict[str, Mailbox] = {}
        """The `@domain` entries of the file."""
        self.ends_open = False
        """Whether its last line has no line break, as where somebody cut it off."""

    @property
    def domains(self) -> set[str]:
        """The keys of the domains that occur."""
        return {domain_key_of(each) for each in self.places}

    def add(self, place: str, problem: str) -> None:
        self.problems.append(f"{self.path}: {place}: {problem}")

    def of(self, mailbox: Mailbox, problem: str) -> None:
        self.add(self.places[mailbox.address], problem)

    def entries(self) -> Iterator[MailboxEntry]:
        """The entries that can be read; what is wrong with any goes to `problems`.

        Raises:
            MailboxFileError: the file as a whole cannot be read.
        """
        self.ends_open = _ends_open(self.path)
        for row in _rows(self.path):
            entry = self._entry(row)
            if entry is not None:
                self._remember(entry.mailbox, row.place)
                yield entry

    def _entry(self, row: Row) -> MailboxEntry | None:
        unknown = row.fields.keys() - set(FIELDS)
        if row.problem or unknown:
            self.add(
                row.place,
                row.problem
                or f"no field is called {', '.join(sorted(unknown))}; there are: "
                f"{', '.join(FIELDS)}",
            )
            return None
        said = {name: value for name, value in row.fields.items() if value is not None}
        try:
            mailbox = from_fields(said)
        except msgspec.ValidationError as error:
            self.add(row.place, str(error))
            return None
        problems = list(entry_problems(mailbox))
        for problem in problems:
            self.add(row.place, problem)
        if problems:
            return None
        return MailboxEntry(
            mailbox=msgspec.structs.replace(mailbox, address=normalise(mailbox.address)),
            named=frozenset(row.fields),
            empty=row.empty,
        )

    def _remember(self, mailbox: Mailbox, place: str) -> None:
        address = mailbox.address
        if address in self.places:
            self.add(place, f"{address} is on {self.places[address]} already: keep one of the two")
            return
        self.places[address] = place
        if mailbox.alias_for or mailbox.moved_to:
            self.leading.append(mailbox)
        if address.startswith("@"):
            self.defaults[address] = mailbox

    def refuse(self) -> None:
        """
        Raises:
            MailboxFileError: there are mistakes; the text has the first of them.
        """
        if self.problems:
            more = len(self.problems) - _PROBLEMS_SHOWN
            rest = [f"and {more} more"] if more > 0 else []
            raise MailboxFileError("\n".join([*self.problems[:_PROBLEMS_SHOWN], *rest]))


def read_mailboxes(path: Path) -> list[Mailbox]:
    """The mailboxes of a file, checked as an import into an empty directory checks them.

    Raises:
        MailboxFileError: a mistake in it, or several; each with its place and mend.
    """
    mailboxes, survey = examine(path)
    survey.refuse()
    return mailboxes


def examine(path: Path) -> tuple[list[Mailbox], Survey]:
    """The mailboxes of a file as an import leaves an empty directory, and its mistakes.

    Raises:
        MailboxFileError: the file as a whole cannot be read.
    """
    survey = Survey(path)
    read = list(survey.entries())
    entries = as_imported(each.mailbox for each in read)
    for entry in read:
        named = entry.named - entry.empty
        for problem in (
            *unsaid_catch_all(entry.mailbox, named),
            *limits_of_alias(entry.mailbox),
            *target_problems(entry.mailbox, entries),
        ):
            survey.of(entry.mailbox, problem)
    return [each.mailbox for each in read], survey


def _rows(path: Path) -> Iterator[Row]:
    reader = _csv if path.suffix.lower() == ".csv" else _json
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise MailboxFileError(f"{path} is not UTF-8: save it as UTF-8") from error
    except csv.Error as error:
        raise MailboxFileError(f"{path} is not CSV: {error}; is a quote left open?") from error


# --- CSV -------------------------------------------------------------------------------------


def _csv(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        begin = file.readline()
        file.seek(0)
        delimiter = max(_DELIMITERS, key=begin.count) if begin.strip() else ","
        lines = csv.reader(file, strict=True, delimiter=delimiter)
        header = [each.strip().lower() for each in next(lines, [])]
        _check_header(path, header)
        last, short = Row("", {}), False
        for cells in lines:
            if any(cell.strip() for cell in cells):  # a spreadsheet leaves rows of commas
                if last.place:
                    yield last
                last = _row(header, cells, f"line {lines.line_num}")
                short = len(cells) < len(header)
        if short and _ends_open(path):
            problem = (
                "the file ends within this line. If that is all of it, end it with a line break"
            )
            last = Row(last.place, {}, problem=problem)
        if last.place:
            yield last


def _ends_open(path: Path) -> bool:
    """Of a CSV file alone: half a JSON text cannot be read."""
    if path.suffix.lower() != ".csv" or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) not in (b"\n", b"\r")


def _check_header(path: Path, header: list[str]) -> None:
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise MailboxFileError(
            f"{path}: the header has {', '.join(sorted(twice))} twice: keep one column of a name"
        )
    if "address" not in header:
        raise MailboxFileError(
            f"{path}: the header has no column address; there are: {', '.join(FIELDS)}"
        )


def _row(header: list[str], cells: list[str], place: str) -> Row:
    beyond = [
        cell for number, cell in enumerate(cells) if number >= len(header) or not header[number]
    ]
    if any(cell.strip() for cell in beyond):
        return Row(place, {}, problem="it has more cells than the header")
    # A row that ends early names no more fields than it has.
    pairs = zip(header, cells, strict=False)
    fields = {name: _cell(name, text) for name, text in pairs if name}
    empty = frozenset(name for name, value in fields.items() if value is None)
    return Row(place, fields, empty)


# What a spreadsheet would run: "+" and "-" alone, which are separators, it would not.
_FORMULA = re.compile(r"'*[=+\-@\t\r].", re.DOTALL)


def _without_formula(cell: Any) -> Any:
    """A cell that no spreadsheet runs; an import takes the quote off again."""
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def _cell(name: str, text: str) -> str | bool | None:
    text = text.strip()
    if text.startswith("'") and _FORMULA.match(text, 1):
        text = text[1:]
    if name == "separator" and text == NO_SEPARATOR:
        return ""
    return {"": None, "true": True, "false": False}.get(text.lower(), text)


# --- JSON ------------------------------------------------------------------------------------


def _json(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        begin = file.read(1024)
        bom = begin.startswith(codecs.BOM_UTF8)
        lines = begin.removeprefix(codecs.BOM_UTF8).lstrip()[:1] != b"["
        file.seek(len(codecs.BOM_UTF8) if bom else 0)
        try:
            # Events, for an object with a name twice is an object no more once it is built.
            events = ijson.parse(file, multiple_values=lines, use_float=True)
            yield from _objects(events, "" if lines else "item")
        except (ijson.JSONError, ValueError) as error:
            raise MailboxFileError(f"{path} is not JSON: {error}") from error


type _Event = tuple[str, str, Any]


def _objects(events: Iterable[_Event], prefix: str) -> Iterator[Row]:
    for number, item in enumerate(_items(events, prefix), 1):
        yield _object(f"entry {number}", item)


def _items(events: Iterable[_Event], prefix: str) -> Iterator[list[_Event]]:
    """The events of each top-level value, together."""
    item: list[_Event] = []
    depth = 0
    for event in events:
        place, kind, _ = event
        if depth == 0 and place != prefix:
            continue  # the brackets of the list
        depth += (kind in _OPENS) - (kind in _CLOSES)
        item.append(event)
        if depth == 0:
            yield item
            item = []


_OPENS, _CLOSES = ("start_map", "start_array"), ("end_map", "end_array")


def _object(place: str, events: list[_Event]) -> Row:
    if events[0][1] != "start_map":
        return Row(place, {}, problem="it is not an object")
    fields: dict[str, Any] = {}
    name, depth = "", 0
    for _, kind, value in events:
        if kind in _OPENS and depth == 1:
            return Row(place, {}, problem=f"{name} is a list or an object: write one value")
        depth += (kind in _OPENS) - (kind in _CLOSES)
        if kind == "map_key":
            name = value
            if name in fields:
                problem = f"it has the field {name} twice: keep one of the two"
                return Row(place, {}, problem=problem)
        elif kind not in (*_OPENS, *_CLOSES):
            fields[name] = value
    return Row(place, fields)


# --- Writing ---------------------------------------------------------------------------------


def write_mailboxes(
    mailboxes: Iterable[Mailbox],
    file: TextIO,
    *,
    as_csv: bool,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write entries so that an import leaves them as they are: CSV, or one JSON object a line.

    Args:
        advance: told of each entry that is written.
    """
    writer = csv.DictWriter(file, FIELDS)
    if as_csv:
        writer.writeheader()
    for each in mailboxes:
        row = msgspec.to_builtins(each)
        if each.address.startswith("@"):
            row["catch_all"] = each.catch_all
        if as_csv:
            row |= {} if each.separator else {"separator": NO_SEPARATOR}
            writer.writerow({name: _without_formula(cell) for name, cell in row.items()})
        else:
            file.write(msgspec.json.encode(row).decode() + "\n")
        advance(1)
