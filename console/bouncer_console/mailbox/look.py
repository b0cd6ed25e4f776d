"""`bouncer mailbox list`, `show`, `check` and `export`: read, and change nothing."""

import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from bouncer.address import normalise
from bouncer.mailboxes import Answer, Mailbox, Status, domain_key_of
from bouncer_console.deployment import DEFAULT_STACK, RegionOption, StackOption
from bouncer_console.mailbox.files import examine, write_mailboxes
from bouncer_console.mailbox.oddities import Finding, findings, oddities
from bouncer_console.mailbox.options import EXPECTED, AddressArgument, AttributesOption, TableOption
from bouncer_console.mailbox.target import Target
from bouncer_console.output import (
    Json,
    fail,
    plain_errors,
    print_json,
    print_table,
    progress,
    say,
    stream_json,
    stream_table,
    written,
)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are wanted; what is None asks for nothing."""

    domain: str | None = None
    status: Status | None = None
    fuller_than: int | None = None
    """Percent of a quota."""
    suspicious: bool = False

    def __call__(self, box: Mailbox) -> bool:
        now = datetime.now(UTC)
        return (
            (self.domain is None or domain_key_of(box.address) == domain_key_of(f"x@{self.domain}"))
            and (self.status is None or box.disabled(now) is (self.status is Status.DISABLED))
            and (self.fuller_than is None or fullness(box, now) * 100 >= self.fuller_than)
            and (not self.suspicious or any(oddities(box, now)))
        )


def list_(
    domain: Annotated[str | None, typer.Option(help="Only of this domain.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only in this status.")] = None,
    fuller_than: Annotated[
        int | None,
        typer.Option(min=0, metavar="PERCENT", help="Only those with so much of a quota used."),
    ] = None,
    suspicious: Annotated[
        bool, typer.Option("--suspicious", help="Only those in which something looks wrong.")
    ] = False,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    attributes: AttributesOption = None,
    as_json: Json = False,
) -> None:
    """List the entries, in the table's order.

    `bouncer mailbox check` says what looks wrong in them.
    """
    wanted = Filter(domain=domain, status=status, fuller_than=fuller_than, suspicious=suspicious)
    with plain_errors(*EXPECTED), progress("entries read") as advance:
        boxes = Target.find(table, stack, region, attributes).table.scan()
        chosen = (each for each in _counted(boxes, advance) if wanted(each))
        if as_json:
            stream_json(msgspec.structs.asdict(each) for each in chosen)
            return
        stream_table(
            (
                ("address", 40),
                ("status", 8),
                ("used", 14),
                ("quota", 14),
                ("size limit", 12),
                ("leads to", 30),
            ),
            (
                (
                    each.address,
                    each.status,
                    each.used_bytes,
                    each.quota_bytes,
                    each.size_limit_bytes,
                    each.alias_for or each.moved_to,
                )
                for each in chosen
            ),
        )


def _counted(boxes: Iterator[Mailbox], advance: Any) -> Iterator[Mailbox]:
    for each in boxes:
        advance(1)
        yield each


def fullness(box: Mailbox, now: datetime) -> float:
    """The share of its quota that is used, of bytes or of today's messages."""
    if box.over_daily_quota(now):
        return 1.0
    return box.used_bytes / box.quota_bytes if box.quota_bytes else 0.0


def show(
    address: AddressArgument,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    attributes: AttributesOption = None,
    as_json: Json = False,
) -> None:
    """Show an address's entry, or the entry that answers for it."""
    key = normalise(address)
    with plain_errors(*EXPECTED):
        target = Target.find(table, stack, region, attributes)
        box = target.table.get([key]).get(key)
        said = target.asks(key) if not key.startswith("@") else Answer()
    entry = box or said.mailbox
    if entry is None:
        silent = not (key.startswith("@") or said.domain_known)
        goes_on = "; the directory says nothing of its domain, so its mail goes on"
        fail(f"{address} has no entry{goes_on if silent else ''}")
    found, takes = said.entry or key, said.mailbox or entry
    if as_json:
        how = {"asked": key, "entry": found, "way": said.way, "taken_by": takes.address}
        print_json(msgspec.structs.asdict(entry) | how)
        return
    if box is None:
        say(f"{key} has no entry of its own; {found} answers ({said.way}).")
    if takes.address != found:
        say(f"{takes.address} takes its mail.")
    print_table("", ("field", "value"), list(msgspec.structs.asdict(entry).items()))


def check(
    file: Annotated[
        Path | None, typer.Argument(help="A file to look at instead of the directory.")
    ] = None,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    attributes: AttributesOption = None,
    as_json: Json = False,
) -> None:
    """Report what looks wrong in the directory, or in a file.

    Mistakes, which an import refuses or no mail ever finds, make the exit status 1. The rest are
    warnings.
    """
    now = datetime.now(UTC)
    with plain_errors(*EXPECTED), progress("entries looked at") as advance:
        if file is not None:
            mailboxes, survey = examine(file)
            found = [Finding("mistake", "", problem) for problem in survey.problems] + findings(
                _counted(iter(mailboxes), advance), now, imported=True
            )
            entries = len(mailboxes)
        else:
            target = Target.find(table, stack, region, attributes)
            counted = Counter[str]()

            def boxes() -> Iterator[Mailbox]:
                for each in target.table.scan():
                    counted["entries"] += 1
                    advance(1)
                    yield each

            found = findings(boxes(), now, look_up=target.table.get, domains=target.domains)
            entries = counted["entries"]
    mistakes = sum(each.kind == "mistake" for each in found)
    if as_json:
        print_json({"entries": entries, "mistakes": mistakes, "findings": found})
    else:
        rows = [(each.kind, each.address, each.problem) for each in found]
        if rows:
            print_table("", ("", "address", "what"), rows)
        say(f"{entries} entries: {mistakes} mistakes, {len(found) - mistakes} warnings.")
    if mistakes:
        raise typer.Exit(1)


def export(
    file: Annotated[
        Path | None, typer.Argument(help="Where to; .csv for CSV, else JSON Lines. Absent: stdout.")
    ] = None,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    attributes: AttributesOption = None,
) -> None:
    """Write every entry so that `import` reads it."""
    with plain_errors(*EXPECTED), progress("entries written") as advance:
        boxes = Target.find(table, stack, region, attributes).table.scan()
        if file is None:
            write_mailboxes(boxes, sys.stdout, as_csv=False, advance=advance)
            return
        with written(file) as out:
            as_csv = file.suffix.lower() == ".csv"
            write_mailboxes(boxes, out, as_csv=as_csv, advance=advance)
