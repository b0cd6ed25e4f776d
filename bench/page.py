"""`python -m bench.page`: how long an operator looks at an empty screen.

The application is deployed to AWS on this machine and given a day: so many mails in its real log
groups, each with every line that a function prints about one (copied from mails that it handled
just now), and so many bounces in queue and ledger. Senders and recipients of some are hostile.
Then every page and command is asked, as a browser and a shell ask.
"""

import json
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import batched
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import httpx
import msgspec
import typer

from bench.machine import machine
from bouncer.aws.ledger import DynamoLedger
from bouncer.aws.stack_key import stack_key
from bouncer.delivery.bounce import Bounce, BouncedRecipient, BounceType
from bouncer.delivery.ledger import BounceState, LedgerEntry
from bouncer.delivery.queue import encode
from bouncer_console.output import print_table, say
from local import web
from local.demo import log_line, until
from local.deployment import deployed
from local.stack import BOUNCE_SENDER, ROOT, STACK, Aws, StackError, end_on_signals

HOSTILE = (
    "<img/src=x/onerror=alert(1)>@evil.example",
    "\x1b[31m\x1b]0;owned\x07@evil.example",
    "[red]rich[/red][link=http://evil.example]@evil.example",
    "\u202eelpmaxe.live@evil.example",
    f"{'w' * 300}@evil.example",
)
ANSWERED = 2.0
"""Seconds in which a page has to be there, be it with its progress only."""

_EVENTS_A_CALL = 1000
_DOMAINS = 10_000
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
        mapping = aws.client("lambda").list_event_source_mappings(
            EventSourceArn=_arn(aws, outputs["BounceQueue"])
        )["EventSourceMappings"][0]["UUID"]
        aws.client("lambda").update_event_source_mapping(UUID=mapping, Enabled=False)
        say(f"{mails:,} mails into the log, {waiting:,} bounces into queue and ledger", "dim")
        message_id = _fill_log(aws, outputs, mails)
        _fill_queue(aws, outputs, waiting)
        with web.page(aws) as address:
            yield aws, address, message_id


def _arn(aws: Aws, url: str) -> str:
    asked = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return str(asked["Attributes"]["QueueArn"])


def _fill_log(aws: Aws, outputs: dict[str, str], mails: int) -> str:
    """A day of mail, by the lines of two mails that are handled now; the id of one of these."""
    handled = [_handled(aws, outputs, to) for to in ("nobody@example.com", "alice@example.com")]
    chance = random.Random(7)
    now = time.time() * 1000
    events: list[Any] = []
    for number in range(mails):
        lines = handled[0][1] if chance.random() < 0.6 else handled[1][1]
        at = int(now - chance.random() ** 2 * 86_000_000)
        events += [
            {"timestamp": at + each, "message": _retold(text, number, at, chance)}
            for each, text in enumerate(lines)
        ]
    events.sort(key=lambda each: each["timestamp"])
    logs, group = aws.client("logs"), outputs["InboundLogGroup"]
    logs.create_log_stream(logGroupName=group, logStreamName="a-day")
    for some in batched(events, _EVENTS_A_CALL, strict=False):
        logs.put_log_events(logGroupName=group, logStreamName="a-day", logEvents=list(some))
    return handled[0][0]


def _handled(aws: Aws, outputs: dict[str, str], recipient: str) -> tuple[str, list[str]]:
    """A mail that the deployed function handles: its id, and every line that was printed."""
    head = f"From: pat@sender.example\r\nTo: {recipient}\r\nMessage-ID: <1@sender.example>\r\n"
    mail = f"{head}Subject: Hello <b>\r\n\r\nHello\r\n".encode()
    message_id = web.LocalMail(aws).send("pat@sender.example", [recipient], mail)
    until(lambda: log_line(aws, outputs, message_id), "no decision in the log")
    pages = (
        aws.client("logs")
        .get_paginator("filter_log_events")
        .paginate(logGroupName=outputs["InboundLogGroup"])
    )
    texts = [event["message"] for page in pages for event in page["events"]]
    here = next(n for n, each in enumerate(texts) if message_id in each)
    first = max(n for n in range(here) if texts[n].startswith("START"))
    last = next(n for n in range(here, len(texts)) if texts[n].startswith("REPORT"))
    return message_id, texts[first : last + 1]


def _retold(text: str, number: int, at: int, chance: random.Random) -> str:
    """A function's line, about another mail."""
    if '"mail handled"' not in text:
        return text
    line = json.loads(text)
    domain = f"d{int(chance.paretovariate(0.5)) % _DOMAINS}.example"
    sender = f"s{number}@{domain}" if number % 50 else HOSTILE[number // 50 % len(HOSTILE)]
    line |= {
        "ses_message_id": f"filled{number:06}",
        "received_at": datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds"),
        "sender": sender,
        "sender_domain": sender.rpartition("@")[2],
        "client": f"198.51.{chance.randrange(100, 104)}.{chance.randrange(256)}",
        "message_id_header": f"{number}@{domain}",
    }
    if line["recipients"][0]["outcome"] == "bounce":
        line["recipients"][0]["recipient"] = f"guess{chance.randrange(3000)}@example.com"
        held = chance.choice(("", "", "spf-failed", "null-sender", "sender-domain-budget"))
        if held:
            line["suppressed"] = held
            line["recipients"][0]["state"] = "suppressed"
    return json.dumps(line, ensure_ascii=False)


def _fill_queue(aws: Aws, outputs: Mapping[str, str], waiting: int) -> None:
    dynamodb, table = aws.client("dynamodb"), outputs["BounceTable"]
    ledger = DynamoLedger(dynamodb, table, retention=timedelta(days=14))
    key, now = stack_key(dynamodb, table), datetime.now(UTC)
    bounces = [
        Bounce(
            message_id=f"waits{number:05}",
            received_at=now - timedelta(seconds=waiting - number),
            bounce_sender=BOUNCE_SENDER,
            reverse_path=HOSTILE[number % 4]
            if number % 20 == 0
            else f"s{number}@d{number % 97}.eu",
            recipients=(
                BouncedRecipient(
                    recipient=f"guess{number}@example.com",
                    reason="unknown-recipient",
                    bounce_type=BounceType.DOES_NOT_EXIST,
                ),
            ),
        )
        for number in range(waiting)
    ]

    def put(some: Sequence[Bounce]) -> None:
        entries = [_entry(each) for each in some]
        ledger.record(entries, until=datetime.now(UTC) + timedelta(minutes=5))
        aws.client("sqs").send_message_batch(
            QueueUrl=outputs["BounceQueue"],
            Entries=[
                {"Id": str(n), "MessageBody": encode(each, key)} for n, each in enumerate(some)
            ],
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, batched(bounces, 10, strict=False)))


def _entry(bounce: Bounce) -> LedgerEntry:
    return LedgerEntry(
        message_id=bounce.message_id,
        recipient=bounce.recipients[0].recipient,
        state=BounceState.QUEUED,
        reason=bounce.recipients[0].reason,
        status=bounce.recipients[0].status,
        received_at=bounce.received_at,
        reverse_path=bounce.reverse_path,
    )


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
        client.get(address)
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
        with subprocess.Popen(  # noqa: S603  (ours)
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
