"""How many bounces one sender may cause: a forged flood must not make us its amplifier."""

from datetime import datetime
from typing import Protocol

from bouncer.backend import BackendUnavailableError
from bouncer.guards import OtherReason
from bouncer.policy.file import BudgetSection


class Budget(Protocol):
    def charge(self, sender: str, limits: BudgetSection) -> OtherReason | None:
        """Count one bounce to this sender, and to its domain; the cap that is reached, or None.

        Raises:
            BudgetUnavailableError: nobody knows whether one more is allowed.
        """
        ...


class BudgetUnavailableError(BackendUnavailableError):
    """The counters did not answer."""


def window_start(now: datetime, seconds: int) -> int:
    """The epoch second at which the fixed window began that `now` lies in."""
    return int(now.timestamp()) // seconds * seconds
