"""Plots drawn by matplotlib, which takes a second to load: bouncer_console.plots does so late."""

import io
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from bouncer_console.facts.totals import OverTime

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


def columns(figure: Figure, over: OverTime, *, labels: Sequence[str], per: str, names: int) -> None:
    """
    Args:
        labels: of each series.
        per: what one column is.
        names: of the legend, in a row.
    """
    axes = figure.add_subplot()
    edges = [date2num(each) for each in (*over.starts, over.starts[-1] + over.width)]
    below = [0] * len(edges)
    for number, (series, label) in enumerate(zip(over.series, labels, strict=True)):
        # One shape a series: a bar a column takes seconds to draw.
        above = [a + b for a, b in zip(below, (*series.counts, series.counts[-1]), strict=True)]
        colour = _SERIES[min(number, len(_SERIES) - 1)]
        axes.fill_between(edges, below, above, step="post", color=colour, lw=0, label=label)
        below = above
    locator = AutoDateLocator(maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, max(max(below) * 1.1, 1))
    axes.set_ylabel(f"per {per}", color=_INK)
    axes.xaxis.get_offset_text().set_color(_INK)
    _furnish(axes)
    if over.series:
        figure.legend(
            loc="outside upper left",
            ncols=names,
            frameon=False,
            labelcolor=_INK,
            fontsize=8,
            handlelength=1,
            columnspacing=1,
        )


def bars(figure: Figure, labelled: Sequence[tuple[str, int]]) -> None:
    """A bar a label, in the order that they have."""
    values = [value for _, value in labelled]
    axes = figure.add_subplot()
    axes.bar(range(len(values)), values, color=_SERIES[0], width=0.8)
    axes.set_xticks(range(len(values)), [label for label, _ in labelled])
    axes.set_ylim(0, max([1, *values]) * 1.1)
    _furnish(axes)


def svg(draw: Callable[[Figure], None], width: float, height: float) -> tuple[str, str]:
    """A plot of so many inches, for light and for dark paper."""
    with _DRAWING, mpl.rc_context(_RC):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    light = drawn.getvalue()
    return light, _IN_THE_DARK.sub(lambda colour: _DARK[colour[0]], light)


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
