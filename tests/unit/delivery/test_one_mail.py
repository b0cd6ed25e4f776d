"""A mail's bounce is sent once, in its slot; or it waits in the queue."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from bouncer import timing
from bouncer.delivery.bounce import Bounce
from bouncer.delivery.fate import Incident
from bouncer.delivery.ledger import BounceState
from bouncer.delivery.send_bounce import RefusedError, ThrottledError, TryAgainError
from tests.unit.delivery.world import (
    ANSWER,
    LEDGER_FIRST,
    PACE,
    START,
    TERMS,
    World,
    failing,
    mail,
    states,
)


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


def test_after_three_failures_the_queue_tries_on(world: World) -> None:
    world.sender.script = [failing() for _ in range(5)]
    (fate,) = world.inbound(mail())
    assert fate.state is BounceState.QUEUED
    assert len(world.sender.calls) == 3
    assert world.queue.queued == [(mail(), LEDGER_FIRST)]
    assert world.state() is BounceState.QUEUED


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


@pytest.mark.parametrize("seconds", [timing.ATTEMPT, 5.0, ANSWER - 0.1])
def test_an_invocation_without_time_for_an_answer_queues(world: World, seconds: float) -> None:
    assert states(world.inbound(mail(), seconds=seconds)) == {"msg1": BounceState.QUEUED}
    assert world.slots.asked == []


def test_no_slot_is_waited_for_beyond_the_invocations_end(world: World) -> None:
    world.next_slot_in(2)
    assert states(world.inbound(mail(), seconds=ANSWER + 1)) == {"msg1": BounceState.QUEUED}
