"""One process of many that accept mail for the same mailbox at once."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3

from bouncer.aws.directory import DynamoDirectory
from bouncer.aws.usage import DynamoUsage
from bouncer.usage import Charged


def main(endpoint: str, bounces: str, mailboxes: str, address: str, *message_ids: str) -> None:
    client: Any = boto3.client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name="us-east-1",
    )
    usage = DynamoUsage(
        client, bounce_table=bounces, mailbox_table=mailboxes, remember=timedelta(days=14)
    )
    directory = DynamoDirectory(client, mailboxes, {})
    for message_id in message_ids:
        mailbox = directory.look_up([address])[address].mailbox
        assert mailbox is not None
        now = datetime.now(UTC)
        for _ in range(2):  # delivered twice, as everything may be
            charged = usage.charge(mailbox, message_id, 1000, now, enforce=True)
        taken = isinstance(charged, Charged)
        print(message_id, "taken" if taken else "full", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
