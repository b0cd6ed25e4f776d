"""The bounce budgets in DynamoDB: a counter a sender, one a sender's domain, per window."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from bouncer.address import domain_of, normalise
from bouncer.budget import BudgetUnavailableError, window_start
from bouncer.guards import OtherReason
from bouncer.policy.file import BudgetSection

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_BELOW_CAP = "attribute_not_exists(#count) OR #count < :cap"


class DynamoBudget:
    """A Budget. The check and the count are one conditional write."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    def charge(self, sender: str, limits: BudgetSection) -> OtherReason | None:
        counters = (
            (f"sender#{normalise(sender)}", limits.per_sender, OtherReason.SENDER_BUDGET),
            (
                f"sender-domain#{domain_of(sender)}",
                limits.per_sender_domain,
                OtherReason.SENDER_DOMAIN_BUDGET,
            ),
        )
        start = window_start(self._clock(), limits.window_seconds)
        for name, cap, reason in counters:
            if cap == 0 or not self._count(name, cap, start, limits.window_seconds):
                return reason
        return None

    def _count(self, name: str, cap: int, start: int, seconds: int) -> bool:
        try:
            self._client.update_item(
                TableName=self._table,
                Key={"pk": {"S": f"budget#{name}"}, "sk": {"S": f"window#{seconds}#{start}"}},
                UpdateExpression="ADD #count :one SET expires_at = :expires",
                ConditionExpression=_BELOW_CAP,
                ExpressionAttributeNames={"#count": "count"},
                ExpressionAttributeValues={
                    ":one": {"N": "1"},
                    ":cap": {"N": str(cap)},
                    ":expires": {"N": str(start + 2 * seconds)},
                },
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                return False
            raise BudgetUnavailableError(str(error)) from error
        except BotoCoreError as error:
            raise BudgetUnavailableError(str(error)) from error
        return True
