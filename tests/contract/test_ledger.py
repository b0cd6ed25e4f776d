"""The ledger, every one of them: a claim is a lease, an end is final, a recipient is its own."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer import timing
from bouncer.aws.ledger import DynamoLedger
from bouncer.delivery.ledger import (
    CALLS_WITHOUT_ANSWER,
    OF_A_CALL,
    SETTLED,
    UNANSWERED,
    BounceState,
    Claims,
    Ledger,
    LedgerEntry,
    LedgerUnavailableError,
)
from tests.fakes.bounces import NOBODY
from tests.fakes.ledger import MemoryLedger
from tests.integration.builders import BOUNCES

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
INVOCATION = timedelta(seconds=30)
LEASE = INVOCATION + timedelta(seconds=timing.LEASE_GRACE)
RETENTION = timedelta(days=14)
MAIL = "msg1"

type Make = Callable[[Callable[[], datetime]], Ledger]


def in_memory(_: pytest.FixtureRequest) -> Make:
    return lambda clock: MemoryLedger(clock, retention=RETENTION)


def in_dynamodb(request: pytest.FixtureRequest) -> Make:
    dynamodb = request.getfixturevalue("dynamodb")
    return lambda clock: DynamoLedger(dynamodb, BOUNCES, retention=RETENTION, clock=clock)


def in_simulator(request: pytest.FixtureRequest) -> Make:
    client = request.getfixturevalue("simulated")(NOW.timestamp()).dynamodb
    return lambda clock: DynamoLedger(client, BOUNCES, retention=RETENTION, clock=clock)


class At:
    """A ledger whose clock is set by hand."""

    def __init__(self, make: Make) -> None:
        self.now = NOW
        self.ledger = make(lambda: self.now)

    @property
    def until(self) -> datetime:
        return self.now + INVOCATION

    def claim(
        self, *recipients: str, owner: str = "me", message_id: str = MAIL, anew: bool = True
    ) -> Claims:
        reasons = dict.fromkeys(recipients or (NOBODY,), "unknown-recipient")
        return self.ledger.claim(message_id, reasons, owner=owner, until=self.until, anew=anew)

    def settle(
        self, state: BounceState, recipient: str = NOBODY, *, owner: str = "me", **facts: str | int
    ) -> Mapping[str, BounceState]:
        """What stands instead, if anything."""
        its = [entry(state, recipient, **facts)]
        return self.ledger.settle(its, owner=owner, until=self.until)

    def record(
        self, state: BounceState, recipient: str = NOBODY, **facts: str | int
    ) -> Mapping[str, BounceState]:
        return self.ledger.record([entry(state, recipient, **facts)], until=self.until)

    def give_up(self, recipient: str = NOBODY) -> Mapping[str, BounceState]:
        its = [entry(BounceState.DEAD_LETTERED, recipient)]
        return self.ledger.give_up(its, until=self.until)

    def lose_answers(self, number: int, owner: str = "me", recipient: str = NOBODY) -> None:
        self.ledger.note_lost_answers(MAIL, {recipient: number}, owner=owner, until=self.until)

    def stands(self, state: BounceState | None) -> None:
        """Bring the recipient into a state, whoever brought it there."""
        if state is not None:
            self.claim(owner="other")
        if state not in (None, BounceState.CLAIMED):
            self.settle(state, owner="other")

    def entry(self, recipient: str = NOBODY) -> LedgerEntry:
        (only,) = [e for e in self.ledger.history(MAIL) if e.recipient == recipient]
        return only

    def state(self, recipient: str = NOBODY) -> BounceState:
        return self.entry(recipient).state


def entry(state: BounceState, recipient: str = NOBODY, **facts: str | int) -> LedgerEntry:
    return msgspec.convert(
        {
            "message_id": MAIL,
            "recipient": recipient,
            "state": state,
            "reason": "unknown-recipient",
            "status": "5.1.1",
            "received_at": NOW - timedelta(minutes=1),
            **facts,
        },
        LedgerEntry,
    )


@pytest.fixture(
    params=[in_memory, in_dynamodb, in_simulator], ids=["in memory", "in DynamoDB", "simulated"]
)
def at(request: pytest.FixtureRequest) -> At:
    return At(request.param(request))


def test_who_comes_first_has_the_claim(at: At) -> None:
    claims = at.claim()
    assert claims == Claims(mine={NOBODY: 0}, settled={}, in_flight={})
    assert at.state() is BounceState.CLAIMED


def test_who_comes_second_hears_how_long_the_claim_holds(at: At) -> None:
    at.claim(owner="other")
    assert at.claim() == Claims(mine={}, settled={}, in_flight={NOBODY: NOW + LEASE})


def test_a_claim_can_be_repeated_by_its_holder(at: At) -> None:
    at.claim()
    at.now += timedelta(seconds=10)
    assert at.claim().mine.keys() == {NOBODY}
    assert at.claim(owner="other").in_flight == {NOBODY: at.now + LEASE}


def test_a_claim_is_a_lease(at: At) -> None:
    at.claim(owner="crashed")
    at.now += LEASE
    assert at.claim().mine.keys() == {NOBODY}


@pytest.mark.parametrize("state", sorted(SETTLED))
def test_an_end_is_final(at: At, state: BounceState) -> None:
    at.claim(owner="other")
    at.settle(state, owner="other")
    at.now += 10 * LEASE
    assert at.claim() == Claims(mine={}, settled={NOBODY: state}, in_flight={})


@pytest.mark.parametrize("state", [BounceState.QUEUED, BounceState.DEAD_LETTERED])
def test_what_waits_may_be_claimed_at_once(at: At, state: BounceState) -> None:
    at.stands(state)
    assert at.claim().mine.keys() == {NOBODY}


def test_what_was_refused_may_be_claimed_by_whoever_mended_the_cause(at: At) -> None:
    at.stands(BounceState.REJECTED)
    assert at.claim() == Claims(mine={NOBODY: 0}, settled={}, in_flight={})
    assert at.state() is BounceState.CLAIMED


# --- A call without an answer ----------------------------------------------------------------


def test_who_claims_what_waits_for_an_answer_that_was_lost_is_told_so(at: At) -> None:
    at.claim("doubtful@example.com", "plain@example.com", owner="other")
    at.settle(BounceState.QUEUED, "doubtful@example.com", owner="other", lost_answers=1)
    at.settle(BounceState.QUEUED, "plain@example.com", owner="other")
    claims = at.claim("doubtful@example.com", "plain@example.com", "new@example.com")
    assert claims.mine == {
        "doubtful@example.com": 1,
        "plain@example.com": 0,
        "new@example.com": 0,
    }


def test_a_lost_answer_that_its_holder_noted_outlives_his_crash(at: At) -> None:
    at.claim(owner="crashed")
    at.lose_answers(1, owner="crashed")
    assert at.state() is BounceState.CLAIMED
    assert at.claim(owner="quick").mine == {}
    at.now += LEASE
    assert at.claim(owner="second").mine == {NOBODY: 1}


def test_noting_a_lost_answer_twice_counts_it_once(at: At) -> None:
    """The SDK may send it twice."""
    at.claim()
    at.lose_answers(1)
    at.lose_answers(1)
    assert at.entry().lost_answers == 1


def test_only_the_holder_notes_a_lost_answer(at: At) -> None:
    at.claim(owner="slow")
    at.now += LEASE
    at.claim(owner="quick")
    at.lose_answers(1, owner="slow")
    assert at.entry().lost_answers == 0


def test_a_crash_and_the_dead_letters_leave_the_doubt(at: At) -> None:
    at.claim(owner="first")
    at.settle(BounceState.QUEUED, owner="first", lost_answers=1)
    at.claim(owner="crashed")
    at.now += LEASE
    assert at.claim(owner="second").mine == {NOBODY: 1}
    at.settle(BounceState.QUEUED, owner="second", lost_answers=1)
    at.give_up()
    assert at.claim().mine == {NOBODY: 1}


def test_another_delivery_that_only_queues_leaves_the_doubt(at: At) -> None:
    at.claim(owner="first")
    at.settle(BounceState.QUEUED, owner="first", lost_answers=1)
    at.claim(owner="crashed")
    at.now += LEASE
    assert at.record(BounceState.QUEUED) == {}
    assert at.claim().mine == {NOBODY: 1}


def test_two_calls_without_an_answer_are_the_end(at: At) -> None:
    at.claim(owner="other")
    at.settle(
        BounceState.REJECTED,
        owner="other",
        error_code=UNANSWERED,
        lost_answers=CALLS_WITHOUT_ANSWER,
    )
    at.now += 10 * LEASE
    assert at.claim() == Claims(mine={}, settled={NOBODY: BounceState.REJECTED}, in_flight={})
    assert at.record(BounceState.SUPPRESSED) == {NOBODY: BounceState.REJECTED}
    assert at.give_up() == {NOBODY: BounceState.REJECTED}


def test_what_was_refused_with_a_word_is_in_no_doubt(at: At) -> None:
    at.claim()
    at.settle(BounceState.REJECTED, error_code="MessageRejected")
    assert at.claim().mine == {NOBODY: 0}


def test_what_was_refused_is_claimed_anew_only_by_who_asks_for_that(at: At) -> None:
    at.claim()
    at.settle(BounceState.REJECTED, error_code="MessageRejected")
    refused = at.claim(owner="other", anew=False)
    assert refused == Claims(mine={}, settled={NOBODY: BounceState.REJECTED}, in_flight={})
    assert at.claim(owner="other").mine == {NOBODY: 0}


@pytest.mark.parametrize("anew", [True, False])
def test_what_waits_is_claimed_either_way(at: At, anew: bool) -> None:
    at.claim()
    at.settle(BounceState.QUEUED)
    assert at.claim(owner="other", anew=anew).mine == {NOBODY: 0}


def test_a_refusal_says_nothing_of_the_call_before_whose_answer_was_lost(at: At) -> None:
    at.claim()
    at.settle(BounceState.REJECTED, error_code="MessageRejected", lost_answers=1)
    assert at.claim().mine == {NOBODY: 1}


def test_an_end_without_a_word_takes_the_doubt_away(at: At) -> None:
    """The holder says how many there were."""
    at.claim(owner="first")
    at.settle(BounceState.QUEUED, owner="first", lost_answers=1)
    at.claim(owner="second")
    at.settle(BounceState.QUEUED, owner="second")
    assert at.claim().mine == {NOBODY: 0}


def test_the_error_of_an_end_stands_in_the_history(at: At) -> None:
    at.claim()
    at.settle(BounceState.REJECTED, error_code="MessageRejected", detail="no")
    assert (at.entry().error_code, at.entry().detail) == ("MessageRejected", "no")
    assert at.entry().why == "MessageRejected: no"


def test_a_later_end_leaves_no_words_of_an_earlier_one(at: At) -> None:
    at.claim()
    at.settle(BounceState.REJECTED, error_code="MessageRejected", detail="no")
    at.record(BounceState.SUPPRESSED)
    assert at.entry().why == ""


# --- Claims and their ends -------------------------------------------------------------------


def test_each_recipient_is_claimed_on_its_own(at: At) -> None:
    at.claim("busy@example.com", owner="other")
    at.record(BounceState.SENT, "done@example.com")
    claims = at.claim("busy@example.com", "done@example.com", "mine@example.com")
    assert claims.mine.keys() == {"mine@example.com"}
    assert set(claims.in_flight) == {"busy@example.com"}
    assert claims.settled == {"done@example.com": BounceState.SENT}


def test_the_same_recipient_of_another_mail_is_another_matter(at: At) -> None:
    at.claim(message_id="msg2", owner="other")
    assert at.claim().mine.keys() == {NOBODY}


def test_a_recipient_is_the_same_in_any_case(at: At) -> None:
    """Overlapping rules may be told the address as it was typed."""
    at.claim("Nobody@Example.COM", owner="other")
    assert set(at.claim(NOBODY).in_flight) == {NOBODY}


def test_an_entry_past_its_expiry_counts_as_gone(at: At) -> None:
    """TTL deletes within days only."""
    at.record(BounceState.SENT)
    at.now += RETENTION
    assert at.claim().mine.keys() == {NOBODY}


def test_an_entry_before_its_expiry_still_counts(at: At) -> None:
    at.record(BounceState.SENT)
    at.now += RETENTION - timedelta(seconds=1)
    assert at.claim().settled == {NOBODY: BounceState.SENT}


def test_the_holder_settles_with_all_that_a_person_wants_to_know(at: At) -> None:
    at.claim()
    at.now += timedelta(seconds=3)
    at.settle(BounceState.SENT, owner="me", bounce_id="bounce-1")
    (entry,) = at.ledger.history(MAIL)
    assert entry == LedgerEntry(
        message_id=MAIL,
        recipient=NOBODY,
        state=BounceState.SENT,
        reason="unknown-recipient",
        status="5.1.1",
        received_at=NOW - timedelta(minutes=1),
        updated_at=NOW + timedelta(seconds=3),
        lease_until=NOW + LEASE,
        bounce_id="bounce-1",
    )


def test_who_lost_the_lease_settles_nothing(at: At) -> None:
    at.claim(owner="slow")
    at.now += LEASE
    at.claim(owner="quick")
    assert at.settle(BounceState.REJECTED, owner="slow") == {NOBODY: BounceState.CLAIMED}
    assert at.state() is BounceState.CLAIMED


def test_settling_twice_changes_nothing(at: At) -> None:
    at.claim()
    at.settle(BounceState.SENT, owner="me", bounce_id="bounce-1")
    at.settle(BounceState.REJECTED, owner="me")
    at.record(BounceState.EXPIRED)
    at.give_up()
    assert at.state() is BounceState.SENT


@pytest.mark.parametrize("before", [None, BounceState.REJECTED])
@pytest.mark.parametrize(
    "state", [BounceState.EXPIRED, BounceState.QUEUED, BounceState.DEAD_LETTERED]
)
def test_what_nobody_sends_or_has_sent_is_settled_without_a_claim(
    at: At, before: BounceState | None, state: BounceState
) -> None:
    at.stands(before)
    assert at.record(state) == {}
    assert at.state() is state


@pytest.mark.parametrize(
    "before", [BounceState.CLAIMED, BounceState.QUEUED, BounceState.DEAD_LETTERED, *sorted(SETTLED)]
)
@pytest.mark.parametrize(
    "state", [BounceState.SUPPRESSED, BounceState.QUEUED, BounceState.REJECTED]
)
def test_what_another_delivery_of_the_mail_has_begun_is_left_alone_without_a_claim(
    at: At, before: BounceState, state: BounceState
) -> None:
    at.stands(before)
    assert at.record(state) == {NOBODY: before}
    assert at.state() is before


@pytest.mark.parametrize("before", [BounceState.QUEUED, BounceState.DEAD_LETTERED])
def test_what_waits_is_given_up_without_a_claim(at: At, before: BounceState) -> None:
    at.stands(before)
    assert at.give_up() == {}
    assert at.state() is BounceState.DEAD_LETTERED


@pytest.mark.parametrize("before", [BounceState.CLAIMED, *sorted(SETTLED)])
def test_what_somebody_holds_or_has_ended_is_not_given_up_by_others(
    at: At, before: BounceState
) -> None:
    at.stands(before)
    assert at.give_up() == {NOBODY: before}
    assert at.state() is before


def test_of_several_recipients_only_those_that_are_left_alone_are_told(at: At) -> None:
    at.claim("busy@example.com", owner="other")
    entries = [
        LedgerEntry(
            message_id=MAIL, recipient=each, state=BounceState.SUPPRESSED, reason="null-sender"
        )
        for each in ("busy@example.com", "free@example.com")
    ]
    assert at.ledger.record(entries, until=at.until) == {"busy@example.com": BounceState.CLAIMED}
    assert at.state("free@example.com") is BounceState.SUPPRESSED


def test_what_was_abandoned_is_settled_by_anyone(at: At) -> None:
    at.claim(owner="crashed")
    at.now += LEASE
    assert at.give_up() == {}
    assert at.state() is BounceState.DEAD_LETTERED


def test_the_history_holds_every_recipient_of_the_mail(at: At) -> None:
    at.claim("a@example.com", "b@example.com")
    at.claim(message_id="msg2")
    recipients = [entry.recipient for entry in at.ledger.history(MAIL)]
    assert recipients == ["a@example.com", "b@example.com"]


def test_the_history_of_a_mail_that_nobody_knows_is_empty(at: At) -> None:
    assert at.ledger.history("never seen") == []


# --- Its time --------------------------------------------------------------------------------


def test_nobody_is_asked_whose_answer_could_come_too_late(at: At) -> None:
    late = at.now + timedelta(seconds=timing.ATTEMPT - 0.1)
    with pytest.raises(LedgerUnavailableError):
        at.ledger.claim(MAIL, {NOBODY: "unknown-recipient"}, owner="me", until=late)
    at.claim()
    for state in (BounceState.EXPIRED, BounceState.QUEUED):
        with pytest.raises(LedgerUnavailableError):
            at.ledger.settle([entry(state)], owner="me", until=late)
    with pytest.raises(LedgerUnavailableError):
        at.ledger.history(MAIL, until=late)
    with pytest.raises(LedgerUnavailableError):
        at.ledger.record([entry(BounceState.SENT, "a@example.com")], until=late)
    with pytest.raises(LedgerUnavailableError):
        at.ledger.give_up([entry(BounceState.SENT, "a@example.com")], until=late)
    (only,) = at.ledger.history(MAIL)
    assert (only.state, only.lost_answers) == (BounceState.CLAIMED, 0)


@pytest.mark.parametrize("state", sorted(OF_A_CALL))
@pytest.mark.parametrize("late", [timedelta(seconds=1), timedelta(0), -timedelta(minutes=1)])
def test_what_became_of_a_call_is_noted_however_late(
    at: At, state: BounceState, late: timedelta
) -> None:
    """Who was frozen after his call: nobody may send the bounce again because of that."""
    both = ("a@example.com", "b@example.com")
    at.claim(*both)
    until = at.now + late
    at.ledger.note_lost_answers(MAIL, dict.fromkeys(both, 1), owner="me", until=until)
    assert [each.lost_answers for each in at.ledger.history(MAIL)] == [1, 1]
    ends = [entry(state, each) for each in both]
    assert at.ledger.settle(ends, owner="me", until=until) == {}
    assert [each.state for each in at.ledger.history(MAIL)] == [state, state]


# --- Both at once ----------------------------------------------------------------------------

OWNERS = st.sampled_from(["first", "second"])
STATES = st.sampled_from([BounceState.QUEUED, BounceState.REJECTED, *sorted(SETTLED)])
LOST = st.integers(0, CALLS_WITHOUT_ANSWER)
STEPS = st.one_of(
    st.tuples(st.just("claim"), OWNERS),
    st.tuples(st.just("settle"), OWNERS, STATES, LOST),
    st.tuples(st.just("lose"), OWNERS, LOST),
    st.tuples(st.just("record"), STATES),
    st.tuples(st.just("give up")),
    st.tuples(st.just("wait"), st.sampled_from([timedelta(seconds=1), LEASE, RETENTION])),
)


def take(at: At, step: Any) -> Any:
    """What the ledger answers to a step."""
    match step:
        case "claim", owner:
            return at.claim(owner=owner)
        case "settle", owner, state, lost:
            return at.settle(state, owner=owner, lost_answers=lost)
        case "lose", owner, lost:
            return at.lose_answers(lost, owner=owner)
        case "record", state:
            return at.record(state)
        case ("give up",):
            return at.give_up()
        case "wait", time:
            at.now += time
    return None


@given(steps=st.lists(STEPS, max_size=12))
# Each example empties the table that they share.
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None
)
def test_whatever_is_done_every_ledger_answers_the_same(
    dynamodb: DynamoDBClient, steps: list[Any]
) -> None:
    for each in dynamodb.scan(TableName=BOUNCES)["Items"]:
        dynamodb.delete_item(TableName=BOUNCES, Key={"pk": each["pk"], "sk": each["sk"]})
    stored = partial(DynamoLedger, dynamodb, BOUNCES, retention=RETENTION)
    ledgers = [
        At(lambda clock: MemoryLedger(clock, retention=RETENTION)),
        At(lambda clock: stored(clock=clock)),
    ]
    for step in steps:
        in_memory, in_dynamodb = (take(at, step) for at in ledgers)
        assert in_memory == in_dynamodb
