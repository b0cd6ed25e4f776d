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
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec


class BounceState(StrEnum):
    CLAIMED = "claimed"
    QUEUED = "queued"
    DEAD_LETTERED = "dead-lettered"
    SENT = "sent"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"
    REJECTED = "rejected"


SETTLED = frozenset({BounceState.SENT, BounceState.SUPPRESSED, BounceState.EXPIRED})
"""Nobody can claim it any more."""

ANSWER_LOST = "answer lost"
"""The `detail` of what waits after a call whose answer never came."""

UNANSWERED = "AnswerLost"
"""How the `detail` begins of what was rejected after two such calls: that is final, too."""


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient's line in the ledger, as a person reads it."""

    message_id: str
    recipient: str
    state: BounceState
    reason: str
    status: str = ""
    received_at: datetime | None = None
    updated_at: datetime | None = None
    lease_until: datetime | None = None
    bounce_id: str = ""
    detail: str = ""


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What came of claiming the recipients of one message."""

    mine: frozenset[str]
    settled: Mapping[str, BounceState]
    """Already at an end: nothing is left to do."""
    doubtful: frozenset[str] = frozenset()
    """Those of `mine` for which a call was made before whose answer never came."""
    in_flight: Mapping[str, datetime]
    """Held by someone else until then; he may have crashed, so someone has to look again."""


class LedgerUnavailableError(Exception):
    """The ledger did not answer: nobody knows whether the bounce was sent before."""


class Ledger(Protocol):
    def claim(
        self, message_id: str, reasons: Mapping[str, str], *, owner: str, until: datetime
    ) -> Claims:
        """Lease recipients to `owner`; each succeeds or fails on its own.

        Args:
            reasons: recipient to the reason code of its decision.
            until: when the lease ends; no call may start later.

        Raises:
            LedgerUnavailableError: some may be claimed; their leases run out.
        """
        ...

    def settle(
        self, entries: Iterable[LedgerEntry], *, owner: str | None = None
    ) -> Mapping[str, BounceState]:
        """Write an end, or `queued`.

        Args:
            owner: who holds the claims; None for recipients that nobody claimed. What another
                delivery of the mail has begun or put into the queue is left alone then.

        Returns:
            What stands instead, for each recipient that was left alone.

        Raises:
            LedgerUnavailableError: not all was written.
        """
        ...

    def history(self, message_id: str) -> list[LedgerEntry]:
        """Every recipient of a message."""
        ...
