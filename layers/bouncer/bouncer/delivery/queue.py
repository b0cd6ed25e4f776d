"""Bounces that wait: the queue's message, versioned and complete, and the port to it."""

import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from bouncer.backend import BackendUnavailableError
from bouncer.delivery.bounce import Bounce


class QueuedBounce(msgspec.Struct, frozen=True, kw_only=True, tag_field="version", tag=1):
    """What stands in the queue; whoever takes it out looks nothing up and decides nothing."""

    bounce: msgspec.Raw
    """As it was written: the proof is of these bytes."""
    proof: str = ""
    """That this stack wrote it; whoever may only write to the queue has not the key."""


class PoisonError(ValueError):
    """A queue message that no retry will ever make readable."""


def encode(bounce: Bounce, key: bytes) -> str:
    """
    Args:
        key: the stack's.
    """
    written = msgspec.json.encode(bounce)
    message = QueuedBounce(bounce=msgspec.Raw(written), proof=_proof(written, key))
    return msgspec.json.encode(message).decode()


def verify(body: str, key: bytes) -> Bounce:
    """What the worker may send.

    Raises:
        PoisonError: as `decode` does, or this stack did not write it.
    """
    message, bounce = _read(body)
    proof = _proof(bytes(message.bounce), key)
    if not hmac.compare_digest(proof.encode(), message.proof.encode("utf-8", "replace")):
        raise PoisonError("not a queued bounce of this stack's: its proof is wrong")
    return bounce


def _proof(written: bytes, key: bytes) -> str:
    return hmac.digest(key, b"queued-bounce " + written, hashlib.sha256).hex()


def decode(body: str) -> Bounce:
    """What a message says, whoever wrote it: for showing it, not for sending it.

    Raises:
        PoisonError: not a queued bounce of a version that this code knows, or not a whole one.
    """
    return _read(body)[1]


def _read(body: str) -> tuple[QueuedBounce, Bounce]:
    try:
        message = msgspec.json.decode(body, type=QueuedBounce)
        bounce = msgspec.json.decode(message.bounce, type=Bounce)
        bounce.deadline(timedelta(0))  # there is such a moment
    except (msgspec.DecodeError, RecursionError, OverflowError) as error:
        raise PoisonError(f"not a queued bounce: {error}") from error
    return message, bounce


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
