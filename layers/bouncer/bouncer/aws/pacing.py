"""One call an interval for everybody: the limiter as a library.

    from bouncer.aws.pacing import DynamoSlots, Limiter, Pace, paced

`Limiter` hands out turns, `Pace` says how far apart they are, `DynamoSlots` keeps them in one item
of a DynamoDB table. docs/pacing.md has examples; docs/limiter.md says how it works.
"""

from collections.abc import Callable
from typing import Any

from bouncer.aws.slots import DynamoSlots
from bouncer.limiter import (
    Busy,
    ClockWrongError,
    Limiter,
    NoSlotError,
    Pace,
    Reservation,
    SlotExpiredError,
    SlotsUnavailableError,
    TooBusyError,
)

__all__ = [
    "Busy",
    "ClockWrongError",
    "DynamoSlots",
    "Limiter",
    "NoSlotError",
    "Pace",
    "Reservation",
    "SlotExpiredError",
    "SlotsUnavailableError",
    "TooBusyError",
    "paced",
]

LONGEST_WAIT = 240.0
"""Seconds: a request is signed before its turn, and AWS takes signatures for five minutes."""


def paced[T](
    client: T,
    limiter: Limiter,
    *,
    max_wait: float = LONGEST_WAIT,
    without: Callable[[NoSlotError], None] | None = None,
) -> T:
    """Let each request of a boto3 client take its turn, the SDK's own retries too.

    Args:
        max_wait: seconds that a request waits for its turn at the most.
        without: called when a request gets no turn, and decides: if it returns, the request is
            made all the same. By default the error is the caller's.

    Returns:
        The same client. Its calls raise NoSlotError as well now.
    """
    its: Any = client

    def before_send(**_: Any) -> None:
        try:
            limiter.turn(max_wait)
        except NoSlotError as error:
            if without is None:
                raise
            without(error)

    its.meta.events.register(
        f"before-send.{its.meta.service_model.service_id.hyphenize()}", before_send
    )
    return client
