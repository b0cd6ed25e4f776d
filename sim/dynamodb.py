"""DynamoDB: conditional writes are atomic, reads may be stale, transactions collide."""

from collections.abc import Iterator
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from botocore.exceptions import ClientError

from sim import expressions
from sim.expressions import Item
from sim.kernel import Kernel
from sim.network import Client, Network, refused

type Key = tuple[str, ...]

# An eventually consistent read is rarely older; AWS says "a second or less".
_STALE = 2.0
_TOKENS_HOLD = 600.0
_FAILED = "ConditionalCheckFailed"


class Table:
    """Items by their key, and what they were a moment ago."""

    def __init__(self, name: str, kernel: Kernel, *key: str) -> None:
        self.name = name
        self.key = key
        self.items: dict[Key, Item] = {}
        self._partitions: dict[str, set[Key]] = {}
        self._kernel = kernel
        self._before: dict[Key, list[tuple[float, Item | None]]] = {}

    def key_of(self, item: Any) -> Key:
        return tuple(item[name]["S"] for name in self.key)

    def begin_with(self, key: Key, item: Item) -> None:
        """It is there from the beginning: no read is so stale that it misses it."""
        self._partitions.setdefault(key[0], set()).add(key)
        self.items[key] = item

    def write(self, key: Key, item: Item | None) -> None:
        kept = self._before.setdefault(key, [])
        kept.append((self._kernel.now, self.items.get(key)))
        del kept[:-8]
        self._partitions.setdefault(key[0], set()).add(key)
        if item is None:
            self.items.pop(key, None)
        else:
            self.items[key] = item

    def moment(self, *, stale: bool) -> float:
        """What a read shows: now, or up to a few seconds ago."""
        return self._kernel.now - (self._kernel.chance.uniform(0.0, _STALE) if stale else 0.0)

    def partition(self, name: str) -> list[Key]:
        """Every key of a partition that ever had an item, in order."""
        return sorted(self._partitions.get(name, ()))

    def every_key(self) -> list[Key]:
        return sorted(key for keys in self._partitions.values() for key in keys)

    def expire(self, share: float) -> None:
        """Delete some of what has expired, as DynamoDB does when it has the time."""
        now, chance = self._kernel.now, self._kernel.chance
        for key in self.every_key():
            expiry = self.items.get(key, {}).get("expires_at")
            if expiry is not None and float(expiry["N"]) <= now and chance.random() < share:
                self.write(key, None)

    def as_of(self, key: Key, moment: float) -> Item | None:
        """The item as it was at a moment."""
        if moment >= self._kernel.now:
            return self.items.get(key)
        for changed, before in self._before.get(key, []):
            if changed > moment:
                return before
        return self.items.get(key)


class DynamoDB:
    """The service: its tables, and what a request does to them."""

    def __init__(self, kernel: Kernel, tables: tuple[Table, ...]) -> None:
        self._kernel = kernel
        self.tables = {table.name: table for table in tables}
        self.tokens: dict[str, float] = {}

    def check(self, request: Any) -> tuple[Table, Key, Item | None, bool]:
        table = self.tables[request["TableName"]]
        key = table.key_of(request["Item"] if "Item" in request else request["Key"])
        there = table.items.get(key)
        text = request.get("ConditionExpression")
        names = request.get("ExpressionAttributeNames", {})
        values = request.get("ExpressionAttributeValues", {})
        holds = text is None or expressions.condition(text)(there or {}, names, values)
        return table, key, there, holds

    def apply(self, request: Any, table: Table, key: Key, there: Item | None) -> None:
        if "Item" in request:
            table.write(key, dict(request["Item"]))
            return
        if "UpdateExpression" not in request:
            table.write(key, None)
            return
        old = there if there is not None else dict(request["Key"])
        new = dict(old)
        names = request.get("ExpressionAttributeNames", {})
        for step in expressions.update(request["UpdateExpression"]):
            step(new, old, names, request.get("ExpressionAttributeValues", {}))
        table.write(key, new)

    def write(self, request: Any, operation: str) -> dict[str, Any]:
        table, key, there, holds = self.check(request)
        metadata = {"HTTPStatusCode": 200, "HTTPHeaders": self._headers()}
        if not holds:
            more: dict[str, Any] = {}
            if there is not None and request.get("ReturnValuesOnConditionCheckFailure"):
                more["Item"] = dict(there)
            error = refused("ConditionalCheckFailedException", 400, operation, **more)
            error.response["ResponseMetadata"]["HTTPHeaders"] = self._headers()
            raise error
        self.apply(request, table, key, there)
        answer: dict[str, Any] = {"ResponseMetadata": metadata}
        wanted = request.get("ReturnValues", "NONE")
        new = table.items.get(key) or {}
        if wanted == "ALL_OLD" and there is not None:
            answer["Attributes"] = dict(there)
        elif wanted == "UPDATED_OLD" and there is not None:
            changed = {n: v for n, v in there.items() if new.get(n) is not v}
            answer["Attributes"] = changed
        elif wanted in ("ALL_NEW", "UPDATED_NEW"):
            answer["Attributes"] = dict(new)
        return answer

    def transact(self, items: list[Any], token: str) -> dict[str, Any]:
        if self._kernel.now - self.tokens.get(token, -_TOKENS_HOLD) < _TOKENS_HOLD:
            return {}
        checked = []
        reasons: list[dict[str, Any]] = []
        for item in items:
            ((_, request),) = item.items()
            table, key, there, holds = self.check(request)
            checked.append((request, table, key, there))
            reason: dict[str, Any] = {"Code": "None" if holds else _FAILED}
            wanted = request.get("ReturnValuesOnConditionCheckFailure")
            if wanted and not holds and there is not None:
                reason["Item"] = dict(there)
            reasons.append(reason)
        if any(each["Code"] == _FAILED for each in reasons):
            raise _cancelled(reasons)
        for item, (request, table, key, there) in zip(items, checked, strict=True):
            if "ConditionCheck" not in item:
                self.apply(request, table, key, there)
        self.tokens[token] = self._kernel.now
        return {}

    def find(self, request: Any, *, stale: bool) -> list[Item]:
        """Query's and Scan's: all of it in one page."""
        table = self.tables[request["TableName"]]
        names = request.get("ExpressionAttributeNames", {})
        values = request.get("ExpressionAttributeValues", {})
        keyed = request.get("KeyConditionExpression")
        keys = (
            table.every_key()
            if keyed is None
            else table.partition(_partition(table, keyed, values))
        )
        tests = [
            expressions.condition(request[name])
            for name in ("KeyConditionExpression", "FilterExpression")
            if name in request
        ]
        moment = table.moment(stale=stale)
        found = (table.as_of(key, moment) for key in keys)
        return [dict(i) for i in found if i is not None and all(t(i, names, values) for t in tests)]

    def _headers(self) -> dict[str, str]:
        return {"date": _date(int(self._kernel.now))}


def _partition(table: Table, condition: str, values: Any) -> str:
    """The partition that a key condition names first, as it has to."""
    name, _, rest = condition.partition(" = ")
    assert name == table.key[0], condition
    found: str = values[rest.split(" ")[0]]["S"]
    return found


@lru_cache(maxsize=64)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _cancelled(reasons: list[dict[str, Any]]) -> ClientError:
    return refused(
        "TransactionCanceledException", 400, "TransactWriteItems", CancellationReasons=reasons
    )


class DynamoDBClient(Client):
    """What the product asks of boto3's client."""

    def __init__(self, service: DynamoDB, network: Network, config: Any) -> None:
        super().__init__("dynamodb", network, config)
        self._db = service
        self.exceptions = _Exceptions

    def update_item(self, **request: Any) -> dict[str, Any]:
        what = f"UpdateItem {_named(request)}"
        return self.request("UpdateItem", what, lambda: self._db.write(request, "UpdateItem"))

    def put_item(self, **request: Any) -> dict[str, Any]:
        what = f"PutItem {_named(request)}"
        return self.request("PutItem", what, lambda: self._db.write(request, "PutItem"))

    def delete_item(self, **request: Any) -> dict[str, Any]:
        what = f"DeleteItem {_named(request)}"
        return self.request("DeleteItem", what, lambda: self._db.write(request, "DeleteItem"))

    def get_item(self, **request: Any) -> dict[str, Any]:
        def do() -> dict[str, Any]:
            item = self._read(request["TableName"], request["Key"], request)
            return {"Item": item} if item is not None else {}

        return self.request("GetItem", f"GetItem {_named(request)}", do)

    def batch_get_item(self, **request: Any) -> dict[str, Any]:
        wanted = request["RequestItems"]
        count = sum(len(each["Keys"]) for each in wanted.values())

        def do() -> dict[str, Any]:
            responses: dict[str, Any] = {}
            left: dict[str, Any] = {}
            for name, asked in wanted.items():
                keys = asked["Keys"]
                if len(keys) > 1 and self._falls("throttled"):
                    keys, left[name] = keys[1:], {**asked, "Keys": keys[:1]}
                found = (self._read(name, key, asked) for key in keys)
                responses[name] = [item for item in found if item is not None]
            return {"Responses": responses, "UnprocessedKeys": left}

        return self.request("BatchGetItem", f"BatchGetItem of {count}", do)

    def transact_write_items(self, **request: Any) -> dict[str, Any]:
        items = request["TransactItems"]
        # botocore makes one a call, so that its own repetitions are done once.
        token = request.get("ClientRequestToken") or str(self._kernel.ticket())

        def do() -> dict[str, Any]:
            if self._falls("conflict"):
                raise _cancelled([{"Code": "TransactionConflict"} for _ in items])
            return self._db.transact(items, token)

        first = _named(next(iter(items[0].values())))
        return self.request("TransactWriteItems", f"TransactWriteItems {first}", do)

    def query(self, **request: Any) -> dict[str, Any]:
        values = [next(iter(v.values())) for v in request["ExpressionAttributeValues"].values()]
        what = f"Query {' '.join(map(str, values))}"
        return self.request("Query", what, lambda: self._found(request))

    def scan(self, **request: Any) -> dict[str, Any]:
        return self.request("Scan", "Scan", lambda: self._found(request))

    def get_paginator(self, operation: str) -> "_Paginator":
        return _Paginator(getattr(self, operation))

    def _read(self, name: str, key: Any, request: Any) -> Item | None:
        table = self._db.tables[name]
        found = table.as_of(table.key_of(key), table.moment(stale=self._stale(request)))
        return dict(found) if found is not None else None

    def _found(self, request: Any) -> dict[str, Any]:
        return {"Items": self._db.find(request, stale=self._stale(request))}

    def _stale(self, request: Any) -> bool:
        return not request.get("ConsistentRead") and self._falls("stale-read")


class _Paginator:
    def __init__(self, ask: Any) -> None:
        self._ask = ask

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        yield self._ask(**request)


class _Exceptions:
    ConditionalCheckFailedException = ClientError


def _named(request: Any) -> str:
    key = request["Key"] if "Key" in request else request["Item"]
    parts = [key[name]["S"] for name in ("pk", "sk", "address") if name in key]
    return " ".join(parts)
