"""What a function's role lets it ask of DynamoDB, by the template, item by item.

Neither AWS on this machine nor moto knows leading keys, or the attributes of a write. So every
call that a function makes in a test is held against its role here, by the rules that AWS documents:
docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
"""

import os
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple

from tests.unit.template import branches, resources, walk

_TABLES = {
    "KeepPace": "PACE_TABLE",
    "MakeMailboxTable": "MAILBOX_TABLE",
    "BounceTable": "BOUNCE_TABLE",
}
"""What a statement's resource speaks of, and the setting that names that table."""
_WORD = re.compile(r"[#:]?[A-Za-z_][A-Za-z0-9_]*")
_GRAMMAR = {"SET", "ADD", "REMOVE", "DELETE", "AND", "OR", "NOT", "BETWEEN", "IN"}
_GRAMMAR |= {"attribute_exists", "attribute_not_exists", "if_not_exists", "begins_with"}
_OF_A_TRANSACTION = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem"}
_OF_A_TRANSACTION |= {"ConditionCheck": "ConditionCheckItem"}


class Call(NamedTuple):
    """One item's part of a request, as IAM is asked about it."""

    action: str
    tables: frozenset[str]
    """The settings that name its table: the pace's is often that of the bounces."""
    context: dict[str, tuple[str, ...]]
    """Condition keys of IAM with their values; a key that the request has none for is absent."""

    @property
    def leading_key(self) -> str:
        (only,) = self.context["dynamodb:LeadingKeys"]
        return only

    @property
    def attributes(self) -> frozenset[str]:
        return frozenset(self.context.get("dynamodb:Attributes", ()))


def calls(operation: str, request: dict[str, Any]) -> Iterator[Call]:
    """What IAM is asked for a request, one answer an item."""
    if operation == "TransactWriteItems":
        for each in request["TransactItems"]:
            ((kind, part),) = each.items()
            yield from _calls(_OF_A_TRANSACTION[kind], part, part.get("Key") or part["Item"])
    elif operation == "BatchGetItem":
        for table, asked in request["RequestItems"].items():
            for key in asked["Keys"]:
                yield from _calls(operation, {"TableName": table, **asked}, key)
    elif operation == "Query":
        (name,) = re.findall(r"^\w+ = (:\w+)", request["KeyConditionExpression"])
        yield from _calls(operation, request, {"pk": request["ExpressionAttributeValues"][name]})
    elif operation in ("GetItem", "PutItem", "UpdateItem"):
        yield from _calls(operation, request, request.get("Key") or request["Item"])
    else:
        yield from _calls(operation, request, {})


def _calls(operation: str, request: dict[str, Any], key: dict[str, Any]) -> Iterator[Call]:
    context: dict[str, tuple[str, ...]] = {}
    leading = [key[name]["S"] for name in ("pk", "address") if name in key]
    if leading:
        context["dynamodb:LeadingKeys"] = tuple(leading)
    names = {*key, *request.get("Item", {}), *_names(request)}
    context["dynamodb:Attributes"] = tuple(sorted(names))
    if operation in ("Query", "Scan", "GetItem", "BatchGetItem"):
        named = "ProjectionExpression" in request
        context["dynamodb:Select"] = ("SPECIFIC_ATTRIBUTES" if named else "ALL_ATTRIBUTES",)
    if operation == "UpdateItem" and "ReturnValues" in request:
        context["dynamodb:ReturnValues"] = (request["ReturnValues"],)
    tables = {each for each in _TABLES.values() if os.environ.get(each) == request["TableName"]}
    yield Call(f"dynamodb:{operation}", frozenset(tables), context)


def _names(request: dict[str, Any]) -> Iterator[str]:
    """The attributes that a request's expressions name."""
    places = request.get("ExpressionAttributeNames", {})
    for name, text in request.items():
        if name.endswith("Expression"):
            for word in _WORD.findall(text):
                if not word.startswith(":") and word not in _GRAMMAR:
                    yield places.get(word, word)


class Statement(NamedTuple):
    """One of a role's, as far as it is about DynamoDB."""

    sid: str
    actions: tuple[str, ...]
    table: str
    conditions: dict[str, dict[str, list[str]]]

    def allows(self, call: Call) -> bool:
        return (
            call.action in self.actions
            and self.table in call.tables
            and all(
                _OPERATORS[operator](call.context.get(key), _listed(wanted))
                for operator, keys in self.conditions.items()
                for key, wanted in keys.items()
            )
        )

    def values(self, key: str) -> list[str]:
        """What a condition key may be; nothing where any value will do."""
        return [v for keys in self.conditions.values() for v in _listed(keys.get(key, []))]


type _Test = Callable[[tuple[str, ...] | None, list[str]], bool]
_OPERATORS: dict[str, _Test] = {
    "ForAllValues:StringLike": lambda has, wanted: all(
        any(fnmatchcase(value, each) for each in wanted) for value in has or ()
    ),
    "ForAllValues:StringEquals": lambda has, wanted: set(has or ()) <= set(wanted),
    "StringEqualsIfExists": lambda has, wanted: has is None or set(has) <= set(wanted),
}


@cache
def statements(role: str, *, renamed: bool = False) -> tuple[Statement, ...]:
    """A role's own and those that it shares.

    Args:
        renamed: whether a user's own table calls its attributes otherwise.
    """
    properties = resources("AWS::IAM::Role")[role]
    documents = [each["PolicyDocument"] for each in properties["Policies"]]
    shared = resources("AWS::IAM::ManagedPolicy")
    for arn in properties["ManagedPolicyArns"]:
        documents += [shared[each["Ref"]]["PolicyDocument"] for each in branches(arn)]
    return tuple(
        Statement(
            each["Sid"],
            tuple(_listed(each["Action"])),
            _table(each["Resource"]),
            _chosen(each.get("Condition", {}), renamed=renamed),
        )
        for document in documents
        for statement in document["Statement"]
        for each in branches(statement)
        if _listed(each["Action"])[0].startswith("dynamodb:")
    )


def allowed(role: str, call: Call, *, renamed: bool) -> bool:
    return any(each.allows(call) for each in statements(role, renamed=renamed))


def _chosen(condition: dict[str, Any], *, renamed: bool) -> dict[str, Any]:
    """A statement's condition, whichever way the template's own come out."""
    if "Fn::If" not in condition:
        return condition
    (name, kept, otherwise) = condition["Fn::If"]
    assert name == "FieldsKeepTheirNames"
    assert otherwise == {"Ref": "AWS::NoValue"}
    return {} if renamed else dict(kept)


def _table(resource: Any) -> str:
    parts = [part for part in walk(resource) if isinstance(part, str)]
    return next(setting for name, setting in _TABLES.items() if name in parts)


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]
