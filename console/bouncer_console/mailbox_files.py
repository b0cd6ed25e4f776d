"""Files of mailboxes, read and written a line at a time: JSON, JSON Lines or CSV."""

import codecs
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import ijson
import msgspec

from bouncer.address import normalise
from bouncer.aws.mailbox_table import MailboxEntry
from bouncer.mailboxes import EntryError, Mailbox, check_entry, from_fields

FIELDS = Mailbox.__struct_fields__

NO_SEPARATOR = "none"
"""How a CSV cell says that there are no tags; an empty one takes the default."""


class MailboxFileError(ValueError):
    """An entry is wrong; the text names the file, the entry and the mend."""


def read_mailboxes(path: Path) -> Iterator[Mailbox]:
    """The mailboxes of a file; see `read_entries`."""
    return (entry.mailbox for entry in read_entries(path))


def read_entries(path: Path) -> Iterator[MailboxEntry]:
    """The entries of a file, one after the other; the file is never whole in memory.

    Raises:
        MailboxFileError: the file or an entry is unreadable, or has an unknown field.
    """
    reader = _csv if path.suffix.lower() == ".csv" else _json
    try:
        for number, fields in reader(path):
            yield _entry(fields, f"{path}: entry {number}")
    except UnicodeDecodeError as error:
        raise MailboxFileError(f"{path} is not UTF-8: save it as UTF-8") from error
    except csv.Error as error:
        raise MailboxFileError(f"{path} is not CSV: {error}; is a quote left open?") from error


def _entry(fields: dict[str, Any], where: str) -> MailboxEntry:
    unknown = fields.keys() - set(FIELDS)
    if unknown:
        raise MailboxFileError(
            f"{where}: no field is called {', '.join(sorted(unknown))}; "
            f"there are: {', '.join(FIELDS)}"
        )
    try:
        given = from_fields({name: value for name, value in fields.items() if value is not None})
        check_entry(given)
    except (msgspec.ValidationError, EntryError) as error:
        raise MailboxFileError(f"{where}: {error}") from error
    mailbox = msgspec.structs.replace(given, address=normalise(given.address))
    return MailboxEntry(mailbox=mailbox, named=frozenset(fields))


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.DictReader(file, strict=True), 1):
            if None in row:
                raise MailboxFileError(f"{path}: entry {number} has more cells than the header")
            yield number, {name: _cell(name, value or "") for name, value in row.items()}


def _cell(name: str, text: str) -> str | bool | None:
    text = text.strip()
    if name == "separator" and text == NO_SEPARATOR:
        return ""
    return {"": None, "true": True, "false": False}.get(text.lower(), text)


def _json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        begin = file.read(1024)
        bom = begin.startswith(codecs.BOM_UTF8)
        lines = begin.removeprefix(codecs.BOM_UTF8).lstrip()[:1] != b"["
        file.seek(len(codecs.BOM_UTF8) if bom else 0)
        items = ijson.items(file, "" if lines else "item", multiple_values=lines, use_float=True)
        try:
            for number, item in enumerate(items, 1):
                if not isinstance(item, dict):
                    raise MailboxFileError(f"{path}: entry {number} is not an object")
                yield number, item
        except ijson.JSONError as error:
            raise MailboxFileError(f"{path} is not JSON: {error}") from error


def write_mailboxes(mailboxes: Iterable[Mailbox], file: TextIO, *, as_csv: bool) -> None:
    """Write entries as `read_mailboxes` takes them: CSV, or one JSON object a line."""
    if as_csv:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for each in mailboxes:
            row = msgspec.to_builtins(each)
            writer.writerow(row | ({} if each.separator else {"separator": NO_SEPARATOR}))
        return
    for each in mailboxes:
        file.write(msgspec.json.encode(each).decode() + "\n")
