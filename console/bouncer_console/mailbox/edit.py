"""`bouncer mailbox add`, `set`, `disable`, `enable` and `remove`: one entry."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

from bouncer.address import normalise
from bouncer.mailboxes import (
    EntryError,
    Mailbox,
    Status,
    check_entry,
    domain_entry,
    domain_key_of,
    limits_of_alias,
    unsaid_catch_all,
)
from bouncer.policy.conditions import PolicyError, parse_size
from bouncer_console.deployment import DEFAULT_STACK, RegionOption, StackOption
from bouncer_console.mailbox.files import MailboxFileError
from bouncer_console.mailbox.options import (
    EXPECTED,
    AddressArgument,
    AttributesOption,
    OwnTable,
    Quota,
    SizeLimit,
    TableOption,
    Used,
)
from bouncer_console.mailbox.target import Target
from bouncer_console.output import MOMENT, Json, fail, note, plain_errors, report


def add(
    address: AddressArgument,
    quota: Quota = None,
    size_limit: SizeLimit = None,
    messages_per_day: Annotated[int | None, typer.Option(help="A quota in messages.")] = None,
    alias_for: Annotated[str | None, typer.Option(help="The address that takes its mail.")] = None,
    moved_to: Annotated[str | None, typer.Option(help="Its new address; mail is bounced.")] = None,
    tell: Annotated[bool, typer.Option("--tell", help="Senders may learn moved-to.")] = False,
    catch_all: Annotated[
        bool | None, typer.Option(help="For @domain: whether every address exists.")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="For @domain: what begins a tag: + or -; empty for none.")
    ] = None,
    domain: Annotated[
        bool | None,
        typer.Option(
            help="Let the domain's addresses without an entry be unknown from now on (yes; has "
            "to be said while the stack is live)."
        ),
    ] = None,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    attributes: AttributesOption = None,
    own_table: OwnTable = False,
    as_json: Json = False,
) -> None:
    """Add an entry; one that exists is left as it is."""
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
    with plain_errors(*EXPECTED):
        box = _convert({"address": address, **fields}, fields.keys())
        _check_alias(box)
        target = Target.find(table, stack, region, attributes).to_write(own_table)
        there = f"{address} has an entry already: change it with `bouncer mailbox set`"
        if target.table.get([box.address]):
            fail(there)
        target.check_targets(box)
        key = domain_key_of(box.address)
        of_domain = box.address == key
        speaks = not box.catch_all if of_domain else domain is not False and not target.own
        first = speaks and not target.speaks_for(key)
        if first and not domain and target.live:
            say = "Say --domain if so" if of_domain else "Say --domain if so, or --no-domain"
            fail(
                f"the stack is live, and the directory says nothing of {key[1:]} yet: every "
                f"address of it without an entry would be unknown from now on. {say}"
            )
        if not target.table.add(box):
            fail(there)
        if first and not of_domain:
            target.table.add(domain_entry(key))
    if box.address.startswith("@") and box.catch_all:
        note(f"every address of {key[1:]} exists from now on (--no-catch-all: only entries do)")
    elif first:
        note(f"addresses of {key[1:]} without an entry are unknown from now on")
    report(f"{box.address} is in the directory.", as_json, address=box.address, done="added")


def set_(
    address: AddressArgument,
    quota: Quota = None,
    size_limit: SizeLimit = None,
    used: Used = None,
    messages_per_day: Annotated[int | None, typer.Option(help="A quota in messages.")] = None,
    alias_for: Annotated[str | None, typer.Option(help="The address that takes its mail.")] = None,
    moved_to: Annotated[str | None, typer.Option(help="Its new address; mail is bounced.")] = None,
    tell: Annotated[bool | None, typer.Option(help="Senders may learn moved-to.")] = None,
    status: Annotated[
        Status | None, typer.Option(help="Whether it takes mail; an old status_until goes.")
    ] = None,
    catch_all: Annotated[bool | None, typer.Option(help="For @domain.")] = None,
    separator: Annotated[str | None, typer.Option(help="For @domain: + or -, or empty.")] = None,
    domain: Annotated[
        bool,
        typer.Option(
            "--domain",
            help="With --no-catch-all: let @domain's addresses without an entry be unknown from "
            "now on (has to be said while the stack is live).",
        ),
    ] = False,
    unset: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="A field to remove, such as quota_bytes; repeat."),
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
    with plain_errors(*EXPECTED):
        target = Target.find(table, stack, region, attributes).to_write(own_table)
        change(target, address, fields, gone, domain=domain)
    address = normalise(address)
    report(f"{address} is changed.", as_json, address=address, done="changed")


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
    """Refuse mail to an address, for good or until a time."""
    fields: dict[str, Any] = {"status": "disabled"}
    if until:
        if until <= datetime.now(UTC):
            fail(f"--until {until} has passed: the address would take mail at once")
        fields["status_until"] = until.strftime("%Y-%m-%dT%H:%M:%SZ")
    with plain_errors(*EXPECTED):
        target = Target.find(table, stack, region, attributes).to_write(own_table)
        change(target, address, fields, [] if until else ["status_until"])
    address = normalise(address)
    ends = f" until {until}" if until else ""
    report(f"{address} is disabled{ends}.", as_json, address=address, done="disabled", until=until)


def enable(
    address: AddressArgument,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    attributes: AttributesOption = None,
    own_table: OwnTable = False,
    as_json: Json = False,
) -> None:
    """Take mail to an address again."""
    with plain_errors(*EXPECTED):
        target = Target.find(table, stack, region, attributes).to_write(own_table)
        change(target, address, {"status": "active"}, ["status_until"])
    address = normalise(address)
    report(f"{address} takes mail again.", as_json, address=address, done="enabled")


def remove(
    address: AddressArgument,
    table: TableOption = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    attributes: AttributesOption = None,
    own_table: OwnTable = False,
    as_json: Json = False,
) -> None:
    """Remove an entry: its address is unknown then."""
    with plain_errors(*EXPECTED):
        target = Target.find(table, stack, region, attributes).to_write(own_table)
        if not target.table.remove(normalise(address)):
            fail(f"{address} has no entry")
    address = normalise(address)
    if address.startswith("@") and not target.own:
        note(f"the directory says nothing of {address[1:]} from now on: nobody is unknown there")
    report(f"{address} is removed.", as_json, address=address, done="removed")


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


def _ends_catch_all(standing: Mailbox, changed: Mailbox) -> bool:
    """Whether addresses of a domain without an entry are unknown then, and were not."""
    return standing.address.startswith("@") and standing.catch_all and not changed.catch_all


def change(
    target: Target,
    address: str,
    fields: dict[str, Any],
    unset: list[str],
    *,
    domain: bool = False,
) -> None:
    """Change an entry, if what becomes of it is one that somebody can mean.

    Args:
        domain: whether somebody said that a domain's addresses may be unknown from now on.

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
    if target.live and not domain and _ends_catch_all(standing, merged):
        raise MailboxFileError(
            f"the stack is live, and every address of {key[1:]} exists until now: those without an "
            "entry would be unknown from now on. Say --domain if so"
        )
    if {"alias_for", "moved_to"} & fields.keys():
        target.check_targets(merged)
    if not target.table.change(key, fields, unset):
        raise MailboxFileError(f"{address} has no entry: add it with `bouncer mailbox add`")
