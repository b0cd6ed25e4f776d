"""Usage that keeps itself: a mail is counted once, given back once, and never over a quota."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws.usage import DynamoUsage
from bouncer.mailboxes import Mailbox, from_item
from bouncer.usage import Charged, Full, UsageBusyError, UsageUnavailableError
from tests.integration.builders import (
    ALICE,
    BOUNCES,
    MAILBOXES,
    Answer,
    fail,
    mailbox_of,
    put_mailbox,
    requests_of,
    stored,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TODAY, TOMORROW = "2026-11-21", "2026-11-22"
REMEMBER = timedelta(days=14)


class At:
    """A usage whose clock is set by hand, and whose pauses are noted and not taken."""

    def __init__(self, dynamodb: DynamoDBClient) -> None:
        self.now = NOON
        self.pauses: list[float] = []
        self._dynamodb = dynamodb
        self.usage = DynamoUsage(
            dynamodb,
            bounce_table=BOUNCES,
            mailbox_table=MAILBOXES,
            remember=REMEMBER,
            clock=lambda: self.now,
            sleep=self.pauses.append,
        )

    def mailbox(self, address: str = ALICE) -> Mailbox:
        """As the directory finds it now."""
        return from_item(mailbox_of(self._dynamodb, address), names={})

    def charge(
        self,
        message_id: str = "msg1",
        size: int = 100,
        *,
        mailbox: Mailbox | None = None,
        enforce: bool = True,
    ) -> Charged | Full:
        return self.usage.charge(
            mailbox or self.mailbox(), message_id, size, self.now, enforce=enforce
        )

    @property
    def used(self) -> int:
        return self.mailbox().used_bytes


@pytest.fixture
def at(dynamodb: DynamoDBClient) -> At:
    put_mailbox(dynamodb, quota_bytes=1000)
    return At(dynamodb)


def test_a_mail_is_counted_in_bytes_and_for_the_day(at: At) -> None:
    charged = at.charge(size=100)
    expected = Mailbox(
        address=ALICE, quota_bytes=1000, used_bytes=100, messages_day=TODAY, messages_today=1
    )
    assert charged == Charged(mailbox=expected)
    assert at.mailbox() == expected


def test_mails_add_up(at: At) -> None:
    for number in range(3):
        at.charge(f"msg{number}", size=100)
    assert (at.used, at.mailbox().messages_today) == (300, 3)


def test_a_mail_is_counted_once_however_often_it_comes(at: At) -> None:
    before = at.mailbox()
    at.charge()
    again = at.charge(mailbox=before)
    assert isinstance(again, Charged)
    assert again.repeated
    assert (at.used, at.mailbox().messages_today) == (100, 1)


def test_a_mail_that_filled_the_mailbox_is_still_the_one_that_counts(at: At) -> None:
    at.charge(size=1000)
    again = at.charge(size=1000)
    assert isinstance(again, Charged)
    assert again.repeated


def test_each_recipients_mailbox_counts_a_mail_on_its_own(at: At, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, "bob@example.com")
    at.charge()
    at.charge(mailbox=at.mailbox("bob@example.com"))
    assert (at.used, at.mailbox("bob@example.com").used_bytes) == (100, 100)


@pytest.mark.parametrize(("size", "fits"), [(899, True), (900, True), (901, False), (5000, False)])
def test_a_mail_is_counted_only_where_it_fits(
    at: At, dynamodb: DynamoDBClient, size: int, fits: bool
) -> None:
    put_mailbox(dynamodb, quota_bytes=1000, used_bytes=100)
    answer = at.charge(size=size)
    assert isinstance(answer, Charged if fits else Full)
    assert at.used == 100 + (size if fits else 0)


def test_a_full_mailbox_is_told_as_it_really_is(at: At, dynamodb: DynamoDBClient) -> None:
    """Others came between the look-up and the charge."""
    seen = at.mailbox()
    put_mailbox(dynamodb, quota_bytes=1000, used_bytes=950, messages_day=TODAY, messages_today=7)
    answer = at.charge(mailbox=seen)
    assert isinstance(answer, Full)
    assert (answer.mailbox.used_bytes, answer.mailbox.messages_today) == (950, 7)


def test_what_did_not_fit_may_be_counted_when_there_is_room(
    at: At, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, quota_bytes=1000, used_bytes=1000)
    at.charge()
    put_mailbox(dynamodb, quota_bytes=1000, used_bytes=0)
    assert isinstance(at.charge(), Charged)
    assert at.used == 100


def test_what_a_policy_accepts_all_the_same_is_counted_beyond_the_quota(
    at: At, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, quota_bytes=1000, used_bytes=950)
    assert isinstance(at.charge(enforce=False), Charged)
    assert at.used == 1050


def test_a_mailbox_without_a_quota_counts_on(at: At, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb)
    assert isinstance(at.charge(size=10**12), Charged)
    assert at.used == 10**12


def test_a_days_messages_are_capped(at: At, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, quota_messages_per_day=2)
    kinds = [type(at.charge(f"msg{number}", size=1)) for number in range(4)]
    assert kinds == [Charged, Charged, Full, Full]
    assert at.mailbox().messages_today == 2


def test_what_a_policy_accepts_all_the_same_is_counted_beyond_the_cap(
    at: At, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, quota_messages_per_day=1, messages_day=TODAY, messages_today=1)
    assert isinstance(at.charge(enforce=False), Charged)
    assert at.mailbox().messages_today == 2


def test_the_cap_holds_against_a_stale_look_up(at: At, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, quota_messages_per_day=2, messages_day=TODAY, messages_today=1)
    seen = at.mailbox()
    at.charge("msg1", mailbox=seen)
    assert isinstance(at.charge("msg2", mailbox=seen), Full)


def test_a_new_day_starts_from_one_and_keeps_the_bytes(at: At) -> None:
    at.charge("msg1")
    at.charge("msg2")
    at.now += timedelta(days=1)
    at.charge("msg3")
    box = at.mailbox()
    assert (box.messages_day, box.messages_today, box.used_bytes) == (TOMORROW, 1, 300)


def test_the_day_may_turn_between_the_look_up_and_the_charge(at: At) -> None:
    at.charge("msg1")
    seen = at.mailbox()
    at.now += timedelta(days=1)
    at.charge("msg2")
    assert isinstance(at.charge("msg3", mailbox=seen), Charged)
    box = at.mailbox()
    assert (box.messages_day, box.messages_today) == (TOMORROW, 2)


@pytest.mark.parametrize("stale", [True, False], ids=["looked up before", "looked up after"])
def test_a_mail_that_was_planned_before_midnight_counts_into_the_day_that_has_begun(
    at: At, stale: bool
) -> None:
    at.charge("msg1")
    seen, planned = at.mailbox(), at.now
    at.now += timedelta(days=1)
    at.charge("msg2")
    at.now = planned
    charged = at.charge("msg3", mailbox=seen if stale else None)
    assert isinstance(charged, Charged)
    assert not charged.repeated
    assert charged.mailbox == at.mailbox()
    box = at.mailbox()
    assert (box.messages_day, box.messages_today, box.used_bytes) == (TOMORROW, 2, 300)


@pytest.mark.parametrize("stale", [True, False], ids=["looked up before", "looked up after"])
def test_a_mail_that_was_planned_before_midnight_is_held_to_the_new_days_cap(
    at: At, dynamodb: DynamoDBClient, stale: bool
) -> None:
    put_mailbox(dynamodb, quota_messages_per_day=1)
    seen, planned = at.mailbox(), at.now
    at.now += timedelta(days=1)
    at.charge("msg1")
    at.now = planned
    assert isinstance(at.charge("msg2", mailbox=seen if stale else None), Full)
    assert at.mailbox().messages_today == 1


@pytest.mark.parametrize("day", ["21.11.2025", "2099-01-01", "2001-01-01"])
def test_a_day_that_makes_no_sense_is_replaced_and_keeps_nobody_out(
    at: At, dynamodb: DynamoDBClient, day: str
) -> None:
    put_mailbox(dynamodb, messages_day=day, messages_today=9, quota_messages_per_day=5)
    assert isinstance(at.charge("msg1"), Charged)
    assert (at.mailbox().messages_day, at.mailbox().messages_today) == (TODAY, 1)


@pytest.mark.parametrize("enforce", [True, False])
def test_a_mailbox_that_was_removed_since_the_look_up_counts_nothing_and_is_not_made(
    at: At, dynamodb: DynamoDBClient, enforce: bool
) -> None:
    seen = at.mailbox()
    dynamodb.delete_item(TableName=MAILBOXES, Key={"address": {"S": ALICE}})
    asked = requests_of(dynamodb)
    assert at.charge(mailbox=seen, enforce=enforce) == Charged(mailbox=seen, repeated=True)
    assert asked == ["TransactWriteItems"]
    assert (mailbox_of(dynamodb), record_of(dynamodb), at.pauses) == ({}, {}, [])


def test_a_new_days_first_mail_is_counted_though_the_old_days_cap_was_reached(
    at: At, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, quota_messages_per_day=1, messages_day=TODAY, messages_today=1)
    at.now += timedelta(days=1)
    assert isinstance(at.charge(), Charged)


# --- Given back ------------------------------------------------------------------------------


def test_a_deleted_mail_gives_its_bytes_back_wherever_it_was_counted(
    at: At, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, "bob@example.com")
    at.charge()
    at.charge(mailbox=at.mailbox("bob@example.com"))
    at.charge("msg2", size=7)
    assert at.usage.give_back("msg1") == 2
    assert (at.used, at.mailbox("bob@example.com").used_bytes) == (7, 0)


def test_a_deleted_mail_stays_one_of_the_days_messages(at: At) -> None:
    at.charge()
    at.usage.give_back("msg1")
    assert at.mailbox().messages_today == 1


def test_a_mail_is_given_back_once(at: At) -> None:
    at.charge()
    assert [at.usage.give_back("msg1") for _ in range(3)] == [1, 0, 0]
    assert at.used == 0


def test_a_late_replay_of_a_deleted_mail_does_not_count_it_again(at: At) -> None:
    at.charge()
    at.usage.give_back("msg1")
    again = at.charge()
    assert isinstance(again, Charged)
    assert again.repeated
    assert at.used == 0


def test_a_mail_that_was_never_counted_gives_nothing_back(at: At) -> None:
    assert at.usage.give_back("msg1") == 0


def test_a_mailbox_that_is_gone_takes_nothing_back_and_is_not_made(
    at: At, dynamodb: DynamoDBClient
) -> None:
    at.charge()
    dynamodb.delete_item(TableName=MAILBOXES, Key={"address": {"S": ALICE}})
    assert at.usage.give_back("msg1") == 0
    assert mailbox_of(dynamodb) == {}
    assert "returned_at" in record_of(dynamodb)


def record_of(dynamodb: DynamoDBClient, message_id: str = "msg1") -> dict[str, str]:
    return stored(dynamodb, BOUNCES, pk=f"message#{message_id}", sk=f"usage#{ALICE}")


def test_a_record_stays_as_long_as_the_mail_and_a_little_longer(
    at: At, dynamodb: DynamoDBClient
) -> None:
    at.charge()
    assert "expires_at" not in record_of(dynamodb)
    at.usage.give_back("msg1")
    assert float(record_of(dynamodb)["expires_at"]) == (NOON + REMEMBER).timestamp()


def test_forgetting_a_mail_leaves_the_counter_alone(at: At, dynamodb: DynamoDBClient) -> None:
    at.charge()
    at.usage.forget("msg1")
    assert at.used == 100
    assert "returned_at" in record_of(dynamodb)
    assert at.usage.give_back("msg1") == 0


# --- Trouble ---------------------------------------------------------------------------------


def conflict() -> Answer:
    """Another transaction was at the same mailbox."""
    reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
    return Answer(code="TransactionCanceledException", more={"CancellationReasons": reasons})


@pytest.mark.parametrize("conflicts", [1, 5, 11])
def test_transactions_that_collide_are_tried_again_after_growing_pauses(
    at: At, dynamodb: DynamoDBClient, conflicts: int
) -> None:
    fail(dynamodb, "TransactWriteItems", *[conflict()] * conflicts)
    assert isinstance(at.charge(), Charged)
    assert at.used == 100
    assert len(at.pauses) == conflicts
    assert all(pause <= min(0.01 * 2**n, 0.8) for n, pause in enumerate(at.pauses))


def test_collisions_without_end_are_given_up(at: At, dynamodb: DynamoDBClient) -> None:
    fail(dynamodb, "TransactWriteItems", *[conflict()] * 100)
    with pytest.raises(UsageBusyError):
        at.charge()
    assert at.used == 0


def test_who_collides_with_the_mail_that_filled_the_mailbox_is_refused_without_another_try(
    at: At, dynamodb: DynamoDBClient
) -> None:
    before = at.mailbox()
    at.charge("msg1", size=1000)
    fail(dynamodb, "TransactWriteItems", conflict())
    seen = requests_of(dynamodb)
    full = at.charge("msg2", mailbox=before)
    assert isinstance(full, Full)
    assert full.mailbox.used_bytes == 1000
    assert seen == ["TransactWriteItems", "GetItem", "GetItem"]


def test_who_collides_with_himself_is_counted_once_though_he_filled_the_mailbox(
    at: At, dynamodb: DynamoDBClient
) -> None:
    before = at.mailbox()
    at.charge("msg1", size=1000)
    fail(dynamodb, "TransactWriteItems", conflict())
    again = at.charge("msg1", size=1000, mailbox=before)
    assert again == Charged(mailbox=at.mailbox(), repeated=True)
    assert at.used == 1000


def test_giving_back_is_tried_again_too(at: At, dynamodb: DynamoDBClient) -> None:
    at.charge()
    fail(dynamodb, "TransactWriteItems", *[conflict()] * 3)
    assert at.usage.give_back("msg1") == 1
    assert at.used == 0
    assert len(at.pauses) == 3


def test_giving_back_is_given_up_in_the_end(at: At, dynamodb: DynamoDBClient) -> None:
    at.charge()
    fail(dynamodb, "TransactWriteItems", *[conflict()] * 50)
    with pytest.raises(UsageUnavailableError):
        at.usage.give_back("msg1")


TROUBLES: list[Answer | Exception] = [
    Answer(code="ProvisionedThroughputExceededException"),
    Answer(code="InternalServerError", status=500),
    EndpointConnectionError(endpoint_url="https://dynamodb"),
]


@pytest.mark.parametrize(
    "trouble", TROUBLES, ids=lambda each: getattr(each, "code", type(each).__name__)
)
def test_counters_that_do_not_answer_are_an_error(
    at: At, dynamodb: DynamoDBClient, trouble: Any
) -> None:
    fail(dynamodb, "TransactWriteItems", trouble)
    fail(dynamodb, "Query", trouble)
    with pytest.raises(UsageUnavailableError):
        at.charge()
    with pytest.raises(UsageUnavailableError):
        at.usage.give_back("msg1")


def test_a_charge_costs_one_transaction_a_recipient(at: At, dynamodb: DynamoDBClient) -> None:
    seen = requests_of(dynamodb)
    mailbox = Mailbox(address=ALICE, quota_bytes=1000)
    at.charge(mailbox=mailbox)
    at.charge(mailbox=mailbox)
    assert seen == ["TransactWriteItems"] * 2


# --- Below zero ------------------------------------------------------------------------------


@pytest.mark.parametrize("used", [-1, -1000, -(10**15)])
def test_usage_below_zero_gives_no_room_beyond_the_quota(
    dynamodb: DynamoDBClient, used: int
) -> None:
    """Deletions that were never counted, or anybody's slip, must not open a mailbox."""
    put_mailbox(dynamodb, quota_bytes=1000, used_bytes=used)
    at = At(dynamodb)
    assert isinstance(at.charge("large", 1001), Full)
    assert isinstance(at.charge("fits", 900), Charged)
    assert mailbox_of(dynamodb)["used_bytes"] == "900"
    assert isinstance(at.charge("next", 101), Full)


def test_what_is_given_back_twice_as_often_as_it_came_gives_no_room_either(
    dynamodb: DynamoDBClient,
) -> None:
    put_mailbox(dynamodb, quota_bytes=1000, used_bytes=0)
    at = At(dynamodb)
    at.charge("one", 600)
    at.usage.give_back_all({"one"})
    put_mailbox(dynamodb, quota_bytes=1000, used_bytes=-600)
    at.usage.give_back_all({"one"})
    assert mailbox_of(dynamodb)["used_bytes"] == "-600"
    assert isinstance(at.charge("two", 1001), Full)
