"""Where something stands in a policy's text: tomllib's tables come without their lines."""

import re
import tomllib
from collections.abc import Iterable, Iterator
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


_DEEPEST = 10
"""Steps; no value of a policy is further in."""


def lines_of(text: str) -> dict[Steps, int]:
    """Where each value of a TOML text begins, in one pass: the first line of its statement.

    Args:
        text: one that tomllib takes.

    Returns:
        By the way to it, tables and what is in arrays included; what is over ten steps in has none.
    """
    lines: dict[Steps, int] = {}
    tables: dict[Steps, int] = {}  # of arrays: how many headers there were
    here: Steps = ()
    for line, statement in _statements(text):
        try:
            parsed = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if statement.lstrip().startswith("["):
            here = _opened(parsed, tables)
            for count in range(1, len(here) + 1):
                lines.setdefault(here[:count], line)
        else:
            _enter(parsed, here, line, lines)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each with the number of its first line."""
    # Of the same length, so that the places are those of the text.
    plain = _OPAQUE.sub(lambda found: ("#" if found[0][0] == "#" else "_") * len(found[0]), text)
    start = end = depth = 0
    first = number = 1
    for line in plain.split("\n"):
        end += len(line) + 1
        depth += sum(map(line.count, "[{")) - sum(map(line.count, "]}"))
        number += text.count("\n", end - len(line) - 1, end)
        if depth <= 0:
            if statement := text[start:end].strip():
                yield first, statement
            start, first, depth = end, number, 0


def _opened(header: Any, tables: dict[Steps, int]) -> Steps:
    """The way to the table that a header opens: of an array's, its newest."""
    steps: Steps = ()
    while header:
        ((name, header),) = header.items()
        steps = (*steps, name)
        if isinstance(header, list):
            tables[steps] = tables.get(steps, 0) + 1
            header = None
        if steps in tables:
            steps = (*steps, tables[steps] - 1)
    return steps


def _enter(value: Any, steps: Steps, line: int, lines: dict[Steps, int]) -> None:
    if steps:
        lines.setdefault(steps, line)
    if len(steps) < _DEEPEST:
        inner: Iterable[tuple[str | int, Any]] = ()
        if isinstance(value, dict):
            inner = value.items()
        elif isinstance(value, list):
            inner = enumerate(value)
        for step, each in inner:
            _enter(each, (*steps, step), line, lines)


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
