"""What somebody sent, holds or has in the queue is not sent again."""

from datetime import timedelta

import pytest

from bouncer import timing
from bouncer.delivery.fate import Incident
from bouncer.delivery.ledger import SETTLED, BounceState
from tests.fakes.bounces import NOBODY
from tests.unit.delivery.world import RUN, World, ages, mail, states


def test_what_was_refused_is_sent_once_the_cause_is_mended(world: World) -> None:
    world.settled_before(BounceState.REJECTED, "msg1", NOBODY)
    (fate,) = world.inbound(mail())
    assert (fate.state, fate.repeated) == (BounceState.SENT, False)
    assert world.counted == []


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


def test_in_a_known_backlog_what_was_sent_before_stays_so(world: World) -> None:
    world.next_slot_in(60)
    world.inbound(mail("msg1"))
    world.settled_before(BounceState.SENT, "msg2", NOBODY)
    (fate,) = world.inbound(mail("msg2"))
    assert (fate.state, fate.repeated) == (BounceState.SENT, True)
    assert world.state("msg2") is BounceState.SENT


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
