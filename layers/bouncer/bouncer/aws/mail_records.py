"""Mails' records in DynamoDB: `pk = message#ID`, `sk = mail`, recipients as a string set."""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bouncer import timing
from bouncer.aws.deadline import FAILURES
from bouncer.deadline import check_time_for, deadline, utc_now
from bouncer.mail_record import MailRecord, RecipientRecord, RecordsUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_SORT_KEY = "mail"
_KEYS_A_READ = 100  # BatchGetItem's limit
_ATTEMPTS = 4


class DynamoMailRecords:
    """MailRecords."""

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
            retention: how long a record is kept; longer than its notice can be delivered again.
        """
        self._client = client
        self._table = table
        self._retention = retention
        self._clock = clock

    def add(self, record: MailRecord, *, until: datetime) -> None:
        now = self._clock()
        sets: dict[str, Any] = {
            "received_at": {"N": f"{record.received_at.timestamp():.3f}"},
            "expires_at": {"N": f"{(now + self._retention).timestamp():.0f}"},
        }
        if record.found_undecided:
            sets["found_undecided"] = {"BOOL": True}
        try:
            with deadline(until, self._clock):
                check_time_for(timing.ATTEMPT)
                # ADD is atomic, and adding what is there changes nothing.
                self._client.update_item(
                    TableName=self._table,
                    Key=_key(record.message_id),
                    UpdateExpression="ADD recipients :recipients SET "
                    + ", ".join(f"{name} = :{name}" for name in sets),
                    ExpressionAttributeValues={
                        ":recipients": {"SS": sorted(map(_text, record.recipients))},
                        **{f":{name}": value for name, value in sets.items()},
                    },
                )
        except FAILURES as error:
            raise RecordsUnavailableError(str(error)) from error

    def of(
        self, message_ids: Collection[str], *, until: datetime | None = None
    ) -> dict[str, MailRecord]:
        found: dict[str, MailRecord] = {}
        wanted = list(dict.fromkeys(message_ids))
        for first in range(0, len(wanted), _KEYS_A_READ):
            for item in self._read(wanted[first : first + _KEYS_A_READ], until):
                record = _record(item)
                found[record.message_id] = record
        return found

    def _read(self, message_ids: list[str], until: datetime | None) -> list[dict[str, Any]]:
        # Not a consistent read, at half the price: minutes have passed since the write, and what
        # is missed is handled again, which changes nothing.
        keys: Any = [_key(each) for each in message_ids]
        items: list[dict[str, Any]] = []
        try:
            for _ in range(_ATTEMPTS):
                with deadline(until, self._clock):
                    check_time_for(timing.ATTEMPT)
                    answer = self._client.batch_get_item(RequestItems={self._table: {"Keys": keys}})
                items += answer["Responses"].get(self._table, [])
                keys = answer["UnprocessedKeys"].get(self._table, {"Keys": []})["Keys"]
                if not keys:
                    return items
        except FAILURES as error:
            raise RecordsUnavailableError(str(error)) from error
        raise RecordsUnavailableError(f"{len(keys)} records were left unread")


def _key(message_id: str) -> dict[str, Any]:
    return {"pk": {"S": f"message#{message_id}"}, "sk": {"S": _SORT_KEY}}


def _text(each: RecipientRecord) -> str:
    return f"{each.outcome} {each.reason} {each.recipient}"


def _record(item: Mapping[str, Any]) -> MailRecord:
    recipients = set()
    for text in item["recipients"]["SS"]:
        outcome, reason, recipient = text.split(" ", 2)  # a quoted local part may hold more
        recipients.add(RecipientRecord(recipient, outcome, reason))
    return MailRecord(
        message_id=item["pk"]["S"].removeprefix("message#"),
        received_at=datetime.fromtimestamp(float(item["received_at"]["N"]), UTC),
        recipients=frozenset(recipients),
        found_undecided=bool(item.get("found_undecided", {}).get("BOOL")),
    )
