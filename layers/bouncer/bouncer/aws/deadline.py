"""A deadline for AWS's clients: no request goes out whose answer might come too late.

botocore knows time-outs for one try and a number of tries, but no end: three tries of three
seconds, with pauses between them, take up to twelve. Here each try, the SDK's own repetitions
included, is made only when it can be over in time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from bouncer import timing
from bouncer.backend import OutOfTimeError

FAILURES = (ClientError, BotoCoreError, OutOfTimeError)
"""How a request fails."""

# The standard mode pauses at random, up to a second before the second try, then up to two, four …
_FIRST_PAUSE = 1.0
# What the standard mode tries again besides connections and 5xx: codes that contain one of these.
_PASSING = ("Throttl", "Exceeded", "SlowDown", "TooManyRequests", "RequestTimeout")


def utc_now() -> datetime:
    return datetime.now(UTC)


class _Deadline(NamedTuple):
    until: datetime
    clock: Callable[[], datetime]

    def allows(self, seconds: float) -> bool:
        return (self.until - self.clock()).total_seconds() >= seconds


_CURRENT: ContextVar[_Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def deadline(until: datetime | None, clock: Callable[[], datetime] = utc_now) -> Iterator[None]:
    """For the requests made inside; None lets them take as long as their client is patient.

    Raises:
        OutOfTimeError: there is no time left for one try.
    """
    token = _CURRENT.set(_Deadline(until, clock) if until is not None else None)
    try:
        _check()
        yield
    finally:
        _CURRENT.reset(token)


def watch(client: Any) -> None:
    """Hold a client to the deadline that its requests are made under."""
    service = client.meta.service_model.service_id.hyphenize()
    client.meta.events.register_first(f"before-send.{service}", _before_send)
    client.meta.events.register_first(f"needs-retry.{service}", _needs_retry)


def _check() -> None:
    current = _CURRENT.get()
    if current is not None and not current.allows(timing.ATTEMPT):
        raise OutOfTimeError("no time is left to wait for an answer")


def _before_send(**_: Any) -> None:
    _check()


def _needs_retry(
    attempts: int, response: Any = None, caught_exception: Exception | None = None, **_: Any
) -> None:
    """Give up now what would only be given up after the pause."""
    current = _CURRENT.get()
    if current is None or current.allows(_FIRST_PAUSE * 2 ** (attempts - 1) + timing.ATTEMPT):
        return
    if caught_exception is not None:
        raise caught_exception
    http, parsed = response
    code = parsed.get("Error", {}).get("Code", "")
    if http.status_code >= 500 or any(each in code for each in _PASSING):
        raise OutOfTimeError(f"{code}: no time is left to try again")
