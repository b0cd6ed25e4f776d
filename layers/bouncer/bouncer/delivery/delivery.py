"""How a planned bounce is brought to SES: once, in its slot, inside the window, or later.

    inbound   claim ─► a slot within the wait budget ─► SendBounce ─► settled
                └──────────────── none near ──────────► queue
    worker    claim all ─► one window for the batch ─► SendBounce each ─► settled
                └──────────────── no time left ───────► handed back to the queue

Every end is a Fate: nothing leaves here without a state and a reason code. The steps are
safe to repeat under the key (message id, recipient): see ledger.py.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum, auto
from typing import NamedTuple

import msgspec

from bouncer.delivery.bounce import Bounce, BouncedRecipient
from bouncer.delivery.ledger import (
    ANSWER_LOST,
    UNANSWERED,
    BounceState,
    Claims,
    Ledger,
    LedgerEntry,
    LedgerUnavailableError,
)
from bouncer.delivery.queue import BounceQueue
from bouncer.delivery.send_bounce import RefusedError, SendBounce, ThrottledError, TryAgainError
from bouncer.guards import OtherReason
from bouncer.limiter import Busy, Limiter, NoSlotError, Reservation, SlotExpiredError

# SendBounce answers in well under a second; its client waits ten at the most.
_CALL_SECONDS = 11.0
# The connection is made ready so long before the turn.
_LEAD_SECONDS = 0.25
# A lease outlives its holder by this, so that clocks need not agree to the second.
_LEASE_GRACE = timedelta(seconds=2)
_INLINE_TRIES = 3
# A worker without a slot waits so long before it asks again; to hand its batch back at once
# would only fetch the next one, and wear every message's number of receives out.
_PATIENCE_SECONDS = 5.0
# A failing ledger takes seconds each time, so it is not asked about all of a batch.
_LEDGER_FAILURES = 2
# A message that is queued while its claim is held is not seen before the ledger says so.
_LEDGER_FIRST = timedelta(seconds=2)


class Incident(StrEnum):
    """What is worth counting besides the fates."""

    SLOT_EXPIRED = "SlotExpired"
    THROTTLED = "SendBounceThrottled"
    TRY_AGAIN = "SendBounceFailed"
    ANSWER_LOST = "SendBounceAnswerLost"
    NO_SLOT = "LimiterUnavailable"
    LEDGER_LAGS = "LedgerWriteFailed"
    REPEAT_PREVENTED = "BounceRepeatPrevented"


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one recipient's bounce."""

    message_id: str
    recipient: str
    state: BounceState
    reason: str
    bounce_type: str = ""
    status: str = ""
    bounce_id: str = ""
    detail: str = ""
    repeated: bool = False
    """It was so before: another delivery of the same mail had brought it there."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The deployment's limits."""

    wait_budget: float = 3.0
    """Seconds that an inbound mail may wait for a slot before its bounce is queued."""
    window_margin: timedelta = timedelta(minutes=5)
    penalty: float = 2.0
    """Seconds that everyone holds back when SES throttles."""


class _Retry(StrEnum):
    """A call that settled nothing."""

    NEW_SLOT = auto()
    """Nothing was sent, and the window is of no use any more."""
    LATER = auto()
    """A passing failure of SES: nothing was sent."""
    ANSWER_LOST = auto()
    """SES may have sent the bounce; it is tried once more, and no oftener."""


class _Held(NamedTuple):
    """A queued bounce that this worker has claimed."""

    bounce: Bounce
    owner: str
    doubtful: bool
    """A call was made for it whose answer never came."""


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
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._limiter = limiter
        self._send_bounce = send_bounce
        self._bounce_queue = queue
        self._terms = terms
        self._count = count
        self._clock = clock

    # --- one inbound mail --------------------------------------------------------------------

    def send_or_queue(self, bounce: Bounce, *, owner: str, until: datetime) -> list[Fate]:
        """Bounce now if a slot is near, else queue it.

        Args:
            owner: names this attempt in the ledger; another one never has the same.
            until: when this invocation ends at the latest.

        Raises:
            LedgerUnavailableError, QueueUnavailableError: nothing was decided that a
                retry would not decide again.
        """
        if self._limiter.refused(self._terms.wait_budget):
            # A backlog is known: leave the limiter alone, and the claim to the worker.
            return self._queue(bounce)
        claims = self._claim(bounce, owner, until)
        if claims.in_flight:
            # Another invocation holds them, and may have crashed: look again after its lease.
            delay = max(claims.in_flight.values()) - self._clock() + _LEASE_GRACE
            self._bounce_queue.put(
                bounce.only(set(claims.in_flight)), delay=max(delay, timedelta(0))
            )
        elsewhere = {**claims.settled, **dict.fromkeys(claims.in_flight, BounceState.CLAIMED)}
        fates = [
            _fate(bounce, each, elsewhere[each.recipient], repeated=True)
            for each in bounce.recipients
            if each.recipient in elsewhere
        ]
        mine = bounce.only(set(claims.mine))
        if mine.recipients:
            fates += self._send_now(mine, owner, until, doubtful=bool(claims.doubtful))
        return fates

    def suppress(self, bounce: Bounce, reason: str) -> list[Fate]:
        """Note in the ledger that a bounce is not sent, on purpose."""
        expired = reason == OtherReason.WINDOW_CLOSED
        return self._settle(
            bounce, BounceState.EXPIRED if expired else BounceState.SUPPRESSED, reason
        )

    def reject(self, bounce: Bounce, faults: Mapping[str, str]) -> list[Fate]:
        """Note in the ledger which recipients SES would refuse, so that it was not asked.

        Args:
            faults: recipient to what is wrong.
        """
        return [
            fate
            for recipient, fault in faults.items()
            for fate in self._settle(
                bounce.only({recipient}),
                BounceState.REJECTED,
                None,
                detail=f"InvalidBounce: {fault}",
            )
        ]

    def _send_now(
        self, bounce: Bounce, owner: str, until: datetime, *, doubtful: bool
    ) -> list[Fate]:
        try:
            # On a quiet day the slot is now, and opening a connection takes longer than it waits.
            self._send_bounce.warm()
        except TryAgainError:
            self._count(Incident.TRY_AGAIN)
            return self._queue(bounce, owner, doubtful=doubtful)
        for _ in range(_INLINE_TRIES):
            window = self._reserve(1, min(self._terms.wait_budget, self._left(until)))
            if not isinstance(window, Reservation):
                break
            fates = self._call(bounce, window, owner, doubtful=doubtful)
            if not isinstance(fates, _Retry):
                return fates
            doubtful = doubtful or fates is _Retry.ANSWER_LOST
        return self._queue(bounce, owner, doubtful=doubtful)

    def _queue(
        self, bounce: Bounce, owner: str | None = None, *, doubtful: bool = False
    ) -> list[Fate]:
        ahead = timedelta(seconds=self._limiter.pace.drain(self._bounce_queue.waiting()))
        if self._too_late(bounce, ahead):
            return self._expire(bounce, owner)
        # First the queue, then the ledger: a crash between them costs a message that the
        # worker finds settled; the other way round it would cost the bounce.
        self._bounce_queue.put(bounce, delay=_LEDGER_FIRST if owner else timedelta(0))
        return self._settle(bounce, BounceState.QUEUED, None, owner, detail=_doubt(doubtful))

    # --- the queue's worker ------------------------------------------------------------------

    def send_batch(
        self, batch: Mapping[str, Bounce], *, owner: str, until: datetime
    ) -> tuple[list[Fate], set[str]]:
        """Send what was queued, the oldest mail first.

        Args:
            batch: the bounces by an id of the caller's.

        Returns:
            The fates, and the ids to hand back to the queue for another try.
        """
        again: set[str] = set()
        ready: dict[str, _Held] = {}
        failures = 0
        for key, bounce in sorted(batch.items(), key=lambda each: each[1].received_at):
            if failures == _LEDGER_FAILURES:
                again.add(key)
                continue
            # Each message claims for itself: two of one mail are not both the holder.
            holder = f"{owner}#{key}"
            try:
                claims = self._claim(bounce, holder, until)
            except LedgerUnavailableError:
                self._count(Incident.LEDGER_LAGS)
                again.add(key)
                failures += 1
                continue
            if claims.in_flight:
                again.add(key)
            if claims.mine:
                mine = bounce.only(set(claims.mine))
                ready[key] = _Held(mine, holder, bool(claims.doubtful))
        fates = self._give_up_late(ready)
        sent, unsent = self._send_in_windows(ready, until)
        return fates + sent, again | unsent

    def dead_letter(self, bounce: Bounce) -> list[Fate]:
        """Note that the queue gives a bounce up after this try; a redrive may claim it again."""
        return self._settle(bounce, BounceState.DEAD_LETTERED, None)

    def _send_in_windows(
        self, ready: dict[str, _Held], until: datetime
    ) -> tuple[list[Fate], set[str]]:
        fates: list[Fate] = []
        failed: dict[str, _Held] = {}
        window: Reservation | None = None
        while ready and (left := self._left(until)) > 0:
            if window is None or window.used_up:
                window = self._window_for(len(ready), left)
            if window is None:
                self._limiter.pause(min(_PATIENCE_SECONDS, left))
                fates += self._give_up_late(ready)
                continue
            key, held = next(iter(ready.items()))
            outcome = self._call(held.bounce, window, held.owner, doubtful=held.doubtful)
            if outcome is _Retry.NEW_SLOT:
                window = None
                continue
            del ready[key]
            if isinstance(outcome, _Retry):
                lost = held.doubtful or outcome is _Retry.ANSWER_LOST
                failed[key] = held._replace(doubtful=lost)
            else:
                fates += outcome
            fates += self._give_up_late(ready)
        handed_back = ready | failed
        try:
            for held in handed_back.values():
                its = _fates(held.bounce, BounceState.QUEUED, detail=_doubt(held.doubtful))
                self._record(held.bounce, its, held.owner)
        except LedgerUnavailableError:
            # Each failure takes seconds, which are not left; the other leases run out.
            self._count(Incident.LEDGER_LAGS)
        return fates, set(handed_back)

    def _give_up_late(self, ready: dict[str, _Held]) -> list[Fate]:
        """Take out what cannot make the window any more."""
        fates: list[Fate] = []
        for key, held in [*ready.items()]:
            if self._too_late(held.bounce):
                fates += self._expire(held.bounce, held.owner)
                del ready[key]
        return fates

    def _too_late(self, bounce: Bounce, ahead: timedelta = timedelta(0)) -> bool:
        return self._clock() + ahead >= bounce.deadline(self._terms.window_margin)

    def _expire(self, bounce: Bounce, owner: str | None) -> list[Fate]:
        return self._settle(bounce, BounceState.EXPIRED, OtherReason.WINDOW_CLOSED, owner)

    def _window_for(self, bounces: int, left: float) -> Reservation | None:
        """One window for as many as fit into the time left, from where it is free."""
        pace, ahead = self._limiter.pace, 0.0
        for _ in range(2):
            calls = min(bounces, pace.calls_within(left - ahead))
            if not calls:
                return None
            answer = self._reserve(calls, left - pace.latest_start(calls))
            if not isinstance(answer, Busy):
                return answer
            ahead = answer.next_slot - self._clock().timestamp()
        return None

    # --- shared ------------------------------------------------------------------------------

    def _claim(self, bounce: Bounce, owner: str, until: datetime) -> Claims:
        reasons = {each.recipient: each.reason for each in bounce.recipients}
        claims = self._ledger.claim(
            bounce.message_id, reasons, owner=owner, until=until + _LEASE_GRACE
        )
        for _ in claims.settled:
            self._count(Incident.REPEAT_PREVENTED)
        return claims

    def _reserve(self, calls: int, max_wait: float) -> Reservation | Busy | None:
        if max_wait < 0:
            return None
        try:
            return self._limiter.reserve(calls, max_wait)
        except NoSlotError:
            self._count(Incident.NO_SLOT)
            return None

    def _call(
        self, bounce: Bounce, window: Reservation, owner: str, *, doubtful: bool
    ) -> list[Fate] | _Retry:
        window.wait(lead=_LEAD_SECONDS)
        if self._too_late(bounce):
            return self._expire(bounce, owner)
        try:
            self._send_bounce.warm()
            bounce_id = self._send_bounce.send(bounce, window.turn)
        except SlotExpiredError:
            self._count(Incident.SLOT_EXPIRED)
            return _Retry.NEW_SLOT
        except ThrottledError:
            # Someone else in the account calls too: let everyone of ours make room.
            self._count(Incident.THROTTLED)
            self._penalise()
            return _Retry.NEW_SLOT
        except TryAgainError as error:
            self._count(Incident.ANSWER_LOST if error.answer_lost else Incident.TRY_AGAIN)
            if not error.answer_lost:
                return _Retry.LATER
            if not doubtful:
                # The next try may be a second bounce; better that than none.
                return _Retry.ANSWER_LOST
            detail = (
                f"{UNANSWERED}: SES took two calls and answered neither; one may have been sent"
            )
            return self._settle(bounce, BounceState.REJECTED, None, owner, detail=detail)
        except RefusedError as error:
            return self._settle(
                bounce, BounceState.REJECTED, None, owner, detail=f"{error.code}: {error}"
            )
        return self._settle(bounce, BounceState.SENT, None, owner, bounce_id=bounce_id)

    def _penalise(self) -> None:
        try:
            self._limiter.penalise(self._terms.penalty)
        except NoSlotError:
            self._count(Incident.NO_SLOT)

    def _settle(
        self,
        bounce: Bounce,
        state: BounceState,
        reason: str | None,
        owner: str | None = None,
        *,
        bounce_id: str = "",
        detail: str = "",
    ) -> list[Fate]:
        """Write the end to the ledger; what has happened stays so even if that fails."""
        fates = _fates(bounce, state, reason=reason, bounce_id=bounce_id, detail=detail)
        try:
            standing = self._record(bounce, fates, owner)
        except LedgerUnavailableError:
            self._count(Incident.LEDGER_LAGS)
            return fates
        if owner is not None:
            return fates  # what its holder did has happened, whatever the ledger says
        return [
            msgspec.structs.replace(fate, state=standing[fate.recipient], repeated=True)
            if fate.recipient in standing
            else fate
            for fate in fates
        ]

    def _record(
        self, bounce: Bounce, fates: list[Fate], owner: str | None
    ) -> Mapping[str, BounceState]:
        entries = [
            LedgerEntry(
                message_id=fate.message_id,
                recipient=fate.recipient,
                state=fate.state,
                reason=fate.reason,
                status=fate.status,
                received_at=bounce.received_at,
                bounce_id=fate.bounce_id,
                detail=fate.detail,
            )
            for fate in fates
        ]
        return self._ledger.settle(entries, owner=owner)

    def _left(self, until: datetime) -> float:
        """Seconds in which a call may still start and be answered before `until`."""
        return (until - self._clock()).total_seconds() - _CALL_SECONDS


def _doubt(doubtful: bool) -> str:
    return ANSWER_LOST if doubtful else ""


def _fates(
    bounce: Bounce,
    state: BounceState,
    *,
    reason: str | None = None,
    bounce_id: str = "",
    detail: str = "",
) -> list[Fate]:
    return [
        _fate(bounce, each, state, reason=reason, bounce_id=bounce_id, detail=detail)
        for each in bounce.recipients
    ]


def _fate(
    bounce: Bounce,
    recipient: BouncedRecipient,
    state: BounceState,
    *,
    reason: str | None = None,
    bounce_id: str = "",
    detail: str = "",
    repeated: bool = False,
) -> Fate:
    return Fate(
        message_id=bounce.message_id,
        recipient=recipient.recipient,
        state=state,
        reason=reason or recipient.reason,
        bounce_type=recipient.bounce_type or "",
        status=recipient.status,
        bounce_id=bounce_id,
        detail=detail,
        repeated=repeated,
    )
