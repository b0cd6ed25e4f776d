"""Usage in DynamoDB: the record and the counter change in one transaction."""

import itertools
import random
import time
from collections.abc import Callable, Set
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import ClientError

from bouncer import timing
from bouncer.aws.deadline import FAILURES
from bouncer.deadline import half_of_the_time, time_for, utc_now
from bouncer.mailboxes import Mailbox, counting_day
from bouncer.usage import Charged, Full, UsageBusyError, UsageUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# A mailbox that many mails come to at once makes its transactions collide; the loser comes
# again a little later. Whoever has a deadline stops at it, long before a charge's last try.
_ATTEMPTS = 12
_CHARGES = 100
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.8
# A transaction takes 100 items; a long one collides more often.
_RECORDS_A_TRANSACTION = 50

_NOT_COUNTED = "attribute_not_exists(pk)"
_COUNTED = "attribute_exists(pk) AND attribute_not_exists(returned_at)"
_ROOM = "(attribute_not_exists(used_bytes) OR (used_bytes >= :zero AND used_bytes <= :room))"
_NEVER = "attribute_not_exists(address)"
_BELOW_ZERO = "used_bytes < :zero"
_DAY_SEEN = "messages_day = :seen"
_NO_DAY = "attribute_not_exists(messages_day)"
_BELOW_CAP = "messages_today < :cap"


class DynamoUsage:
    """A Usage, on our own mailbox table."""

    def __init__(
        self,
        client: "DynamoDBClient",
        *,
        bounce_table: str,
        mailbox_table: str,
        remember: timedelta,
        clock: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            remember: how long after its deletion a mail is known to have been counted.
        """
        self._client = client
        self._bounces = bounce_table
        self._mailboxes = mailbox_table
        self._remember = remember
        self._clock = clock
        self._sleep = sleep

    def charge(
        self, mailbox: Mailbox, message_id: str, size: int, now: datetime, *, enforce: bool
    ) -> Charged | Full:
        standing = mailbox
        for attempt in range(_CHARGES):
            reasons = self._transact(self._charge(standing, message_id, size, now, enforce=enforce))
            if reasons is None:
                return Charged(mailbox=_with(standing, size, now))
            if _failed(reasons[0]):
                return Charged(mailbox=standing, repeated=True)
            if _failed(reasons[1]):
                item = reasons[1].get("Item")
                if not item:
                    return Charged(mailbox=standing, repeated=True)  # it was removed meanwhile
                standing = _refreshed(mailbox, item)
                if enforce and (standing.without_room(size) or standing.over_daily_quota(now)):
                    return Full(mailbox=standing)
                continue  # the day turned, or room came back: the condition was another one's
            self._pause(attempt)
            if not time_for(2 * timing.ATTEMPT):
                break
            # Whether the others have filled it meanwhile is seen without a transaction: what is
            # refused leaves the way to what still fits.
            standing = self._standing(mailbox)
            if enforce and (standing.without_room(size) or standing.over_daily_quota(now)):
                if self._is_recorded(mailbox, message_id):  # and this mail was one of them
                    return Charged(mailbox=standing, repeated=True)
                return Full(mailbox=standing)
        raise UsageBusyError(f"{mailbox.address}: too many mails at once")

    def _standing(self, mailbox: Mailbox) -> Mailbox:
        """The mailbox with its counters as they are now."""
        item = self._get(
            self._mailboxes,
            {"address": {"S": mailbox.address}},
            "used_bytes, messages_day, messages_today",
        )
        return _refreshed(mailbox, item)

    def _is_recorded(self, mailbox: Mailbox, message_id: str) -> bool:
        """Asked after the counters were read: a mail is in both or in neither."""
        return bool(self._get(self._bounces, _record_key(mailbox, message_id), "pk"))

    def _get(self, table: str, key: Any, attributes: str) -> dict[str, Any]:
        try:
            answer: Any = self._client.get_item(
                TableName=table, Key=key, ProjectionExpression=attributes, ConsistentRead=True
            )
        except FAILURES as error:
            raise UsageUnavailableError(str(error)) from error
        item: dict[str, Any] = answer.get("Item", {})
        return item

    def give_back(self, message_ids: Set[str]) -> set[str]:
        failed: set[str] = set()
        by_mailbox: dict[str, list[dict[str, Any]]] = {}
        with half_of_the_time():  # what was found is also given back
            for message_id in sorted(message_ids):
                try:
                    for record in self._records(message_id):
                        if "returned_at" not in record:
                            by_mailbox.setdefault(record["mailbox"]["S"], []).append(record)
                except UsageUnavailableError:
                    failed.add(message_id)
        for records in by_mailbox.values():
            for chunk in itertools.batched(records, _RECORDS_A_TRANSACTION, strict=False):
                try:
                    self._give_back_together([*chunk])
                except UsageUnavailableError:
                    failed |= {record["pk"]["S"].removeprefix("message#") for record in chunk}
        return failed

    def _give_back_together(self, records: list[dict[str, Any]]) -> None:
        """Mails of one mailbox: every record is marked, and their sum taken off, or nothing is.

        Raises:
            UsageUnavailableError: nothing was; a retry settles it.
        """
        for attempt in range(_ATTEMPTS):
            marks = [self._return(record)[0] for record in records]
            total = sum(int(record["size"]["N"]) for record in records)
            counter = self._return(records[0] | {"size": {"N": str(total)}})[1]
            reasons = self._transact([*marks, counter])
            if reasons is None:
                return
            if _failed(reasons[-1]):  # the mailbox is gone: nothing holds the bytes
                for mark in marks:
                    self._note(mark)
                return
            # Another delivery of the same deletions was here: the sum is of the others only.
            records = [
                record
                for record, reason in zip(records, reasons[:-1], strict=True)
                if not _failed(reason)
            ]
            if not records:
                return
            self._pause(attempt)
        raise UsageUnavailableError("too many mails at once")

    def forget(self, message_id: str) -> None:
        """Mark a mail's records as given back without touching a counter, which is right already.

        For the audit, which has just set the counters by what is stored.
        """
        for record in self._records(message_id):
            self._transact(self._return(record)[:1])

    def _charge(
        self, mailbox: Mailbox, message_id: str, size: int, now: datetime, *, enforce: bool
    ) -> list[dict[str, Any]]:
        today = counting_day(mailbox.messages_day, now)
        same_day = mailbox.messages_day == today
        conditions = ["attribute_exists(address)"]
        values = {":size": {"N": str(size)}, ":one": {"N": "1"}, ":today": {"S": today}}
        if mailbox.messages_day:
            conditions.append(_DAY_SEEN)
            values[":seen"] = {"S": mailbox.messages_day}
        else:
            conditions.append(_NO_DAY)
        below_zero = mailbox.used_bytes < 0  # which is nothing: no room beyond the quota
        if enforce and mailbox.quota_bytes is not None:
            room = mailbox.quota_bytes - size
            if room < 0:
                conditions.append(_NEVER)
            elif not below_zero:
                conditions.append(_ROOM)
                values |= {":zero": {"N": "0"}, ":room": {"N": str(room)}}
        if enforce and same_day and mailbox.quota_messages_per_day is not None:
            conditions.append(_BELOW_CAP)
            values[":cap"] = {"N": str(mailbox.quota_messages_per_day)}
        if below_zero:
            conditions.append(_BELOW_ZERO)
            values[":zero"] = {"N": "0"}
            counted = "SET used_bytes = :size,"
        else:
            counted = "ADD used_bytes :size SET"
        count = "messages_today = messages_today + :one" if same_day else "messages_today = :one"
        record = {
            **_record_key(mailbox, message_id),
            "size": {"N": str(size)},
            "mailbox": {"S": mailbox.address},
            "counted_at": {"N": f"{now.timestamp():.3f}"},
        }
        return [
            {
                "Put": {
                    "TableName": self._bounces,
                    "Item": record,
                    "ConditionExpression": _NOT_COUNTED,
                }
            },
            {
                "Update": {
                    "TableName": self._mailboxes,
                    "Key": {"address": {"S": mailbox.address}},
                    "UpdateExpression": f"{counted} messages_day = :today, {count}",
                    "ConditionExpression": " AND ".join(conditions),
                    "ExpressionAttributeValues": values,
                    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                }
            },
        ]

    def _return(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        now = self._clock()
        return [
            {
                "Update": {
                    "TableName": self._bounces,
                    "Key": {"pk": record["pk"], "sk": record["sk"]},
                    "UpdateExpression": "SET returned_at = :now, expires_at = :expires",
                    "ConditionExpression": _COUNTED,
                    "ExpressionAttributeValues": {
                        ":now": {"N": f"{now.timestamp():.3f}"},
                        ":expires": {"N": f"{(now + self._remember).timestamp():.0f}"},
                    },
                }
            },
            {
                "Update": {
                    "TableName": self._mailboxes,
                    "Key": {"address": record["mailbox"]},
                    "UpdateExpression": "ADD used_bytes :size",
                    "ConditionExpression": "attribute_exists(address)",
                    "ExpressionAttributeValues": {":size": {"N": str(-int(record["size"]["N"]))}},
                }
            },
        ]

    def _records(self, message_id: str) -> list[dict[str, Any]]:
        try:
            pages = self._client.get_paginator("query").paginate(
                TableName=self._bounces,
                KeyConditionExpression="pk = :pk AND begins_with(sk, :usage)",
                ExpressionAttributeValues={
                    ":pk": {"S": f"message#{message_id}"},
                    ":usage": {"S": "usage#"},
                },
            )
            return [item for page in pages for item in page["Items"]]
        except FAILURES as error:
            raise UsageUnavailableError(str(error)) from error

    def _transact(self, items: Any) -> list[dict[str, Any]] | None:
        """None when all was written, else why not, item by item."""
        try:
            self._client.transact_write_items(TransactItems=items)
        except ClientError as error:
            if error.response["Error"]["Code"] != "TransactionCanceledException":
                raise UsageUnavailableError(str(error)) from error
            response: Any = error.response
            reasons: list[dict[str, Any]] = response["CancellationReasons"]
            return reasons
        except FAILURES as error:
            raise UsageUnavailableError(str(error)) from error
        return None

    def _note(self, mark: dict[str, Any]) -> None:
        """Write one mark alone, however often that collides."""
        for attempt in range(_ATTEMPTS):
            reasons = self._transact([mark])
            if reasons is None or _failed(reasons[0]):
                return
            self._pause(attempt)
        raise UsageUnavailableError("too many mails at once")

    def _pause(self, attempt: int) -> None:
        longest = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
        self._sleep(random.uniform(0, longest))  # noqa: S311  (spreads colliding writers)


def _record_key(mailbox: Mailbox, message_id: str) -> dict[str, Any]:
    return {"pk": {"S": f"message#{message_id}"}, "sk": {"S": f"usage#{mailbox.address}"}}


def _failed(reason: dict[str, Any]) -> bool:
    return bool(reason.get("Code") == "ConditionalCheckFailed")


def _refreshed(mailbox: Mailbox, item: dict[str, Any]) -> Mailbox:
    """The mailbox with its counters as the failed write found them."""
    return msgspec.structs.replace(
        mailbox,
        used_bytes=int(item.get("used_bytes", {}).get("N", 0)),
        messages_day=item.get("messages_day", {}).get("S", ""),
        messages_today=int(item.get("messages_today", {}).get("N", 0)),
    )


def _with(mailbox: Mailbox, size: int, now: datetime) -> Mailbox:
    today = counting_day(mailbox.messages_day, now)
    before = mailbox.messages_today if mailbox.messages_day == today else 0
    return msgspec.structs.replace(
        mailbox,
        used_bytes=max(mailbox.used_bytes, 0) + size,
        messages_day=today,
        messages_today=before + 1,
    )
