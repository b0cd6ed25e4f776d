"""`bouncer mailbox import`: compared as a whole, then written, `@domain` entries last."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import batched
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from botocore.exceptions import NoCredentialsError, NoRegionError

from bouncer.aws.mailbox_table import Change, MailboxEntry, MailboxTable
from bouncer.mailboxes import (
    Mailbox,
    candidates,
    domain_entry,
    limits_of_alias,
    target_problems,
    unsaid_catch_all,
)
from bouncer_console.deployment import DEFAULT_STACK, RegionOption, StackOption
from bouncer_console.mailbox.files import MailboxFileError, Survey
from bouncer_console.mailbox.options import (
    EXPECTED,
    AttributesOption,
    DryRun,
    OwnTable,
    TableOption,
)
from bouncer_console.mailbox.target import Target
from bouncer_console.output import Json, note, plain_errors, print_json, print_table, progress, say

_BATCH = 100


class Plan(msgspec.Struct, kw_only=True):
    """What an import would do; the same whether it then does it or not."""

    counts: Counter[str]
    shown: list[dict[str, Any]]
    new_domains: list[str]
    """Keys of the `@domain` entries that it makes."""
    first_words: list[str]
    """Of all domains of which no address is unknown before, and those without an entry are then."""
    ends_open: bool = False
    """Whether the file may be cut off within its last line."""
    left_alone: int = 0
    """Empty cells that empty nothing, in a table of the user's own."""

    @property
    def total(self) -> int:
        return self.counts.total()


def import_(
    file: Annotated[Path, typer.Argument(help="CSV, JSON or JSON Lines (docs/mailboxes.md).")],
    dry_run: DryRun = False,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    attributes: AttributesOption = None,
    own_table: OwnTable = False,
    new_domains: Annotated[
        bool,
        typer.Option(
            "--new-domains",
            help="From now on, the addresses without an entry are unknown in domains where none "
            "was: has to be said while the stack is live.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Add and change entries from a file.

    Safe to repeat, and usage is never touched. Entries and fields that the file does not name stay;
    an empty cell, or null, empties a field (in a table of your own, an empty cell leaves it as it
    is). The whole file is checked before anything is written. Each domain that occurs gets an
    `@domain` entry, after all others; while the stack is live, only if you say that it may.
    """
    with plain_errors(*EXPECTED):
        find = _to_compare if dry_run else Target.find
        target = find(table, stack, region, attributes)
        if not dry_run:
            target.to_write(own_table)
        plan = _planned(file, target, keep=dry_run or as_json)
        for refusal in _refused_live(file, plan, new_domains) if target.live else ():
            if not dry_run:
                raise MailboxFileError(refusal)
            note(f"without --dry-run it is refused: {refusal}")
        if plan.ends_open and not target.live:
            note(f"{file}: its last line has no line break at the end. Is the file whole?")
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
        say(f"The directory {verb} for {_named(plan.new_domains)} from now on.")
    if plan.left_alone:
        note(
            f"{plan.left_alone} empty cells left the table of your own as it is: "
            "`bouncer mailbox set --unset FIELD` empties a field"
        )


def _refused_live(file: Path, plan: Plan, new_domains: bool) -> Iterator[str]:
    """Why an import may bounce mail that nobody meant to bounce, where the stack bounces."""
    if plan.ends_open:
        yield (
            f"the stack is live, and the last line of {file} has no line break, so it may be cut "
            "off within a value: if the file is whole, end it with a line break"
        )
    if plan.first_words and not new_domains:
        yield (
            f"the stack is live, and no address of {_named(plan.first_words)} is unknown yet: from "
            "now on, mail for every address there that has no entry would be bounced. If the file "
            "has them all, say --new-domains"
        )


def _named(keys: list[str]) -> str:
    names = ", ".join(key[1:] for key in keys[:10])
    return f"{names} and {len(keys) - 10} more" if len(keys) > 10 else names


class _EmptyTable(MailboxTable):
    """A directory with nothing in it."""

    def __init__(self) -> None:
        asked_nothing: Any = None
        super().__init__(asked_nothing, "")

    def get(self, _addresses: Sequence[str]) -> dict[str, Mailbox]:
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
        note(
            "no AWS account is known here, so the file is compared with an empty directory "
            f"({error})"
        )
        return Target(table=_EmptyTable())


def _planned(file: Path, target: Target, *, keep: bool) -> Plan:
    """What the import of a file does.

    Args:
        keep: whether each difference is wanted, not only their number.

    Raises:
        MailboxFileError: a mistake in the file, or in what it would make of the table.
    """
    survey = Survey(file)
    plan = Plan(counts=Counter(), shown=[], new_domains=[], first_words=[])
    merged: list[Mailbox] = []
    defaults: dict[str, Mailbox] = {}
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
                if change.address.startswith("@"):
                    defaults[change.address] = change.mailbox
                plan.counts[change.kind] += 1
                if keep and change.kind != "unchanged":
                    plan.shown.append(_difference(change))
            advance(len(batch))
    _check_targets(survey, merged, target)
    survey.refuse()
    plan.ends_open = survey.ends_open
    keys = sorted(survey.domains)
    standing = target.table.get(keys)
    if not target.own:  # or its domains are the stack's parameter MailboxDomains
        plan.new_domains = [
            key
            for key in keys
            if key not in defaults and key not in standing and key[1:] not in target.domains
        ]
    listed = {key for key, each in defaults.items() if not each.catch_all} | {*plan.new_domains}
    plan.first_words = [
        key for key in keys if key in listed and target.knows_nobody_unknown(key, standing.get(key))
    ]
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


def _said(value: object) -> str:
    return "none" if value is None else str(value) or "empty"


def _difference(change: Change) -> dict[str, Any]:
    parts = [f"{name}: {_said(old)} -> {_said(new)}" for name, (old, new) in change.fields.items()]
    return {"kind": change.kind, "address": change.address, "difference": ", ".join(parts)}
