"""A delivery with small fakes as its ports, and the time that they share.

The limiter is the real one, in virtual time.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from bouncer import timing
from bouncer.delivery.bounce import WINDOW, Bounce
from bouncer.delivery.calls import Terms
from bouncer.delivery.delivery import Delivery
from bouncer.delivery.fate import Fate, Incident
from bouncer.delivery.ledger import BounceState, LedgerEntry, LedgerUnavailableError
from bouncer.delivery.queue import QueueUnavailableError
from bouncer.delivery.send_bounce import TryAgainError
from bouncer.limiter import Busy, Granted, Limiter, Pace, SlotsUnavailableError
from tests.fakes.bounces import NOBODY, bounce
from tests.fakes.ledger import MemoryLedger
from tests.fakes.queue import MemoryQueue
from tests.fakes.slots import MemorySlots

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
PACE = Pace()
TERMS = Terms()
MARGIN = TERMS.window_margin
INVOCATION = timing.INBOUND_TIMEOUT - timing.RESERVE
"""Seconds that an inbound invocation has."""
RUN = timing.SEND_TIMEOUT - timing.RESERVE
"""Seconds that the worker has."""
ANSWER = timing.CALL
"""Seconds that are kept for the last call's answer."""
ROUNDING = 1e-6
LEDGER_FIRST = timedelta(seconds=timing.LEDGER_FIRST)
"""How long a queued message is not seen, until the ledger says that it is queued."""


class FakeSendBounce:
    """Does what it is told for each call in turn, then sends."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.script: list[Exception | float] = []
        """An error that SES answers with, or how long the call is held up before its turn."""
        self.calls: list[tuple[float, Bounce]] = []
        """When each call started, with its bounce."""
        self.warmed: list[float] = []
        self.answer_takes = 0.0
        self.silent = 0
        """How many more times no connection can be opened."""
        self.warm_before = 0
        """How many more times it can, before that."""

    def warm(self) -> None:
        if self.warm_before:
            self.warm_before -= 1
        elif self.silent:
            self.silent -= 1
            raise TryAgainError("timed out", answer_lost=False)
        self.warmed.append(self._world.seconds)

    def send(self, bounce: Bounce, turn: Callable[[], None], written: Callable[[], None]) -> str:
        step = self.script.pop(0) if self.script else 0.0
        if isinstance(step, float):
            self._world.pass_time(step)
        turn()
        written()
        self.calls.append((self._world.seconds, bounce))
        self._world.pass_time(self.answer_takes)
        if isinstance(step, Exception):
            raise step
        return f"bounce-{len(self.calls)}"

    @property
    def starts(self) -> list[float]:
        return [start for start, _ in self.calls]

    @property
    def sent_for(self) -> list[str]:
        return [bounce.message_id for _, bounce in self.calls]


class WatchedSlots(MemorySlots):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []
        """The span of each reservation that was tried."""
        self.asked_at: list[float] = []
        self.broken = False

    def reserve(self, now: float, span: float, max_wait: float, horizon: float) -> Granted | Busy:
        self.asked.append(span)
        self.asked_at.append(now)
        self._check()
        return super().reserve(now, span, max_wait, horizon)

    def hold_back(self, now: float, until: float) -> None:
        self._check()
        super().hold_back(now, until)

    def _check(self) -> None:
        if self.broken:
            raise SlotsUnavailableError


class World:
    """A delivery with its ports, and the time that they share."""

    def __init__(self, pace: Pace = PACE) -> None:
        self.seconds = 0.0
        self.planned: dict[float, Callable[[], None]] = {}
        self.pace = pace
        self.claimed: list[str] = []
        """The message ids that somebody asked the ledger for."""
        self.ledger_broken_for: set[str] = set()
        self.ledger_forgets_ends = False
        self.queue_broken = False
        self.ledger = MemoryLedger(self.now, fault=self._ledger_fault)
        self.sender = FakeSendBounce(self)
        self.queue = MemoryQueue(self.now, fault=self._queue_fault)
        self.slots = WatchedSlots()
        self.counted: list[Incident] = []
        self.delivery = self.another_delivery()

    def another_delivery(self) -> Delivery:
        """As another container has it: only the ports are shared."""
        limiter = Limiter(
            self.slots,
            self.pace,
            clock=self.epoch,
            monotonic=lambda: self.seconds,
            # At least what an epoch second can tell apart, or time would stand still.
            sleep=lambda seconds: self.pass_time(max(seconds, ROUNDING)),
        )
        return Delivery(
            ledger=self.ledger,
            limiter=limiter,
            send_bounce=self.sender,
            queue=self.queue,
            terms=TERMS,
            count=self.counted.append,
            clock=self.now,
        )

    def _ledger_fault(self, request: str) -> None:
        verb, message_id = request.split()
        if verb == "claim":
            self.claimed.append(message_id)
        if message_id in self.ledger_broken_for or (verb != "claim" and self.ledger_forgets_ends):
            raise LedgerUnavailableError

    def _queue_fault(self, _: str) -> None:
        if self.queue_broken:
            raise QueueUnavailableError

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def epoch(self) -> float:
        return START.timestamp() + self.seconds

    def pass_time(self, seconds: float) -> None:
        self.seconds += seconds
        for moment in [each for each in self.planned if each <= self.seconds]:
            self.planned.pop(moment)()

    def at(self, seconds: float, happens: Callable[[], None]) -> None:
        """Let something happen while time passes."""
        self.planned[seconds] = happens

    def next_slot_in(self, seconds: float) -> None:
        self.slots.hold_back(self.epoch(), self.epoch() + seconds)

    def inbound(
        self, what: Bounce, *, owner: str = "me", seconds: float = INVOCATION
    ) -> list[Fate]:
        until = self.now() + timedelta(seconds=seconds)
        return self.delivery.send_or_queue(what, owner=owner, until=until)

    def work(
        self, *batch: Bounce, owner: str = "worker", seconds: float = RUN
    ) -> tuple[list[Fate], set[str]]:
        """Send a batch whose ids are those of its mails."""
        until = self.now() + timedelta(seconds=seconds)
        by_id = {each.message_id: each for each in batch}
        return self.delivery.send_batch(by_id, owner=owner, until=until)

    def claimed_elsewhere(self, message_id: str, *recipients: str, seconds: float = 20) -> datetime:
        """Until when it is leased."""
        until = self.now() + timedelta(seconds=seconds)
        reasons = dict.fromkeys(recipients, "unknown-recipient")
        self.ledger.claim(message_id, reasons, owner="somebody else", until=until)
        return until + timedelta(seconds=timing.LEASE_GRACE)

    def settled_before(
        self, state: BounceState, message_id: str, *recipients: str, lost_answers: int = 0
    ) -> None:
        until = self.now() + timedelta(seconds=RUN)
        reasons = dict.fromkeys(recipients, "unknown-recipient")
        self.ledger.claim(message_id, reasons, owner="before", until=until)
        entries = [
            LedgerEntry(
                message_id=message_id,
                recipient=each,
                state=state,
                reason="unknown-recipient",
                lost_answers=lost_answers,
            )
            for each in recipients
        ]
        self.ledger.settle(entries, owner="before", until=until)

    def state(self, message_id: str = "msg1", recipient: str = NOBODY) -> BounceState:
        return self.ledger.state(message_id, recipient)

    @property
    def soon(self) -> datetime:
        return self.now() + timedelta(seconds=INVOCATION)


def mail(message_id: str = "msg1", *recipients: str, age: float = 60) -> Bounce:
    """A bounce of a mail that came so many seconds ago."""
    return bounce(message_id, *recipients, received_at=START - timedelta(seconds=age))


def ages(*message_ids: str) -> Iterator[Bounce]:
    """Bounces of mails that came one after the other."""
    for number, message_id in enumerate(message_ids):
        yield mail(message_id, age=1000.0 - number)


def states(fates: Iterable[Fate]) -> dict[str, BounceState]:
    return {fate.message_id: fate.state for fate in fates}


TOO_OLD = (WINDOW - MARGIN).total_seconds()
"""The age in seconds at which a bounce is given up."""


def failing(answer_lost: bool = False) -> TryAgainError:
    return TryAgainError("503", answer_lost=answer_lost)
