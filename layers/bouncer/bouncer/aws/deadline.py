"""AWS's clients, held to a deadline: no request goes out whose answer might come too late.

botocore knows time-outs for one try and a number of tries, but no end: three tries of three
seconds, with pauses between them, take up to twelve. Here each try, the SDK's own repetitions
included, is made only when it can be over in time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from bouncer import timing
from bouncer.backend import OutOfTimeError
from bouncer.deadline import check_time_for, time_for

FAILURES = (ClientError, BotoCoreError, OutOfTimeError)
"""How a request fails."""

# The standard mode pauses at random, up to a second before the second try, then up to two, four …
_FIRST_PAUSE = 1.0
# What the standard mode tries again besides connections and 5xx: codes that contain one of these.
_PASSING = ("Throttl", "Exceeded", "SlowDown", "TooManyRequests", "RequestTimeout")

_LAST_RESORT: ContextVar[list[str] | None] = ContextVar("last resort", default=None)


def watch(client: Any) -> None:
    """Hold a client to the deadline that its requests are made under."""
    service = client.meta.service_model.service_id.hyphenize()
    client.meta.events.register_first(f"before-send.{service}", _before_send)
    client.meta.events.register_first(f"needs-retry.{service}", _needs_retry)


@contextmanager
def tried_once() -> Iterator[None]:
    """The first request inside is tried however late it is: nothing worse can happen."""
    token = _LAST_RESORT.set(["one"])
    try:
        yield
    finally:
        _LAST_RESORT.reset(token)


def _before_send(**_: Any) -> None:
    if left := _LAST_RESORT.get():
        left.pop()
        return
    check_time_for(timing.ATTEMPT)


def _needs_retry(
    attempts: int, response: Any = None, caught_exception: Exception | None = None, **_: Any
) -> None:
    """Give up now what would only be given up after the pause."""
    if time_for(_FIRST_PAUSE * 2 ** (attempts - 1) + timing.ATTEMPT):
        return
    if caught_exception is not None:
        raise caught_exception
    http, parsed = response
    code = parsed.get("Error", {}).get("Code", "")
    if http.status_code >= 500 or any(each in code for each in _PASSING):
        raise OutOfTimeError(f"{code}: no time is left to try again")
