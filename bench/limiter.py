"""`python -m bench.limiter`: real processes against one atomic store, design by design.

Every caller is a process with its own clients; what it calls is a recorder in a process of
its own. README.md says how to read the table.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from bench.designs import OTHERS, OURS, OURS_MIXED, Design, Job, NotHereError, Report
from bench.machine import OUTPUT, machine
from bench.recorder import Call, recording
from bouncer.aws import clients
from bouncer.limiter import Pace
from bouncer_console.output import note, print_table, say
from local.stack import Aws, StackError, running

_FORK = multiprocessing.get_context("fork")
_INTERVAL = 0.1
_REAL_INTERVAL = 1.0
_REAL_PROCESSES = 4
_OPEN_SECONDS = 60.0
# The slowest of the peers takes about half of the allowance.
_SLOWEST = 6.0


class Excluded(msgspec.Struct, frozen=True):
    """Two calls of ours that came too close because a caller was suspended after its check."""

    gap: float
    suspended: float


class Measured(msgspec.Struct, kw_only=True):
    """One run of one design."""

    design: Design
    interval: float
    calls: list[Call] = msgspec.field(default_factory=list)
    requests: int = 0
    expired: int = 0
    error: str = ""

    @property
    def pace(self) -> Pace:
        return Pace(interval=self.interval)

    @property
    def gaps(self) -> list[float]:
        return [later.start - earlier.start for earlier, later in pairwise(self.calls)]

    @property
    def too_close(self) -> int:
        return sum(gap < self.interval for gap in self.gaps)

    @property
    def closest_arrivals(self) -> float:
        arrivals = sorted(call.arrived for call in self.calls)
        return min(later - earlier for earlier, later in pairwise(arrivals))

    @property
    def excluded(self) -> list[Excluded]:
        """The promise's one exception: nobody can check after his last check."""
        found = []
        for earlier, later in pairwise(self.calls):
            suspended = max(_suspended(earlier), _suspended(later))
            gap = later.start - earlier.start
            if gap < self.interval and suspended > self.pace.suspension:
                found.append(Excluded(gap, suspended))
        return found

    @property
    def violations(self) -> int:
        return self.too_close - len(self.excluded)

    @property
    def share(self) -> float:
        """Of what one call an interval would have let through in the same time."""
        return (len(self.calls) - 1) * self.interval / (self.calls[-1].start - self.calls[0].start)

    @property
    def share_of_pace(self) -> float | None:
        """Of what the pace itself lets through, which has its tolerances in it.

        What is missing from 100 % are slots that were thrown away, and late starts.
        """
        size = self.design.window
        if size is None:
            return None
        windows = len(self.calls) // size
        shortest = (windows - 1) * self.pace.span(size) + (size - 1) * self.pace.step
        return shortest / (self.calls[-1].start - self.calls[0].start)

    @property
    def longest_wait(self) -> float:
        return max(call.start - call.asked for call in self.calls)

    @property
    def most_overtaken(self) -> int:
        """By how many calls that were asked for later; 0 is first come, first served.

        Later by an interval at least: all begin at once, and who is first then is a race.
        """
        return max(
            sum(other.asked > call.asked + self.interval for other in self.calls[:place])
            for place, call in enumerate(self.calls)
        )


def _suspended(call: Call) -> float:
    return 0.0 if call.checked is None else call.start - call.checked


# --- Running ---------------------------------------------------------------------------------


def measure(design: Design, *, interval: float, calls: int, processes: int) -> Measured:
    """Run one design once, on a table of its own."""
    result = Measured(design=design, interval=interval)
    if design.module and not _imported(design.module):
        result.error = f"{design.module} is not installed"
        return result
    table = f"bench-{time.monotonic_ns()}"
    shares = design.shares(calls, processes)
    with recording() as (port, finish):
        jobs = [
            Job(table=table, interval=interval, calls=share, caller=caller, port=port)
            for caller, share in enumerate(shares)
            if share
        ]
        try:
            _prepare(design, table)
            reports = _run_all(design, jobs, patience=calls * interval * _SLOWEST)
        except NotHereError as error:
            result.error = str(error)
            return result
        result.calls = finish()
    result.requests = sum(report.requests for report in reports)
    result.expired = sum(report.expired for report in reports)
    result.error = next((report.error for report in reports if report.error), "")
    if not result.error and len(result.calls) != calls:
        result.error = f"{len(result.calls)} calls of {calls} arrived"
    return result


def _imported(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def _prepare(design: Design, table: str) -> None:
    if design.create is not None:
        # In a process of its own: it is a peer's code, and reads the environment.
        process = _FORK.Process(target=design.create, args=(table,), daemon=True)
        process.start()
        process.join(_OPEN_SECONDS)
        if process.exitcode != 0:
            process.kill()
            raise NotHereError("its table could not be made")
        return
    clients.dynamodb().create_table(
        TableName=table,
        AttributeDefinitions=[{"AttributeName": k, "AttributeType": "S"} for k in design.keys],
        KeySchema=[
            {"AttributeName": key, "KeyType": "RANGE" if place else "HASH"}
            for place, key in enumerate(design.keys)
        ],
        BillingMode="PAY_PER_REQUEST",
    )


def _run_all(design: Design, jobs: Sequence[Job], *, patience: float) -> list[Report]:
    """Start a process a job, wait until all are ready, let them go, and gather the reports.

    Raises:
        NotHereError: the design cannot be run here.
    """
    pipes: list[Connection] = []
    processes: list[ForkProcess] = []
    try:
        for job in jobs:
            ours, theirs = _FORK.Pipe()
            target = _FORK.Process(target=_call, args=(design, job, theirs), daemon=True)
            target.start()
            theirs.close()
            pipes.append(ours)
            processes.append(target)
        for pipe in pipes:
            ready = _received(pipe, _OPEN_SECONDS)
            if ready.error:
                raise NotHereError(ready.error)
        for pipe in pipes:
            pipe.send_bytes(b"go")
        end = time.monotonic() + _OPEN_SECONDS + patience
        return [_received(pipe, end - time.monotonic()) for pipe in pipes]
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        for pipe in pipes:
            pipe.close()


def _received(pipe: Connection, seconds: float) -> Report:
    if not pipe.poll(max(0.0, seconds)):
        return Report(error="it did not come to an end")
    try:
        return msgspec.json.decode(pipe.recv_bytes(), type=Report)
    except EOFError:
        return Report(error="a caller died")


@contextmanager
def reaching_only(aws: Aws) -> Iterator[None]:
    """This process, and what it forks, has the environment for this AWS."""
    before, inside = dict(os.environ), aws.environment()
    os.environ.clear()
    os.environ.update(inside)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _call(design: Design, job: Job, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this ends it

    def tell(report: Report) -> None:
        pipe.send_bytes(msgspec.json.encode(report))

    try:
        run = design.open(job)
        tell(Report())
        pipe.recv_bytes()
        tell(run())
    except NotHereError as error:
        tell(Report(error=str(error)))
    except Exception as error:  # noqa: BLE001  (a peer's, whatever it is: it goes into the table)
        tell(Report(error=f"{type(error).__name__}: {error}"[:200]))


# --- Telling ---------------------------------------------------------------------------------

_COLUMNS = (
    "design",
    "runs",
    "too close",
    "starts ms",
    "arrivals ms",
    "requests",
    "share",
    "of pace",
    "wait s",
    "overtaken",
    "expired",
)


def _row(runs: Sequence[Measured]) -> list[object]:
    """Medians of the runs; of what must never be, the worst."""
    name = runs[0].design.name
    good = [run for run in runs if not run.error]
    if not good:
        return [name, 0, Text("not measured", style="yellow")]

    def mid(value: Callable[[Measured], float]) -> float:
        return median(value(run) for run in good)

    of = sum(len(run.gaps) for run in good)
    close = sum(run.too_close for run in good)
    paced = good[0].share_of_pace is not None
    return [
        name,
        len(good),
        Text(f"{close} of {of}", style="red" if close else "green"),
        f"{mid(lambda run: min(run.gaps)) * 1000:.1f}",
        f"{mid(lambda run: run.closest_arrivals) * 1000:.1f}",
        f"{mid(lambda run: run.requests / len(run.calls)):.2f}",
        f"{mid(lambda run: run.share):.1%}",
        f"{mid(lambda run: run.share_of_pace or 0.0):.1%}" if paced else "",
        f"{mid(lambda run: run.longest_wait):.1f}",
        f"{mid(lambda run: run.most_overtaken):.0f}",
        sum(run.expired for run in good) if runs[0].design.ours else "",
    ]


def print_measured(title: str, all_runs: Iterable[Sequence[Measured]]) -> None:
    listed = list(all_runs)
    print_table(title, _COLUMNS, map(_row, listed))
    for run in (run for runs in listed for run in runs if run.error):
        say(f"{run.design.name}, a run not measured: {run.error}", style="yellow")


def print_excluded(runs: Iterable[Measured]) -> None:
    """What `violations` leaves out, pair by pair."""
    found = [(run.design.name, each) for run in runs for each in run.excluded]
    for name, each in found:
        say(
            f"{name}: {each.gap * 1000:.1f} ms apart, not counted as ours: a caller was "
            f"suspended for {each.suspended * 1000:.1f} ms between its last check and its call"
        )
    if not found:
        say("No pair was left out for a suspension after the last check.")


def plot(measured: Sequence[Measured], path: Path) -> None:
    """A strip of call times a design; where two are closer than the interval, red."""
    try:
        import matplotlib as mpl
    except ImportError:
        say("no plot: matplotlib is not installed", style="yellow")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [run for run in measured if not run.error]
    if not shown:
        return
    figure, axes = plt.subplots(figsize=(11, 0.62 * len(shown) + 1.3), layout="constrained")
    for row, run in enumerate(shown):
        begin = run.calls[0].start
        times = [(call.start - begin) / run.interval for call in run.calls]
        close = [(a, b) for a, b in pairwise(times) if b - a < 1]
        axes.vlines(times, row - 0.32, row + 0.32, color="#30587c", linewidth=0.9)
        # Drawn as a bar of at least some width, or the closest pairs would be invisible.
        bars = [(a, max(b - a, 0.25)) for a, b in close]
        axes.broken_barh(bars, (row - 0.32, 0.64), color="#d62728", alpha=0.75, linewidth=0)
    axes.set_yticks(
        range(len(shown)),
        [f"{run.design.name}\n{run.too_close} of {len(run.gaps)} too close" for run in shown],
        fontsize=8,
    )
    axes.invert_yaxis()
    axes.set_xlim(-1, 60)
    axes.set_xlabel(f"start of each call, in intervals of {shown[0].interval * 1000:.0f} ms")
    axes.set_title("When calls start; red: closer than the interval", fontsize=10, loc="left")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    say(f"plot: {path}")


def bench(
    *,
    path: Path = OUTPUT / "limiter.png",
    runs: int = 3,
    peer_runs: int = 1,
    calls: int = 100,
    processes: int = 20,
    real_calls: int = 20,
) -> int:
    """Measure, print and plot.

    Returns:
        How many calls of ours were closer than the interval, outside of measured suspensions.
    """
    # Round by round, so that a disturbance of the machine hits every design alike.
    rounds = [
        (design, number)
        for number in range(max(runs, peer_runs))
        for designs, times in ((OURS, runs), ((OURS_MIXED,), 1), (OTHERS, peer_runs))
        for design in designs
        if number < times
    ]
    measured: dict[str, list[Measured]] = {design.name: [] for design, _ in rounds}
    with running() as aws, reaching_only(aws):
        for design, number in rounds:
            note(f"{design.name}, run {number + 1}")
            measured[design.name].append(
                measure(design, interval=_INTERVAL, calls=calls, processes=processes)
            )
        real = []
        for design in OURS:
            note(f"{design.name}, at the real interval")
            real.append(
                measure(
                    design, interval=_REAL_INTERVAL, calls=real_calls, processes=_REAL_PROCESSES
                )
            )
    print_measured(f"{processes} processes, {calls} calls, 100 ms apart", measured.values())
    print_measured(
        f"{_REAL_PROCESSES} processes, {real_calls} calls, 1 s apart", [[run] for run in real]
    )
    ours = [run for of in measured.values() for run in of if run.design.ours] + real
    print_excluded(ours)
    say(machine("ministack", "zae-limiter", "python-dynamodb-lock"))
    plot([of[0] for of in measured.values()], path)
    # A run of ours that failed is no proof of anything.
    return sum(1 if run.error else run.violations for run in ours)


def main(
    *,
    plot: Annotated[Path, typer.Option(help="Where the plot is written.")] = OUTPUT / "limiter.png",
    runs: Annotated[int, typer.Option(help="Runs of ours.")] = 3,
    peer_runs: Annotated[int, typer.Option(help="Runs of every other design.")] = 1,
    calls: Annotated[int, typer.Option(help="Calls a run.")] = 100,
    processes: Annotated[int, typer.Option(help="Callers.")] = 20,
    real_calls: Annotated[int, typer.Option(help="Calls of ours at the real interval.")] = 20,
) -> None:
    """Measure our limiter beside its peers."""
    try:
        violations = bench(
            path=plot,
            runs=runs,
            peer_runs=peer_runs,
            calls=calls,
            processes=processes,
            real_calls=real_calls,
        )
    except StackError as error:
        say(str(error), style="red")
        raise typer.Exit(2) from error
    raise typer.Exit(1 if violations else 0)


if __name__ == "__main__":
    typer.run(main)
