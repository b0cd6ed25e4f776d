"""Usage held against what the bucket has, and set right."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_s3 import S3Client

from bouncer.aws.usage import DynamoUsage
from bouncer.aws.usage_audit import Drift, UsageAudit
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
)


class Site:
    """Two mailboxes with mail, all in step."""

    def __init__(self, dynamodb: DynamoDBClient, s3: S3Client) -> None:
        self.usage = DynamoUsage(
            dynamodb,
            bounce_table=BOUNCES,
            mailbox_table=MAILBOXES,
            remember=timedelta(days=14),
        )
        self.audit = UsageAudit(
            dynamodb=dynamodb,
            s3=s3,
            bounce_table=BOUNCES,
            mailbox_table=MAILBOXES,
            bucket=BUCKET,
            prefix=PREFIX,
        )
        self._s3 = s3
        for address in (ALICE, "bob@example.com"):
            put_mailbox(dynamodb, address)
        self.accept("msg1", ALICE, 100)
        self.accept("msg1", "bob@example.com", 100)
        self.accept("msg2", ALICE, 30)

    def accept(self, message_id: str, address: str, size: int) -> None:
        put_mail(self._s3, message_id)
        now = datetime.now(UTC)
        self.usage.charge(Mailbox(address=address), message_id, size, now, enforce=True)

    def compare(self) -> tuple[list[Drift], list[str]]:
        return self.audit.compare(lambda _: None)

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


def test_what_is_in_step_is_not_reported(site: Site) -> None:
    assert site.compare() == ([], [])


def test_a_mail_that_was_given_back_is_in_step(site: Site) -> None:
    site.lose_without_notice("msg1")
    site.usage.give_back("msg1")
    assert site.compare() == ([], [])


def test_a_deletion_that_nobody_heard_of_is_reported(site: Site) -> None:
    site.lose_without_notice("msg1")
    drifts, missed = site.compare()
    assert missed == ["msg1"]
    assert {drift.address: (drift.used_bytes, drift.stored_bytes) for drift in drifts} == {
        ALICE: (130, 30),
        "bob@example.com": (100, 0),
    }


def test_a_counter_that_is_off_is_reported(site: Site, dynamodb: DynamoDBClient) -> None:
    set_used(dynamodb, ALICE, 999)
    drifts, missed = site.compare()
    assert drifts == [Drift(address=ALICE, used_bytes=999, stored_bytes=130)]
    assert missed == []


def test_the_reader_is_told_how_many_mails_were_looked_at(site: Site) -> None:
    looked_at: list[int] = []
    site.audit.compare(looked_at.append)
    assert sum(looked_at) == 2


def test_other_objects_of_the_bucket_do_not_count(site: Site, s3: S3Client) -> None:
    s3.put_object(Bucket=BUCKET, Key="other/msg1", Body=b"x")
    assert site.compare() == ([], [])


def test_correcting_sets_everything_right(site: Site, dynamodb: DynamoDBClient) -> None:
    set_used(dynamodb, "bob@example.com", 5)
    site.lose_without_notice("msg2")
    site.audit.correct(*site.compare())
    assert site.compare() == ([], [])
    assert mailbox_of(dynamodb, ALICE)["used_bytes"] == "100"


def test_a_deletion_that_was_corrected_is_not_given_back_again(
    site: Site, dynamodb: DynamoDBClient
) -> None:
    site.lose_without_notice("msg2")
    site.audit.correct(*site.compare())
    assert site.usage.give_back("msg2") == 0
    assert mailbox_of(dynamodb, ALICE)["used_bytes"] == "100"


def test_a_counter_that_was_never_written_is_set(site: Site, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, ALICE)
    site.audit.correct(*site.compare())
    assert mailbox_of(dynamodb, ALICE)["used_bytes"] == "130"


def test_a_counter_that_moved_meanwhile_is_left_for_the_next_run(
    site: Site, dynamodb: DynamoDBClient
) -> None:
    set_used(dynamodb, ALICE, 999)
    found = site.compare()
    set_used(dynamodb, ALICE, 1029)
    site.audit.correct(*found)
    assert mailbox_of(dynamodb, ALICE)["used_bytes"] == "1029"


def test_a_correction_that_is_not_allowed_is_an_error(site: Site, dynamodb: DynamoDBClient) -> None:
    set_used(dynamodb, ALICE, 999)
    found: Any = site.compare()
    fail(dynamodb, "UpdateItem", Answer(code="AccessDeniedException"))
    with pytest.raises(ClientError, match="AccessDenied"):
        site.audit.correct(*found)
