"""`python -m bench.page`: how long an operator looks at an empty screen.

The application is deployed to AWS on this machine and given a day (local/day.py): so many mails in
its log groups, so many bounces in queue and ledger, hostile senders among them. Then every page and
command is asked, as a browser and a shell ask.
"""

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import httpx
import msgspec
import typer

from bench.machine import machine
from bouncer_console.output import print_table, say
from local import day, web
from local.deployment import deployed
from local.stack import ROOT, STACK, Aws, StackError, end_on_signals

ANSWERED = 2.0
"""Seconds in which a page has to be there, be it with its progress only."""

_GIVEN_UP = 300.0


class Figure(NamedTuple):
    """How long one page or command took, in seconds."""

    what: str
    first: float
    whole: float
    kilobytes: float


@contextmanager
def filled(mails: int, waiting: int) -> Iterator[tuple[Aws, str, str]]:
    """The application after a day, with its page: AWS, the page's address, a mail's id.

    Raises:
        StackError: AWS on this machine did not start, or the deployment failed.
    """
    with deployed() as (aws, outputs):
        say(f"{mails:,} mails into the log, {waiting:,} bounces into queue and ledger", "dim")
        message_id = day.fill(aws, outputs, mails=mails, waiting=waiting, hostile=True)
        with web.page(aws) as address:
            yield aws, address, message_id


def paths(message_id: str) -> list[str]:
    """Every page that asks somebody for something."""
    return [
        "/now",
        "/now/queue",
        "/mail",
        "/mail?since=24h",
        "/mail?since=24h&who=pat%40sender.example",
        "/mail?since=24h&recipient=%40example.com",
        f"/mail?id={message_id}",
        f"/mail?id={message_id}&explain=yes",
        "/mail?id=filled000123",
        "/mail?id=waits00100",
        "/attack?since=1h",
        "/attack?since=24h",
        "/attack?since=7d",
        "/directory",
        "/policy",
        "/policy/compare",
        "/dead-letters",
    ]


COMMANDS = (
    ("status",),
    ("queue",),
    ("find", "--since", "24h"),
    ("find", "pat@sender.example"),
    ("report",),
    ("redrive",),
)


def pages(address: str, wanted: Sequence[str]) -> Iterator[Figure]:
    """Ask for each page as a browser does, until it no longer comes again by itself."""
    base = address.partition("/?")[0]
    with httpx.Client(follow_redirects=True, timeout=60, trust_env=False) as client:
        client.get(address.replace("/?", "/static/icon.svg?"))  # in, and no page asked yet
        for path in wanted:
            started = time.monotonic()
            answer = client.get(base + path)
            first = time.monotonic() - started
            while "Still asking" in answer.text:
                if time.monotonic() - started > _GIVEN_UP:
                    raise StackError(f"{path} has no end")
                again = re.search(r'http-equiv="refresh" content="(\d+)"', answer.text)
                time.sleep(float(again[1]) if again else 1)
                answer = client.get(base + path)
            whole = time.monotonic() - started
            if answer.status_code != 200:
                raise StackError(f"{path} answers {answer.status_code}: {answer.text[-2000:]}")
            yield Figure(path, first, whole, len(answer.content) / 1000)


def commands(aws: Aws) -> Iterator[Figure]:
    """Run each command; the first is when it has printed its first line."""
    for arguments in COMMANDS:
        started = time.monotonic()
        with subprocess.Popen(
            [Path(sys.executable).with_name("bouncer"), *arguments, "--stack", STACK],
            cwd=ROOT,
            env=aws.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            output = process.stdout.readline() if process.stdout else b""
            first = time.monotonic() - started
            output += process.stdout.read() if process.stdout else b""
        if process.returncode:
            raise StackError(f"bouncer {' '.join(arguments)} ended with {process.returncode}")
        whole = time.monotonic() - started
        yield Figure(f"bouncer {' '.join(arguments)}", first, whole, len(output) / 1000)


def show(figures: Sequence[Figure]) -> None:
    """The table, and whether every page was there in time."""
    columns = ("page or command", "first answer, s", "whole, s", "kB")
    rows = [(f.what, f"{f.first:.2f}", f"{f.whole:.2f}", f"{f.kilobytes:.0f}") for f in figures]
    print_table(f"What an operator waits for. {machine()}", columns, rows)
    asked = [each for each in figures if each.what.startswith("/")]
    late = [each.what for each in asked if each.first > ANSWERED]
    median = statistics.median(each.first for each in asked)
    say(f"Pages answer in {median:.2f} s (median); late: {', '.join(late) or 'none'}.")


def main(
    mails: Annotated[int, typer.Option(help="In the log.")] = 10_000,
    waiting: Annotated[int, typer.Option(help="In the queue.")] = 2_000,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure every page and command after a day of mail."""
    end_on_signals()
    try:
        with filled(mails, waiting) as (aws, address, message_id):
            figures = [*pages(address, paths(message_id)), *commands(aws)]
    except StackError as error:
        say(str(error), "red")
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(msgspec.json.encode(figures))
    else:
        show(figures)


if __name__ == "__main__":
    typer.run(main)
