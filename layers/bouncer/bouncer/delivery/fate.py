"""What became of one recipient's bounce: a state with a reason code, and nothing without one."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from bouncer.delivery.bounce import Bounce, BouncedRecipient
from bouncer.delivery.ledger import BounceState, LedgerEntry


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
    error_code: str = ""
    """Why it was rejected: SES's code, or one of ours."""
    detail: str = ""
    """The same in words, for people only."""
    repeated: bool = False
    """It was so before: another delivery of the same mail had brought it there."""

    @property
    def why(self) -> str:
        """The error in one line, for people."""
        return f"{self.error_code}: {self.detail}" if self.error_code else self.detail


def fate_of(
    bounce: Bounce,
    recipient: BouncedRecipient,
    state: BounceState,
    *,
    reason: str = "",
    bounce_id: str = "",
    error_code: str = "",
    detail: str = "",
    repeated: bool = False,
) -> Fate:
    """
    Args:
        reason: the decision's own, if none is given.
    """
    return Fate(
        message_id=bounce.message_id,
        recipient=recipient.recipient,
        state=state,
        reason=reason or recipient.reason,
        bounce_type=recipient.bounce_type or "",
        status=recipient.status,
        bounce_id=bounce_id,
        error_code=error_code,
        detail=detail,
        repeated=repeated,
    )


def entry_of(fate: Fate, bounce: Bounce, lost_answers: Mapping[str, int]) -> LedgerEntry:
    """The fate as its line in the ledger."""
    return LedgerEntry(
        message_id=fate.message_id,
        recipient=fate.recipient,
        state=fate.state,
        reason=fate.reason,
        status=fate.status,
        received_at=bounce.received_at,
        reverse_path=bounce.reverse_path,
        bounce_id=fate.bounce_id,
        lost_answers=lost_answers.get(fate.recipient, 0),
        error_code=fate.error_code,
        detail=fate.detail,
    )
