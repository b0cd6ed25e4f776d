"""What the fakes ask before they answer: is there time, and does the test want a failure?"""

from collections.abc import Callable
from datetime import datetime

from bouncer import timing
from bouncer.backend import OutOfTimeError

type Fault = Callable[[str], None]
"""Told of each request, as `claim msg1`, before it has an effect; it may raise."""


def healthy(_request: str) -> None: ...


def check_time(now: datetime, until: datetime | None) -> None:
    """As the adapters do: nobody is asked whose answer could come after the deadline.

    Raises:
        OutOfTimeError
    """
    if until is not None and (until - now).total_seconds() < timing.ATTEMPT:
        raise OutOfTimeError("no time is left to wait for an answer")
