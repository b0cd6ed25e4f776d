"""One call an interval, across any number of processes, without talking to each other.

A caller reserves a slot in one atomic write, sleeps until it, and starts its call then. The
store serialises the writes, so slots never overlap; what could break the spacing is a caller
that starts late, so a slot expires: whoever wakes too late throws it away and takes another.

    next slot as stored
      |<------------- span of a window of n calls ------------->|
      t         t + step    ...        t + (n-1)step            t + span
    call      call                   last call, at most       the next holder's first call
                                     `lateness` and `drift`
                                     later

A window's calls are spaced by the holder's own monotonic clock, each from the moment at which
the one before was written: a process that is held up in between only makes the gap longer. Where
an answer was slow, its call may have arrived as much late; as long as the window has time to spare,
the next one waits so much longer.
Only at a window's edges do the clocks of two machines meet; the gap there is at least
span - (n-1)*(step + drift) - lateness - suspension - 2*clock_error,  which is a step again.

A step is the interval and a margin. The margin learns: when the receiver throttles, it grows
for everyone who shares the store, and shrinks again by itself.

It knows nothing of mail and nothing of AWS; its clocks and its sleep are arguments.
docs/limiter.md has the proof, the measurements and the figures.
"""

import math
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from bouncer.backend import BackendUnavailableError

_HALF_A_BATCH = 5


class Widening(msgspec.Struct, frozen=True):
    """By how much the margin was widened, and when."""

    extra: float = 0.0
    """Seconds."""
    since: float = 0.0
    """Epoch seconds."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How far apart calls start, and what that allows for. All in seconds."""

    interval: float = 1.0
    """The promise: no two calls start less than this apart."""
    margin: float = 0.005
    """What every step is longer than the interval.

    So much closer than they start may the receiver see two calls, because one request travelled
    faster than the one before.
    """
    widest_margin: float = 0.02
    """However often the receiver throttles, the margin grows no further."""
    widening: float = 0.005
    """What the margin grows by when the receiver throttles."""
    memory: float = 3600.0
    """In so long the margin shrinks by one widening again."""
    suspension: float = 0.02
    """How long the process may be held up between its last look at the clock and the last call
    of its window, before the next holder's call comes too close."""
    lateness: float = 0.05
    """How long after its slot a call may still start; later, the slot is thrown away."""
    drift: float = 0.004
    """By how much later each further call of a window may be: late ones add up."""
    clock_error: float = 0.01
    """How far any machine's clock may be from the true time."""
    horizon: float = 600.0
    """A next slot further ahead than this comes from a wrong clock and is repaired."""

    @property
    def step(self) -> float:
        """Between two calls of one window."""
        return self.interval + self.margin

    @property
    def guard(self) -> float:
        """What a window costs beyond its calls, were it of one only."""
        return self.lateness + self.suspension + 2 * self.clock_error

    def span(self, calls: int) -> float:
        """How long a window of so many calls keeps everyone else out."""
        return calls * self.step + (calls - 1) * self.drift + self.guard

    def drain(self, calls: int) -> float:
        """How long a queue of so many calls takes, in windows that are not always full."""
        return calls * self.span(_HALF_A_BATCH) / _HALF_A_BATCH

    def latest_start(self, calls: int) -> float:
        """How long after its window's start the last of so many calls may start."""
        return (calls - 1) * (self.step + self.drift) + self.lateness

    def latest_wait(self, call: int, calls: int) -> float:
        """How long after its window's start one of its calls, from 0 on, is waited with.

        Half the lateness is left for what holds a call up.
        """
        return call * self.step + (calls - 1) * self.drift + self.lateness / 2

    def calls_within(self, seconds: float) -> int:
        """The largest window whose last call starts within so many seconds."""
        return max(0, math.floor((seconds - self.lateness) / (self.step + self.drift)) + 1)

    def left_of(self, widening: Widening, now: float) -> float:
        """What is left of a widening: from nothing to as much as is allowed at all."""
        age = max(0.0, now - widening.since)
        left = widening.extra - self.widening * age / self.memory
        return min(max(left, 0.0), max(self.widest_margin - self.margin, 0.0))

    def widened(self, widening: Widening, now: float) -> "Pace":
        """This pace with what is left of a widening in its margin."""
        extra = self.left_of(widening, now)
        return msgspec.structs.replace(self, margin=self.margin + extra) if extra else self

    def wider(self, widening: Widening, now: float) -> Widening:
        """What a widening becomes when the receiver throttles now."""
        extra = min(self.left_of(widening, now) + self.widening, self.widest_margin - self.margin)
        return Widening(max(extra, 0.0), now)


class Granted(msgspec.Struct, frozen=True):
    """A span of time that is now the caller's, from `start` on (epoch seconds)."""

    start: float
    widening: Widening = Widening()
    """As stored."""


class Busy(msgspec.Struct, frozen=True):
    """Nothing was reserved: the next free slot, at `next_slot`, is further than wanted."""

    next_slot: float
    widening: Widening = Widening()


class NoSlotError(Exception):
    """No slot could be asked for; the call has to be made later, by someone else."""


class TooBusyError(NoSlotError):
    """The next free slot is further away than the caller would wait."""


class ClockWrongError(NoSlotError):
    """This machine's clock is off; a slot by it would disturb everyone else's."""


class SlotsUnavailableError(NoSlotError, BackendUnavailableError):
    """The store did not answer, or answered with an error."""


class SlotExpiredError(Exception):
    """The slot came and went before the call could start; nothing was sent."""


class Slots(Protocol):
    """Where the next free slot is kept; every method is atomic."""

    def reserve(self, now: float, span: float, max_wait: float, horizon: float) -> Granted | Busy:
        """Take the next slot if it is not further than `max_wait` from `now`.

        The slot is the stored one, or `now` when that has passed; what is stored moves to
        the slot's end. A stored slot beyond `horizon` counts as passed.

        Raises:
            NoSlotError: the store failed, or its own clock contradicts `now`.
        """
        ...

    def hold_back(self, now: float, until: float) -> None:
        """Let no slot begin before `until`."""
        ...

    def widen(self, now: float, seen: Widening, to: Widening) -> Widening:
        """Store another widening, unless somebody else has done so since `seen` was read.

        Returns:
            What is stored now, as far as is known.

        Raises:
            NoSlotError: see reserve.
        """
        ...


class Answers:
    """How quick the receiver's answers to one process have been."""

    def __init__(self) -> None:
        self._quickest = math.inf

    def slower(self, seconds: float) -> float:
        """By how much an answer was slower than the quickest one so far."""
        self._quickest = min(self._quickest, seconds)
        return seconds - self._quickest


class Reservation:
    """Slots in a row for one holder."""

    def __init__(
        self,
        start: float,
        calls: int,
        pace: Pace,
        *,
        answers: Answers,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self.start = start
        self.calls = calls
        self._pace = pace
        self._step = pace.step
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._answers = answers
        self._began = 0.0
        self._written = 0.0
        self._earliest: float | None = None
        self._turns = 0

    @property
    def used_up(self) -> bool:
        """Whether no further turn comes: all are taken, or it is too late for the next."""
        return self._turns >= self.calls

    @property
    def _last_start(self) -> float:
        """No call may start after this: the next holder's first one could follow at once."""
        return self.start + self._pace.latest_start(self.calls)

    def wait(self, lead: float = 0.0) -> None:
        """Sleep until `lead` seconds before the next turn: time to get ready for it."""
        pause = self._until_turn() - lead
        if pause > 0:
            self._sleep(pause)

    def turn(self) -> None:
        """Sleep until the next call may start; it has to start as soon as this returns.

        Raises:
            SlotExpiredError: it is too late for this window, or the window is used up.
        """
        while (pause := self._until_turn()) > 0:
            self._sleep(pause)
        if self.used_up or self._clock() > self._last_start:
            self._turns = self.calls
            raise SlotExpiredError
        if not self._turns:
            self._began = self._monotonic() - (self._clock() - self.start)
        self._turns += 1
        self.written()

    def written(self) -> None:
        """The call has only now gone out: the next turn is a step from here.

        Whoever says so after each call may be held up between its turn and its call for as
        long as it likes, but for the last call of a window (`Pace.suspension`).
        """
        self._written = self._monotonic()
        self._earliest = self._written + self._step

    def answered(self) -> None:
        """The receiver answers the last call: if late, then the call may have come as late."""
        if self._earliest is None:
            return
        late = self._answers.slower(self._monotonic() - self._written)
        latest = self._began + self._pace.latest_wait(self._turns, self.calls)
        self._earliest = max(self._earliest, min(self._earliest + late, latest))

    def skip(self, step: float) -> None:
        """Leave one turn out, and keep the rest so far apart: the last ones may come too late."""
        self._turns += 1
        self._step = step
        if self._earliest is not None:
            self._earliest += step

    def _until_turn(self) -> float:
        if self._earliest is not None:
            return self._earliest - self._monotonic()
        return self.start - self._clock()


class Limiter:
    """Hands out windows of slots from a store that all callers share."""

    def __init__(
        self,
        store: Slots,
        pace: Pace,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pace = pace
        self._widening = Widening()
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._answers = Answers()
        self._ask_again = -math.inf
        self._next_slot = -math.inf

    @property
    def pace(self) -> Pace:
        """As it is now: wider than it was given while the receiver throttles."""
        return self._pace.widened(self._widening, self._clock())

    def refused(self, max_wait: float) -> Busy | None:
        """The last refusal, as long as it still holds for this wait; it costs no request."""
        if self._monotonic() < self._ask_again and self._next_slot > self._clock() + max_wait:
            return Busy(self._next_slot, self._widening)
        return None

    def reserve(self, calls: int, max_wait: float) -> Reservation | Busy:
        """Reserve a window of `calls` slots that begins within `max_wait` seconds.

        A refusal is remembered: until the backlog can have shrunk, the next caller in this
        process is refused without a request, so that a flood leaves the store alone.

        Raises:
            NoSlotError: see Slots.reserve.
        """
        if refused := self.refused(max_wait):
            return refused
        now = self._clock()
        pace = self._pace.widened(self._widening, now)
        answer = self._store.reserve(now, pace.span(calls), max_wait, pace.horizon)
        self._widening = answer.widening
        if isinstance(answer, Busy):
            self._next_slot = answer.next_slot
            ahead = answer.next_slot - now - max_wait
            # At least an interval: a queue that is just too long is asked about once a slot.
            self._ask_again = self._monotonic() + max(ahead, pace.interval)
            return answer
        return Reservation(
            answer.start,
            calls,
            pace,
            answers=self._answers,
            clock=self._clock,
            monotonic=self._monotonic,
            sleep=self._sleep,
        )

    def turn(self, max_wait: float) -> None:
        """Sleep until one call may start; it has to start as soon as this returns.

        Args:
            max_wait: seconds.

        Raises:
            TooBusyError: no slot is so near.
            NoSlotError: see Slots.reserve.
        """
        end = self._monotonic() + max_wait
        while (left := end - self._monotonic()) >= 0:
            answer = self.reserve(1, left)
            if isinstance(answer, Busy):
                if answer.next_slot > self._clock() + left:
                    break
                continue  # others were quicker, several times
            try:
                answer.turn()
            except SlotExpiredError:
                continue
            return
        raise TooBusyError(f"no slot within {max_wait:g} s")

    def pause(self, seconds: float) -> None:
        """Let time pass before asking again."""
        self._sleep(seconds)

    def penalise(self, window: Reservation, seconds: float) -> None:
        """The receiver throttled the window's last call.

        Nobody gets a new slot for so many seconds, the window leaves a turn out, and everyone's
        steps grow.

        Raises:
            NoSlotError: see Slots.reserve; this process makes room all the same.
        """
        now = self._clock()
        seen, self._widening = self._widening, self._pace.wider(self._widening, now)
        window.skip(self.pace.step)
        self._store.hold_back(now, now + seconds)
        self._widening = self._store.widen(now, seen, self._widening)
