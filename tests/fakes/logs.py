"""CloudWatch Logs as Insights answers, with what AWS leaves open as options."""

import itertools
import re
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError


class FakeLogs:
    """Lines, and the part of the query language that the console uses."""

    def __init__(
        self,
        *,
        rows: int = 10_000,
        page: int = 10_000,
        whole_last_second: bool = False,
        looks: int = 0,
    ) -> None:
        """
        Args:
            rows: the most that a query gives.
            page: the most that one answer gives.
            whole_last_second: whether `endTime` includes its second or only its first moment.
            looks: how often a query is still running when it is looked at.
        """
        self._rows, self._page, self._looks = rows, page, looks
        self._whole_last_second = whole_last_second
        self._lines: list[tuple[float, str]] = []
        self._answers: dict[str, tuple[list[Any], dict[str, float]]] = {}
        self._running: dict[str, int] = {}
        self._ids = map("query-{}".format, itertools.count())
        self.started: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self.refuse = 0
        """So many queries are refused for too many that run."""
        self.ends_as = "Complete"

    def add(self, at: datetime, text: str) -> None:
        self._lines.append((round(at.timestamp(), 3), text))

    def start_query(self, **asked: Any) -> dict[str, str]:
        if self.refuse:
            self.refuse -= 1
            raise ClientError({"Error": {"Code": "LimitExceededException"}}, "StartQuery")
        self.started.append(asked)
        end = asked["endTime"] + (0.9999 if self._whole_last_second else 0)
        scanned = [each for each in self._lines if asked["startTime"] <= each[0] <= end]
        patterns = re.findall(r"^\| filter @message like /(.*)/$", asked["queryString"], re.M)
        assert asked["queryString"].count("\n") == len(patterns) + 1, "a pattern broke the query"
        matching = [
            each for each in scanned if all(re.search(wanted, each[1]) for wanted in patterns)
        ]
        matching.sort(key=lambda each: -each[0])
        statistics = {
            "recordsMatched": float(len(matching)),
            "recordsScanned": float(len(scanned)),
            "bytesScanned": float(sum(len(each[1].encode()) for each in scanned)),
        }
        query_id = next(self._ids)
        rows = [_row(*each) for each in matching[: min(asked["limit"], self._rows)]]
        self._answers[query_id] = rows, statistics
        self._running[query_id] = self._looks
        return {"queryId": query_id}

    def get_query_results(self, queryId: str, nextToken: str = "0") -> dict[str, Any]:
        rows, statistics = self._answers[queryId]
        if self._running[queryId]:
            self._running[queryId] -= 1
            return {"status": "Running", "results": rows[:1], "statistics": statistics}
        start = int(nextToken)
        more = {"nextToken": str(start + self._page)} if start + self._page < len(rows) else {}
        return {
            "status": self.ends_as,
            "results": rows[start : start + self._page],
            "statistics": statistics,
            **more,
        }

    def stop_query(self, queryId: str) -> dict[str, bool]:
        self.stopped.append(queryId)
        return {"success": True}


def _row(at: float, text: str) -> list[dict[str, str]]:
    stamp = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return [
        {"field": "@timestamp", "value": stamp},
        {"field": "@message", "value": text},
        {"field": "@ptr", "value": f"{at}"},
    ]
