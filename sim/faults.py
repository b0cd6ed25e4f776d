"""What goes wrong in a world: each seed switches some faults on, each as often as it says.

All at once would hide some: a world in which nothing is ever answered breaks no promise.
"""

import random
from typing import Any

import msgspec

# Fault to how often it falls at most, a chance at each occasion that it has.
FAULTS: dict[str, float] = {
    # at one request to a backend
    "unreachable": 0.05,
    "reset": 0.03,
    "answer-lost": 0.05,
    "done-late": 0.03,
    "error": 0.08,
    "throttled": 0.08,
    "slow": 0.08,
    "conflict": 0.15,
    "stale-read": 0.5,
    "ses-answer-lost": 0.25,
    "ses-error": 0.25,
    "ses-throttled": 0.2,
    "ses-refused": 0.05,
    # at one of a request's moments
    "killed": 0.02,
    "frozen": 0.01,
    # at one invocation
    "refused": 0.15,
    "crash-at-start": 0.15,
    "invoked-twice": 0.15,
    "fresh-environment": 0.2,
    # at one message
    "message-twice": 0.2,
    "message-late": 0.1,
    # at one deletion of a stored mail
    "deletion-twice": 1.0,
    # for the whole world
    "outage": 1.0,
    "deployment": 1.0,
    "other-caller": 1.0,
    "policy-change": 1.0,
    "table-expiry": 1.0,
    "headers-cut": 1.0,
    "wrong-clock": 0.3,
    "ses-gives-up": 1.0,
    "dead-connections": 1.0,
    "redrive": 1.0,
}


class Swarm(msgspec.Struct, kw_only=True):
    """The faults of one world, with how often each falls."""

    chances: dict[str, float]
    chance: random.Random
    until: float
    """No fault falls after this: the world grows quiet."""
    fell: dict[str, int] = {}

    @classmethod
    def of(cls, chance: random.Random, until: float) -> "Swarm":
        share = chance.choice((0.0, 0.1, 0.2, 0.35, 0.6))
        chances = {
            name: most * chance.choice((0.1, 0.4, 1.0))
            for name, most in FAULTS.items()
            if chance.random() < share
        }
        return cls(chances=chances, chance=chance, until=until)

    def falls(self, name: str, now: float) -> bool:
        often = self.chances.get(name)
        if often is None or now >= self.until or self.chance.random() >= often:
            return False
        self.fell[name] = self.fell.get(name, 0) + 1
        return True

    def has(self, name: str) -> bool:
        return name in self.chances

    def described(self) -> dict[str, Any]:
        return {name: round(often, 3) for name, often in self.chances.items()}
