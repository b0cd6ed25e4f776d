"""`python -m bench.directory`: what a large directory costs an operator, in seconds and in memory.

DynamoDB is a process beside that answers Scan as DynamoDB pages it, 1 MB at once, and makes the
entries as it goes; so what is measured is the command, and not how fast somebody stores a million
items. Each run is a process of its own.
"""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Annotated, Any, NamedTuple

import typer

from bench.machine import machine
from bouncer_console.output import print_table, say
from local.aws.server import free_port

_A_PAGE = 7000
"""Entries of 150 bytes in DynamoDB's 1 MB."""
MEGABYTES = 100
"""What a command may take, whatever the directory's size."""

_CENSUS = """
from datetime import UTC, datetime
from bouncer_console.mailbox.target import Target
from bouncer_console.web.pages.directory import _counted
table = Target.find("mailboxes", "", None).table
print("begun", flush=True)
census = _counted(table, lambda _: None)
print(census.entries, len(census.domains))
"""


class Figure(NamedTuple):
    what: str
    first: float
    """Seconds to the first row."""
    whole: float
    megabytes: float
    """The most that the process had."""
    lines: int


class _DynamoDb(BaseHTTPRequestHandler):
    """Scan, BatchGetItem and DescribeTable of a table of `entries`."""

    protocol_version = "HTTP/1.1"
    entries, domains = 0, 1

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        action = self.headers["X-Amz-Target"].partition(".")[2]
        answer: Any = {"Responses": {}, "UnprocessedKeys": {}}
        if action == "Scan":
            answer = self._scan(asked)
        elif action == "DescribeTable":
            answer = {"Table": {"ItemCount": self.entries}}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _scan(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        key = asked.get("ExclusiveStartKey", {}).get("address", {}).get("S", "")
        first = int(key[4:].partition("@")[0]) + 1 if key else 0
        last = min(first + min(asked.get("Limit", _A_PAGE), _A_PAGE), self.entries)
        items = [self._item(number) for number in range(first, last)]
        more = (
            {"LastEvaluatedKey": {"address": items[-1]["address"]}} if last < self.entries else {}
        )
        return {"Items": items, "Count": len(items), "ScannedCount": len(items), **more}

    def _item(self, number: int) -> dict[str, Any]:
        return {
            "address": {"S": f"user{number:07}@d{number % self.domains}.example"},
            "status": {"S": "disabled" if number % 100 == 0 else "active"},
            "quota_bytes": {"N": "1000000000"},
            "used_bytes": {"N": str(number * 7919 % 1_050_000_000)},
        }

    def log_message(self, *_: object) -> None:
        pass


def _serve(port: int, entries: int, domains: int) -> None:
    handler = type("Table", (_DynamoDb,), {"entries": entries, "domains": domains})
    ThreadingHTTPServer(("127.0.0.1", port), handler).serve_forever()


def _dynamodb(entries: int, domains: int) -> tuple[BaseProcess, int]:
    port = free_port()
    server = get_context("spawn").Process(target=_serve, args=(port, entries, domains), daemon=True)
    server.start()
    for _ in range(100):
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
        except OSError:
            time.sleep(0.1)
            continue
        return server, port
    raise RuntimeError("the table did not start")


def run(what: str, command: Sequence[str], port: int) -> Figure:
    """Run one command to its end."""
    environment = os.environ | {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    first, lines = 0.0, 0
    assert process.stdout is not None
    for _ in process.stdout:
        lines += 1
        first = first or time.monotonic() - started
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{what} ended with {process.returncode}")
    figure = Figure(what, first, time.monotonic() - started, used.ru_maxrss / 1000, lines)
    say(f"{what}: {figure.whole:.0f} s, {figure.megabytes:.0f} MB", "dim")
    return figure


def main(
    entries: Annotated[int, typer.Option(help="In the directory.")] = 1_000_000,
    domains: Annotated[int, typer.Option(help="That they are in.")] = 10_000,
) -> None:
    """Measure the commands and the page that read all of a directory."""
    server, port = _dynamodb(entries, domains)
    bouncer = "from bouncer_console.main import app; app()"
    listing = [bouncer, "mailbox", "list", "--table", "mailboxes"]
    try:
        figures = [
            run("bouncer mailbox list", listing, port),
            run("… --domain d7.example", [*listing, "--domain", "d7.example"], port),
            run("the page: the directory as a whole", [_CENSUS], port),
        ]
    finally:
        server.kill()
    columns = ("", "first row, s", "whole, s", "MB", "lines")
    rows = [
        (f.what, f"{f.first:.1f}", f"{f.whole:.0f}", f"{f.megabytes:.0f}", f"{f.lines:,}")
        for f in figures
    ]
    print_table(f"{entries:,} entries in {domains:,} domains. {machine('boto3')}", columns, rows)
    large = [each.what for each in figures if each.megabytes > MEGABYTES]
    say(f"Over {MEGABYTES} MB: {', '.join(large) or 'none'}.")


if __name__ == "__main__":
    typer.run(main)
