"""What is measured: our limiter in the ways it is used, and what else one could take.

A design opens its clients in the caller's process, and then makes its calls, each as soon as
it has a permit. The peers are used as their documentation says, and imported only when opened.
"""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from unittest.mock import patch

import msgspec
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.httpsession import URLLib3Session

from bench import PACKAGES
from bench.recorder import Ringer
from bouncer.aws import clients
from bouncer.aws.slots import DynamoSlots
from bouncer.limiter import Busy, Granted, Limiter, Pace, SlotExpiredError, Slots

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BATCH = 10
"""Calls of a worker's window: the template's BatchSize."""
WORKERS = 2
"""The template's MaximumConcurrency."""
# Nobody gives up: longer than any run, and within the limiter's horizon.
_PATIENCE = 300.0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What one caller is told."""

    table: str
    interval: float
    calls: int
    caller: int
    port: int
    """The recorder's."""


class Report(msgspec.Struct, kw_only=True):
    """What one caller says in the end."""

    requests: int = 0
    expired: int = 0
    """Slots that were thrown away."""
    error: str = ""


class NotHereError(Exception):
    """A peer cannot be run; the text says why."""


type Run = Callable[[], Report]


class Opener(Protocol):
    def __call__(self, job: Job) -> Run:
        """Open what the calls need.

        Returns:
            A function that makes all calls and reports.

        Raises:
            NotHereError: what it needs is not installed.
        """
        ...


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """A way to space calls; each caller opens what it needs, and is then told to go."""

    name: str
    open: Opener
    keys: tuple[str, ...] = ("pk", "sk")
    """The table's keys, all text; none, if `create` makes the table."""
    create: Callable[[str], None] | None = None
    shares: Callable[[int, int], list[int]]
    """From calls and processes: the calls of each process."""
    module: str = ""
    """The peer's: imported before the callers are forked, so that not each of them has to."""
    window: int | None = None
    """Calls of a window of ours, where all are alike."""

    @property
    def ours(self) -> bool:
        return self.name.startswith("ours")


def evenly(calls: int, processes: int) -> list[int]:
    whole, rest = divmod(calls, processes)
    return [whole + (number < rest) for number in range(processes)]


def _by_workers(calls: int, _: int) -> list[int]:
    return evenly(calls, WORKERS)


def _by_both(calls: int, processes: int) -> list[int]:
    """Three windows of each worker; the others share the rest."""
    batches = min(3, calls // (2 * WORKERS * BATCH)) * BATCH
    return [batches] * WORKERS + evenly(calls - WORKERS * batches, processes - WORKERS)


class RequestCount:
    """All HTTP requests that botocore sends from this process, each attempt of each client."""

    def __init__(self) -> None:
        self.value = 0
        plain = URLLib3Session.send

        def send(session: URLLib3Session, request: AWSPreparedRequest) -> AWSResponse:
            self.value += 1
            return plain(session, request)

        patch.object(URLLib3Session, "send", send).start()


# --- Ours ------------------------------------------------------------------------------------


class _Watch:
    """The limiter's clock, which remembers when it was last looked at."""

    def __init__(self) -> None:
        self.checked = 0.0

    def clock(self) -> float:
        now = time.time()
        self.checked = time.monotonic()
        return now


def _ours(job: Job, window_of: int) -> Run:
    watch = _Watch()
    client = clients.dynamodb()
    slots = DynamoSlots(client, job.table)
    limiter = Limiter(slots, Pace(interval=job.interval), clock=watch.clock)
    ring = Ringer(job.port, job.caller)
    report = Report()
    _warm(client, job.table)

    def some(calls: int) -> None:
        """As Delivery does it: what a window did not get out takes another one."""
        asked = time.monotonic()
        while calls:
            window = limiter.reserve(calls, _PATIENCE)
            if isinstance(window, Busy):
                continue  # others were quicker, several times
            try:
                while not window.used_up:
                    window.turn()
                    ring(asked, watch.checked)
                    calls -= 1
            except SlotExpiredError:
                report.expired += 1

    def run() -> Report:
        count = RequestCount()
        left = job.calls
        while left:
            calls = min(window_of, left)
            some(calls)
            left -= calls
        report.requests = count.value
        return report

    return run


def _inline(job: Job) -> Run:
    return _ours(job, 1)


def _batches(job: Job) -> Run:
    return _ours(job, BATCH)


def _both(job: Job) -> Run:
    return _ours(job, BATCH if job.caller < WORKERS else 1)


def _warm(client: "DynamoDBClient", table: str) -> None:
    client.get_item(TableName=table, Key={"pk": {"S": "warm"}, "sk": {"S": "warm"}})


# --- Without what makes it ours --------------------------------------------------------------


def _without_expiry(job: Job) -> Run:
    """The same reservation, one interval long, used however late its holder is."""
    client = clients.dynamodb()
    slots: Slots = DynamoSlots(client, job.table)
    ring = Ringer(job.port, job.caller)
    _warm(client, job.table)

    def run() -> Report:
        count = RequestCount()
        for _ in range(job.calls):
            asked = time.monotonic()
            answer: Granted | Busy = Busy(0.0)
            while isinstance(answer, Busy):
                answer = slots.reserve(time.time(), job.interval, _PATIENCE, 2 * _PATIENCE)
            while (pause := answer.start - time.time()) > 0:
                time.sleep(pause)
            ring(asked)
        return Report(requests=count.value)

    return run


def _polled(job: Job) -> Run:
    """A conditional write that succeeds once an interval; whoever fails tries again."""
    client = clients.dynamodb()
    ring = Ringer(job.port, job.caller)
    _warm(client, job.table)

    def taken() -> bool:
        now = time.time()
        try:
            client.update_item(
                TableName=job.table,
                Key={"pk": {"S": "polled"}, "sk": {"S": "-"}},
                UpdateExpression="SET next_slot = :end",
                ConditionExpression="attribute_not_exists(next_slot) OR next_slot <= :now",
                ExpressionAttributeValues={
                    ":now": {"N": f"{now:.6f}"},
                    ":end": {"N": f"{now + job.interval:.6f}"},
                },
            )
        except client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def run() -> Report:
        count = RequestCount()
        for _ in range(job.calls):
            asked = time.monotonic()
            while not taken():
                time.sleep(random.uniform(0, job.interval))
            ring(asked)
        return Report(requests=count.value)

    return run


# --- Peers -----------------------------------------------------------------------------------


def _lock(job: Job) -> Run:
    """python-dynamodb-lock: the lock is held through the call and an interval after it."""
    import boto3
    from python_dynamodb_lock.python_dynamodb_lock import (
        DynamoDBLockClient,
    )

    locks = DynamoDBLockClient(boto3.resource("dynamodb"), table_name=job.table)
    locks._get_lock_from_dynamodb("warm", "-")  # noqa: SLF001  (no public read)
    ring = Ringer(job.port, job.caller)

    def run() -> Report:
        count = RequestCount()
        for _ in range(job.calls):
            asked = time.monotonic()
            lock = locks.acquire_lock(
                "send-bounce",
                retry_period=timedelta(seconds=job.interval / 2),
                retry_timeout=timedelta(seconds=_PATIENCE),
            )
            ring(asked)
            time.sleep(job.interval)
            lock.release()
        return Report(requests=count.value)

    return run


def _zae_table(table: str) -> None:
    from zae_limiter import SyncRepository

    # Its own template does not deploy on ministack, so the table is made directly.
    SyncRepository(table, _skip_deprecation_warning=True).create_table()
    SyncRepository.builder().stack(table).build()


def _zae(job: Job) -> Run:
    """zae-limiter: a bucket of one token; a rejection says when to try again."""
    from zae_limiter import (
        Limit,
        RateLimitExceeded,
        SyncRateLimiter,
        SyncRepository,
    )

    limiter = SyncRateLimiter(repository=SyncRepository.builder().stack(job.table).build())
    limit = Limit(
        "calls", capacity=1, refill_amount=round(1 / job.interval), refill_period_seconds=1
    )
    ring = Ringer(job.port, job.caller)

    def run() -> Report:
        count = RequestCount()
        for _ in range(job.calls):
            asked = time.monotonic()
            while True:
                try:
                    with limiter.acquire("account", "send-bounce", {"calls": 1}, limits=[limit]):
                        ring(asked)
                    break
                except RateLimitExceeded as error:
                    time.sleep(error.retry_after_seconds)
        return Report(requests=count.value)

    return run


def _flexible(job: Job) -> Run:
    """rate-limiter-flexible: its queue in front of its DynamoDB store, in Node."""
    node = shutil.which("node")
    if node is None:
        raise NotHereError("there is no node here")
    if not (PACKAGES / "node_modules" / "rate-limiter-flexible").exists():
        raise NotHereError("it is not installed")
    process = subprocess.Popen(
        [
            node,
            str(Path(__file__).with_name("flexible.cjs")),
            *map(str, (job.table, job.interval, job.calls, job.caller, job.port)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"NODE_PATH": str(PACKAGES / "node_modules")},
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    if stdout.readline().strip() != "ready":
        raise NotHereError(f"it did not start: {stderr.read()[-300:]}")

    def run() -> Report:
        stdin.write("go\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise RuntimeError(stderr.read()[-300:])
        process.wait()
        return msgspec.json.decode(answer, type=Report)

    return run


# --- All of them -----------------------------------------------------------------------------

OURS = (
    Design(name="ours, single slots", open=_inline, shares=evenly, window=1),
    Design(name=f"ours, windows of {BATCH}", open=_batches, shares=_by_workers, window=BATCH),
)
OURS_MIXED = Design(name="ours, both at once", open=_both, shares=_by_both)
OTHERS = (
    Design(name="reservation without expiry", open=_without_expiry, shares=evenly),
    Design(name="conditional write, polled", open=_polled, shares=evenly),
    Design(
        name="python-dynamodb-lock",
        open=_lock,
        shares=evenly,
        module="python_dynamodb_lock",
        keys=("lock_key", "sort_key"),
    ),
    Design(
        name="zae-limiter",
        open=_zae,
        shares=evenly,
        module="zae_limiter",
        keys=(),
        create=_zae_table,
    ),
    Design(name="rate-limiter-flexible", open=_flexible, shares=evenly, keys=("key",)),
)
