"""Usage held against what the bucket really has."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import ClientError

from bouncer.aws.mailbox_table import MailboxTable
from bouncer.aws.usage import DynamoUsage

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A mailbox whose counter is not what its stored mail adds up to."""

    address: str
    used_bytes: int
    stored_bytes: int


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
    ) -> None:
        self._dynamodb = dynamodb
        self._s3 = s3
        self._bounces = bounce_table
        self._mailboxes = mailbox_table
        self._bucket = bucket
        self._prefix = prefix

    def compare(self, advance: Callable[[int], None]) -> tuple[list[Drift], list[str]]:
        """The drifts, and the ids of mails that are gone but still counted.

        Args:
            advance: told how many stored mails were looked at.
        """
        stored = set(self._stored(advance))
        sums: Counter[str] = Counter()
        missed: set[str] = set()
        for record in self._records():
            message_id = record["pk"]["S"].removeprefix("message#")
            if message_id in stored:
                sums[record["mailbox"]["S"]] += int(record["size"]["N"])
            else:
                missed.add(message_id)
        drifts = [
            Drift(address=box.address, used_bytes=box.used_bytes, stored_bytes=sums[box.address])
            for box in MailboxTable(self._dynamodb, self._mailboxes).scan()
            if box.used_bytes != sums[box.address]
        ]
        return drifts, sorted(missed)

    def correct(self, drifts: Iterable[Drift], missed: Iterable[str]) -> None:
        """Set the counters right. One that moved since the comparison is left for the next."""
        for drift in drifts:
            try:
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
            except ClientError as error:
                if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                    raise
        usage = DynamoUsage(
            self._dynamodb,
            bounce_table=self._bounces,
            mailbox_table=self._mailboxes,
            remember=timedelta(days=14),
        )
        for message_id in missed:
            usage.forget(message_id)

    def _stored(self, advance: Callable[[int], None]) -> Iterator[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix
        )
        for page in pages:
            contents = page.get("Contents", [])
            advance(len(contents))
            for each in contents:
                yield each["Key"].removeprefix(self._prefix)

    def _records(self) -> Iterator[dict[str, Any]]:
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=self._bounces,
            FilterExpression="begins_with(sk, :usage) AND attribute_not_exists(returned_at)",
            ExpressionAttributeValues={":usage": {"S": "usage#"}},
        )
        for page in pages:
            yield from page["Items"]
