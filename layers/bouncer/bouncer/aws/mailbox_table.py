"""The mailbox table as a whole: read for `rules sync`, written by people and imports only."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import ClientError

from bouncer.aws.directory import projection, read_item
from bouncer.mailboxes import Mailbox

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

USAGE_FIELDS = frozenset({"used_bytes", "messages_day", "messages_today"})
"""What mail itself changes; an import leaves it alone."""

_PUTS_A_BATCH = 25  # BatchWriteItem's limit
_SCANNED_AT_ONCE = 1000
"""Entries; the megabyte that DynamoDB gives at most is twenty of memory once it is read."""
_GETS_A_BATCH = 100  # BatchGetItem's
_WRITERS = 8
_EXISTS = "attribute_exists(#address)"


class MailboxEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What an import has of one address."""

    mailbox: Mailbox
    named: frozenset[str]
    """The fields that it speaks of, be it to empty them."""
    empty: frozenset[str] = frozenset()
    """Those of them whose cell in a CSV file is empty."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What an import does to one entry."""

    address: str
    kind: str
    """added, changed or unchanged."""
    fields: dict[str, tuple[Any, Any]] = {}
    """Of a changed or added entry: the field's value before and after."""
    mailbox: Mailbox
    """The whole entry as it is then."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One read of the table."""

    mailboxes: list[Mailbox]
    read: int
    """Entries looked at."""
    next: str | None
    """Where the next read begins; None: that was the last."""


class MailboxTable:
    """The stack's own table, or the user's with other attribute names."""

    def __init__(
        self,
        client: "DynamoDBClient",
        name: str,
        *,
        names: Mapping[str, str] | None = None,
        on_bad_item: Callable[[str, str], None] = lambda _address, _error: None,
    ) -> None:
        """
        Args:
            names, on_bad_item: as DynamoDirectory has them.
        """
        self._client = client
        self._name = name
        self._names = names or {}
        self._on_bad_item = on_bad_item
        self._bad: set[str] = set()

    def scan(self) -> Iterator[Mailbox]:
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._name,
            ConsistentRead=True,
            PaginationConfig={"PageSize": _SCANNED_AT_ONCE},
            **projection(self._names),
        )
        for page in pages:
            for item in page["Items"]:
                yield self._read(item)

    def part(
        self,
        after: str | None,
        *,
        limit: int,
        beginning: str = "",
        containing: str = "",
    ) -> Part:
        """What one read finds: 1 MB of the table at most, in its own order, which is none.

        Args:
            after: the address after which it begins; None: at the beginning.
            limit: entries that are looked at.
            beginning, containing: only addresses of which that is the beginning, or a part.
        """
        tests = {"begins_with": beginning, "contains": containing}
        given = {name: value for name, value in tests.items() if value}
        optional: dict[str, Any] = {}
        if given:
            optional = {
                "FilterExpression": " AND ".join(f"{name}(#address, :{name})" for name in given),
                "ExpressionAttributeNames": {"#address": self._attribute("address")},
                "ExpressionAttributeValues": {f":{k}": {"S": v} for k, v in given.items()},
            }
        if after is not None:
            optional["ExclusiveStartKey"] = self._key(after)
        answer = self._client.scan(TableName=self._name, Limit=limit, **optional)
        last: Any = answer.get("LastEvaluatedKey")
        return Part(
            mailboxes=[self._read(item) for item in answer["Items"]],
            read=answer["ScannedCount"],
            next=last[self._attribute("address")]["S"] if last else None,
        )

    def about(self) -> int:
        """How many entries there are, as DynamoDB counts them every six hours."""
        return int(self._client.describe_table(TableName=self._name)["Table"]["ItemCount"])

    def get(self, addresses: Sequence[str]) -> dict[str, Mailbox]:
        """The entries of these addresses; a hundred cost one read."""
        found: dict[str, Mailbox] = {}
        for some in batched(dict.fromkeys(addresses), _GETS_A_BATCH, strict=False):
            found |= self._get(some)
        return found

    def _get(self, addresses: Iterable[str]) -> dict[str, Mailbox]:
        keys = [self._key(each) for each in addresses]
        found: dict[str, Mailbox] = {}
        while keys:
            answer = self._client.batch_get_item(RequestItems={self._name: {"Keys": keys}})
            for item in answer["Responses"].get(self._name, []):
                mailbox = self._read(item)
                found[mailbox.address] = mailbox
            keys = list(answer["UnprocessedKeys"].get(self._name, {"Keys": []})["Keys"])
        return found

    def add(self, mailbox: Mailbox) -> bool:
        """Put a new entry; False when there is one."""
        return self._conditional(
            lambda: self._client.put_item(
                TableName=self._name,
                Item=self._item(mailbox),
                ConditionExpression="attribute_not_exists(#address)",
                ExpressionAttributeNames={"#address": self._attribute("address")},
            )
        )

    def change(self, address: str, fields: Mapping[str, Any], unset: Iterable[str] = ()) -> bool:
        """Set and remove fields of an entry; False when there is none."""
        removed = list(unset)
        names = {f"#{name}": self._attribute(name) for name in ("address", *fields, *removed)}
        parts = []
        if fields:
            parts.append("SET " + ", ".join(f"#{name} = :{name}" for name in fields))
        if removed:
            parts.append("REMOVE " + ", ".join(f"#{name}" for name in removed))
        values: Any = {f":{name}": _value(value) for name, value in fields.items()}
        # DynamoDB refuses an empty map of values, so it is left out when nothing is set.
        optional: dict[str, Any] = {"ExpressionAttributeValues": values} if values else {}
        return self._conditional(
            lambda: self._client.update_item(
                TableName=self._name,
                Key=self._key(address),
                UpdateExpression=" ".join(parts),
                ConditionExpression=_EXISTS,
                ExpressionAttributeNames=names,
                **optional,
            )
        )

    def remove(self, address: str) -> bool:
        return self._conditional(
            lambda: self._client.delete_item(
                TableName=self._name,
                Key=self._key(address),
                ConditionExpression=_EXISTS,
                ExpressionAttributeNames={"#address": self._attribute("address")},
            )
        )

    def put(
        self,
        entries: Sequence[MailboxEntry],
        *,
        dry_run: bool = False,
        written: Callable[[int], None] = lambda _: None,
    ) -> list[Change]:
        """Bring at most 100 entries to what they are given as.

        Fields that an entry does not name stay what they are, and so does usage.

        Args:
            written: told of entries as soon as they are as they were given.
        """
        wanted = {each.mailbox.address: each for each in entries}
        standing = self.get(list(wanted))
        changes = [
            _change(standing.get(each), entry, mend=self.unreadable(each))
            for each, entry in wanted.items()
        ]
        if not dry_run:
            written(sum(each.kind == "unchanged" for each in changes))
            self._write_new([c.mailbox for c in changes if c.kind == "added"], written)
            changed = [c for c in changes if c.kind == "changed"]
            with ThreadPoolExecutor(_WRITERS) as pool:
                for _ in pool.map(self._write_changed, changed):
                    written(1)
        return changes

    def _write_new(self, mailboxes: list[Mailbox], written: Callable[[int], None]) -> None:
        for batch in batched(mailboxes, _PUTS_A_BATCH, strict=False):
            requests: Any = [{"PutRequest": {"Item": self._item(each)}} for each in batch]
            pause = 0.05
            while requests:
                answer = self._client.batch_write_item(RequestItems={self._name: requests})
                left = answer["UnprocessedItems"].get(self._name, [])
                written(len(requests) - len(left))
                requests = left
                if requests:
                    time.sleep(pause)
                    pause = min(2 * pause, 5.0)

    def _write_changed(self, change: Change) -> None:
        after = {name: new for name, (_, new) in change.fields.items()}
        self.change(
            change.address,
            {name: value for name, value in after.items() if value is not None},
            [name for name, value in after.items() if value is None],
        )

    def unreadable(self, address: str) -> bool:
        """Whether an item was met that could not be read."""
        return address in self._bad

    def _read(self, item: Mapping[str, Any]) -> Mailbox:
        return read_item(item, self._names, self._bad_item)

    def _bad_item(self, address: str, error: str) -> None:
        self._bad.add(address)
        self._on_bad_item(address, error)

    def _attribute(self, field: str) -> str:
        return self._names.get(field, field)

    def _key(self, address: str) -> dict[str, Any]:
        return {self._attribute("address"): {"S": address}}

    def _item(self, mailbox: Mailbox) -> dict[str, Any]:
        fields = msgspec.to_builtins(mailbox)
        return {self._attribute(name): _value(value) for name, value in fields.items()}

    @staticmethod
    def _conditional(write: Any) -> bool:
        try:
            write()
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                return False
            raise
        return True


def _change(standing: Mailbox | None, wanted: MailboxEntry, *, mend: bool) -> Change:
    """What an entry changes; one that could not be read gets all that the file names."""
    address, after = wanted.mailbox.address, msgspec.to_builtins(wanted.mailbox)
    if standing is None:
        fields = {name: (None, value) for name, value in after.items() if name != "address"}
        return Change(address=address, kind="added", fields=fields, mailbox=wanted.mailbox)
    before = msgspec.to_builtins(standing)
    names = wanted.named - USAGE_FIELDS - {"address"}
    fields = {
        name: (before.get(name), after.get(name))
        for name in sorted(names)
        if mend or before.get(name) != after.get(name)
    }
    kind = "changed" if fields else "unchanged"
    given = {name: getattr(wanted.mailbox, name) for name in names}
    merged = msgspec.structs.replace(standing, **given)
    return Change(address=address, kind=kind, fields=fields, mailbox=merged)


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return {"BOOL": value}
    return {"N": str(value)} if isinstance(value, int) else {"S": str(value)}
