"""Where something stands in a policy's text: tomllib's tables come without their lines."""

import re
from collections.abc import Iterator

# A string of any of TOML's four kinds, or a comment: whatever stands in them is no table.
_OPAQUE = re.compile(
    r'"""(?:[^\\]|\\.)*?(?:"""(?!")|\Z)'
    r"|'''.*?(?:'''(?!')|\Z)"
    r'|"(?:[^"\\\n]|\\.)*(?:"|$)'
    r"|'[^'\n]*(?:'|$)"
    r"|#[^\n]*",
    re.DOTALL | re.MULTILINE,
)
_RULES = re.compile(r"""^[ \t]*\[\[[ \t]*(?:rules|"rules"|'rules')[ \t]*\]\]""", re.MULTILINE)


def _without_values(text: str) -> str:
    """The text with its strings and comments blanked out, except a table's quoted name."""

    def blank(found: re.Match[str]) -> str:
        if found[0].strip("\"'") == "rules":
            return found[0]
        return re.sub(r"[^\n]", " ", found[0])

    return _OPAQUE.sub(blank, text)


def rule_lines(text: str) -> list[int]:
    """The line of each `[[rules]]` table of a TOML text, whatever its spacing and comments."""
    plain = _without_values(text)
    return [plain.count("\n", 0, found.start()) + 1 for found in _RULES.finditer(plain)]


def unclosed_string(text: str) -> int | None:
    """The line where a string begins that does not end, or None."""
    return next(_unclosed(text), None)


def _unclosed(text: str) -> Iterator[int]:
    for found in _OPAQUE.finditer(text):
        string = found[0]
        if string.startswith("#"):
            continue
        quote = string[:3] if string[:3] in ('"""', "'''") else string[0]
        if len(string) < 2 * len(quote) or not string.endswith(quote):
            yield text.count("\n", 0, found.start()) + 1
