"""Plots as pictures that need nothing else: SVG in a `data:` address, for light and for dark.

matplotlib takes a second to load, so whoever draws imports this module late.
"""

import base64
import io
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import matplotlib as mpl
import msgspec
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from bouncer.text import clean
from bouncer_console.facts.totals import OverTime

_LEGEND_LIMIT = 28
_INK, _FAINT = "#1f2328", "#dcd8d0"
_SERIES = (
    "#0b5c6b", "#c45100", "#3b7d2a", "#8a4fa3", "#b08900", "#2f6fc4", "#a3241c", "#6b7078",
)  # fmt: skip
_DARK = {
    _INK: "#e6e3dd",
    _FAINT: "#4a5056",
    **dict(
        zip(
            _SERIES,
            (
                "#5cc0d3",
                "#f0954f",
                "#8ccf74",
                "#c79be0",
                "#e3c04f",
                "#86b5f5",
                "#ff9e94",
                "#a3a9b0",
            ),
            strict=True,
        )
    ),
}
"""What each colour is on dark paper."""
_IN_THE_DARK = re.compile("|".join(_DARK))
_RC: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "ses-bouncer",
    "text.parse_math": False,  # a name in the legend may hold dollars
    "font.family": "sans-serif",
    "font.size": 9,
}
_DRAWING = threading.Lock()  # matplotlib's settings are the process's


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
    told = ", ".join(
        f"{_label(each.name)} {sum(each.counts):,} (at most {max(each.counts):,})"
        for each in over.series
    )
    return _picture(
        lambda figure: _draw_columns(figure, over, size),
        size,
        f"{title}, per {_span(over)}: {told or 'nothing'}",
    )


def bars(values: Mapping[str, int], *, title: str, size: Size = WIDE) -> Picture:
    """A bar a name, in the order that they have."""
    told = ", ".join(f"{_label(name)} {value:,}" for name, value in values.items())
    return _picture(
        lambda figure: _draw_bars(figure, values), size, f"{title}: {told or 'nothing'}"
    )


def _picture(draw: Callable[[Figure], None], size: Size, alt: str) -> Picture:
    with _DRAWING, mpl.rc_context(_RC):
        figure = Figure(figsize=(size.width, size.height), layout="constrained")
        draw(figure)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    light = drawn.getvalue()
    return Picture(
        light=_address(light),
        dark=_address(_IN_THE_DARK.sub(lambda colour: _DARK[colour[0]], light)),
        alt=alt,
        width=round(size.width * 96),
        height=round(size.height * 96),
    )


def _draw_bars(figure: Figure, values: Mapping[str, int]) -> None:
    axes = figure.add_subplot()
    axes.bar(range(len(values)), list(values.values()), color=_SERIES[0], width=0.8)
    axes.set_xticks(range(len(values)), [_label(each) for each in values])
    axes.set_ylim(0, max(1, *values.values()) * 1.1 if values else 1)
    _furnish(axes)


def _draw_columns(figure: Figure, over: OverTime, size: Size) -> None:
    axes = figure.add_subplot()
    edges = [date2num(each) for each in (*over.starts, over.starts[-1] + over.width)]
    below = [0] * len(edges)
    for number, series in enumerate(over.series):
        # One shape a series: a bar a column takes seconds to draw.
        above = [a + b for a, b in zip(below, (*series.counts, series.counts[-1]), strict=True)]
        colour = _SERIES[min(number, len(_SERIES) - 1)]
        label = _label(series.name)
        axes.fill_between(edges, below, above, step="post", color=colour, lw=0, label=label)
        below = above
    locator = AutoDateLocator(maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, max(max(below) * 1.1, 1))
    axes.set_ylabel(f"per {_span(over)}", color=_INK)
    axes.xaxis.get_offset_text().set_color(_INK)
    _furnish(axes)
    if over.series:
        figure.legend(
            loc="outside upper left",
            ncols=size.names,
            frameon=False,
            labelcolor=_INK,
            fontsize=8,
            handlelength=1,
            columnspacing=1,
        )


def _furnish(axes: Axes) -> None:
    """What every plot has: whole numbers, a quiet grid, ink of the page."""
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="y", color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_FAINT)


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
