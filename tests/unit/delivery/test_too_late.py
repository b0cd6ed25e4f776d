"""What cannot reach SES within its 24 hours is given up, not sent late."""

import pytest

from bouncer.delivery.ledger import BounceState
from bouncer.guards import OtherReason
from tests.fakes.bounces import NOBODY
from tests.unit.delivery.world import PACE, RUN, TOO_OLD, World, mail, states


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


def test_while_a_worker_waits_for_a_window_what_becomes_too_old_is_given_up(
    world: World,
) -> None:
    world.next_slot_in(RUN)
    fates, again = world.work(mail("old", age=TOO_OLD - 30), mail("new"))
    assert states(fates) == {"old": BounceState.EXPIRED}
    assert again == {"new"}
    assert world.state("old") is BounceState.EXPIRED


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


def test_what_becomes_too_old_while_others_are_sent_is_not_sent_late(world: World) -> None:
    world.sender.answer_takes = 4.0
    fates, again = world.work(mail("a", age=TOO_OLD - 1), mail("b", age=TOO_OLD - 3))
    assert states(fates) == {"a": BounceState.SENT, "b": BounceState.EXPIRED}
    assert again == set()
    assert world.state("b") is BounceState.EXPIRED


def test_what_is_too_old_but_held_elsewhere_is_left_to_its_holder(world: World) -> None:
    world.claimed_elsewhere("old", NOBODY)
    fates, again = world.work(mail("old", age=TOO_OLD))
    assert (fates, again) == ([], {"old"})
    assert world.state("old") is BounceState.CLAIMED


def test_what_was_sent_in_time_does_not_expire_in_its_second_message(world: World) -> None:
    world.settled_before(BounceState.SENT, "old", NOBODY)
    assert world.work(mail("old", age=TOO_OLD)) == ([], set())
    assert world.state("old") is BounceState.SENT
