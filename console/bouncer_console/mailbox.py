"""`bouncer mailbox`: the directory, one entry or a hundred thousand."""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import batched
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from botocore.exceptions import NoCredentialsError, NoRegionError

from bouncer.address import normalise
from bouncer.aws.mailbox_table import Change, MailboxEntry, MailboxTable
from bouncer.aws.usage_audit import RecordsLostError, UsageAudit
from bouncer.mailboxes import (
    Answer,
    EntryError,
    Mailbox,
    Status,
    answer,
    candidates,
    check_entry,
    domain_entry,
    domain_key_of,
    limits_of_alias,
    target_problems,
    unsaid_catch_all,
)
from bouncer.policy.conditions import PolicyError, parse_size
from bouncer.settings import UsageMode, attribute_names, stored_prefix
from bouncer.usage import UsageUnavailableError
from bouncer_console import mailbox_check
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
    client,
    say_bad_item,
)
from bouncer_console.mailbox_files import MailboxFileError, Survey, examine, write_mailboxes
from bouncer_console.output import (
    MOMENT,
    Json,
    fail,
    note,
    plain_errors,
    print_json,
    print_table,
    progress,
    report,
    say,
    stream_json,
    stream_table,
)

app = typer.Typer(help="The mailbox directory.", no_args_is_help=True)

TableOption = Annotated[
    str | None, typer.Option("--table", help="The table itself, instead of the stack's.")
]
AttributesOption = Annotated[
    str | None,
    typer.Option(
        "--attributes", help="With --table: its attribute names, as the stack's MailboxAttributes."
    ),
]
OwnTable = Annotated[
    bool,
    typer.Option("--own-table", help="Write to the table of your own, which the stack only reads."),
]
AddressArgument = Annotated[str, typer.Argument(help="user@domain, or @domain for its defaults.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the difference, change nothing.")]
SizeText = Annotated[str | None, typer.Option(help="Bytes, or with a unit: 500 MB, 2 GiB.")]

_EXPECTED = (DeploymentError, MailboxFileError, PolicyError)
_BATCH = 100


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The directory that a command works on."""

    table: MailboxTable
    own: bool = False
    """Whether it is a table of the user's own, which the stack only reads."""
    domains: frozenset[str] = frozenset()
    """Domains that it speaks for without an `@domain` entry."""

    @classmethod
    def find(
        cls, table: str | None, stack: str, region: str | None, attributes: str | None = None
    ) -> "Target":
        """
        Raises:
            DeploymentError: no such stack here.
        """
        if table:
            names = attribute_names(attributes or "")
            found = MailboxTable(
                client("dynamodb", region), table, names=names, on_bad_item=say_bad_item
            )
            return cls(table=found, own=bool(names))
        return cls.of(Deployment.find(stack, region))

    @classmethod
    def of(cls, deployment: Deployment) -> "Target":
        """A stack's directory."""
        return cls(
            table=deployment.mailbox_table(),
            own=deployment.own_mailbox_table,
            domains=deployment.mailbox_domains,
        )

    def to_write(self, own_table: bool) -> "Target":
        """
        Raises:
            MailboxFileError: it is the user's own, and nobody said that it may be written.
        """
        if self.own and not own_table:
            raise MailboxFileError(
                "the table is your own, and the stack only reads it: "
                "say --own-table to write to it all the same"
            )
        return self

    def asks(self, address: str) -> Answer:
        """Who takes the mail of an address."""
        entries = self._entries([address])
        found = answer(address, entries, self.domains)
        if found.entry and entries[found.entry].alias_for:
            entries |= self._entries([str(entries[found.entry].alias_for)])
            found = answer(address, entries, self.domains)
        return found

    def check_targets(self, mailbox: Mailbox) -> None:
        """
        Raises:
            MailboxFileError: the entry leads nowhere in a domain of ours.
        """
        targets = [each for each in (mailbox.alias_for, mailbox.moved_to) if each]
        if targets:
            entries = self._entries(targets) | {mailbox.address: mailbox}
            for problem in target_problems(mailbox, entries, self.domains):
                raise MailboxFileError(problem)

    def speaks_for(self, key: str) -> bool:
        return key[1:] in self.domains or bool(self.table.get([key]))

    def _entries(self, addresses: list[str]) -> dict[str, Mailbox]:
        return self.table.get([key for each in addresses for key in candidates(each)])


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
            and (not self.suspicious or any(mailbox_check.oddities(box, now)))
        )


@app.command(name="list")
def list_(
    domain: Annotated[str | None, typer.Option(help="Only of this domain.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only in this status.")] = None,
    fuller_than: Annotated[
        int | None, typer.Option(help="Only those with so many percent of a quota used.", min=0)
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
    """Every entry, in the table's order, as it is read; `check` says what looks wrong in it."""
    wanted = Filter(domain=domain, status=status, fuller_than=fuller_than, suspicious=suspicious)
    with plain_errors(*_EXPECTED), progress("entries read") as advance:
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


@app.command()
def show(
    address: AddressArgument,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    attributes: AttributesOption = None,
    as_json: Json = False,
) -> None:
    """One entry, whole; of an address without one, who takes its mail."""
    key = normalise(address)
    with plain_errors(*_EXPECTED):
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


@app.command()
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
    """Report what looks wrong in the directory, or in a file; the exit status is 1 for mistakes.

    A mistake is what an import refuses, or no mail ever finds; the rest are warnings.
    """
    now = datetime.now(UTC)
    with plain_errors(*_EXPECTED), progress("entries looked at") as advance:
        if file is not None:
            mailboxes, survey = examine(file)
            findings = [
                mailbox_check.Finding("mistake", "", problem) for problem in survey.problems
            ] + mailbox_check.findings(_counted(iter(mailboxes), advance), now, imported=True)
            entries = len(mailboxes)
        else:
            target = Target.find(table, stack, region, attributes)
            counted = Counter[str]()

            def boxes() -> Iterator[Mailbox]:
                for each in target.table.scan():
                    counted["entries"] += 1
                    advance(1)
                    yield each

            findings = mailbox_check.findings(
                boxes(), now, look_up=target.table.get, domains=target.domains
            )
            entries = counted["entries"]
    mistakes = sum(each.kind == "mistake" for each in findings)
    if as_json:
        print_json({"entries": entries, "mistakes": mistakes, "findings": findings})
    else:
        rows = [(each.kind, each.address, each.problem) for each in findings]
        if rows:
            print_table("", ("", "address", "what"), rows)
        say(f"{entries} entries: {mistakes} mistakes, {len(findings) - mistakes} warnings.")
    if mistakes:
        raise typer.Exit(1)


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
        bool | None, typer.Option(help="For @domain: whether every address exists (yes if alone).")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="For @domain: what begins a tag: + or -; empty for none.")
    ] = None,
    domain: Annotated[
        bool, typer.Option(help="Let the directory speak for the address's domain from now on.")
    ] = True,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    attributes: AttributesOption = None,
    own_table: OwnTable = False,
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
        catch_all=catch_all,
        separator=separator,
    )
    with plain_errors(*_EXPECTED):
        box = _convert({"address": address, **fields}, fields.keys())
        _check_alias(box)
        target = Target.find(table, stack, region, attributes).to_write(own_table)
        target.check_targets(box)
        if not target.table.add(box):
            fail(f"{address} has an entry already: change it with `bouncer mailbox set`")
        key = domain_key_of(box.address)
        first = domain and not target.own and not target.speaks_for(key)
        if first:
            target.table.add(domain_entry(key))
    if box.address.startswith("@") and box.catch_all:
        note(f"every address of {key[1:]} exists from now on (--no-catch-all: only entries do)")
    elif first:
        note(f"the directory speaks for {key[1:]} from now on: its other addresses are unknown")
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
    status: Annotated[
        Status | None, typer.Option(help="Whether it takes mail; an old status_until goes.")
    ] = None,
    catch_all: Annotated[bool | None, typer.Option(help="For @domain.")] = None,
    separator: Annotated[str | None, typer.Option(help="For @domain: + or -, or empty.")] = None,
    unset: Annotated[
        list[str] | None, typer.Option(help="A field to remove, such as quota_bytes; repeat.")
    ] = None,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    attributes: AttributesOption = None,
    own_table: OwnTable = False,
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
    gone = list(unset or [])
    if status is not None and "status_until" not in gone:
        gone.append("status_until")
    with plain_errors(*_EXPECTED):
        target = Target.find(table, stack, region, attributes).to_write(own_table)
        change(target, address, fields, gone)
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
    attributes: AttributesOption = None,
    own_table: OwnTable = False,
    as_json: Json = False,
) -> None:
    """Let an address take no mail, for good or until a time."""
    fields: dict[str, Any] = {"status": "disabled"}
    if until:
        if until <= datetime.now(UTC):
            fail(f"--until {until} has passed: the address would take mail at once")
        fields["status_until"] = until.strftime("%Y-%m-%dT%H:%M:%SZ")
    with plain_errors(*_EXPECTED):
        target = Target.find(table, stack, region, attributes).to_write(own_table)
        change(target, address, fields, [] if until else ["status_until"])
    address = normalise(address)
    ends = f" until {until}" if until else ""
    report(f"{address} is disabled{ends}.", as_json, address=address, done="disabled", until=until)


@app.command()
def enable(
    address: AddressArgument,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    attributes: AttributesOption = None,
    own_table: OwnTable = False,
    as_json: Json = False,
) -> None:
    """Let an address take mail again."""
    with plain_errors(*_EXPECTED):
        target = Target.find(table, stack, region, attributes).to_write(own_table)
        change(target, address, {"status": "active"}, ["status_until"])
    address = normalise(address)
    report(f"{address} takes mail again.", as_json, address=address, done="enabled")


@app.command()
def remove(
    address: AddressArgument,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    attributes: AttributesOption = None,
    own_table: OwnTable = False,
    as_json: Json = False,
) -> None:
    """Take an entry out of the directory: its address is unknown then."""
    with plain_errors(*_EXPECTED):
        target = Target.find(table, stack, region, attributes).to_write(own_table)
        if not target.table.remove(normalise(address)):
            fail(f"{address} has no entry")
    address = normalise(address)
    if address.startswith("@") and not target.own:
        note(f"the directory says nothing of {address[1:]} from now on: nobody is unknown there")
    report(f"{address} is removed.", as_json, address=address, done="removed")


class Plan(msgspec.Struct, kw_only=True):
    """What an import would do; the same whether it then does it or not."""

    counts: Counter[str]
    shown: list[dict[str, Any]]
    new_domains: list[str]
    """Keys of the `@domain` entries that it makes."""
    left_alone: int = 0
    """Empty cells that empty nothing, in a table of the user's own."""

    @property
    def total(self) -> int:
        return self.counts.total()


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV, JSON or JSON Lines (docs/mailboxes.md).")],
    dry_run: DryRun = False,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    attributes: AttributesOption = None,
    own_table: OwnTable = False,
    as_json: Json = False,
) -> None:
    """Add and change entries from a file; safe to repeat, and usage is never touched.

    Entries and fields that the file does not name stay; an empty cell, or null, empties a field
    (in a table of your own, an empty cell leaves it as it is). The whole file is checked before
    anything is written. Each domain that occurs gets an `@domain` entry, after all others.
    """
    with plain_errors(*_EXPECTED):
        find = _to_compare if dry_run else Target.find
        target = find(table, stack, region, attributes)
        if not dry_run:
            target.to_write(own_table)
        plan = _planned(file, target, keep=dry_run or as_json)
        if not dry_run:
            _carry_out(file, target, plan)
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "counts": dict(plan.counts),
                "domains": plan.new_domains,
                "changes": plan.shown,
            }
        )
        return
    if plan.shown:
        columns = ("", "address", "difference")
        print_table("", columns, [(s["kind"], s["address"], s["difference"]) for s in plan.shown])
    done = "would be " if dry_run else ""
    counts = plan.counts
    say(
        f"{counts['added']} {done}added, {counts['changed']} {done}changed, "
        f"{counts['unchanged']} as they are."
    )
    if plan.new_domains:
        verb = "would speak" if dry_run else "speaks"
        names = ", ".join(key[1:] for key in plan.new_domains[:10])
        more = f" and {len(plan.new_domains) - 10} more" if len(plan.new_domains) > 10 else ""
        say(f"The directory {verb} for {names}{more} from now on.")
    if plan.left_alone:
        note(
            f"{plan.left_alone} empty cells left the table of your own as it is: "
            "`bouncer mailbox set --unset FIELD` empties a field"
        )


class _EmptyTable(MailboxTable):
    """A directory with nothing in it."""

    def __init__(self) -> None:
        asked_nothing: Any = None
        super().__init__(asked_nothing, "")

    def get(self, addresses: Sequence[str]) -> dict[str, Mailbox]:  # noqa: ARG002
        return {}


def _to_compare(
    table: str | None, stack: str, region: str | None, attributes: str | None
) -> Target:
    """The directory to compare a file with; an empty one where no AWS account is known at all."""
    try:
        return Target.find(table, stack, region, attributes)
    except (NoRegionError, NoCredentialsError) as error:
        if table or region or stack != DEFAULT_STACK:
            raise
        note(f"{error} So the file is compared with an empty directory.")
        return Target(table=_EmptyTable())


def _planned(file: Path, target: Target, *, keep: bool) -> Plan:
    """What the import of a file does.

    Args:
        keep: whether each difference is wanted, not only their number.

    Raises:
        MailboxFileError: a mistake in the file, or in what it would make of the table.
    """
    survey = Survey(file)
    plan = Plan(counts=Counter(), shown=[], new_domains=[])
    merged: list[Mailbox] = []
    with progress("entries checked") as advance:
        for batch in batched(survey.entries(), _BATCH, strict=False):
            entries = _meant(batch, target)
            plan.left_alone += sum(len(e.named) for e in batch) - sum(len(e.named) for e in entries)
            once = {each.mailbox.address: each for each in entries}
            for change in target.table.put(list(once.values()), dry_run=True):
                entry = once[change.address]
                problems = list(limits_of_alias(entry.mailbox))
                if change.kind == "added":
                    problems += unsaid_catch_all(change.mailbox, entry.named - entry.empty)
                for problem in problems:
                    survey.of(change.mailbox, problem)
                if change.mailbox.alias_for or change.mailbox.moved_to:
                    merged.append(change.mailbox)
                plan.counts[change.kind] += 1
                if keep and change.kind != "unchanged":
                    plan.shown.append(_difference(change))
            advance(len(batch))
    _check_targets(survey, merged, target)
    survey.refuse()
    plan.new_domains = _new_domains(survey, target)
    return plan


def _meant(batch: tuple[MailboxEntry, ...], target: Target) -> list[MailboxEntry]:
    """The entries of a batch; an empty cell never empties a column of the user's own."""
    if not target.own:
        return list(batch)
    return [msgspec.structs.replace(each, named=each.named - each.empty) for each in batch]


def _check_targets(survey: Survey, leading: list[Mailbox], target: Target) -> None:
    for some in batched(leading, _BATCH, strict=False):
        targets = [to for each in some for to in (each.alias_for, each.moved_to) if to]
        keys = [key for each in targets for key in candidates(each)]
        of_file = {
            key: survey.defaults.get(key, Mailbox(address=key))
            for key in keys
            if key in survey.places
        }
        made = {key: domain_entry(key) for key in survey.domains & {*keys}}
        entries = made | target.table.get(keys) | of_file | {each.address: each for each in some}
        for each in some:
            for problem in target_problems(each, entries, target.domains):
                survey.of(each, problem)


def _new_domains(survey: Survey, target: Target) -> list[str]:
    if target.own:
        return []  # its domains are the stack's parameter MailboxDomains
    missing = sorted(survey.domains - {*survey.defaults})
    return [
        key
        for key in missing
        if key[1:] not in target.domains and key not in (target.table.get(missing))
    ]


def _carry_out(file: Path, target: Target, plan: Plan) -> None:
    """Write what was planned; the `@domain` entries last, so that half an import bounces nobody."""
    done = Counter[str]()

    def written(count: int) -> None:
        done["entries"] += count
        advance(count)

    domains: list[MailboxEntry] = []

    def addresses() -> Iterator[MailboxEntry]:
        for each in survey.entries():
            if each.mailbox.address.startswith("@"):
                domains.append(each)
            else:
                yield each

    survey = Survey(file)
    with progress("mailboxes", plan.total) as advance, _saying_what_is_written(done, plan):
        for batch in batched(addresses(), _BATCH, strict=False):
            target.table.put(_meant(batch, target), written=written)
        for batch in batched(domains, _BATCH, strict=False):
            target.table.put(_meant(batch, target), written=written)
        made = [
            MailboxEntry(mailbox=domain_entry(key), named=frozenset({"address", "catch_all"}))
            for key in plan.new_domains
        ]
        for batch in batched(made, _BATCH, strict=False):
            target.table.put(batch)


@contextlib.contextmanager
def _saying_what_is_written(done: Counter[str], plan: Plan) -> Iterator[None]:
    try:
        yield
    except BaseException:
        note(
            f"{done['entries']} of {plan.total} entries are as the file has them, and no @domain "
            "entry is new: import the file again, which goes on from there"
        )
        raise


@app.command()
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
    with plain_errors(*_EXPECTED), progress("entries written") as advance:
        boxes = Target.find(table, stack, region, attributes).table.scan()
        if file is None:
            write_mailboxes(boxes, sys.stdout, as_csv=False, advance=advance)
            return
        with file.open("w", newline="", encoding="utf-8") as out:
            as_csv = file.suffix.lower() == ".csv"
            write_mailboxes(boxes, out, as_csv=as_csv, advance=advance)


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
    with plain_errors(*_EXPECTED, UsageUnavailableError, RecordsLostError):
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
            prefix=stored_prefix(deployment.output("MailPrefix")),
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


def _convert(fields: dict[str, Any], named: Any) -> Mailbox:
    """
    Raises:
        MailboxFileError: an entry that nobody can mean.
    """
    try:
        mailbox = msgspec.convert(fields, Mailbox)
        check_entry(mailbox)
    except (msgspec.ValidationError, EntryError) as error:
        raise MailboxFileError(str(error)) from error
    for problem in unsaid_catch_all(mailbox, named):
        raise MailboxFileError(problem)
    return msgspec.structs.replace(mailbox, address=normalise(mailbox.address))


def _check_alias(mailbox: Mailbox) -> None:
    for problem in limits_of_alias(mailbox):
        raise MailboxFileError(problem)


def change(target: Target, address: str, fields: dict[str, Any], unset: list[str]) -> None:
    """Change an entry, if what becomes of it is one that somebody can mean.

    Raises:
        MailboxFileError: it is not, or there is none.
    """
    known = set(Mailbox.__struct_fields__) - {"address"}
    if unknown := set(unset) - known:
        raise MailboxFileError(f"no field is called {', '.join(unknown)}: {', '.join(known)}")
    if not fields and not unset:
        raise MailboxFileError("say what to change: see `bouncer mailbox set --help`")
    key = normalise(address)
    _check_alias(_convert({"address": address, **fields}, {"catch_all"}))
    standing = target.table.get([key]).get(key)
    if standing is None:
        raise MailboxFileError(f"{address} has no entry: add it with `bouncer mailbox add`")
    left = {k: v for k, v in msgspec.to_builtins(standing).items() if k not in unset}
    merged = _convert(left | fields, {"catch_all"})
    if {"alias_for", "moved_to"} & fields.keys():
        target.check_targets(merged)
    if not target.table.change(key, fields, unset):
        raise MailboxFileError(f"{address} has no entry: add it with `bouncer mailbox add`")
