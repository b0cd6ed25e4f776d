"""Texts of a policy: named variables, and cleaning of what comes from the mail.

Whoever writes a mail chooses its addresses and headers, so nothing of it reaches a DSN
unchecked: no line breaks (header injection), no control characters, 7 bit, bounded length.
"""

import string
import unicodedata
from collections.abc import Mapping

VARIABLES: Mapping[str, str] = {
    "recipient": "the envelope recipient",
    "domain": "the recipient's domain",
    "sender": "the envelope sender",
    "subject": "the mail's Subject header",
    "message_id": "SES's id of the mail",
    "received_at": "when SES received the mail, in UTC",
    "size": "the mail's size, such as 12.3 MB",
    "limit": "the size limit that the mail exceeds",
    "quota": "the mailbox's quota",
    "used": "how much of its quota the mailbox uses",
    "new_address": "where the mailbox moved to",
    "rule": "the name of the rule that decided",
}

_UNITS = ("kB", "MB", "GB", "TB")

# The longest value that a variable is filled with: an address (RFC 5321 §4.5.3.1.3).
_VALUE_LIMIT = 256


class TextError(ValueError):
    """A text in a policy is wrong; the message says what and how to mend it."""


def check_template(text: str) -> None:
    """Refuse a text that could not be filled or sent.

    Raises:
        TextError: an unknown variable, a stray brace, a line break or a non-ASCII character.
    """
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError as error:
        raise TextError(f"{error}; write {{{{ and }}}} for literal braces") from error
    for _, name, spec, conversion in fields:
        if name is None:
            continue
        if name not in VARIABLES:
            known = ", ".join(VARIABLES)
            raise TextError(f"no variable is called {{{name}}}; there are: {known}")
        if spec or conversion:
            raise TextError(f"write {{{name}}} alone, without `!` or `:`")
    check_line(text)


def check_line(text: str) -> None:
    """Refuse what may not stand in one line of a DSN (RFC 3464 §2.1: 7-bit US-ASCII)."""
    for character in text:
        if character in "\r\n":
            raise TextError("a line break is not allowed: write it as one line")
        if not character.isascii() or not character.isprintable():
            raise TextError(
                f"{character!r} is not allowed: SES takes printable 7-bit ASCII; spell it in ASCII"
            )


def clean(value: str, limit: int = _VALUE_LIMIT) -> str:
    """Untrusted text as one line of printable ASCII of at most `limit` characters."""
    if len(value) <= limit and value.isascii() and value.isprintable():
        return " ".join(value.split())
    folded = unicodedata.normalize("NFKD", value[: limit * 4])
    line = " ".join("".join(_printable(character) for character in folded).split())
    return line if len(line) <= limit else line[: limit - 3].rstrip() + "..."


def _printable(character: str) -> str:
    if unicodedata.combining(character):
        return ""  # the accent that NFKD split off its letter
    if character.isspace() or not character.isprintable():
        return " "
    return character if character.isascii() else "?"


def fill(template: str, values: Mapping[str, str]) -> str:
    """The text with its variables; one that has no value for this mail becomes `(unknown)`."""
    return template.format_map(_Cleaned(values))


class _Cleaned(dict[str, str]):
    """Cleans a value when a text asks for it."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__()
        self._values = values

    def __missing__(self, name: str) -> str:
        return clean(self._values.get(name) or "(unknown)")


def in_units(size: int | None) -> str:
    """Bytes as a person reads them, in decimal units: 999 bytes, 12.3 MB."""
    if size is None:
        return ""
    if size < 1000:
        return f"{size} bytes"
    exponent = min((len(str(size)) - 1) // 3, len(_UNITS))
    return f"{size / 1000**exponent:.1f} {_UNITS[exponent - 1]}".replace(".0 ", " ")
