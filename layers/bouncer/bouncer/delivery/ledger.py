"""What happened to each (message, recipient): the states, and the port that keeps them.

The ledger is what makes a bounce happen once, whatever is delivered or retried twice. A
recipient is claimed before a slot is spent; a claim is a lease, so that a crash before the
call lets a retry take over, and what was sent, suppressed or expired stays so.

    (none) ──claim──► claimed ──► sent        the bounce's MessageId is kept
      │                 │   ├───► rejected    SES refused it for good; whoever mends the
      │                 │   │                 cause may claim it again
      │                 │   └───► expired     the window closed
      │                 └──► queued ──claim──► claimed ...   by the queue's worker
      │                        └──► dead-lettered ──claim──► claimed ...   after a redrive
      └──► suppressed                         a guard said no: nothing was spent

Who holds a claim writes with `settle` and `note_lost_answers`; who holds none, with `record` and
`give_up`, which leave alone whatever another delivery of the mail has begun.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from bouncer.backend import BackendUnavailableError


class BounceState(StrEnum):
    CLAIMED = "claimed"
    QUEUED = "queued"
    DEAD_LETTERED = "dead-lettered"
    SENT = "sent"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"
    REJECTED = "rejected"


SETTLED = frozenset({BounceState.SENT, BounceState.SUPPRESSED, BounceState.EXPIRED})
"""Nobody can claim it any more. What was rejected can be claimed, unless for UNANSWERED."""

CALLS_WITHOUT_ANSWER = 2
"""After so many calls whose answer never came nobody calls again: each may have sent it."""

OF_A_CALL = frozenset({BounceState.SENT, BounceState.REJECTED})
"""Ends that a call has: what is not noted of them is, perhaps, done once more."""

UNANSWERED = "AnswerLost"
"""The `error_code` of what was rejected for that."""


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient's line in the ledger."""

    message_id: str
    recipient: str
    state: BounceState
    reason: str
    status: str = ""
    received_at: datetime | None = None
    reverse_path: str = ""
    """Who is told of it."""
    updated_at: datetime | None = None
    lease_until: datetime | None = None
    bounce_id: str = ""
    lost_answers: int = 0
    """Calls for it whose answer never came."""
    error_code: str = ""
    """Why it was rejected: SES's code, or one of ours."""
    detail: str = ""
    """The same in words, for people only."""

    @property
    def why(self) -> str:
        """The error in one line, for people."""
        return f"{self.error_code}: {self.detail}" if self.error_code else self.detail


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What came of claiming the recipients of one message."""

    mine: Mapping[str, int]
    """Each with the number of calls for it whose answer never came."""
    settled: Mapping[str, BounceState]
    """Already at an end: nothing is left to do."""
    in_flight: Mapping[str, datetime]
    """Held by another until then, who may have crashed: someone has to look again."""


class LedgerUnavailableError(BackendUnavailableError):
    """The ledger did not answer: nobody knows whether the bounce was sent before."""


class Ledger(Protocol):
    """Every method raises LedgerUnavailableError when not all was written or read.

    `until` is when the caller's time ends: nothing is asked whose answer might come later, but
    for what became of a call, which is written down however late it is, with one try a recipient.
    """

    def claim(
        self,
        message_id: str,
        reasons: Mapping[str, str],
        *,
        owner: str,
        until: datetime,
        anew: bool = True,
    ) -> Claims:
        """Lease recipients to `owner`; each succeeds or fails on its own.

        Args:
            reasons: recipient to the reason code of its decision.
            until: also how long they are leased, with LEASE_GRACE; no call may start later.
            anew: whether what SES refused is claimed once more, for somebody may have mended why.

        Raises:
            LedgerUnavailableError: some may be claimed; their leases run out.
        """
        ...

    def settle(
        self, entries: Iterable[LedgerEntry], *, owner: str, until: datetime
    ) -> Mapping[str, BounceState]:
        """The holder writes an end, or `queued`, which ends the claim.

        Returns:
            What stands instead, for each recipient that is not the holder's any more.
        """
        ...

    def note_lost_answers(
        self, message_id: str, lost_answers: Mapping[str, int], *, owner: str, until: datetime
    ) -> None:
        """The holder notes how many calls for each recipient were never answered.

        The claims go on; after a crash the next holder hears of it.
        """
        ...

    def record(
        self, entries: Iterable[LedgerEntry], *, until: datetime
    ) -> Mapping[str, BounceState]:
        """Write an end, or `queued`, for recipients that nobody claimed.

        Returns:
            What stands instead, for each recipient that was left alone: somebody holds it,
            it waits in the queue, or it is at an end.
        """
        ...

    def give_up(
        self, entries: Iterable[LedgerEntry], *, until: datetime
    ) -> Mapping[str, BounceState]:
        """As `record`, but for what waits, too: the queue has put it with its dead letters."""
        ...

    def history(self, message_id: str, *, until: datetime | None = None) -> list[LedgerEntry]:
        """Every recipient of a message."""
        ...
