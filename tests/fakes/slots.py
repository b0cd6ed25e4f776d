"""Slots in memory."""

from bouncer.limiter import Busy, Granted, Widening


class MemorySlots:
    """Slots, for all that share a process."""

    def __init__(self) -> None:
        self._next: float | None = None
        self._widening = Widening()

    def reserve(self, now: float, span: float, max_wait: float, horizon: float) -> Granted | Busy:
        busy = self._next is not None and now < self._next <= now + horizon
        start = self._next if busy and self._next is not None else now
        if start > now + max_wait:
            return Busy(start, self._widening)
        self._next = start + span
        return Granted(start, self._widening)

    def hold_back(self, now: float, until: float) -> None:
        if self._next is None or self._next < until:
            self._next = until

    def widen(self, now: float, seen: Widening, to: Widening) -> Widening:
        if self._widening.since <= seen.since:
            self._widening = to
        return self._widening
