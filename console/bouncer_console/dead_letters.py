"""Dead letters: what nobody could handle, read, judged and tried again; `bouncer redrive`."""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
from botocore.exceptions import ClientError

from bouncer.delivery.bounce import WINDOW
from bouncer.delivery.queue import PoisonError, decode
from bouncer.message import MalformedEventError, parse_event, parse_notice
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
    """bounce, event, notice or deletion: which queue it is in."""
    why: str
    handle: str
    body: str
    message_id: str = ""
    received_at: datetime | None = None
    verdict: str = "unreadable"
    """Or again, or too old."""
    again: str = ""
    """What its queue is given, if not the body."""


def redrive(
    run: Annotated[bool, typer.Option("--run", help="Do it; without, only show it.")] = False,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Try the dead letters again, where they failed.

    Bounces go to the queue, events and notices of mails to the audit, deletions of stored mail to
    the mailboxes' usage. A bounce that is too old for SES's 24 hours, and whatever is unreadable,
    stays where it is.
    """
    with plain_errors(DeploymentError):
        deployment = Deployment.find(stack, region)
        done = go_through(deployment, lambda _: run)
    rows = [
        {
            "kind": each.kind,
            "message_id": each.message_id,
            "received_at": each.received_at,
            "why": each.why,
            "verdict": each.verdict,
            "result": result or None,
        }
        for each, result in done
    ]
    if as_json:
        print_json({"run": run, "letters": rows})
        return
    if not done:
        say("There are no dead letters.", "green")
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
            for r, (each, _) in zip(rows, done, strict=True)
        ],
        whole=("mail",),
    )
    again = sum(each.verdict == "again" for each, _ in done)
    if not run and again:
        say(f"{again} would be tried again: bouncer redrive --run")


def go_through(
    deployment: Deployment,
    wanted: Callable[[Letter], bool],
    advance: Callable[[int, int], None] = lambda _done, _of: None,
) -> list[tuple[Letter, str]]:
    """Try again what is wanted and can be; every dead letter, and what came of it ("": nothing).

    They are hidden from others meanwhile; whatever happens, what was not given back is seen again
    afterwards. It wears nothing out: these queues give up no message for being received often.

    Args:
        advance: told how many of how many were given back.
    """
    received: list[list[Letter]] = [[] for _ in _KINDS]
    gone: set[str] = set()
    try:
        _receive(deployment, received)
        letters = [each for of_kind in received for each in of_kind]
        chosen = [each for each in letters if each.verdict == "again" and wanted(each)]
        for done, letter in enumerate(chosen, 1):
            _try_again(deployment, letter)
            gone.add(letter.handle)
            advance(done, len(chosen))
    finally:
        _put_back(deployment, [e for some in received for e in some if e.handle not in gone])
    return [(each, "queued" if each.handle in gone else "") for each in letters]


def look(deployment: Deployment) -> list[Letter]:
    """Every dead letter, left where it is."""
    return [letter for letter, _ in go_through(deployment, lambda _: False)]


def _receive(deployment: Deployment, into: list[list[Letter]]) -> None:
    """Every dead letter that can be had, by kind; those of before an error are there too."""
    sqs = deployment.client("sqs")
    margin = deployment.window_margin

    def of_kind(kind: _Kind, letters: list[Letter]) -> None:
        if queue := kind.dead(deployment):
            letters.extend(_judged(kind.read(*each), margin) for each in _messages(sqs, queue))

    with ThreadPoolExecutor(len(_KINDS)) as pool:
        list(pool.map(of_kind, _KINDS.values(), into))


def waiting(deployment: Deployment) -> int:
    """About how many there are."""
    sqs, name = deployment.client("sqs"), "ApproximateNumberOfMessages"
    queues = [url for kind in _KINDS.values() if (url := kind.dead(deployment))]

    def number(url: str) -> int:
        asked = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])
        return int(asked["Attributes"][name])

    with ThreadPoolExecutor(len(_KINDS)) as pool:
        return sum(pool.map(number, queues))


def _put_back(deployment: Deployment, letters: Iterable[Letter]) -> None:
    """Let others see what was only looked at."""
    sqs = deployment.client("sqs")
    queues: dict[str, list[str]] = {}
    for letter in letters:
        queues.setdefault(_KINDS[letter.kind].dead(deployment), []).append(letter.handle)
    for queue, handles in queues.items():
        for some in batched(handles, _BATCH, strict=False):
            entries = [
                {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": 0}
                for number, handle in enumerate(some)
            ]
            with suppress(ClientError):  # they have come back by themselves, after a long list
                sqs.change_message_visibility_batch(QueueUrl=queue, Entries=entries)


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
        again=json.dumps({"notificationType": "Received", **payload["Records"][0]["ses"]}),
    )


def _notice_letter(handle: str, body: str) -> Letter:
    try:
        mail, why = parse_notice(body), "it tells of no mail"
    except MalformedEventError as error:
        mail, why = None, str(error)
    if mail is None:
        return Letter(kind="notice", why=why, handle=handle, body=body)
    return Letter(
        kind="notice",
        message_id=mail.message_id,
        received_at=mail.received_at,
        why="the audit failed too often",
        handle=handle,
        body=body,
    )


def _deletion_letter(handle: str, body: str) -> Letter:
    try:
        event = json.loads(body)
        key: str = event["detail"]["object"]["key"]
        message_id = key.rpartition("/")[2]
        at = datetime.fromisoformat(event["time"]) if "time" in event else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"no deletion of a stored mail: {type(error).__name__}: {error}"
        return Letter(kind="deletion", why=why, handle=handle, body=body)
    return Letter(
        kind="deletion",
        message_id=message_id,
        received_at=at if at is not None and at.tzinfo is not None else None,
        why="the mailbox's usage could not be changed",
        handle=handle,
        body=body,
    )


class _Kind(NamedTuple):
    """One kind of dead letters."""

    read: Callable[[str, str], Letter]
    dead: Callable[[Deployment], str]
    """Their queue; "" where the stack has none."""
    back: Callable[[Deployment], str]
    """The queue that they go back to."""


_KINDS = {
    "bounce": _Kind(
        _bounce_letter,
        dead=lambda stack: stack.output("BounceDeadLetterQueue"),
        back=lambda stack: stack.output("BounceQueue"),
    ),
    # Not to the function: the mail was delivered meanwhile, and the audit knows what that means.
    "event": _Kind(
        _event_letter,
        dead=lambda stack: stack.output("EventDeadLetterQueue"),
        back=lambda stack: stack.output("AuditQueue"),
    ),
    "notice": _Kind(
        _notice_letter,
        dead=lambda stack: stack.output("AuditDeadLetterQueue"),
        back=lambda stack: stack.output("AuditQueue"),
    ),
    "deletion": _Kind(
        _deletion_letter,
        dead=lambda stack: stack.outputs.get("UsageDeadLetterQueue", ""),
        back=lambda stack: stack.output("UsageQueue"),
    ),
}


def _judged(letter: Letter, margin: timedelta) -> Letter:
    """With its verdict. The audit looks at old mail too: it ends what was left open."""
    if not letter.message_id:
        return letter
    end = letter.received_at + WINDOW - margin if letter.received_at else None
    too_old = letter.kind == "bounce" and end is not None and datetime.now(UTC) >= end
    return msgspec.structs.replace(letter, verdict="too old" if too_old else "again")


def _try_again(deployment: Deployment, letter: Letter) -> None:
    sqs, kind = deployment.client("sqs"), _KINDS[letter.kind]
    sqs.send_message(
        QueueUrl=kind.back(deployment), MessageBody=letter.again or letter.body, DelaySeconds=0
    )
    sqs.delete_message(QueueUrl=kind.dead(deployment), ReceiptHandle=letter.handle)
