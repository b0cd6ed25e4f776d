"""The options that the three commands share."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from bouncer.delivery.bounce import BounceError
from bouncer.message import MalformedEventError
from bouncer.policy.conditions import PolicyError, parse_size
from bouncer_console.deployment import DeploymentError
from bouncer_console.mailbox.files import MailboxFileError
from bouncer_console.output import MOMENT


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except PolicyError as error:
        raise typer.BadParameter(str(error)) from error


PolicyOption = Annotated[Path, typer.Option("--policy", help="The policy.", show_default=True)]
MailboxesOption = Annotated[
    Path | None,
    typer.Option("--mailboxes", help="A file of mailboxes (docs/mailboxes.md), JSON or CSV."),
]
TableOption = Annotated[
    str | None, typer.Option("--table", help="A mailbox table to read; the only call to AWS.")
]
SizeOption = Annotated[
    int | None,
    typer.Option(
        "--size",
        parser=_size,
        metavar="SIZE",
        help="The mail's size, as 25 MB or in bytes; else that of the .eml beside the event.",
    ),
]
StackOption = Annotated[
    str | None,
    typer.Option("--stack", help="A deployed stack: its directory, bounce sender and Region."),
]
AttributesOption = Annotated[
    str | None,
    typer.Option(
        "--attributes", help="With --table: its attribute names, as the stack's MailboxAttributes."
    ),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show every fact, rule and guard, with the reason.")
]
NowOption = Annotated[
    datetime | None,
    typer.Option("--now", help="Pretend it is then.", **MOMENT),
]
SenderOption = Annotated[
    str | None, typer.Option("--bounce-sender", help="The stack's BounceSender.")
]
MailFromOption = Annotated[
    str | None,
    typer.Option(
        "--mail-from", metavar="ADDRESS", help="For an .eml: its envelope sender, <> for none."
    ),
]
RcptOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rcpt-to", metavar="ADDRESS", help="For an .eml: an envelope recipient; repeat."
    ),
]
EXPECTED = (PolicyError, MalformedEventError, MailboxFileError, BounceError, DeploymentError)
