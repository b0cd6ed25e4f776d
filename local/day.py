"""A day of mail for AWS on this machine, in a minute: what a page looks like, and how fast it is.

Lines in the functions' log groups, each mail with every line that a function prints about one,
copied from mails that it handles just now; bounces in queue and ledger, which no worker drains.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import Any

from bouncer.aws.ledger import DynamoLedger
from bouncer.aws.stack_key import stack_key
from bouncer.aws.telemetry import BY_OUTCOME, BY_STATE, NAMESPACE
from bouncer.delivery.bounce import Bounce, BouncedRecipient, BounceType
from bouncer.delivery.ledger import BounceState, LedgerEntry
from bouncer.delivery.queue import encode
from bouncer.policy.decide import Outcome
from local import web
from local.demo import log_line, until
from local.stack import BOUNCE_SENDER, STACK, Aws

HOSTILE = (
    "<img/src=x/onerror=alert(1)>@evil.example",
    "\x1b[31m\x1b]0;owned\x07@evil.example",
    "[red]rich[/red][link=http://evil.example]@evil.example",
    "\u202eelpmaxe.live@evil.example",
    f"{'w' * 300}@evil.example",
)
"""Senders that no page and no command may take for anything but text."""

_EVENTS_A_CALL = 1000
_METRICS = (BY_OUTCOME[Outcome.ACCEPT], BY_STATE[BounceState.SENT])
"""Of a mail to somebody, and of one to nobody."""
_DOMAINS = 10_000


def fill(
    aws: Aws, outputs: dict[str, str], *, mails: int, waiting: int, hostile: bool = False
) -> str:
    """Put a day into the deployed application, and stop the queue's worker.

    Args:
        mails: in the log.
        waiting: bounces in queue and ledger.
        hostile: whether some of the senders are of HOSTILE.

    Returns:
        The id of a mail that was really handled.
    """
    functions = aws.client("lambda")
    mapping = functions.list_event_source_mappings(
        EventSourceArn=_arn(aws, outputs["BounceQueue"])
    )["EventSourceMappings"][0]["UUID"]
    functions.update_event_source_mapping(UUID=mapping, Enabled=False)
    message_id = _fill_log(aws, outputs, mails, hostile=hostile)
    _fill_queue(aws, outputs, waiting, hostile=hostile)
    return message_id


def _arn(aws: Aws, url: str) -> str:
    asked = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return str(asked["Attributes"]["QueueArn"])


def _fill_log(aws: Aws, outputs: dict[str, str], mails: int, *, hostile: bool) -> str:
    """A day of mail, by the lines of two mails that are handled now; the id of one of these."""
    handled = [_handled(aws, outputs, to) for to in ("nobody@example.com", "alice@example.com")]
    chance = random.Random(7)  # noqa: S311  (a day, the same each time)
    now = time.time() * 1000
    events: list[Any] = []
    counts: Counter[tuple[str, int]] = Counter()
    for number in range(mails):
        lines = handled[0][1] if chance.random() < 0.6 else handled[1][1]
        at = int(now - chance.random() ** 2 * 86_000_000)
        events += [
            {"timestamp": at + each, "message": _retold(text, number, at, chance, hostile=hostile)}
            for each, text in enumerate(lines)
        ]
        counts[_METRICS[handled[0][1] is lines], at // 60_000] += 1
    _count(aws, counts)
    events.sort(key=lambda each: each["timestamp"])
    logs, group = aws.client("logs"), outputs["InboundLogGroup"]
    logs.create_log_stream(logGroupName=group, logStreamName="a-day")
    for some in batched(events, _EVENTS_A_CALL, strict=False):
        logs.put_log_events(logGroupName=group, logStreamName="a-day", logEvents=list(some))
    return handled[0][0]


def _count(aws: Aws, counts: Counter[tuple[str, int]]) -> None:
    """What the functions would have counted, by metric and minute."""
    data: list[Any] = [
        {
            "MetricName": name,
            "Dimensions": [{"Name": "service", "Value": STACK}],
            "Timestamp": datetime.fromtimestamp(minute * 60, UTC),
            "Value": number,
            "Unit": "Count",
        }
        for (name, minute), number in counts.items()
    ]
    for some in batched(data, _EVENTS_A_CALL, strict=False):
        aws.client("cloudwatch").put_metric_data(Namespace=NAMESPACE, MetricData=list(some))


def _handled(aws: Aws, outputs: dict[str, str], recipient: str) -> tuple[str, list[str]]:
    """A mail that the deployed function handles: its id, and every line that was printed."""
    head = f"From: pat@sender.example\r\nTo: {recipient}\r\nMessage-ID: <1@sender.example>\r\n"
    mail = f"{head}Subject: Hello <b>\r\n\r\nHello\r\n".encode()
    message_id = web.LocalMail(aws).send("pat@sender.example", [recipient], mail)
    until(lambda: log_line(aws, outputs, message_id), "no decision in the log", 300)
    pages = (
        aws.client("logs")
        .get_paginator("filter_log_events")
        .paginate(logGroupName=outputs["InboundLogGroup"])
    )
    texts = [event["message"] for page in pages for event in page["events"]]
    here = next(n for n, each in enumerate(texts) if message_id in each)
    first = max(n for n in range(here) if texts[n].startswith("START"))
    last = next(n for n in range(here, len(texts)) if texts[n].startswith("REPORT"))
    return message_id, texts[first : last + 1]


def _retold(text: str, number: int, at: int, chance: random.Random, *, hostile: bool) -> str:
    """A function's line, about another mail."""
    if '"mail handled"' not in text:
        return text
    line = json.loads(text)
    domain = f"d{int(chance.paretovariate(0.5)) % _DOMAINS}.example"
    sender = f"s{number}@{domain}"
    if hostile and number % 50 == 0:
        sender = HOSTILE[number // 50 % len(HOSTILE)]
    line |= {
        "ses_message_id": f"filled{number:06}",
        "received_at": datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds"),
        "sender": sender,
        "sender_domain": sender.rpartition("@")[2],
        "client": f"198.51.{chance.randrange(100, 104)}.{chance.randrange(256)}",
        "message_id_header": f"{number}@{domain}",
    }
    if line["recipients"][0]["outcome"] == "bounce":
        line["recipients"][0]["recipient"] = f"guess{chance.randrange(3000)}@example.com"
        held = chance.choice(("", "", "spf-failed", "null-sender", "sender-domain-budget"))
        if held:
            line["suppressed"] = held
            line["recipients"][0]["state"] = "suppressed"
    return json.dumps(line, ensure_ascii=False)


def _fill_queue(aws: Aws, outputs: Mapping[str, str], waiting: int, *, hostile: bool) -> None:
    dynamodb, table = aws.client("dynamodb"), outputs["BounceTable"]
    ledger = DynamoLedger(dynamodb, table, retention=timedelta(days=14))
    key, now = stack_key(dynamodb, table), datetime.now(UTC)
    bounces = [
        Bounce(
            message_id=f"waits{number:05}",
            received_at=now - timedelta(seconds=waiting - number),
            bounce_sender=BOUNCE_SENDER,
            reverse_path=HOSTILE[number % 4]
            if hostile and number % 20 == 0
            else f"s{number}@d{number % 97}.example",
            recipients=(
                BouncedRecipient(
                    recipient=f"guess{number}@example.com",
                    reason="unknown-recipient",
                    bounce_type=BounceType.DOES_NOT_EXIST,
                ),
            ),
        )
        for number in range(waiting)
    ]

    def put(some: Sequence[Bounce]) -> None:
        entries = [_entry(each) for each in some]
        ledger.record(entries, until=datetime.now(UTC) + timedelta(minutes=5))
        aws.client("sqs").send_message_batch(
            QueueUrl=outputs["BounceQueue"],
            Entries=[
                {"Id": str(n), "MessageBody": encode(each, key)} for n, each in enumerate(some)
            ],
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, batched(bounces, 10, strict=False)))


def _entry(bounce: Bounce) -> LedgerEntry:
    return LedgerEntry(
        message_id=bounce.message_id,
        recipient=bounce.recipients[0].recipient,
        state=BounceState.QUEUED,
        reason=bounce.recipients[0].reason,
        status=bounce.recipients[0].status,
        received_at=bounce.received_at,
        reverse_path=bounce.reverse_path,
    )
