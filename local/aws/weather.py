"""A hostile AWS: what may go wrong there, chosen by name and by seed.

`make local WEATHER=storm:7` deploys under clear sky and then lets the weather in. A weather is
a set of odds; what AWS does not document has both ways, by the seed. Only what the functions
and SES do is hit: the tester's own requests, with the account's root key, never are.

    clear        nothing goes wrong
    killers      environments are killed at any moment, three in two seconds
    crashes      environments are killed and frozen at any moment; SES calls again, or never
    refusals     invocations are refused (429), and fail
    deaf         SES hears no function's answer: it calls again and again, or never, by the seed
    post         SNS and SQS are late, out of order, and bring things twice
    tables       DynamoDB throttles, fails, is slow, loses its answers, reads what was before
    bounces      SES fails, is slow, and takes a call whose answer is lost
    storm        all of it

    kill-before-claim, freeze-after-call, …
                 the process that makes this request dies, or stands still, right before it is
                 done or right after: claim, call, settle, queue or record
"""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec


class Fault(StrEnum):
    """What may befall one request."""

    THROTTLED = "throttled"
    FAILED = "failed"
    """Not done."""
    SLOW = "slow"
    ANSWER_LOST = "answer-lost"
    """Done, and the caller hears of a failure."""
    STALE = "stale"
    """Answered as it was before."""
    TWICE = "twice"
    """Done once more, later."""
    LATE = "late"
    """Done, and what comes of it is seen later, behind what was done afterwards."""


class Step(StrEnum):
    """What a function does for a mail, request by request."""

    CLAIM = "claim"
    CALL = "call"
    SETTLE = "settle"
    QUEUE = "queue"
    RECORD = "record"


class Deed(StrEnum):
    """What befalls the process that makes a request."""

    KILL = "kill"
    FREEZE = "freeze"


class Blow(msgspec.Struct, frozen=True, kw_only=True):
    """A deed at one moment of one step."""

    deed: Deed
    before: bool
    """The request is not done yet; else it is, and its answer is not read yet."""
    step: Step


class Process(msgspec.Struct, frozen=True):
    """A function's process that has an invocation."""

    function: str
    begins: bool
    """Its handler has not been called yet: a cold start."""


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """A function's process that was killed; what `GET /_local/weather` lists."""

    at: float
    """Epoch seconds."""
    function: str
    process: int


class Odds(msgspec.Struct, frozen=True, kw_only=True):
    """Of each thing that may go wrong, from 0 to 1; or how often, in seconds."""

    table: tuple[Fault, ...] = ()
    """What befalls DynamoDB's requests."""
    bounce: tuple[Fault, ...] = ()
    """What befalls SendBounce."""
    queue: tuple[Fault, ...] = ()
    """What befalls SendMessage."""
    fault: float = 0.0
    """The share of those requests that something befalls."""
    slow_seconds: float = 2.2
    """Longer than the functions' clients wait for an answer."""
    refused: float = 0.0
    """The share of invocations by SES that are refused or fail before the function runs."""
    unheard: float = 0.0
    """The share of the others that run to their end, and SES hears nothing of it."""
    late_notice: float = 0.0
    """The share of notices that come late; as many come twice."""
    latest_notice: float = 8.0
    late_message: int = 6
    """Seconds by which a message of a queue is late."""
    kill_every: float = 0.0
    """Seconds between two functions' processes that are killed, about; 0 is never."""
    freeze_every: float = 0.0
    freeze_seconds: float = 3.0
    blow: Blow | None = None
    """What befalls whoever comes to one step, every third time or so."""


_TABLE = (Fault.THROTTLED, Fault.FAILED, Fault.SLOW, Fault.ANSWER_LOST, Fault.STALE)
_BOUNCE = (Fault.THROTTLED, Fault.FAILED, Fault.SLOW, Fault.ANSWER_LOST)
_QUEUE = (Fault.FAILED, Fault.ANSWER_LOST, Fault.TWICE, Fault.LATE)

# A cold start takes longer than most work; if it were hit as often, little work would be begun.
_BEGINNERS = 0.5
"""The share of kills that may hit a process in its cold start."""

FORECAST = "weather"
"""The file that says what the weather is, `NAME` or `NAME:SEED`."""

WEATHERS = {
    "clear": Odds(),
    "killers": Odds(kill_every=0.7),
    "crashes": Odds(kill_every=1.5, freeze_every=4.0),
    "refusals": Odds(refused=0.4),
    "deaf": Odds(refused=0.3, unheard=1.0),
    "post": Odds(queue=_QUEUE, fault=0.2, late_notice=0.4),
    "tables": Odds(table=_TABLE, fault=0.08),
    "bounces": Odds(bounce=_BOUNCE, fault=0.3),
    "storm": Odds(
        table=_TABLE,
        bounce=_BOUNCE,
        queue=_QUEUE,
        fault=0.08,
        refused=0.2,
        late_notice=0.3,
        kill_every=2.5,
        freeze_every=6.0,
    ),
}


WEATHERS |= {
    f"{deed}-{'before' if before else 'after'}-{step}": Odds(
        blow=Blow(deed=deed, before=before, step=step)
    )
    for deed in Deed
    for before in (True, False)
    for step in Step
}
_BLOWS = 0.35


class Weather:
    """Rolls the dice. It can be changed while AWS runs: write the file FORECAST in the outbox."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.killed: list[Kill] = []
        self._spares_beginners = True
        self.freezes = 0
        self.faults: dict[str, int] = {}
        self.set("clear")

    def set(self, forecast: str) -> None:
        """
        Args:
            forecast: `NAME` or `NAME:SEED`.

        Raises:
            ValueError: nobody knows that weather.
        """
        name, _, seed = forecast.partition(":")
        if name not in WEATHERS:
            raise ValueError(f"no weather {name!r}: take one of {', '.join(WEATHERS)}")
        with self._lock:
            self.forecast = forecast
            self.odds = WEATHERS[name]
            self._random = random.Random(seed or "0")  # noqa: S311  (to be replayed, not secret)
            # Undocumented, and so both ways: whether SES calls a function again that failed.
            self.ses_calls_again = self._random.random() < 0.5

    @property
    def kills(self) -> int:
        return len(self.killed)

    @property
    def calm(self) -> bool:
        """Whether no request is ever hit."""
        return self.odds.fault == 0 and self.odds.blow is None

    # --- Requests ----------------------------------------------------------------------------

    def befalls(self, service: str) -> Fault | None:
        """What befalls a request of a function: `table`, `bounce` or `queue`."""
        with self._lock:
            kinds: tuple[Fault, ...] = getattr(self.odds, service)
            if not kinds or self._random.random() >= self.odds.fault:
                return None
            fault = self._random.choice(kinds)
            self._count(f"{service} {fault}")
        return fault

    def _count(self, what: str) -> None:
        self.faults[what] = self.faults.get(what, 0) + 1

    def blow(self, step: Step | None, *, before: bool) -> Deed | None:
        """What befalls the process that comes to a step, at this moment of it."""
        blow = self.odds.blow
        if blow is None or (blow.step, blow.before) != (step, before):
            return None
        with self._lock:
            return blow.deed if self._random.random() < _BLOWS else None

    def refuses(self) -> bool:
        """Whether an invocation by SES is refused."""
        return self._happens(self.odds.refused, "invocation refused")

    def unheard(self) -> bool:
        """Whether SES does not hear what an invocation answers."""
        return self._happens(self.odds.unheard, "invocation unheard")

    def _happens(self, odds: float, what: str) -> bool:
        with self._lock:
            happens = self._random.random() < odds
            if happens:
                self._count(what)
        return happens

    def notices(self) -> Iterable[float]:
        """When a notice is published, in seconds from now: once or twice."""
        with self._lock:
            odds, dice = self.odds, self._random
            times = [0.0]
            if dice.random() < odds.late_notice:
                times = [dice.uniform(0, odds.latest_notice)]
                self._count("notice late")
            if dice.random() < odds.late_notice:
                times.append(dice.uniform(0, odds.latest_notice))
                self._count("notice twice")
        return times

    # --- Processes ---------------------------------------------------------------------------

    def haunt(
        self, processes: Callable[[], Mapping[int, Process]], forecast: Path, ended: threading.Event
    ) -> None:
        """Follow the forecast, kill and freeze processes, until `ended`: a thread's life."""
        now = time.monotonic()
        next_kill = next_freeze = now
        while not ended.wait(0.05):
            now = time.monotonic()
            told = forecast.read_text().strip() if forecast.exists() else self.forecast
            if told and told != self.forecast:
                self.set(told)
            odds = self.odds
            if not odds.kill_every:
                next_kill = now
            elif now >= next_kill and self._kill(processes):
                next_kill = now + self._pause(odds.kill_every)
            if not odds.freeze_every:
                next_freeze = now
            elif now >= next_freeze:
                next_freeze = now + self._pause(odds.freeze_every)
                self._freeze(processes, odds.freeze_seconds)

    def _pause(self, mean: float) -> float:
        with self._lock:
            return self._random.uniform(0.2 * mean, 1.8 * mean)

    def _victim(
        self, processes: Callable[[], Mapping[int, Process]], *, spared: bool = False
    ) -> tuple[int, Process] | None:
        victims = sorted(processes().items(), key=lambda each: each[0])
        victims = [each for each in victims if not (spared and each[1].begins)]
        with self._lock:
            return self._random.choice(victims) if victims else None

    def _kill(self, processes: Callable[[], Mapping[int, Process]]) -> bool:
        victim = self._victim(processes, spared=self._spares_beginners)
        if victim is None:
            return False
        if not self.kill(*victim):
            return False
        with self._lock:
            self._spares_beginners = self._random.random() >= _BEGINNERS
        return True

    def kill(self, pid: int, process: Process) -> bool:
        """Whether it was there to be killed."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.killed.append(Kill(at=time.time(), function=process.function, process=pid))
            return True
        return False

    def _freeze(self, processes: Callable[[], Mapping[int, Process]], seconds: float) -> None:
        victim = self._victim(processes)
        if victim is None:
            return
        pid, _ = victim
        self.stop(pid)
        timer = threading.Timer(seconds, thaw, (pid,))
        timer.daemon = True
        timer.start()

    def stop(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self.freezes += 1


def thaw(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
