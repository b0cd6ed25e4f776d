"""The port to SendBounce, and the three ways in which a call fails."""

from collections.abc import Callable
from typing import Protocol

from bouncer.delivery.bounce import Bounce


class ThrottledError(Exception):
    """SES took no bounce: calls came too close together, ours or somebody else's."""


class TryAgainError(Exception):
    """A passing failure. `answer_lost`: SES may have sent the bounce all the same."""

    def __init__(self, message: str, *, answer_lost: bool) -> None:
        super().__init__(message)
        self.answer_lost = answer_lost


class RefusedError(Exception):
    """SES will never send this bounce. `code` is its error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SendBounce(Protocol):
    def warm(self) -> None:
        """Do now what a call would have to do before it: what is done in its slot makes it late.

        Raises:
            TryAgainError: SES does not answer.
        """
        ...

    def send(self, bounce: Bounce, turn: Callable[[], None], written: Callable[[], None]) -> str:
        """Call SendBounce once.

        Args:
            turn: called when only the bytes have to go out; it sleeps until the slot.
            written: called as soon as they have.

        Returns:
            The bounce's MessageId.

        Raises:
            ThrottledError, TryAgainError, RefusedError: see there.
            SlotExpiredError: raised by `turn`; nothing was sent.
        """
        ...
