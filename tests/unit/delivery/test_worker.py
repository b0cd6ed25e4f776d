"""The queue's worker sends a batch in one window, the oldest mail first."""

from itertools import pairwise

import msgspec
import pytest

from bouncer import timing
from bouncer.delivery.fate import Incident
from bouncer.delivery.ledger import BounceState
from bouncer.delivery.send_bounce import RefusedError, ThrottledError
from tests.fakes.bounces import NOBODY
from tests.unit.delivery.world import (
    ANSWER,
    PACE,
    ROUNDING,
    RUN,
    TERMS,
    World,
    ages,
    failing,
    mail,
    states,
)


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


def test_a_copy_of_what_ses_refused_to_another_worker_is_not_begun_again(world: World) -> None:
    """He deletes the message: whoever handed it back then would leave it waiting for nobody."""
    world.settled_before(BounceState.REJECTED, "msg1", NOBODY)
    assert world.work(mail()) == ([], set())
    assert world.sender.calls == []
    assert world.state() is BounceState.REJECTED


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


def test_a_bounce_that_is_refused_does_not_block_the_others(world: World) -> None:
    world.sender.script = [RefusedError("MessageRejected", "no")]
    fates, again = world.work(*ages("a", "b"))
    assert states(fates) == {"a": BounceState.REJECTED, "b": BounceState.SENT}
    assert again == set()


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
