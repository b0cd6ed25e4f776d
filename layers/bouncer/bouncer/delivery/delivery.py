"""How a planned bounce is brought to SES: once, in its slot, inside the window, or later.

The face of this package: `inline` deals with one inbound mail, `worker` with the queue's
batches; both make their calls with `calls` and write down what became of them with `bookkeeper`.

Every end is a Fate: nothing leaves here without a state and a reason code. The steps are
safe to repeat under the key (message id, recipient): see ledger.py.
"""

from collections.abc import Callable, Mapping
from datetime import datetime

from bouncer.deadline import ends_in_time, utc_now
from bouncer.delivery.bookkeeper import Bookkeeper
from bouncer.delivery.bounce import Bounce
from bouncer.delivery.calls import Calls, Terms
from bouncer.delivery.fate import Fate, Incident
from bouncer.delivery.inline import Inline
from bouncer.delivery.ledger import BounceState, Ledger
from bouncer.delivery.queue import BounceQueue
from bouncer.delivery.send_bounce import SendBounce
from bouncer.delivery.worker import Worker
from bouncer.guards import OtherReason
from bouncer.limiter import Limiter


class Delivery:
    """Sends the bounces of one invocation; it keeps no state between them."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        limiter: Limiter,
        send_bounce: SendBounce,
        queue: BounceQueue,
        terms: Terms,
        count: Callable[[Incident], None] = lambda _: None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._limiter, self._queue = limiter, queue
        books = Bookkeeper(ledger, count)
        calls = Calls(
            limiter=limiter,
            send_bounce=send_bounce,
            books=books,
            terms=terms,
            count=count,
            clock=clock,
        )
        self._books = books
        self._worker = Worker(calls=calls, books=books, count=count, clock=clock)
        self._inline = Inline(
            calls=calls, books=books, queue=queue, terms=terms, count=count, clock=clock
        )

    # `until` is everywhere when the caller's time ends at the latest.

    @ends_in_time
    def send_or_queue(self, bounce: Bounce, *, owner: str, until: datetime) -> list[Fate]:
        """Bounce now if a slot is near, else queue it.

        Args:
            owner: names this attempt in the ledger; another one never has the same.

        Raises:
            LedgerUnavailableError, QueueUnavailableError: nothing was decided that a
                retry would not decide again.
        """
        return self._inline.send_or_queue(bounce, owner=owner, until=until)

    def suppress(self, bounce: Bounce, reason: str, *, until: datetime) -> list[Fate]:
        """Note in the ledger that a bounce is not sent, on purpose."""
        expired = reason == OtherReason.WINDOW_CLOSED
        state = BounceState.EXPIRED if expired else BounceState.SUPPRESSED
        return self._books.record(bounce, state, reason=reason, until=until)

    def reject(self, bounce: Bounce, faults: Mapping[str, str], *, until: datetime) -> list[Fate]:
        """Note in the ledger which recipients SES would refuse, so that it was not asked.

        Args:
            faults: recipient to what is wrong.
        """
        return [
            fate
            for recipient, fault in faults.items()
            for fate in self._books.record(
                bounce.only({recipient}),
                BounceState.REJECTED,
                until=until,
                error_code="InvalidBounce",
                detail=fault,
            )
        ]

    @ends_in_time
    def send_batch(
        self, batch: Mapping[str, Bounce], *, owner: str, until: datetime
    ) -> tuple[list[Fate], set[str]]:
        """Send what was queued, the oldest mail first.

        Args:
            batch: the bounces by an id of the caller's.

        Returns:
            The fates, and the ids to hand back to the queue for another try.
        """
        return self._worker.send_batch(batch, owner=owner, until=until)

    def backlog(self, until: datetime) -> float:
        """About how many seconds the queue needs to drain."""
        return self._limiter.pace.drain(self._queue.waiting(until=until))

    def dead_letter(self, bounce: Bounce, *, until: datetime) -> list[Fate]:
        """Note that the queue gives a bounce up after this try; a redrive may claim it again."""
        return self._books.give_up(bounce, until=until)
