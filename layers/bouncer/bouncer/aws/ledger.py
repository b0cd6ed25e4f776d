"""The ledger in DynamoDB: one item a (message, recipient), written under conditions."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from bouncer.address import normalise
from bouncer.ledger import SETTLED, Claims, Entry, LedgerUnavailableError, State

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# Who may claim an item:
_NEVER_SEEN = "attribute_not_exists(pk)"
_FORGOTTEN = "expires_at <= :now"  # TTL deletes within days, so the expiry is compared here
_WAITING = "#state IN (:deferred, :dead)"
_ABANDONED = "(#state = :claimed AND lease_until <= :now)"
_MINE = "(#state = :claimed AND #owner = :owner)"
_CLAIMABLE = " OR ".join((_NEVER_SEEN, _FORGOTTEN, _WAITING, _ABANDONED, _MINE))

# Who may settle one: its holder, or anyone where nothing was claimed or all is stale.
_UNCLAIMED = " OR ".join((_NEVER_SEEN, _FORGOTTEN, _WAITING, _ABANDONED))

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
        settled: dict[str, State] = {}
        in_flight: dict[str, datetime] = {}
        for recipient, reason in reasons.items():
            entry = Entry(
                message_id=message_id, recipient=recipient, state=State.CLAIMED, reason=reason
            )
            holder = self._write(entry, _CLAIMABLE, owner=owner, until=until)
            if holder is None:
                mine.add(recipient)
            elif holder.state in SETTLED:
                settled[recipient] = holder.state
            else:
                in_flight[recipient] = holder.lease_until or until
        return Claims(mine=frozenset(mine), settled=settled, in_flight=in_flight)

    def settle(self, entries: Iterable[Entry], *, owner: str | None = None) -> None:
        # Safe to repeat: the condition fails on an end that is already written.
        condition = _UNCLAIMED if owner is None else _MINE
        for entry in entries:
            self._write(entry, condition, owner=owner)

    def history(self, message_id: str) -> list[Entry]:
        try:
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                KeyConditionExpression="pk = :pk AND begins_with(sk, :recipient)",
                ExpressionAttributeValues={
                    ":pk": {"S": _pk(message_id)},
                    ":recipient": {"S": "recipient#"},
                },
            )
            return [_entry(item) for page in pages for item in page["Items"]]
        except (ClientError, BotoCoreError) as error:
            raise LedgerUnavailableError(str(error)) from error

    def _write(
        self,
        entry: Entry,
        condition: str,
        *,
        owner: str | None = None,
        until: datetime | None = None,
    ) -> Entry | None:
        """Write the entry; None when it was written, else what stands there instead."""
        now = self._clock()
        values: dict[str, Any] = {
            ":state": {"S": entry.state},
            ":reason": {"S": entry.reason},
            ":recipient": {"S": entry.recipient},
            ":now": {"N": _epoch(now)},
            ":expires": {"N": _epoch(now + self._retention)},
            ":claimed": {"S": State.CLAIMED},
        }
        sets = [
            "#state = :state",
            "reason = :reason",
            "recipient = :recipient",
            "updated_at = :now",
            "expires_at = :expires",
        ]
        optional = {
            "#owner": owner and {"S": owner},
            "lease_until": until and {"N": _epoch(until)},
            "received_at": entry.received_at and {"N": _epoch(entry.received_at)},
            "#status": entry.status and {"S": entry.status},
            "bounce_id": entry.bounce_id and {"S": entry.bounce_id},
            "detail": entry.detail and {"S": entry.detail},
        }
        for name, value in optional.items():
            if value:
                placeholder = f":{name.lstrip('#')}"
                values[placeholder] = value
                sets.append(f"{name} = {placeholder}")
        if ":deferred" in condition:
            values[":deferred"] = {"S": State.DEFERRED}
            values[":dead"] = {"S": State.DEAD_LETTERED}
        expression = f"SET {', '.join(sets)}"
        names = {
            k: v for k, v in {**_NAMES, "#status": "status"}.items() if k in expression + condition
        }
        key = {"pk": {"S": _pk(entry.message_id)}, "sk": {"S": _sk(entry.recipient)}}
        try:
            self._client.update_item(
                TableName=self._table,
                Key=key,
                UpdateExpression=expression,
                ConditionExpression=condition,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise LedgerUnavailableError(str(error)) from error
            standing: Any = error.response.get("Item", {})
            return _entry(standing)
        except BotoCoreError as error:
            raise LedgerUnavailableError(str(error)) from error
        return None


def _pk(message_id: str) -> str:
    return f"message#{message_id}"


def _sk(recipient: str) -> str:
    return f"recipient#{normalise(recipient)}"


def _epoch(moment: datetime) -> str:
    return f"{moment.timestamp():.3f}"


def _moment(item: Mapping[str, Any], name: str) -> datetime | None:
    return datetime.fromtimestamp(float(item[name]["N"]), UTC) if name in item else None


def _entry(item: Mapping[str, Any]) -> Entry:
    def text(name: str) -> str:
        return str(item.get(name, {}).get("S", ""))

    return Entry(
        message_id=text("pk").removeprefix("message#"),
        recipient=text("recipient"),
        state=State(text("state")),
        reason=text("reason"),
        status=text("status"),
        received_at=_moment(item, "received_at"),
        updated_at=_moment(item, "updated_at"),
        lease_until=_moment(item, "lease_until"),
        bounce_id=text("bounce_id"),
        detail=text("detail"),
    )
