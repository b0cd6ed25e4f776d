"""AWS inside the test process: nothing here leaves this machine."""

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import cache, partial, wraps
from types import ModuleType
from typing import Any, NamedTuple

import aws_lambda_powertools
import boto3
import botocore.session
import pytest
from moto import mock_aws
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_s3 import S3Client
from mypy_boto3_sqs import SQSClient

from bouncer.aws import clients, wiring
from bouncer.limiter import Limiter
from functions.inbound import app as inbound
from functions.inbound import audit
from functions.receipt_rules import app as rules
from functions.send import app as send
from functions.usage import app as usage
from tests.fakes.bounces import BOUNCE_SENDER
from tests.integration.builders import (
    BOUNCES,
    BUCKET,
    MAILBOXES,
    PREFIX,
    SesServer,
    create_bounce_table,
    create_mailbox_table,
    set_date,
)
from tests.integration.roles import Call, allowed, calls

REGION = "us-east-1"
HANDLERS: dict[str, ModuleType] = {
    "InboundRole": inbound,
    "AuditRole": audit,
    "SendRole": send,
    "UsageRole": usage,
    "RulesRole": rules,
}
"""Each role's function."""

# The console reads botocore's model of SES when it is imported, which a profile that is not
# there would stop: test modules are imported before any fixture runs.
os.environ.pop("AWS_PROFILE", None)


@pytest.fixture(scope="session", autouse=True)
def _models_read_once() -> Iterator[None]:
    """botocore reads a service's model anew in every session, which is most of a test's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.session.create_loader))
        yield


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Credentials and a Region that mean nothing, and moto behind every client."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "BOUNCER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with mock_aws():
        yield


@pytest.fixture
def dynamodb() -> DynamoDBClient:
    """With both tables of a stack."""
    client: DynamoDBClient = boto3.client("dynamodb")
    create_bounce_table(client, BOUNCES)
    create_mailbox_table(client, MAILBOXES)
    return client


@pytest.fixture
def s3() -> S3Client:
    """With the bucket of stored mail."""
    client: S3Client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture
def sqs() -> SQSClient:
    client: SQSClient = boto3.client("sqs")
    return client


@pytest.fixture
def queue(sqs: SQSClient) -> Callable[[str], str]:
    """A new queue's URL, by its name."""
    return lambda name: sqs.create_queue(QueueName=name)["QueueUrl"]


@pytest.fixture
def ses_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SesServer]:
    """The SES that clients made from now on call, over real HTTP."""
    with SesServer().running() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SES", server.url)
        yield server


class Services(NamedTuple):
    """The clients that the functions get; a test can watch and disturb them."""

    dynamodb: DynamoDBClient
    s3: S3Client
    sqs: SQSClient

    def queue(self, name: str) -> str:
        return self.sqs.create_queue(QueueName=name)["QueueUrl"]

    def environment(self) -> dict[str, str]:
        """What the functions are told of this stack, which is live and stores mail."""
        return {
            "BOUNCE_TABLE": BOUNCES,
            "PACE_TABLE": BOUNCES,
            "BOUNCE_QUEUE_URL": self.queue("bounces"),
            "BOUNCE_SENDER": BOUNCE_SENDER,
            "MODE": "enforce",
            "REFUSED_MAIL_STOPS": "rule-set",
            "EVENT_DEAD_LETTER_QUEUE_URL": self.queue("events"),
            "BOUNCE_DEAD_LETTER_QUEUE_URL": self.queue("dead-letters"),
            "BOUNCE_QUEUE_MAX_RECEIVES": "20",
            "MAILBOX_TABLE": MAILBOXES,
            "MAIL_BUCKET": BUCKET,
            "MAIL_PREFIX": PREFIX,
        }

    def start(
        self, monkeypatch: pytest.MonkeyPatch, *functions: ModuleType, **variables: str
    ) -> None:
        """Have these functions start cold, told of this stack and of what else is named."""
        for name, value in (self.environment() | variables).items():
            monkeypatch.setenv(name, value)
        for function in functions:
            function.application.cache_clear()


class VirtualTime:
    """Passes by sleeping only: however busy this machine is, no call is late for its slot."""

    def __init__(self) -> None:
        self._start = time.time()
        self._slept = 0.0

    def clock(self) -> float:
        return self._start + self._slept

    def monotonic(self) -> float:
        return self._slept

    def sleep(self, seconds: float) -> None:
        # At least what an epoch second can tell apart, or time would stand still.
        self._slept += max(seconds, 1e-6)


class Witness:
    """Sees what each function asks of DynamoDB, whatever else a test asks."""

    def __init__(self) -> None:
        self.running = ""
        """Whose handler runs: its role."""
        self.seen: list[tuple[str, Call]] = []
        self.refused: list[tuple[str, Call]] = []
        """What its role would not have let it."""

    def watch(self, client: DynamoDBClient) -> None:
        client.meta.events.register("before-parameter-build.dynamodb", self._note)

    def watching(self, role: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(handler)
        def watched(*arguments: Any) -> Any:
            self.running = role
            try:
                return handler(*arguments)
            finally:
                self.running = ""

        return watched

    def _note(self, params: Any, model: Any, **_: Any) -> None:
        if not self.running:
            return
        renamed = bool(os.environ.get("MAILBOX_ATTRIBUTES"))
        for call in calls(model.name, params):
            self.seen.append((self.running, call))
            if not allowed(self.running, call, renamed=renamed):
                self.refused.append((self.running, call))


@pytest.fixture
def witness(dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch) -> Witness:
    witness = Witness()
    witness.watch(dynamodb)
    for role, module in HANDLERS.items():
        monkeypatch.setattr(module, "handler", witness.watching(role, module.handler))
    return witness


@pytest.fixture
def services(
    monkeypatch: pytest.MonkeyPatch,
    dynamodb: DynamoDBClient,
    s3: S3Client,
    sqs: SQSClient,
    witness: Witness,
) -> Iterator[Services]:
    """The functions' clients are the test's, and their limiter lives in virtual time.

    Whatever a test does, each function asks only what its own role lets it, to the item.
    """
    passing = VirtualTime()
    limiter = partial(
        Limiter, clock=passing.clock, monotonic=passing.monotonic, sleep=passing.sleep
    )
    monkeypatch.setattr(wiring, "Limiter", limiter)
    set_date(dynamodb, None)
    monkeypatch.setattr(clients, "dynamodb", lambda: dynamodb)
    monkeypatch.setattr(clients, "s3", lambda: s3)
    monkeypatch.setattr(clients, "sqs", lambda: sqs)
    yield Services(dynamodb, s3, sqs)
    assert witness.refused == []


class Printed:
    """All that a function printed: log lines and metrics."""

    def __init__(self, log: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
        self._log = log
        self._capsys = capsys
        self._stdout = ""

    @property
    def text(self) -> str:
        captured = self._capsys.readouterr()
        self._stdout += captured.out + captured.err
        return self._log.getvalue() + self._stdout

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log's, without the metrics."""
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    def line(self, message: str) -> dict[str, Any]:
        """The only line with this message."""
        (only,) = [each for each in self.lines if each["message"] == message]
        return only

    @property
    def blobs(self) -> list[dict[str, Any]]:
        """The metrics, in CloudWatch's embedded format."""
        decoded = [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]
        return [each for each in decoded if "_aws" in each]

    @property
    def counts(self) -> dict[str, float]:
        """What was counted, by name; with its reason as `Name:reason` where it has one."""
        found: dict[str, float] = {}
        for blob in self.blobs:
            (metric,) = blob["_aws"]["CloudWatchMetrics"][0]["Metrics"]
            name = metric["Name"]
            key = f"{name}:{blob['Reason']}" if "Reason" in blob else name
            found[key] = found.get(key, 0) + sum(blob[name])
        return found


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Printed:
    """What the functions print; their loggers share one handler, for one service name."""
    log = io.StringIO()
    monkeypatch.setattr(aws_lambda_powertools.Logger().registered_handler, "stream", log)
    return Printed(log, capsys)
