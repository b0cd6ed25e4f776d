"""Bounces that wait: the queue's message, versioned and complete, and the port to it."""

from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from bouncer.backend import BackendUnavailableError
from bouncer.delivery.bounce import Bounce


class QueuedBounce(msgspec.Struct, frozen=True, kw_only=True, tag_field="version", tag=1):
    """What stands in the queue; whoever takes it out looks nothing up and decides nothing."""

    bounce: Bounce


class PoisonError(ValueError):
    """A queue message that no retry will ever make readable."""


def encode(bounce: Bounce) -> str:
    return msgspec.json.encode(QueuedBounce(bounce=bounce)).decode()


def decode(body: str) -> Bounce:
    """Raises:
    PoisonError: not a queued bounce of a version that this code knows, or not a whole one.
    """
    try:
        bounce = msgspec.json.decode(body, type=QueuedBounce).bounce
        bounce.deadline(timedelta(0))  # there is such a moment
    except (msgspec.DecodeError, RecursionError, OverflowError) as error:
        raise PoisonError(f"not a queued bounce: {error}") from error
    return bounce


class BounceQueue(Protocol):
    """The queue, as those see it who put bounces in."""

    def put(self, bounce: Bounce, *, until: datetime, delay: timedelta = timedelta(0)) -> None:
        """
        Args:
            until: when the caller's time ends.
            delay: so long no worker sees it; the queue may allow less.

        Raises:
            QueueUnavailableError: it may not be in the queue.
        """
        ...

    def waiting(self, *, until: datetime) -> int:
        """About how many bounces are ahead; 0 when nobody knows."""
        ...


class QueueUnavailableError(BackendUnavailableError):
    """The queue did not take the bounce."""
