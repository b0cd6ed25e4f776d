"""DynamoDB's expressions, compiled once each: conditions, updates and key conditions.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.html
What the product does not use is refused, not guessed at.
"""

import operator
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache, reduce
from typing import Any

type Item = dict[str, Any]
type Value = Mapping[str, Any]
type Given = Mapping[str, Any]
type Operand = Callable[[Item, Given, Given], Value | None]
type Condition = Callable[[Item, Given, Given], bool]
type Step = Callable[[Item, Item, Given, Given], None]

_TOKEN = re.compile(r"\s*(<=|>=|<>|[()=<>,+\-]|[#:]?[A-Za-z_][A-Za-z0-9_.#]*)")
_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class ExpressionError(ValueError):
    """Not an expression of DynamoDB's, or one that is not known here."""


def comparable(value: Value) -> Any:
    """A number as a float: the product compares moments and counts, which one holds exactly."""
    ((kind, content),) = value.items()
    if kind == "N":
        return float(content)
    if kind in ("SS", "NS"):
        return frozenset(content)
    return content


def kind_of(value: Value) -> str:
    return next(iter(value))


def _either(one: Condition, other: Condition) -> Condition:
    return lambda i, n, v: one(i, n, v) or other(i, n, v)


def _both(one: Condition, other: Condition) -> Condition:
    return lambda i, n, v: one(i, n, v) and other(i, n, v)


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise ExpressionError(f"{text!r} at {at}")
            self._tokens.append(found[1])
            at = found.end()
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def word(self) -> str:
        return self.peek().upper()

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token.upper() != expected):
            raise ExpressionError(f"{expected or 'more'} expected, not {token!r}")
        self._at += 1
        return token

    # --- Conditions ---------------------------------------------------------------------------

    def condition(self) -> Condition:
        parts = [self._conjunction()]
        while self.word() == "OR":
            self.take()
            parts.append(self._conjunction())
        return reduce(_either, parts)

    def _conjunction(self) -> Condition:
        parts = [self._negation()]
        while self.word() == "AND":
            self.take()
            parts.append(self._negation())
        return reduce(_both, parts)

    def _negation(self) -> Condition:
        if self.word() == "NOT":
            self.take()
            inner = self._negation()
            return lambda i, n, v: not inner(i, n, v)
        if self.peek() == "(":
            self.take()
            inside = self.condition()
            self.take(")")
            return inside
        if self.word() in ("ATTRIBUTE_EXISTS", "ATTRIBUTE_NOT_EXISTS", "BEGINS_WITH", "CONTAINS"):
            return self._function()
        return self._comparison()

    def _function(self) -> Condition:
        name = self.take().upper()
        self.take("(")
        first = self.operand()
        second: Operand = first
        if self.peek() == ",":
            self.take()
            second = self.operand()
        self.take(")")
        if name == "ATTRIBUTE_EXISTS":
            return lambda i, n, v: first(i, n, v) is not None
        if name == "ATTRIBUTE_NOT_EXISTS":
            return lambda i, n, v: first(i, n, v) is None

        def test(item: Item, names: Given, values: Given) -> bool:
            whole, part = first(item, names, values), second(item, names, values)
            if whole is None or part is None:
                return False
            if name == "BEGINS_WITH":
                return bool(comparable(whole).startswith(comparable(part)))
            return comparable(part) in comparable(whole)

        return test

    def _comparison(self) -> Condition:
        left = self.operand()
        sign = self.take().upper()
        if sign == "IN":
            self.take("(")
            several = [self.operand()]
            while self.peek() == ",":
                self.take()
                several.append(self.operand())
            self.take(")")
            return lambda i, n, v: any(_compare("=", left(i, n, v), o(i, n, v)) for o in several)
        if sign == "BETWEEN":
            low = self.operand()
            self.take("AND")
            high = self.operand()
            return lambda i, n, v: (
                _compare(">=", left(i, n, v), low(i, n, v))
                and _compare("<=", left(i, n, v), high(i, n, v))
            )
        right = self.operand()
        return lambda i, n, v: _compare(sign, left(i, n, v), right(i, n, v))

    # --- Operands -----------------------------------------------------------------------------

    def operand(self) -> Operand:
        token = self.take()
        if token.startswith(":"):
            return lambda _i, _n, values: values[token]
        if token.lower() == "if_not_exists":
            self.take("(")
            path, other = self.operand(), None
            self.take(",")
            other = self.operand()
            self.take(")")

            def either(item: Item, names: Given, values: Given) -> Value | None:
                there = path(item, names, values)
                return there if there is not None else other(item, names, values)

            return either
        if not re.match(r"[#A-Za-z_]", token):
            raise ExpressionError(f"{token!r} is no operand")
        if "." in token:
            return lambda item, names, _v: _find(item, _path(token, names))
        if token.startswith("#"):
            return lambda item, names, _v: item.get(names[token])
        return lambda item, _n, _v: item.get(token)

    def sum(self) -> Operand:
        total = self.operand()
        while self.peek() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            total = _added(total, self.operand(), sign)
        return total

    # --- Updates ------------------------------------------------------------------------------

    def update(self) -> list[Step]:
        steps: list[Step] = []
        while self.peek():
            clause = self.take().upper()
            make = {"SET": self._set, "ADD": self._add, "REMOVE": self._remove}.get(clause)
            if make is None:
                raise ExpressionError(f"clause {clause!r}")
            steps.append(make())
            while self.peek() == ",":
                self.take()
                steps.append(make())
        return steps

    def _set(self) -> Step:
        target = self.take()
        self.take("=")
        source = self.sum()
        nested, named = "." in target, target.startswith("#")

        def step(new: Item, old: Item, names: Given, values: Given) -> None:
            value = source(old, names, values)
            if value is None:
                raise ExpressionError(f"{target} is set to an attribute that is not there")
            if nested:
                _put(new, _path(target, names), value)
            else:
                new[names[target] if named else target] = value

        return step

    def _add(self) -> Step:
        target, source = self.take(), self.operand()

        def step(new: Item, old: Item, names: Given, values: Given) -> None:
            more = source(old, names, values)
            path = _path(target, names)
            there = _find(old, path)
            if more is None:
                raise ExpressionError(f"ADD {target} nothing")
            if kind_of(more) == "N":
                before = Decimal(there["N"]) if there is not None else Decimal(0)
                _put(new, path, {"N": str(before + Decimal(more["N"]))})
                return
            kind = kind_of(more)
            union = dict.fromkeys([*(there[kind] if there is not None else []), *more[kind]])
            _put(new, path, {kind: sorted(union)})

        return step

    def _remove(self) -> Step:
        target = self.take()

        def step(new: Item, _old: Item, names: Given, _values: Given) -> None:
            new.pop(_path(target, names)[0], None)

        return step

    def end(self) -> None:
        if self.peek():
            raise ExpressionError(f"{self.peek()!r} is left over")


def _path(token: str, names: Given) -> list[str]:
    return [names[part] if part.startswith("#") else part for part in token.split(".")]


def _find(item: Item, path: list[str]) -> Value | None:
    value: Any = item.get(path[0])
    for part in path[1:]:
        value = value["M"].get(part) if value is not None and "M" in value else None
    found: Value | None = value
    return found


def _put(item: Item, path: list[str], value: Value) -> None:
    if len(path) == 1:
        item[path[0]] = value
        return
    inner = dict(item[path[0]]["M"])
    _put(inner, path[1:], value)
    item[path[0]] = {"M": inner}


def _added(left: Operand, right: Operand, sign: int) -> Operand:
    def total(item: Item, names: Given, values: Given) -> Value | None:
        one, other = left(item, names, values), right(item, names, values)
        if one is None or other is None:
            return None
        return {"N": str(Decimal(one["N"]) + sign * Decimal(other["N"]))}

    return total


def _compare(sign: str, left: Value | None, right: Value | None) -> bool:
    if left is None or right is None:
        return sign == "<>" and left is not right
    if sign == "=" and left == right:
        return True
    if left.keys() != right.keys():
        return sign == "<>"
    one, other = comparable(left), comparable(right)
    if sign == "=":
        return bool(one == other)
    if sign == "<>":
        return bool(one != other)
    holds = _ORDER.get(sign)
    if holds is None:
        raise ExpressionError(f"{sign!r} compares nothing")
    return bool(holds(one, other))


@cache
def condition(text: str) -> Condition:
    parser = _Parser(text)
    compiled = parser.condition()
    parser.end()
    return compiled


@cache
def update(text: str) -> tuple[Step, ...]:
    parser = _Parser(text)
    compiled = tuple(parser.update())
    parser.end()
    return compiled
