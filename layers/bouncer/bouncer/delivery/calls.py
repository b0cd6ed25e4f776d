"""One call in its slot: from a window of slots to what became of the bounce.

window ─► its turn ─► SendBounce ─┬► answered: sent, or rejected
            │                     ├► not sent, for now      ─► another call, later
            └► missed: a new slot └► sent, perhaps: one more call, and no oftener
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from bouncer import timing
from bouncer.delivery.bookkeeper import Bookkeeper, Held
from bouncer.delivery.bounce import Bounce
from bouncer.delivery.fate import Fate, Incident
from bouncer.delivery.ledger import CALLS_WITHOUT_ANSWER, UNANSWERED, BounceState
from bouncer.delivery.send_bounce import RefusedError, SendBounce, ThrottledError, TryAgainError
from bouncer.guards import OtherReason
from bouncer.limiter import Busy, Limiter, NoSlotError, Reservation, SlotExpiredError


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The deployment's limits."""

    wait_budget: float = 3.0
    """Seconds that an inbound mail may wait for a slot before its bounce is queued."""
    window_margin: timedelta = timedelta(minutes=5)
    penalty: float = 2.0
    """Seconds that everyone holds back when SES throttles."""


class Called(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a call, or of an attempt to make one."""

    fates: list[Fate]
    left: Held | None = None
    """What is to be called for again."""
    at_once: bool = False
    """Nothing was sent, and nothing is wrong with the bounce: the next slot is for it."""


class Calls:
    """Makes calls; it keeps no state between them."""

    def __init__(
        self,
        *,
        limiter: Limiter,
        send_bounce: SendBounce,
        books: Bookkeeper,
        terms: Terms,
        count: Callable[[Incident], None],
        clock: Callable[[], datetime],
    ) -> None:
        self.limiter = limiter
        self.send_bounce = send_bounce
        self._books = books
        self._terms = terms
        self._count = count
        self._clock = clock

    def time_left(self, until: datetime) -> float:
        """Seconds in which a call may still start and be answered before `until`."""
        return (until - self._clock()).total_seconds() - timing.CALL

    def too_late(self, bounce: Bounce, ahead: timedelta = timedelta(0)) -> bool:
        """Whether the window will have closed when so much more time has passed."""
        return self._clock() + ahead >= bounce.deadline(self._terms.window_margin)

    def expire(self, held: Held) -> list[Fate]:
        return self._books.settle(held, BounceState.EXPIRED, reason=OtherReason.WINDOW_CLOSED)

    def reserve(self, calls: int, max_wait: float) -> Reservation | Busy | None:
        """A window within so many seconds; None when the limiter can't be asked."""
        if max_wait < 0:
            return None
        try:
            return self.limiter.reserve(calls, max_wait)
        except NoSlotError:
            self._count(Incident.NO_SLOT)
            return None

    def warm(self) -> bool:
        """Get ready for a call before a slot is asked for: a first one takes longer than it waits.

        Returns:
            Whether SES answers.
        """
        try:
            self.send_bounce.warm()
        except TryAgainError:
            self._count(Incident.TRY_AGAIN)
            return False
        return True

    def call(self, held: Held, window: Reservation) -> Called:
        """Wait for the window's next turn and call SendBounce once."""
        window.wait(lead=timing.LEAD)
        if self.too_late(held.bounce):
            return Called(fates=self.expire(held))
        try:
            self.send_bounce.warm()
            bounce_id = self.send_bounce.send(held.bounce, window.turn, window.written)
        except SlotExpiredError:
            self._count(Incident.SLOT_EXPIRED)
            return Called(fates=[], left=held, at_once=True)
        except ThrottledError:
            window.answered()
            # We came too close, or someone else in the account calls too: everyone makes room.
            self._count(Incident.THROTTLED)
            self._penalise(window)
            return Called(fates=[], left=held, at_once=True)
        except TryAgainError as error:
            if error.answer_lost:
                self._count(Incident.ANSWER_LOST)
                return self._answer_lost(held)
            self._count(Incident.TRY_AGAIN)
            window.answered()
            return Called(fates=[], left=held)
        except RefusedError as error:
            window.answered()
            fates = self._books.settle(
                held, BounceState.REJECTED, error_code=error.code, detail=str(error)
            )
            return Called(fates=fates)
        window.answered()
        return Called(fates=self._books.settle(held, BounceState.SENT, bounce_id=bounce_id))

    def _answer_lost(self, held: Held) -> Called:
        """The next call may be a second bounce; better that than none."""
        held = self._books.note_lost_answer(held)
        given_up = {
            recipient
            for recipient, lost in held.lost_answers.items()
            if lost >= CALLS_WITHOUT_ANSWER
        }
        fates: list[Fate] = []
        if given_up:
            fates = self._books.settle(
                held.only(given_up),
                BounceState.REJECTED,
                error_code=UNANSWERED,
                detail="SES took two calls and answered neither; one may have been sent",
            )
        others = held.only(held.lost_answers.keys() - given_up)
        return Called(fates=fates, left=others if others.bounce.recipients else None)

    def _penalise(self, window: Reservation) -> None:
        try:
            self.limiter.penalise(window, self._terms.penalty)
        except NoSlotError:
            self._count(Incident.NO_SLOT)
