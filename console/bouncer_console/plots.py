"""Plots as pictures that need nothing else: SVG in a `data:` address, for light and for dark."""

import base64
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec
from markupsafe import Markup

from bouncer.text import clean
from bouncer_console.facts.totals import OverTime

_LEGEND_LIMIT = 28


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A plot for `<picture>`."""

    light: Markup
    """A `data:` address."""
    dark: Markup
    alt: str
    """What it shows, for who can't see it."""
    width: int
    height: int
    """In CSS pixels."""


class Size(NamedTuple):
    """A picture's, in inches; its letters stay as large as they are."""

    width: float
    height: float
    names: int
    """Of the legend, in a row."""


WIDE = Size(8, 2.6, 4)
HALF = Size(5, 3, 3)
"""For two beside each other, and to be read on a telephone."""


def columns(over: OverTime, *, title: str, size: Size = WIDE) -> Picture:
    """Stacked columns, one a stretch of time."""
    per, labels = _span(over), [_label(each.name) for each in over.series]
    told = ", ".join(
        f"{label} {sum(each.counts):,} (at most {max(each.counts):,})"
        for label, each in zip(labels, over.series, strict=True)
    )
    return _picture(
        lambda drawing, figure: drawing.columns(
            figure, over, labels=labels, per=per, names=size.names
        ),
        size,
        f"{title}, per {per}: {told or 'nothing'}",
    )


def bars(values: Mapping[str, int], *, title: str, size: Size = WIDE) -> Picture:
    """A bar a name, in the order that they have."""
    labelled = [(_label(name), value) for name, value in values.items()]
    told = ", ".join(f"{label} {value:,}" for label, value in labelled)
    return _picture(
        lambda drawing, figure: drawing.bars(figure, labelled),
        size,
        f"{title}: {told or 'nothing'}",
    )


def _picture(draw: Callable[[Any, Any], None], size: Size, alt: str) -> Picture:
    from bouncer_console import drawing  # noqa: PLC0415  (matplotlib takes a second)

    light, dark = drawing.svg(partial(draw, drawing), size.width, size.height)
    return Picture(
        light=_address(light),
        dark=_address(dark),
        alt=alt,
        width=round(size.width * 96),
        height=round(size.height * 96),
    )


def _address(svg: str) -> Markup:
    encoded = base64.b64encode(svg.encode()).decode()
    return Markup(f"data:image/svg+xml;base64,{encoded}")  # noqa: S704  (letters and digits)


def _label(name: str) -> str:
    """A name in a legend: short, in letters that every font has, not of those it leaves out."""
    text = clean(name, _LEGEND_LIMIT) or "unknown"
    return f" {text}" if text.startswith("_") else text


def _span(over: OverTime) -> str:
    seconds = int(over.width.total_seconds())
    for unit, length in (("week", 604_800), ("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds % length == 0:
            count = seconds // length
            return unit if count == 1 else f"{count} {unit}s"
    return f"{seconds} seconds"
