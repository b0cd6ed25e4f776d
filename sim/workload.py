"""What comes to a world, by its seed: mails, deletions, changes of the directory."""

import random

import msgspec

from bouncer import timing
from sim.receiving import Mail

OURS = "example.com"
OTHER = "other.example"
HOUR = 3600.0
_KINDS = ("trickle",) * 3 + ("burst",) * 3 + ("flood", "slow", "outage")


class Mailbox(msgspec.Struct, kw_only=True, frozen=True):
    """An entry of the directory, and when it is there."""

    address: str
    quota: int = 0
    """Bytes; 0: no limit."""
    disabled: bool = False
    appears: float = 0.0
    """Seconds after the start."""
    vanishes: float = float("inf")

    @property
    def always(self) -> bool:
        return self.appears == 0.0 and self.vanishes == float("inf")


class Workload(msgspec.Struct, kw_only=True):
    """Everything that is not the product's or a fault's doing."""

    kind: str
    interval: float
    """Between two calls of SendBounce, as the deployment is told."""
    margin: float
    """How long before the end of the 24 hours nothing is sent any more."""
    mails: list[Mail]
    mailboxes: list[Mailbox]
    deletions: dict[str, float]
    """Message id to when its stored mail is deleted."""
    busy: float
    """Seconds from the start on in which something happens."""

    @classmethod
    def of(cls, seed: int, start: float, most: int | None = None) -> "Workload":
        """
        Args:
            most: only so many of the mails, for a shorter story of the same kind.
        """
        chance = random.Random(f"workload {seed}")
        kind = chance.choice(_KINDS)
        count, spread, interval = {
            "trickle": (chance.randint(3, 18), chance.choice((1.0, 4.0)) * HOUR, 1.0),
            "burst": (chance.randint(4, 24), chance.uniform(4.0, 40.0), 1.0),
            "flood": (chance.randint(25, 50), chance.uniform(12.0, 50.0), 1.0),
            "slow": (chance.randint(6, 20), chance.uniform(20.0, 600.0), 10.0),
            "outage": (chance.randint(2, 6), chance.uniform(20.0, 600.0), 1.0),
        }[kind]
        boxes = _mailboxes(chance, spread)
        times = sorted(chance.uniform(1.0, spread) for _ in range(count))
        mails = [_mail(chance, seed, n, start + at, boxes) for n, at in enumerate(times)]
        deletions = {
            each.id: each.received + chance.uniform(0.2, 8.0) * HOUR
            for each in mails
            if chance.random() < 0.25
        }
        return cls(
            kind=kind,
            interval=interval,
            margin=chance.choice((timing.LEAST_WINDOW_MARGIN, 300.0, 300.0, 43200.0)),
            mails=mails[:most],
            mailboxes=boxes,
            deletions=deletions,
            busy=spread,
        )


def _mailboxes(chance: random.Random, spread: float) -> list[Mailbox]:
    return [
        Mailbox(address=f"alice@{OURS}"),
        Mailbox(address=f"bob@{OURS}", quota=10**12),
        Mailbox(address=f"tiny@{OURS}", quota=chance.choice((1, 20_000, 100_000))),
        Mailbox(address=f"off@{OURS}", disabled=True),
        Mailbox(address=f"soon@{OURS}", appears=chance.uniform(0.1, 1.0) * spread),
        Mailbox(address=f"gone@{OURS}", vanishes=chance.uniform(0.1, 1.0) * spread),
    ]


def _mail(
    chance: random.Random, seed: int, number: int, received: float, boxes: list[Mailbox]
) -> Mail:
    people: list[str] = []
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5))):
        draw = chance.random()
        if draw < 0.6:
            people.append(f"nobody{chance.randint(1, 9)}@{OURS}")
        elif draw < 0.9:
            people.append(chance.choice(boxes).address)
        else:
            people.append(f"x@{OTHER}")
    sender = f"pat@s{number}.example.net"
    spf, headers = "PASS", []
    draw = chance.random()
    if draw < 0.04:
        sender = ""
    elif draw < 0.08:
        spf = "FAIL"
    elif draw < 0.12:
        headers.append(("List-Id", "<list.example.net>"))
    elif draw < 0.15:
        sender = "pat@same.example.net"
    return Mail(
        id=f"m{seed}x{number:04d}",
        sender=sender,
        recipients=tuple(dict.fromkeys(people)),
        size=chance.randint(500, 60_000),
        received=round(received, 3),
        spf=spf,
        headers=tuple(headers),
    )
