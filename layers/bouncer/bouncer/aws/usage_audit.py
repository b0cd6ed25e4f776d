"""Usage held against what the bucket really has."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bouncer.aws.mailbox_table import MailboxTable
from bouncer.aws.usage import DynamoUsage
from bouncer.deadline import utc_now

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A mailbox whose counter is not what its stored mail adds up to."""

    address: str
    used_bytes: int
    stored_bytes: int


class Resized(NamedTuple):
    """A record whose size is not that of the stored mail."""

    pk: str
    sk: str
    size: int


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison found."""

    drifts: list[Drift]
    missed: list[str]
    """The ids of mails that are gone but still counted."""
    unrecorded: list[str] = []
    """The ids of stored mails of which nothing is recorded: records are lost. Not to be applied."""
    resized: list[Resized]


# A mail is counted within so long of when it was stored.
_IN_FLIGHT = timedelta(minutes=15)
# A mail's record, also of refused mail that counts nowhere, is kept so long at the least
# (LedgerRetentionDays).
_REMEMBERED = timedelta(days=3) - _IN_FLIGHT
_SETUP = "AMAZON_SES_SETUP_NOTIFICATION"


class RecordsLostError(Exception):
    """Stored mail lacks its record; the text says what to do."""


class UsageAudit:
    """Reads the bucket, the usage records and the mailboxes, and compares."""

    def __init__(
        self,
        *,
        dynamodb: "DynamoDBClient",
        s3: "S3Client",
        bounce_table: str,
        mailbox_table: str,
        bucket: str,
        prefix: str,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._dynamodb = dynamodb
        self._s3 = s3
        self._bounces = bounce_table
        self._mailboxes = mailbox_table
        self._bucket = bucket
        self._prefix = prefix
        self._clock = clock

    def compare(self, advance: Callable[[int], None]) -> Audit:
        """
        Args:
            advance: told how many stored mails were looked at.
        """
        began = self._clock() - _IN_FLIGHT
        # The mailboxes first: whatever is counted or given back later moves a counter that
        # was read, and `correct` leaves it alone.
        table = MailboxTable(self._dynamodb, self._mailboxes)
        boxes = [box for box in table.scan() if not table.unreadable(box.address)]
        listed = {key: (size, at) for key, size, at in self._stored(advance)}
        stored = {key: size for key, (size, _) in listed.items()}
        sums: Counter[str] = Counter()
        missed: set[str] = set()
        resized: list[Resized] = []
        recorded: set[str] = set()
        counted_any = False
        for record in self._records():
            message_id = record["pk"]["S"].removeprefix("message#")
            recorded.add(message_id)
            if "mailbox" not in record or "returned_at" in record:
                continue
            counted_any = True
            counted = int(record["size"]["N"])
            if message_id in stored:
                sums[record["mailbox"]["S"]] += stored[message_id]
                if stored[message_id] != counted:
                    resized.append(
                        Resized(record["pk"]["S"], record["sk"]["S"], stored[message_id])
                    )
            elif float(record["counted_at"]["N"]) >= began.timestamp():
                sums[record["mailbox"]["S"]] += counted  # it came when the bucket was being read
            else:
                missed.add(message_id)
        drifts = [
            Drift(address=box.address, used_bytes=box.used_bytes, stored_bytes=sums[box.address])
            for box in boxes
            if box.used_bytes != sums[box.address]
        ]
        # Young mail has left a record wherever the table is the one that it was; and where not
        # one is counted, but mailboxes say so, it is another table than it was.
        since = self._clock() - _REMEMBERED
        unrecorded = {
            key
            for key, (_, at) in listed.items()
            if key not in recorded and key != _SETUP and since < at < began
        }
        if stored and not counted_any and any(box.used_bytes for box in boxes):
            unrecorded |= {*stored} - recorded - {_SETUP}
        return Audit(
            drifts=drifts,
            missed=sorted(missed),
            resized=resized,
            unrecorded=sorted(unrecorded),
        )

    def correct(self, audit: Audit) -> None:
        """Set the counters right. One that moved since the comparison is left for the next.

        Raises:
            RecordsLostError: the comparison is with records that are not all there.
        """
        if audit.unrecorded:
            raise RecordsLostError(
                f"of {len(audit.unrecorded)} stored mails nothing is recorded, such as "
                f"{audit.unrecorded[0]}: usage would be set too low. Restore BounceTable to a "
                "moment before (point-in-time recovery), or wait for the audit if they are new"
            )
        for record in audit.resized:
            self._resize(record)
        for drift in audit.drifts:
            with suppress(self._dynamodb.exceptions.ConditionalCheckFailedException):
                self._dynamodb.update_item(
                    TableName=self._mailboxes,
                    Key={"address": {"S": drift.address}},
                    UpdateExpression="SET used_bytes = :stored",
                    ConditionExpression="used_bytes = :counted OR "
                    "(:counted = :zero AND attribute_not_exists(used_bytes))",
                    ExpressionAttributeValues={
                        ":stored": {"N": str(drift.stored_bytes)},
                        ":counted": {"N": str(drift.used_bytes)},
                        ":zero": {"N": "0"},
                    },
                )
        usage = DynamoUsage(
            self._dynamodb,
            bounce_table=self._bounces,
            mailbox_table=self._mailboxes,
            remember=timedelta(days=14),
        )
        for message_id in audit.missed:
            usage.forget(message_id)

    def _resize(self, record: Resized) -> None:
        """Let a later deletion give back what the mail really takes."""
        with suppress(self._dynamodb.exceptions.ConditionalCheckFailedException):
            self._dynamodb.update_item(
                TableName=self._bounces,
                Key={"pk": {"S": record.pk}, "sk": {"S": record.sk}},
                UpdateExpression="SET #size = :size",
                ConditionExpression="attribute_exists(pk) AND attribute_not_exists(returned_at)",
                ExpressionAttributeNames={"#size": "size"},
                ExpressionAttributeValues={":size": {"N": str(record.size)}},
            )

    def _stored(self, advance: Callable[[int], None]) -> Iterator[tuple[str, int, datetime]]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix
        )
        for page in pages:
            contents = page.get("Contents", [])
            advance(len(contents))
            for each in contents:
                yield (
                    each["Key"].removeprefix(self._prefix),
                    each["Size"],
                    each["LastModified"],
                )

    def _records(self) -> Iterator[dict[str, Any]]:
        """What mailboxes were charged, and the mails' own records."""
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=self._bounces,
            ConsistentRead=True,
            FilterExpression="begins_with(sk, :usage) OR sk = :mail",
            ExpressionAttributeValues={":usage": {"S": "usage#"}, ":mail": {"S": "mail"}},
        )
        for page in pages:
            yield from page["Items"]
