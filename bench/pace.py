"""`python -m bench.pace`: how many calls SES throttles, and how much of the allowance is used.

Several accounts at once, each with a backlog in one or more stacks that share its pace: two workers
a stack, the product's own, each with a quarter of a processor (20 ms periods, as Lambda has them),
and a receiver that throttles every call which arrives sooner than an interval after the last one
that it took. README.md has figures.
"""

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs

import msgspec
import typer

from bench.designs import BATCH, WORKERS
from bench.limiter import reaching_only
from bench.machine import machine
from bouncer import timing
from bouncer.aws import clients
from bouncer.aws.send_bounce import SesSendBounce
from bouncer.aws.slots import SLOTS_ITEM, DynamoSlots
from bouncer.delivery.calls import Terms
from bouncer.delivery.delivery import Delivery
from bouncer.delivery.fate import Incident
from bouncer.limiter import Limiter, Pace
from bouncer_console.output import note, print_table, say
from local.aws.server import free_port
from local.stack import running
from tests.fakes.bounces import bounce
from tests.fakes.ledger import MemoryLedger
from tests.fakes.queue import MemoryQueue

_FORK = multiprocessing.get_context("fork")
_PERIOD = 0.02
"""Lambda's, of which a function has its share."""
_CGROUPS = Path("/sys/fs/cgroup")
_OK = """<SendBounceResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><SendBounceResult>\
<MessageId>b</MessageId></SendBounceResult></SendBounceResponse>"""
_THROTTLED = """<ErrorResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><Error>\
<Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message></Error>\
</ErrorResponse>"""


class Arrival(msgspec.Struct, frozen=True):
    """One call as the receiver saw it."""

    account: str
    stack: str
    at: float
    taken: bool


# --- The receiver ----------------------------------------------------------------------------


async def _receive(port: int, interval: float, arrivals: list[Arrival]) -> None:
    last: dict[str, float] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                at = time.monotonic()
                lines = (line.lower().partition(b":") for line in head.split(b"\r\n"))
                sizes = [int(value) for name, _, value in lines if name == b"content-length"]
                body = await reader.readexactly(sum(sizes))
                status, answer = 404, ""
                if head.startswith(b"POST"):
                    message_id = parse_qs(body.decode())["OriginalMessageId"][0]
                    account, stack, *_ = message_id.split(".")
                    taken = at - last.get(account, -interval) >= interval
                    if taken:
                        last[account] = at
                    arrivals.append(Arrival(account, stack, at, taken))
                    status, answer = (200, _OK) if taken else (400, _THROTTLED)
                data = answer.encode()
                head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n\r\n".encode()
                writer.write(head + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()


def _receiver(port: int, interval: float, pipe: Connection) -> None:
    arrivals: list[Arrival] = []

    def end(*_: object) -> None:
        pipe.send_bytes(msgspec.json.encode(arrivals))
        os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    pipe.send_bytes(b"ready")
    asyncio.run(_receive(port, interval, arrivals))


# --- The workers -----------------------------------------------------------------------------


@contextmanager
def _share(processor: float) -> Iterator[Path]:
    """A control group whose processes have so much of a processor.

    Raises:
        OSError: this user may not make one.
    """
    version_1 = _CGROUPS / "cpu"
    group = (version_1 if version_1.is_dir() else _CGROUPS) / f"bench-{time.monotonic_ns()}"
    group.mkdir()
    period = round(_PERIOD * 1_000_000)
    quota = round(period * processor)
    if version_1.is_dir():
        (group / "cpu.cfs_period_us").write_text(str(period))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        (group / "cpu.max").write_text(f"{quota} {period}")
    try:
        yield group
    finally:
        group.rmdir()


class Job(msgspec.Struct, frozen=True, kw_only=True):
    account: str
    stack: int
    worker: int
    calls: int
    interval: float
    port: int
    processor: float


class Told(msgspec.Struct, kw_only=True):
    """What a worker says in the end."""

    incidents: dict[str, int] = {}
    margin: float = 0.0


def _work(job: Job, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = Told()

    def count(incident: Incident) -> None:
        told.incidents[incident] = told.incidents.get(incident, 0) + 1

    dynamodb = clients.dynamodb()
    dynamodb.get_item(TableName=job.account, Key=SLOTS_ITEM)  # warm, as it is by a batch's claims
    limiter = Limiter(DynamoSlots(dynamodb, job.account), Pace(interval=job.interval))
    os.environ["AWS_ENDPOINT_URL_SES"] = f"http://127.0.0.1:{job.port}"
    delivery = Delivery(
        ledger=MemoryLedger(lambda: datetime.now(UTC)),
        limiter=limiter,
        send_bounce=SesSendBounce(clients.ses()),
        queue=MemoryQueue(lambda: datetime.now(UTC)),
        terms=Terms(penalty=2 * job.interval),
        count=count,
    )
    left = [f"{job.account}.{job.stack}.{job.worker}.{number}" for number in range(job.calls)]
    pipe.send_bytes(b"ready")
    pipe.recv_bytes()
    with _share(job.processor) as group:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        while left:
            batch = {each: bounce(each) for each in left[:BATCH]}
            until = datetime.now(UTC) + timedelta(seconds=timing.SEND_TIMEOUT - timing.RESERVE)
            _, again = delivery.send_batch(batch, owner=left[0], until=until)
            left = [*again, *left[BATCH:]]
        (group.parent / "cgroup.procs").write_text(str(os.getpid()))
    told.margin = limiter.pace.margin
    pipe.send_bytes(msgspec.json.encode(told))


def _burn() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    starter = os.getppid()
    while os.getppid() == starter:
        sum(range(100_000))


# --- Measuring and telling -------------------------------------------------------------------


class Outcome(msgspec.Struct, kw_only=True):
    """One account's."""

    account: str
    arrivals: list[Arrival]
    told: list[Told]

    @property
    def taken(self) -> list[float]:
        return [each.at for each in self.arrivals if each.taken]

    @property
    def throttled(self) -> int:
        return len(self.arrivals) - len(self.taken)

    @property
    def closest(self) -> float:
        times = [each.at for each in self.arrivals]
        return min(b - a for a, b in pairwise(times))

    def share(self, interval: float) -> float:
        """Of the allowance, while both workers had a backlog."""
        taken = self.taken[: -2 * BATCH]
        return (len(taken) - 1) * interval / (taken[-1] - taken[0])

    @property
    def most_off(self) -> float:
        """By how many calls a stack was ahead of, or behind, its share while all had a backlog."""
        served: dict[str, int] = dict.fromkeys(sorted({each.stack for each in self.arrivals}), 0)
        most, whole = 0.0, len([each for each in self.arrivals if each.taken]) / len(served)
        for each in self.arrivals:
            served[each.stack] += each.taken
            if max(served.values()) >= whole - 2 * BATCH:
                break
            mean = sum(served.values()) / len(served)
            most = max(most, *(abs(count - mean) for count in served.values()))
        return most

    def counted(self, incident: Incident) -> int:
        return sum(told.incidents.get(incident, 0) for told in self.told)


def measure(
    *, accounts: int, stacks: int, calls: int, interval: float, processor: float, burners: int
) -> list[Outcome]:
    names = [f"account-{number}" for number in range(accounts)]
    port = free_port()
    with running() as aws, reaching_only(aws):
        for name in names:
            _make_table(name)
        ours, theirs = _FORK.Pipe()
        receiver = _FORK.Process(target=_receiver, args=(port, interval, theirs), daemon=True)
        receiver.start()
        ours.recv_bytes()
        jobs = [
            Job(
                account=name,
                stack=stack,
                worker=worker,
                calls=calls // stacks // WORKERS,
                interval=interval,
                port=port,
                processor=processor,
            )
            for name in names
            for stack in range(stacks)
            for worker in range(WORKERS)
        ]
        burning = [_FORK.Process(target=_burn, daemon=True) for _ in range(burners)]
        for each in burning:
            each.start()
        try:
            told = _run(jobs)
        finally:
            for each in burning:
                each.kill()
            receiver.terminate()
            arrivals = msgspec.json.decode(ours.recv_bytes(), type=list[Arrival])
    return [
        Outcome(
            account=name,
            arrivals=[each for each in arrivals if each.account == name],
            told=[each for job, each in zip(jobs, told, strict=True) if job.account == name],
        )
        for name in names
    ]


def _make_table(name: str) -> None:
    clients.dynamodb().create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": k, "AttributeType": "S"} for k in ("pk", "sk")],
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )


def _run(jobs: Sequence[Job]) -> list[Told]:
    pipes: list[Connection] = []
    for job in jobs:
        ours, theirs = _FORK.Pipe()
        _FORK.Process(target=_work, args=(job, theirs), daemon=True).start()
        theirs.close()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv_bytes()
    for pipe in pipes:
        pipe.send_bytes(b"go")
    return [msgspec.json.decode(pipe.recv_bytes(), type=Told) for pipe in pipes]


def bench(
    *, accounts: int, stacks: int, calls: int, interval: float, processor: float, burners: int
) -> tuple[float, float]:
    """Measure and print.

    Returns:
        The share of calls that were throttled, and of the allowance that was used.
    """
    note(f"{accounts} backlogs of {calls} at once: about {calls * interval / 60:.1f} minutes")
    outcomes = measure(
        accounts=accounts,
        stacks=stacks,
        calls=calls,
        interval=interval,
        processor=processor,
        burners=burners,
    )
    columns = (
        "account",
        "calls",
        "throttled",
        "closest ms",
        "expired",
        "margin ms",
        "share",
        "off",
    )
    rows = [
        (
            each.account,
            len(each.arrivals),
            each.throttled,
            f"{each.closest * 1000:.1f}",
            each.counted(Incident.SLOT_EXPIRED),
            f"{max(told.margin for told in each.told) * 1000:.1f}",
            f"{each.share(interval):.1%}",
            f"{each.most_off:.1f}",
        )
        for each in outcomes
    ]
    print_table(f"{processor:.0%} of a processor each, {burners} burners", columns, rows)
    made = sum(len(each.arrivals) for each in outcomes)
    throttled = sum(each.throttled for each in outcomes) / made
    share = sum(each.share(interval) for each in outcomes) / len(outcomes)
    say(machine("ministack"))
    say(f"{made} calls: {throttled:.2%} throttled, {share:.1%} of the allowance used")
    return throttled, share


def main(
    *,
    accounts: Annotated[int, typer.Option(help="Backlogs at once.")] = 10,
    stacks: Annotated[int, typer.Option(help="Stacks that share each account's pace.")] = 1,
    calls: Annotated[int, typer.Option(help="Bounces of each account.")] = 300,
    interval: Annotated[float, typer.Option(help="Seconds between two calls.")] = 1.0,
    processor: Annotated[float, typer.Option(help="Each worker's share of one.")] = 0.25,
    burners: Annotated[int, typer.Option(help="Processes that only burn time.")] = 0,
) -> None:
    """Send backlogs to a strict receiver; an error where the goal is missed."""
    throttled, share = bench(
        accounts=accounts,
        stacks=stacks,
        calls=calls,
        interval=interval,
        processor=processor,
        burners=burners,
    )
    sys.exit(throttled > 0.001 or share < 0.98)


if __name__ == "__main__":
    typer.run(main)
