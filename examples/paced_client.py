"""Calls that AWS takes once a second, from any number of processes: docs/pacing.md.

    python examples/paced_client.py TABLE [CALLS]

makes so many calls of SES's old API, each in its turn; start it several times at once. The table
has the text keys pk and sk; the item need not exist.
"""

import sys
import time

import boto3

from bouncer.aws.pacing import DynamoSlots, Limiter, Pace, paced


def main(table: str, calls: int = 3) -> None:
    limiter = Limiter(
        DynamoSlots(boto3.client("dynamodb"), table, key={"pk": "pace", "sk": "ses-rules"}),
        Pace(interval=1.0),
    )
    ses = paced(boto3.client("ses"), limiter)
    for _ in range(calls):
        ses.list_receipt_rule_sets()
        print(f"{time.time():.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
