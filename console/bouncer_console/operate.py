"""`bouncer status`, `redrive` and `send-bounce`: look after what is deployed."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import typer
from botocore.exceptions import ClientError

from bouncer.aws.ledger import DynamoLedger
from bouncer.delivery.bounce import WINDOW
from bouncer.delivery.ledger import LedgerUnavailableError
from bouncer.delivery.queue import PoisonError, decode
from bouncer.message import MalformedEventError, parse_event
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
)
from bouncer_console.output import Json, plain_errors, print_json, print_table, say

_LOOK_SECONDS = 600
"""How long messages that were only looked at stay hidden from others."""


def status(
    message_id: Annotated[str, typer.Argument(help="SES's id of the mail.")],
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """What happened to a mail's bounces, recipient by recipient."""
    with plain_errors(DeploymentError, LedgerUnavailableError):
        deployment = Deployment.find(stack, region)
        ledger = DynamoLedger(
            deployment.client("dynamodb"), deployment.output("BounceTable"), retention=timedelta(0)
        )
        entries = ledger.history(message_id)
    if as_json:
        print_json(entries)
        return
    if not entries:
        say(
            "The ledger has nothing of this mail: nobody's bounce was decided, "
            "or it was longer ago than the ledger remembers."
        )
        return
    columns = ("recipient", "state", "reason", "status", "since", "bounce id", "why")
    print_table(
        "",
        columns,
        [
            (e.recipient, e.state, e.reason, e.status, _time(e.updated_at), e.bounce_id, e.why)
            for e in entries
        ],
    )


def _time(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC") if moment else ""


class _Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter."""

    kind: str
    why: str
    handle: str
    body: str
    message_id: str = ""
    received_at: datetime | None = None
    verdict: str = "unreadable"
    """Or again, or too old."""
    payload: Any = None


def redrive(
    run: Annotated[bool, typer.Option("--run", help="Do it; without, only show it.")] = False,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Try the dead letters again: bounces go back to the queue, events to the function.

    What is too old for SES's 24 hours, or unreadable, stays where it is.
    """
    with plain_errors(DeploymentError):
        deployment = Deployment.find(stack, region)
        sqs = deployment.client("sqs")
        bounces = deployment.output("BounceDeadLetterQueue")
        events = deployment.output("EventDeadLetterQueue")
        margin = timedelta(seconds=float(deployment.parameters.get("WindowMarginSeconds", 300)))
        found = [
            *(_bounce_letter(*each) for each in _receive(sqs, bounces)),
            *(_event_letter(*each) for each in _receive(sqs, events)),
        ]
        letters = [_judged(each, margin) for each in found]
        done = [_again(deployment, each) if run else "" for each in letters]
        for letter, result in zip(letters, done, strict=True):
            if not result:  # put back what was only looked at
                queue = bounces if letter.kind == "bounce" else events
                with suppress(ClientError):  # it has come back by itself, after a long list
                    sqs.change_message_visibility(
                        QueueUrl=queue, ReceiptHandle=letter.handle, VisibilityTimeout=0
                    )
    rows = [
        {
            "kind": each.kind,
            "message_id": each.message_id,
            "received_at": each.received_at,
            "why": each.why,
            "verdict": each.verdict,
            "result": result or None,
        }
        for each, result in zip(letters, done, strict=True)
    ]
    if as_json:
        print_json({"run": run, "letters": rows})
        return
    columns = ("", "mail", "received", "why it is here", "verdict", "result")
    print_table(
        "",
        columns,
        [
            (
                r["kind"],
                r["message_id"],
                _time(each.received_at),
                r["why"],
                r["verdict"],
                r["result"],
            )
            for r, each in zip(rows, letters, strict=True)
        ],
    )
    again = sum(each.verdict == "again" for each in letters)
    if not run and again:
        say(f"{again} would be tried again: bouncer redrive --run")


def _receive(sqs: Any, queue: str) -> Iterator[tuple[str, str]]:
    """Receipt handle and body of every message that can be had, each once."""
    seen: set[str] = set()
    while True:
        answer = sqs.receive_message(
            QueueUrl=queue,
            MaxNumberOfMessages=10,
            VisibilityTimeout=_LOOK_SECONDS,
            WaitTimeSeconds=1,
        )
        messages = [each for each in answer.get("Messages", []) if each["MessageId"] not in seen]
        for message in messages:
            seen.add(message["MessageId"])
            yield message["ReceiptHandle"], message["Body"]
        if not messages:
            return


def _bounce_letter(handle: str, body: str) -> _Letter:
    try:
        bounce = decode(body)
    except PoisonError as error:
        return _Letter(kind="bounce", why=str(error), handle=handle, body=body)
    return _Letter(
        kind="bounce",
        message_id=bounce.message_id,
        received_at=bounce.received_at,
        why="SES failed too often",
        handle=handle,
        body=body,
    )


def _event_letter(handle: str, body: str) -> _Letter:
    try:
        record = json.loads(body)
        payload = record["requestPayload"]
        answer = record.get("responsePayload") or {}
        why = f"{answer.get('errorType', '?')}: {answer.get('errorMessage', '?')}"
        mail = parse_event(payload)[0]
    except (ValueError, KeyError, TypeError, AttributeError, MalformedEventError) as error:
        return _Letter(kind="event", why=str(error), handle=handle, body=body)
    return _Letter(
        kind="event",
        message_id=mail.message_id,
        received_at=mail.received_at,
        why=why,
        handle=handle,
        body=body,
        payload=payload,
    )


def _judged(letter: _Letter, margin: timedelta) -> _Letter:
    if letter.received_at is None:
        return letter
    too_old = datetime.now(UTC) >= letter.received_at + WINDOW - margin
    return msgspec.structs.replace(letter, verdict="too old" if too_old else "again")


def _again(deployment: Deployment, letter: _Letter) -> str:
    """Try one again; what came of it, or "" when it was left alone."""
    if letter.verdict != "again":
        return ""
    sqs = deployment.client("sqs")
    if letter.kind == "bounce":
        queue = deployment.output("BounceDeadLetterQueue")
        sqs.send_message(QueueUrl=deployment.output("BounceQueue"), MessageBody=letter.body)
        result = "queued"
    else:
        queue = deployment.output("EventDeadLetterQueue")
        answer = deployment.client("lambda").invoke(
            FunctionName=deployment.output("InboundFunction"), Payload=json.dumps(letter.payload)
        )
        payload = answer["Payload"].read().decode()
        if answer.get("FunctionError"):
            return f"failed again: {payload}"
        result = payload
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=letter.handle)
    return result
