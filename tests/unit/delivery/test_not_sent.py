"""What is not sent on purpose, or never will be, is noted with its reason."""

import pytest

from bouncer.delivery.fate import Incident
from bouncer.delivery.ledger import SETTLED, BounceState
from bouncer.guards import GuardName, OtherReason
from tests.fakes.bounces import NOBODY
from tests.unit.delivery.world import World, mail, states


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
