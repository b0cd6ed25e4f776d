"""200 mails at once for a mailbox with room for 100: exactly 100 are taken."""

import subprocess
import sys
from pathlib import Path

from local.stack import ROOT, running

MAILS = 200
ROOM_FOR = 100
PROCESSES = 20
SIZE = 1000


def test_concurrent_mails_cannot_overshoot_a_quota(tmp_path: Path) -> None:
    with running(outbox=tmp_path) as aws:
        dynamodb = aws.client("dynamodb")
        for table, keys in (("bounces", ("pk", "sk")), ("mailboxes", ("address",))):
            dynamodb.create_table(
                TableName=table,
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": k, "AttributeType": "S"} for k in keys],
                KeySchema=[
                    {"AttributeName": k, "KeyType": t}
                    for k, t in zip(keys, ("HASH", "RANGE"), strict=False)
                ],
            )
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
