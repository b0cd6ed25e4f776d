"""Where something stands in a policy's text: tomllib's tables come without their lines."""

import re
import tomllib
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

# A string of any of TOML's four kinds, or a comment: whatever stands in them is no table.
_OPAQUE = re.compile(
    r'"""(?:[^\\]|\\.)*?(?:"""(?!")|\Z)'
    r"|'''.*?(?:'''(?!')|\Z)"
    r'|"(?:[^"\\\n]|\\.)*(?:"|$)'
    r"|'[^'\n]*(?:'|$)"
    r"|#[^\n]*",
    re.DOTALL | re.MULTILINE,
)
type Steps = tuple[str | int, ...]
"""The way to a value: names of tables and keys, places in arrays."""

# One step at the beginning of a text: [3], "quoted" or a word, and what parts it from the next.
_STEP = re.compile(r'\.?(?:\[(?P<index>[0-9]+)\]|"(?P<quoted>[^"]*)"|(?P<word>\w+)):? ?')


def line_of(text: str, steps: Steps) -> int | None:
    """The line where the statement begins that makes a value of a TOML text, or None.

    Nothing in tables as they are parsed tells lines, so this is the shortest beginning of the
    text that holds the value.
    """
    lines = text.splitlines(keepends=True)

    def holds(count: int) -> bool:
        for end in range(count, len(lines) + 1):  # further, where a statement goes on
            try:
                raw = tomllib.loads("".join(lines[:end]))
            except tomllib.TOMLDecodeError:
                continue
            return len(reached(raw, steps)) == len(steps)
        return False

    found = bisect_left(range(1, len(lines) + 1), True, key=holds)
    return found + 1 if steps and found < len(lines) else None


def reached(raw: Any, steps: Steps) -> Steps:
    """As many of the steps as lead to something."""
    for count, step in enumerate(steps):
        in_array = isinstance(raw, list) and isinstance(step, int) and step < len(raw)
        if in_array or (isinstance(raw, dict) and step in raw):
            raw = raw[step]
        else:
            return steps[:count]
    return steps


def steps_of(problem: str, raw: Any) -> Steps:
    """The value that a problem's text begins with, such as `rules[3] "spam": explanation`.

    Args:
        raw: the parsed text; what is not in it is no step, and a rule's name none after its place.
    """
    steps: Steps = ()
    at = 0
    while found := _STEP.match(problem, at):
        at = found.end()
        step = int(found["index"]) if found["index"] else found["quoted"] or found["word"]
        if found["quoted"] and steps and isinstance(steps[-1], int):
            continue
        if len(reached(raw, (*steps, step))) > len(steps):
            steps = (*steps, step)
        elif found["word"]:
            break
    return steps


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
