"""A mailbox that many come to at once: its counter is exact, filled or emptied.

200 mails at once for a mailbox with room for 100: exactly 100 are taken. 10,000 deletions at once,
some of them told twice: every byte comes back, once.
"""

import subprocess
import sys
from itertools import batched
from pathlib import Path

from local.stack import ROOT, running
from tests.integration.builders import create_bounce_table, create_mailbox_table

MAILS = 200
DELETED, STAYING = 10_000, 3
ROOM_FOR = 100
PROCESSES = 20
SIZE = 1000


def test_concurrent_mails_cannot_overshoot_a_quota(tmp_path: Path) -> None:
    with running(outbox=tmp_path) as aws:
        dynamodb = aws.client("dynamodb")
        create_bounce_table(dynamodb, "bounces")
        create_mailbox_table(dynamodb, "mailboxes")
        box = {
            "address": {"S": "busy@example.com"},
            "quota_bytes": {"N": str(ROOM_FOR * SIZE)},
        }
        dynamodb.put_item(TableName="mailboxes", Item=box)
        ids = [f"m{number}" for number in range(MAILS)]
        processes = [
            subprocess.Popen(
                [
                    sys.executable, "-m", "tests.proof.charger",
                    aws.endpoint, "bounces", "mailboxes", "busy@example.com",
                    *ids[number::PROCESSES],
                ],
                cwd=ROOT,
                env=aws.environment(),
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(PROCESSES)
        ]  # fmt: skip
        printed = [process.communicate(timeout=120)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * PROCESSES

        outcomes = dict(line.split() for text in printed for line in text.splitlines())
        assert set(outcomes) == set(ids)
        assert list(outcomes.values()).count("taken") == ROOM_FOR
        key = {"address": {"S": "busy@example.com"}}
        stored = dynamodb.get_item(TableName="mailboxes", Key=key)["Item"]
        assert stored["used_bytes"] == {"N": str(ROOM_FOR * SIZE)}
        assert stored["messages_today"] == {"N": str(ROOM_FOR)}
        records = dynamodb.scan(TableName="bounces")["Items"]
        assert {r["pk"]["S"].removeprefix("message#") for r in records} == {
            each for each, outcome in outcomes.items() if outcome == "taken"
        }


def test_ten_thousand_deletions_at_once_give_every_byte_back_once(tmp_path: Path) -> None:
    """By two environments, the function's MaximumConcurrency; the middle third comes to both."""
    with running(outbox=tmp_path) as aws:
        dynamodb = aws.client("dynamodb")
        create_bounce_table(dynamodb, "bounces")
        create_mailbox_table(dynamodb, "mailboxes")
        sizes = [SIZE + number for number in range(DELETED + STAYING)]
        records = [
            {
                "pk": {"S": f"message#m{number}"},
                "sk": {"S": "usage#busy@example.com"},
                "mailbox": {"S": "busy@example.com"},
                "size": {"N": str(size)},
                "counted_at": {"N": "1000"},
            }
            for number, size in enumerate(sizes)
        ]
        for some in batched(records, 25, strict=False):
            puts = [{"PutRequest": {"Item": each}} for each in some]
            dynamodb.batch_write_item(RequestItems={"bounces": puts})
        address = {"address": {"S": "busy@example.com"}}
        dynamodb.put_item(
            TableName="mailboxes", Item={**address, "used_bytes": {"N": str(sum(sizes))}}
        )
        third = DELETED // 3
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.proof.giver", aws.endpoint, *map(str, its)],
                cwd=ROOT,
                env=aws.environment(),
            )
            for its in ((0, 2 * third, "no"), (third, DELETED, "yes"))
        ]
        assert [process.wait(timeout=600) for process in processes] == [0, 0]
        box = dynamodb.get_item(TableName="mailboxes", Key=address)["Item"]
        assert box["used_bytes"] == {"N": str(sum(sizes[DELETED:]))}
        pages = dynamodb.get_paginator("scan").paginate(TableName="bounces")
        left = [each for page in pages for each in page["Items"] if "returned_at" not in each]
        assert len(left) == STAYING
