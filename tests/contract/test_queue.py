"""The bounces' queue, every one of them: what was put in counts, and comes out as it went in."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pytest

from bouncer import timing
from bouncer.aws.queue import SqsBounceQueue
from bouncer.delivery.bounce import Bounce
from bouncer.delivery.queue import BounceQueue, QueueUnavailableError, decode
from tests.fakes.bounces import bounce
from tests.fakes.queue import MemoryQueue
from tests.integration.builders import QUEUE_KEY

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SOON = NOW + timedelta(seconds=30)


class Line(Protocol):
    queue: BounceQueue

    def taken(self) -> list[Bounce]: ...


class _Memory:
    def __init__(self) -> None:
        self._queue = MemoryQueue(lambda: NOW)
        self.queue: BounceQueue = self._queue

    def taken(self) -> list[Bounce]:
        return [each for each, _ in self._queue.queued]


class _Sqs:
    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._sqs: Any = request.getfixturevalue("sqs")
        make: Callable[[str], str] = request.getfixturevalue("queue")
        self._url = make("bounces")
        self.queue: BounceQueue = SqsBounceQueue(
            self._sqs, self._url, lambda: QUEUE_KEY, clock=lambda: NOW
        )

    def taken(self) -> list[Bounce]:
        answer = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10)
        return [decode(each["Body"]) for each in answer.get("Messages", [])]


class _Simulated:
    def __init__(self, request: pytest.FixtureRequest) -> None:
        simulated = request.getfixturevalue("simulated")(NOW.timestamp())
        self._line, client = simulated.queue("bounces")
        self.queue: BounceQueue = SqsBounceQueue(
            client, self._line.url, lambda: QUEUE_KEY, clock=lambda: NOW
        )

    def taken(self) -> list[Bounce]:
        return [decode(each.body) for each in self._line.receive(10)]


@pytest.fixture(params=["in memory", "in SQS", "simulated"])
def line(request: pytest.FixtureRequest) -> Line:
    if request.param == "in memory":
        return _Memory()
    return _Sqs(request) if request.param == "in SQS" else _Simulated(request)


def test_a_bounce_comes_out_as_it_went_in(line: Line) -> None:
    given = bounce("msg1", "a@example.com", "b@example.com", explanation="No such mailbox.")
    line.queue.put(given, until=SOON)
    assert line.taken() == [given]


def test_what_was_put_in_is_ahead(line: Line) -> None:
    assert line.queue.waiting(until=SOON) == 0
    line.queue.put(bounce("msg1"), until=SOON)
    line.queue.put(bounce("msg2"), until=SOON, delay=timedelta(seconds=2))
    assert line.queue.waiting(until=SOON) == 2


def test_the_same_bounce_twice_is_two_messages(line: Line) -> None:
    """The ledger, not the queue, knows what was sent."""
    line.queue.put(bounce(), until=SOON)
    line.queue.put(bounce(), until=SOON)
    assert len(line.taken()) == 2


def test_nothing_is_put_in_whose_answer_could_come_too_late(line: Line) -> None:
    with pytest.raises(QueueUnavailableError):
        line.queue.put(bounce(), until=NOW + timedelta(seconds=timing.ATTEMPT - 0.1))
    assert line.taken() == []


def test_without_time_to_ask_the_length_is_what_was_last_known(line: Line) -> None:
    assert line.queue.waiting(until=NOW) == 0
