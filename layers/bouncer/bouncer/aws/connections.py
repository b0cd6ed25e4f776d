"""Connections that are kept, and may be dead all the same.

Between two invocations Lambda freezes the process. Its monotonic clock may stand still meanwhile,
and nothing that the other end says arrives: a connection looks as fresh as before, and the other
end has long forgotten it. What is written to it is lost, or answered by a reset.

So a connection is used again only when it was used a moment ago by every clock there is, and when
the clocks agree on that.
"""

import time
from collections.abc import Callable
from typing import Any

from bouncer import timing


class Kept:
    """Whether the connections that a client keeps can be relied on."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._used: tuple[float, float] | None = None

    def use(self) -> None:
        """One of them has just carried something."""
        self._used = self._clock(), self._monotonic()

    @property
    def may_be_dead(self) -> bool:
        """Also when there is none yet."""
        if self._used is None:
            return True
        wall, running = self._clock() - self._used[0], self._monotonic() - self._used[1]
        # Apart: the process stood still, or somebody set the clock. Either way nobody knows.
        return max(wall, running) >= timing.STALE or abs(wall - running) >= timing.STOOD_STILL


def renew(client: Any, kept: Kept | None = None) -> None:
    """Let a client open a new connection for a request when those that it keeps may be dead."""
    kept = kept or Kept()

    def before_send(**_: Any) -> None:
        if kept.may_be_dead:
            client.close()

    def received(**_: Any) -> None:
        kept.use()

    service = client.meta.service_model.service_id.hyphenize()
    client.meta.events.register_first(f"before-send.{service}", before_send)
    client.meta.events.register(f"response-received.{service}", received)
