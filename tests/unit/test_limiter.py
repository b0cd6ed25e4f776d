"""No two calls start closer than the interval, and whoever cannot keep to that does not call."""

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import pairwise
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bouncer.limiter import (
    Answers,
    Busy,
    Granted,
    Limiter,
    Pace,
    Reservation,
    SlotExpiredError,
    Slots,
    Widening,
)
from tests.fakes.slots import MemorySlots

START = 1_800_000_000.0
# An epoch second as a float is exact to a fraction of a microsecond only.
ROUNDING = 1e-6
PACE = Pace()


class Machine:
    """One process: a wall clock that is a little off, a monotonic one, and sleep that is late."""

    def __init__(
        self,
        store: Slots,
        pace: Pace = PACE,
        *,
        clock_error: float = 0.0,
        oversleeps: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.time = START
        """The true one."""
        self.clock_error = clock_error
        self._oversleeps = oversleeps
        self.limiter = Limiter(
            store, pace, clock=self.clock, monotonic=lambda: self.time - START, sleep=self.sleep
        )

    def clock(self) -> float:
        return self.time + self.clock_error

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        # At least what a float of this size can tell apart, or time would stand still.
        self.time += max(seconds + self._oversleeps(), ROUNDING / 2)

    def reserve(self, calls: int = 1, max_wait: float = 60.0) -> Reservation:
        window = self.limiter.reserve(calls, max_wait)
        assert isinstance(window, Reservation)
        return window

    def throttled(self, seconds: float) -> None:
        """The receiver answers so to a call of this machine's, whenever that was."""
        window = Reservation(
            START,
            2,
            PACE,
            answers=Answers(),
            clock=self.clock,
            monotonic=lambda: 0.0,
            sleep=self.sleep,
        )
        self.limiter.penalise(window, seconds)


# --- Any interleaving ------------------------------------------------------------------------


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """One caller in a simulation."""

    arrives: float
    calls: int
    clock_error: float
    write_takes: float
    """From its look at the clock to the store's write."""
    answer_takes: float
    stalls: tuple[float, ...]
    """How late each of its sleeps ends, around and around."""
    suspensions: tuple[float, ...]
    """Between each turn and the start of the call, around and around: as long as it likes, but
    for the pace's bound beyond the window's last start."""


class LateStore:
    """The shared store, over a network: the write and the answer each take their time."""

    def __init__(self, store: Slots, write_takes: float, answer_takes: float) -> None:
        self._store = store
        self._write_takes = write_takes
        self._answer_takes = answer_takes
        self.machine: Machine

    def reserve(self, now: float, span: float, max_wait: float, horizon: float) -> Granted | Busy:
        self.machine.time += self._write_takes
        answer = self._store.reserve(now, span, max_wait, horizon)
        self.machine.time += self._answer_takes
        return answer

    def hold_back(self, now: float, until: float) -> None:
        self._store.hold_back(now, until)

    def widen(self, now: float, seen: Widening, to: Widening) -> Widening:
        return self._store.widen(now, seen, to)


def call_starts(holders: list[Holder], pace: Pace, *, unbounded: bool = False) -> list[float]:
    """When each call truly starts, all holders together, in order.

    Only the writes meet in the store, so the holders are run in the order of their writes.
    """
    store = MemorySlots()
    starts: list[float] = []
    writes: list[tuple[float, int, int]] = []
    for number, holder in enumerate(holders):
        heappush(writes, (holder.arrives, number, holder.calls))
    for _ in range(40 * len(holders)):  # a holder that is always late never gets to call
        if not writes:
            break
        at, number, left = heappop(writes)
        holder = holders[number]
        done, ended = _run_window(holder, START + at, left, store, pace, unbounded=unbounded)
        starts += done
        if len(done) < left:
            heappush(writes, (ended - START, number, left - len(done)))
    return sorted(starts)


def _run_window(
    holder: Holder, at: float, calls: int, store: Slots, pace: Pace, *, unbounded: bool
) -> tuple[list[float], float]:
    stalls = _around(holder.stalls)
    suspensions = _around(holder.suspensions)
    network = LateStore(store, holder.write_takes, holder.answer_takes)
    machine = Machine(
        network, pace, clock_error=holder.clock_error, oversleeps=lambda: next(stalls)
    )
    network.machine = machine
    machine.time = at - holder.write_takes
    window = machine.reserve(calls, max_wait=pace.horizon / 2)
    starts: list[float] = []
    try:
        while not window.used_up:
            window.turn()
            end = window.start + pace.latest_start(calls) + pace.suspension
            held_up = next(suspensions)
            machine.time += held_up if unbounded else max(0.0, min(held_up, end - machine.clock()))
            starts.append(machine.time)
            window.written()
    except SlotExpiredError:
        pass
    return starts, machine.time + holder.write_takes


def _around(values: tuple[float, ...]) -> Iterator[float]:
    while True:
        yield from values


def closest(starts: list[float]) -> float:
    return min((b - a for a, b in pairwise(starts)), default=float("inf"))


def holders(pace: Pace, chance: Random) -> list[Holder]:
    """Callers within the stated bounds, often at a bound; how late they wake has none."""

    def between(least: float, most: float) -> float:
        return chance.choice([least, most, 0.0, chance.uniform(least, most)])

    def stall() -> float:
        return chance.choice([0.0, between(0, 2 * pace.lateness), between(0, 5)])

    return [
        Holder(
            arrives=between(0, 5),
            calls=chance.randint(1, 4),
            clock_error=between(-pace.clock_error, pace.clock_error),
            write_takes=between(0, 0.2),
            answer_takes=between(0, 0.2),
            stalls=tuple(stall() for _ in range(chance.randint(1, 5))),
            suspensions=tuple(
                chance.choice([0.0, pace.suspension, between(0, 3)])
                for _ in range(chance.randint(1, 5))
            ),
        )
        for _ in range(chance.randint(2, 6))
    ]


PACES = [PACE, Pace(interval=0.1, lateness=0.01, suspension=0.02, clock_error=0.03)]


@pytest.mark.parametrize("pace", PACES, ids=["one a second", "ten a second"])
def test_no_two_calls_start_closer_than_the_interval(pace: Pace) -> None:
    """Whoever comes when, wakes how late, and has whose clock."""
    too_close = {
        seed: gap
        for seed in range(500)
        if (gap := closest(call_starts(holders(pace, Random(seed)), pace)))
        < pace.interval - ROUNDING
    }
    assert too_close == {}


class PoorerPace(Pace, frozen=True, kw_only=True):
    """A window keeps the others out for less long than it should."""

    saved: float

    def span(self, calls: int) -> float:
        return super().span(calls) - self.saved


@pytest.mark.parametrize(
    "saved",
    [PACES[1].lateness, PACES[1].suspension, 2 * PACES[1].clock_error],
    ids=["lateness", "suspension", "clock error"],
)
def test_a_span_without_one_of_its_margins_does_break_the_interval(saved: float) -> None:
    """The callers above go to every bound, so each part of the span is needed."""
    pace = PoorerPace(**msgspec.structs.asdict(PACES[1]), saved=saved)
    gaps = (closest(call_starts(holders(pace, Random(seed)), pace)) for seed in range(500))
    assert any(gap < pace.interval - ROUNDING for gap in gaps)


def punctual(number: int, **fields: Any) -> Holder:
    return msgspec.structs.replace(
        Holder(
            arrives=number / 1000,
            calls=1,
            clock_error=0.0,
            write_takes=0.0,
            answer_takes=0.0,
            stalls=(0.0,),
            suspensions=(0.0,),
        ),
        **fields,
    )


@pytest.mark.parametrize(
    "beyond",
    [{"suspensions": (0.5,)}, {"clock_error": 0.5}],
    ids=["held up after its last look at the clock", "a clock further off than stated"],
)
def test_what_is_beyond_the_bounds_does_break_the_interval(beyond: dict[str, Any]) -> None:
    """So the simulation above would see it, and the bounds are no decoration."""
    starts = call_starts([punctual(0), punctual(1, **beyond), punctual(2)], PACE, unbounded=True)
    assert len(starts) == 3
    assert closest(starts) < PACE.interval


@pytest.mark.parametrize("waiting", [1, 5, 40])
def test_punctual_callers_pay_the_tolerance_and_nothing_else(waiting: int) -> None:
    starts = call_starts([punctual(number) for number in range(waiting)], PACE)
    assert len(starts) == waiting
    assert starts[-1] - starts[0] == pytest.approx((waiting - 1) * PACE.span(1), abs=0.001)


def test_callers_are_served_in_the_order_in_which_they_asked() -> None:
    store = MemorySlots()
    slots = [Machine(store).reserve().start for _ in range(5)]
    assert slots == sorted(slots)


# --- A slot expires --------------------------------------------------------------------------


@given(late=st.floats(PACE.lateness + 1e-3, 100), calls=st.integers(1, 10))
def test_an_expired_slot_is_never_used(late: float, calls: int) -> None:
    machine = Machine(MemorySlots())
    window = machine.reserve(calls)
    machine.time = window.start + PACE.latest_start(calls) - PACE.lateness + late
    with pytest.raises(SlotExpiredError):
        window.turn()


@given(late=st.floats(0, PACE.lateness - 1e-3))
def test_a_little_late_is_not_too_late(late: float) -> None:
    machine = Machine(MemorySlots())
    window = machine.reserve()
    machine.time = window.start + late
    window.turn()
    assert window.used_up


def test_a_window_that_is_used_up_gives_no_further_turn() -> None:
    window = Machine(MemorySlots()).reserve(2)
    window.turn()
    window.turn()
    with pytest.raises(SlotExpiredError):
        window.turn()


def test_waiting_leaves_the_lead_before_the_turn() -> None:
    store = MemorySlots()
    store.hold_back(START, START + 5)
    machine = Machine(store)
    machine.reserve().wait(lead=0.25)
    assert machine.time == pytest.approx(START + 4.75)


def test_waiting_for_a_turn_that_has_come_takes_no_time() -> None:
    machine = Machine(MemorySlots())
    machine.reserve().wait(lead=0.25)
    assert machine.time == START


def test_a_sleep_that_ends_early_is_slept_again() -> None:
    store = MemorySlots()
    store.hold_back(START, START + 1)
    machine = Machine(store, oversleeps=iter([-0.4, -0.1, 0.0, 0.0]).__next__)
    machine.reserve().turn()
    assert machine.time == pytest.approx(START + 1)


# --- Inside a window -------------------------------------------------------------------------


@given(
    jumps=st.lists(st.floats(-3600, 0), min_size=4, max_size=4),
    stalls=st.lists(st.floats(0, 0.01), min_size=4, max_size=4),
)
@example(jumps=[0.0, -3600.0, -3600.0, 0.0], stalls=[0.0] * 4)
def test_a_windows_calls_are_a_step_apart_even_if_the_wall_clock_is_set_back(
    jumps: list[float], stalls: list[float]
) -> None:
    late = iter(stalls)
    machine = Machine(MemorySlots(), oversleeps=lambda: next(late, 0.0))
    window = machine.reserve(5)
    starts = []
    for jump in (0.0, *jumps):
        machine.clock_error = jump
        window.turn()
        starts.append(machine.time)
    assert closest(starts) >= PACE.step - ROUNDING
    assert starts[-1] - starts[0] == pytest.approx(4 * PACE.step, abs=0.05)


def test_a_wall_clock_that_is_set_forward_ends_the_window() -> None:
    """Too early is no harm: the others have a slot, and this holder takes a new one."""
    machine = Machine(MemorySlots())
    window = machine.reserve(5)
    window.turn()
    machine.clock_error = 60
    with pytest.raises(SlotExpiredError):
        window.turn()


# --- Spans -----------------------------------------------------------------------------------

paces = st.builds(
    Pace,
    interval=st.floats(0.01, 60),
    margin=st.floats(0, 0.02),
    suspension=st.floats(0, 0.1),
    lateness=st.floats(0, 1),
    clock_error=st.floats(0, 0.5),
)


@given(pace=paces, seconds=st.floats(0, 900))
def test_the_last_call_of_the_largest_window_starts_within_the_time_and_one_more_would_not(
    pace: Pace, seconds: float
) -> None:
    calls = pace.calls_within(seconds)
    assert calls == 0 or pace.latest_start(calls) <= seconds + ROUNDING
    assert pace.latest_start(calls + 1) > seconds - ROUNDING


@given(pace=paces, calls=st.integers(0, 90_000))
def test_a_queue_drains_faster_than_in_single_slots_and_slower_than_in_one_window(
    pace: Pace, calls: int
) -> None:
    rounding = ROUNDING * calls
    slowest = calls * (pace.span(1) + pace.drift) + rounding
    assert calls * pace.step - rounding <= pace.drain(calls) <= slowest


@given(pace=paces, calls=st.integers(1, 1000))
def test_up_to_its_latest_start_a_window_has_time_for_its_calls(pace: Pace, calls: int) -> None:
    latest = pace.latest_start(calls)
    assert calls - 1 <= pace.calls_within(latest) <= calls
    assert pace.calls_within(latest + ROUNDING * calls) == calls


@given(pace=paces, calls=st.integers(1, 1000))
def test_after_a_windows_latest_start_its_span_still_covers_the_interval_and_both_clocks(
    pace: Pace, calls: int
) -> None:
    behind = pace.span(calls) - pace.latest_start(calls)
    between_clocks = pace.suspension + 2 * pace.clock_error
    assert behind >= pace.interval + pace.margin + between_clocks - ROUNDING * calls


@given(calls=st.integers(1, 10))
def test_a_call_may_start_up_to_the_latest_start_and_no_later(calls: int) -> None:
    latest = PACE.latest_start(calls)
    in_time, too_late = Machine(MemorySlots()), Machine(MemorySlots())
    window, expired = in_time.reserve(calls), too_late.reserve(calls)
    in_time.time = window.start + latest - ROUNDING
    window.turn()
    too_late.time = expired.start + latest + ROUNDING
    with pytest.raises(SlotExpiredError):
        expired.turn()


@pytest.mark.parametrize(
    ("seconds", "calls"),
    [
        (PACE.lateness, 1),
        (PACE.latest_start(2) - 0.001, 1),
        (PACE.latest_start(2) + 0.001, 2),
        (77.5, 77),
    ],
)
def test_how_many_calls_start_within_a_time(seconds: float, calls: int) -> None:
    assert PACE.calls_within(seconds) == calls


@pytest.mark.parametrize("seconds", [-10.0, -PACE.step, 0.0, PACE.lateness - 0.001])
def test_no_call_fits_into_too_short_a_time(seconds: float) -> None:
    assert PACE.calls_within(seconds) == 0


@pytest.mark.parametrize(("calls", "share"), [(1, 0.91), (10, 0.98)])
def test_the_rate_that_a_window_of_so_many_calls_reaches(calls: int, share: float) -> None:
    assert calls * PACE.interval / PACE.span(calls) >= share


def test_a_pause_lets_time_pass_and_takes_no_slot() -> None:
    store = MemorySlots()
    machine = Machine(store)
    machine.limiter.pause(5)
    assert machine.time == START + 5
    assert store.reserve(START, 1, 0, 600) == Granted(START)


# --- A refusal is remembered -----------------------------------------------------------------


class Counted:
    """A store that knows how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.slots = MemorySlots()

    def reserve(self, now: float, span: float, max_wait: float, horizon: float) -> Granted | Busy:
        self.asked += 1
        return self.slots.reserve(now, span, max_wait, horizon)

    def hold_back(self, now: float, until: float) -> None:
        self.slots.hold_back(now, until)

    def widen(self, now: float, seen: Widening, to: Widening) -> Widening:
        return self.slots.widen(now, seen, to)


@pytest.fixture
def store() -> Counted:
    return Counted()


@pytest.fixture
def refused(store: Counted) -> Machine:
    """A machine that has just heard: the next slot is 10 s away, and it would wait 3."""
    store.hold_back(START, START + 10)
    machine = Machine(store)
    assert machine.limiter.reserve(1, 3) == Busy(START + 10)
    return machine


def test_before_anything_was_asked_nothing_is_refused(store: Counted) -> None:
    assert Machine(store).limiter.refused(3) is None


def test_a_refusal_answers_the_next_caller_without_a_request(
    refused: Machine, store: Counted
) -> None:
    refused.time += 6.9
    assert refused.limiter.refused(3) == Busy(START + 10)
    assert refused.limiter.reserve(1, 3) == Busy(START + 10)
    assert store.asked == 1


def test_a_refusal_ends_when_the_slot_has_come_near(refused: Machine, store: Counted) -> None:
    refused.time += 7.1
    assert refused.limiter.refused(3) is None
    assert refused.reserve(max_wait=3).start == START + 10
    assert store.asked == 2


def test_whoever_can_wait_longer_is_not_refused_by_memory(refused: Machine) -> None:
    assert refused.limiter.refused(11) is None
    assert refused.reserve(max_wait=11).start == START + 10


def test_a_queue_that_is_just_too_long_is_asked_about_once_an_interval(store: Counted) -> None:
    store.hold_back(START, START + 3.2)
    machine = Machine(store)
    assert isinstance(machine.limiter.reserve(1, 3), Busy)
    machine.time += 0.1
    assert machine.limiter.refused(3) is not None
    machine.time += 0.15
    assert machine.limiter.refused(3) is None


def test_a_flood_in_one_process_leaves_the_store_alone(refused: Machine, store: Counted) -> None:
    for _ in range(1000):
        assert isinstance(refused.limiter.reserve(1, 3), Busy)
        refused.time += 0.005
    assert store.asked == 1


# --- The receiver throttled ------------------------------------------------------------------


def test_a_penalty_holds_everyone_back() -> None:
    store = MemorySlots()
    Machine(store).throttled(2)
    assert Machine(store).reserve().start == START + 2


def test_a_penalty_does_not_shorten_the_queue() -> None:
    store = MemorySlots()
    store.hold_back(START, START + 30)
    Machine(store).throttled(2)
    assert Machine(store).reserve().start == START + 30


def test_a_penalty_does_not_stop_the_calls_of_others_that_have_their_slots() -> None:
    store = MemorySlots()
    machine = Machine(store)
    window = machine.reserve(2)
    window.turn()
    Machine(store).throttled(60)
    window.turn()
    assert machine.time == pytest.approx(START + PACE.step)


def test_a_throttled_call_leaves_the_turn_after_it_out_and_keeps_the_window() -> None:
    machine = Machine(MemorySlots())
    window = machine.reserve(4)
    for _ in range(2):
        window.turn()
    throttled_at = machine.time
    machine.time += 0.2  # its answer
    machine.limiter.penalise(window, 2 * PACE.interval)
    window.turn()
    wider = PACE.step + PACE.widening
    assert machine.time - throttled_at == pytest.approx(PACE.step + wider)
    assert window.used_up


# --- Calls that arrive late ------------------------------------------------------------------


def arrivals_of(travels: list[float], *, answers: bool = True) -> tuple[list[float], list[float]]:
    """When the calls of one window are written, and when they arrive; each is answered at once."""
    machine = Machine(MemorySlots())
    window = machine.reserve(len(travels))
    written, arrived = [], []
    for travel in travels:
        window.turn()
        window.written()
        written.append(machine.time - START)
        machine.time += travel
        arrived.append(machine.time - START)
        if answers:
            window.answered()
    return written, arrived


def test_a_call_that_arrives_late_does_not_have_the_next_one_close_behind_it() -> None:
    travels = [0.001] * 5 + [0.04] + [0.001] * 4
    assert closest(arrivals_of(travels)[1]) >= PACE.interval - ROUNDING
    assert closest(arrivals_of(travels, answers=False)[1]) < PACE.interval - 0.01


@given(travels=st.lists(st.floats(0, PACE.interval), min_size=2, max_size=10))
def test_a_late_answer_is_waited_for_as_long_as_the_window_has_time_to_spare(
    travels: list[float],
) -> None:
    written, arrived = arrivals_of(travels)
    assert closest(written) >= PACE.step - ROUNDING
    for number in range(1, len(travels)):
        quickest, late = min(travels[:number]), travels[number - 1]
        latest = PACE.latest_wait(number, len(travels))
        if written[number] < latest - ROUNDING and travels[number] >= quickest:
            assert arrived[number] - arrived[number - 1] >= PACE.step - ROUNDING
        longest = max(latest, written[number - 1] + PACE.step)
        assert written[number] <= longest + ROUNDING
        assert written[number] <= written[number - 1] + PACE.step + late - quickest + ROUNDING


@pytest.mark.parametrize("takes", [0.0, 0.05, 0.9])
def test_a_receiver_that_always_takes_its_time_costs_nothing(takes: float) -> None:
    written, _ = arrivals_of([takes] * 10)
    assert written == pytest.approx([number * PACE.step for number in range(10)])


# --- The margin learns -----------------------------------------------------------------------


def test_whoever_is_held_up_in_the_middle_of_a_window_delays_the_next_call_and_no_more() -> None:
    machine = Machine(MemorySlots())
    window = machine.reserve(3)
    starts = []
    for held_up in (0.04, 0.0, 0.0):
        window.turn()
        machine.time += held_up
        starts.append(machine.time)
        window.written()
    assert closest(starts) == pytest.approx(PACE.step)


def test_a_throttled_call_makes_the_steps_longer_for_everyone_else_too() -> None:
    store = MemorySlots()
    one, other = Machine(store), Machine(store)
    one.throttled(0)
    assert one.limiter.pace.margin == pytest.approx(PACE.margin + PACE.widening)
    assert other.limiter.pace == PACE
    other.reserve()
    assert other.limiter.pace.margin == pytest.approx(PACE.margin + PACE.widening)
    window = other.reserve(2)
    first = window.start
    window.turn()
    window.turn()
    assert other.time - first == pytest.approx(PACE.step + PACE.widening)


def test_who_is_refused_hears_of_it_too() -> None:
    store = MemorySlots()
    Machine(store).throttled(10)
    refused = Machine(store)
    assert isinstance(refused.limiter.reserve(1, 3), Busy)
    assert refused.limiter.pace.margin == pytest.approx(PACE.margin + PACE.widening)


def test_two_who_are_throttled_by_the_same_neighbour_widen_once() -> None:
    store = MemorySlots()
    one, other = Machine(store), Machine(store)
    one.reserve()
    other.reserve()
    one.throttled(0)
    other.throttled(0)
    assert other.limiter.pace.margin == pytest.approx(PACE.margin + PACE.widening)


class Account:
    """A receiver that takes calls by its own rule, one holder, and any number of neighbours."""

    def __init__(self, takes: Callable[[float], bool]) -> None:
        self.store = MemorySlots()
        self.machine = Machine(self.store)
        self._takes = takes
        self.throttled: list[float] = []
        self.starts: list[float] = []
        self.margins: list[float] = []

    def run(self, seconds: float) -> None:
        end = self.machine.time + seconds
        while self.machine.time < end:
            window = self.machine.reserve(10)
            try:
                while not window.used_up:
                    window.turn()
                    self._call(window)
            except SlotExpiredError:
                continue

    def _call(self, window: Reservation) -> None:
        gap = self.machine.time - self.starts[-1] if self.starts else float("inf")
        self.starts.append(self.machine.time)
        self.margins.append(self.machine.limiter.pace.margin)
        window.written()
        if not self._takes(gap):
            self.throttled.append(self.machine.time)
            self.machine.limiter.penalise(window, 2 * PACE.interval)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_receiver_wants_the_margin_stays_within_its_bounds_and_calls_are_apart(
    seed: int,
) -> None:
    chance = Random(seed)
    needs, jitter = chance.uniform(0, 0.05), chance.uniform(0, 0.02)
    account = Account(lambda gap: gap + chance.uniform(-jitter, jitter) >= PACE.interval + needs)
    account.run(200)
    assert closest(account.starts) >= PACE.interval - ROUNDING
    lowest, highest = min(account.margins), max(account.margins)
    assert PACE.margin - ROUNDING <= lowest <= highest <= PACE.widest_margin + ROUNDING
    # Nobody starves: each call but a throttled one, and the turn after it, gets through.
    throttled = len(account.throttled)
    assert len(account.starts) >= 200 / (PACE.interval + PACE.widest_margin + 0.03) - 5 * throttled


@pytest.mark.parametrize("needs", [0.006, 0.01, 0.011, 0.015])
def test_the_margin_finds_what_the_receiver_wants_and_keeps_to_it(needs: float) -> None:
    """A few throttled calls at the beginning, then one an hour: in 3,600, not in 1,000."""
    assert needs <= PACE.widest_margin - PACE.widening
    account = Account(lambda gap: gap >= PACE.interval + needs)
    account.run(600)
    to_learn = len(account.throttled)
    assert to_learn <= (PACE.widest_margin - PACE.margin) / PACE.widening
    account.run(4 * 3600)
    assert len(account.throttled) - to_learn <= 4 * 3600 / PACE.memory + 1


def test_when_the_receiver_throttles_no_more_the_steps_are_as_before() -> None:
    strict = True
    account = Account(lambda gap: not strict or gap >= PACE.interval + 0.5)
    account.run(600)
    assert account.machine.limiter.pace.margin == pytest.approx(PACE.widest_margin)
    strict = False
    before = len(account.margins)
    account.run(4 * 3600)
    after = account.margins[before:]
    assert after == sorted(after, reverse=True)  # no swinging
    assert account.machine.limiter.pace == PACE


def test_whatever_is_stored_the_margin_has_its_bound() -> None:
    store = MemorySlots()
    store.widen(START, Widening(), Widening(1e6, START + 1e6))
    machine = Machine(store)
    machine.reserve()
    assert machine.limiter.pace.margin == PACE.widest_margin
