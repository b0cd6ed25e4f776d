"""`bouncer adopt`: what an earlier stack's ledger knows goes on in this one's."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer
from botocore.exceptions import ClientError

from bouncer.delivery.ledger import BounceState
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
)
from bouncer_console.output import Json, plain_errors, print_json, progress, say

_WRITERS = 8


def adopt(
    old_table: Annotated[
        str,
        typer.Argument(help="What an earlier stack left behind: its table …-BounceTable-…"),
    ],
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Take over what an earlier stack's BounceTable knows of mail.

    Who was told, which mails were handled, and what each stored mail counts for in which mailbox.
    Copies what this stack has no record of, changes nothing else, and is safe to repeat. What
    waited is left out: it went with the old queue. It goes with the old directory: one that was
    imported anew never counted the old mail, so after deletions it needs `mailbox recount`.
    """
    with plain_errors(DeploymentError):
        deployment = Deployment.find(stack, region)
        table = deployment.output("BounceTable")
        if old_table == table:
            raise DeploymentError(f"{table} is this stack's own: name the old one")
        dynamodb = deployment.client("dynamodb")

        def take_over(item: dict[str, Any]) -> bool:
            try:
                dynamodb.put_item(
                    TableName=table, Item=item, ConditionExpression="attribute_not_exists(pk)"
                )
            except ClientError as error:
                if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                    raise
                return False
            return True

        copied = known = 0
        with progress("records") as advance, ThreadPoolExecutor(_WRITERS) as pool:
            for page in _pages(dynamodb, old_table):
                new = sum(pool.map(take_over, page))
                copied, known = copied + new, known + len(page) - new
                advance(len(page))
        if not copied + known:
            raise DeploymentError(
                f"{old_table} knows of no mail, so it is no old ledger, or an empty one: look for "
                "a table named …-BounceTable-… (bouncer doctor, check kept-from-before)"
            )
    if as_json:
        print_json({"from": old_table, "to": table, "copied": copied, "known": known})
        return
    say(f"{copied} records were taken over from {old_table}; {known} were here already.")


def _pages(dynamodb: Any, table: str) -> Iterator[list[dict[str, Any]]]:
    """What is known of mails and at its end; limiter, budgets and key are each stack's own."""
    scan = dynamodb.get_paginator("scan").paginate(
        TableName=table,
        ConsistentRead=True,
        FilterExpression="begins_with(pk, :mail) AND attribute_exists(sk) "
        "AND NOT #state IN (:claimed, :queued)",
        ExpressionAttributeNames={"#state": "state"},
        ExpressionAttributeValues={
            ":mail": {"S": "message#"},
            ":claimed": {"S": BounceState.CLAIMED},
            ":queued": {"S": BounceState.QUEUED},
        },
    )
    for page in scan:
        yield page["Items"]
