"""The ledger in DynamoDB: one item a (message, recipient), written under conditions."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from bouncer import timing
from bouncer.address import normalise
from bouncer.aws.deadline import FAILURES, tried_once
from bouncer.deadline import check_time_for, deadline, utc_now
from bouncer.delivery.ledger import (
    CALLS_WITHOUT_ANSWER,
    OF_A_CALL,
    BounceState,
    Claims,
    LedgerEntry,
    LedgerUnavailableError,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# Which state lets which verb write; any other leaves the item as it is.
#
#                 (none)  claimed            queued  dead-lettered  rejected      sent, suppressed,
#                                                                                 expired
#   claim           ■     mine or abandoned    ■          ■
#   claim anew      ■     mine or abandoned    ■          ■         answered
#   settle, note          mine
#   record          ■     abandoned                                 answered
#   give up         ■     abandoned            ■          ■         answered
#   take out                                   ■
#
# An abandoned claim is one whose lease ran out; an item past its expiry is (none), for TTL
# deletes within days only; "answered" is what was not rejected for too many lost answers.
_NONE = "attribute_not_exists(pk) OR expires_at <= :now"
_MINE = "#state = :claimed AND #owner = :owner AND expires_at > :now"
_ABANDONED = "#state = :claimed AND lease_until <= :now"
_WAITS = "#state = :queued OR #state = :dead"
_REFUSED = "#state = :rejected AND lost_answers < :enough"

_CLAIM = f"({_NONE}) OR ({_MINE}) OR ({_ABANDONED}) OR ({_WAITS})"
_CLAIM_ANEW = f"{_CLAIM} OR ({_REFUSED})"
_SETTLE = _MINE
_RECORD = f"({_NONE}) OR ({_ABANDONED}) OR ({_REFUSED})"
_TAKE_OUT = "#state = :queued AND expires_at > :now"
_GIVE_UP = f"({_NONE}) OR ({_ABANDONED}) OR ({_WAITS}) OR ({_REFUSED})"

# Every verb's condition reads these, as far as its clauses do.
_NAMES = {"#state": "state", "#owner": "owner"}
_VALUES = {
    ":claimed": {"S": BounceState.CLAIMED},
    ":queued": {"S": BounceState.QUEUED},
    ":dead": {"S": BounceState.DEAD_LETTERED},
    ":rejected": {"S": BounceState.REJECTED},
    ":enough": {"N": str(CALLS_WITHOUT_ANSWER)},
}


class DynamoLedger:
    """A Ledger."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        retention: timedelta,
        clock: Callable[[], datetime] = utc_now,
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
        self,
        message_id: str,
        reasons: Mapping[str, str],
        *,
        owner: str,
        until: datetime,
        anew: bool = True,
    ) -> Claims:
        condition = _CLAIM_ANEW if anew else _CLAIM
        lease_until = until + timedelta(seconds=timing.LEASE_GRACE)
        mine: dict[str, int] = {}
        settled: dict[str, BounceState] = {}
        in_flight: dict[str, datetime] = {}
        for recipient, reason in reasons.items():
            facts = {
                "recipient": {"S": recipient},
                "state": {"S": BounceState.CLAIMED},
                "reason": {"S": reason},
                "owner": {"S": owner},
                "lease_until": {"N": _epoch(lease_until)},
            }
            key = _key(message_id, recipient)
            written, before = self._write(key, facts, condition, owner=owner, until=until)
            if written:
                mine[recipient] = before.lost_answers if before is not None else 0
            elif before is None or before.state is BounceState.CLAIMED:
                in_flight[recipient] = (before and before.lease_until) or lease_until
            else:
                settled[recipient] = before.state
        return Claims(mine=mine, settled=settled, in_flight=in_flight)

    def settle(
        self, entries: Iterable[LedgerEntry], *, owner: str, until: datetime
    ) -> dict[str, BounceState]:
        # Safe to repeat: the condition fails on an end that is already written.
        standing = {}
        for entry in entries:
            facts = _facts(entry) | {"lost_answers": {"N": str(entry.lost_answers)}}
            key = _key(entry.message_id, entry.recipient)
            written, before = self._write(
                key, facts, _SETTLE, owner=owner, until=until, however_late=entry.state in OF_A_CALL
            )
            if not written and before is not None:
                standing[entry.recipient] = before.state
        return standing

    def note_lost_answers(
        self, message_id: str, lost_answers: Mapping[str, int], *, owner: str, until: datetime
    ) -> None:
        for recipient, lost in lost_answers.items():
            # A number, not an addition: the SDK may send it twice.
            facts = {"lost_answers": {"N": str(lost)}}
            key = _key(message_id, recipient)
            self._write(key, facts, _SETTLE, owner=owner, until=until, however_late=True)

    def record(self, entries: Iterable[LedgerEntry], *, until: datetime) -> dict[str, BounceState]:
        return self._write_unheld(entries, _RECORD, until)

    def give_up(self, entries: Iterable[LedgerEntry], *, until: datetime) -> dict[str, BounceState]:
        return self._write_unheld(entries, _GIVE_UP, until)

    def history(self, message_id: str, *, until: datetime | None = None) -> list[LedgerEntry]:
        try:
            with deadline(until, self._clock):
                check_time_for(timing.ATTEMPT)
                pages = self._client.get_paginator("query").paginate(
                    TableName=self._table,
                    KeyConditionExpression="pk = :pk AND begins_with(sk, :recipient)",
                    ExpressionAttributeValues={
                        ":pk": {"S": _pk(message_id)},
                        ":recipient": {"S": "recipient#"},
                    },
                )
                return [_entry(item) for page in pages for item in page["Items"]]
        except FAILURES as error:
            raise LedgerUnavailableError(str(error)) from error

    # --- An operator's, whose role may read the whole table -----------------------------------

    def waiting(
        self, on_page: Callable[[int], None] = lambda _: None, *, segment: int = 0, of: int = 1
    ) -> Iterator[LedgerEntry]:
        """Every recipient whose bounce waits in the queue, in no order.

        It reads the whole table, half a read unit for 4 KB, for nothing is indexed by state: an
        index would cost every queued bounce three writes more, and hold the writes of a flood
        back in one partition.

        Args:
            on_page: told how many items each page looked at.
            segment: reads only this one of `of` parts, which several threads may share.

        Raises:
            LedgerUnavailableError
        """
        values: Any = {
            ":recipient": {"S": "recipient#"},
            ":queued": _VALUES[":queued"],
            ":now": {"N": _epoch(self._clock())},
        }
        try:
            for page in self._client.get_paginator("scan").paginate(
                TableName=self._table,
                Segment=segment,
                TotalSegments=of,
                FilterExpression=f"begins_with(sk, :recipient) AND {_TAKE_OUT}",
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues=values,
            ):
                on_page(page["ScannedCount"])
                yield from map(_entry, page["Items"])
        except FAILURES as error:
            raise LedgerUnavailableError(str(error)) from error

    def take_out(self, entry: LedgerEntry, *, until: datetime) -> bool:
        """End what waits in the queue: the worker finds it settled, and sends nothing.

        Args:
            entry: the end.

        Returns:
            Whether it was still waiting; what a worker has begun, or ended, is left alone.
        """
        key = _key(entry.message_id, entry.recipient)
        written, _ = self._write(key, _facts(entry), _TAKE_OUT, until=until)
        return written

    def _write_unheld(
        self, entries: Iterable[LedgerEntry], condition: str, until: datetime
    ) -> dict[str, BounceState]:
        standing = {}
        for entry in entries:
            key = _key(entry.message_id, entry.recipient)
            written, before = self._write(key, _facts(entry), condition, until=until)
            if not written and before is not None:
                standing[entry.recipient] = before.state
        return standing

    def _write(
        self,
        key: Mapping[str, Any],
        facts: Mapping[str, Any],
        condition: str,
        *,
        until: datetime,
        owner: str = "",
        however_late: bool = False,
    ) -> tuple[bool, LedgerEntry | None]:
        """Write the facts under a condition: whether they were, and what stood there before.

        Args:
            however_late: the first try is made although the time is over.
        """
        now = self._clock()
        facts = {
            **facts,
            "updated_at": {"N": _epoch(now)},
            "expires_at": {"N": _epoch(now + self._retention)},
        }
        update = ", ".join(f"#{name} = :new_{name}" for name in facts)
        if "lost_answers" not in facts:  # it is there from the first write on
            update += ", lost_answers = if_not_exists(lost_answers, :none)"
        asked = {**_VALUES, ":now": {"N": _epoch(now)}, ":owner": {"S": owner}, ":none": {"N": "0"}}
        expressions = f"{update} {condition}"
        try:
            with deadline(until, self._clock), tried_once() if however_late else nullcontext():
                if not however_late:
                    check_time_for(timing.ATTEMPT)
                before = self._client.update_item(
                    TableName=self._table,
                    Key=key,
                    UpdateExpression=f"SET {update}",
                    ConditionExpression=condition,
                    ExpressionAttributeNames={f"#{name}": name for name in facts}
                    | {place: name for place, name in _NAMES.items() if place in condition},
                    ExpressionAttributeValues={
                        f":new_{name}": value for name, value in facts.items()
                    }
                    | {place: value for place, value in asked.items() if place in expressions},
                    ReturnValues="ALL_OLD",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                ).get("Attributes", {})
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise LedgerUnavailableError(str(error)) from error
            standing: Any = error.response.get("Item", {})
            return False, _standing(standing, now)
        except FAILURES as error:
            raise LedgerUnavailableError(str(error)) from error
        return True, _standing(before, now)


def _standing(item: Mapping[str, Any], now: datetime) -> LedgerEntry | None:
    """What an item says; nothing once it has expired."""
    gone = not item or float(item["expires_at"]["N"]) <= now.timestamp()
    return None if gone else _entry(item)


def _facts(entry: LedgerEntry) -> dict[str, Any]:
    """What an entry says, as far as it says it; a later end leaves no words of an earlier one."""
    facts: dict[str, Any] = {
        "recipient": {"S": entry.recipient},
        "state": {"S": entry.state},
        "reason": {"S": entry.reason},
        "error_code": {"S": entry.error_code},
        "detail": {"S": entry.detail},
    }
    if entry.status:
        facts["status"] = {"S": entry.status}
    if entry.bounce_id:
        facts["bounce_id"] = {"S": entry.bounce_id}
    if entry.reverse_path:
        facts["reverse_path"] = {"S": entry.reverse_path}
    if entry.received_at is not None:
        facts["received_at"] = {"N": _epoch(entry.received_at)}
    return facts


def _key(message_id: str, recipient: str) -> dict[str, Any]:
    return {"pk": {"S": _pk(message_id)}, "sk": {"S": f"recipient#{normalise(recipient)}"}}


def _pk(message_id: str) -> str:
    return f"message#{message_id}"


def _epoch(moment: datetime) -> str:
    return f"{moment.timestamp():.3f}"


def _moment(item: Mapping[str, Any], name: str) -> datetime | None:
    return datetime.fromtimestamp(float(item[name]["N"]), UTC) if name in item else None


def _entry(item: Mapping[str, Any]) -> LedgerEntry:
    def text(name: str) -> str:
        return str(item.get(name, {}).get("S", ""))

    return LedgerEntry(
        message_id=text("pk").removeprefix("message#"),
        recipient=text("recipient"),
        state=BounceState(text("state")),
        reason=text("reason"),
        status=text("status"),
        received_at=_moment(item, "received_at"),
        reverse_path=text("reverse_path"),
        updated_at=_moment(item, "updated_at"),
        lease_until=_moment(item, "lease_until"),
        bounce_id=text("bounce_id"),
        lost_answers=int(item.get("lost_answers", {}).get("N", 0)),
        error_code=text("error_code"),
        detail=text("detail"),
    )
