"""`bouncer status`: the stack at a glance, or what became of one mail."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import typer
from botocore.exceptions import ClientError
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bouncer.aws.ledger import DynamoLedger
from bouncer.aws.mail_records import DynamoMailRecords
from bouncer.delivery.ledger import BounceState, LedgerEntry, LedgerUnavailableError
from bouncer.mail_record import MailRecord, RecordsUnavailableError
from bouncer.settings import stored_prefix
from bouncer_console import dead_letters, queue
from bouncer_console.dead_letters import Letter
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
)
from bouncer_console.glance import Glance, Glancer
from bouncer_console.output import (
    Json,
    clock_time,
    fail,
    note,
    plain_errors,
    print_json,
    print_json_line,
    print_table,
    progress,
    say,
    screen,
    span,
)


def status(
    message_id: Annotated[
        str | None, typer.Argument(help="SES's id of the mail; without it, the whole stack.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")
    ] = False,
    every: Annotated[
        float,
        typer.Option(min=1, metavar="SECONDS", help="With --watch: seconds between looks."),
    ] = 5,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Show the stack at a glance, or what became of one mail.

    At a glance: mode, queue, pace, the last hour, dead letters, alarms. Where something
    can't be read, it says why. Of a mail: each recipient's line in the ledger, and for a bounce
    that waits an estimate of its turn, for which all of BounceTable is read, as for `bouncer
    queue`. A mail that neither ledger nor record has is looked for among the dead letters and in
    the bucket; if it is nowhere, the exit status is 1.
    """
    with plain_errors(DeploymentError, LedgerUnavailableError, RecordsUnavailableError):
        if message_id is None:
            _stack_status(Glancer.of(stack, region), watch=watch, every=every, as_json=as_json)
            return
        if watch:
            fail("--watch is for the stack: leave the id out", code=2)
        found = mail_status(Deployment.find(stack, region), message_id)
    if as_json:
        print_json(_mail_facts(found))
    else:
        _show_mail(found)
    if not found.known:
        fail(
            f"No mail {message_id!r} is known: neither ledger nor record, dead letters nor bucket "
            "have it, or it is longer ago than they remember. The id is SES's own, the name of the "
            "stored object, not the header Message-ID."
        )


# --- The stack -------------------------------------------------------------------------------


def _stack_status(glancer: Glancer, *, watch: bool, every: float, as_json: bool) -> None:
    if not watch:
        glance = glancer.look()
        if as_json:
            print_json(_facts(glance))
        else:
            screen.print(_grid(glance))
        return
    try:
        if as_json:
            for glance in _looks(glancer, every):
                print_json_line(_facts(glance))
        elif screen.is_terminal:
            with Live(console=screen, auto_refresh=False, screen=True) as live:
                for glance in _looks(glancer, every):
                    live.update(_grid(glance), refresh=True)
        else:
            for glance in _looks(glancer, every):
                for name, text, _ in lines(glance):
                    say(f"{clock_time(glance.at)}  {name}: {text}")
    except KeyboardInterrupt:
        return


def _looks(
    glancer: Glancer, every: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Glance]:
    while True:
        yield glancer.look()
        sleep(every)


def _facts(glance: Glance) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(glance)
    return facts | {"empty_at": glance.empty_at}


def _grid(glance: Glance) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(glance.stack, "bold"), Text(clock_time(glance.at), "dim"))
    for name, text, style in lines(glance):
        grid.add_row(Text(name, "bold"), Text(text, style))
    return grid


def lines(glance: Glance) -> list[tuple[str, str, str]]:
    """What is shown for people: a name, its text, and a style of rich's."""
    parts: dict[str, tuple[str, Callable[[Glance], tuple[str, str]]]] = {
        "mode": ("mode", _mode),
        "waiting": ("queue", _queue),
        "next_slot": ("next slot", _slot),
        "last_hour": ("last hour", _last_hour),
        "dead_letters": ("dead letters", _dead_letters),
        "alarms": ("alarms", _alarms),
    }
    found = []
    for part, (name, told) in parts.items():
        if part in glance.unread:
            found.append((name, f"not read: {glance.unread[part]}", "yellow"))
        else:
            found.append((name, *told(glance)))
    return found


def _mode(glance: Glance) -> tuple[str, str]:
    if glance.mode == "observe":
        return "observe: decides and counts, sends nothing (bouncer mode enforce)", "yellow"
    return f"{glance.mode}: live", ""


def _queue(glance: Glance) -> tuple[str, str]:
    waiting = glance.waiting
    if waiting is None or not waiting.total:
        return "empty", "green"
    text = f"{waiting.total:,} waiting"
    if waiting.in_hand:
        text += f", {waiting.in_hand:,} of them with a worker"
    if waiting.oldest_seconds is not None and glance.oldest_share is not None:
        oldest = span(timedelta(seconds=waiting.oldest_seconds))
        text += f"; the oldest for {oldest} of 24 h ({glance.oldest_share:.0%})"
    if glance.empty_at is not None:
        text += (
            f"; empty about {clock_time(glance.empty_at)}, in {span(glance.empty_at - glance.at)}"
        )
    late = glance.oldest_share is not None and glance.oldest_share > 0.25
    return text, "red" if late else ""


def _slot(glance: Glance) -> tuple[str, str]:
    pace = f"one call every {glance.interval:g} s"
    if glance.next_slot is None or glance.next_slot <= glance.at:
        return f"free; {pace}", "green"
    return f"in {span(glance.next_slot - glance.at)}; {pace}", ""


def _last_hour(glance: Glance) -> tuple[str, str]:
    counted = {name: count for name, count in (glance.last_hour or {}).items() if count}
    told = ", ".join(f"{count:,} {name}" for name, count in counted.items())
    return told or "no mail was counted", ""


def _dead_letters(glance: Glance) -> tuple[str, str]:
    there = {name: count for name, count in (glance.dead_letters or {}).items() if count}
    if not there:
        return "none", "green"
    told = ", ".join(f"{count:,} in {name}" for name, count in there.items())
    return f"{told} (bouncer redrive)", "red"


def _alarms(glance: Glance) -> tuple[str, str]:
    alarms = glance.alarms or ()
    ringing = [each for each in alarms if each.state == "ALARM"]
    waiting = [each for each in alarms if each.state == "INSUFFICIENT_DATA"]
    told = [
        f"{each.name} since {clock_time(each.since)}: {each.description}" for each in ringing
    ] or [f"none of {len(alarms)}"]
    if waiting:
        told.append(f"{len(waiting)} without data yet")
    return "\n".join(told), "red" if ringing else "green"


# --- One mail --------------------------------------------------------------------------------


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where in the queue a mail's bounce is, about."""

    position: int
    at: datetime | None
    """None: it will be given up, for SES's 24 hours end before."""


class MailStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the stack still knows of a mail, but for the log."""

    message_id: str
    entries: list[LedgerEntry]
    """The ledger's: recipients who were refused."""
    record: MailRecord | None
    place: Place | None = None
    """If its bounce waits."""
    dead_letters: list[Letter] = []
    """Looked for only if neither ledger nor record know of it."""
    stored_at: datetime | None = None
    """The same."""

    @property
    def known(self) -> bool:
        return bool(self.entries or self.record or self.dead_letters or self.stored_at)


def mail_status(deployment: Deployment, message_id: str) -> MailStatus:
    """
    Raises:
        LedgerUnavailableError, RecordsUnavailableError, DeploymentError
    """
    table, retention = deployment.output("BounceTable"), timedelta(0)
    dynamodb = deployment.client("dynamodb")
    entries = DynamoLedger(dynamodb, table, retention=retention).history(message_id)
    record = (
        DynamoMailRecords(dynamodb, table, retention=retention).of([message_id]).get(message_id)
    )
    found = MailStatus(message_id=message_id, entries=entries, record=record)
    if any(each.state is BounceState.QUEUED for each in entries):
        return msgspec.structs.replace(found, place=_place(deployment, message_id))
    if found.known:
        return found
    return msgspec.structs.replace(
        found,
        dead_letters=[
            each for each in dead_letters.look(deployment) if each.message_id == message_id
        ],
        stored_at=_stored_at(deployment, message_id),
    )


def _place(deployment: Deployment, message_id: str) -> Place | None:
    with progress("items of the table") as advance:
        turns = queue.read(deployment, advance).turns
    for turn in turns:
        if turn.bounce.message_id == message_id:
            return Place(position=turn.position, at=turn.at)
    return None  # a worker has just taken it


def _stored_at(deployment: Deployment, message_id: str) -> datetime | None:
    bucket = deployment.outputs.get("MailBucket")
    if not bucket:
        return None
    key = stored_prefix(deployment.outputs.get("MailPrefix", "")) + message_id
    try:
        moment: datetime = deployment.client("s3").head_object(Bucket=bucket, Key=key)[
            "LastModified"
        ]
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchKey", "NotFound"):
            note(f"the bucket could not be asked: {error}")
        return None
    return moment


def _mail_facts(found: MailStatus) -> dict[str, Any]:
    record = sorted(found.record.recipients) if found.record else None
    return {
        "message_id": found.message_id,
        "ledger": found.entries,
        "record": record,
        "place": found.place,
        "dead_letters": [
            {
                "kind": each.kind,
                "received_at": each.received_at,
                "why": each.why,
                "verdict": each.verdict,
            }
            for each in found.dead_letters
        ],
        "stored_at": found.stored_at,
    }


def _show_mail(found: MailStatus) -> None:
    if found.entries:
        columns = ("recipient", "state", "reason", "status", "since", "bounce id", "why")
        rows = [
            (e.recipient, e.state, e.reason, e.status, clock_time(e.updated_at), e.bounce_id, e.why)
            for e in found.entries
        ]
        print_table("", columns, rows)
        senders = {each.reverse_path for each in found.entries} - {""}
        if senders:
            say(f"Its sender is {', '.join(sorted(senders))}.")
    if found.place is not None:
        _show_place(found.place)
    in_ledger = {each.recipient for each in found.entries}
    others = [
        (each.recipient, each.outcome, each.reason)
        for each in sorted(found.record.recipients if found.record else ())
        if each.recipient not in in_ledger
    ]
    if others:
        print_table("", ("recipient", "decided", "reason"), others)
    for letter in found.dead_letters:
        say(
            f"It is among the dead letters ({letter.kind}): {letter.why}; {letter.verdict}. "
            "bouncer redrive",
            "yellow",
        )
    if found.stored_at is not None:
        say(
            f"It was stored {clock_time(found.stored_at)}, and nobody has decided on it yet; the "
            "audit does so some minutes after a mail has come.",
            "yellow",
        )


def _show_place(place: Place) -> None:
    if place.at is None:
        say("It waits, and will be given up: SES's 24 hours end before its turn.", "yellow")
        return
    left = place.at - datetime.now(UTC)
    say(
        f"It waits, about number {place.position:,}; its turn comes about {clock_time(place.at)}, "
        f"in {span(left)}. An estimate: SQS keeps no strict order, and new mail takes slots too."
    )
