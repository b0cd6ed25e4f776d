"""Mails' records, every one of them: recipients are only ever added."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from bouncer.aws.mail_records import DynamoMailRecords
from bouncer.mail_record import MailRecord, MailRecords, RecipientRecord, RecordsUnavailableError
from tests.fakes.bounces import NOBODY
from tests.fakes.mail_records import MemoryMailRecords
from tests.integration.builders import ALICE, BOUNCES

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
UNTIL = NOW + timedelta(seconds=30)

type Make = Callable[[], MailRecords]


@pytest.fixture(params=["memory", "dynamodb", "simulated"])
def records(request: pytest.FixtureRequest) -> MailRecords:
    if request.param == "memory":
        return MemoryMailRecords(lambda: NOW)
    client = request.getfixturevalue(request.param)
    if request.param == "simulated":
        client = client(NOW.timestamp()).dynamodb
    return DynamoMailRecords(client, BOUNCES, retention=timedelta(days=14), clock=lambda: NOW)


def record(*recipients: str, message_id: str = "msg1", found_undecided: bool = False) -> MailRecord:
    return MailRecord(
        message_id=message_id,
        received_at=NOW,
        recipients=frozenset(RecipientRecord(r, "accept", "accept") for r in recipients),
        found_undecided=found_undecided,
    )


def test_what_was_recorded_is_read_again(records: MailRecords) -> None:
    written = record(ALICE, '"with space"@example.com')
    records.add(written, until=UNTIL)
    assert records.of(["msg1", "never-seen"]) == {"msg1": written}


def test_two_deliveries_of_a_mail_complete_each_other(records: MailRecords) -> None:
    records.add(record(ALICE), until=UNTIL)
    records.add(record(NOBODY), until=UNTIL)
    records.add(record(ALICE), until=UNTIL)
    assert records.of(["msg1"])["msg1"] == record(ALICE, NOBODY)


def test_a_mail_that_was_found_undecided_stays_so(records: MailRecords) -> None:
    records.add(record(ALICE, found_undecided=True), until=UNTIL)
    records.add(record(NOBODY), until=UNTIL)
    assert records.of(["msg1"])["msg1"].found_undecided


def test_a_record_covers_a_recipient_however_he_is_written(records: MailRecords) -> None:
    records.add(record(ALICE), until=UNTIL)
    found = records.of(["msg1"])["msg1"]
    assert found.covers(ALICE.upper())
    assert not found.covers(NOBODY)


def test_more_mails_than_one_read_takes_are_all_found(records: MailRecords) -> None:
    names = [f"msg{n}" for n in range(103)]
    for name in names:
        records.add(record(ALICE, message_id=name), until=UNTIL)
    assert set(records.of(names)) == set(names)


def test_without_time_nothing_is_asked(records: MailRecords) -> None:
    for ask in (
        lambda: records.add(record(ALICE), until=NOW),
        lambda: records.of(["msg1"], until=NOW),
    ):
        with pytest.raises(RecordsUnavailableError):
            ask()
    assert records.of(["msg1"]) == {}
