"""Now: how the stack is, the last hour and day, and what waits."""

import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from bouncer_console import plots, queue
from bouncer_console.facts.totals import OverTime, Series
from bouncer_console.glance import Glance, Glancer
from bouncer_console.glance import Series as Counted
from bouncer_console.plots import Picture
from bouncer_console.queue import Chosen, Queue
from bouncer_console.web.site import Ask, Page, get, post
from bouncer_console.web.text import link

_GLANCE_IS_FRESH = 5.0
_PLOTS_ARE_FRESH = 60.0
_QUEUE_IS_FRESH = 300.0
"""It reads the whole table, which costs something."""
_COMES_AGAIN = 30
_TOP = 15

MAIL = ("accepted", "dropped", "observed", "sent", "suppressed", "expired", "rejected")
"""What a plot stacks: each recipient is one of these in the end, and no two."""
_SPANS = (
    ("The last hour", timedelta(hours=1), timedelta(minutes=1)),
    ("The last day", timedelta(hours=24), timedelta(minutes=30)),
)


type Span = tuple[str, Picture, dict[str, int]]
"""A title, its plot, and the sums."""


def _look(ask: Ask) -> Callable[[Callable[[str], None]], Glance]:
    deployment = ask.deployment
    return lambda _says: Glancer(deployment).look()


def _draw(ask: Ask) -> Callable[[Callable[[str], None]], list[Span]]:
    deployment = ask.deployment

    def draw(_says: Callable[[str], None]) -> list[Span]:
        glancer = Glancer(deployment)
        return [_span(glancer, *each) for each in _SPANS]

    return draw


def _span(glancer: Glancer, title: str, since: timedelta, period: timedelta) -> Span:
    until = glancer.now()
    counted = glancer.history(MAIL, since=since, period=period)
    picture = plots.columns(
        over_time(counted, until - since, until, period),
        title=f"{title}: recipients",
        size=plots.HALF,
    )
    return title, picture, {each.name: round(sum(each.values)) for each in counted}


def over_time(
    counted: Sequence[Counted], since: datetime, until: datetime, period: timedelta
) -> OverTime:
    """What CloudWatch counted, in columns; what never occurred is left out."""
    width = period.total_seconds()
    first = int(since.timestamp() // width)
    number = int(until.timestamp() // width) - first + 1
    series = []
    for each in counted:
        counts = [0] * number
        for moment, value in zip(each.moments, each.values, strict=True):
            column = int(moment.timestamp() // width) - first
            if 0 <= column < number:
                counts[column] += round(value)
        if any(counts):
            series.append(Series(name=each.name, counts=tuple(counts)))
    starts = (datetime.fromtimestamp((first + n) * width, UTC) for n in range(number))
    return OverTime(starts=tuple(starts), width=period, series=tuple(series))


def show(ask: Ask) -> Response:
    """The first page."""
    looked = ask.job(("glance", ask.site.stack), _look(ask), fresh=_GLANCE_IS_FRESH, wait=2)
    drawn = ask.job(("plots", ask.site.stack), _draw(ask), fresh=_PLOTS_ARE_FRESH, wait=1)
    if not looked.done:
        return ask.wait(looked)
    glance = looked.answer()
    unplotted = ""
    shown: list[Span] = []
    if drawn.done:
        try:
            shown = drawn.answer()
        except Exception as error:  # noqa: BLE001  (CloudWatch may be silent; the rest is shown)
            unplotted = str(error)
    return ask.show(
        "now.html",
        asking=None if drawn.done else drawn,
        refresh=_COMES_AGAIN,
        glance=glance,
        plots=shown,
        unplotted=unplotted,
        ringing=[each for each in glance.alarms or () if each.state == "ALARM"],
        silent=sum(each.state == "INSUFFICIENT_DATA" for each in glance.alarms or ()),
        dead={name: count for name, count in (glance.dead_letters or {}).items() if count},
    )


# --- What waits ------------------------------------------------------------------------------


def _key(ask: Ask) -> tuple[str, str]:
    return ("queue", ask.site.stack)


def _scan(ask: Ask) -> Callable[[Callable[[str], None]], Queue]:
    deployment = ask.deployment

    def scan(says: Callable[[str], None]) -> Queue:
        looked_at: list[int] = []

        def advance(items: int) -> None:
            looked_at.append(items)
            says(f"{sum(looked_at):,} items of the table looked at")

        return queue.read(deployment, advance)

    return scan


def show_queue(ask: Ask) -> Response:
    """From whom and why bounces wait, and what will be given up."""
    job = ask.job(_key(ask), _scan(ask), fresh=_QUEUE_IS_FRESH, wait=1.5)
    if not job.done:
        return ask.wait(job)
    found = job.answer()
    tables: list[dict[str, Any]] = []
    for title, of, field in (
        ("Sender domain", queue.by_domain, "domain"),
        ("Sender", queue.by_sender, "sender"),
        ("Reason", queue.by_reason, ""),
    ):
        counted = found.counted(of)
        tables.append(
            {
                "title": title,
                "field": field,
                "rows": counted.most_common(_TOP),
                "more": max(0, len(counted) - _TOP),
                "total": counted.total(),
            }
        )
    return ask.show("queue.html", found=found, tables=tables)


def drop(ask: Ask) -> Response:
    """Take a sender's or a domain's bounces out, after a question."""
    field, value = ask.form.get("field", ""), ask.form.get("value", "").strip()
    if field not in ("sender", "domain") or not value:
        ask.fail("Say whose bounces: a sender's or a domain's.")
    chosen = Chosen(
        senders=[value] if field == "sender" else (), domains=[value] if field == "domain" else ()
    )
    if not ask.sure:
        return ask.question(
            f"Take the waiting bounces of {value} out of the queue? Their senders will never be "
            "told; the ledger says of each that it was taken out.",
            yes="Take them out",
            post="/now/queue/drop",
            fields={"field": field, "value": value},
            no="/now/queue",
            detail=f"bouncer queue drop --{field} {shlex.quote(value)} --run",
        )
    found = queue.read(ask.deployment)
    done = queue.take_out(ask.deployment, chosen.of(each.bounce for each in found.turns))
    ask.site.jobs.forget(_key(ask))
    text = f"{len(done.taken):,} bounces of {value} are taken out."
    if done.too_late:
        text += f" {len(done.too_late):,} were no longer waiting."
    if done.not_counted:
        text += f" CloudWatch does not count them: {done.not_counted}"
    return ask.done(text, "/now/queue")


def again(ask: Ask) -> Response:
    """Read the queue anew."""
    ask.site.jobs.forget(_key(ask))
    return ask.done("Read anew.", link("/now/queue"))


PAGE = Page(
    path="/now",
    title="Now",
    views=[
        get("", show),
        get("/queue", show_queue),
        post("/queue/drop", drop),
        post("/queue/again", again),
    ],
)
