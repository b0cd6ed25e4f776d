"""Usage, every one of it: a mail is counted once, given back once, and never over a quota."""

from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws.deadline import watch
from bouncer.aws.usage import DynamoUsage
from bouncer.deadline import deadline
from bouncer.mailboxes import Mailbox, from_item
from bouncer.usage import Charged, Full, Usage, UsageUnavailableError
from tests.fakes.usage import MemoryUsage
from tests.integration.builders import ALICE, BOUNCES, MAILBOXES, mailbox_of, put_mailbox

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TODAY, TOMORROW = "2026-11-21", "2026-11-22"
REMEMBER = timedelta(days=14)
BOB = "bob@example.com"


class Mailboxes(Protocol):
    """The table that a usage counts in."""

    @property
    def usage(self) -> Usage: ...

    def put(self, address: str, **fields: Any) -> None: ...

    def remove(self, address: str) -> None: ...

    def mailbox(self, address: str) -> Mailbox | None: ...


class _Memory:
    def __init__(self) -> None:
        self.usage = MemoryUsage()

    def put(self, address: str, **fields: Any) -> None:
        self.usage.mailboxes[address] = msgspec.convert({"address": address, **fields}, Mailbox)

    def remove(self, address: str) -> None:
        del self.usage.mailboxes[address]

    def mailbox(self, address: str) -> Mailbox | None:
        return self.usage.mailboxes.get(address)


class _Dynamo:
    def __init__(self, client: DynamoDBClient, at: "At") -> None:
        self._client = client
        self.usage = DynamoUsage(
            client,
            bounce_table=BOUNCES,
            mailbox_table=MAILBOXES,
            remember=REMEMBER,
            clock=lambda: at.now,
            sleep=at.pauses.append,
        )

    def put(self, address: str, **fields: Any) -> None:
        put_mailbox(self._client, address, **fields)

    def remove(self, address: str) -> None:
        self._client.delete_item(TableName=MAILBOXES, Key={"address": {"S": address}})

    def mailbox(self, address: str) -> Mailbox | None:
        found = mailbox_of(self._client, address)
        return from_item(found, names={}) if found else None


class At:
    """A usage whose clock is set by hand, and whose pauses are noted and not taken."""

    def __init__(self, client: DynamoDBClient | None = None) -> None:
        """
        Args:
            client: of DynamoDB; without one, the usage is in memory.
        """
        self.now = NOON
        self.pauses: list[float] = []
        self._mailboxes: Mailboxes = _Memory() if client is None else _Dynamo(client, self)
        self.put = self._mailboxes.put
        self.remove = self._mailboxes.remove
        self.usage = self._mailboxes.usage

    def mailbox(self, address: str = ALICE) -> Mailbox:
        """As the directory finds it now."""
        found = self._mailboxes.mailbox(address)
        assert found is not None
        return found

    def exists(self, address: str = ALICE) -> bool:
        return self._mailboxes.mailbox(address) is not None

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


@pytest.fixture(params=["in memory", "in DynamoDB", "simulated"])
def at(request: pytest.FixtureRequest) -> At:
    client: Any = None
    if request.param == "in DynamoDB":
        client = request.getfixturevalue("dynamodb")
    elif request.param == "simulated":
        client = request.getfixturevalue("simulated")(NOON.timestamp()).dynamodb
    if client is not None:
        watch(client)
    at = At(client)
    at.put(ALICE, quota_bytes=1000)
    return at


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


def test_each_recipients_mailbox_counts_a_mail_on_its_own(at: At) -> None:
    at.put(BOB)
    at.charge()
    at.charge(mailbox=at.mailbox(BOB))
    assert (at.used, at.mailbox(BOB).used_bytes) == (100, 100)


@pytest.mark.parametrize(("size", "fits"), [(899, True), (900, True), (901, False), (5000, False)])
def test_a_mail_is_counted_only_where_it_fits(at: At, size: int, fits: bool) -> None:
    at.put(ALICE, quota_bytes=1000, used_bytes=100)
    answer = at.charge(size=size)
    assert isinstance(answer, Charged if fits else Full)
    assert at.used == 100 + (size if fits else 0)


def test_a_full_mailbox_is_told_as_it_really_is(at: At) -> None:
    """Others came between the look-up and the charge."""
    seen = at.mailbox()
    at.put(ALICE, quota_bytes=1000, used_bytes=950, messages_day=TODAY, messages_today=7)
    answer = at.charge(mailbox=seen)
    assert isinstance(answer, Full)
    assert (answer.mailbox.used_bytes, answer.mailbox.messages_today) == (950, 7)


def test_what_did_not_fit_may_be_counted_when_there_is_room(at: At) -> None:
    at.put(ALICE, quota_bytes=1000, used_bytes=1000)
    at.charge()
    at.put(ALICE, quota_bytes=1000, used_bytes=0)
    assert isinstance(at.charge(), Charged)
    assert at.used == 100


def test_what_a_policy_accepts_all_the_same_is_counted_beyond_the_quota(at: At) -> None:
    at.put(ALICE, quota_bytes=1000, used_bytes=950)
    assert isinstance(at.charge(enforce=False), Charged)
    assert at.used == 1050


def test_a_mailbox_without_a_quota_counts_on(at: At) -> None:
    at.put(ALICE)
    assert isinstance(at.charge(size=10**12), Charged)
    assert at.used == 10**12


def test_a_days_messages_are_capped(at: At) -> None:
    at.put(ALICE, quota_messages_per_day=2)
    kinds = [type(at.charge(f"msg{number}", size=1)) for number in range(4)]
    assert kinds == [Charged, Charged, Full, Full]
    assert at.mailbox().messages_today == 2


def test_what_a_policy_accepts_all_the_same_is_counted_beyond_the_cap(at: At) -> None:
    at.put(ALICE, quota_messages_per_day=1, messages_day=TODAY, messages_today=1)
    assert isinstance(at.charge(enforce=False), Charged)
    assert at.mailbox().messages_today == 2


def test_the_cap_holds_against_a_stale_look_up(at: At) -> None:
    at.put(ALICE, quota_messages_per_day=2, messages_day=TODAY, messages_today=1)
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
    at: At, stale: bool
) -> None:
    at.put(ALICE, quota_messages_per_day=1)
    seen, planned = at.mailbox(), at.now
    at.now += timedelta(days=1)
    at.charge("msg1")
    at.now = planned
    assert isinstance(at.charge("msg2", mailbox=seen if stale else None), Full)
    assert at.mailbox().messages_today == 1


@pytest.mark.parametrize("day", ["21.11.2025", "2099-01-01", "2001-01-01"])
def test_a_day_that_makes_no_sense_is_replaced_and_keeps_nobody_out(at: At, day: str) -> None:
    at.put(ALICE, messages_day=day, messages_today=9, quota_messages_per_day=5)
    assert isinstance(at.charge("msg1"), Charged)
    assert (at.mailbox().messages_day, at.mailbox().messages_today) == (TODAY, 1)


@pytest.mark.parametrize("enforce", [True, False])
def test_a_mailbox_that_was_removed_since_the_look_up_counts_nothing_and_is_not_made(
    at: At, enforce: bool
) -> None:
    seen = at.mailbox()
    at.remove(ALICE)
    assert at.charge(mailbox=seen, enforce=enforce) == Charged(mailbox=seen, repeated=True)
    assert (at.exists(), at.pauses) == (False, [])


def test_a_new_days_first_mail_is_counted_though_the_old_days_cap_was_reached(at: At) -> None:
    at.put(ALICE, quota_messages_per_day=1, messages_day=TODAY, messages_today=1)
    at.now += timedelta(days=1)
    assert isinstance(at.charge(), Charged)


def test_a_deleted_mail_gives_its_bytes_back_wherever_it_was_counted(at: At) -> None:
    at.put(BOB)
    at.charge()
    at.charge(mailbox=at.mailbox(BOB))
    at.charge("msg2", size=7)
    assert at.usage.give_back({"msg1"}) == set()
    assert (at.used, at.mailbox(BOB).used_bytes) == (7, 0)


def test_a_deleted_mail_stays_one_of_the_days_messages(at: At) -> None:
    at.charge()
    at.usage.give_back({"msg1"})
    assert at.mailbox().messages_today == 1


def test_a_mail_is_given_back_once(at: At) -> None:
    at.charge()
    for _ in range(3):
        assert at.usage.give_back({"msg1"}) == set()
    assert at.used == 0


def test_a_late_replay_of_a_deleted_mail_does_not_count_it_again(at: At) -> None:
    at.charge()
    at.usage.give_back({"msg1"})
    again = at.charge()
    assert isinstance(again, Charged)
    assert again.repeated
    assert at.used == 0


def test_a_mail_that_was_never_counted_gives_nothing_back(at: At) -> None:
    at.charge("msg2")
    assert at.usage.give_back({"msg1"}) == set()
    assert at.used == 100


def test_a_mailbox_that_is_gone_takes_nothing_back_and_is_not_made(at: At) -> None:
    at.charge()
    at.remove(ALICE)
    assert at.usage.give_back({"msg1"}) == set()
    assert not at.exists()


@pytest.mark.parametrize("used", [-1, -1000, -(10**15)])
def test_usage_below_zero_gives_no_room_beyond_the_quota(at: At, used: int) -> None:
    """Deletions that were never counted, or anybody's slip, must not open a mailbox."""
    at.put(ALICE, quota_bytes=1000, used_bytes=used)
    assert isinstance(at.charge("large", 1001), Full)
    assert isinstance(at.charge("fits", 900), Charged)
    assert at.used == 900
    assert isinstance(at.charge("next", 101), Full)


def test_what_is_given_back_twice_as_often_as_it_came_gives_no_room_either(
    at: At,
) -> None:
    at.put(ALICE, quota_bytes=1000, used_bytes=0)
    at.charge("one", 600)
    at.usage.give_back({"one"})
    at.put(ALICE, quota_bytes=1000, used_bytes=-600)
    at.usage.give_back({"one"})
    assert at.used == -600
    assert isinstance(at.charge("two", 1001), Full)


def test_many_mails_are_given_back_at_once(at: At) -> None:
    at.put(BOB)
    for number in range(5):
        at.charge(f"msg{number}", size=number)
    at.charge("msg4", size=4, mailbox=at.mailbox(BOB))
    assert at.usage.give_back({"msg1", "msg3", "msg4", "never seen"}) == set()
    assert at.usage.give_back({"msg1", "msg3", "msg4", "never seen"}) == set()
    assert (at.used, at.mailbox(BOB).used_bytes) == (2, 0)


def test_without_time_nothing_is_counted_and_nothing_given_back(at: At) -> None:
    seen = at.mailbox()
    with deadline(NOON, lambda: NOON), pytest.raises(UsageUnavailableError):
        at.charge(mailbox=seen)
    assert at.used == 0
    at.charge()
    with deadline(NOON, lambda: NOON):
        assert at.usage.give_back({"msg1"}) == {"msg1"}
    assert at.used == 100
