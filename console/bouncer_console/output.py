"""What a command prints: a table for people, JSON for programs, errors on stderr."""

import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import msgspec
import typer
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from bouncer.mailboxes import moment_of

_LINE_EVERY_SECONDS = 2.0
_ROOMY = 120
"""Columns; an id and a time take half of them."""
_WORTH_A_LINE = 1000
"""Fewer steps than these are done before anybody wonders how far it is."""


def _option(text: str) -> datetime:
    try:
        return moment_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


MOMENT: dict[str, Any] = {"parser": _option, "metavar": "TIME"}
"""For a typer.Option that takes a time."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class _Screen(Console):
    """Shows what others wrote as it is, and does nothing that it says.

    Everything that is printed passes here as segments: what is not printable (C0, C1, escapes,
    bidi overrides, invisible characters) is spelt out, and nothing is read as rich's markup.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(
            each if each.control else each._replace(text=printable(each.text)) for each in buffer
        )


# Redirected output has no width of its own, and 80 columns would fold most cells.
screen = _Screen(width=None if sys.stdout.isatty() else 160)
errors = _Screen(stderr=True)


def roomy() -> bool:
    """Whether a table with an id of SES's in it can be read."""
    return screen.width >= _ROOMY


def print_json(value: Any) -> None:
    """On stdout, uncoloured, for the next program."""
    typer.echo(_json_text(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2)))


def _json_text(encoded: bytes) -> str:
    """The same JSON, with what a terminal might act on as escapes."""
    text = encoded.decode()
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text
    )


def print_json_line(value: Any) -> None:
    """One of many, each in a line of its own."""
    typer.echo(_json_text(msgspec.json.encode(value, enc_hook=str)))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    whole: Collection[str] = (),
) -> None:
    """
    Args:
        whole: columns whose text somebody copies: it stays in one line, where there is room.
    """
    table = Table(
        title=Text(title) if title else None,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
    )
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in whole and roomy())
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(_cell(cell)) for cell in row))
    screen.print(table)


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def say(text: str, style: str = "") -> None:
    screen.print(Text(text, style=style), soft_wrap=True)


def report(text: str, as_json: bool, **fields: Any) -> None:
    """What was done: a sentence for people, or its facts."""
    if as_json:
        print_json(fields)
    else:
        say(text, "green")


def note(text: str) -> None:
    """Progress and hints: on stderr, so that they never mix with the answer."""
    errors.print(Text(text, style="dim"), soft_wrap=True)


def ask(question: str, *, yes: bool) -> None:
    """Go on only if a person, or the flag --yes, says so."""
    if not yes and not typer.confirm(printable(question).replace("\n", " "), err=True):
        raise typer.Exit(1)


def say_mail(text: str) -> None:
    """A mail on stdout, its lines as they are."""
    typer.echo("\r\n".join(map(printable, text.split("\r\n"))))


def fail(text: str, code: int = 1) -> NoReturn:
    errors.print(Text(text, style="red"), soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def plain_errors(*expected: type[Exception]) -> Iterator[None]:
    """Turn what a person can mend into one clear line instead of a traceback."""
    mendable: tuple[type[Exception], ...] = (*expected, ClientError, BotoCoreError, OSError)
    try:
        yield
    except NoRegionError:
        fail("no AWS Region is known here: name it with --region, or set AWS_REGION")
    except NoCredentialsError:
        fail("no AWS credentials are known here: set AWS_PROFILE, or run `aws configure`")
    except mendable as error:
        fail(str(error))


def _in_place(path: Path) -> bool:
    """Whether it is no file that can be replaced: /dev/stdout leads to one where it is redirected,
    and is none."""
    folder = path.parent.resolve()
    of_the_system = folder == Path("/dev") or folder.is_relative_to("/proc")
    return of_the_system or (path.exists() and not path.is_file())


@contextmanager
def written(path: Path) -> Iterator[TextIO]:
    """A file of people's addresses: its owner's alone, and whole or not there.

    What stands there stays until all is written, and a link is replaced, not followed: the folder
    may be everybody's. What is no file, such as /dev/stdout, is written to as it is, behind what
    it has.

    Raises:
        OSError: it cannot be written.
    """
    if _in_place(path):
        with path.open("a", newline="", encoding="utf-8") as file:
            yield file
        return
    descriptor, half = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "w", newline="", encoding="utf-8") as file:
            yield file
        Path(half).replace(path)
    except BaseException:
        Path(half).unlink(missing_ok=True)
        raise


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """How far it is, on stderr: a bar where that is a terminal, else a line now and then.

    Yields:
        A function to call with the steps done.
    """
    if not errors.is_terminal:
        yield from _progress_lines(what, total)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda steps: bar.advance(task, steps)


def _progress_lines(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    done = 0
    said = time.monotonic()
    of = "" if total is None else f" of {total:,}"

    def advance(steps: int) -> None:
        nonlocal done, said
        done += steps
        if time.monotonic() - said >= _LINE_EVERY_SECONDS:
            said = time.monotonic()
            note(f"{what}: {done:,}{of}")

    try:
        yield advance
    finally:
        if done >= _WORTH_A_LINE:
            note(f"{what}: {done:,}{of}")


def stream_json(values: Iterable[Any]) -> None:
    """A JSON list on stdout, written as its items come."""
    separator = "["
    for each in values:
        typer.echo(separator)
        typer.echo(_json_text(msgspec.json.encode(each, enc_hook=str)), nl=False)
        separator = ","
    typer.echo("[]" if separator == "[" else "\n]")


def stream_table(columns: Sequence[tuple[str, int]], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout, written as its rows come, so with widths that are known beforehand."""
    widths = [width for _, width in columns]
    header = [name for name, _ in columns]
    for row in itertools.chain((header, ["-" * width for width in widths]), rows):
        cells = (printable(_cell(cell)).replace("\n", "\\n") for cell in row)
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        typer.echo(line.rstrip())


def clock_time(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC") if moment else ""


def span(duration: timedelta) -> str:
    """So long, in two units at most."""
    seconds = max(0, round(duration.total_seconds()))
    days, hours = divmod(seconds // 3600, 24)
    minutes = seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min" if minutes else f"{seconds} s"


def printable(text: str) -> str:
    """Text that moves no cursor, turns no direction and sets no title; lines stay lines."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text
    )
