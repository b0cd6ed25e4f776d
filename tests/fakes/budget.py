"""A Budget in memory."""

from collections import Counter as Counts
from collections.abc import Callable
from datetime import datetime

from bouncer.backend import OutOfTimeError
from bouncer.budget import (
    SHARE_FROM,
    SHARE_SLICE,
    SLICES,
    BudgetUnavailableError,
    Counter,
    counters,
    slice_of,
)
from bouncer.guards import OtherReason
from bouncer.message import InboundMessage
from bouncer.policy.file import BudgetSection
from tests.fakes.patience import Fault, check_time, healthy

_PLACES = "places"


class MemoryBudget:
    """A Budget, for all that share a process."""

    def __init__(
        self,
        clock: Callable[[], datetime],
        backlog: Callable[[datetime], float] = lambda _: 0.0,
        *,
        fault: Fault = healthy,
    ) -> None:
        """
        Args:
            backlog: as DynamoBudget's.
        """
        self._clock = clock
        self._backlog = backlog
        self.fault = fault
        self._told: Counts[tuple[str, str, int]] = Counts()
        """Recipients told of, by counter, count and slice of time."""

    def charge(
        self, mail: InboundMessage, told: int, limits: BudgetSection, *, until: datetime
    ) -> OtherReason | None:
        now = self._clock()
        try:
            check_time(now, until)
        except OutOfTimeError as error:
            raise BudgetUnavailableError(str(error)) from error
        self.fault(f"charge {mail.message_id}")
        counted = counters(mail, limits)
        for counter in counted:
            if reason := self._reached(counter, told, limits, now, until):
                return reason
        for counter in counted:
            for name, _, _ in counter.limits:
                self._told[counter.name, name, slice_of(now, limits.period_seconds / SLICES)] += (
                    told
                )
            if counter.shares:
                self._told[counter.name, _PLACES, slice_of(now, SHARE_SLICE)] += told
        return None

    def _reached(
        self, counter: Counter, told: int, limits: BudgetSection, now: datetime, until: datetime
    ) -> OtherReason | None:
        """The limit that so many more would pass."""
        current = slice_of(now, limits.period_seconds / SLICES)
        for name, most, why in counter.limits:
            if self._sum(counter.name, name, current, SLICES + 1) + told > most:
                return why
        if counter.shares:
            places = self._sum(counter.name, _PLACES, slice_of(now, SHARE_SLICE), 2) + told
            if places > limits.queue_places and self._backlog(until) > SHARE_FROM:
                return OtherReason.QUEUE_SHARE
        return None

    def _sum(self, counter: str, name: str, current: int, slices: int) -> int:
        return sum(self._told[counter, name, current - back] for back in range(slices))
