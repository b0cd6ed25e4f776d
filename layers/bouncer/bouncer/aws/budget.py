"""The bounce budgets in DynamoDB: one write an item, which counts and answers at once."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bouncer import timing
from bouncer.aws.deadline import FAILURES
from bouncer.budget import (
    SHARE_FROM,
    SHARE_SLICE,
    SLICES,
    BudgetUnavailableError,
    Counter,
    counters,
    slice_of,
)
from bouncer.deadline import check_time_for, deadline, utc_now
from bouncer.guards import OtherReason
from bouncer.message import InboundMessage
from bouncer.policy.file import BudgetSection

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_SHARE = "q"


class DynamoBudget:
    """A Budget.

    Each count has an attribute a slice of time. `ADD` is atomic and answers with the whole item,
    so the sum that comes back holds all that was counted before: what takes it over its limit is
    given back, and a limit is never passed, whoever else counts meanwhile.
    """

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        backlog: Callable[[datetime], float] = lambda _: 0.0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """
        Args:
            backlog: told until when it may take, about how many seconds the queue needs to
                drain; asked only where a sender has had all places.
        """
        self._client = client
        self._table = table
        self._backlog = backlog
        self._clock = clock

    def charge(
        self, mail: InboundMessage, told: int, limits: BudgetSection, *, until: datetime
    ) -> OtherReason | None:
        try:
            with deadline(until, self._clock):
                check_time_for(timing.ATTEMPT)
                return self._charge(mail, told, limits, until)
        except FAILURES as error:
            raise BudgetUnavailableError(str(error)) from error

    def _charge(
        self, mail: InboundMessage, told: int, limits: BudgetSection, until: datetime
    ) -> OtherReason | None:
        now, done = self._clock(), list[Counter]()
        for counter in counters(mail, limits):
            hopeless = next((why for _, most, why in counter.limits if told > most), None)
            reason = hopeless or self._count(counter, told, limits, now, until)
            if reason is not None:
                # What was counted for a bounce that is not sent is nobody's.
                for each in done if hopeless else (*done, counter):
                    self._add(each, -told, limits.period_seconds, now)
                return reason
            done.append(counter)
        return None

    def _count(
        self, counter: Counter, told: int, limits: BudgetSection, now: datetime, until: datetime
    ) -> OtherReason | None:
        item = self._add(counter, told, limits.period_seconds, now)
        current = slice_of(now, limits.period_seconds / SLICES)
        for name, most, why in counter.limits:
            if _sum(item, name, current, SLICES + 1) > most:
                return why
        if not counter.shares:
            return None
        places = _sum(item, _SHARE, slice_of(now, SHARE_SLICE), 2)
        crowded = places > limits.queue_places and self._backlog(until) > SHARE_FROM
        return OtherReason.QUEUE_SHARE if crowded else None

    def _add(self, counter: Counter, told: int, period: int, now: datetime) -> Mapping[str, Any]:
        current = slice_of(now, period / SLICES)
        counts = [(name, current, SLICES + 1) for name, _, _ in counter.limits]
        if counter.shares:
            counts.append((_SHARE, slice_of(now, SHARE_SLICE), 2))
        adds = ", ".join(f"{name}{at} :told" for name, at, _ in counts)
        # The slices that have just run out; an item that rests longer expires as a whole.
        past = ", ".join(f"{name}{at - kept - n}" for name, at, kept in counts for n in range(3))
        return self._client.update_item(
            TableName=self._table,
            Key={"pk": {"S": f"budget#{counter.name}"}, "sk": {"S": f"period#{period}"}},
            UpdateExpression=f"ADD {adds} SET expires_at = :expires REMOVE {past}",
            ExpressionAttributeValues={
                ":told": {"N": str(told)},
                ":expires": {"N": str(int(now.timestamp()) + 2 * period + 2 * SHARE_SLICE)},
            },
            ReturnValues="ALL_NEW",
        )["Attributes"]


def _sum(item: Mapping[str, Any], name: str, current: int, slices: int) -> int:
    past = (item.get(f"{name}{current - back}") for back in range(slices))
    return sum(int(each["N"]) for each in past if each is not None)
