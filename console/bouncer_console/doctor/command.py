"""`bouncer doctor`: the findings as a table, or JSON."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer
from rich.text import Text

from bouncer_console.deployment import DEFAULT_STACK, RegionOption, StackOption
from bouncer_console.doctor.checks import examine
from bouncer_console.doctor.dns import DnsError, Resolver
from bouncer_console.doctor.finding import Finding, Health
from bouncer_console.doctor.reader import Reader
from bouncer_console.output import Json, note, plain_errors, print_json, print_table, say

DnsOption = Annotated[
    str | None,
    typer.Option(
        "--dns-server",
        envvar="BOUNCER_DNS_SERVER",
        help="ADDRESS[:PORT] of the resolver; else this machine's.",
    ),
]

_SIGNS = {
    Health.RIGHT: ("✓", "green"),
    Health.WRONG: ("✗", "red"),
    Health.WARNING: ("!", "yellow"),
    Health.UNKNOWN: ("?", "dim"),
}


def doctor(
    bounce_sender: Annotated[
        str | None, typer.Option(help="Before the first deployment: the BounceSender it will have.")
    ] = None,
    rule_set: Annotated[
        str | None, typer.Option(help="Before the first deployment: the ReceiptRuleSetName.")
    ] = None,
    after_rule: Annotated[
        str | None, typer.Option(help="Before a deployment: the AfterRule it will have.")
    ] = None,
    recipients: Annotated[
        str, typer.Option(help="Before a deployment: the Recipients, separated by commas.")
    ] = "",
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    dns_server: DnsOption = None,
    as_json: Json = False,
) -> None:
    """Check account and stack: what is wrong, and how to mend it.

    Reads only, before and after a deployment. The exit status is 1 when something is wrong.
    """
    with plain_errors(DnsError):
        found = findings(
            stack,
            region,
            bounce_sender=bounce_sender,
            rule_set=rule_set,
            after_rule=after_rule,
            recipients=[each for each in recipients.split(",") if each],
            dns_server=dns_server,
        )
    if as_json:
        print_json({"checks": found})
    else:
        show(found)
    if any(each.state is Health.WRONG for each in found):
        raise typer.Exit(1)


def findings(
    stack: str,
    region: str | None,
    *,
    bounce_sender: str | None = None,
    rule_set: str | None = None,
    after_rule: str | None = None,
    recipients: Sequence[str] = (),
    dns_server: str | None = None,
) -> list[Finding]:
    """Read the account and judge it.

    Raises:
        DnsError: no resolver can be asked.
    """
    reader = Reader(
        stack=stack,
        region=region,
        dns=Resolver(dns_server),
        command_version=version("ses-bouncer"),
        bounce_sender=bounce_sender,
        rule_set=rule_set,
        after_rule=after_rule,
        recipients=recipients,
    )
    return list(examine(reader.read(advance=lambda what: note(f"reading {what}"))))


def show(found: list[Finding]) -> None:
    """The findings as a table, and how many there are of each kind."""
    rows = [(Text(*_SIGNS[each.state]), each.name, each.found, each.mend or "") for each in found]
    print_table("", ("", "check", "found", "mend"), rows)
    counts = {state: sum(each.state is state for each in found) for state in Health}
    say(", ".join(f"{count} {state}" for state, count in counts.items() if count))
