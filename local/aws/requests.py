"""Who asked AWS on this machine for what: what a real account would bill."""

import json
import re
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from local.aws.gate import App, Receive, Scope, Send, body_of, replayed

_TRANSACTION_UNITS = 2
"""Units of an item in a transaction (DynamoDB developer guide, "Read/write capacity mode")."""
_CREDENTIAL = re.compile(rb"Credential=([A-Z0-9]+)/\d+/[^/]+/([a-z0-9-]+)/")


class Asked(msgspec.Struct, kw_only=True):
    """Requests of one kind by one caller."""

    caller: str
    """A function's name, or an IAM user's; "" for anybody else, such as SES itself."""
    service: str
    operation: str
    """AWS's name; of a REST API the method."""
    count: int = 0
    units: float = 0.0
    """DynamoDB: request units, items taken to be under 1 KB; elsewhere as many as requests."""
    seconds: float = 0.0
    """How long the answers took on this machine."""


class Requests:
    """An ASGI application around another one, behind the gate."""

    def __init__(self, behind: App) -> None:
        self._behind = behind
        self._asked: dict[tuple[str, str, str], Asked] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._behind(scope, receive, send)
            return
        body = await body_of(receive) or b""
        kind = _kind(scope, body)
        began = time.monotonic()
        await self._behind(scope, replayed(body, receive), send)
        if kind is not None:
            caller, service, operation = kind
            new = Asked(caller=caller, service=service, operation=operation)
            asked = self._asked.setdefault(kind, new)
            asked.count += 1
            asked.units += _units(operation, body) if service == "dynamodb" else 1
            asked.seconds += time.monotonic() - began

    def listed(self) -> list[Asked]:
        return [*self._asked.values()]


def _kind(scope: Scope, body: bytes) -> tuple[str, str, str] | None:
    """Caller, service, operation; None for a request that is not signed."""
    headers = {name.lower(): value for name, value in scope.get("headers", ())}
    found = _CREDENTIAL.search(headers.get(b"authorization", b""))
    if found is None:
        return None
    return caller_of(found[1].decode()), found[2].decode(), _operation(scope, headers, body)


def caller_of(key: str) -> str:
    """The function or the IAM user that an access key is of; "" for anybody else."""
    from ministack.services import iam, sts

    if session := sts._sessions.get(key):
        return str(session.get("Arn", "")).rpartition("/")[2]
    for (_, known), record in iam._access_keys.to_dict().items():
        if known == key:
            return str(record.get("UserName", ""))
    return ""


def _operation(scope: Scope, headers: Mapping[bytes, bytes], body: bytes) -> str:
    if target := headers.get(b"x-amz-target", b""):
        return target.decode("latin-1").rpartition(".")[2]
    if action := re.search(rb"(?:^|&)Action=(\w+)", body):
        return action[1].decode()
    return str(scope["method"])


def _units(operation: str, body: bytes) -> float:
    """What DynamoDB counts for a request, its items taken to be under 1 KB."""
    try:
        return _units_of(operation, json.loads(body))
    except (ValueError, LookupError, TypeError, AttributeError):  # DynamoDB refuses it
        return 0


def _units_of(operation: str, asked: Mapping[str, Any]) -> float:
    match operation:
        case "BatchGetItem":
            return sum(
                len(each["Keys"]) * (1 if each.get("ConsistentRead") else 0.5)
                for each in asked["RequestItems"].values()
            )
        case "GetItem" | "Query" | "Scan":
            return 1 if asked.get("ConsistentRead") else 0.5
        case "BatchWriteItem":
            return sum(len(each) for each in asked["RequestItems"].values())
        case "TransactWriteItems" | "TransactGetItems":
            return _TRANSACTION_UNITS * len(asked["TransactItems"])
        case _:
            return 1
