"""`python -m bench.flood`: a day of inbound mail in virtual time, more than SES lets us bounce.

What decides is the product's own: Delivery, Limiter, Pace, Reservation and MemorySlots; the queue
and SES are fakes in memory, the ledger is the tests' one, and nobody sleeps. Simulated are:

    mail ──► a container (at most 1,000 of them, each with its own memory of the limiter)
                 ├── a slot within the wait budget ──► SES
                 └── none ──► the queue ──► two workers, up to ten at a time ──► SES

An invocation runs to its end in one go, on a clock of its own. That is exact as long as it
touches what is shared only when it begins, which `_SharedSlots` asserts.
"""

import heapq
import random
from array import array
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from bench.machine import OUTPUT, machine
from bouncer import timing
from bouncer.aws.slots import Guess
from bouncer.delivery.bounce import Bounce, BouncedRecipient, BounceType
from bouncer.delivery.calls import Terms
from bouncer.delivery.delivery import Delivery
from bouncer.delivery.ledger import SETTLED, BounceState, Claims, LedgerEntry
from bouncer.limiter import Busy, Granted, Limiter, Pace, Widening
from bouncer_console.output import print_table, say
from tests.fakes.ledger import MemoryLedger
from tests.fakes.slots import MemorySlots

DAY = 86_400.0
BATCH, WORKERS = 10, 2
"""As in the template."""
_CONTAINERS = 1000
"""Lambda's concurrency in a new account."""
_COLD_START = (0.4, 1.2)
"""Seconds, at random between these."""
_HANDLING = 0.05
"""Seconds that an inbound invocation takes beside waiting."""
_POLL = 0.1
"""From a free worker, or a message in the empty queue, to the next invocation."""
_ANSWER = 0.1
"""SendBounce's."""
_OVERSLEEP = 0.002
"""How late a sleeper wakes at the most."""
_INBOUND_SECONDS = timing.INBOUND_TIMEOUT - timing.RESERVE
_WORKER_SECONDS = timing.SEND_TIMEOUT - timing.RESERVE
"""The functions' timeouts less what they keep for themselves."""
_VISIBILITY = timing.VISIBILITY
_COUNT_HOLDS = timing.COUNT_HOLDS
"""SqsBounceQueue's: so long each container believes a length of the queue."""

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_RECIPIENTS = (
    BouncedRecipient(
        recipient="nobody@example.com",
        reason="unknown-recipient",
        bounce_type=BounceType.DOES_NOT_EXIST,
    ),
)


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """How mail comes in."""

    name: str
    rate: float = 0.0
    """Mails a second for a day, at random."""
    burst: int = 0
    """Mails at once, at the beginning."""

    def arrivals(self) -> Iterator[float]:
        """The times, in order; the same at each call."""
        yield from (0.0 for _ in range(self.burst))
        source = random.Random(self.name)
        at = source.expovariate(self.rate) if self.rate else DAY
        while at < DAY:
            yield at
            at += source.expovariate(self.rate)


PATTERNS = (
    Pattern(name="0.5 mails/s", rate=0.5),
    Pattern(name="5 mails/s", rate=5.0),
    Pattern(name="200,000 at once", burst=200_000),
)


class Outcome(msgspec.Struct, kw_only=True):
    """What became of a day's mail."""

    pattern: Pattern
    mails: int = 0
    at_once: int = 0
    queued: int = 0
    by_worker: int = 0
    given_up_at_once: int = 0
    given_up_later: int = 0
    limiter_requests: int = 0
    busiest_second: int = 0
    sent_at: list[float] = msgspec.field(default_factory=list)
    ages: list[float] = msgspec.field(default_factory=list)
    """Of what was sent, in the same order."""
    queue_at: list[float] = msgspec.field(default_factory=list)
    queue_length: list[int] = msgspec.field(default_factory=list)

    @property
    def sent(self) -> int:
        return self.at_once + self.by_worker

    @property
    def given_up(self) -> int:
        return self.given_up_at_once + self.given_up_later

    @property
    def closest(self) -> float:
        return min(later - earlier for earlier, later in pairwise(self.sent_at))

    def share_in_backlog(self) -> float | None:
        """Calls of one a second, while every worker found a full batch waiting."""
        gaps = [
            later - earlier
            for earlier, later in pairwise(self.sent_at)
            if min(self._waiting(earlier), self._waiting(later)) >= BATCH * WORKERS
        ]
        # A short jam at a mean rate below the allowance is no backlog.
        return len(gaps) / sum(gaps) if len(gaps) > DAY / 10 else None

    def _waiting(self, at: float) -> int:
        place = bisect_right(self.queue_at, at)
        return self.queue_length[place - 1] if place else 0


# --- The fakes -------------------------------------------------------------------------------


class _Clock:
    """Of whichever invocation runs."""

    def __init__(self) -> None:
        self.at = 0.0
        self._lateness = random.Random(1)

    def seconds(self) -> float:
        return self.at

    def moment(self) -> datetime:
        return _EPOCH + timedelta(seconds=self.at)

    def sleep(self, seconds: float) -> None:
        self.at += seconds + self._lateness.uniform(0, _OVERSLEEP)


class _SharedSlots:
    """MemorySlots that counts the requests DynamoSlots would have sent."""

    def __init__(self) -> None:
        self._slots = MemorySlots()
        self._last = 0.0
        self.per_second: Counter[int] = Counter()

    def reserve(
        self, now: float, span: float, max_wait: float, horizon: float, guess: Guess
    ) -> Granted | Busy:
        assert now >= self._last, "an invocation came back to the shared slots later on"
        self._last = now
        answer = self._slots.reserve(now, span, max_wait, horizon)
        if isinstance(answer, Busy):  # either branch tells of a refusal
            self.per_second[int(now)] += 1
            guess.learn(answer.next_slot, now)
        else:
            self.per_second[int(now)] += 1 + (guess.busy(now) != (answer.start > now))
            guess.learn(answer.start, now, span)
        return answer


class _Slots:
    """One container's view of them: Slots."""

    def __init__(self, shared: _SharedSlots) -> None:
        self._shared = shared
        self._guess = Guess()

    def reserve(self, now: float, span: float, max_wait: float, horizon: float) -> Granted | Busy:
        return self._shared.reserve(now, span, max_wait, horizon, self._guess)

    def hold_back(self, now: float, until: float) -> None:
        raise AssertionError(f"nobody throttles here: {now}, {until}")

    def widen(self, now: float, seen: Widening, to: Widening) -> Widening:
        raise AssertionError(f"nobody throttles here: {now}, {seen}, {to}")


class _Queue:
    """What waits, and what the workers have in hand."""

    def __init__(self) -> None:
        self.waiting: deque[Bounce] = deque()
        self.in_hand = 0

    @property
    def length(self) -> int:
        return len(self.waiting) + self.in_hand


class _Overflow:
    """One container's view of the queue."""

    def __init__(self, queue: _Queue, clock: _Clock, on_put: Callable[[], None]) -> None:
        self._queue = queue
        self._clock = clock
        self._on_put = on_put
        self._counted, self._counted_at = 0, -_COUNT_HOLDS

    def put(
        self,
        bounce: Bounce,
        *,
        until: datetime,  # noqa: ARG002  (the protocol's; nothing is slow here)
        delay: timedelta = timedelta(0),
    ) -> None:
        assert not delay
        self._queue.waiting.append(bounce)
        self._counted += 1
        self._on_put()

    def waiting(self, *, until: datetime) -> int:  # noqa: ARG002  (the same)
        if self._clock.at - self._counted_at >= _COUNT_HOLDS:
            self._counted, self._counted_at = self._queue.length, self._clock.at
        return self._counted


class _Ledger(MemoryLedger):
    """Keeps of what has ended only how, or a day would not fit into memory."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(clock)
        self.ended: dict[str, BounceState] = {}

    def claim(
        self,
        message_id: str,
        reasons: Mapping[str, str],
        *,
        owner: str,
        until: datetime,
        anew: bool = True,
    ) -> Claims:
        assert message_id not in self.ended, "nobody comes twice here"
        return super().claim(message_id, reasons, owner=owner, until=until, anew=anew)

    def settle(
        self, entries: Iterable[LedgerEntry], *, owner: str, until: datetime
    ) -> dict[str, BounceState]:
        its = list(entries)
        standing = super().settle(its, owner=owner, until=until)
        assert not standing, f"not the holder's any more: {standing}"
        self._end(its)
        return standing

    def record(self, entries: Iterable[LedgerEntry], *, until: datetime) -> dict[str, BounceState]:
        its = list(entries)
        standing = super().record(its, until=until)
        assert not standing, f"somebody else's: {standing}"
        self._end(its)
        return standing

    def _end(self, entries: Iterable[LedgerEntry]) -> None:
        for each in entries:
            if each.state in SETTLED:
                assert each.message_id not in self.ended
                self.ended[each.message_id] = each.state
                del self.lines[each.message_id, each.recipient]


class _Sender:
    """SES: notes when each call starts."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self.calls: list[tuple[float, float]] = []
        """When, and how old the mail was then."""

    def warm(self) -> None: ...

    def send(self, bounce: Bounce, turn: Callable[[], None], written: Callable[[], None]) -> str:
        turn()
        written()
        received = (bounce.received_at - _EPOCH).total_seconds()
        self.calls.append((self._clock.at, self._clock.at - received))
        self._clock.at += _ANSWER
        return "id"


# --- The simulation --------------------------------------------------------------------------


class Simulation:
    """One pattern, until the queue is empty."""

    def __init__(self, pattern: Pattern) -> None:
        self._arrivals = pattern.arrivals()
        self._clock = _Clock()
        self._slots = _SharedSlots()
        self._queue = _Queue()
        self._ledger = _Ledger(self._clock.moment)
        self._send_bounce = _Sender(self._clock)
        self._outcome = Outcome(pattern=pattern)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._containers = 0
        self._starting = 0
        self._cold_start = random.Random(2)
        self._idle_containers: list[Delivery] = []
        self._unhandled: deque[float] = deque()
        """When mails arrived that no container is free for."""
        self._idle_workers = [self._new_delivery() for _ in range(WORKERS)]
        self._queue_at, self._queue_length = array("d"), array("l")

    def run(self) -> Outcome:
        self._next_arrival()
        while self._events:
            self._clock.at, _, event = heapq.heappop(self._events)
            event()
        return self._summed_up()

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), event))

    def _new_delivery(self) -> Delivery:
        limiter = Limiter(
            _Slots(self._slots),
            Pace(),
            clock=self._clock.seconds,
            monotonic=self._clock.seconds,
            sleep=self._clock.sleep,
        )
        return Delivery(
            ledger=self._ledger,
            limiter=limiter,
            send_bounce=self._send_bounce,
            queue=_Overflow(self._queue, self._clock, self._call_worker),
            terms=Terms(),
            clock=self._clock.moment,
        )

    def _until(self, seconds: float) -> datetime:
        return self._clock.moment() + timedelta(seconds=seconds)

    # Inbound

    def _next_arrival(self) -> None:
        at = next(self._arrivals, None)
        if at is not None:
            self._at(at, lambda: self._arrive(at))

    def _arrive(self, at: float) -> None:
        self._unhandled.append(at)
        self._handle()
        self._next_arrival()

    def _handle(self) -> None:
        if not self._unhandled:
            return
        if not self._idle_containers:
            if self._containers < _CONTAINERS and self._starting < len(self._unhandled):
                self._start_container()
            return
        container = self._idle_containers.pop()
        outcome = self._outcome
        bounce = Bounce(
            message_id=str(outcome.mails),
            received_at=_EPOCH + timedelta(seconds=self._unhandled.popleft()),
            bounce_sender="mailer-daemon@example.com",
            recipients=_RECIPIENTS,
        )
        outcome.mails += 1
        (fate,) = container.send_or_queue(
            bounce, owner=str(next(self._order)), until=self._until(_INBOUND_SECONDS)
        )
        outcome.at_once += fate.state is BounceState.SENT
        outcome.queued += fate.state is BounceState.QUEUED
        outcome.given_up_at_once += fate.state is BounceState.EXPIRED

        self._at(self._clock.at + _HANDLING, lambda: self._free(container))

    def _start_container(self) -> None:
        self._containers += 1
        self._starting += 1

        def started() -> None:
            self._starting -= 1
            self._free(self._new_delivery())

        self._at(self._clock.at + self._cold_start.uniform(*_COLD_START), started)

    def _free(self, container: Delivery) -> None:
        self._idle_containers.append(container)
        self._handle()

    # The queue and its workers

    def _note_queue(self) -> None:
        self._queue_at.append(self._clock.at)
        self._queue_length.append(self._queue.length)

    def _call_worker(self) -> None:
        self._note_queue()
        if self._idle_workers:
            worker = self._idle_workers.pop()
            self._at(self._clock.at + _POLL, lambda: self._work(worker))

    def _work(self, worker: Delivery) -> None:
        waiting = self._queue.waiting
        batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
        if not batch:
            self._idle_workers.append(worker)
            return
        self._queue.in_hand += len(batch)
        began = self._clock.at
        fates, again = worker.send_batch(
            {bounce.message_id: bounce for bounce in batch},
            owner=str(next(self._order)),
            until=self._until(_WORKER_SECONDS),
        )
        self._outcome.by_worker += sum(fate.state is BounceState.SENT for fate in fates)
        self._outcome.given_up_later += sum(fate.state is BounceState.EXPIRED for fate in fates)
        back = [bounce for bounce in batch if bounce.message_id in again]

        def done() -> None:
            self._queue.in_hand -= len(batch)
            self._note_queue()
            if back:
                self._at(began + _VISIBILITY, lambda: self._put_back(back))
            self._at(self._clock.at + _POLL, lambda: self._work(worker))

        self._at(self._clock.at, done)

    def _put_back(self, bounces: list[Bounce]) -> None:
        self._queue.waiting.extend(bounces)
        self._call_worker()

    def _summed_up(self) -> Outcome:
        outcome = self._outcome
        calls = sorted(self._send_bounce.calls)
        outcome.sent_at = [at for at, _ in calls]
        outcome.ages = [age for _, age in calls]
        outcome.queue_at, outcome.queue_length = list(self._queue_at), list(self._queue_length)
        outcome.limiter_requests = self._slots.per_second.total()
        outcome.busiest_second = max(self._slots.per_second.values())
        ended = Counter(self._ledger.ended.values())
        # None lost, none twice, none too close.
        assert outcome.mails == sum(1 for _ in outcome.pattern.arrivals())
        assert ended == +Counter(
            {BounceState.SENT: outcome.sent, BounceState.EXPIRED: outcome.given_up}
        )
        assert ended.total() == outcome.mails
        assert len(calls) == outcome.sent
        assert outcome.closest >= Pace().interval
        return outcome


# --- Telling ---------------------------------------------------------------------------------


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def _row(outcome: Outcome) -> list[str]:
    ages = sorted(outcome.ages)
    share = outcome.share_in_backlog()
    return [
        outcome.pattern.name,
        f"{outcome.mails:,}",
        f"{outcome.at_once:,}",
        f"{outcome.queued:,}",
        f"{outcome.by_worker:,}",
        f"{outcome.given_up_at_once:,} + {outcome.given_up_later:,}",
        "" if share is None else f"{share:.1%}",
        f"{outcome.closest:.3f}",
        _time(_quantile(ages, 0.5)),
        _time(_quantile(ages, 0.99)),
        _time(ages[-1]),
        f"{outcome.limiter_requests / outcome.sent:.2f}",
        str(outcome.busiest_second),
    ]


_COLUMNS = (
    "mail",
    "mails",
    "at once",
    "queued",
    "by worker",
    "given up",
    "share",
    "closest s",
    "age: median",
    "99 %",
    "max",
    "requests",
    "peak/s",
)


def plot(outcomes: Sequence[Outcome], path: Path) -> None:
    """The queue's length and the age of what is sent, over the time until all is out."""
    try:
        import matplotlib as mpl
    except ImportError:
        say("no plot: matplotlib is not installed", style="yellow")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(
        2, len(outcomes), figsize=(4 * len(outcomes), 5), sharex="col", layout="constrained"
    )
    for column, outcome in enumerate(outcomes):
        above, below = grid[0][column], grid[1][column]
        step = len(outcome.queue_at) // 4000 + 1
        hours = [at / 3600 for at in outcome.queue_at[::step]]
        above.plot(hours, outcome.queue_length[::step], color="#30587c", linewidth=1)
        above.set_title(outcome.pattern.name, fontsize=10)
        above.yaxis.set_major_formatter("{x:,.0f}")
        step = len(outcome.sent_at) // 4000 + 1
        hours = [at / 3600 for at in outcome.sent_at[::step]]
        long = max(outcome.ages) > 3600
        ages = [age / (3600 if long else 1) for age in outcome.ages[::step]]
        below.plot(hours, ages, ".", color="#c0661f", markersize=2)
        below.set_ylabel("hours" if long else "seconds", fontsize=8)
        below.set_ylim(0)
        below.set_xlabel("hours")
        below.xaxis.set_major_locator(mpl.ticker.MultipleLocator(6))
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
    grid[0][0].set_ylabel("bounces in the queue", fontsize=9)
    figure.suptitle("Above: the queue. Below: the age of each bounce when it is sent", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    say(f"plot: {path}")


def simulate(pattern: Pattern) -> Outcome:
    return Simulation(pattern).run()


def bench(path: Path = OUTPUT / "flood.png") -> None:
    """Simulate, print and plot.

    Raises:
        AssertionError: a mail was lost, bounced twice, or bounced too soon after another.
    """
    with ProcessPoolExecutor() as pool:
        outcomes = list(pool.map(simulate, PATTERNS))
    print_table(
        "A day of mail that all has to be bounced, one a second", _COLUMNS, map(_row, outcomes)
    )
    say(machine())
    plot(outcomes, path)


def main(
    plot: Annotated[Path, typer.Option(help="Where the plot is written.")] = OUTPUT / "flood.png",
) -> None:
    """Simulate a day of flood."""
    bench(plot)


if __name__ == "__main__":
    typer.run(main)
