"""The options that several commands share."""

from typing import Annotated

import typer

from bouncer.policy.conditions import PolicyError
from bouncer_console.deployment import DeploymentError
from bouncer_console.mailbox.files import MailboxFileError

TableOption = Annotated[
    str | None,
    typer.Option(
        "--table",
        help="The table itself, instead of the stack's; whether a stack is live with it is not "
        "looked at.",
    ),
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
Quota = Annotated[
    str | None,
    typer.Option("--quota", metavar="SIZE", help="What it may hold: in bytes, or 500 MB, 2 GiB."),
]
SizeLimit = Annotated[
    str | None, typer.Option("--size-limit", metavar="SIZE", help="The largest mail that it takes.")
]
Used = Annotated[str | None, typer.Option("--used", metavar="SIZE", help="What it holds now.")]
EXPECTED = (DeploymentError, MailboxFileError, PolicyError)
