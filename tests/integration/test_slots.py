"""What only the shared slots can meet: clocks that disagree, absurd slots, other writers, faults.

What they have in common with every store is in tests/contract/test_slots.py.
"""

import time
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws import slots as module
from bouncer.aws.slots import DynamoSlots
from bouncer.limiter import (
    Busy,
    ClockWrongError,
    Granted,
    NoSlotError,
    SlotsUnavailableError,
    Widening,
)
from tests.integration.builders import (
    BOUNCES,
    Answer,
    fail,
    item,
    requests_of,
    set_date,
    stored,
)

KEY = {"pk": "limiter", "sk": "send-bounce"}
SPAN = 5.0
HORIZON = 600.0


@pytest.fixture
def now(dynamodb: DynamoDBClient) -> float:
    """The true time, which DynamoDB's Date header tells."""
    moment = float(int(time.time()))
    set_date(dynamodb, moment)
    return moment


@pytest.fixture
def slots(dynamodb: DynamoDBClient, now: float) -> DynamoSlots:
    return DynamoSlots(dynamodb, BOUNCES)


def next_slot(dynamodb: DynamoDBClient) -> float:
    return float(stored(dynamodb, BOUNCES, **KEY).get("next_slot", 0))


def put_next_slot(dynamodb: DynamoDBClient, seconds: float) -> None:
    key: Any = item(**KEY)
    number = {"N": f"{seconds:.6f}"}
    dynamodb.put_item(TableName=BOUNCES, Item={**key, "next_slot": number})


@pytest.mark.parametrize("off", [-3600, -10, 10, 400, 3600])
def test_a_wrong_clock_of_our_own_is_found_out_by_the_servers_date(
    slots: DynamoSlots, dynamodb: DynamoDBClient, now: float, off: float
) -> None:
    with pytest.raises(ClockWrongError, match=r"the clock here is .* s off DynamoDB's"):
        slots.reserve(now + off, SPAN, 3, HORIZON)


@pytest.mark.parametrize("before", [None, -20.0], ids=["fresh", "idle"])
def test_what_a_wrong_clock_stored_is_taken_back(
    slots: DynamoSlots, dynamodb: DynamoDBClient, now: float, before: float | None
) -> None:
    if before is not None:
        put_next_slot(dynamodb, now + before)
    with pytest.raises(ClockWrongError):
        slots.reserve(now + 300, SPAN, 3, HORIZON)
    assert next_slot(dynamodb) == pytest.approx(now + before if before else 0)
    assert slots.reserve(now, SPAN, 3, HORIZON) == Granted(now)


def test_what_others_built_on_a_wrong_clocks_slot_is_left_to_them(
    slots: DynamoSlots, dynamodb: DynamoDBClient, now: float
) -> None:
    """The condition of taking it back fails; the horizon bounds what the slot can do."""
    seen = requests_of(dynamodb)
    condition_failed = Answer(code="ConditionalCheckFailedException")

    def meanwhile(**_: object) -> None:
        if len(seen) == 1:
            fail(dynamodb, "UpdateItem", condition_failed)

    dynamodb.meta.events.register("after-call.dynamodb.UpdateItem", meanwhile)
    with pytest.raises(ClockWrongError):
        slots.reserve(now + 300, SPAN, 3, HORIZON)
    assert seen == ["UpdateItem", "UpdateItem"]
    assert next_slot(dynamodb) == pytest.approx(now + 300 + SPAN)


def test_a_refusal_too_is_held_against_the_servers_date(
    slots: DynamoSlots, dynamodb: DynamoDBClient, now: float
) -> None:
    put_next_slot(dynamodb, now + 60)
    set_date(dynamodb, now + 30)
    with pytest.raises(ClockWrongError):
        slots.reserve(now, SPAN, 3, HORIZON)


@pytest.mark.parametrize("ahead", [-2.9, -1, 0, 1, 2])
def test_what_the_whole_seconds_of_a_date_cannot_tell_is_no_wrong_clock(
    slots: DynamoSlots, dynamodb: DynamoDBClient, now: float, ahead: float
) -> None:
    set_date(dynamodb, now + ahead)
    assert slots.reserve(now, SPAN, 3, HORIZON) == Granted(now)


def test_the_time_that_a_request_took_is_not_blamed_on_the_clock(
    slots: DynamoSlots, dynamodb: DynamoDBClient, now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = iter([0.0, 20.0])
    monkeypatch.setattr(module, "monotonic", lambda: next(took))
    set_date(dynamodb, now + 20)
    assert slots.reserve(now, SPAN, 3, HORIZON) == Granted(now)


def test_an_answer_without_a_date_is_believed(
    slots: DynamoSlots, dynamodb: DynamoDBClient, now: float
) -> None:
    set_date(dynamodb, None)
    assert slots.reserve(now + 300, SPAN, 3, HORIZON) == Granted(now + 300)


@pytest.mark.parametrize("ahead", [HORIZON + 1, 3600.0, 1e9])
def test_an_absurd_stored_slot_is_repaired_and_reported(
    dynamodb: DynamoDBClient, now: float, ahead: float
) -> None:
    put_next_slot(dynamodb, now + ahead)
    reports: list[float] = []
    slots = DynamoSlots(dynamodb, BOUNCES, on_repair=reports.append)
    assert slots.reserve(now, SPAN, 3, HORIZON) == Granted(now)
    assert reports == [pytest.approx(ahead, abs=0.001)]
    assert next_slot(dynamodb) == pytest.approx(now + SPAN)


def test_what_two_repair_at_once_is_repaired_once(dynamodb: DynamoDBClient, now: float) -> None:
    """The second one finds another slot there than the absurd one that it saw."""
    put_next_slot(dynamodb, now + 3600)
    seen = requests_of(dynamodb)

    def repaired_meanwhile(**_: object) -> None:
        if len(seen) == 1:
            seen.append("the other one's")
            put_next_slot(dynamodb, now + SPAN)

    dynamodb.meta.events.register("after-call.dynamodb.UpdateItem", repaired_meanwhile)
    reports: list[float] = []
    answer = DynamoSlots(dynamodb, BOUNCES, reports.append).reserve(now, SPAN, 3, HORIZON)
    assert isinstance(answer, Busy)
    assert answer.next_slot == pytest.approx(now + SPAN)
    assert reports == []


def test_a_repair_by_a_wrong_clock_is_refused_before_it_is_made(
    dynamodb: DynamoDBClient, now: float
) -> None:
    """To a clock that is behind, a good slot looks absurd."""
    put_next_slot(dynamodb, now + 10)
    reports: list[float] = []
    with pytest.raises(ClockWrongError):
        DynamoSlots(dynamodb, BOUNCES, reports.append).reserve(now - 3600, SPAN, 3, HORIZON)
    assert next_slot(dynamodb) == pytest.approx(now + 10)
    assert reports == []


def test_who_loses_every_race_is_told_that_it_is_busy(
    slots: DynamoSlots, dynamodb: DynamoDBClient, now: float
) -> None:
    """So many requests and no more: the bounce goes to the queue."""
    lost = Answer(
        code="ConditionalCheckFailedException",
        more={"Item": item(next_slot=now + 1)},
    )
    fail(dynamodb, "UpdateItem", *[lost] * 10)
    seen = requests_of(dynamodb)
    assert slots.reserve(now, SPAN, 3, HORIZON) == Busy(now + 1)
    assert len(seen) == 4


TROUBLES = [
    Answer(code="ProvisionedThroughputExceededException"),
    Answer(code="InternalServerError", status=500),
    Answer(code="ResourceNotFoundException"),
    EndpointConnectionError(endpoint_url="https://dynamodb"),
    ReadTimeoutError(endpoint_url="https://dynamodb"),
]


@pytest.mark.parametrize(
    "trouble", TROUBLES, ids=lambda each: getattr(each, "code", type(each).__name__)
)
def test_a_table_that_does_not_answer_gives_no_slot(
    slots: DynamoSlots, dynamodb: DynamoDBClient, now: float, trouble: Answer | Exception
) -> None:
    fail(dynamodb, "UpdateItem", trouble, trouble)
    with pytest.raises(SlotsUnavailableError):
        slots.reserve(now, SPAN, 3, HORIZON)
    with pytest.raises(SlotsUnavailableError):
        slots.hold_back(now, now + 2)
    fail(dynamodb, "UpdateItem", trouble)
    with pytest.raises(SlotsUnavailableError):
        slots.widen(now, Widening(), Widening(0.005, now))
    assert issubclass(SlotsUnavailableError, NoSlotError)


def test_a_refused_hold_back_is_no_error(
    slots: DynamoSlots, dynamodb: DynamoDBClient, now: float
) -> None:
    put_next_slot(dynamodb, now + 60)
    slots.hold_back(now, now + 2)
    assert next_slot(dynamodb) == pytest.approx(now + 60)


def test_the_table_holds_one_item_however_many_slots_were_given(
    slots: DynamoSlots, dynamodb: DynamoDBClient, now: float
) -> None:
    for _ in range(20):
        slots.reserve(now, SPAN, HORIZON, HORIZON)
    slots.hold_back(now, now + 2)
    slots.widen(now, Widening(), Widening(0.005, now))
    assert dynamodb.scan(TableName=BOUNCES)["Count"] == 1


def test_a_repair_keeps_the_widening(dynamodb: DynamoDBClient, now: float) -> None:
    wider = Widening(0.005, now - 10)
    slots = DynamoSlots(dynamodb, BOUNCES)
    slots.widen(now, Widening(), wider)
    dynamodb.update_item(
        TableName=BOUNCES,
        Key=item(**KEY),
        UpdateExpression="SET next_slot = :far",
        ExpressionAttributeValues={":far": {"N": f"{now + 3600}"}},
    )
    assert slots.reserve(now, SPAN, 3, HORIZON) == Granted(now, wider)
