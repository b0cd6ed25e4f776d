"""The weather of AWS on this machine: it knows the functions' steps, and strikes at them."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bouncer.aws.ledger import DynamoLedger
from bouncer.aws.mail_records import DynamoMailRecords
from bouncer.delivery.ledger import BounceState, LedgerEntry
from bouncer.mail_record import MailRecord, RecipientRecord
from local.aws.faults import Door
from local.aws.weather import Process, Step, Weather

WEEK = timedelta(days=7)
UPDATE = b"DynamoDB_20120810.UpdateItem"


class Recorder:
    """Takes what an adapter writes."""

    def __init__(self) -> None:
        self.body = b""

    def update_item(self, **request: Any) -> dict[str, Any]:
        self.body = json.dumps(request).encode()
        return {}


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


def claim(client: Any) -> None:
    ledger = DynamoLedger(client, "bounces", retention=WEEK)
    ledger.claim("m1", {"nobody@example.com": "unknown-recipient"}, owner="o", until=soon())


def settle(client: Any) -> None:
    entry = LedgerEntry(
        message_id="m1",
        recipient="nobody@example.com",
        state=BounceState.SENT,
        reason="unknown-recipient",
    )
    DynamoLedger(client, "bounces", retention=WEEK).settle([entry], owner="o", until=soon())


def record(client: Any) -> None:
    whose = frozenset({RecipientRecord("nobody@example.com", "bounce", "unknown-recipient")})
    DynamoMailRecords(client, "bounces", retention=WEEK).add(
        MailRecord(message_id="m1", received_at=soon(), recipients=whose), until=soon()
    )


def request_of(step: Step) -> tuple[bytes, bytes]:
    """Target and body, as the product makes them."""
    writes = {Step.CLAIM: claim, Step.SETTLE: settle, Step.RECORD: record}
    if step in writes:
        recorder = Recorder()
        writes[step](recorder)
        return UPDATE, recorder.body
    if step is Step.QUEUE:
        return b"AmazonSQS.SendMessage", b"{}"
    return b"", b"Action=SendBounce&OriginalMessageId=m1"


@pytest.fixture
def victim() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


class Behind:
    """AWS, which remembers what it did."""

    def __init__(self) -> None:
        self.did = 0

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        await receive()
        self.did += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


def ask(weather: Weather, behind: Behind, process: int, step: Step) -> list[Any]:
    """One request of a function: what it is answered."""
    target, body = request_of(step)
    door = Door(behind, weather, "AKIA", lambda _: (process, Process("inbound", begins=False)))
    scope = {
        "type": "http",
        "headers": [(b"x-amz-target", target), (b"authorization", b"Credential=ASIA/")],
        "client": ("127.0.0.1", 1),
    }
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    asyncio.run(door(scope, receive, send))
    return said


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize("when", ["before", "after"])
def test_who_comes_to_a_named_step_is_killed_there_and_nowhere_else(
    victim: "subprocess.Popen[bytes]", step: Step, when: str
) -> None:
    weather, behind = Weather(), Behind()
    weather.set(f"kill-{when}-{step}:1")
    for other in Step:
        if other is not step:
            assert ask(weather, behind, victim.pid, other)
    assert victim.poll() is None
    did = behind.did
    came = 0
    while victim.poll() is None and came < 60:
        came += 1
        if not ask(weather, behind, victim.pid, step):
            break
    victim.wait(10)
    assert [each.process for each in weather.killed] == [victim.pid]
    assert behind.did - did == came - (when == "before")  # undone, or done and unanswered


def test_a_weather_is_the_same_for_the_same_seed() -> None:
    def told(seed: int) -> list[Any]:
        weather = Weather()
        weather.set(f"storm:{seed}")
        return [weather.ses_calls_again, *(weather.befalls("table") for _ in range(200))]

    assert told(1) == told(1) != told(2)
    with pytest.raises(ValueError, match="no weather"):
        Weather().set("sunshine")
