"""The ledger's side of a delivery: claims, and fates that are written down.

What has happened has happened: a ledger that fails afterwards is counted, and undoes nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import msgspec

from bouncer.delivery.bounce import Bounce
from bouncer.delivery.fate import Fate, Incident, entry_of, fate_of
from bouncer.delivery.ledger import BounceState, Claims, Ledger, LedgerUnavailableError


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A bounce whose recipients are all claimed by one holder."""

    bounce: Bounce
    owner: str
    until: datetime
    """When the holder's time ends."""
    lost_answers: Mapping[str, int]
    """Recipient to the number of calls whose answer never came."""

    def only(self, recipients: set[str]) -> "Held":
        return msgspec.structs.replace(self, bounce=self.bounce.only(recipients))


class Bookkeeper:
    """Writes to the ledger what became of bounces."""

    def __init__(self, ledger: Ledger, count: Callable[[Incident], None]) -> None:
        self._ledger = ledger
        self._count = count

    def claim(
        self, bounce: Bounce, *, owner: str, until: datetime, anew: bool = True
    ) -> tuple[Held | None, Claims]:
        """What of the bounce is ours now, if anything, and what came of the rest.

        Args:
            anew: see Ledger.claim.

        Raises:
            LedgerUnavailableError: see Ledger.claim.
        """
        reasons = {each.recipient: each.reason for each in bounce.recipients}
        claims = self._ledger.claim(bounce.message_id, reasons, owner=owner, until=until, anew=anew)
        for _ in claims.settled:
            self._count(Incident.REPEAT_PREVENTED)
        if not claims.mine:
            return None, claims
        mine = bounce.only(set(claims.mine))
        return Held(bounce=mine, owner=owner, until=until, lost_answers=claims.mine), claims

    # --- The holder's ------------------------------------------------------------------------

    def settle(
        self,
        held: Held,
        state: BounceState,
        *,
        reason: str = "",
        bounce_id: str = "",
        error_code: str = "",
        detail: str = "",
    ) -> list[Fate]:
        """The end of what is held, or `queued`: so it is, whatever the ledger says."""
        fates = [
            fate_of(
                held.bounce,
                each,
                state,
                reason=reason,
                bounce_id=bounce_id,
                error_code=error_code,
                detail=detail,
            )
            for each in held.bounce.recipients
        ]
        entries = [entry_of(fate, held.bounce, held.lost_answers) for fate in fates]
        try:
            self._ledger.settle(entries, owner=held.owner, until=held.until)
        except LedgerUnavailableError:
            self._count(Incident.LEDGER_LAGS)
        return fates

    def hand_back(self, holdings: Iterable[Held]) -> None:
        """Let the next worker claim these at once; the first failure ends it.

        Each failure takes seconds, which are not left; the other leases run out.
        """
        for held in holdings:
            fates = [fate_of(held.bounce, e, BounceState.QUEUED) for e in held.bounce.recipients]
            entries = [entry_of(fate, held.bounce, held.lost_answers) for fate in fates]
            try:
                self._ledger.settle(entries, owner=held.owner, until=held.until)
            except LedgerUnavailableError:
                self._count(Incident.LEDGER_LAGS)
                return

    def note_lost_answer(self, held: Held) -> Held:
        """One more call for all of them was never answered."""
        lost = {
            each.recipient: held.lost_answers.get(each.recipient, 0) + 1
            for each in held.bounce.recipients
        }
        try:
            self._ledger.note_lost_answers(
                held.bounce.message_id, lost, owner=held.owner, until=held.until
            )
        except LedgerUnavailableError:
            self._count(Incident.LEDGER_LAGS)
        return msgspec.structs.replace(held, lost_answers=lost)

    # --- Nobody's ----------------------------------------------------------------------------

    def record(
        self,
        bounce: Bounce,
        state: BounceState,
        *,
        until: datetime,
        reason: str = "",
        error_code: str = "",
        detail: str = "",
    ) -> list[Fate]:
        """An end without a claim, or `queued`; what stands instead is told as a repetition."""
        fates = [
            fate_of(bounce, each, state, reason=reason, error_code=error_code, detail=detail)
            for each in bounce.recipients
        ]
        entries = [entry_of(fate, bounce, {}) for fate in fates]
        try:
            return _as_it_stands(fates, self._ledger.record(entries, until=until))
        except LedgerUnavailableError:
            self._count(Incident.LEDGER_LAGS)
            return fates

    def give_up(self, bounce: Bounce, *, until: datetime) -> list[Fate]:
        """The queue puts it with its dead letters; a redrive may claim it again."""
        fates = [fate_of(bounce, each, BounceState.DEAD_LETTERED) for each in bounce.recipients]
        entries = [entry_of(fate, bounce, {}) for fate in fates]
        try:
            return _as_it_stands(fates, self._ledger.give_up(entries, until=until))
        except LedgerUnavailableError:
            self._count(Incident.LEDGER_LAGS)
            return fates


def _as_it_stands(fates: Iterable[Fate], standing: Mapping[str, BounceState]) -> list[Fate]:
    return [
        msgspec.structs.replace(
            fate, state=standing[fate.recipient], repeated=True, error_code="", detail=""
        )
        if fate.recipient in standing
        else fate
        for fate in fates
    ]
