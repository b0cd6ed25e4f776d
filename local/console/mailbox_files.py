"""Files of mailboxes, read and written a line at a time: JSON, JSON Lines or CSV."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import ijson
import msgspec

from bouncer.address import normalise
from bouncer.mailboxes import Mailbox

FIELDS = Mailbox.__struct_fields__


class MailboxFileError(ValueError):
    """An entry is wrong; the text names the file, the entry and the mend."""


def read_mailboxes(path: Path) -> Iterator[Mailbox]:
    """The entries of a file, one after the other; the file is never whole in memory.

    Raises:
        MailboxFileError: an entry is unreadable, or has an unknown field.
    """
    reader = _csv if path.suffix.lower() == ".csv" else _json
    for number, fields in reader(path):
        where = f"{path}: entry {number}"
        unknown = fields.keys() - set(FIELDS)
        if unknown:
            raise MailboxFileError(
                f"{where}: no field is called {', '.join(sorted(unknown))}; "
                f"there are: {', '.join(FIELDS)}"
            )
        try:
            mailbox = msgspec.convert(fields, Mailbox, strict=False)
        except msgspec.ValidationError as error:
            raise MailboxFileError(f"{where}: {error}") from error
        if "@" not in mailbox.address:
            raise MailboxFileError(f"{where}: address {mailbox.address!r}: write user@domain")
        yield msgspec.structs.replace(mailbox, address=normalise(mailbox.address))


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.DictReader(file), 1):
            if None in row:
                raise MailboxFileError(f"{path}: entry {number} has more cells than the header")
            yield number, {name: _cell(value) for name, value in row.items() if value}


def _cell(value: str) -> str | bool:
    return {"true": True, "false": False}.get(value.strip().lower(), value.strip())


def _json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        lines = file.read(1) != b"["
        file.seek(0)
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
        writer.writerows(msgspec.to_builtins(each) for each in mailboxes)
        return
    for each in mailboxes:
        file.write(msgspec.json.encode(each).decode() + "\n")
