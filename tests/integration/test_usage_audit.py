"""Usage held against what the bucket has, and set right."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_s3 import S3Client

from bouncer.aws.usage import DynamoUsage
from bouncer.aws.usage_audit import Audit, Drift, RecordsLostError, Resized, UsageAudit
from bouncer.mailboxes import Mailbox
from tests.integration.builders import (
    ALICE,
    BOUNCES,
    BUCKET,
    MAILBOXES,
    PREFIX,
    Answer,
    fail,
    mailbox_of,
    put_mail,
    put_mailbox,
    stored,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LONG_AGO = timedelta(hours=1)
BOB = "bob@example.com"
IN_STEP = Audit(drifts=[], missed=[], resized=[])


class Site:
    """Two mailboxes with mail of an hour ago, all in step."""

    def __init__(self, dynamodb: DynamoDBClient, s3: S3Client) -> None:
        self.usage = DynamoUsage(
            dynamodb,
            bounce_table=BOUNCES,
            mailbox_table=MAILBOXES,
            remember=timedelta(days=14),
            clock=lambda: NOW,
        )
        self.audit = UsageAudit(
            dynamodb=dynamodb,
            s3=s3,
            bounce_table=BOUNCES,
            mailbox_table=MAILBOXES,
            bucket=BUCKET,
            prefix=PREFIX,
            clock=lambda: NOW,
        )
        self._s3 = s3
        for address in (ALICE, BOB):
            put_mailbox(dynamodb, address)
        self.accept("msg1", ALICE, 100)
        self.accept("msg1", BOB, 100)
        self.accept("msg2", ALICE, 30)

    def accept(
        self, message_id: str, address: str, size: int, *, counted: timedelta = LONG_AGO
    ) -> None:
        """A mail that was stored, and counted so long ago."""
        put_mail(self._s3, message_id, b"x" * size)
        self.count(message_id, address, size, counted)

    def count(
        self, message_id: str, address: str, size: int, counted: timedelta = LONG_AGO
    ) -> None:
        self.usage.charge(Mailbox(address=address), message_id, size, NOW - counted, enforce=True)

    def compare(self, meanwhile: Callable[[], None] = lambda: None) -> Audit:
        """
        Args:
            meanwhile: what happens when the bucket has just been read.
        """
        return self.audit.compare(lambda _: meanwhile())

    def lose_without_notice(self, message_id: str) -> None:
        self._s3.delete_object(Bucket=BUCKET, Key=PREFIX + message_id)


@pytest.fixture
def site(dynamodb: DynamoDBClient, s3: S3Client) -> Site:
    return Site(dynamodb, s3)


def set_used(dynamodb: DynamoDBClient, address: str, used: int) -> None:
    dynamodb.update_item(
        TableName=MAILBOXES,
        Key={"address": {"S": address}},
        UpdateExpression="SET used_bytes = :used",
        ExpressionAttributeValues={":used": {"N": str(used)}},
    )


def used(dynamodb: DynamoDBClient, address: str = ALICE) -> str:
    return mailbox_of(dynamodb, address)["used_bytes"]


def test_what_is_in_step_is_not_reported(site: Site) -> None:
    assert site.compare() == IN_STEP


def test_a_mail_that_was_given_back_is_in_step(site: Site) -> None:
    site.lose_without_notice("msg1")
    site.usage.give_back({"msg1"})
    assert site.compare() == IN_STEP


def test_a_deletion_that_nobody_heard_of_is_reported(site: Site) -> None:
    site.lose_without_notice("msg1")
    found = site.compare()
    assert (found.missed, found.resized) == (["msg1"], [])
    assert {each.address: (each.used_bytes, each.stored_bytes) for each in found.drifts} == {
        ALICE: (130, 30),
        BOB: (100, 0),
    }


def test_a_counter_that_is_off_is_reported(site: Site, dynamodb: DynamoDBClient) -> None:
    set_used(dynamodb, ALICE, 999)
    drift = Drift(address=ALICE, used_bytes=999, stored_bytes=130)
    assert site.compare() == Audit(drifts=[drift], missed=[], resized=[])


def test_the_reader_is_told_how_many_mails_were_looked_at(site: Site) -> None:
    looked_at: list[int] = []
    site.audit.compare(looked_at.append)
    assert sum(looked_at) == 2


def test_other_objects_of_the_bucket_do_not_count(site: Site, s3: S3Client) -> None:
    s3.put_object(Bucket=BUCKET, Key="other/msg1", Body=b"x")
    assert site.compare() == IN_STEP


def test_both_tables_are_read_as_they_are_now(site: Site, dynamodb: DynamoDBClient) -> None:
    asked: dict[str, Any] = {}

    def note(params: dict[str, Any], **_: Any) -> None:
        asked[params["TableName"]] = params.get("ConsistentRead")

    dynamodb.meta.events.register("provide-client-params.dynamodb.Scan", note)
    site.compare()
    assert asked == {MAILBOXES: True, BOUNCES: True}


def test_correcting_sets_everything_right(site: Site, dynamodb: DynamoDBClient) -> None:
    set_used(dynamodb, BOB, 5)
    site.lose_without_notice("msg2")
    site.audit.correct(site.compare())
    assert site.compare() == IN_STEP
    assert (used(dynamodb), used(dynamodb, BOB)) == ("100", "100")


def test_a_deletion_that_was_corrected_is_not_given_back_again(
    site: Site, dynamodb: DynamoDBClient
) -> None:
    site.lose_without_notice("msg2")
    site.audit.correct(site.compare())
    assert site.usage.give_back({"msg2"}) == set()
    assert used(dynamodb) == "100"


def test_a_counter_that_was_never_written_is_set(site: Site, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, ALICE)
    site.audit.correct(site.compare())
    assert used(dynamodb) == "130"


def test_a_counter_that_moved_meanwhile_is_left_for_the_next_run(
    site: Site, dynamodb: DynamoDBClient
) -> None:
    set_used(dynamodb, ALICE, 999)
    found = site.compare()
    set_used(dynamodb, ALICE, 1029)
    site.audit.correct(found)
    assert used(dynamodb) == "1029"


def test_a_mailbox_that_was_removed_meanwhile_is_not_made_again(
    site: Site, dynamodb: DynamoDBClient
) -> None:
    set_used(dynamodb, ALICE, 999)
    found = site.compare()
    dynamodb.delete_item(TableName=MAILBOXES, Key={"address": {"S": ALICE}})
    site.audit.correct(found)
    assert mailbox_of(dynamodb, ALICE) == {}


def test_a_correction_that_is_not_allowed_is_an_error(site: Site, dynamodb: DynamoDBClient) -> None:
    set_used(dynamodb, ALICE, 999)
    found = site.compare()
    fail(dynamodb, "UpdateItem", Answer(code="AccessDeniedException"))
    with pytest.raises(ClientError, match="AccessDenied"):
        site.audit.correct(found)


# --- Sizes -----------------------------------------------------------------------------------


def record_of(dynamodb: DynamoDBClient, message_id: str) -> dict[str, str]:
    return stored(dynamodb, BOUNCES, pk=f"message#{message_id}", sk=f"usage#{ALICE}")


@pytest.fixture
def grown(site: Site, s3: S3Client) -> Site:
    """A mail of 30 bytes takes 45 in the bucket."""
    put_mail(s3, "msg2", b"x" * 45)
    return site


def test_what_a_mail_takes_is_what_the_bucket_says(grown: Site) -> None:
    assert grown.compare() == Audit(
        drifts=[Drift(address=ALICE, used_bytes=130, stored_bytes=145)],
        missed=[],
        resized=[Resized("message#msg2", f"usage#{ALICE}", 45)],
    )


def test_after_a_correction_a_deletion_gives_back_what_the_mail_really_took(
    grown: Site, dynamodb: DynamoDBClient
) -> None:
    grown.audit.correct(grown.compare())
    assert used(dynamodb) == "145"
    assert grown.compare() == IN_STEP
    grown.lose_without_notice("msg2")
    assert grown.usage.give_back({"msg2"}) == set()
    assert used(dynamodb) == "100"


def test_the_size_of_a_mail_that_was_given_back_meanwhile_is_left_alone(
    grown: Site, dynamodb: DynamoDBClient
) -> None:
    found = grown.compare()
    grown.lose_without_notice("msg2")
    grown.usage.give_back({"msg2"})
    grown.audit.correct(found)
    assert record_of(dynamodb, "msg2")["size"] == "30"
    assert used(dynamodb) == "100"


def test_the_size_of_a_record_that_is_gone_is_not_written_anew(
    grown: Site, dynamodb: DynamoDBClient
) -> None:
    found = grown.compare()
    key: Any = {"pk": {"S": "message#msg2"}, "sk": {"S": f"usage#{ALICE}"}}
    dynamodb.delete_item(TableName=BOUNCES, Key=key)
    grown.audit.correct(found)
    assert record_of(dynamodb, "msg2") == {}


def test_a_size_that_may_not_be_written_is_an_error(grown: Site, dynamodb: DynamoDBClient) -> None:
    found = grown.compare()
    fail(dynamodb, "UpdateItem", Answer(code="AccessDeniedException"))
    with pytest.raises(ClientError, match="AccessDenied"):
        grown.audit.correct(found)


# --- Mail that comes and goes meanwhile ------------------------------------------------------


@pytest.mark.parametrize(
    ("counted", "missed"),
    [
        (timedelta(0), []),
        (timedelta(minutes=14, seconds=59), []),
        (timedelta(minutes=15, seconds=1), ["msg3"]),
        (timedelta(days=3), ["msg3"]),
    ],
)
def test_a_mail_that_was_counted_just_now_may_not_be_in_the_listing_yet(
    site: Site, counted: timedelta, missed: list[str]
) -> None:
    site.count("msg3", ALICE, 7, counted)
    found = site.compare()
    assert found.missed == missed
    assert [each.stored_bytes for each in found.drifts] == ([130] if missed else [])


def test_a_mail_that_comes_while_the_bucket_is_read_is_neither_missed_nor_taken_off(
    site: Site, dynamodb: DynamoDBClient
) -> None:
    found = site.compare(lambda: site.accept("msg3", ALICE, 7, counted=timedelta(0)))
    site.audit.correct(found)
    assert found.missed == []
    assert used(dynamodb) == "137"
    assert site.compare() == IN_STEP


def test_a_mail_that_goes_while_the_bucket_is_read_is_taken_off_once(
    site: Site, dynamodb: DynamoDBClient
) -> None:
    def go() -> None:
        site.lose_without_notice("msg2")
        site.usage.give_back({"msg2"})

    site.audit.correct(site.compare(go))
    assert used(dynamodb) == "100"
    assert site.compare() == IN_STEP


def test_stored_mail_without_records_sets_nothing_to_zero(
    site: Site, dynamodb: DynamoDBClient
) -> None:
    """The table was lost: nothing says what was counted, and the mail is there."""
    for item in dynamodb.scan(TableName=BOUNCES)["Items"]:
        key: Any = {"pk": item["pk"], "sk": item["sk"]}
        dynamodb.delete_item(TableName=BOUNCES, Key=key)
    found = site.compare()
    assert found.unrecorded == ["msg1", "msg2"]
    with pytest.raises(RecordsLostError, match="of 2 stored mails nothing is recorded"):
        site.audit.correct(found)
    assert used(dynamodb) == "130"


def test_young_mail_without_a_record_is_enough_to_refuse_and_a_refused_one_has_its_record(
    dynamodb: DynamoDBClient, s3: S3Client
) -> None:
    Site(dynamodb, s3)
    put_mail(s3, "lost", b"x")
    put_mail(s3, "refused", b"x")
    dynamodb.put_item(TableName=BOUNCES, Item={"pk": {"S": "message#refused"}, "sk": {"S": "mail"}})
    in_an_hour = datetime.now(UTC) + LONG_AGO  # the objects are of now
    audit = UsageAudit(
        dynamodb=dynamodb,
        s3=s3,
        bounce_table=BOUNCES,
        mailbox_table=MAILBOXES,
        bucket=BUCKET,
        prefix=PREFIX,
        clock=lambda: in_an_hour,
    )
    assert audit.compare(lambda _: None).unrecorded == ["lost"]
