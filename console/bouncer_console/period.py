"""How far back a command looks."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import typer

from bouncer.mailboxes import moment_of

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LENGTH = re.compile(r"\s*([0-9]{1,6})\s*([mhdw])\s*", re.ASCII)


def moment_before(text: str, now: datetime) -> datetime:
    """The moment that a text names: so long ago (`90m`, `24h`, `7d`, `2w`), or ISO 8601.

    Raises:
        ValueError: it is neither.
    """
    if (length := _LENGTH.fullmatch(text)) is not None:
        try:
            return now - timedelta(**{_UNITS[length[2]]: int(length[1])})
        except OverflowError as error:
            raise ValueError(f"{text!r} is before the calendar begins") from error
    try:
        return moment_of(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is neither as 24h, 90m or 7d, nor a time: {error}") from error


def _option(text: str) -> datetime:
    try:
        return moment_before(text, datetime.now(UTC))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


BACK: dict[str, Any] = {"parser": _option, "metavar": "24h|TIME"}
"""For a typer.Option that takes a moment, or how long ago it was."""
A_DAY: Any = "24h"
"""Its default; the parser makes it a moment."""
