"""Plots as pictures in the page: made here, once for light and once for dark, without a script."""

import base64
import io
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from bouncer_console.glance import Series
from bouncer_console.web.text import Url

_LOCK = threading.Lock()
"""matplotlib's settings are the process's."""

# As in style.css. Colours that tell apart in both themes, and by lightness alone.
_THEMES: Mapping[str, Mapping[str, Any]] = {
    "light": {
        "ink": "#1f2328",
        "line": "#dcd8d0",
        "colours": ("#0b5c6b", "#c2571a", "#6c4a9c", "#3f8f4f", "#a3241c", "#7d7a74"),
    },
    "dark": {
        "ink": "#e6e3dd",
        "line": "#343a40",
        "colours": ("#6cc5d6", "#f0a35e", "#b79be6", "#85d39a", "#ff9e94", "#a3a9b0"),
    },
}
_INCHES = (5.0, 3.0)
"""Small, so that its letters can still be read on a telephone; two stand beside each other."""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """One plot; both are data URLs of SVG, which neither script nor page can reach."""

    light: Url
    dark: Url
    alternative: str
    """What it shows, in words."""


def over_time(
    series: Sequence[Series], *, since: datetime, until: datetime, period: timedelta, what: str
) -> Picture:
    """Stacked bars, a bar a period.

    Args:
        series: those without any value are left out.
        what: what is counted, for the axis and for who sees no picture.
    """
    shown = [each for each in series if any(each.values)]
    told = ", ".join(f"{sum(each.values):,.0f} {each.name}" for each in shown)
    with _LOCK:
        light, dark = (
            _drawn(theme, shown, since, until, period, what) for theme in _THEMES.values()
        )
    return Picture(light=light, dark=dark, alternative=f"{what}: {told or 'none'}")


def _drawn(
    theme: Mapping[str, Any],
    series: Sequence[Series],
    since: datetime,
    until: datetime,
    period: timedelta,
    what: str,
) -> Url:
    # A second to load, which no other page should wait for.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib import dates as untyped  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    dates: Any = untyped
    ink, line = theme["ink"], theme["line"]
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "ses-bouncer", "font.size": 10}
    with mpl.rc_context(settings):
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.subplots()
        moments = sorted({moment for each in series for moment in each.moments})
        below = dict.fromkeys(moments, 0.0)
        for number, each in enumerate(series):
            values = dict(zip(each.moments, each.values, strict=True))
            heights = [values.get(moment, 0.0) for moment in moments]
            axes.bar(
                moments,  # type: ignore[arg-type]  # dates are converted
                heights,
                width=period * 0.9,  # type: ignore[arg-type]
                bottom=[below[moment] for moment in moments],
                align="edge",
                color=theme["colours"][number % len(theme["colours"])],
                label=each.name,
            )
            for moment, height in zip(moments, heights, strict=True):
                below[moment] += height
        axes.set_xlim(since, until)  # type: ignore[arg-type]
        axes.set_ylim(0, max(1.0, *below.values()) * 1.1 if below else 1.0)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        locator = dates.AutoDateLocator(tz=UTC, maxticks=6)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(
            dates.ConciseDateFormatter(locator, tz=UTC, show_offset=False)
        )
        axes.set_ylabel(what, color=ink)
        axes.tick_params(colors=ink)
        axes.grid(visible=True, axis="y", color=line, linewidth=0.8)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_color(line)
        if series:
            figure.legend(
                loc="outside upper left",
                ncols=4,
                frameon=False,
                labelcolor=ink,
                handlelength=1,
                columnspacing=1,
            )
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    return Url("data:image/svg+xml;base64," + base64.b64encode(drawn.getvalue()).decode())
