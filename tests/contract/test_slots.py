"""The limiter's slots, every store of them: never two at once, never further than was asked."""

from typing import Any, Protocol

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws.slots import DynamoSlots
from bouncer.limiter import Busy, Granted, Pace, Slots, Widening
from tests.fakes.slots import MemorySlots
from tests.integration.builders import BOUNCES, requests_of, set_date

START = 1_800_000_000.0
PACE = Pace()


class Bench(Protocol):
    """A store under test, and what it costs to ask it."""

    store: Slots

    def requests(self) -> int | None: ...


class _Memory:
    def __init__(self) -> None:
        self.store: Slots = MemorySlots()

    def requests(self) -> int | None:
        return None


class _Simulated:
    def __init__(self, client: DynamoDBClient) -> None:
        self.store: Slots = DynamoSlots(client, BOUNCES)

    def requests(self) -> int | None:
        return None


class _Dynamo:
    def __init__(self, client: DynamoDBClient) -> None:
        set_date(client, None)
        self.store: Slots = DynamoSlots(client, BOUNCES)
        self._seen = requests_of(client)

    def requests(self) -> int | None:
        number = len(self._seen)
        self._seen.clear()
        return number


@pytest.fixture(params=["in memory", "in DynamoDB", "simulated"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "in memory":
        return _Memory()
    if request.param == "simulated":
        return _Simulated(request.getfixturevalue("simulated")(START).dynamodb)
    return _Dynamo(request.getfixturevalue("dynamodb"))


@pytest.fixture
def now() -> float:
    return START


SPAN = 5.0
HORIZON = 600.0


def exactly(seconds: float) -> Any:
    return pytest.approx(seconds, abs=1e-5)


def reserved(bench: Bench, now: float, max_wait: float = 60.0, span: float = SPAN) -> float:
    answer = bench.store.reserve(now, span, max_wait, HORIZON)
    assert isinstance(answer, Granted), answer
    return answer.start


def refused_until(bench: Bench, now: float, max_wait: float) -> float:
    answer = bench.store.reserve(now, SPAN, max_wait, HORIZON)
    assert isinstance(answer, Busy), answer
    return answer.next_slot


def test_the_first_slot_of_a_fresh_store_is_now(bench: Bench, now: float) -> None:
    assert reserved(bench, now, max_wait=0) == now
    assert bench.requests() in (None, 1)


def test_an_idle_store_gives_now_and_forgets_the_past(bench: Bench, now: float) -> None:
    reserved(bench, now, span=0.5)
    assert reserved(bench, now + 1, max_wait=0) == exactly(now + 1)
    assert refused_until(bench, now + 1, max_wait=0) == exactly(now + 1 + SPAN)


def test_a_slot_that_begins_this_moment_is_idle(bench: Bench, now: float) -> None:
    reserved(bench, now, span=1)
    assert reserved(bench, now + 1, max_wait=0) == exactly(now + 1)


def test_a_busy_store_gives_one_slot_after_the_other(bench: Bench, now: float) -> None:
    starts = [reserved(bench, now) for _ in range(4)]
    assert starts == [exactly(now + number * SPAN) for number in range(4)]


def test_each_slot_is_as_long_as_its_holder_asked(bench: Bench, now: float) -> None:
    reserved(bench, now, span=2)
    assert reserved(bench, now, span=7) == exactly(now + 2)
    assert reserved(bench, now) == exactly(now + 9)


def test_a_slot_just_within_the_wait_is_taken(bench: Bench, now: float) -> None:
    reserved(bench, now)
    assert reserved(bench, now, max_wait=SPAN) == exactly(now + SPAN)


def test_a_slot_beyond_the_wait_is_refused_with_its_time_and_not_taken(
    bench: Bench, now: float
) -> None:
    reserved(bench, now)
    assert refused_until(bench, now, max_wait=SPAN - 0.01) == exactly(now + SPAN)
    assert reserved(bench, now) == exactly(now + SPAN)


@pytest.mark.parametrize("busy_before", [False, True], ids=["after idle", "after busy"])
def test_a_refusal_costs_one_request(bench: Bench, now: float, busy_before: bool) -> None:
    reserved(bench, now)
    if busy_before:
        reserved(bench, now)
    bench.requests()
    refused_until(bench, now, max_wait=1)
    assert bench.requests() in (None, 1)


def test_in_a_backlog_a_reservation_costs_one_request(bench: Bench, now: float) -> None:
    reserved(bench, now)
    reserved(bench, now)
    bench.requests()
    for _ in range(5):
        reserved(bench, now)
    assert bench.requests() in (None, 5)


def test_whoever_was_refused_once_knows_that_it_is_busy(bench: Bench, now: float) -> None:
    bench.store.hold_back(now, now + 30)
    refused_until(bench, now, max_wait=3)
    bench.requests()
    assert reserved(bench, now) == exactly(now + 30)
    assert bench.requests() in (None, 1)


@pytest.mark.parametrize("gap", [0.0, 0.2, 0.5, 1.0, 10.0])
def test_without_competition_no_reservation_costs_more_than_two_requests(
    bench: Bench, now: float, gap: float
) -> None:
    """Wherever a backlog begins and ends."""
    costs = []
    for number in range(8):
        reserved(bench, now + number * gap, span=0.4)
        costs.append(bench.requests() or 0)
    assert max(costs) <= 2
    assert sum(costs) <= 1.25 * len(costs)


def test_holding_back_keeps_everyone_out_until_then(bench: Bench, now: float) -> None:
    bench.store.hold_back(now, now + 3)
    assert refused_until(bench, now, max_wait=2) == exactly(now + 3)
    assert reserved(bench, now) == exactly(now + 3)


def test_holding_back_only_moves_forward(bench: Bench, now: float) -> None:
    bench.store.hold_back(now, now + 30)
    bench.store.hold_back(now, now + 3)
    assert reserved(bench, now) == exactly(now + 30)


def test_holding_back_twice_is_holding_back_until_the_later_one(bench: Bench, now: float) -> None:
    bench.store.hold_back(now, now + 3)
    bench.store.hold_back(now, now + 30)
    assert reserved(bench, now) == exactly(now + 30)


def test_a_slot_beyond_the_horizon_comes_from_a_wrong_clock_and_is_repaired(
    bench: Bench, now: float
) -> None:
    bench.store.hold_back(now, now + HORIZON + 1)
    assert reserved(bench, now, max_wait=0) == now
    assert reserved(bench, now) == exactly(now + SPAN)


def test_a_slot_at_the_horizon_is_believed(bench: Bench, now: float) -> None:
    bench.store.hold_back(now, now + HORIZON)
    assert refused_until(bench, now, max_wait=60) == exactly(now + HORIZON)


# --- The widening ----------------------------------------------------------------------------

WIDER = Widening(0.005, START)


def widening_of(bench: Bench, now: float) -> Widening:
    return bench.store.reserve(now, SPAN, 60.0, HORIZON).widening


def test_a_fresh_store_knows_of_no_widening(bench: Bench, now: float) -> None:
    assert widening_of(bench, now) == Widening()


def test_a_widening_is_told_with_every_answer(bench: Bench, now: float) -> None:
    assert bench.store.widen(now, Widening(), WIDER) == WIDER
    bench.requests()
    assert [widening_of(bench, now) for _ in range(3)] == [WIDER] * 3
    assert bench.requests() in (None, 3)
    refused = bench.store.reserve(now, SPAN, 0.0, HORIZON)
    assert isinstance(refused, Busy)
    assert refused.widening == WIDER


def test_a_widening_takes_no_slot_and_leaves_the_slots_alone(bench: Bench, now: float) -> None:
    reserved(bench, now)
    bench.store.widen(now, Widening(), WIDER)
    assert reserved(bench, now) == exactly(now + SPAN)


def test_what_somebody_else_has_widened_meanwhile_stands(bench: Bench, now: float) -> None:
    bench.store.widen(now, Widening(), WIDER)
    assert bench.store.widen(now + 1, Widening(), Widening(0.005, now + 1)) == WIDER
    wider = Widening(0.01, now + 2)
    assert bench.store.widen(now + 2, WIDER, wider) == wider
    assert widening_of(bench, now) == wider
