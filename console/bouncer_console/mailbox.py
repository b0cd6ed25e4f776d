"""`bouncer mailbox`: the directory, one entry or a hundred thousand."""

import sys
from collections import Counter
from datetime import UTC, datetime
from itertools import batched
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from bouncer.address import normalise
from bouncer.aws.mailbox_table import Change, MailboxTable
from bouncer.aws.usage_audit import UsageAudit
from bouncer.mailboxes import EntryError, Mailbox, Status, check_entry
from bouncer.policy.conditions import PolicyError, parse_size
from bouncer.settings import UsageMode
from bouncer.usage import UsageUnavailableError
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
    client,
    say_bad_item,
)
from bouncer_console.mailbox_files import MailboxFileError, read_entries, write_mailboxes
from bouncer_console.output import (
    MOMENT,
    Json,
    fail,
    plain_errors,
    print_json,
    print_table,
    progress,
    report,
    say,
)

app = typer.Typer(help="The mailbox directory.", no_args_is_help=True)

TableOption = Annotated[
    str | None, typer.Option("--table", help="The table itself, instead of the stack's.")
]
AddressArgument = Annotated[str, typer.Argument(help="user@domain, or @domain for its defaults.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the difference, change nothing.")]
SizeText = Annotated[str | None, typer.Option(help="Bytes, or with a unit: 500 MB, 2 GiB.")]

_EXPECTED = (DeploymentError, MailboxFileError, PolicyError)
_BATCH = 100


def _table(table: str | None, stack: str, region: str | None) -> MailboxTable:
    if table:
        return MailboxTable(client("dynamodb", region), table, on_bad_item=say_bad_item)
    return Deployment.find(stack, region).mailbox_table()


@app.command(name="list")
def list_(
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Every entry."""
    with plain_errors(*_EXPECTED):
        boxes = sorted(_table(table, stack, region).scan(), key=lambda each: each.address)
    if as_json:
        print_json([msgspec.structs.asdict(each) for each in boxes])
        return
    print_table(
        "",
        ("address", "status", "used", "quota", "size limit", "leads to"),
        [
            (
                each.address,
                each.status,
                each.used_bytes,
                each.quota_bytes,
                each.size_limit_bytes,
                each.alias_for or each.moved_to,
            )
            for each in boxes
        ],
    )


@app.command()
def show(
    address: AddressArgument,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """One entry, whole."""
    with plain_errors(*_EXPECTED):
        box = _table(table, stack, region).get([normalise(address)]).get(normalise(address))
    if box is None:
        fail(f"{address} has no entry")
    if as_json:
        print_json(msgspec.structs.asdict(box))
        return
    print_table("", ("field", "value"), list(msgspec.structs.asdict(box).items()))


@app.command()
def add(
    address: AddressArgument,
    quota: SizeText = None,
    size_limit: SizeText = None,
    messages_per_day: Annotated[int | None, typer.Option(help="A quota in messages.")] = None,
    alias_for: Annotated[str | None, typer.Option(help="The address that takes its mail.")] = None,
    moved_to: Annotated[str | None, typer.Option(help="Its new address; mail is bounced.")] = None,
    tell: Annotated[bool, typer.Option("--tell", help="Senders may learn moved-to.")] = False,
    catch_all: Annotated[
        bool, typer.Option(help="For @domain: whether every address exists.")
    ] = True,
    separator: Annotated[
        str, typer.Option(help="For @domain: what begins a tag: + or -; empty for none.")
    ] = "+",
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """A new entry; one that exists is left as it is."""
    fields = _fields(
        quota_bytes=quota,
        size_limit_bytes=size_limit,
        quota_messages_per_day=messages_per_day,
        alias_for=alias_for,
        moved_to=moved_to,
        tell_new_address=tell or None,
    )
    if address.startswith("@"):
        fields |= {"catch_all": catch_all, "separator": separator}
    with plain_errors(*_EXPECTED):
        box = _convert({"address": address, **fields})
        if not _table(table, stack, region).add(box):
            fail(f"{address} has an entry already: change it with `bouncer mailbox set`")
    report(f"{box.address} is in the directory.", as_json, address=box.address, done="added")


@app.command(name="set")
def set_(
    address: AddressArgument,
    quota: SizeText = None,
    size_limit: SizeText = None,
    used: SizeText = None,
    messages_per_day: Annotated[int | None, typer.Option(help="A quota in messages.")] = None,
    alias_for: Annotated[str | None, typer.Option(help="The address that takes its mail.")] = None,
    moved_to: Annotated[str | None, typer.Option(help="Its new address; mail is bounced.")] = None,
    tell: Annotated[bool | None, typer.Option(help="Senders may learn moved-to.")] = None,
    status: Annotated[Status | None, typer.Option(help="Whether it takes mail.")] = None,
    catch_all: Annotated[bool | None, typer.Option(help="For @domain.")] = None,
    separator: Annotated[str | None, typer.Option(help="For @domain: + or -, or empty.")] = None,
    unset: Annotated[
        list[str] | None, typer.Option(help="A field to remove, such as quota_bytes; repeat.")
    ] = None,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Change an entry; what is not named stays."""
    fields = _fields(
        quota_bytes=quota,
        size_limit_bytes=size_limit,
        used_bytes=used,
        quota_messages_per_day=messages_per_day,
        alias_for=alias_for,
        moved_to=moved_to,
        tell_new_address=tell,
        status=status,
        catch_all=catch_all,
        separator=separator,
    )
    with plain_errors(*_EXPECTED):
        _change(table, stack, region, address, fields, unset or [])
    address = normalise(address)
    report(f"{address} is changed.", as_json, address=address, done="changed")


@app.command()
def disable(
    address: AddressArgument,
    until: Annotated[
        datetime | None, typer.Option(help="When it takes mail again.", **MOMENT)
    ] = None,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Let an address take no mail, for good or until a time."""
    fields: dict[str, Any] = {"status": "disabled"}
    if until:
        if until <= datetime.now(UTC):
            fail(f"--until {until} has passed: the address would take mail at once")
        fields["status_until"] = until.strftime("%Y-%m-%dT%H:%M:%SZ")
    with plain_errors(*_EXPECTED):
        _change(table, stack, region, address, fields, [] if until else ["status_until"])
    address = normalise(address)
    ends = f" until {until}" if until else ""
    report(f"{address} is disabled{ends}.", as_json, address=address, done="disabled", until=until)


@app.command()
def remove(
    address: AddressArgument,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Take an entry out of the directory: its address is unknown then."""
    with plain_errors(*_EXPECTED):
        if not _table(table, stack, region).remove(normalise(address)):
            fail(f"{address} has no entry")
    address = normalise(address)
    report(f"{address} is removed.", as_json, address=address, done="removed")


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV, JSON or JSON Lines (docs/mailboxes.md).")],
    dry_run: DryRun = False,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Add and change entries from a file; safe to repeat, and usage is never touched.

    Entries and fields that the file does not name stay; an empty cell, or null, empties a field.
    Of two entries for one address, the later counts. The file is read and written a hundred entries
    at a time.
    """
    counts: Counter[str] = Counter()
    shown: list[dict[str, Any]] = []
    with plain_errors(*_EXPECTED), progress("mailboxes") as advance:
        target = _table(table, stack, region)
        for batch in batched(read_entries(file), _BATCH, strict=False):
            for change in target.put(batch, dry_run=dry_run):
                counts[change.kind] += 1
                if change.kind != "unchanged" and (dry_run or as_json):
                    shown.append(_difference(change))
            advance(len(batch))
    if as_json:
        print_json({"dry_run": dry_run, "counts": dict(counts), "changes": shown})
        return
    if shown:
        columns = ("", "address", "difference")
        print_table("", columns, [(s["kind"], s["address"], s["difference"]) for s in shown])
    done = "would be " if dry_run else ""
    say(
        f"{counts['added']} {done}added, {counts['changed']} {done}changed, "
        f"{counts['unchanged']} as they are."
    )


@app.command()
def export(
    file: Annotated[
        Path | None, typer.Argument(help="Where to; .csv for CSV, else JSON Lines. Absent: stdout.")
    ] = None,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
) -> None:
    """Write every entry so that `import` reads it."""
    with plain_errors(*_EXPECTED):
        boxes = _table(table, stack, region).scan()
        if file is None:
            write_mailboxes(boxes, sys.stdout, as_csv=False)
            return
        with file.open("w", newline="", encoding="utf-8") as target:
            write_mailboxes(boxes, target, as_csv=file.suffix.lower() == ".csv")


@app.command()
def recount(
    apply: Annotated[bool, typer.Option("--apply", help="Correct what is off.")] = False,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Compare each mailbox's usage with the mail in the bucket, and report what is off.

    Mail that comes meanwhile may show as a difference; it is gone in the next run.
    """
    with plain_errors(*_EXPECTED, UsageUnavailableError):
        deployment = Deployment.find(stack, region)
        if deployment.output("Usage") != UsageMode.MANAGED:
            raise DeploymentError(
                f"the stack {stack} does not keep the mailboxes' usage (Usage=external): "
                "there is nothing to compare with"
            )
        audit = UsageAudit(
            dynamodb=deployment.client("dynamodb"),
            s3=deployment.client("s3"),
            bounce_table=deployment.output("BounceTable"),
            mailbox_table=deployment.output("MailboxTable"),
            bucket=deployment.output("MailBucket"),
            prefix=deployment.output("MailPrefix"),
        )
        with progress("stored mails") as advance:
            found = audit.compare(advance)
        if apply:
            audit.correct(found)
    drifts, missed = found.drifts, found.missed
    if as_json:
        print_json({"drift": drifts, "deletions_missed": missed, "applied": apply})
        return
    rows = [
        (d.address, d.used_bytes, d.stored_bytes, d.stored_bytes - d.used_bytes) for d in drifts
    ]
    print_table("", ("mailbox", "usage says", "bucket says", "difference"), rows)
    say(
        f"{len(drifts)} mailboxes {'were' if apply else 'are'} off; "
        f"{len(missed)} deleted mails had not been given back."
    )


def _difference(change: Change) -> dict[str, Any]:
    parts = [f"{name}: {old!r} -> {new!r}" for name, (old, new) in change.fields.items()]
    return {"kind": change.kind, "address": change.address, "difference": ", ".join(parts)}


def _fields(**given: Any) -> dict[str, Any]:
    with plain_errors(PolicyError):
        return {
            name: parse_size(value) if name.endswith("_bytes") else value
            for name, value in given.items()
            if value is not None
        }


def _convert(fields: dict[str, Any]) -> Mailbox:
    try:
        mailbox = msgspec.convert(fields, Mailbox)
        check_entry(mailbox)
    except (msgspec.ValidationError, EntryError) as error:
        raise MailboxFileError(str(error)) from error
    return msgspec.structs.replace(mailbox, address=normalise(mailbox.address))


def _change(
    table: str | None,
    stack: str,
    region: str | None,
    address: str,
    fields: dict[str, Any],
    unset: list[str],
) -> None:
    known = set(Mailbox.__struct_fields__) - {"address"}
    if unknown := set(unset) - known:
        raise MailboxFileError(f"no field is called {', '.join(unknown)}: {', '.join(known)}")
    _convert({"address": address, **fields})
    if not fields and not unset:
        raise MailboxFileError("say what to change: see `bouncer mailbox set --help`")
    if not _table(table, stack, region).change(normalise(address), fields, unset):
        raise MailboxFileError(f"{address} has no entry: add it with `bouncer mailbox add`")
