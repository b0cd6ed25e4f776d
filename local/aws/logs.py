"""Logs Insights laid over ministack's logs: the query language, the time it takes, and pages.

ministack passes over what it does not understand of a query, and answers while every other
request waits. Here a query is understood or refused, and is Running, beside the server, until it is
done.
"""

import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from ministack.core.responses import error_response_json, json_response
from ministack.services import cloudwatch_logs

from local.aws.insights import Line, Query, QueryError, parse

ROWS_AT_MOST = 100_000
ROWS_A_PAGE = 10_000
"""GetQueryResults gives no more at once; `nextToken` leads to the rest."""
_KEPT = 50

type Response = tuple[int, dict[str, str], bytes]


class _Asked(msgspec.Struct):
    """A query that was started."""

    status: str = "Running"
    rows: list[dict[str, str]] = msgspec.field(default_factory=list)
    matched: int = 0
    scanned: int = 0
    bytes_scanned: int = 0


class Queries:
    """Those of the account."""

    def __init__(self) -> None:
        self._asked: OrderedDict[str, _Asked] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="insights")

    def start(self, asked: Mapping[str, Any]) -> Response:
        """StartQuery."""
        names = asked.get("logGroupNames") or [asked.get("logGroupName")]
        groups = cloudwatch_logs._log_groups
        for name in names:
            if name not in groups:
                said = f"The specified log group does not exist: {name}"
                return _refused("ResourceNotFoundException", said)
        try:
            query = parse(asked.get("queryString", ""))
        except QueryError as error:
            return _refused("MalformedQueryException", str(error))
        limit = int(asked.get("limit") or ROWS_A_PAGE)
        if not 1 <= limit <= ROWS_AT_MOST:
            return _refused("InvalidParameterException", f"limit is 1 to {ROWS_AT_MOST}")
        start, end = int(asked["startTime"]) * 1000, int(asked["endTime"]) * 1000
        # Now, for this is where the account is known; the events stay as they are.
        streams = [
            (name, stream, list(its["events"]))
            for name in names
            for stream, its in list(groups[name]["streams"].items())
        ]
        query_id, job = str(uuid.uuid4()), _Asked()
        with self._lock:
            self._asked[query_id] = job
            while len(self._asked) > _KEPT:
                self._asked.popitem(last=False)
        self._pool.submit(_run, job, query, streams, (start, end), limit)
        return _answer({"queryId": query_id})

    def results(self, asked: Mapping[str, Any]) -> Response:
        """GetQueryResults."""
        job = self._asked.get(asked.get("queryId", ""))
        if job is None:
            return _refused("ResourceNotFoundException", "The specified query does not exist")
        first = int(asked.get("nextToken") or 0)
        status = job.status
        last = first + min(int(asked.get("maxItems") or ROWS_A_PAGE), ROWS_A_PAGE)
        rows = job.rows if status == "Complete" else []
        more = {"nextToken": str(last)} if last < len(rows) else {}
        return _answer(
            {
                "status": status,
                "results": [
                    [{"field": field, "value": value} for field, value in row.items()]
                    for row in rows[first:last]
                ],
                "statistics": {
                    "recordsMatched": float(job.matched),
                    "recordsScanned": float(job.scanned),
                    "bytesScanned": float(job.bytes_scanned),
                },
                **more,
            }
        )

    def stop(self, asked: Mapping[str, Any]) -> Response:
        """StopQuery."""
        job = self._asked.get(asked.get("queryId", ""))
        running = job is not None and job.status == "Running"
        if job is not None and running:
            job.status = "Cancelled"
        return _answer({"success": running})


def _run(
    job: _Asked,
    query: Query,
    streams: list[tuple[str, str, list[dict[str, Any]]]],
    times: tuple[int, int],
    limit: int,
) -> None:
    try:
        lines = [
            Line(at=each["timestamp"], text=each["message"], log=group, stream=stream)
            for group, stream, events in streams
            for each in events
            if times[0] <= each["timestamp"] <= times[1]
        ]
        job.scanned = len(lines)
        job.bytes_scanned = sum(len(each.text.encode("utf-8", "replace")) for each in lines)
        job.rows, job.matched = query.run(lines, limit)
        if job.status == "Running":
            job.status = "Complete"
    except Exception:
        job.status = "Failed"
        raise


def _answer(value: Mapping[str, Any]) -> Response:
    response: Response = json_response(value)
    return response


def _refused(code: str, text: str) -> Response:
    response: Response = error_response_json(code, text, 400)
    return response


def install() -> None:
    """Lay it over ministack, once, before the server starts."""
    queries = Queries()
    cloudwatch_logs._start_query = queries.start
    cloudwatch_logs._get_query_results = queries.results
    cloudwatch_logs._stop_query = queries.stop
