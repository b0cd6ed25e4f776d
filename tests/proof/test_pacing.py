"""Fifty processes, one atomic engine: no two calls closer than the interval, each bounce once.

Inbound functions and workers mixed, random stalls (also longer than the tolerance), SIGKILL
before, between and after calls, failing DynamoDB and SES, clocks apart by as much as is stated.
The interval is short, so that it takes a minute; all that is asserted is spacing and counts.
"""

import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bouncer.delivery.ledger import BounceState
from bouncer.limiter import Pace
from local.aws.server import free_port
from local.stack import ROOT, Aws, running
from tests.integration.builders import create_bounce_table
from tests.proof.caller import INVOCATION, Luck, Plan

type Process = subprocess.Popen[bytes]

PACE = Pace(interval=0.1, lateness=0.03, suspension=0.005, clock_error=0.01)
INBOUND = 35
WORKERS = 15
MAILS = 300


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with running(outbox=tmp_path_factory.mktemp("outbox")) as aws:
        yield aws


class Run:
    """The processes of one run, restarted when they die."""

    def __init__(self, aws: Aws, folder: Path, luck: Luck, *, clock_error: float) -> None:
        self._aws = aws
        self._folder = folder
        self._luck = luck
        self._clock_error = clock_error
        self._seeds = itertools.count(1)
        self.mails = [f"m{number:04d}" for number in range(MAILS)]
        name = folder.name
        dynamodb, sqs = aws.client("dynamodb"), aws.client("sqs")
        self.table = f"bounces-{name}"
        create_bounce_table(dynamodb, self.table)
        visibility = {"VisibilityTimeout": str(int(INVOCATION.total_seconds()) + 5)}
        queue = sqs.create_queue(QueueName=f"bounces-{name}", Attributes=visibility)
        self.queue: str = queue["QueueUrl"]

    def go(self, *, failing: float, throttling: float, losing: float) -> None:
        """Run until every mail is settled."""
        port = free_port()
        receiver = self._python(
            "tests.proof.receiver", str(port), str(self._folder / "arrivals"),
            str(failing), str(throttling), str(losing),
        )  # fmt: skip
        assert receiver.stdout is not None
        assert receiver.stdout.readline().strip() == b"ready"
        try:
            self._callers(f"http://127.0.0.1:{port}")
        finally:
            _end([receiver])

    def _callers(self, receiver: str) -> None:
        end = time.monotonic() + 240
        parts = [self.mails[number::INBOUND] for number in range(INBOUND)]
        plans = [self._plan("inbound", n, receiver, end, part) for n, part in enumerate(parts)]
        plans += [self._plan("worker", INBOUND + n, receiver, end, []) for n in range(WORKERS)]
        live: list[tuple[Plan, Process | None]] = [(plan, self._start(plan)) for plan in plans]
        try:
            while time.monotonic() < end and not self._done(live):
                time.sleep(1)
                live = [(plan, self._restarted(plan, process)) for plan, process in live]
        finally:
            _end([process for _, process in live if process is not None])

    def _restarted(self, plan: Plan, process: "Process | None") -> "Process | None":
        """A process that was killed is replaced: Lambda starts another one, too."""
        if process is None or process.poll() is None:
            return process
        _end([process])
        if process.returncode == 0:
            return None
        assert process.returncode == -9, f"{plan.role} {plan.number} failed: {process.returncode}"
        return self._start(msgspec.structs.replace(plan, seed=next(self._seeds)))

    def _plan(
        self, role: str, number: int, receiver: str, until: float, messages: list[str]
    ) -> Plan:
        # The clocks lie as far apart as the pace allows: half of them early, half of them late.
        offset = self._clock_error * (1 if number % 2 else -1)
        return Plan(
            role=role,
            number=number,
            endpoint=self._aws.endpoint,
            receiver=receiver,
            table=self.table,
            queue=self.queue,
            log=str(self._folder / f"caller-{number}"),
            messages=messages,
            clock_offset=offset,
            pace=PACE,
            luck=self._luck,
            seed=next(self._seeds),
            until=until,
        )

    def _start(self, plan: Plan) -> "Process":
        process = self._python("tests.proof.caller")
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(plan))
        process.stdin.close()
        return process

    def _python(self, module: str, *arguments: str) -> "Process":
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=self._aws.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def _done(self, live: "list[tuple[Plan, Process | None]]") -> bool:
        """All inbound functions have dealt with all their mails, and the queue is empty."""
        if any(plan.role == "inbound" and process is not None for plan, process in live):
            return False
        return self.waiting() == 0

    def waiting(self) -> int:
        """How many messages the queue holds, those in somebody's hands included."""
        counts = self._aws.client("sqs").get_queue_attributes(
            QueueUrl=self.queue, AttributeNames=["All"]
        )["Attributes"]
        names = ("", "NotVisible", "Delayed")
        return sum(int(counts[f"ApproximateNumberOfMessages{name}"]) for name in names)

    def states(self) -> dict[str, BounceState | None]:
        """What the ledger says of each mail."""
        pages = self._aws.client("dynamodb").get_paginator("scan").paginate(TableName=self.table)
        found = {
            item["pk"]["S"].removeprefix("message#"): BounceState(item["state"]["S"])
            for page in pages
            for item in page["Items"]
            if "state" in item
        }
        return {mail: found.get(mail) for mail in self.mails}

    def arrivals(self) -> list[tuple[float, str, str]]:
        lines = (self._folder / "arrivals").read_text().splitlines()
        return sorted(tuple(json.loads(line)) for line in lines)

    def noted(self, kind: str) -> list[dict[str, Any]]:
        lines = (
            json.loads(line)
            for file in self._folder.glob("caller-*")
            for line in file.read_text().splitlines()
        )
        return sorted((e for e in lines if e["kind"] == kind), key=lambda each: each["at"])


def _end(processes: "list[Process]") -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait(20)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def too_close(run: Run) -> list[tuple[float, float]]:
    """Pairs of calls closer than the interval, with how long the later and the earlier caller
    were held up between their last look at the clock and the call.

    The promise excludes a suspension longer than the pace allows for: no client can prevent it,
    for SendBounce takes no fencing token.
    """
    calls = run.noted("call")
    return [
        (later["started"] - earlier["started"], max(earlier["suspended"], later["suspended"]))
        for earlier, later in itertools.pairwise(sorted(calls, key=lambda each: each["started"]))
        if later["started"] - earlier["started"] < PACE.interval
    ]


CASES: list[tuple[str, Luck, float, dict[str, float]]] = [
    ("quiet", Luck(), 0.0, {"failing": 0.0, "throttling": 0.0, "losing": 0.0}),
    (
        "everything-goes-wrong",
        Luck(stalls=0.1, longest_stall=0.15, kills=0.06, store_errors=0.05),
        PACE.clock_error,
        {"failing": 0.03, "throttling": 0.02, "losing": 0.02},
    ),
]


@pytest.fixture(scope="module", params=CASES, ids=[case[0] for case in CASES])
def run(request: pytest.FixtureRequest, aws: Aws, tmp_path_factory: pytest.TempPathFactory) -> Run:
    name, luck, clock_error, faults = request.param
    folder = tmp_path_factory.mktemp(name)
    run = Run(aws, folder, luck, clock_error=clock_error)
    run.go(**faults)
    return run


def test_no_two_calls_start_closer_than_the_interval(run: Run) -> None:
    broken = [(gap, held) for gap, held in too_close(run) if held <= PACE.suspension]
    assert broken == []


def test_what_is_excused_by_a_suspension_is_rare(run: Run) -> None:
    assert len(too_close(run)) <= len(run.noted("call")) * 0.05


def test_none_is_lost(run: Run) -> None:
    arrived = {m for _, m, outcome in run.arrivals() if outcome in ("sent", "answer-lost")}
    assert set(run.mails) - arrived == set()
    assert run.waiting() == 0


def test_the_ledger_says_so_unless_it_could_not_be_written(run: Run) -> None:
    unsettled = {mail for mail, state in run.states().items() if state is not BounceState.SENT}
    assert unsettled <= {each["what"] for each in run.noted("unwritten")}


def test_each_is_sent_once_but_where_its_answer_never_came_or_was_not_written(run: Run) -> None:
    """A kill between call and ledger, a lost answer, a ledger that failed: each such mishap is
    the reason for one more bounce at the most; nothing else is."""
    arrivals = [(m, outcome) for _, m, outcome in run.arrivals()]
    sent = Counter(m for m, outcome in arrivals if outcome in ("sent", "answer-lost"))
    mishaps = Counter(m for m, outcome in arrivals if outcome == "answer-lost")
    mishaps.update(e["what"] for e in run.noted("killed") if e["where"] != "before the call")
    mishaps.update(e["what"] for e in run.noted("unwritten"))
    assert set(sent) == set(run.mails)
    assert {m: times for m, times in sent.items() if times > 1 + mishaps[m]} == {}
    assert sum(times - 1 for times in sent.values()) <= sum(mishaps.values())


def test_what_was_meant_to_go_wrong_did(request: pytest.FixtureRequest, run: Run) -> None:
    """The proof is worth something only if the faults happened."""
    if "quiet" in request.node.name:
        assert run.noted("killed") == []
        return
    places = {each["where"] for each in run.noted("killed")}
    assert places == {"before the call", "between", "after the answer"}
    outcomes = {outcome for _, _, outcome in run.arrivals()}
    assert outcomes == {"sent", "failed", "throttled", "answer-lost"}
