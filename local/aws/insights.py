"""CloudWatch Logs Insights: the part of its query language that anybody uses here, and no more.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html

`fields`, `display`, `filter`, `stats count(*) … by …`, `sort` and `limit`, with aliases. What is
not known is refused, as AWS refuses what it does not know: a filter that is passed over in silence
makes every test of it true.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec

FIELDS_DISCOVERED = 200
"""Of a line's JSON, the first; arrays are flattened to names with a number in them."""

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    | (?P<regex>/(?:\\.|[^/\\])*/)
    | (?P<number>-?\d+(?:\.\d+)?(?![\w.]))
    | (?P<name>@?`[^`]+`|[@A-Za-z_][\w.]*)
    | (?P<sign>!=|<=|>=|[=<>()\[\],*|])
    | (?P<comment>\#[^\n]*)
    )""",
    re.VERBOSE | re.DOTALL,
)


class QueryError(Exception):
    """Not a query that this AWS knows."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A log event."""

    at: int
    """Milliseconds since 1970."""
    text: str
    log: str
    stream: str


type Row = Mapping[str, Any]
type Value = Callable[[Row], Any]
type Test = Callable[[Row], bool]


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A query that was understood."""

    filters: Sequence[Test] = ()
    fields: Mapping[str, Value] = {}
    """What is shown, by its name."""
    counted: str = ""
    """The name of `count(*)`, if lines are counted."""
    by: Mapping[str, Value] = {}
    sort: tuple[str, bool] | None = None
    """By what, and whether the largest comes first."""
    limit: int | None = None

    def run(self, lines: Iterable[Line], limit: int) -> tuple[list[dict[str, str]], int]:
        """Rows, and how many lines matched."""
        rows = (_Fields(each) for each in lines)
        matching = [row for row in rows if all(test(row) for test in self.filters)]
        shown = list(self._counts(matching) if self.counted else self._shown(matching))
        shown.sort(key=lambda each: -each[0])  # the newest first, where nobody says otherwise
        if self.sort is not None:
            name, descending = self.sort
            shown.sort(key=lambda each: _order(each[1].get(name)), reverse=descending)
        most = min(limit, self.limit) if self.limit is not None else limit
        return [_written(row) for _, row in shown[:most]], len(matching)

    def _shown(self, matching: Iterable["_Fields"]) -> Iterator[tuple[int, dict[str, Any]]]:
        fields = self.fields or {name: _of(name) for name in ("@timestamp", "@message")}
        hidden = {self.sort[0]: _of(self.sort[0])} if self.sort else {}
        for row in matching:
            values = {name: value(row) for name, value in {**hidden, **fields}.items()}
            yield row.line.at, values

    def _counts(self, matching: Iterable["_Fields"]) -> Iterator[tuple[int, dict[str, Any]]]:
        groups = Counter(tuple(value(row) for value in self.by.values()) for row in matching)
        for group, number in groups.items():
            yield 0, {**dict(zip(self.by, group, strict=True)), self.counted: number}


class _Fields(dict[str, Any]):
    """A line's fields; its JSON is read when somebody first asks for one of it."""

    def __init__(self, line: Line) -> None:
        super().__init__({"@message": line.text})
        self.line = line
        self._discovered = False

    def __missing__(self, name: str) -> Any:
        match name:
            case "@timestamp":
                at = datetime.fromtimestamp(self.line.at / 1000, UTC)
                return at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
            case "@log" | "@logStream":
                return self.line.log if name == "@log" else self.line.stream
        if self._discovered:
            return None
        self._discovered = True
        start = self.line.text.find("{")
        try:
            found, _ = json.JSONDecoder().raw_decode(self.line.text[start:] if start >= 0 else "")
        except ValueError:
            return None
        for number, (field, value) in enumerate(_flat(found, "")):
            if number == FIELDS_DISCOVERED:
                break
            self.setdefault(field, value)
        return self.get(name)


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        parts: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    else:
        if value is not None:
            yield name, value
        return
    for key, each in parts:
        yield from _flat(each, f"{name}.{key}" if name else str(key))


def parse(text: str) -> Query:
    """
    Raises:
        QueryError: as AWS refuses it, or more than this AWS knows.
    """
    return _Parser(_tokens(text)).query()


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = text.strip()
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise QueryError(f"unexpected {text[at : at + 20]!r}")
        kind, at = str(token.lastgroup), token.end()
        if kind != "comment":
            found.append((kind, token[kind]))
    return found


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0

    def query(self) -> Query:
        query = Query()
        while True:
            query = self._command(query)
            if self._at == len(self._tokens):
                return query
            self._take("|")

    def _command(self, query: Query) -> Query:
        command = self._take().lower()
        if query.counted and command in ("fields", "display", "filter", "stats"):
            self._refuse(f"{command} after stats")
        match command:
            case "fields" | "display":
                return msgspec.structs.replace(query, fields={**query.fields, **self._named()})
            case "filter":
                return msgspec.structs.replace(query, filters=[*query.filters, self._or()])
            case "stats":
                for each in ("count", "(", "*", ")"):
                    self._take(each)
                counted = self._take() if self._next("as") else "count(*)"
                by = self._named() if self._next("by") else {}
                return msgspec.structs.replace(query, counted=counted, by=by)
            case "sort":
                name = _plain(self._take())
                down = self._next("desc")
                if not down:
                    self._next("asc")
                return msgspec.structs.replace(query, sort=(name, down))
            case "limit":
                return msgspec.structs.replace(query, limit=self._number())
        return self._refuse(f"the command {command}")

    def _named(self) -> dict[str, Value]:
        named = {}
        while True:
            kind, text = self._peek()
            if kind != "name":
                self._refuse(text or "the end")
            value = self._value()
            named[self._take() if self._next("as") else _plain(text)] = value
            if not self._next(","):
                return named

    # --- Conditions ---------------------------------------------------------------------------

    def _or(self) -> Test:
        tests = [self._and()]
        while self._next("or"):
            tests.append(self._and())
        return tests[0] if len(tests) == 1 else lambda row: any(test(row) for test in tests)

    def _and(self) -> Test:
        tests = [self._not()]
        while self._next("and"):
            tests.append(self._not())
        return tests[0] if len(tests) == 1 else lambda row: all(test(row) for test in tests)

    def _not(self) -> Test:
        if self._next("not"):
            test = self._not()
            return lambda row: not test(row)
        if self._next("("):
            test = self._or()
            self._take(")")
            return test
        return self._comparison()

    def _comparison(self) -> Test:
        value = self._value()
        negated = self._next("not")
        if self._next("like"):
            test = self._like(value)
        elif self._next("in"):
            test = self._in(value)
        elif negated:
            self._refuse("not")
        else:
            test = self._compared(value)
        return (lambda row: not test(row)) if negated else test

    def _like(self, value: Value) -> Test:
        kind, text = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        if kind not in ("regex", "text"):
            self._refuse("what like is followed by")
        self._at += 1
        try:
            pattern = re.compile(text[1:-1] if kind == "regex" else re.escape(_unquoted(text)))
        except re.error as error:
            raise QueryError(f"the regular expression {text}: {error}") from error
        return lambda row: (got := value(row)) is not None and bool(pattern.search(str(got)))

    def _in(self, value: Value) -> Test:
        self._take("[")
        values = [self._value()]
        while self._next(","):
            values.append(self._value())
        self._take("]")
        return lambda row: value(row) in [each(row) for each in values]

    def _compared(self, value: Value) -> Test:
        sign = self._take()
        if sign not in _COMPARES:
            self._refuse(sign)
        other, compare = self._value(), _COMPARES[sign]

        def test(row: Row) -> bool:
            left, right = value(row), other(row)
            if left is None or right is None:
                return False
            if isinstance(left, int | float) != isinstance(right, int | float):
                left, right = str(left), str(right)
            return bool(compare(left, right))

        return test

    def _value(self) -> Value:
        kind, text = self._peek()
        self._at += 1
        if kind == "text":
            constant: Any = _unquoted(text)
            return lambda _: constant
        if kind == "number":
            number = float(text) if "." in text else int(text)
            return lambda _: number
        if kind == "name" and self._peek()[1] != "(":
            return _of(_plain(text))
        return self._refuse(f"the function {text}" if kind == "name" else text)

    # --- Tokens -------------------------------------------------------------------------------

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "")

    def _next(self, text: str) -> bool:
        kind, found = self._peek()
        if kind in ("name", "sign") and found.lower() == text:
            self._at += 1
            return True
        return False

    def _take(self, text: str = "") -> str:
        _, found = self._peek()
        if not found or (text and found.lower() != text):
            self._refuse(found or "the end")
        self._at += 1
        return found

    def _number(self) -> int:
        text = self._take()
        if not text.isdigit():
            self._refuse(text)
        return int(text)

    def _refuse(self, what: str) -> NoReturn:
        raise QueryError(f"{what} is not known here (local/aws/insights.py)")


_COMPARES: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


def _of(name: str) -> Value:
    def value(row: Row) -> Any:
        return row[name]

    return value


def _plain(name: str) -> str:
    return name.replace("`", "")


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _order(value: Any) -> tuple[int, float, str]:
    """Nothing, then numbers, then text."""
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, float(value), ""
    return 2, 0.0, str(value)


def _written(row: Row) -> dict[str, str]:
    return {
        name: json.dumps(value) if isinstance(value, bool) else str(value)
        for name, value in row.items()
        if value is not None
    }
