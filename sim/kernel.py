"""Virtual time: actors that run one at a time, and hand over whenever time passes.

An actor is a greenlet that runs the product's code. Whatever takes time (a backend's answer, a
sleep) ends in `pause`, which hands over to the kernel; the kernel runs what comes next. Nothing
here looks at a real clock or at real chance, so a seed decides everything.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable

from greenlet import getcurrent, greenlet

type Action = Callable[[], None]


class Killed(BaseException):
    """The process is gone. It is no Exception, so that nobody can live on by catching it."""


class Machine:
    """One process's clocks."""

    def __init__(self, kernel: "Kernel", *, off: float, stands_still: bool) -> None:
        """
        Args:
            off: how many seconds its wall clock is ahead of the true time.
            stands_still: whether its monotonic clock stops while it is frozen.
        """
        self._kernel = kernel
        self.off = off
        self._stands_still = stands_still
        self._stood_still = 0.0
        self._frozen_at: float | None = None

    def wall(self) -> float:
        return self._kernel.now + self.off

    def monotonic(self) -> float:
        return self._kernel.now - self._stood_still

    def freeze(self) -> None:
        """Between two invocations, or in the middle of one."""
        self._frozen_at = self._kernel.now

    def thaw(self) -> None:
        if self._frozen_at is not None and self._stands_still:
            self._stood_still += self._kernel.now - self._frozen_at
        self._frozen_at = None


class Actor:
    """One run of somebody's code on a machine."""

    def __init__(self, kernel: "Kernel", name: str, machine: Machine, body: Action) -> None:
        self.name = name
        self.machine = machine
        self._kernel = kernel
        self._body = body
        self._greenlet = greenlet(self._run, kernel.hub)
        self._wake: int | None = None
        self.doomed = False
        self.ended = False
        self.counted: Counter[str] = Counter()
        """What it said of itself: the metrics that it counted, by name."""

    def kill(self) -> None:
        """It never comes back from where it waits; what it did stays done."""
        if self.ended or self.doomed:
            return
        self.doomed = True
        self._wake = None
        self._kernel.after(0.0, self._go)

    def resume(self, ticket: int) -> None:
        if self._wake == ticket:
            self._wake = None
            self._go()

    def start(self) -> None:
        self._kernel.after(0.0, self._go)

    def wait(self, seconds: float) -> None:
        ticket = self._kernel.ticket()
        self._wake = ticket
        self._kernel.after(seconds, lambda: self.resume(ticket))
        self._kernel.hub.switch()

    def _go(self) -> None:
        if self.ended:
            return
        self._kernel.current = self
        self._greenlet.switch()
        self._kernel.current = None

    def _run(self) -> None:
        try:
            self._body()
        finally:
            self.ended = True


class Kernel:
    """The one clock that is right, and what happens next."""

    def __init__(self, seed: int, start: float, *, traced: bool = False) -> None:
        """
        Args:
            traced: whether `note` keeps its lines; a world that nobody reads is faster without.
        """
        self.traced = traced
        self.now = start
        self.chance = random.Random(seed)
        self.hub: greenlet = getcurrent()
        self.counted: Counter[str] = Counter()
        """The metrics that anybody counted."""
        self.current: Actor | None = None
        self._lines: list[tuple[float, str, str, str]] = []
        self.steps = 0
        self._events: list[tuple[float, float, int, Action]] = []
        self._tickets = 0
        self._limit = start

    def ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def after(self, seconds: float, action: Action) -> None:
        """Do something later; what falls on one moment comes in an order that the seed decides."""
        tie = self.chance.random()
        heapq.heappush(self._events, (self.now + max(seconds, 0.0), tie, self.ticket(), action))

    def spawn(self, name: str, machine: Machine, body: Action) -> Actor:
        actor = Actor(self, name, machine, body)
        actor.start()
        return actor

    def pause(self, seconds: float) -> None:
        """Let time pass for the actor that runs; outside of one, nothing waits.

        Raises:
            Killed: it was killed meanwhile.
        """
        actor = self.current
        if actor is None:
            return
        if actor.doomed:
            raise Killed
        wake = self.now + max(seconds, 1e-6)
        if wake <= self._limit and (not self._events or wake < self._events[0][0]):
            self.now = wake  # nothing else happens before
        else:
            actor.wait(wake - self.now)
        if actor.doomed:
            raise Killed

    def run(self, until: float) -> None:
        """Let everything happen that happens before `until`."""
        self._limit = until
        while self._events and self._events[0][0] <= until:
            when, _, _, action = heapq.heappop(self._events)
            self.now = max(self.now, when)
            self.steps += 1
            action()
        self.now = until

    def count(self, metric: str) -> None:
        """The product counts something."""
        self.counted[metric] += 1
        if self.current is not None:
            self.current.counted[metric] += 1

    def note(self, call: str, outcome: str = "") -> None:
        """One line of the trace: when, who, what, and what came of it."""
        if not self.traced:
            return
        who = self.current.name if self.current is not None else "world"
        self._lines.append((self.now, who, call, outcome))

    @property
    def trace(self) -> list[str]:
        """What was noted, a line each."""
        return [
            f"{when:.6f}  {who:<16}  {call}{'  -> ' if outcome else ''}{outcome}"
            for when, who, call, outcome in self._lines
        ]
