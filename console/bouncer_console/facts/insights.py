"""Log lines by CloudWatch Logs Insights: newest first, whatever their number, with what it cost.

A query is paid by the bytes that its time range holds, matching or not, so a range is read once
where that is enough. One query gives 10,000 rows (100,000 where AWS pages them); what is beyond is
asked for again in the part of the range that is left, cut into pieces that should fit.
"""

import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

DOLLARS_A_GIGABYTE = 0.005
"""Scanned by Logs Insights: us-east-1's list price of November 2026."""

ROWS = 100_000
"""The most that one query gives, in pages of 10,000 (StartQuery); some give 10,000 in all."""

_FIRST_LOOK, _LOOK_AT_MOST = 0.1, 2.0
_QUERIES_REFUSED = 6
"""How often a query is begun again while the account runs as many as it may."""
_RUNNING = frozenset({"Scheduled", "Running", "Unknown"})


class InsightsError(Exception):
    """A query was not answered."""


class Line(msgspec.Struct, frozen=True):
    """One log line."""

    at: datetime
    text: str


class Cost(msgspec.Struct):
    """What was asked of Logs Insights so far."""

    queries: int = 0
    bytes_scanned: float = 0
    cut: bool = False
    """Lines of one second are missing: they were more than a query gives."""

    @property
    def dollars(self) -> float:
        return self.bytes_scanned / 1e9 * DOLLARS_A_GIGABYTE


class Log:
    """The log groups of a stack's functions."""

    def __init__(
        self,
        client: "CloudWatchLogsClient",
        groups: Sequence[str],
        *,
        rows: int = ROWS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._groups = list(groups)
        self._rows = rows
        self._sleep = sleep
        self.cost = Cost()

    def lines(
        self,
        patterns: Sequence[str],
        since: datetime,
        until: datetime,
        on_read: Callable[[float], None] = lambda _: None,
        *,
        enough: int | None = None,
    ) -> Iterator[Line]:
        """Lines that match all of the patterns, the newest first.

        Args:
            patterns: regular expressions, made with `literal` where they hold what others wrote.
            since, until: whole seconds count; `until` is not included.
            on_read: told the share of the range that was read, from 0 to 1.
            enough: whoever asks expects to take no more, and gets more on taking more.

        Raises:
            InsightsError: a query failed, or the account runs too many.
            ClientError, BotoCoreError: AWS did not answer.
        """
        first, last = int(since.timestamp()), int(-(-until.timestamp() // 1))
        ranges = [(first, last)] if first < last else []
        query, limit = _query(patterns), min(enough or self._rows, self._rows)
        while ranges:
            start, end = ranges.pop()
            rows, matched = self._ask(query, start, end, limit)
            here = [each for each in rows if start <= each.at.timestamp() < end]
            if matched > len(rows):
                here, left = self._cut(here, (start, end), matched, limit)
                ranges += left
                limit = min(4 * limit, self._rows)
            yield from here
            on_read((last - (ranges[-1][1] if ranges else first)) / (last - first))

    def count(self, patterns: Sequence[str], since: datetime, until: datetime) -> int:
        """How many lines match, without reading them."""
        first, last = int(since.timestamp()), int(-(-until.timestamp() // 1))
        return self._ask(_query(patterns), first, last, 1)[1]

    def _cut(
        self, rows: list[Line], asked: tuple[int, int], matched: int, limit: int
    ) -> tuple[list[Line], list[tuple[int, int]]]:
        """What is whole of an answer that was cut, and the ranges that are still to be asked."""
        start, end = asked
        oldest = int(rows[-1].at.timestamp()) if rows else end
        whole = [each for each in rows if each.at.timestamp() >= oldest + 1]
        if whole:
            # What AWS gives at once is known only where no smaller number was asked for.
            most = self._rows if limit < self._rows else len(rows)
            pieces = -(-(matched - len(whole)) // max(most * 4 // 5, 1))
            return whole, _pieces(start, oldest + 1, pieces)
        if limit < self._rows:
            return [], [asked]
        if end - start > 1:
            return [], _pieces(start, end, 2)
        self.cost.cut = True
        return rows, []

    def _ask(self, query: str, start: int, end: int, limit: int) -> tuple[list[Line], int]:
        """Rows, and how many there would be without a limit."""
        query_id = self._begin(query, start, end, limit)
        try:
            answer = self._answer(query_id)
            rows = [_line(each) for each in answer["results"]]
            while token := answer.get("nextToken"):
                answer = self._client.get_query_results(queryId=query_id, nextToken=token)
                rows += [_line(each) for each in answer["results"]]
        except BaseException:
            self._stop(query_id)  # also when a person has had enough: it goes on to be paid
            raise
        told = answer["statistics"]
        self.cost.queries += 1
        self.cost.bytes_scanned += told.get("bytesScanned", 0)
        # A limit that AWS lowers one day is no reason to lose lines.
        return rows, max(int(told.get("recordsMatched", 0)), len(rows))

    def _begin(self, query: str, start: int, end: int, limit: int) -> str:
        wait = 1.0
        for tries in range(_QUERIES_REFUSED):
            try:
                return self._client.start_query(
                    logGroupNames=self._groups,
                    startTime=start,
                    endTime=end,
                    queryString=query,
                    limit=limit,
                )["queryId"]
            except ClientError as error:
                full = error.response["Error"]["Code"] == "LimitExceededException"
                if not full or tries == _QUERIES_REFUSED - 1:
                    raise
                self._sleep(wait)
                wait *= 2
        raise AssertionError

    def _answer(self, query_id: str) -> Any:
        pause = _FIRST_LOOK
        while True:
            answer = self._client.get_query_results(queryId=query_id)
            if answer["status"] == "Complete":
                return answer
            if answer["status"] not in _RUNNING:
                raise InsightsError(f"the log's query ended as {answer['status']}; ask for less")
            self._sleep(pause)
            pause = min(pause * 1.5, _LOOK_AT_MOST)

    def _stop(self, query_id: str) -> None:
        try:
            self._client.stop_query(queryId=query_id)
        except (ClientError, BotoCoreError):
            return  # it has ended


def literal(text: str) -> str:
    """A pattern that matches this text as it stands inside of a JSON string, whatever it holds."""
    inside = msgspec.json.encode(text.encode("utf-8", "replace").decode()).decode()[1:-1]
    # Before ASCII punctuation a backslash means the character itself in every dialect; what ends
    # or begins something in the query around the pattern is not written at all.
    escaped = re.sub(r"([!-/:-@\[-^`{-~])", r"\\\1", inside)
    return re.sub(r"\\([/#|])", lambda found: f"\\x{ord(found[1]):02x}", escaped)


def _query(patterns: Sequence[str]) -> str:
    filters = [f"| filter @message like /{each}/" for each in patterns]
    return "\n".join(("fields @timestamp, @message", *filters, "| sort @timestamp desc"))


def _pieces(start: int, end: int, number: int) -> list[tuple[int, int]]:
    """A range in so many pieces of whole seconds, the oldest first."""
    number = max(1, min(number, end - start))
    marks = [start + (end - start) * each // number for each in range(number + 1)]
    return list(itertools.pairwise(marks))


def _line(row: Sequence[Any]) -> Line:
    fields = {each.get("field"): each.get("value", "") for each in row}
    # As `2026-11-30 16:23:11.123`, in UTC.
    at = datetime.fromisoformat(fields["@timestamp"]).replace(tzinfo=UTC)
    return Line(at, fields["@message"])
