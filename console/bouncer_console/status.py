"""`bouncer status`: what became of a mail."""

from datetime import timedelta
from typing import Annotated

import typer

from bouncer.aws.ledger import DynamoLedger
from bouncer.delivery.ledger import LedgerUnavailableError
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
)
from bouncer_console.output import Json, clock_time, plain_errors, print_json, print_table, say


def status(
    message_id: Annotated[str, typer.Argument(help="SES's id of the mail.")],
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """What happened to a mail's bounces, recipient by recipient."""
    with plain_errors(DeploymentError, LedgerUnavailableError):
        deployment = Deployment.find(stack, region)
        ledger = DynamoLedger(
            deployment.client("dynamodb"), deployment.output("BounceTable"), retention=timedelta(0)
        )
        entries = ledger.history(message_id)
    if as_json:
        print_json(entries)
        return
    if not entries:
        say(
            "The ledger has nothing of this mail: nobody's bounce was decided, "
            "or it was longer ago than the ledger remembers."
        )
        return
    columns = ("recipient", "state", "reason", "status", "since", "bounce id", "why")
    print_table(
        "",
        columns,
        [
            (
                e.recipient,
                e.state,
                e.reason,
                e.status,
                clock_time(e.updated_at),
                e.bounce_id,
                e.why,
            )
            for e in entries
        ],
    )
