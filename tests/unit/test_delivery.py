"""A planned bounce is sent once, in its slot and inside the window; or it waits; or it is given up.

The ports are small fakes in memory; the limiter is the real one, in virtual time.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count, pairwise

import msgspec
import pytest

from bouncer import timing
from bouncer.delivery.bounce import WINDOW, Bounce
from bouncer.delivery.calls import Terms
from bouncer.delivery.delivery import Delivery
from bouncer.delivery.fate import Fate, Incident
from bouncer.delivery.ledger import (
    SETTLED,
    BounceState,
    LedgerEntry,
    LedgerUnavailableError,
)
from bouncer.delivery.queue import QueueUnavailableError
from bouncer.delivery.send_bounce import RefusedError, ThrottledError, TryAgainError
from bouncer.guards import GuardName, OtherReason
from bouncer.limiter import (
    Busy,
    Granted,
    Limiter,
    Pace,
    SlotsUnavailableError,
)
from tests.fakes.ledger import MemoryLedger
from tests.fakes.queue import MemoryQueue
from tests.fakes.slots import MemorySlots
from tests.integration.builders import NOBODY, bounce

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


# --- The ports -------------------------------------------------------------------------------


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


@pytest.fixture
def world() -> World:
    return World()


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


# --- One inbound mail ------------------------------------------------------------------------


def test_a_bounce_is_sent_at_once_when_a_slot_is_free(world: World) -> None:
    (fate,) = world.inbound(mail())
    assert (fate.state, fate.reason, fate.bounce_type, fate.status, fate.bounce_id) == (
        BounceState.SENT,
        "unknown-recipient",
        "DoesNotExist",
        "5.1.1",
        "bounce-1",
    )
    assert world.sender.starts == [0.0]
    assert world.queue.queued == []


def test_what_was_sent_stands_in_the_ledger(world: World) -> None:
    world.inbound(mail())
    (entry,) = world.ledger.history("msg1")
    assert (entry.state, entry.bounce_id, entry.status) == (BounceState.SENT, "bounce-1", "5.1.1")
    assert entry.received_at == START - timedelta(seconds=60)


def test_recipients_are_bounced_in_one_call(world: World) -> None:
    fates = world.inbound(mail("msg1", "a@example.com", "b@example.com"))
    assert [(fate.recipient, fate.state) for fate in fates] == [
        ("a@example.com", BounceState.SENT),
        ("b@example.com", BounceState.SENT),
    ]
    assert len(world.sender.calls) == 1


def test_a_near_slot_is_waited_for_with_an_open_connection(world: World) -> None:
    world.next_slot_in(2)
    world.inbound(mail())
    assert world.sender.starts == [pytest.approx(2)]
    assert world.sender.warmed == [0.0, pytest.approx(1.75)]


def test_without_a_near_slot_the_bounce_is_queued_whole(world: World) -> None:
    world.next_slot_in(TERMS.wait_budget + 1)
    (fate,) = world.inbound(mail())
    assert fate.state is BounceState.QUEUED
    assert world.queue.queued == [(mail(), LEDGER_FIRST)]
    assert world.state() is BounceState.QUEUED
    assert world.sender.calls == []
    assert world.seconds < 0.1


def test_a_known_backlog_queues_without_claiming_or_asking_the_limiter(world: World) -> None:
    world.next_slot_in(60)
    world.inbound(mail("msg1"))
    world.claimed.clear()
    world.slots.asked.clear()
    fates = world.inbound(mail("msg2"))
    assert states(fates) == {"msg2": BounceState.QUEUED}
    assert [(each.message_id, delay) for each, delay in world.queue.queued] == [
        ("msg1", LEDGER_FIRST),
        ("msg2", timedelta(0)),
    ]
    assert world.claimed == []
    assert world.slots.asked == []
    assert world.state("msg2") is BounceState.QUEUED


def test_when_the_backlog_can_have_shrunk_the_limiter_is_asked_again(world: World) -> None:
    world.next_slot_in(10)
    world.inbound(mail("msg1"))
    world.pass_time(7.5)
    assert states(world.inbound(mail("msg2"))) == {"msg2": BounceState.SENT}
    assert world.sender.starts == [pytest.approx(10)]


def test_a_call_that_missed_its_slot_takes_a_new_one(world: World) -> None:
    world.sender.script = [1.5]
    (fate,) = world.inbound(mail())
    assert fate.state is BounceState.SENT
    assert world.sender.starts == [pytest.approx(1.5)]
    assert world.counted == [Incident.SLOT_EXPIRED]
    assert len(world.slots.asked) == 2


def test_a_call_that_is_late_for_every_slot_is_queued_and_never_made(world: World) -> None:
    world.sender.script = [5.0, 5.0, 5.0]
    (fate,) = world.inbound(mail())
    assert fate.state is BounceState.QUEUED
    assert world.sender.calls == []
    assert world.counted == [Incident.SLOT_EXPIRED] * 3


def test_a_throttled_call_holds_everyone_back_and_takes_a_new_slot(world: World) -> None:
    world.sender.script = [ThrottledError()]
    (fate,) = world.inbound(mail())
    assert fate.state is BounceState.SENT
    assert world.sender.starts == [0.0, pytest.approx(TERMS.penalty)]
    assert world.counted == [Incident.THROTTLED]


def test_a_penalty_that_cannot_be_stored_is_counted_and_the_bounce_queued(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(bounce: Bounce, turn: Callable[[], None], written: Callable[[], None]) -> str:
        turn()
        world.slots.broken = True
        raise ThrottledError

    monkeypatch.setattr(world.sender, "send", break_down)
    assert states(world.inbound(mail())) == {"msg1": BounceState.QUEUED}
    assert world.counted == [Incident.THROTTLED, Incident.NO_SLOT, Incident.NO_SLOT]


def test_the_connection_is_opened_before_a_slot_is_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a quiet day the slot is now, and opening one would make the call late."""
    asked_when_warmed: list[int] = []
    monkeypatch.setattr(
        world.sender, "warm", lambda: asked_when_warmed.append(len(world.slots.asked))
    )
    world.inbound(mail())
    assert asked_when_warmed[0] == 0


def failing(answer_lost: bool = False) -> TryAgainError:
    return TryAgainError("503", answer_lost=answer_lost)


def test_where_no_connection_can_be_opened_the_bounce_is_queued_without_a_slot(
    world: World,
) -> None:
    world.sender.silent = 1
    assert states(world.inbound(mail())) == {"msg1": BounceState.QUEUED}
    assert world.slots.asked == []
    assert world.queue.queued == [(mail(), LEDGER_FIRST)]
    assert world.counted == [Incident.TRY_AGAIN]


def test_a_connection_that_is_lost_while_waiting_for_the_slot_is_a_passing_failure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = iter([None, TryAgainError("timed out", answer_lost=False)])

    def warm() -> None:
        if trouble := next(opened, None):
            raise trouble

    monkeypatch.setattr(world.sender, "warm", warm)
    assert states(world.inbound(mail())) == {"msg1": BounceState.SENT}
    assert world.counted == [Incident.TRY_AGAIN]


@pytest.mark.parametrize("failures", [1, 2])
def test_a_passing_failure_is_tried_again_in_the_next_slot(world: World, failures: int) -> None:
    world.sender.script = [failing() for _ in range(failures)]
    (fate,) = world.inbound(mail())
    assert fate.state is BounceState.SENT
    gaps = [b - a for a, b in zip(world.sender.starts, world.sender.starts[1:], strict=False)]
    assert gaps == [pytest.approx(PACE.span(1))] * failures
    assert world.counted == [Incident.TRY_AGAIN] * failures


@pytest.mark.parametrize(
    ("lost", "event"), [(False, Incident.TRY_AGAIN), (True, Incident.ANSWER_LOST)]
)
def test_a_lost_answer_is_counted_apart(world: World, lost: bool, event: Incident) -> None:
    """The next try may be a second bounce."""
    world.sender.script = [failing(lost)]
    assert states(world.inbound(mail())) == {"msg1": BounceState.SENT}
    assert world.counted == [event]


def test_after_three_failures_the_queue_tries_on(world: World) -> None:
    world.sender.script = [failing() for _ in range(5)]
    (fate,) = world.inbound(mail())
    assert fate.state is BounceState.QUEUED
    assert len(world.sender.calls) == 3
    assert world.queue.queued == [(mail(), LEDGER_FIRST)]
    assert world.state() is BounceState.QUEUED


def test_after_two_lost_answers_nobody_calls_again(world: World) -> None:
    """Each of the two calls may have sent the bounce."""
    world.sender.script = [failing(answer_lost=True) for _ in range(3)]
    (fate,) = world.inbound(mail())
    assert fate.state is BounceState.REJECTED
    assert fate.error_code == "AnswerLost"
    assert len(world.sender.calls) == 2
    assert world.state() is BounceState.REJECTED
    assert world.queue.queued == []
    assert world.counted == [Incident.ANSWER_LOST] * 2


@pytest.mark.parametrize("passing", [failing(), ThrottledError(), 1.5])
def test_a_call_that_sent_nothing_takes_no_doubt_away(
    world: World, passing: Exception | float
) -> None:
    world.sender.script = [failing(answer_lost=True), passing, failing(answer_lost=True)]
    (fate,) = world.inbound(mail())
    assert fate.state is BounceState.REJECTED
    assert fate.error_code == "AnswerLost"


def test_a_lost_answer_is_remembered_by_the_ledger_while_the_bounce_waits(world: World) -> None:
    world.sender.script = [failing(answer_lost=True), failing(), failing()]
    assert states(world.inbound(mail())) == {"msg1": BounceState.QUEUED}
    (entry,) = world.ledger.history("msg1")
    assert entry.lost_answers == 1


def test_a_lost_answer_is_noted_before_anything_else_can_go_wrong(world: World) -> None:
    """A crash right after it would let the next delivery make two more calls."""
    noted: list[int] = []

    def look(bounce: Bounce, turn: Callable[[], None], written: Callable[[], None]) -> str:
        noted.extend(entry.lost_answers for entry in world.ledger.history(bounce.message_id))
        if len(noted) == 1:
            turn()
            raise failing(answer_lost=True)
        return "bounce-2"

    world.sender.send = look  # type: ignore[method-assign]
    world.inbound(mail())
    assert noted == [0, 1]


def test_of_recipients_with_different_doubts_only_those_with_two_are_given_up(
    world: World,
) -> None:
    """Overlapping rules: the first delivery of the mail knew of one of them only."""
    old, new = "old@example.com", "new@example.com"
    world.settled_before(BounceState.QUEUED, "msg1", old, lost_answers=1)
    world.sender.script = [failing(answer_lost=True)]
    fates = world.inbound(mail("msg1", old, new))
    assert {fate.recipient: fate.state for fate in fates} == {
        old: BounceState.REJECTED,
        new: BounceState.SENT,
    }
    called = [[each.recipient for each in call.recipients] for _, call in world.sender.calls]
    assert called == [[old, new], [new]]


def test_of_a_batchs_recipients_only_those_with_two_doubts_are_given_up(world: World) -> None:
    old, new = "old@example.com", "new@example.com"
    world.settled_before(BounceState.QUEUED, "msg1", old, lost_answers=1)
    world.sender.script = [failing(answer_lost=True)]
    fates, again = world.work(mail("msg1", old, new))
    assert [(fate.recipient, fate.state) for fate in fates] == [(old, BounceState.REJECTED)]
    assert again == {"msg1"}
    fates, again = world.work(mail("msg1", old, new), owner="next")
    assert [(fate.recipient, fate.state) for fate in fates] == [(new, BounceState.SENT)]
    assert again == set()


@pytest.mark.parametrize(
    ("lost", "state"),
    [(True, BounceState.REJECTED), (False, BounceState.SENT)],
    ids=["again", "before only"],
)
def test_after_a_lost_answer_another_delivery_of_the_mail_has_one_call_left(
    world: World, lost: bool, state: BounceState
) -> None:
    world.settled_before(BounceState.QUEUED, "msg1", NOBODY, lost_answers=1)
    world.sender.script = [failing(answer_lost=lost)] if lost else []
    assert states(world.inbound(mail())) == {"msg1": state}
    assert len(world.sender.calls) == 1


def test_what_was_refused_is_sent_once_the_cause_is_mended(world: World) -> None:
    world.settled_before(BounceState.REJECTED, "msg1", NOBODY)
    (fate,) = world.inbound(mail())
    assert (fate.state, fate.repeated) == (BounceState.SENT, False)
    assert world.counted == []


def test_what_ses_refuses_for_good_is_rejected_with_its_words(world: World) -> None:
    world.sender.script = [RefusedError("MessageRejected", "Email address is not verified.")]
    (fate,) = world.inbound(mail())
    assert (fate.state, fate.error_code, fate.detail) == (
        BounceState.REJECTED,
        "MessageRejected",
        "Email address is not verified.",
    )
    assert world.state() is BounceState.REJECTED
    assert world.queue.queued == []
    assert len(world.sender.calls) == 1


@pytest.mark.parametrize(
    ("age", "backlog", "state"),
    [
        (60, 0, BounceState.QUEUED),
        (TOO_OLD - 10, 0, BounceState.QUEUED),
        (TOO_OLD, 0, BounceState.EXPIRED),
        (TOO_OLD - 3600, 3500, BounceState.QUEUED),
        (TOO_OLD - 3600, 3600, BounceState.EXPIRED),
        (60, 80_000, BounceState.QUEUED),
        (60, 90_000, BounceState.EXPIRED),
    ],
)
def test_what_the_window_and_the_backlog_leave_no_time_for_is_given_up_at_once(
    world: World, age: float, backlog: int, state: BounceState
) -> None:
    world.next_slot_in(60)
    world.queue.ahead = backlog
    (fate,) = world.inbound(mail(age=age))
    assert fate.state is state
    assert world.state() is state
    expired = state is BounceState.EXPIRED
    assert (fate.reason == OtherReason.WINDOW_CLOSED) is expired
    assert bool(world.queue.queued) is not expired


@pytest.mark.parametrize("state", sorted(SETTLED))
def test_what_was_settled_before_stays_so_and_is_counted(world: World, state: BounceState) -> None:
    world.settled_before(state, "msg1", NOBODY)
    (fate,) = world.inbound(mail())
    assert (fate.state, fate.repeated) == (state, True)
    assert world.sender.calls == []
    assert world.queue.queued == []
    assert world.counted == [Incident.REPEAT_PREVENTED]


def test_what_is_in_flight_elsewhere_is_looked_at_again_after_its_lease(world: World) -> None:
    lease = world.claimed_elsewhere("msg1", NOBODY)
    (fate,) = world.inbound(mail())
    assert (fate.state, fate.repeated) == (BounceState.CLAIMED, True)
    assert world.sender.calls == []
    ((queued, delay),) = world.queue.queued
    assert queued == mail()
    assert world.now() + delay > lease


def test_a_lease_that_ended_is_taken_over(world: World) -> None:
    world.claimed_elsewhere("msg1", NOBODY, seconds=20)
    world.pass_time(20 + timing.LEASE_GRACE)
    assert states(world.inbound(mail())) == {"msg1": BounceState.SENT}


def test_one_recipients_claim_never_swallows_anothers_bounce(world: World) -> None:
    done, busy, mine = "done@example.com", "busy@example.com", "mine@example.com"
    world.settled_before(BounceState.SENT, "msg1", done)
    world.claimed_elsewhere("msg1", busy)
    fates = world.inbound(mail("msg1", done, busy, mine))
    assert {fate.recipient: (fate.state, fate.repeated) for fate in fates} == {
        done: (BounceState.SENT, True),
        busy: (BounceState.CLAIMED, True),
        mine: (BounceState.SENT, False),
    }
    ((_, called),) = world.sender.calls
    assert [each.recipient for each in called.recipients] == [mine]
    ((queued, _),) = world.queue.queued
    assert [each.recipient for each in queued.recipients] == [busy]


def test_another_mails_claim_is_none_of_ours(world: World) -> None:
    world.claimed_elsewhere("msg2", NOBODY)
    assert states(world.inbound(mail("msg1"))) == {"msg1": BounceState.SENT}


def test_without_the_ledger_nothing_is_sent(world: World) -> None:
    world.ledger_broken_for = {"msg1"}
    with pytest.raises(LedgerUnavailableError):
        world.inbound(mail())
    assert world.sender.calls == []
    assert world.slots.asked == []


def test_a_ledger_that_fails_after_the_call_does_not_undo_it(world: World) -> None:
    world.ledger_forgets_ends = True
    (fate,) = world.inbound(mail())
    assert fate.state is BounceState.SENT
    assert world.counted == [Incident.LEDGER_LAGS]


def test_a_limiter_that_fails_sends_the_bounce_to_the_queue(world: World) -> None:
    world.slots.broken = True
    assert states(world.inbound(mail())) == {"msg1": BounceState.QUEUED}
    assert world.counted == [Incident.NO_SLOT]
    assert len(world.queue.queued) == 1


@pytest.mark.parametrize("seconds", [timing.ATTEMPT, 5.0, ANSWER - 0.1])
def test_an_invocation_without_time_for_an_answer_queues(world: World, seconds: float) -> None:
    assert states(world.inbound(mail(), seconds=seconds)) == {"msg1": BounceState.QUEUED}
    assert world.slots.asked == []


def test_no_slot_is_waited_for_beyond_the_invocations_end(world: World) -> None:
    world.next_slot_in(2)
    assert states(world.inbound(mail(), seconds=ANSWER + 1)) == {"msg1": BounceState.QUEUED}


def test_a_queue_that_takes_nothing_is_an_error_and_the_ledger_says_nothing_else(
    world: World,
) -> None:
    """So that a retry, after the lease, decides the same again."""
    world.next_slot_in(60)
    world.queue_broken = True
    with pytest.raises(QueueUnavailableError):
        world.inbound(mail())
    assert world.state() is BounceState.CLAIMED


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        (GuardName.NULL_SENDER, BounceState.SUPPRESSED),
        (OtherReason.OBSERVE_MODE, BounceState.SUPPRESSED),
        (OtherReason.WINDOW_CLOSED, BounceState.EXPIRED),
    ],
)
def test_what_is_not_sent_on_purpose_is_noted_with_its_reason(
    world: World, reason: str, state: BounceState
) -> None:
    (fate,) = world.delivery.suppress(mail(), reason, until=world.soon)
    assert (fate.state, fate.reason) == (state, reason)
    assert world.state() is state
    assert world.slots.asked == []


def test_noting_a_suppressed_bounce_never_raises(world: World) -> None:
    world.ledger_forgets_ends = True
    (fate,) = world.delivery.suppress(mail(), GuardName.NULL_SENDER, until=world.soon)
    assert fate.state is BounceState.SUPPRESSED
    assert world.counted == [Incident.LEDGER_LAGS]


@pytest.mark.parametrize("state", [BounceState.QUEUED, BounceState.DEAD_LETTERED, *sorted(SETTLED)])
def test_what_another_delivery_of_the_mail_did_is_not_suppressed_any_more(
    world: World, state: BounceState
) -> None:
    world.settled_before(state, "msg1", NOBODY)
    (fate,) = world.delivery.suppress(mail(), GuardName.LIST_MAIL, until=world.soon)
    assert (fate.state, fate.repeated) == (state, True)
    assert world.state() is state


def test_what_another_delivery_of_the_mail_is_about_to_send_is_not_suppressed(
    world: World,
) -> None:
    world.claimed_elsewhere("msg1", "busy@example.com")
    fates = world.delivery.suppress(
        mail("msg1", "busy@example.com", "free@example.com"),
        GuardName.LIST_MAIL,
        until=world.soon,
    )
    assert {fate.recipient: (fate.state, fate.repeated) for fate in fates} == {
        "busy@example.com": (BounceState.CLAIMED, True),
        "free@example.com": (BounceState.SUPPRESSED, False),
    }


def test_in_a_known_backlog_what_was_sent_before_stays_so(world: World) -> None:
    world.next_slot_in(60)
    world.inbound(mail("msg1"))
    world.settled_before(BounceState.SENT, "msg2", NOBODY)
    (fate,) = world.inbound(mail("msg2"))
    assert (fate.state, fate.repeated) == (BounceState.SENT, True)
    assert world.state("msg2") is BounceState.SENT


def test_what_ses_would_refuse_is_rejected_without_a_call(world: World) -> None:
    (fate,) = world.delivery.reject(
        mail("msg1", NOBODY, "x@example.com"), {NOBODY: "too odd"}, until=world.soon
    )
    assert (fate.recipient, fate.state, fate.error_code, fate.detail) == (
        NOBODY,
        BounceState.REJECTED,
        "InvalidBounce",
        "too odd",
    )
    assert world.state() is BounceState.REJECTED
    assert world.slots.asked == []


# --- The queue's worker ----------------------------------------------------------------------


def test_the_oldest_mail_is_sent_first(world: World) -> None:
    oldest, middle, newest = ages("oldest", "middle", "newest")
    fates, again = world.work(newest, middle, oldest)
    assert world.sender.sent_for == ["oldest", "middle", "newest"]
    assert set(states(fates).values()) == {BounceState.SENT}
    assert again == set()


def test_a_batch_takes_one_window_and_its_calls_are_a_step_apart(world: World) -> None:
    world.work(*ages("a", "b", "c", "d"))
    assert world.slots.asked == [pytest.approx(PACE.span(4))]
    assert world.sender.starts == [pytest.approx(number * PACE.step) for number in range(4)]


def test_the_connection_is_ready_before_every_call(world: World) -> None:
    world.work(*ages("a", "b", "c"))
    before_the_window, *before_each = world.sender.warmed
    assert before_the_window == 0
    assert all(
        warmed <= start for warmed, start in zip(before_each, world.sender.starts, strict=True)
    )


def test_no_window_is_taken_while_ses_does_not_answer(world: World) -> None:
    world.sender.silent = 2
    world.work(*ages("a", "b"))
    assert world.counted == [Incident.TRY_AGAIN] * 2
    assert world.slots.asked == [pytest.approx(PACE.span(2))]
    assert world.sender.starts[0] == pytest.approx(2 * timing.PATIENCE)
    assert world.sender.sent_for == ["a", "b"]


def test_an_ses_that_never_answers_costs_no_slot_and_ends_in_time(world: World) -> None:
    world.sender.silent = 10**6
    fates, again = world.work(*ages("a", "b"))
    assert (fates, again, world.slots.asked) == ([], {"a", "b"}, [])


def test_the_worker_waits_for_its_window_longer_than_a_mail_would(world: World) -> None:
    world.next_slot_in(50)
    fates, again = world.work(mail())
    assert states(fates) == {"msg1": BounceState.SENT}
    assert again == set()
    assert world.sender.starts == [pytest.approx(50)]


def test_when_time_is_short_a_shorter_window_is_reserved_and_the_rest_handed_back(
    world: World,
) -> None:
    fates, again = world.work(*ages("a", "b", "c", "d", "e"), seconds=ANSWER + 3.5)
    assert world.slots.asked[0] == pytest.approx(PACE.span(4))
    assert states(fates) == dict.fromkeys(["a", "b", "c", "d"], BounceState.SENT)
    assert again == {"e"}
    assert {world.state(each) for each in again} == {BounceState.QUEUED}


@pytest.mark.parametrize("seconds", [5.0, ANSWER, ANSWER + PACE.lateness - 0.001])
def test_without_time_for_one_call_everything_is_handed_back(world: World, seconds: float) -> None:
    fates, again = world.work(*ages("a", "b"), seconds=seconds)
    assert (fates, again) == ([], {"a", "b"})
    assert world.slots.asked == []


def test_every_call_can_still_be_answered_before_the_end(world: World) -> None:
    world.sender.script = [0.0, 3.0, 0.0, 3.0]
    world.work(*ages(*"abcdefgh"), seconds=RUN)
    assert max(world.sender.starts) <= RUN - ANSWER


def test_a_window_has_as_many_calls_as_fit_behind_those_that_wait_already(world: World) -> None:
    world.next_slot_in(RUN - ANSWER - 2.5)
    fates, again = world.work(*ages(*"abcde"))
    assert states(fates) == dict.fromkeys("abc", BounceState.SENT)
    assert again == {"d", "e"}
    assert world.slots.asked[:2] == [pytest.approx(PACE.span(5)), pytest.approx(PACE.span(3))]
    assert max(world.sender.starts) <= RUN - ANSWER


def test_without_a_window_in_time_everything_is_handed_back_when_the_time_is_over(
    world: World,
) -> None:
    """At once, the same batch would be fetched again, until its receives are used up."""
    world.next_slot_in(RUN)
    fates, again = world.work(*ages("a", "b"))
    assert (fates, again) == ([], {"a", "b"})
    assert world.seconds == pytest.approx(RUN - ANSWER)
    assert {world.state(each) for each in again} == {BounceState.QUEUED}


def test_a_worker_without_a_window_asks_again_every_few_seconds(world: World) -> None:
    world.slots.broken = True
    world.work(mail())
    pauses = [later - earlier for earlier, later in pairwise(world.slots.asked_at)]
    assert len(pauses) > 10
    assert max(pauses) <= 5 + ROUNDING
    assert min(pauses) > 1


def test_a_limiter_that_recovers_meanwhile_loses_nothing(world: World) -> None:
    world.slots.broken = True
    world.at(20, lambda: setattr(world.slots, "broken", False))
    fates, again = world.work(*ages("a", "b"))
    assert states(fates) == dict.fromkeys("ab", BounceState.SENT)
    assert again == set()
    assert set(world.counted) == {Incident.NO_SLOT}


def test_while_a_worker_waits_for_a_window_what_becomes_too_old_is_given_up(
    world: World,
) -> None:
    world.next_slot_in(RUN)
    fates, again = world.work(mail("old", age=TOO_OLD - 30), mail("new"))
    assert states(fates) == {"old": BounceState.EXPIRED}
    assert again == {"new"}
    assert world.state("old") is BounceState.EXPIRED


def test_what_is_handed_back_can_be_claimed_at_once_by_the_next_worker(world: World) -> None:
    world.work(mail(), owner="first worker", seconds=ANSWER)
    fates, again = world.work(mail(), owner="second worker")
    assert states(fates) == {"msg1": BounceState.SENT}
    assert again == set()


def test_a_throttle_in_the_middle_costs_two_slots_and_loses_nothing(world: World) -> None:
    world.sender.script = [0.0, ThrottledError()]
    fates, again = world.work(*ages("a", "b", "c"))
    assert world.sender.sent_for == ["a", "b", "b", "c"]
    assert set(states(fates).values()) == {BounceState.SENT}
    assert again == set()
    # Its own slot and the one after it: two bounces need another window.
    wider = msgspec.structs.replace(PACE, margin=PACE.margin + PACE.widening)
    assert world.slots.asked == [pytest.approx(PACE.span(3)), pytest.approx(wider.span(2))]
    assert world.counted == [Incident.THROTTLED]


def test_after_a_throttle_nobody_gets_a_slot_for_the_penalty(world: World) -> None:
    world.sender.script = [ThrottledError()]
    world.work(mail())
    first, second = world.sender.starts
    assert second - first >= TERMS.penalty - 1e-6


def test_a_call_held_up_past_its_window_takes_a_new_window(world: World) -> None:
    world.sender.script = [0.0, 4.0]
    fates, again = world.work(*ages("a", "b", "c"))
    assert world.sender.sent_for == ["a", "b", "c"]
    assert set(states(fates).values()) == {BounceState.SENT}
    assert again == set()
    assert world.counted == [Incident.SLOT_EXPIRED]


def test_throttled_without_end_the_worker_still_ends_in_time(world: World) -> None:
    world.sender.script = [ThrottledError() for _ in range(200)]
    fates, again = world.work(*ages("a", "b"))
    assert (fates, again) == ([], {"a", "b"})
    assert world.seconds <= RUN - ANSWER + ROUNDING


@pytest.mark.parametrize("lost", [False, True], ids=["not sent", "answer lost"])
def test_a_bounce_that_fails_for_now_does_not_block_the_others(world: World, lost: bool) -> None:
    world.sender.script = [0.0, failing(lost)]
    fates, again = world.work(*ages("a", "b", "c"))
    assert states(fates) == dict.fromkeys(["a", "c"], BounceState.SENT)
    assert again == {"b"}
    assert world.sender.sent_for == ["a", "b", "c"]
    assert world.state("b") is BounceState.QUEUED


def test_a_worker_that_loses_its_connection_hands_back_and_spends_no_call(world: World) -> None:
    world.sender.warm_before, world.sender.silent = 1, 1
    fates, again = world.work(*ages("a", "b"))
    assert states(fates) == {"b": BounceState.SENT}
    assert again == {"a"}
    assert world.sender.sent_for == ["b"]
    assert world.state("a") is BounceState.QUEUED
    assert world.counted == [Incident.TRY_AGAIN]


def test_after_a_lost_answer_the_worker_hands_back_and_the_next_one_has_one_call_left(
    world: World,
) -> None:
    world.sender.script = [failing(answer_lost=True), failing(answer_lost=True)]
    assert world.work(mail(), owner="first") == ([], {"msg1"})
    ((fate,), again) = world.work(mail(), owner="second")
    assert again == set()
    assert fate.state is BounceState.REJECTED
    assert fate.error_code == "AnswerLost"
    assert len(world.sender.calls) == 2


def test_a_doubt_outlives_workers_that_do_not_come_to_call(world: World) -> None:
    world.sender.script = [failing(answer_lost=True)]
    world.work(mail(), owner="first")
    world.work(mail(), owner="second", seconds=ANSWER)
    world.sender.silent = 10**6
    world.work(mail(), owner="third")
    world.sender.silent = 0
    world.sender.script = [failing(answer_lost=True)]
    fates, _ = world.work(mail(), owner="fourth")
    assert states(fates) == {"msg1": BounceState.REJECTED}
    assert len(world.sender.calls) == 2


def test_a_doubt_about_one_bounce_is_none_about_the_others(world: World) -> None:
    world.settled_before(BounceState.QUEUED, "a", NOBODY, lost_answers=1)
    world.sender.script = [failing(answer_lost=True), failing(answer_lost=True)]
    fates, again = world.work(*ages("a", "b"))
    assert states(fates) == {"a": BounceState.REJECTED}
    assert again == {"b"}


def test_a_bounce_that_is_refused_does_not_block_the_others(world: World) -> None:
    world.sender.script = [RefusedError("MessageRejected", "no")]
    fates, again = world.work(*ages("a", "b"))
    assert states(fates) == {"a": BounceState.REJECTED, "b": BounceState.SENT}
    assert again == set()


def test_what_is_too_old_is_given_up_without_a_slot(world: World) -> None:
    fates, again = world.work(mail("old", age=TOO_OLD), mail("new"))
    assert states(fates) == {"old": BounceState.EXPIRED, "new": BounceState.SENT}
    assert again == set()
    assert world.state("old") is BounceState.EXPIRED
    assert world.slots.asked == [pytest.approx(PACE.span(1))]


def test_what_becomes_too_old_while_it_waits_for_its_slot_is_not_sent_late(world: World) -> None:
    world.next_slot_in(60)
    fates, again = world.work(mail("late", age=TOO_OLD - 30), mail("new"))
    assert states(fates) == {"late": BounceState.EXPIRED, "new": BounceState.SENT}
    assert again == set()
    assert world.sender.sent_for == ["new"]


def test_an_inbound_mail_that_becomes_too_old_before_its_slot_is_not_sent_late(
    world: World,
) -> None:
    world.next_slot_in(2.5)
    (fate,) = world.inbound(mail(age=TOO_OLD - 1))
    assert fate.state is BounceState.EXPIRED
    assert world.sender.calls == []


def test_a_ledger_that_keeps_failing_is_not_asked_about_the_whole_batch(world: World) -> None:
    world.ledger_broken_for = {"a", "b", "c", "d"}
    fates, again = world.work(*ages("a", "b", "c", "d"))
    assert fates == []
    assert again == {"a", "b", "c", "d"}
    assert world.counted == [Incident.LEDGER_LAGS] * 2


def test_what_becomes_too_old_while_others_are_sent_is_not_sent_late(world: World) -> None:
    world.sender.answer_takes = 4.0
    fates, again = world.work(mail("a", age=TOO_OLD - 1), mail("b", age=TOO_OLD - 3))
    assert states(fates) == {"a": BounceState.SENT, "b": BounceState.EXPIRED}
    assert again == set()
    assert world.state("b") is BounceState.EXPIRED


def test_the_ledger_failing_for_one_hands_back_that_one_only(world: World) -> None:
    world.ledger_broken_for = {"a"}
    fates, again = world.work(*ages("a", "b"))
    assert states(fates) == {"b": BounceState.SENT}
    assert again == {"a"}
    assert world.counted == [Incident.LEDGER_LAGS]


@pytest.mark.parametrize("state", sorted(SETTLED))
def test_what_was_settled_before_is_done(world: World, state: BounceState) -> None:
    world.settled_before(state, "msg1", NOBODY)
    assert world.work(mail()) == ([], set())
    assert world.sender.calls == []
    assert world.counted == [Incident.REPEAT_PREVENTED]


@pytest.mark.parametrize("state", [BounceState.QUEUED, BounceState.DEAD_LETTERED])
def test_what_waited_is_claimed_and_sent(world: World, state: BounceState) -> None:
    world.settled_before(state, "msg1", NOBODY)
    fates, again = world.work(mail())
    assert states(fates) == {"msg1": BounceState.SENT}
    assert again == set()


def test_what_another_worker_holds_is_handed_back(world: World) -> None:
    world.claimed_elsewhere("a", NOBODY)
    fates, again = world.work(*ages("a", "b"))
    assert states(fates) == {"b": BounceState.SENT}
    assert again == {"a"}


def test_of_a_bounce_that_is_partly_held_elsewhere_our_part_is_sent(world: World) -> None:
    world.claimed_elsewhere("msg1", "busy@example.com")
    fates, again = world.work(mail("msg1", "busy@example.com", "mine@example.com"))
    assert [(fate.recipient, fate.state) for fate in fates] == [
        ("mine@example.com", BounceState.SENT)
    ]
    assert again == {"msg1"}


def test_a_limiter_that_fails_hands_everything_back(world: World) -> None:
    world.slots.broken = True
    fates, again = world.work(*ages("a", "b"))
    assert (fates, again) == ([], {"a", "b"})
    assert set(world.counted) == {Incident.NO_SLOT}
    assert world.seconds <= RUN - ANSWER + ROUNDING


def test_a_ledger_that_fails_after_the_workers_call_does_not_send_it_again(world: World) -> None:
    world.ledger_forgets_ends = True
    fates, again = world.work(*ages("a", "b"))
    assert set(states(fates).values()) == {BounceState.SENT}
    assert again == set()
    assert world.counted == [Incident.LEDGER_LAGS] * 2


def test_an_empty_batch_asks_nobody(world: World) -> None:
    assert world.work() == ([], set())
    assert world.slots.asked == []


def test_two_workers_share_the_pace(world: World) -> None:
    """The second one's window begins where the first one's ends."""
    world.work(*ages("a", "b"), owner="first")
    world.seconds = 0.0
    world.work(*ages("c", "d"), owner="second")
    first, second = world.sender.starts[:2], world.sender.starts[2:]
    assert second[0] == pytest.approx(PACE.span(2))
    assert second[0] - first[-1] >= PACE.interval


def test_two_messages_of_one_mail_in_one_batch_are_sent_once(world: World) -> None:
    batch = {"first message": mail(), "second message": mail()}
    fates, again = world.delivery.send_batch(
        batch, owner="worker", until=world.now() + timedelta(seconds=RUN)
    )
    assert states(fates) == {"msg1": BounceState.SENT}
    assert len(world.sender.calls) == 1
    assert again == {"second message"}


def test_of_two_messages_of_one_mail_each_recipient_is_sent_once(world: World) -> None:
    both = mail("msg1", "a@example.com", "b@example.com")
    batch = {"first message": mail("msg1", "a@example.com"), "second message": both}
    world.delivery.send_batch(batch, owner="worker", until=world.now() + timedelta(seconds=RUN))
    called = [each.recipient for _, call in world.sender.calls for each in call.recipients]
    assert called == ["a@example.com", "b@example.com"]


def test_the_second_message_of_a_mail_that_was_sent_is_done(world: World) -> None:
    world.work(mail(), owner="worker")
    assert world.work(mail(), owner="worker") == ([], set())
    assert len(world.sender.calls) == 1


def test_what_is_too_old_but_held_elsewhere_is_left_to_its_holder(world: World) -> None:
    world.claimed_elsewhere("old", NOBODY)
    fates, again = world.work(mail("old", age=TOO_OLD))
    assert (fates, again) == ([], {"old"})
    assert world.state("old") is BounceState.CLAIMED


def test_what_was_sent_in_time_does_not_expire_in_its_second_message(world: World) -> None:
    world.settled_before(BounceState.SENT, "old", NOBODY)
    assert world.work(mail("old", age=TOO_OLD)) == ([], set())
    assert world.state("old") is BounceState.SENT


@pytest.mark.parametrize("state", [BounceState.CLAIMED, *sorted(SETTLED)])
def test_what_somebody_holds_or_has_ended_is_no_dead_letter(
    world: World, state: BounceState
) -> None:
    if state is BounceState.CLAIMED:
        world.claimed_elsewhere("msg1", NOBODY)
    else:
        world.settled_before(state, "msg1", NOBODY)
    (fate,) = world.delivery.dead_letter(mail(), until=world.soon)
    assert (fate.state, fate.repeated) == (state, True)
    assert world.state() is state


def test_a_dead_letter_is_noted_and_may_be_claimed_again(world: World) -> None:
    (fate,) = world.delivery.dead_letter(mail(), until=world.soon)
    assert (fate.state, fate.reason) == (BounceState.DEAD_LETTERED, "unknown-recipient")
    assert world.state() is BounceState.DEAD_LETTERED
    fates, _ = world.work(mail())
    assert states(fates) == {"msg1": BounceState.SENT}


# --- Two workers at a time -------------------------------------------------------------------


class SharedTime(World):
    """Several run at once, in turn: each until it sleeps, then whoever wakes first."""

    def __init__(self, pace: Pace) -> None:
        super().__init__(pace)
        self._number = count()
        self._asleep: list[tuple[float, int, threading.Event]] = []

    def pass_time(self, seconds: float) -> None:
        awake = self._wakes_at(self.seconds + seconds)
        self._go_on()
        awake.wait()

    def run(self, *jobs: Callable[[], None]) -> None:
        def in_turn(job: Callable[[], None], begins: threading.Event) -> None:
            begins.wait()
            try:
                job()
            finally:
                self._go_on()

        with ThreadPoolExecutor(len(jobs)) as threads:
            begin = [self._wakes_at(self.seconds) for _ in jobs]
            done = [threads.submit(in_turn, *each) for each in zip(jobs, begin, strict=True)]
            self._go_on()
        for each in done:
            each.result()

    def _wakes_at(self, moment: float) -> threading.Event:
        event = threading.Event()
        heappush(self._asleep, (moment, next(self._number), event))
        return event

    def _go_on(self) -> None:
        if self._asleep:
            self.seconds, _, awake = heappop(self._asleep)
            awake.set()


BATCH = 10
QUEUED = 60


@pytest.mark.parametrize(
    ("interval", "receives"),
    [(1.0, 2), (5.0, 4), (10.0, 6)],
    ids=["every second", "every 5 s", "every 10 s"],
)
def test_two_workers_drain_the_queue_and_wear_no_message_out(
    interval: float, receives: int
) -> None:
    """The queue gives a message up after 20 receives."""
    world = SharedTime(Pace(interval=interval))
    waiting = deque(f"mail-{number}" for number in range(QUEUED))
    received = Counter[str]()
    finished: list[Fate] = []

    def worker(name: str) -> None:
        delivery = world.another_delivery()
        for run in count():
            keys = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
            if not keys:
                return
            received.update(keys)
            assert max(received.values()) <= receives
            fates, again = delivery.send_batch(
                {key: mail(key, age=1000) for key in keys},
                owner=f"{name}-{run}",
                until=world.now() + timedelta(seconds=RUN),
            )
            finished.extend(fates)
            waiting.extend(sorted(again))

    world.run(lambda: worker("first"), lambda: worker("second"))
    assert Counter(fate.state for fate in finished) == {BounceState.SENT: QUEUED}
    assert sorted(world.sender.sent_for) == sorted(received)
    starts = sorted(world.sender.starts)
    assert min(b - a for a, b in pairwise(starts)) >= interval - ROUNDING
    assert starts[-1] <= world.pace.drain(QUEUED) * 1.2
