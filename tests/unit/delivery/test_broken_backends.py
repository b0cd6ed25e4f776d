"""Ledger, limiter or queue fail: nothing is sent twice, and nothing is lost."""

import pytest

from bouncer.delivery.fate import Incident
from bouncer.delivery.ledger import BounceState, LedgerUnavailableError
from bouncer.delivery.queue import QueueUnavailableError
from tests.unit.delivery.world import ANSWER, ROUNDING, RUN, World, ages, mail, states


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


def test_a_queue_that_takes_nothing_is_an_error_and_the_ledger_says_nothing_else(
    world: World,
) -> None:
    """So that a retry, after the lease, decides the same again."""
    world.next_slot_in(60)
    world.queue_broken = True
    with pytest.raises(QueueUnavailableError):
        world.inbound(mail())
    assert world.state() is BounceState.CLAIMED


def test_a_limiter_that_recovers_meanwhile_loses_nothing(world: World) -> None:
    world.slots.broken = True
    world.at(20, lambda: setattr(world.slots, "broken", False))
    fates, again = world.work(*ages("a", "b"))
    assert states(fates) == dict.fromkeys("ab", BounceState.SENT)
    assert again == set()
    assert set(world.counted) == {Incident.NO_SLOT}


def test_a_ledger_that_keeps_failing_is_not_asked_about_the_whole_batch(world: World) -> None:
    world.ledger_broken_for = {"a", "b", "c", "d"}
    fates, again = world.work(*ages("a", "b", "c", "d"))
    assert fates == []
    assert again == {"a", "b", "c", "d"}
    assert world.counted == [Incident.LEDGER_LAGS] * 2


def test_the_ledger_failing_for_one_hands_back_that_one_only(world: World) -> None:
    world.ledger_broken_for = {"a"}
    fates, again = world.work(*ages("a", "b"))
    assert states(fates) == {"b": BounceState.SENT}
    assert again == {"a"}
    assert world.counted == [Incident.LEDGER_LAGS]


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
