"""`python -m bench.fairness`: honest senders in six hours of flood, with budgets and without.

A hundred domains attack with ten mails a second, from as many networks, each mail by a sender of
its own; honest senders write 0.05 mails a second to mistyped addresses, each from a domain of its
own. The budgets are the product's; the queue gives one bounce a second to SES, and what could not
be sent within 24 hours is given up when it would join. All in virtual time.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from statistics import median

import msgspec

from bouncer.aws.budget import DynamoBudget
from bouncer.headers import Header
from bouncer.message import InboundMessage
from bouncer.policy.file import BudgetSection
from bouncer_console.output import print_table
from tests.fakes.counts import Counts

DAY = 86_400.0
ATTACK = DAY / 4
"""Seconds of attack."""
ATTACKERS, ATTACK_RATE, HONEST_RATE = 100, 10.0, 0.05
_WINDOW = DAY - 300
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Mail(msgspec.Struct, frozen=True):
    at: float
    honest: bool
    sender: str
    client: str


class Outcome(msgspec.Struct, kw_only=True):
    name: str
    honest: int = 0
    told: int = 0
    attackers_told: int = 0
    waits: list[float] = msgspec.field(default_factory=list)
    longest_queue: int = 0

    @property
    def lost(self) -> float:
        return 1 - self.told / self.honest


def arrivals() -> Iterator[Mail]:
    """The mail in order; the same at each call."""
    source, at, number = random.Random(1), 0.0, 0
    while (at := at + source.expovariate(ATTACK_RATE + HONEST_RATE)) < ATTACK:
        number += 1
        if source.random() < HONEST_RATE / (ATTACK_RATE + HONEST_RATE):
            client = f"10.{number >> 16 & 255}.{number >> 8 & 255}.1"
            yield Mail(at, True, f"pat@honest{number}.example", client)
        else:
            domain = source.randrange(ATTACKERS)
            yield Mail(
                at, False, f"u{number}@s{number % 9}.evil{domain}.example", f"11.0.{domain}.1"
            )


def run(name: str, allows: Callable[[Mail, float], bool]) -> Outcome:
    """
    Args:
        allows: whether a bounce to the mail's sender may be sent, by the seconds of backlog.
    """
    outcome, queue, free = Outcome(name=name), deque[Mail](), 0.0

    def send_until(now: float) -> float:
        at = free
        while queue and max(at, queue[0].at) <= now:
            mail = queue.popleft()
            start = max(at, mail.at)
            at = start + 1
            if mail.honest:
                outcome.told += 1
                outcome.waits.append(start - mail.at)
            else:
                outcome.attackers_told += 1
        return at

    for mail in arrivals():
        free = send_until(mail.at)
        outcome.honest += mail.honest
        if len(queue) < _WINDOW and allows(mail, float(len(queue))):
            queue.append(mail)
            outcome.longest_queue = max(outcome.longest_queue, len(queue))
    send_until(3 * DAY)
    return outcome


def plain() -> Callable[[Mail, float], bool]:
    """A budget an exact domain and a sender, by calls, in fixed days: what is usual."""
    counts: Counter[str] = Counter()

    def allows(mail: Mail, _backlog: float) -> bool:
        domain = mail.sender.partition("@")[2]
        counts[mail.sender] += 1
        counts[domain] += 1
        return counts[mail.sender] <= 200 and counts[domain] <= 1000

    return allows


def ours() -> Callable[[Mail, float], bool]:
    now, waiting = _EPOCH, 0.0
    limits = BudgetSection()
    budget = DynamoBudget(Counts(), "", lambda _: waiting, lambda: now)  # type: ignore[arg-type]  # a part of it

    def allows(mail: Mail, backlog: float) -> bool:
        nonlocal now, waiting
        now, waiting = _EPOCH + timedelta(seconds=mail.at), backlog
        received = f"from x (x [{mail.client}]) by inbound-smtp.us-east-1.amazonaws.com with SMTP"
        inbound = InboundMessage(
            message_id="m",
            received_at=now,
            source=mail.sender,
            recipients=("nobody@example.com",),
            headers=(Header("Received", received),),
        )
        return budget.charge(inbound, 1, limits, until=now + timedelta(seconds=20)) is None

    return allows


def bench() -> None:
    outcomes = [
        run("no budget", lambda _mail, _backlog: True),
        run("by exact domain and sender, fixed days", plain()),
        run("ours", ours()),
    ]
    columns = (
        "budgets", "honest mails", "honest untold", "median wait", "longest wait",
        "attackers told", "longest queue",
    )  # fmt: skip
    rows = [
        (
            each.name,
            f"{each.honest:,}",
            f"{each.lost:.1%}",
            f"{median(each.waits or [0]):,.0f} s",
            f"{max(each.waits, default=0):,.0f} s",
            f"{each.attackers_told:,}",
            f"{each.longest_queue:,}",
        )
        for each in outcomes
    ]
    print_table("Six hours, 100 domains attacking with 10 mails a second", columns, rows)


if __name__ == "__main__":
    bench()
