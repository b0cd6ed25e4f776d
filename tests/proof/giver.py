"""One of the two environments that give deleted mail back: batches as its queue brings them."""

import sys
from datetime import timedelta
from itertools import batched
from typing import Any

import boto3

from bouncer.aws.usage import DynamoUsage

BATCH = 100


def main(endpoint: str, first: str, last: str, backwards: str) -> None:
    client: Any = boto3.client("dynamodb", endpoint_url=endpoint, region_name="us-east-1")
    usage = DynamoUsage(
        client, bounce_table="bounces", mailbox_table="mailboxes", remember=timedelta(days=14)
    )
    batches = [*batched(range(int(first), int(last)), BATCH, strict=False)]
    for batch in reversed(batches) if backwards == "yes" else batches:
        left = {f"m{number}" for number in batch}
        while left:  # what failed comes back
            left = usage.give_back(left)


if __name__ == "__main__":
    main(*sys.argv[1:])
