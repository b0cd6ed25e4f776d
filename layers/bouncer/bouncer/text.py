"""Texts of a policy: named variables, and cleaning of what comes from the mail.

Whoever writes a mail chooses its addresses and headers, so nothing of it reaches a DSN
unchecked: no line breaks (header injection), no control characters, 7 bit, bounded length.
"""

import string
from collections.abc import Iterable, Mapping

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

_UNITS = ("bytes", "kB", "MB", "GB", "TB")

# The longest value that a variable is filled with: an address (RFC 5321 §4.5.3.1.3).
_VALUE_LIMIT = 256


class TextError(ValueError):
    """A text in a policy is wrong; the message says what and how to mend it."""


def check_template(text: str, *, lines: bool = False) -> None:
    """Refuse a text that could not be filled or sent.

    Args:
        lines: whether it may have line breaks.

    Raises:
        TextError: an unknown variable, a stray brace, a control character or a line break.
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
    plain = in_ascii(text)
    check_lines(plain) if lines else check_line(plain)


def check_line(text: str) -> None:
    """Refuse what may not stand in one line of a DSN (RFC 3464 §2.1: 7-bit US-ASCII)."""
    if text.isascii() and text.isprintable():
        return
    for character in text:
        if character in "\r\n":
            raise TextError("a line break is not allowed: write it as one line")
        _check_character(character)


def check_lines(text: str) -> None:
    """Refuse what may not stand in SendBounce's Explanation: it may have several lines."""
    if text.isascii() and text.replace("\r", "").replace("\n", "").isprintable():
        return
    for character in text:
        if character not in "\r\n":
            _check_character(character)


def _check_character(character: str) -> None:
    if not character.isascii() or not character.isprintable():
        raise TextError(
            f"{character!r} is not allowed: SES takes printable 7-bit ASCII; spell it in ASCII"
        )


def in_ascii(text: str) -> str:
    """A text in the letters that a 7-bit DSN can hold, transliterated where need be.

    Control characters stay, for whoever looks at it to refuse or to clean.
    """
    if text.isascii():
        return text
    from anyascii import anyascii  # noqa: PLC0415  (only a non-ASCII text has to pay for it)

    return anyascii(text)


def clean(value: str, limit: int = _VALUE_LIMIT) -> str:
    """Untrusted text as one line of printable ASCII of at most `limit` characters."""
    if len(value) <= limit and value.isascii() and value.isprintable():
        return " ".join(value.split())
    plain = in_ascii(value[: limit * 4])
    line = " ".join("".join(c if c.isprintable() and c.isascii() else " " for c in plain).split())
    return line if len(line) <= limit else line[: limit - 3].rstrip() + "..."


def clean_lines(text: str, limit: int) -> str:
    """The same of a text that may have several lines, which end in CR LF."""
    lines = (clean(line, limit) for line in text[: limit * 4].splitlines())
    return joined_lines(lines, limit)


def joined_lines(lines: Iterable[str], limit: int) -> str:
    """As many of the lines as fit; the first is cut if it does not."""
    text = ""
    for line in lines:
        longer = f"{text}\r\n{line}" if text else line
        if len(longer) > limit:
            return text.rstrip() or line[: limit - 3].rstrip() + "..."
        text = longer
    return text.rstrip()


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


def in_units(size: int | None, decimals: int = 1) -> str:
    """Bytes as a person reads them, in decimal units: 999 bytes, 12.3 MB."""
    if size is None:
        return ""
    for exponent, unit in enumerate(_UNITS):
        number = f"{size / 1000**exponent:.{decimals if exponent else 0}f}"
        # 999,950 is 1000.0 kB when rounded: that is 1 MB.
        if float(number) < 1000 or unit == _UNITS[-1]:
            short = number.rstrip("0").rstrip(".") if "." in number else number
            return f"{short} {unit}"
    raise AssertionError


_EXACT = 4  # decimals with which two sizes that are still alike are written out


def apart(sizes: Mapping[str, int | None]) -> dict[str, str]:
    """Several sizes for one text, so that those that differ read differently.

    25,000,001 bytes and a limit of 25 MB are not "25 MB" both.
    """
    wanted = len({*sizes.values()})
    for decimals in range(1, _EXACT):
        written = {name: in_units(size, decimals) for name, size in sizes.items()}
        if len({*written.values()}) == wanted:
            return written
    return {name: "" if size is None else f"{size:,} bytes" for name, size in sizes.items()}
