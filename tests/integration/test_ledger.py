"""The ledger in DynamoDB: a claim is a lease, an end is final, and every recipient is its own."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import EndpointConnectionError
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws.ledger import DynamoLedger
from bouncer.delivery.ledger import (
    ANSWER_LOST,
    SETTLED,
    UNANSWERED,
    BounceState,
    Claims,
    LedgerEntry,
    LedgerUnavailableError,
)
from tests.integration.builders import BOUNCES, NOBODY, Answer, entry_of, fail, requests_of

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LEASE = timedelta(seconds=30)
RETENTION = timedelta(days=14)
MAIL = "msg1"


class At:
    """A ledger whose clock is set by hand."""

    def __init__(self, dynamodb: DynamoDBClient) -> None:
        self.now = NOW
        self.ledger = DynamoLedger(dynamodb, BOUNCES, retention=RETENTION, clock=lambda: self.now)

    def claim(self, *recipients: str, owner: str = "me", message_id: str = MAIL) -> Claims:
        reasons = dict.fromkeys(recipients or (NOBODY,), "unknown-recipient")
        return self.ledger.claim(message_id, reasons, owner=owner, until=self.now + LEASE)

    def settle(
        self,
        state: BounceState,
        recipient: str = NOBODY,
        owner: str | None = None,
        bounce_id: str = "",
        detail: str = "",
    ) -> Mapping[str, BounceState]:
        """What stands instead, if anything."""
        entry = LedgerEntry(
            message_id=MAIL,
            recipient=recipient,
            state=state,
            reason="unknown-recipient",
            status="5.1.1",
            received_at=NOW - timedelta(minutes=1),
            bounce_id=bounce_id,
            detail=detail,
        )
        return self.ledger.settle([entry], owner=owner)

    def stands(self, state: BounceState | None) -> None:
        """Bring the recipient into a state, whoever brought it there."""
        if state is not None:
            self.claim(owner="other")
        if state not in (None, BounceState.CLAIMED):
            self.settle(state, owner="other")

    def state(self, recipient: str = NOBODY) -> BounceState:
        return next(e.state for e in self.ledger.history(MAIL) if e.recipient == recipient)


@pytest.fixture
def at(dynamodb: DynamoDBClient) -> At:
    return At(dynamodb)


def test_who_comes_first_has_the_claim(at: At) -> None:
    claims = at.claim()
    assert claims == Claims(mine=frozenset({NOBODY}), settled={}, in_flight={})
    assert at.state() is BounceState.CLAIMED


def test_who_comes_second_hears_how_long_the_claim_holds(at: At) -> None:
    at.claim(owner="other")
    assert at.claim() == Claims(mine=frozenset(), settled={}, in_flight={NOBODY: NOW + LEASE})


def test_a_claim_can_be_repeated_by_its_holder(at: At) -> None:
    at.claim()
    at.now += timedelta(seconds=10)
    assert at.claim().mine == {NOBODY}
    assert at.claim(owner="other").in_flight == {NOBODY: at.now + LEASE}


def test_a_claim_is_a_lease(at: At) -> None:
    at.claim(owner="crashed")
    at.now += LEASE
    assert at.claim().mine == {NOBODY}


@pytest.mark.parametrize("state", sorted(SETTLED))
def test_an_end_is_final(at: At, state: BounceState) -> None:
    at.claim(owner="other")
    at.settle(state, owner="other")
    at.now += 10 * LEASE
    assert at.claim() == Claims(mine=frozenset(), settled={NOBODY: state}, in_flight={})


@pytest.mark.parametrize("state", [BounceState.QUEUED, BounceState.DEAD_LETTERED])
def test_what_waits_may_be_claimed_at_once(at: At, state: BounceState) -> None:
    at.stands(state)
    assert at.claim().mine == {NOBODY}


def test_what_was_refused_may_be_claimed_by_whoever_mended_the_cause(at: At) -> None:
    at.stands(BounceState.REJECTED)
    assert at.claim() == Claims(mine=frozenset({NOBODY}), settled={}, in_flight={})
    assert at.state() is BounceState.CLAIMED


# --- A call without an answer ----------------------------------------------------------------


def test_who_claims_what_waits_for_an_answer_that_was_lost_is_told_so(at: At) -> None:
    at.claim("doubtful@example.com", "plain@example.com", owner="other")
    at.settle(BounceState.QUEUED, "doubtful@example.com", owner="other", detail=ANSWER_LOST)
    at.settle(BounceState.QUEUED, "plain@example.com", owner="other")
    claims = at.claim("doubtful@example.com", "plain@example.com", "new@example.com")
    assert claims.mine == {"doubtful@example.com", "plain@example.com", "new@example.com"}
    assert claims.doubtful == {"doubtful@example.com"}


def test_what_somebody_else_holds_is_no_doubt_of_ours(at: At) -> None:
    at.stands(BounceState.QUEUED)
    at.claim(owner="other")
    assert at.claim().doubtful == frozenset()


def test_a_crash_and_the_dead_letters_leave_the_doubt(at: At) -> None:
    at.claim(owner="first")
    at.settle(BounceState.QUEUED, owner="first", detail=ANSWER_LOST)
    at.claim(owner="crashed")
    at.now += LEASE
    assert at.claim(owner="second").doubtful == {NOBODY}
    at.settle(BounceState.QUEUED, owner="second", detail=ANSWER_LOST)
    at.settle(BounceState.DEAD_LETTERED)
    assert at.claim().doubtful == {NOBODY}


def test_another_delivery_that_only_queues_leaves_the_doubt(at: At) -> None:
    at.claim(owner="first")
    at.settle(BounceState.QUEUED, owner="first", detail=ANSWER_LOST)
    at.claim(owner="crashed")
    at.now += LEASE
    assert at.settle(BounceState.QUEUED) == {}
    assert at.claim().doubtful == {NOBODY}


def test_two_calls_without_an_answer_are_the_end(at: At) -> None:
    at.claim(owner="other")
    at.settle(BounceState.REJECTED, owner="other", detail=f"{UNANSWERED}: twice")
    at.now += 10 * LEASE
    assert at.claim() == Claims(
        mine=frozenset(), settled={NOBODY: BounceState.REJECTED}, in_flight={}
    )
    assert at.settle(BounceState.SUPPRESSED) == {NOBODY: BounceState.REJECTED}


def test_what_was_refused_with_a_word_is_in_no_doubt(at: At) -> None:
    at.claim()
    at.settle(BounceState.REJECTED, owner="me", detail="MessageRejected: no")
    assert at.claim().doubtful == frozenset()


def test_an_end_without_a_word_takes_the_doubt_away(at: At) -> None:
    at.claim(owner="first")
    at.settle(BounceState.QUEUED, owner="first", detail=ANSWER_LOST)
    at.claim(owner="second")
    at.settle(BounceState.QUEUED, owner="second")
    assert at.claim().doubtful == frozenset()


def test_the_detail_of_an_end_stands_in_the_history(at: At) -> None:
    at.claim()
    at.settle(BounceState.REJECTED, owner="me", detail="MessageRejected: no")
    (entry,) = at.ledger.history(MAIL)
    assert entry.detail == "MessageRejected: no"


# --- Claims and their ends -------------------------------------------------------------------


def test_each_recipient_is_claimed_on_its_own(at: At) -> None:
    at.claim("busy@example.com", owner="other")
    at.settle(BounceState.SENT, "done@example.com")
    claims = at.claim("busy@example.com", "done@example.com", "mine@example.com")
    assert claims.mine == {"mine@example.com"}
    assert set(claims.in_flight) == {"busy@example.com"}
    assert claims.settled == {"done@example.com": BounceState.SENT}


def test_the_same_recipient_of_another_mail_is_another_matter(at: At) -> None:
    at.claim(message_id="msg2", owner="other")
    assert at.claim().mine == {NOBODY}


def test_a_recipient_is_the_same_in_any_case(at: At) -> None:
    """Overlapping rules may be told the address as it was typed."""
    at.claim("Nobody@Example.COM", owner="other")
    assert set(at.claim(NOBODY).in_flight) == {NOBODY}


def test_an_entry_past_its_expiry_counts_as_gone(at: At) -> None:
    """TTL deletes within days only."""
    at.settle(BounceState.SENT)
    at.now += RETENTION
    assert at.claim().mine == {NOBODY}


def test_an_entry_before_its_expiry_still_counts(at: At) -> None:
    at.settle(BounceState.SENT)
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


def test_an_entry_expires_after_the_retention(at: At, dynamodb: DynamoDBClient) -> None:
    at.settle(BounceState.SENT)
    expires = float(entry_of(dynamodb, MAIL, NOBODY)["expires_at"])
    assert expires == (NOW + RETENTION).timestamp()


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
    at.settle(BounceState.EXPIRED)
    assert at.state() is BounceState.SENT


@pytest.mark.parametrize("before", [None, BounceState.REJECTED])
@pytest.mark.parametrize(
    "state", [BounceState.EXPIRED, BounceState.QUEUED, BounceState.DEAD_LETTERED]
)
def test_what_nobody_sends_or_has_sent_is_settled_without_a_claim(
    at: At, before: BounceState | None, state: BounceState
) -> None:
    at.stands(before)
    assert at.settle(state) == {}
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
    assert at.settle(state) == {NOBODY: before}
    assert at.state() is before


@pytest.mark.parametrize("before", [BounceState.QUEUED, BounceState.DEAD_LETTERED])
def test_what_waits_is_given_up_without_a_claim(at: At, before: BounceState) -> None:
    at.stands(before)
    assert at.settle(BounceState.DEAD_LETTERED) == {}
    assert at.state() is BounceState.DEAD_LETTERED


@pytest.mark.parametrize("before", [BounceState.CLAIMED, *sorted(SETTLED)])
def test_what_somebody_holds_or_has_ended_is_not_given_up_by_others(
    at: At, before: BounceState
) -> None:
    at.stands(before)
    assert at.settle(BounceState.DEAD_LETTERED) == {NOBODY: before}
    assert at.state() is before


def test_of_several_recipients_only_those_that_are_left_alone_are_told(at: At) -> None:
    at.claim("busy@example.com", owner="other")
    entries = [
        LedgerEntry(
            message_id=MAIL, recipient=each, state=BounceState.SUPPRESSED, reason="null-sender"
        )
        for each in ("busy@example.com", "free@example.com")
    ]
    assert at.ledger.settle(entries) == {"busy@example.com": BounceState.CLAIMED}
    assert at.state("free@example.com") is BounceState.SUPPRESSED


def test_what_was_abandoned_is_settled_by_anyone(at: At) -> None:
    at.claim(owner="crashed")
    at.now += LEASE
    at.settle(BounceState.DEAD_LETTERED)
    assert at.state() is BounceState.DEAD_LETTERED


def test_the_history_holds_every_recipient_and_nothing_else_of_the_table(
    at: At, dynamodb: DynamoDBClient
) -> None:
    at.claim("a@example.com", "b@example.com")
    at.claim(message_id="msg2")
    dynamodb.put_item(
        TableName=BOUNCES,
        Item={"pk": {"S": f"message#{MAIL}"}, "sk": {"S": "usage#alice@example.com"}},
    )
    recipients = [entry.recipient for entry in at.ledger.history(MAIL)]
    assert recipients == ["a@example.com", "b@example.com"]


def test_the_history_of_a_mail_that_nobody_knows_is_empty(at: At) -> None:
    assert at.ledger.history("never seen") == []


def test_a_claim_costs_one_request_a_recipient(at: At, dynamodb: DynamoDBClient) -> None:
    seen = requests_of(dynamodb)
    at.claim("a@example.com", "b@example.com")
    at.claim("a@example.com", owner="other")
    assert seen == ["UpdateItem"] * 3


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(code="ProvisionedThroughputExceededException"),
        Answer(code="InternalServerError", status=500),
        Answer(code="AccessDeniedException"),
        EndpointConnectionError(endpoint_url="https://dynamodb"),
    ],
    ids=lambda trouble: getattr(trouble, "code", "no connection"),
)
def test_a_table_that_does_not_answer_is_an_error_of_the_ledger(
    at: At, dynamodb: DynamoDBClient, trouble: Answer | Exception
) -> None:
    fail(dynamodb, "UpdateItem", trouble, trouble)
    fail(dynamodb, "Query", trouble)
    with pytest.raises(LedgerUnavailableError):
        at.claim()
    with pytest.raises(LedgerUnavailableError):
        at.settle(BounceState.SENT)
    with pytest.raises(LedgerUnavailableError):
        at.ledger.history(MAIL)
