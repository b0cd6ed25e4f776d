"""The ledger in DynamoDB: one item a (message, recipient), written under conditions."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from bouncer.address import normalise
from bouncer.delivery.ledger import (
    ANSWER_LOST,
    UNANSWERED,
    BounceState,
    Claims,
    LedgerEntry,
    LedgerUnavailableError,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# What may be claimed:
_NEVER_SEEN = "attribute_not_exists(pk)"
_FORGOTTEN = "expires_at <= :now"  # TTL deletes within days, so the expiry is compared here
_WAITING = "#state IN (:queued, :dead)"
_REFUSED = "(#state = :rejected AND NOT begins_with(detail, :unanswered))"
_ABANDONED = "(#state = :claimed AND lease_until <= :now)"
_MINE = "(#state = :claimed AND #owner = :owner)"
_CLAIMABLE = " OR ".join((_NEVER_SEEN, _FORGOTTEN, _WAITING, _REFUSED, _ABANDONED, _MINE))

# What may be settled without a claim: nothing that another delivery of the mail is about to send.
_UNTOUCHED = " OR ".join((_NEVER_SEEN, _FORGOTTEN, _REFUSED, _ABANDONED))
_GIVEN_UP = " OR ".join((_UNTOUCHED, _WAITING))  # by the queue, to its dead letters

_NAMES = {"#state": "state", "#owner": "owner"}


class DynamoLedger:
    """A Ledger."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        retention: timedelta,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """
        Args:
            retention: how long an entry is kept; longer than anything can be delivered again.
        """
        self._client = client
        self._table = table
        self._retention = retention
        self._clock = clock

    def claim(
        self, message_id: str, reasons: Mapping[str, str], *, owner: str, until: datetime
    ) -> Claims:
        mine: set[str] = set()
        doubtful: set[str] = set()
        settled: dict[str, BounceState] = {}
        in_flight: dict[str, datetime] = {}
        for recipient, reason in reasons.items():
            entry = LedgerEntry(
                message_id=message_id, recipient=recipient, state=BounceState.CLAIMED, reason=reason
            )
            written, before = self._write(entry, _CLAIMABLE, owner=owner, until=until)
            if written:
                mine.add(recipient)
                if before is not None and before.detail == ANSWER_LOST:
                    doubtful.add(recipient)
            elif before is None or before.state is BounceState.CLAIMED:
                in_flight[recipient] = (before and before.lease_until) or until
            else:
                settled[recipient] = before.state
        return Claims(
            mine=frozenset(mine),
            doubtful=frozenset(doubtful),
            settled=settled,
            in_flight=in_flight,
        )

    def settle(
        self, entries: Iterable[LedgerEntry], *, owner: str | None = None
    ) -> dict[str, BounceState]:
        # Safe to repeat: the condition fails on an end that is already written.
        standing = {}
        for entry in entries:
            unclaimed = _GIVEN_UP if entry.state is BounceState.DEAD_LETTERED else _UNTOUCHED
            condition = unclaimed if owner is None else _MINE
            written, before = self._write(entry, condition, owner=owner)
            if not written and before is not None:
                standing[entry.recipient] = before.state
        return standing

    def history(self, message_id: str) -> list[LedgerEntry]:
        try:
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                KeyConditionExpression="pk = :pk AND begins_with(sk, :recipient)",
                ExpressionAttributeValues={
                    ":pk": {"S": _pk(message_id)},
                    ":recipient": {"S": "recipient#"},
                },
            )
            entries = (_entry(item) for page in pages for item in page["Items"])
            return [each for each in entries if each is not None]
        except (ClientError, BotoCoreError) as error:
            raise LedgerUnavailableError(str(error)) from error

    def _write(
        self,
        entry: LedgerEntry,
        condition: str,
        *,
        owner: str | None = None,
        until: datetime | None = None,
    ) -> tuple[bool, LedgerEntry | None]:
        """Write the entry: whether it was written, and what stood there before."""
        now = self._clock()
        values: dict[str, Any] = {
            ":state": {"S": entry.state},
            ":reason": {"S": entry.reason},
            ":recipient": {"S": entry.recipient},
            ":now": {"N": _epoch(now)},
            ":expires": {"N": _epoch(now + self._retention)},
            ":claimed": {"S": BounceState.CLAIMED},
        }
        sets = [
            "#state = :state",
            "reason = :reason",
            "recipient = :recipient",
            "updated_at = :now",
            "expires_at = :expires",
        ]
        # A claim leaves it as it was, and so does who holds none and has nothing to add.
        if entry.detail or (owner and entry.state is not BounceState.CLAIMED):
            values[":detail"] = {"S": entry.detail}
            sets.append("detail = :detail")
        optional = {
            "#owner": owner and {"S": owner},
            "lease_until": until and {"N": _epoch(until)},
            "received_at": entry.received_at and {"N": _epoch(entry.received_at)},
            "#status": entry.status and {"S": entry.status},
            "bounce_id": entry.bounce_id and {"S": entry.bounce_id},
        }
        for name, value in optional.items():
            if value:
                placeholder = f":{name.lstrip('#')}"
                values[placeholder] = value
                sets.append(f"{name} = {placeholder}")
        asked = {
            ":queued": BounceState.QUEUED,
            ":dead": BounceState.DEAD_LETTERED,
            ":rejected": BounceState.REJECTED,
            ":unanswered": UNANSWERED,
        }
        values |= {name: {"S": state} for name, state in asked.items() if name in condition}
        expression = f"SET {', '.join(sets)}"
        names = {
            k: v for k, v in {**_NAMES, "#status": "status"}.items() if k in expression + condition
        }
        key = {"pk": {"S": _pk(entry.message_id)}, "sk": {"S": _sk(entry.recipient)}}
        try:
            before = self._client.update_item(
                TableName=self._table,
                Key=key,
                UpdateExpression=expression,
                ConditionExpression=condition,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
                ReturnValues="ALL_OLD",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            ).get("Attributes", {})
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise LedgerUnavailableError(str(error)) from error
            standing: Any = error.response.get("Item", {})
            return False, _entry(standing)
        except BotoCoreError as error:
            raise LedgerUnavailableError(str(error)) from error
        return True, _entry(before)


def _pk(message_id: str) -> str:
    return f"message#{message_id}"


def _sk(recipient: str) -> str:
    return f"recipient#{normalise(recipient)}"


def _epoch(moment: datetime) -> str:
    return f"{moment.timestamp():.3f}"


def _moment(item: Mapping[str, Any], name: str) -> datetime | None:
    return datetime.fromtimestamp(float(item[name]["N"]), UTC) if name in item else None


def _entry(item: Mapping[str, Any]) -> LedgerEntry | None:
    if not item:
        return None

    def text(name: str) -> str:
        return str(item.get(name, {}).get("S", ""))

    return LedgerEntry(
        message_id=text("pk").removeprefix("message#"),
        recipient=text("recipient"),
        state=BounceState(text("state")),
        reason=text("reason"),
        status=text("status"),
        received_at=_moment(item, "received_at"),
        updated_at=_moment(item, "updated_at"),
        lease_until=_moment(item, "lease_until"),
        bounce_id=text("bounce_id"),
        detail=text("detail"),
    )
