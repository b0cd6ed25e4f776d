"""Two workers at a time drain the queue, and wear no message out."""

import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from heapq import heappop, heappush
from itertools import count, pairwise

import pytest

from bouncer.delivery.fate import Fate
from bouncer.delivery.ledger import BounceState
from bouncer.limiter import Pace
from tests.unit.delivery.world import ROUNDING, RUN, World, mail


class SharedTime(World):
    """Several run at once, in turn: each until it sleeps, then whoever wakes first."""

    def __init__(self, pace: Pace) -> None:
        super().__init__(pace)
        self._number = count()
        self._asleep: list[tuple[float, int, threading.Event]] = []

    def pass_time(self, seconds: float) -> None:
        awake = self._wakes_at(self.seconds + seconds)
        self._go_on()
        awake.wait()

    def run(self, *jobs: Callable[[], None]) -> None:
        def in_turn(job: Callable[[], None], begins: threading.Event) -> None:
            begins.wait()
            try:
                job()
            finally:
                self._go_on()

        with ThreadPoolExecutor(len(jobs)) as threads:
            begin = [self._wakes_at(self.seconds) for _ in jobs]
            done = [threads.submit(in_turn, *each) for each in zip(jobs, begin, strict=True)]
            self._go_on()
        for each in done:
            each.result()

    def _wakes_at(self, moment: float) -> threading.Event:
        event = threading.Event()
        heappush(self._asleep, (moment, next(self._number), event))
        return event

    def _go_on(self) -> None:
        if self._asleep:
            self.seconds, _, awake = heappop(self._asleep)
            awake.set()


BATCH = 10
QUEUED = 60


@pytest.mark.parametrize(
    ("interval", "receives"),
    [(1.0, 2), (5.0, 4), (10.0, 6)],
    ids=["every second", "every 5 s", "every 10 s"],
)
def test_two_workers_drain_the_queue_and_wear_no_message_out(
    interval: float, receives: int
) -> None:
    """The queue gives a message up after 20 receives."""
    world = SharedTime(Pace(interval=interval))
    waiting = deque(f"mail-{number}" for number in range(QUEUED))
    received = Counter[str]()
    finished: list[Fate] = []

    def worker(name: str) -> None:
        delivery = world.another_delivery()
        for run in count():
            keys = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
            if not keys:
                return
            received.update(keys)
            assert max(received.values()) <= receives
            fates, again = delivery.send_batch(
                {key: mail(key, age=1000) for key in keys},
                owner=f"{name}-{run}",
                until=world.now() + timedelta(seconds=RUN),
            )
            finished.extend(fates)
            waiting.extend(sorted(again))

    world.run(lambda: worker("first"), lambda: worker("second"))
    assert Counter(fate.state for fate in finished) == {BounceState.SENT: QUEUED}
    assert sorted(world.sender.sent_for) == sorted(received)
    starts = sorted(world.sender.starts)
    assert min(b - a for a, b in pairwise(starts)) >= interval - ROUNDING
    assert starts[-1] <= world.pace.drain(QUEUED) * 1.2
