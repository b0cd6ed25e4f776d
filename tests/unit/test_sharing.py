"""Several stacks with one pace: each gets its turns in order of asking, and none is left out."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import pairwise

import msgspec
import pytest

from bouncer import timing
from bouncer.delivery.bounce import Bounce
from bouncer.delivery.calls import Terms
from bouncer.delivery.delivery import Delivery
from bouncer.limiter import Busy, Granted, Limiter, Pace
from tests.fakes.bounces import bounce
from tests.fakes.ledger import MemoryLedger
from tests.fakes.queue import MemoryQueue
from tests.fakes.slots import MemorySlots

START = datetime(2026, 11, 21, tzinfo=UTC)
BATCH, WORKERS = 10, 2
SECONDS = timing.SEND_TIMEOUT - timing.RESERVE
ANSWER = 0.1
PACE = Pace()


class Call(msgspec.Struct, frozen=True):
    at: float
    stack: str


class InOrder(MemorySlots):
    """What is asked for later is asked for later: the workers below run one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._last = 0.0
        self.asked = 0

    def reserve(self, now: float, span: float, max_wait: float, horizon: float) -> Granted | Busy:
        assert now >= self._last
        self._last = now
        self.asked += 1
        return super().reserve(now, span, max_wait, horizon)


class Worker:
    """One stack's worker: the product's own, on a clock of its own."""

    def __init__(self, stack: str, slots: MemorySlots, calls: list[Call]) -> None:
        self.stack = stack
        self.at = 0.0
        self._calls = calls
        self.handed_back = 0
        self._number = 0
        self._delivery = Delivery(
            ledger=MemoryLedger(self._now),
            limiter=Limiter(
                slots, PACE, clock=self._epoch, monotonic=lambda: self.at, sleep=self._sleep
            ),
            send_bounce=self,
            queue=MemoryQueue(self._now),
            terms=Terms(),
            clock=self._now,
        )

    def _now(self) -> datetime:
        return START + timedelta(seconds=self.at)

    def _epoch(self) -> float:
        return START.timestamp() + self.at

    def _sleep(self, seconds: float) -> None:
        self.at += max(seconds, 1e-6)

    def warm(self) -> None: ...

    def send(self, bounce: Bounce, turn: Callable[[], None], written: Callable[[], None]) -> str:
        turn()
        self._calls.append(Call(self.at, self.stack))
        written()
        self.at += ANSWER
        return "id"

    def work(self, bounces: int) -> int:
        """Deal with one batch; what is left of it."""
        self._number += 1
        names = [f"{self._number}-{n}" for n in range(bounces)]
        batch = {name: bounce(name, received_at=self._now()) for name in names}
        until = self._now() + timedelta(seconds=SECONDS)
        _, again = self._delivery.send_batch(batch, owner=f"{id(self)}", until=until)
        self.handed_back += len(again)
        return len(again)


def share(asked: dict[str, int]) -> tuple[list[Call], InOrder, int]:
    """Every stack's calls until all that it asked for is done.

    Returns:
        The calls in order, the slots, and how many bounces were handed back.
    """
    slots, calls, left = InOrder(), list[Call](), dict(asked)
    workers = [Worker(stack, slots, calls) for stack in asked for _ in range(WORKERS)]
    waiting: list[tuple[float, int]] = []
    for number, worker in enumerate(workers):
        worker.at = number / 1000
        heappush(waiting, (worker.at, number))
    while waiting:
        _, number = heappop(waiting)
        worker = workers[number]
        batch = min(BATCH, left[worker.stack])
        if not batch:
            continue
        left[worker.stack] -= batch
        left[worker.stack] += worker.work(batch)
        heappush(waiting, (worker.at + 0.1, number))
    return sorted(calls, key=lambda each: each.at), slots, sum(w.handed_back for w in workers)


@pytest.mark.parametrize(("stacks", "least"), [(1, 0.98), (2, 0.98), (5, 0.98), (6, 0.98)])
def test_stacks_in_a_backlog_share_the_allowance_evenly(stacks: int, least: float) -> None:
    """Each is at most two windows ahead of or behind its share, at any time."""
    asked = {f"stack-{number}": 200 for number in range(stacks)}
    calls, slots, handed_back = share(asked)
    assert Counter(each.stack for each in calls) == asked
    assert handed_back == 0
    gaps = [later.at - earlier.at for earlier, later in pairwise(calls)]
    assert min(gaps) >= PACE.interval
    served = Counter(dict.fromkeys(asked, 0))
    for place, each in enumerate(calls, 1):
        if max(served.values()) >= 200 - WORKERS * BATCH:
            break
        served[each.stack] += 1
        assert max(abs(count - place / stacks) for count in served.values()) <= WORKERS * BATCH
    backlog = calls[:place]
    assert (len(backlog) - 1) / (backlog[-1].at - backlog[0].at) >= least
    assert slots.asked <= 0.5 * len(calls)


def test_who_asks_for_less_than_its_share_gets_all_of_it_in_time() -> None:
    """A stack with a few bounces beside four with a long backlog."""
    asked = {"small": 10, **{f"large-{number}": 200 for number in range(4)}}
    calls, _, handed_back = share(asked)
    small = [each.at for each in calls if each.stack == "small"]
    assert len(small) == 10
    assert max(small) <= SECONDS
    assert handed_back == 0
