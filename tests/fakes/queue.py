"""A BounceQueue in memory."""

from collections.abc import Callable
from datetime import datetime, timedelta

from bouncer.backend import OutOfTimeError
from bouncer.delivery.bounce import Bounce
from bouncer.delivery.queue import QueueUnavailableError
from tests.fakes.patience import Fault, check_time, healthy


class MemoryQueue:
    """A BounceQueue; what takes messages out is the test's."""

    def __init__(self, clock: Callable[[], datetime], *, fault: Fault = healthy) -> None:
        self._clock = clock
        self.fault = fault
        self.queued: list[tuple[Bounce, timedelta]] = []
        """What was put in, with its delay, in order."""
        self.ahead = 0
        """What was there before."""

    def put(self, bounce: Bounce, *, until: datetime, delay: timedelta = timedelta(0)) -> None:
        try:
            check_time(self._clock(), until)
        except OutOfTimeError as error:
            raise QueueUnavailableError(str(error)) from error
        self.fault(f"put {bounce.message_id}")
        self.queued.append((bounce, delay))

    def waiting(self, *, until: datetime) -> int:
        return self.ahead + len(self.queued)
