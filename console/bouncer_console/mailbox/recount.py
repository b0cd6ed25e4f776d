"""`bouncer mailbox recount`: usage beside what the bucket holds."""

from typing import Annotated

import typer

from bouncer.aws.usage_audit import RecordsLostError, UsageAudit
from bouncer.settings import UsageMode, stored_prefix
from bouncer.usage import UsageUnavailableError
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
)
from bouncer_console.mailbox.options import EXPECTED
from bouncer_console.output import Json, plain_errors, print_json, print_table, progress, say


def recount(
    apply: Annotated[bool, typer.Option("--apply", help="Correct what is off.")] = False,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Compare each mailbox's usage with the mail in the bucket.

    Mail that comes meanwhile may show as a difference; it is gone in the next run.
    """
    with plain_errors(*EXPECTED, UsageUnavailableError, RecordsLostError):
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
