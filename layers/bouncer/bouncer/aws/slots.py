"""The limiter's slots in DynamoDB: one item, one or two atomic writes a reservation."""

from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError

from bouncer.aws.deadline import FAILURES
from bouncer.limiter import (
    Busy,
    ClockWrongError,
    Granted,
    SlotsUnavailableError,
    Widening,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SLOTS_ITEM = {"pk": {"S": "limiter"}, "sk": {"S": "send-bounce"}}
"""The item that paces SendBounce."""

# Each failed attempt tells which branch to take next, so a third means that others were quicker.
_ATTEMPTS = 4

# The Date header of an answer has whole seconds, and servers need not be exact.
_DATE_TOLERANCE = 2.0

#   time ──► now                            latest                        absurd
#   ──────────┼────────────────────────────────┼─────────────────────────────┼──────────
#    idle     │ busy: take the stored slot     │ refused: too far ahead      │ a wrong clock
_IDLE = "attribute_not_exists(next_slot) OR next_slot <= :now"
_BUSY = "next_slot > :now AND next_slot <= :latest"
_UNCHANGED = "next_slot = :seen"


type _Item = Mapping[str, Any]
"""The limiter's, in DynamoDB's form; empty when there is none yet."""


class Guess:
    """Whether the next slot is in the future: a right guess costs one request, a wrong one two."""

    def __init__(self) -> None:
        self._busy_until = 0.0

    def busy(self, now: float) -> bool:
        return now < self._busy_until

    def learn(self, next_slot: float, now: float, span: float = 0.0) -> None:
        """A slot seen so far ahead means a queue that is likely to last as long again."""
        self._busy_until = next_slot + span + (next_slot - now)


class DynamoSlots:
    """Slots. Delivery is at most once by nature: a lost answer wastes a slot, no more."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        on_repair: Callable[[float], None] = lambda _: None,
        *,
        key: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            client: boto3's.
            key: of the item, all text; one item is one pace, and need not exist. By default the
                one that paces SendBounce.
            on_repair: told how many seconds ahead a stored slot was that had to be repaired.
        """
        self._client = client
        self._table = table
        self._key: Any = SLOTS_ITEM
        if key is not None:
            self._key = {name: {"S": value} for name, value in key.items()}
        self._on_repair = on_repair
        self._guess = Guess()

    def reserve(self, now: float, span: float, max_wait: float, horizon: float) -> Granted | Busy:
        asked = _Asked(now, monotonic())
        busy = self._guess.busy(now)
        for _ in range(_ATTEMPTS):
            take = self._take_busy if busy else self._take_idle
            answer = take(asked, span, max_wait)
            if isinstance(answer, Granted):
                self._guess.learn(answer.start, now, span)
                return answer
            self._guess.learn(answer.next_slot, now)
            if answer.next_slot > now + horizon:
                return self._repair(asked, answer.next_slot, span)
            if answer.next_slot > now + max_wait:
                break
            busy = answer.next_slot > now
        return answer

    def hold_back(self, now: float, until: float) -> None:
        earlier = "attribute_not_exists(next_slot) OR next_slot < :until"
        asked = _Asked(now, monotonic())
        self._update("SET next_slot = :until", earlier, asked, {"until": until})

    def widen(self, now: float, seen: Widening, to: Widening) -> Widening:
        unseen = "attribute_not_exists(widened_at) OR widened_at <= :seen"
        values = {"extra": to.extra, "since": to.since, "seen": seen.since}
        update = "SET widened_by = :extra, widened_at = :since"
        before = self._update(update, unseen, _Asked(now, monotonic()), values)
        return before.widening if isinstance(before, Busy) else to

    def _take_busy(self, asked: "_Asked", span: float, max_wait: float) -> Granted | Busy:
        values = {"now": asked.now, "latest": asked.now + max_wait, "span": span}
        seen = self._update("SET next_slot = next_slot + :span", _BUSY, asked, values)
        if isinstance(seen, Busy):
            return seen
        return Granted(_next_slot(seen) or asked.now, _widening(seen))

    def _take_idle(self, asked: "_Asked", span: float, _max_wait: float) -> Granted | Busy:
        values = {"now": asked.now, "end": asked.now + span}
        seen = self._update("SET next_slot = :end", _IDLE, asked, values)
        return seen if isinstance(seen, Busy) else Granted(asked.now, _widening(seen))

    def _repair(self, asked: "_Asked", seen: float, span: float) -> Granted | Busy:
        # Our own clock was just found right, so the stored slot came from a wrong one.
        values = {"seen": seen, "end": asked.now + span}
        answer = self._update("SET next_slot = :end", _UNCHANGED, asked, values)
        if isinstance(answer, Busy):
            return answer
        self._on_repair(seen - asked.now)
        return Granted(asked.now, _widening(answer))

    def _update(
        self, update: str, condition: str, asked: "_Asked", values: dict[str, float]
    ) -> _Item | Busy:
        """The item before the update, or Busy with its slot when the condition failed."""
        try:
            answer = self._client.update_item(
                TableName=self._table,
                Key=self._key,
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeValues={
                    f":{name}": {"N": f"{value:.6f}"} for name, value in values.items()
                },
                ReturnValues="ALL_OLD",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise SlotsUnavailableError(str(error)) from error
            asked.check_clock(error.response["ResponseMetadata"])
            item: Any = error.response.get("Item", {})
            return Busy(_next_slot(item), _widening(item))
        except FAILURES as error:
            raise SlotsUnavailableError(str(error)) from error
        old: _Item = answer.get("Attributes", {})
        try:
            asked.check_clock(answer["ResponseMetadata"])
        except ClockWrongError:
            self._undo(old, values)
            raise
        return old

    def _undo(self, old: _Item, values: dict[str, float]) -> None:
        """Take back what a wrong clock just stored, unless someone built on it already."""
        mine = values.get("end")
        if mine is None:
            return
        before = _next_slot(old)
        try:
            self._client.update_item(
                TableName=self._table,
                Key=self._key,
                UpdateExpression="SET next_slot = :before",
                ConditionExpression="next_slot = :mine",
                ExpressionAttributeValues={
                    ":before": {"N": f"{before:.6f}"},
                    ":mine": {"N": f"{mine:.6f}"},
                },
            )
        except FAILURES:
            return  # the horizon bounds what it can do


def _next_slot(item: _Item) -> float:
    return float(item["next_slot"]["N"]) if "next_slot" in item else 0.0


def _widening(item: _Item) -> Widening:
    if "widened_by" not in item:
        return Widening()
    return Widening(float(item["widened_by"]["N"]), float(item["widened_at"]["N"]))


class _Asked(NamedTuple):
    """One moment on two clocks: the caller's, which may be wrong, and this process's own."""

    now: float
    at: float

    def check_clock(self, metadata: Any) -> None:
        """Compare with the server's clock, which every answer carries for nothing.

        Raises:
            ClockWrongError: the caller's clock is off by more than can be explained.
        """
        date = metadata.get("HTTPHeaders", {}).get("date")
        if not date:
            return
        off = self.now - parsedate_to_datetime(date).timestamp()
        took = monotonic() - self.at
        if not -_DATE_TOLERANCE - took <= off <= 1 + _DATE_TOLERANCE:
            raise ClockWrongError(f"the clock here is {off:+.1f} s off DynamoDB's")
