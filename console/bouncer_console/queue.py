"""`bouncer queue`: the bounces that wait, when each has its turn, and taking some out.

Looked at in the ledger, not in the queue: SQS shows a message only to whoever receives it, which
hides it from the worker and wears one of its twenty receives out. The ledger has a line a waiting
recipient; to find them, the whole of BounceTable is read.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
import typer
from botocore.exceptions import BotoCoreError, ClientError

from bouncer.address import domain_of, normalise, normalise_domain
from bouncer.aws.ledger import DynamoLedger
from bouncer.aws.telemetry import BY_STATE, NAMESPACE
from bouncer.deadline import utc_now
from bouncer.delivery.bounce import WINDOW
from bouncer.delivery.ledger import BounceState, LedgerEntry, LedgerUnavailableError
from bouncer.guards import OtherReason
from bouncer.limiter import Pace
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
)
from bouncer_console.output import (
    Json,
    clock_time,
    fail,
    note,
    plain_errors,
    print_json,
    print_table,
    progress,
    say,
    span,
)

_SEGMENTS = 4
_WRITERS = 8
_A_WRITE = timedelta(minutes=1)
_METRICS_A_REQUEST = 300


class WaitingBounce(msgspec.Struct, frozen=True, kw_only=True):
    """One call that waits: a mail's bounce, for one recipient or several."""

    message_id: str
    reverse_path: str
    entries: tuple[LedgerEntry, ...]
    received_at: datetime
    queued_at: datetime


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """When a waiting bounce will be sent, should nothing else happen: an estimate."""

    bounce: WaitingBounce
    position: int
    """From 1 on, among those that will be sent; 0: it will not be."""
    at: datetime | None
    """None: SES's 24 hours end before its turn, and it will be given up."""


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """What waits, in the order in which it will be sent."""

    at: datetime
    turns: tuple[Turn, ...]
    items_read: int
    """Of the table, to find these."""

    @property
    def given_up(self) -> tuple[WaitingBounce, ...]:
        return tuple(each.bounce for each in self.turns if each.at is None)

    @property
    def oldest(self) -> timedelta | None:
        """How long ago the oldest mail came in; its 24 hours run since then."""
        received = [each.bounce.received_at for each in self.turns]
        return self.at - min(received) if received else None

    @property
    def empty_at(self) -> datetime | None:
        """When the last one is sent; None when nothing waits that will be."""
        return max((each.at for each in self.turns if each.at is not None), default=None)

    def counted(self, of: Callable[[WaitingBounce], Iterable[str]]) -> Counter[str]:
        return Counter(what for each in self.turns for what in of(each.bounce))


def by_sender(bounce: WaitingBounce) -> Iterator[str]:
    yield normalise(bounce.reverse_path) if bounce.reverse_path else "(not known)"


def by_domain(bounce: WaitingBounce) -> Iterator[str]:
    yield domain_of(bounce.reverse_path) or "(not known)"


def by_reason(bounce: WaitingBounce) -> Iterator[str]:
    return (each.reason for each in bounce.entries)


def forecast(
    waiting: Iterable[WaitingBounce],
    *,
    now: datetime,
    next_slot: datetime | None,
    pace: Pace,
    margin: timedelta,
) -> tuple[Turn, ...]:
    """The order and time of what waits: who came into the queue first is sent first.

    SQS keeps that order only about, and whoever comes directly takes slots too.
    """
    step = timedelta(seconds=pace.drain(1))
    at = max(now, next_slot or now)
    turns, position = [], 0
    for bounce in sorted(waiting, key=lambda each: (each.queued_at, each.message_id)):
        if at >= bounce.received_at + WINDOW - margin:
            turns.append(Turn(bounce=bounce, position=0, at=None))
            continue
        position += 1
        turns.append(Turn(bounce=bounce, position=position, at=at))
        at += step
    return tuple(turns)


def grouped(entries: Iterable[LedgerEntry], now: datetime) -> list[WaitingBounce]:
    """Recipients of one mail wait in one message."""
    mails: dict[str, list[LedgerEntry]] = {}
    for entry in entries:
        mails.setdefault(entry.message_id, []).append(entry)
    return [
        WaitingBounce(
            message_id=message_id,
            reverse_path=its[0].reverse_path,
            entries=tuple(its),
            received_at=min(each.received_at or now for each in its),
            queued_at=min(each.updated_at or now for each in its),
        )
        for message_id, its in mails.items()
    ]


def read(deployment: Deployment, advance: Callable[[int], None] = lambda _: None) -> Queue:
    """
    Args:
        advance: told how many items of the table were looked at.

    Raises:
        LedgerUnavailableError, DeploymentError
    """
    dynamodb = deployment.client("dynamodb")
    ledger = DynamoLedger(dynamodb, deployment.output("BounceTable"), retention=timedelta(0))
    now = utc_now()
    looked_at: list[int] = []  # appending is atomic

    def page(items: int) -> None:
        looked_at.append(items)
        advance(items)

    def segment(number: int) -> list[LedgerEntry]:
        return list(ledger.waiting(page, segment=number, of=_SEGMENTS))

    with ThreadPoolExecutor(_SEGMENTS) as pool:
        entries = [entry for part in pool.map(segment, range(_SEGMENTS)) for entry in part]
    return Queue(
        at=now,
        turns=forecast(
            grouped(entries, now),
            now=now,
            next_slot=deployment.next_slot(dynamodb),
            pace=Pace(interval=deployment.interval),
            margin=deployment.window_margin,
        ),
        items_read=sum(looked_at),
    )


# --- Taking out ------------------------------------------------------------------------------


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """Which waiting recipients are meant: who meets each of those that are given."""

    senders: Collection[str] = ()
    domains: Collection[str] = ()
    """Of senders, with their subdomains."""
    recipients: Collection[str] = ()

    def of(self, waiting: Iterable[WaitingBounce]) -> list[LedgerEntry]:
        """Raises nothing; without any choice, nobody is meant."""
        if not (self.senders or self.domains or self.recipients):
            return []
        senders = {normalise(each) for each in self.senders}
        recipients = {normalise(each) for each in self.recipients}
        domains = {normalise_domain(each.removeprefix("@")) for each in self.domains}
        return [
            entry
            for bounce in waiting
            for entry in bounce.entries
            if (not senders or (bounce.reverse_path and normalise(bounce.reverse_path) in senders))
            and (not domains or _within(domain_of(bounce.reverse_path), domains))
            and (not recipients or normalise(entry.recipient) in recipients)
        ]


def _within(domain: str, domains: Collection[str]) -> bool:
    labels = domain.split(".") if domain else []
    return any(".".join(labels[n:]) in domains for n in range(len(labels)))


class TakenOut(msgspec.Struct, frozen=True, kw_only=True):
    """What came of taking recipients out."""

    taken: tuple[LedgerEntry, ...]
    too_late: tuple[LedgerEntry, ...]
    """A worker has them, or they are at an end."""
    not_counted: str = ""
    """Why CloudWatch does not count them."""


def take_out(
    deployment: Deployment,
    entries: Sequence[LedgerEntry],
    advance: Callable[[int], None] = lambda _: None,
) -> TakenOut:
    """End these in the ledger: their senders are not told.

    The messages stay in the queue until the worker comes to them. It finds them settled, and
    takes no slot.

    Raises:
        LedgerUnavailableError: some may be taken out; to do it again harms nothing.
    """
    retention = timedelta(days=float(deployment.parameters.get("LedgerRetentionDays", 14)))
    table = deployment.output("BounceTable")
    ledger = DynamoLedger(deployment.client("dynamodb"), table, retention=retention)

    def end(entry: LedgerEntry) -> bool:
        taken = ledger.take_out(
            msgspec.structs.replace(
                entry,
                state=BounceState.SUPPRESSED,
                reason=OtherReason.TAKEN_OUT,
                detail=f"an operator took it out of the queue, where it was for {entry.reason}",
            ),
            until=utc_now() + _A_WRITE,
        )
        advance(1)
        return taken

    with ThreadPoolExecutor(_WRITERS) as pool:
        results = list(pool.map(end, entries))
    taken = tuple(each for each, done in zip(entries, results, strict=True) if done)
    return TakenOut(
        taken=taken,
        too_late=tuple(each for each, done in zip(entries, results, strict=True) if not done),
        not_counted=_count(deployment, taken),
    )


def _count(deployment: Deployment, taken: Iterable[LedgerEntry]) -> str:
    """As the functions count what is suppressed; why it could not be done, if so."""
    metric = BY_STATE[BounceState.SUPPRESSED]
    service = {"Name": "service", "Value": deployment.stack}
    reason = {"Name": "Reason", "Value": OtherReason.TAKEN_OUT.value}
    by_status = Counter(each.status for each in taken)
    dimensions: list[tuple[list[dict[str, str]], int]] = []
    if total := by_status.total():
        dimensions = [([service], total), ([service, reason], total)]
        dimensions += [
            ([service, reason, {"Name": "BounceType", "Value": status}], number)
            for status, number in by_status.items()
            if status
        ]
    data: Any = [
        {"MetricName": metric, "Dimensions": those, "Value": number, "Unit": "Count"}
        for those, number in dimensions
    ]
    try:
        for first in range(0, len(data), _METRICS_A_REQUEST):
            deployment.client("cloudwatch").put_metric_data(
                Namespace=NAMESPACE, MetricData=data[first : first + _METRICS_A_REQUEST]
            )
    except (ClientError, BotoCoreError) as error:
        return str(error)
    return ""


# --- The commands ----------------------------------------------------------------------------

app = typer.Typer(
    help="Show the bounces that wait for a slot, or take some out.",
    invoke_without_command=True,
)

_TOP = 10
TopOption = Annotated[
    int, typer.Option("--top", min=1, metavar="NUMBER", help="How many lines of each table.")
]


@app.callback()
def queue(
    context: typer.Context,
    top: TopOption = _TOP,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Show the bounces that wait for a slot: from whom, why, and until when.

    Read from the ledger, by a scan of the whole table: half a read unit for each 4 KB, which is
    one US cent for about 650 MB, or two million mails. The queue itself is left alone.
    """
    if context.invoked_subcommand is not None:
        return
    with plain_errors(DeploymentError, LedgerUnavailableError):
        deployment = Deployment.find(stack, region)
        found = _read(deployment)
    if as_json:
        print_json(_facts(found, top))
        return
    _show(found, top)


@app.command()
def drop(
    sender: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS", help="Bounces to this sender; repeat.")
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN", help="To senders of this domain and its subdomains; repeat."
        ),
    ] = None,
    recipient: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="About this recipient only; repeat."),
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="Do it; without, only show it.")] = False,
    top: TopOption = _TOP,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Take waiting bounces out: what an attacker put in.

    A bounce has to match every option that is given. It is ended in the ledger as suppressed, with
    the reason taken-out, and counted; its sender is never told. The worker throws its message away
    when it comes to it, without a slot. A bounce that a worker has in hand is left alone.
    """
    chosen = Chosen(senders=sender or (), domains=domain or (), recipients=recipient or ())
    if chosen == Chosen():
        fail("say which: --sender, --domain or --recipient", code=2)
    with plain_errors(DeploymentError, LedgerUnavailableError):
        deployment = Deployment.find(stack, region)
        found = _read(deployment)
        entries = chosen.of(each.bounce for each in found.turns)
        done = TakenOut(taken=(), too_late=())
        if run and entries:
            with progress("taken out", len(entries)) as advance:
                done = take_out(deployment, entries, advance)
    if as_json:
        print_json(
            {
                "run": run,
                "waiting": sum(len(each.bounce.entries) for each in found.turns),
                "chosen": [_line(each) for each in entries],
                "taken_out": [_line(each) for each in done.taken],
                "too_late": [_line(each) for each in done.too_late],
                "not_counted": done.not_counted or None,
            }
        )
        return
    if not entries:
        say("None of these waits.")
        return
    rows = [(e.reverse_path, e.recipient, e.reason, clock_time(e.received_at)) for e in entries]
    print_table("", ("sender", "recipient", "reason", "received"), rows[:top])
    if len(rows) > top:
        say(f"and {len(rows) - top:,} more")
    if not run:
        say(f"{len(entries):,} would be taken out; add --run to do it")
        return
    say(f"{len(done.taken):,} are taken out; their senders will not be told.", "green")
    if done.too_late:
        say(f"{len(done.too_late):,} were no longer waiting: a worker has them, or has sent them.")
    if done.not_counted:
        note(f"CloudWatch does not count them: {done.not_counted}")


def _read(deployment: Deployment) -> Queue:
    with progress("items of the table") as advance:
        return read(deployment, advance)


def _line(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "message_id": entry.message_id,
        "sender": entry.reverse_path,
        "recipient": entry.recipient,
        "reason": entry.reason,
        "received_at": entry.received_at,
    }


_TABLES: Mapping[str, Callable[[WaitingBounce], Iterable[str]]] = {
    "domains": by_domain,
    "senders": by_sender,
    "reasons": by_reason,
}


def _facts(found: Queue, top: int) -> dict[str, Any]:
    return {
        "waiting": len(found.turns),
        "oldest_seconds": found.oldest.total_seconds() if found.oldest is not None else None,
        "empty_at": found.empty_at,
        "given_up": len(found.given_up),
        "items_read": found.items_read,
        **{
            name: [
                {"name": what, "waiting": number}
                for what, number in found.counted(of).most_common(top)
            ]
            for name, of in _TABLES.items()
        },
    }


def _show(found: Queue, top: int) -> None:
    if not found.turns:
        say("Nothing waits.", "green")
        return
    oldest = span(found.oldest) if found.oldest is not None else ""
    say(f"{len(found.turns):,} bounces wait; the oldest mail came {oldest} ago, of 24 hours.")
    if found.empty_at is not None:
        say(f"Empty about {clock_time(found.empty_at)}, in {span(found.empty_at - found.at)}.")
    if found.given_up:
        say(
            f"{len(found.given_up):,} will be given up: their 24 hours end before their turn.",
            "yellow",
        )
    for name, of in _TABLES.items():
        counted = found.counted(of)
        total = counted.total()
        rows = [(what, n, f"{n / total:.0%}") for what, n in counted.most_common(top)]
        print_table("", (name.removesuffix("s"), "waiting", ""), rows)
        if len(counted) > top:
            say(f"and {len(counted) - top:,} more {name}")
