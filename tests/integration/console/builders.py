"""What the tests of the command share: how it is called, and a stack that is there."""

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_sqs import SQSClient
from typer.testing import CliRunner, Result

from bouncer.aws.ledger import DynamoLedger
from bouncer.delivery.ledger import BounceState, LedgerEntry
from bouncer.delivery.queue import encode
from bouncer_console.main import app
from tests.fakes.bounces import BOUNCE_SENDER, NOBODY, bounce
from tests.fakes.logs import FakeLogs
from tests.integration.builders import (
    BOUNCES,
    BUCKET,
    MAILBOXES,
    PREFIX,
    QUEUE_KEY,
    create_mailbox_table,
    ses_event,
)

ROOT = Path(__file__).resolve().parents[3]
EVENTS = ROOT / "events"
SHIPPED = ROOT / "functions" / "inbound" / "policy.toml"
STACK = "ses-bouncer"


def bouncer(*arguments: str | Path, code: int = 0, typed: str | None = None) -> Result:
    """Run the command; it has to end with this exit status, and never with a traceback."""
    result = CliRunner().invoke(app, [str(each) for each in arguments], input=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def printed_json(*arguments: str | Path, code: int = 0) -> Any:
    """What the command prints with --json: one value and nothing else."""
    return json.loads(bouncer(*arguments, "--json", code=code).stdout)


def error_of(*arguments: str | Path, code: int = 1, typed: str | None = None) -> str:
    """The command's complaint on stderr, unwrapped."""
    result = bouncer(*arguments, code=code, typed=typed)
    assert "Traceback" not in result.stderr
    return " ".join(result.stderr.split())


def text_of(*arguments: str | Path) -> str:
    return " ".join(bouncer(*arguments).stdout.split())


def file(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


POLICY = """
version = 1
[[rules]]
name = "unknown-recipient"
when.mailbox = "unknown"
action = "bounce"
bounce_type = "DoesNotExist"
[[rules]]
name = "accept"
action = "accept"
"""
LATIN_1 = POLICY.encode() + "# café\n".encode("latin-1")
DROPS = POLICY.replace('"bounce"\nbounce_type = "DoesNotExist"', '"drop"')


class Lambda:
    """Lambda's client."""

    def get_function(self, FunctionName: str) -> dict[str, Any]:
        return {"Code": {"Location": "nowhere that is read from here"}}


class Stack:
    """The stack as CloudFormation tells of it."""

    def __init__(self, queue: Callable[[str], str]) -> None:
        dead_letters, events, bounces = queue("dead-letters"), queue("events"), queue("bounces")
        notices, dead_notices = queue("notices"), queue("dead-notices")
        deletions, dead_deletions = queue("deletions"), queue("dead-deletions")
        self.bounce_queue = bounces
        self.dead_letters = dead_letters
        self.events = events
        self.lambda_ = Lambda()
        self.logs = FakeLogs()
        self.hooks: list[tuple[str, str, Callable[..., Any]]] = []
        """Service, event and handler, for the clients that a command makes."""
        self.outputs = {
            "InboundFunction": "arn:function",
            "MailboxTable": MAILBOXES,
            "BounceTable": BOUNCES,
            "PaceTable": BOUNCES,
            "MailBucket": BUCKET,
            "MailPrefix": PREFIX,
            "BounceQueue": bounces,
            "BounceDeadLetterQueue": dead_letters,
            "EventDeadLetterQueue": events,
            "AuditQueue": notices,
            "AuditDeadLetterQueue": dead_notices,
            "UsageQueue": deletions,
            "UsageDeadLetterQueue": dead_deletions,
            "ReceiptRuleSet": "inbound",
            "ReceiptRule": "ses-bouncer",
            "Usage": "managed",
            "InboundLogGroup": "/aws/lambda/ses-bouncer-inbound",
            "SendLogGroup": "/aws/lambda/ses-bouncer-send",
        }
        self.parameters = {"SendIntervalSeconds": "1"}
        self.resources = {
            "BounceQueue": ("AWS::SQS::Queue", bounces),
            "BounceDeadLetterQueue": ("AWS::SQS::Queue", dead_letters),
            "EventDeadLetterQueue": ("AWS::SQS::Queue", events),
        }
        """Logical id to type and physical id."""
        self.denied = False
        """Whether its resources may not be listed."""

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        if StackName != STACK:
            message = f"Stack with id {StackName} does not exist"
            error: Any = {"Error": {"Code": "ValidationError", "Message": message}}
            raise ClientError(error, "DescribeStacks")
        outputs = [{"OutputKey": k, "OutputValue": v} for k, v in self.outputs.items()]
        given = [{"ParameterKey": k, "ParameterValue": v} for k, v in self.parameters.items()]
        return {"Stacks": [{"Outputs": outputs, "Parameters": given}]}

    def get_paginator(self, operation: str) -> "Stack":
        assert operation == "list_stack_resources"
        return self

    def paginate(self, StackName: str) -> list[dict[str, Any]]:
        assert StackName == STACK
        if self.denied:
            error: Any = {"Error": {"Code": "AccessDenied", "Message": "not yours to list"}}
            raise ClientError(error, "ListStackResources")
        return [
            {
                "StackResourceSummaries": [
                    {"LogicalResourceId": n, "ResourceType": kind, "PhysicalResourceId": physical}
                ]
            }
            for n, (kind, physical) in self.resources.items()
        ]


def _do_not_wait(params: dict[str, Any], **_: Any) -> None:
    params["WaitTimeSeconds"] = 0


NEED_A_STACK = [
    ["status", "msg1"],
    ["status"],
    ["find", NOBODY],
    ["report"],
    ["redrive"],
    ["queue"],
    ["queue", "drop", "--sender=eve@evil.example"],
    ["policy", "push"],
    ["mailbox", "list"],
    ["mailbox", "recount"],
    ["adopt", "an-old-table"],
    ["rules", "sync"],
    [
        "send-bounce",
        "--original-message-id=msg1",
        f"--bounce-sender={BOUNCE_SENDER}",
        f"--bounced-recipient-info-list=Recipient={NOBODY},BounceType=DoesNotExist",
    ],
]


def thousand(quota: int) -> str:
    rows = (f"user{number:04d}@example.com,{quota}" for number in range(1000))
    return "\n".join(["address,quota_bytes", *rows])


def mailbox(*arguments: str | Path, **options: Any) -> Result:
    return bouncer("mailbox", *arguments, "--table", MAILBOXES, **options)


def settle(
    dynamodb: DynamoDBClient,
    state: BounceState,
    message_id: str = "msg1",
    sender: str = "",
    reason: str = "unknown-recipient",
) -> None:
    ledger = DynamoLedger(dynamodb, BOUNCES, retention=timedelta(days=14))
    entry = LedgerEntry(
        message_id=message_id,
        recipient=NOBODY,
        state=state,
        reason=reason,
        status="5.1.1",
        received_at=datetime.now(UTC) - timedelta(hours=1),
        bounce_id="bounce-1",
        reverse_path=sender,
    )
    ledger.record([entry], until=datetime.now(UTC) + timedelta(minutes=1))


def dead_bounce(sqs: SQSClient, stack: Stack, message_id: str = "msg1", hours: float = 1) -> None:
    received_at = datetime.now(UTC) - timedelta(hours=hours)
    body = encode(bounce(message_id, received_at=received_at), QUEUE_KEY)
    sqs.send_message(QueueUrl=stack.dead_letters, MessageBody=body)


def dead_event(sqs: SQSClient, stack: Stack, message_id: str = "msg1", hours: float = 1) -> Any:
    received_at = datetime.now(UTC) - timedelta(hours=hours)
    event = ses_event(message_id=message_id, received_at=received_at)
    record = {
        "requestPayload": event,
        "responsePayload": {"errorType": "ClientError", "errorMessage": "no table"},
    }
    sqs.send_message(QueueUrl=stack.events, MessageBody=json.dumps(record))
    return event


NOTICE = {
    "notificationType": "Received",
    "mail": {
        "timestamp": "2026-11-28T12:00:00.000Z",
        "source": "pat@sender.example",
        "messageId": "msg1",
        "destination": ["nobody@example.com"],
        "headersTruncated": False,
        "headers": [],
        "commonHeaders": {},
    },
    "receipt": {
        "recipients": ["nobody@example.com"],
        **{
            f"{check}Verdict": {"status": "PASS"}
            for check in ("spam", "virus", "spf", "dkim", "dmarc")
        },
        "action": {"type": "S3"},
    },
}
DELETION = {
    "detail-type": "Object Deleted",
    "time": "2026-11-28T12:00:00Z",
    "detail": {"object": {"key": f"{PREFIX}msg1"}},
}


def number_in(sqs: SQSClient, queue: str) -> int:
    """Messages in a queue, with those that somebody is looking at."""
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)
    return sum(map(int, answer["Attributes"].values()))


def own_table(stack: Stack, dynamodb: DynamoDBClient) -> None:
    """The stack's directory is a table of the user's own, with names of its own."""
    create_mailbox_table(dynamodb, "users", key="email")
    stack.outputs["MailboxTable"] = "users"
    stack.parameters["MailboxTableName"] = "users"
    stack.parameters["MailboxAttributes"] = "address=email,quota_bytes=quota"


def fail_after(client: Any, operation: str, times: int) -> None:
    """Let so many requests of an operation through, and none after them."""
    asked = itertools.count(1)

    def refuse(**_: Any) -> None:
        if next(asked) > times:
            raise EndpointConnectionError(endpoint_url="https://dynamodb.example")

    client.meta.events.register(f"before-call.dynamodb.{operation}", refuse)
