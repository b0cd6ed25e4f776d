"""A call whose answer never came is made once more, by whoever comes to it."""

from collections.abc import Callable

import pytest

from bouncer.delivery.bounce import Bounce
from bouncer.delivery.fate import Incident
from bouncer.delivery.ledger import BounceState
from bouncer.delivery.send_bounce import ThrottledError
from tests.fakes.bounces import NOBODY
from tests.unit.delivery.world import ANSWER, World, ages, failing, mail, states


@pytest.mark.parametrize(
    ("lost", "event"), [(False, Incident.TRY_AGAIN), (True, Incident.ANSWER_LOST)]
)
def test_a_lost_answer_is_counted_apart(world: World, lost: bool, event: Incident) -> None:
    """The next try may be a second bounce."""
    world.sender.script = [failing(lost)]
    assert states(world.inbound(mail())) == {"msg1": BounceState.SENT}
    assert world.counted == [event]


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


def test_a_lost_answer_is_noted_before_anything_else_can_go_wrong(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash right after it would let the next delivery make two more calls."""
    noted: list[int] = []

    def look(bounce: Bounce, turn: Callable[[], None], written: Callable[[], None]) -> str:
        noted.extend(entry.lost_answers for entry in world.ledger.history(bounce.message_id))
        if len(noted) == 1:
            turn()
            raise failing(answer_lost=True)
        return "bounce-2"

    monkeypatch.setattr(world.sender, "send", look)
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
