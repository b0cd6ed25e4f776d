"""`python -m bench.cold`: the first mail in a new process, beside a bare boto3 handler.

Both are run as Lambda runs them (bench/runtime.py), on AWS's endpoints of this machine that
answer at once (bench/endpoints.py), and make the same AWS calls: what is measured is what our
own code, its libraries and its clients cost. Needs a build (`make build`).
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import msgspec
import typer

from bench import ROOT
from bench.endpoints import KNOWN, NOBODY, serving
from bench.machine import OUTPUT, machine
from bench.runtime import Moment, Process, Share, handler_of, runtime_packages
from bouncer_console.output import print_table, say

GOAL = 1.15
"""Times the bare handler's processor time, from the start of the process to the first answer."""

SHARES = (128, 256, 512, 1024, 1769)
"""Megabytes; the last one has a whole processor."""
_WARM = 10
_TRIES = 10
_ENVIRONMENT = {
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "testing",
    "POWERTOOLS_SERVICE_NAME": "bouncer",
    "POWERTOOLS_LOG_LEVEL": "INFO",
    "BOUNCE_TABLE": "bounces",
    "PACE_TABLE": "bounces",
    "MAILBOX_TABLE": "mailboxes",
    "BOUNCE_QUEUE_URL": "http://127.0.0.1/queue",
    "EVENT_DEAD_LETTER_QUEUE_URL": "http://127.0.0.1/queue",
    "BOUNCE_SENDER": "mailer-daemon@bounce.example.com",
    "MODE": "enforce",
}


class Way(msgspec.Struct, frozen=True):
    """What becomes of a mail, and what AWS is asked for it."""

    name: str
    recipient: str
    disposition: str
    environment: dict[str, str]
    calls: tuple[str, ...]


_PLAIN = {"MAIL_BUCKET": "", "USAGE": "external"}
_KEPT = {"MAIL_BUCKET": "mail", "USAGE": "managed"}
_READ, _WRITE = "BatchGetItem", "UpdateItem"
WAYS = (
    Way("accepted", KNOWN, "CONTINUE", _PLAIN, (_READ, _WRITE)),
    Way(
        "accepted, usage kept",
        KNOWN,
        "CONTINUE",
        _KEPT,
        (_READ, "HeadObject", "TransactWriteItems", _WRITE),
    ),
    Way("bounced", NOBODY, "STOP_RULE", _PLAIN, (_READ, *6 * (_WRITE,), "SendBounce")),
)


class Sample(msgspec.Struct, frozen=True):
    """One process."""

    init: Moment
    first: Moment
    """The first mail alone."""
    warm: Moment
    """A later mail; the median."""
    resident_mb: float
    calls: list[str]
    """What the first mail asked AWS for."""

    @property
    def whole(self) -> Moment:
        """From the process's start to the first answer."""
        return Moment(self.init.wall + self.first.wall, self.init.processor + self.first.processor)


class Side(msgspec.Struct, frozen=True):
    """A handler, and what is on its path."""

    name: str
    task: Path
    path: list[Path]


class Bench:
    """Both sides, ready to be started."""

    def __init__(self, build: Path, folder: Path, endpoints: str) -> None:
        packages = runtime_packages(folder / "runtime")
        layer = build / "BouncerLayer" / "python"
        self.sides = (
            Side("bare", handler_of(ROOT / "bench" / "bare", folder / "bare"), [packages]),
            Side("ours", build / "InboundFunction", [layer, packages]),
        )
        self._endpoints = endpoints
        self._numbers = count()

    def run(self, side: Side, way: Way) -> Sample:
        """One process; once more when this machine held it up so that its slot expired."""
        for _ in range(_TRIES):
            sample = self.run_in(side, way, None)
            if sorted(sample.calls) == sorted(way.calls):
                return sample
        raise RuntimeError(f"{side.name}, {way.name}: asked for {sample.calls}, not {way.calls}")

    def run_in(self, side: Side, way: Way, share: Share | None) -> Sample:
        """One process, with a share of a processor from its first mail on."""
        environment = {**_ENVIRONMENT, **way.environment, "AWS_ENDPOINT_URL": self._endpoints}
        self._calls()
        with Process(side.task, side.path, environment, "app.handler") as process:
            ready = process.ready()
            if share is not None:
                share.take(process.pid)  # Lambda lets a function begin on a whole processor
            first = self._mail(process, way)
            calls = self._calls()
            resident = process.resident_mb()
            process.ready()
            later = [self._mail(process, way) for _ in range(_WARM)]
        return Sample(
            init=ready.since(process.started),
            first=first,
            warm=Moment(
                median(each.wall for each in later),
                median(each.processor for each in later),
            ),
            resident_mb=resident,
            calls=calls,
        )

    def _mail(self, process: Process, way: Way) -> Moment:
        begin = process.now()
        answered, answer = process.invoke(_event(way.recipient, f"mail-{next(self._numbers)}"))
        if answer != {"disposition": way.disposition}:
            raise RuntimeError(f"{way.name}: answered {answer}")
        return answered.since(begin)

    def _calls(self) -> list[str]:
        with urllib.request.urlopen(f"{self._endpoints}/calls") as answer:  # noqa: S310  (loopback)
            calls: list[str] = json.load(answer)
            return calls


def _event(recipient: str, message_id: str) -> dict[str, Any]:
    """A mail as SES hands it over, with the headers that ordinary mail has."""
    (record,) = json.loads((ROOT / "events" / "accepted.json").read_text())["Records"]
    mail, receipt = record["ses"]["mail"], record["ses"]["receipt"]
    now = datetime.now(UTC) - timedelta(seconds=1)
    mail |= {"messageId": message_id, "timestamp": now.isoformat(timespec="milliseconds")}
    receipt["recipients"] = [recipient]
    return {"Records": [record]}


def cold(bench: Bench, runs: int) -> dict[str, float]:
    """Measure the first mail: each way's ratio of processor time."""
    samples: dict[tuple[str, str], list[Sample]] = {}
    for run in range(runs + 1):
        for way in WAYS:
            sides = bench.sides if run % 2 else bench.sides[::-1]
            made = {side.name: bench.run(side, way) for side in sides}
            if run:  # the first one reads the files from the disk
                for name, sample in made.items():
                    samples.setdefault((way.name, name), []).append(sample)
    rows, ratios = [], {}
    for way in WAYS:
        bare, ours = samples[way.name, "bare"], samples[way.name, "ours"]
        for name, its in (("bare", bare), ("ours", ours)):
            rows.append([way.name, name, *_figures(its)])
        ratios[way.name] = _ratio(ours, bare, lambda each: each.whole.processor)
        wall = _ratio(ours, bare, lambda each: each.whole.wall)
        rows.append([way.name, "times", f"{ratios[way.name]:.2f}", f"{wall:.2f}"])
    print_table(
        f"The first mail in a new process, ms; medians of {runs} processes each, alternating",
        (
            "mail", "handler", "processor", "wall", "init: processor", "wall",
            "first mail: processor", "wall", "warm: processor", "wall", "MB", "calls",
        ),
        [row + [""] * (12 - len(row)) for row in rows],
    )  # fmt: skip
    return ratios


def _figures(samples: Sequence[Sample]) -> Iterator[str]:
    for which in ("whole", "init", "first", "warm"):
        yield f"{1000 * median(getattr(each, which).processor for each in samples):.1f}"
        yield f"{1000 * median(getattr(each, which).wall for each in samples):.1f}"
    yield f"{median(each.resident_mb for each in samples):.0f}"
    yield f"{len(samples[0].calls)}"


def _ratio(
    ours: Sequence[Sample], bare: Sequence[Sample], figure: Callable[[Sample], float]
) -> float:
    """Of neighbours in time, which a disturbance hits alike."""
    return median(figure(one) / figure(other) for one, other in zip(ours, bare, strict=True))


# --- What a processor's share makes of it ----------------------------------------------------

_ARM_GB_SECOND = 0.0000133334
_REQUEST = 0.0000002
_AWAY = 0.006
"""Seconds that a call to AWS takes on AWS, in which a function waits and is billed."""


class Shared(msgspec.Struct, frozen=True):
    """A handler with a share of a processor."""

    memory_mb: int
    way: str
    side: str
    first: float
    warm: float
    calls: int

    @property
    def million(self) -> float:
        """Dollars for a million mails to a warm function, at list price in us-east-1 on arm64."""
        seconds = self.warm + self.calls * _AWAY
        return 1e6 * (seconds * self.memory_mb / 1024 * _ARM_GB_SECOND + _REQUEST)


def shares(bench: Bench, runs: int) -> list[Shared]:
    """Measure under a quota; empty where the system has none to give."""
    measured = []
    for memory_mb in SHARES:
        with Share.of(memory_mb) as share:
            if share is None:
                say("No cgroup can be made here: nothing is known of shares of a processor.")
                return []
            for way in WAYS:
                for side in bench.sides:
                    its = [bench.run_in(side, way, share) for _ in range(runs)]
                    measured.append(
                        Shared(
                            memory_mb,
                            way.name,
                            side.name,
                            median(each.first.wall for each in its),
                            median(each.warm.wall for each in its),
                            len(way.calls),
                        )
                    )
    print_table(
        f"With a share of a processor (init has all of one); medians of {runs} processes",
        ("MemorySize", "mail", "handler", "first mail ms", "warm ms", "$ a million"),
        [
            [
                str(each.memory_mb),
                each.way,
                each.side,
                f"{1000 * each.first:.0f}",
                f"{1000 * each.warm:.1f}",
                f"{each.million:.2f}",
            ]
            for each in measured
        ],
    )
    return measured


def plot(measured: Sequence[Shared], file: Path) -> None:
    """Time and cost over MemorySize."""
    import matplotlib as mpl

    mpl.use("svg" if file.suffix == ".svg" else "agg")
    from matplotlib import pyplot as plt

    figure, (times, costs) = plt.subplots(1, 2, figsize=(10, 4))
    for way in WAYS:
        its = [each for each in measured if each.way == way.name and each.side == "ours"]
        memory = [each.memory_mb for each in its]
        times.plot(memory, [1000 * each.warm for each in its], "o-", label=way.name)
        costs.plot(memory, [each.million for each in its], "o-", label=way.name)
    times.set_title("a mail in a warm process, ms, AWS answering at once")
    costs.set_title(f"$ a million mails, {1000 * _AWAY:.0f} ms a call to AWS")
    times.set_yscale("log")
    for axes in (times, costs):
        axes.set_xscale("log", base=2)
        axes.set_xticks(SHARES, [str(each) for each in SHARES])
        axes.set_xlabel("MemorySize, MB (1769 MB have one processor)")
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    costs.set_ylim(bottom=0)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    say(f"plotted: {file}")


def _size_of(folder: Path) -> tuple[float, float]:
    """Megabytes of a folder as it is, and zipped as it is uploaded."""
    size = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "layer.zip"
        subprocess.run([sys.executable, "-m", "zipfile", "-c", str(file), str(folder)], check=True)
        return size / 1e6, file.stat().st_size / 1e6


@contextmanager
def _bench(build: Path) -> Iterator[Bench]:
    if not (build / "BouncerLayer").exists():
        say(f"{build} has no build: run `make build`", style="red")
        raise typer.Exit(2)
    with serving() as endpoints, tempfile.TemporaryDirectory() as folder:
        yield Bench(build, Path(folder), endpoints)


def main(
    runs: Annotated[int, typer.Option(help="Processes of each handler and mail; 0: none.")] = 15,
    build: Annotated[Path, typer.Option(help="What `sam build` made.")] = ROOT / ".aws-sam/build",
    share_runs: Annotated[int, typer.Option(help="Processes a share; 0 leaves shares out.")] = 3,
    picture: Annotated[Path, typer.Option("--plot", help="Where the plot goes.")] = OUTPUT
    / "cold.png",
) -> None:
    """Measure the first mail, a later one, and both with a share of a processor."""
    # Paths of this process mean nothing to those that it starts elsewhere.
    built = build.absolute()
    with _bench(built) as bench:
        plain, zipped = _size_of(built / "BouncerLayer")
        measured = shares(bench, share_runs) if share_runs else []
        if measured:
            plot(measured, picture)
        ratios = cold(bench, runs) if runs else {}
    say(f"The layer has {plain:.1f} MB, {zipped:.1f} MB zipped.")
    say(machine("boto3", "awslambdaric"))
    for name, ratio in ratios.items():
        say(f"{name}: {ratio:.2f} times the bare handler", style="red" if ratio > GOAL else "green")
    if any(each > GOAL for each in ratios.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
