"""Dead letters: what nobody could handle, read, judged and tried again; `bouncer redrive`."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import Annotated, Any

import msgspec
import typer
from botocore.exceptions import ClientError

from bouncer.delivery.bounce import WINDOW
from bouncer.delivery.queue import PoisonError, decode
from bouncer.message import MalformedEventError, parse_event
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
)
from bouncer_console.output import Json, clock_time, plain_errors, print_json, print_table, say

_BATCH = 10  # SQS takes no more at once
_LOOK_SECONDS = 600
"""How long messages that were only looked at stay hidden from others."""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter."""

    kind: str
    """bounce or event: which queue it is in."""
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
        letters = receive(deployment)
        done = [try_again(deployment, each) if run else "" for each in letters]
        put_back(
            deployment,
            [each for each, result in zip(letters, done, strict=True) if not result],
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
                clock_time(each.received_at),
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


def receive(deployment: Deployment) -> list[Letter]:
    """Every dead letter that can be had; hidden from others until it is put back.

    To look at them wears nothing out: these queues give up no message for being received often.
    """
    sqs = deployment.client("sqs")
    found = [
        read(*each)
        for kind, read in _READERS.items()
        for each in _messages(sqs, _queue(deployment, kind))
    ]
    return [_judged(each, deployment.window_margin) for each in found]


def put_back(deployment: Deployment, letters: Iterable[Letter]) -> None:
    """Let others see what was only looked at."""
    sqs = deployment.client("sqs")
    queues: dict[str, list[str]] = {}
    for letter in letters:
        queues.setdefault(_queue(deployment, letter.kind), []).append(letter.handle)
    for queue, handles in queues.items():
        for some in batched(handles, _BATCH, strict=False):
            entries = [
                {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": 0}
                for number, handle in enumerate(some)
            ]
            with suppress(ClientError):  # they have come back by themselves, after a long list
                sqs.change_message_visibility_batch(QueueUrl=queue, Entries=entries)


def look(deployment: Deployment) -> list[Letter]:
    """Every dead letter, left where it is."""
    letters = receive(deployment)
    put_back(deployment, letters)
    return letters


def _queue(deployment: Deployment, kind: str) -> str:
    if kind == "bounce":
        return deployment.output("BounceDeadLetterQueue")
    return deployment.output("EventDeadLetterQueue")


def _messages(sqs: Any, queue: str) -> Iterator[tuple[str, str]]:
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


def _bounce_letter(handle: str, body: str) -> Letter:
    try:
        bounce = decode(body)
    except PoisonError as error:
        return Letter(kind="bounce", why=str(error), handle=handle, body=body)
    return Letter(
        kind="bounce",
        message_id=bounce.message_id,
        received_at=bounce.received_at,
        why="SES failed too often",
        handle=handle,
        body=body,
    )


def _event_letter(handle: str, body: str) -> Letter:
    try:
        record = json.loads(body)
        payload = record["requestPayload"]
        answer = record.get("responsePayload") or {}
        why = f"{answer.get('errorType', '?')}: {answer.get('errorMessage', '?')}"
        mail = parse_event(payload)[0]
    except (ValueError, KeyError, TypeError, AttributeError, MalformedEventError) as error:
        return Letter(kind="event", why=str(error), handle=handle, body=body)
    return Letter(
        kind="event",
        message_id=mail.message_id,
        received_at=mail.received_at,
        why=why,
        handle=handle,
        body=body,
        payload=payload,
    )


_READERS = {"bounce": _bounce_letter, "event": _event_letter}


def _judged(letter: Letter, margin: timedelta) -> Letter:
    if letter.received_at is None:
        return letter
    too_old = datetime.now(UTC) >= letter.received_at + WINDOW - margin
    return msgspec.structs.replace(letter, verdict="too old" if too_old else "again")


def try_again(deployment: Deployment, letter: Letter) -> str:
    """Try one again; what came of it, or "" when it was left alone."""
    if letter.verdict != "again":
        return ""
    sqs = deployment.client("sqs")
    if letter.kind == "bounce":
        sqs.send_message(QueueUrl=deployment.output("BounceQueue"), MessageBody=letter.body)
        result = "queued"
    else:
        answer = deployment.client("lambda").invoke(
            FunctionName=deployment.output("InboundFunction"), Payload=json.dumps(letter.payload)
        )
        payload = answer["Payload"].read().decode()
        if answer.get("FunctionError"):
            return f"failed again: {payload}"
        result = payload
    queue = _queue(deployment, letter.kind)
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=letter.handle)
    return result
