"""`bouncer rules filter`: SES's receipt IP filters, which keep addresses out of the SMTP dialogue.

They are the account's in one Region, whatever the rule set. What AWS does not document is named
where it matters: docs/operations.md has the list.
"""

import ipaddress
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from botocore.exceptions import ClientError

from bouncer_console.deployment import RegionOption, client
from bouncer_console.output import (
    Json,
    ask,
    note,
    plain_errors,
    print_json,
    print_table,
    report,
    say,
)

if TYPE_CHECKING:
    from mypy_boto3_ses import SESClient

LIMIT = 100
"""Filters an account and Region; SES has no way to raise it."""

# SES takes one call a second of each of these.
_PAUSE_SECONDS = 1.05
_WIDE = {4: 16, 6: 32}
"""A shorter prefix than this keeps out more than a network of somebody's."""

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class FilterError(ValueError):
    """It cannot be done; the text says why and what to do."""


class Policy(StrEnum):
    BLOCK = "Block"
    ALLOW = "Allow"


class IpFilter(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    policy: Policy
    cidr: str
    """As SES has it."""


def network_of(text: str) -> Network:
    """An address or a network; bits beyond the prefix are dropped, as in AWS's own example.

    Raises:
        FilterError: it is neither.
    """
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise FilterError(
            f"{text!r} is no address and no network: write it as 203.0.113.7 or 203.0.113.0/24"
        ) from error


def written(network: Network) -> str:
    """As SES is told it: a single address stands without a prefix."""
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if single else str(network)


class IpFilters:
    """Those of the account in the client's Region."""

    def __init__(self, ses: "SESClient", sleep: Callable[[float], None] = time.sleep) -> None:
        self._ses = ses
        self._sleep = sleep

    def all(self) -> list[IpFilter]:
        return [
            IpFilter(
                name=each["Name"],
                policy=Policy(each["IpFilter"]["Policy"]),
                cidr=each["IpFilter"]["Cidr"],
            )
            for each in self._ses.list_receipt_filters().get("Filters", [])
        ]

    def add(self, text: str, policy: Policy, name: str | None = None) -> tuple[IpFilter, bool]:
        """Block or allow an address or a network.

        Args:
            name: else one is made of the network.

        Returns:
            The filter, and whether it is new.

        Raises:
            FilterError
        """
        network = network_of(text)
        wanted = IpFilter(name=name or _name_of(network), policy=policy, cidr=written(network))
        there = self.all()
        for each in there:
            if _same(each.cidr, network):
                if each.policy is policy:
                    return each, False
                raise FilterError(
                    f"the filter {each.name} says {each.policy} for {each.cidr}: remove it first"
                )
        if len(there) >= LIMIT:
            raise FilterError(
                f"there are {len(there)} filters, and SES takes {LIMIT} an account and Region: "
                "remove some, or block a network instead of its addresses"
            )
        self._sleep(_PAUSE_SECONDS)
        try:
            self._ses.create_receipt_filter(
                Filter={
                    "Name": wanted.name,
                    "IpFilter": {"Policy": policy.value, "Cidr": wanted.cidr},
                }
            )
        except ClientError as error:
            raise FilterError(_why(error, wanted)) from error
        return wanted, True

    def remove(self, name_or_cidr: str) -> IpFilter:
        """
        Raises:
            FilterError: there is none.
        """
        there = self.all()
        found = [each for each in there if each.name == name_or_cidr]
        if not found:
            try:
                network = network_of(name_or_cidr)
            except FilterError:
                network = None
            if network is not None:
                found = [each for each in there if _same(each.cidr, network)]
        if not found:
            raise FilterError(f"there is no filter {name_or_cidr!r}: bouncer rules filter list")
        self._sleep(_PAUSE_SECONDS)
        self._ses.delete_receipt_filter(FilterName=found[0].name)
        return found[0]


def _same(cidr: str, network: Network) -> bool:
    try:
        return network_of(cidr) == network
    except FilterError:
        return False


def _name_of(network: Network) -> str:
    """Letters, digits and dashes, 64 at most, a letter or digit at both ends."""
    text = written(network) if network.version == 4 else network.exploded
    return "ses-bouncer-" + "".join(each if each.isalnum() else "-" for each in text)


def _why(error: ClientError, wanted: IpFilter) -> str:
    code = error.response["Error"]["Code"]
    if code.startswith("AlreadyExists"):
        return f"there is a filter named {wanted.name} already: choose another --name"
    if code.startswith("LimitExceeded"):
        return f"SES takes {LIMIT} filters an account and Region: remove some first"
    said = error.response["Error"].get("Message", code)
    silent = " (AWS does not document whether it takes IPv6)" if ":" in wanted.cidr else ""
    return f"SES refused {wanted.cidr}: {said}{silent}"


# --- The commands ----------------------------------------------------------------------------

app = typer.Typer(
    help="SES's IP filters: block clients by their address.",
    no_args_is_help=True,
)


@app.command()
def add(
    address: Annotated[str, typer.Argument(help="An address, or a network: 203.0.113.0/24.")],
    allow: Annotated[
        bool, typer.Option("--allow", help="Let it in, out of a network that is blocked.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="The filter's name; else one is made of the address.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, however wide it is.")] = False,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Block an address or a network, before any rule.

    SES refuses it in the SMTP dialogue. This holds for the whole account in this Region, not for
    this stack's rule alone; there can be 100 filters. Its senders get no bounce, and the mail
    leaves no trace here. Before it blocks a very wide network, the command asks.
    """
    policy = Policy.ALLOW if allow else Policy.BLOCK
    with plain_errors(FilterError):
        network = network_of(address)
        wide = network.prefixlen < _WIDE[network.version] and policy is Policy.BLOCK
        if wide:
            ask(f"{network} is {network.num_addresses:,} addresses. Block them all?", yes=yes)
        made, new = IpFilters(client("ses", region)).add(address, policy, name)
    if network.version == 6:
        note("AWS does not document that its receiving servers are reached over IPv6.")
    done = {Policy.BLOCK: "blocked", Policy.ALLOW: "let in"}[policy]
    report(
        f"{made.cidr} is {done}{'' if new else ' already'}, by the filter {made.name}.",
        as_json,
        filter=made,
        new=new,
    )


@app.command(name="list")
def list_filters(region: RegionOption = None, as_json: Json = False) -> None:
    """List every filter of the account in this Region."""
    with plain_errors():
        found = sorted(
            IpFilters(client("ses", region)).all(), key=lambda each: (each.policy, each.name)
        )
    if as_json:
        print_json({"filters": found, "limit": LIMIT})
        return
    _show(found)


@app.command()
def remove(
    filter_or_address: Annotated[
        str, typer.Argument(metavar="FILTER", help="Its name, or its address or network.")
    ],
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Take a filter away: its addresses are treated as all others."""
    with plain_errors(FilterError):
        gone = IpFilters(client("ses", region)).remove(filter_or_address)
    report(f"The filter {gone.name} ({gone.policy} {gone.cidr}) is gone.", as_json, removed=gone)


def _show(found: Sequence[IpFilter]) -> None:
    if not found:
        say("There are no IP filters: everybody may speak SMTP to SES.")
        return
    print_table(
        "", ("name", "", "network"), [(each.name, each.policy, each.cidr) for each in found]
    )
    say(f"{len(found)} of {LIMIT}")
