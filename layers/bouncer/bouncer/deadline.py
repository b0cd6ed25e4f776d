"""When the time of whoever is at work ends: said once, and known to every backend call inside.

An adapter's client looks here before each try (see aws/deadline.py), so that no call is left out,
however deep it is made, and no port has to hand the moment on.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import wraps
from typing import Any, NamedTuple

from bouncer.backend import OutOfTimeError


def utc_now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


class _Deadline(NamedTuple):
    until: datetime
    clock: Callable[[], datetime]


_CURRENT: ContextVar[_Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def deadline(until: datetime | None, clock: Callable[[], datetime] = utc_now) -> Iterator[None]:
    """For the calls made inside; None lets each take as long as its client is patient."""
    token = _CURRENT.set(_Deadline(until, clock) if until is not None else None)
    try:
        yield
    finally:
        _CURRENT.reset(token)


@contextmanager
def half_of_the_time() -> Iterator[None]:
    """For the calls made inside, which leave as much time to those that come after them."""
    current = _CURRENT.get()
    if current is None:
        yield
        return
    now = current.clock()
    with deadline(now + (current.until - now) / 2, current.clock):
        yield


def ends_in_time[**P, R](method: Callable[P, R]) -> Callable[P, R]:
    """Let a method's argument `until` be the deadline of every backend call that it makes."""

    @wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        until: Any = kwargs["until"]
        with deadline(until):
            return method(*args, **kwargs)

    return wrapped


def time_for(seconds: float) -> bool:
    """Whether what takes so long would be over in time."""
    current = _CURRENT.get()
    return current is None or (current.until - current.clock()).total_seconds() >= seconds


def check_time_for(seconds: float) -> None:
    """
    Raises:
        OutOfTimeError: it would not.
    """
    if not time_for(seconds):
        raise OutOfTimeError("no time is left to wait for an answer")
