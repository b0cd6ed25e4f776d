"""The queue's batches: what had to wait, sent in windows of slots, the oldest mail first.

claim all ─► one window for the batch ─► SendBounce each ─► settled
  └──────────────── no time left ──────► handed back to the queue
"""

from collections.abc import Callable, Mapping
from datetime import datetime

from bouncer import timing
from bouncer.delivery.bookkeeper import Bookkeeper, Held
from bouncer.delivery.bounce import Bounce
from bouncer.delivery.calls import Calls
from bouncer.delivery.fate import Fate, Incident
from bouncer.delivery.ledger import LedgerUnavailableError
from bouncer.limiter import Busy, Reservation

# A failing ledger takes seconds each time, so it is not asked about all of a batch.
_LEDGER_FAILURES = 2


class Worker:
    """Deals with one batch of queued bounces."""

    def __init__(
        self,
        *,
        calls: Calls,
        books: Bookkeeper,
        count: Callable[[Incident], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._calls = calls
        self._books = books
        self._count = count
        self._clock = clock

    def send_batch(
        self, batch: Mapping[str, Bounce], *, owner: str, until: datetime
    ) -> tuple[list[Fate], set[str]]:
        """See Delivery.send_batch."""
        ready, again = self._claim(batch, owner, until)
        fates = self._give_up_late(ready)
        sent, unsent = self._send_in_windows(ready, until)
        return fates + sent, again | unsent

    def _claim(
        self, batch: Mapping[str, Bounce], owner: str, until: datetime
    ) -> tuple[dict[str, Held], set[str]]:
        """What of the batch is ours, and the ids that somebody has to look at again."""
        ready: dict[str, Held] = {}
        again: set[str] = set()
        failures = 0
        for key, bounce in sorted(batch.items(), key=lambda each: each[1].received_at):
            if failures == _LEDGER_FAILURES:
                again.add(key)
                continue
            try:
                # Each message claims for itself: two of one mail are not both the holder. What SES
                # refused to the holder of another copy is not begun again: that one deletes it.
                held, claims = self._books.claim(
                    bounce, owner=f"{owner}#{key}", until=until, anew=False
                )
            except LedgerUnavailableError:
                self._count(Incident.LEDGER_LAGS)
                again.add(key)
                failures += 1
                continue
            if claims.in_flight:
                again.add(key)
            if held is not None:
                ready[key] = held
        return ready, again

    def _send_in_windows(
        self, ready: dict[str, Held], until: datetime
    ) -> tuple[list[Fate], set[str]]:
        fates: list[Fate] = []
        failed: dict[str, Held] = {}
        window: Reservation | None = None
        while ready and self._calls.time_left(until) > 0:
            if window is None or window.used_up:
                window = self._window_for(len(ready), until)
            if window is None:
                left = self._calls.time_left(until)
                self._calls.limiter.pause(min(timing.PATIENCE, max(left, 0.0)))
                fates += self._give_up_late(ready)
                continue
            key, held = next(iter(ready.items()))
            called = self._calls.call(held, window)
            fates += called.fates
            if called.at_once:
                continue
            del ready[key]
            if called.left is not None:
                failed[key] = called.left
            fates += self._give_up_late(ready)
        handed_back = ready | failed
        self._books.hand_back(handed_back.values())
        return fates, set(handed_back)

    def _give_up_late(self, ready: dict[str, Held]) -> list[Fate]:
        """Take out what cannot make the window any more."""
        fates: list[Fate] = []
        for key, held in [*ready.items()]:
            if self._calls.too_late(held.bounce):
                fates += self._calls.expire(held)
                del ready[key]
        return fates

    def _window_for(self, bounces: int, until: datetime) -> Reservation | None:
        """One window for as many as fit into the time left, from where it is free."""
        if not self._calls.warm():
            return None
        pace, ahead = self._calls.limiter.pace, 0.0
        for _ in range(2):
            left = self._calls.time_left(until)
            calls = min(bounces, pace.calls_within(left - ahead))
            if not calls:
                return None
            answer = self._calls.reserve(calls, left - pace.latest_start(calls))
            if not isinstance(answer, Busy):
                return answer
            ahead = answer.next_slot - self._clock().timestamp()
        return None
