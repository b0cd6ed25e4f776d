"""What a template prints: text, of bounded length, that does nothing.

Every `{{ … }}` of every template passes `shown` (Jinja's `finalize`) and then Jinja's escaping, so
there is no value that somebody could forget.
"""

import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, Undefined
from markupsafe import Markup

from bouncer_console.output import printable

LIMIT = 500
"""Characters of one value; what a header says in ten thousand nobody reads in a table."""
LONG_LIMIT = 200_000
"""Of a value that is asked for as a whole: a policy, a DSN, a request."""

_LINES = re.compile(r"\r\n?")
_MARKS = re.compile(
    r"([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{3})"
    r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+"
)
"""Marks piled on one letter, which would cover the lines around it."""


class Whole(str):
    """A text that is shown as a whole, with its lines."""

    __slots__ = ()


class Verbatim(str):
    """What goes back into a form's field as it came out of it."""

    __slots__ = ()


class Url(str):
    """An address of ours, made by `link`."""

    __slots__ = ()


def shown(value: Any) -> Any:
    """A value as a template may print it."""
    if isinstance(value, Markup | Undefined | Url):
        return value
    if value is None:
        return ""
    if isinstance(value, Verbatim):
        return str(value)
    if isinstance(value, Whole):
        lines = _LINES.sub("\n", value[:LONG_LIMIT]).split("\t")
        return _bounded("\t".join(map(_plain, lines)), len(value), LONG_LIMIT)
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    text = str(value)
    return _bounded(_plain(text[:LIMIT]), len(text), LIMIT)


def _plain(text: str) -> str:
    return _MARKS.sub(r"\1", printable(text))


def _bounded(text: str, length: int, limit: int) -> str:
    return text if length <= limit else f"{text} … ({length:,} characters)"


def link(path: str, **query: Any) -> Url:
    """An address of this page; a value of None or "" is left out.

    Args:
        path: begins with a slash; what a mail says goes into `query`, or through `quoted`.
    """
    given = {name: str(value) for name, value in query.items() if value not in (None, "")}
    return Url(f"{path}?{urlencode(given, errors='replace')}" if given else path)


def quoted(text: str) -> str:
    """A segment of a path."""
    return quote(text, safe="", errors="replace")


def size(value: int | None) -> str:
    """Bytes for people, in the units of the policy: 1 MB is 1,000,000 bytes."""
    if value is None:
        return ""
    amount = float(value)
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(amount) < 1000:
            return f"{amount:,.0f} {unit}" if unit == "bytes" else f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:,.4g} TB"


def duration(value: timedelta | float | None) -> str:
    """A span of time in its two largest units."""
    if value is None:
        return ""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    left = int(max(0, seconds))
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def number(value: float | None) -> str:
    return "" if value is None else f"{value:,}"


def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("bouncer_console.web"),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: Mapping[str, Any] = {
        "whole": Whole,
        "verbatim": Verbatim,
        "size": size,
        "duration": duration,
        "number": number,
        "sh": shlex.quote,
    }
    made.filters.update(filters)
    made.globals.update(link=link)
    return made
