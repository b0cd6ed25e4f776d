"""One inbound mail's bounce: now, if a slot is near, else into the queue.

claim ─► a slot within the wait budget ─► SendBounce ─► settled
  └──────────────── none near ──────────► queue
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from bouncer import timing
from bouncer.delivery.bookkeeper import Bookkeeper, Held
from bouncer.delivery.bounce import Bounce
from bouncer.delivery.calls import Calls, Terms
from bouncer.delivery.fate import Fate, Incident, fate_of
from bouncer.delivery.ledger import BounceState
from bouncer.delivery.queue import BounceQueue
from bouncer.guards import OtherReason
from bouncer.limiter import Reservation

_TRIES = 3
_LEASE_GRACE = timedelta(seconds=timing.LEASE_GRACE)
_LEDGER_FIRST = timedelta(seconds=timing.LEDGER_FIRST)


class Inline:
    """Deals with one mail's bounce inside the mail's own invocation."""

    def __init__(
        self,
        *,
        calls: Calls,
        books: Bookkeeper,
        queue: BounceQueue,
        terms: Terms,
        count: Callable[[Incident], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._calls = calls
        self._books = books
        self._bounce_queue = queue
        self._terms = terms
        self._count = count
        self._clock = clock

    def send_or_queue(self, bounce: Bounce, *, owner: str, until: datetime) -> list[Fate]:
        """See Delivery.send_or_queue."""
        if self._calls.limiter.refused(self._terms.wait_budget):
            # A backlog is known: leave the limiter alone, and the claim to the worker.
            return self._queue_unclaimed(bounce, until)
        held, claims = self._books.claim(bounce, owner=owner, until=until)
        if claims.in_flight:
            # Another invocation holds them, and may have crashed: look again after its lease.
            delay = max(claims.in_flight.values()) - self._clock() + _LEASE_GRACE
            self._bounce_queue.put(
                bounce.only(set(claims.in_flight)), until=until, delay=max(delay, timedelta(0))
            )
        elsewhere = {**claims.settled, **dict.fromkeys(claims.in_flight, BounceState.CLAIMED)}
        fates = [
            fate_of(bounce, each, elsewhere[each.recipient], repeated=True)
            for each in bounce.recipients
            if each.recipient in elsewhere
        ]
        return fates + (self._send_now(held) if held is not None else [])

    def _send_now(self, held: Held) -> list[Fate]:
        if self._calls.time_left(held.until) <= 0 or not self._calls.warm():
            return self._queue(held)
        fates: list[Fate] = []
        for _ in range(_TRIES):
            max_wait = min(self._terms.wait_budget, self._calls.time_left(held.until))
            window = self._calls.reserve(1, max_wait)
            if not isinstance(window, Reservation):
                break
            called = self._calls.call(held, window)
            fates += called.fates
            if called.left is None:
                return fates
            held = called.left
        return fates + self._queue(held)

    def _queue(self, held: Held) -> list[Fate]:
        if self._hopeless(held.bounce, held.until):
            return self._calls.expire(held)
        # First the queue, then the ledger: a crash between them costs a message that the
        # worker finds settled; the other way round it would cost the bounce.
        self._bounce_queue.put(held.bounce, until=held.until, delay=_LEDGER_FIRST)
        return self._books.settle(held, BounceState.QUEUED)

    def _queue_unclaimed(self, bounce: Bounce, until: datetime) -> list[Fate]:
        if self._hopeless(bounce, until):
            return self._books.record(
                bounce, BounceState.EXPIRED, reason=OtherReason.WINDOW_CLOSED, until=until
            )
        self._bounce_queue.put(bounce, until=until)
        return self._books.record(bounce, BounceState.QUEUED, until=until)

    def _hopeless(self, bounce: Bounce, until: datetime) -> bool:
        """Whether the window will have closed before what is in the queue has been sent."""
        ahead = self._calls.limiter.pace.drain(self._bounce_queue.waiting(until=until))
        return self._calls.too_late(bounce, timedelta(seconds=ahead))
