"""What a million mails cost, by the way they go: counted on AWS on this machine, at list prices.

`python -m bench.cost --measure` deploys, mails, and writes bench/cost.json: requests, capacity
units, bytes logged, and milliseconds of each function, by path and mail. `python -m bench.cost`
prints the README's table from that file and bench/prices.toml.
"""

import itertools
import smtplib
import time
import tomllib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from bench.machine import machine
from bouncer import timing
from bouncer.aws.slots import SLOTS_ITEM
from bouncer.limiter import Pace
from bouncer_console.output import say
from local import stack
from local.demo import until
from local.deployment import deployed
from local.stack import STATE, Aws

HERE = Path(__file__).parent
COUNTED = HERE / "cost.json"
PRICES = HERE / "prices.toml"
MILLION = 1_000_000
FULL_CPU_MB = 1769
"""Memory that comes with one processor (Lambda developer guide, "Configure memory")."""
AWS_ANSWERS_MS = 6.0
"""A request to AWS takes so long on AWS, in which a function waits and is billed."""
MEMORIES = (128, 256, 512, 1024)

_QUIET_SECONDS = timing.VISIBILITY + 60
"""What a worker leaves comes back after the queue's visibility timeout."""
# What CloudWatch Logs counts for an event beside its text (its quotas page).
_LOG_EVENT_BYTES = 26
_REPORT_BYTES = 350
"""Of Lambda's own lines about an invocation: START, END, REPORT."""
AUDIT_DELAY = 5.0
"""Seconds, as local/stack.py deploys it."""
_BUSY_SECONDS = Pace().horizon / 2
"""A next slot so far ahead has the bounces wait, and is not taken for a wrong clock's."""
_POLLED = {"SendFunction", "AuditFunction", "UsageFunction"}
_REQUESTS_A_BATCH = 2
"""Lambda receives a batch and deletes it; counted by its invocations."""


class Used(msgspec.Struct, kw_only=True):
    """What one function used, a mail of its path."""

    invocations: float = 0.0
    wall_ms: float = 0.0
    cpu_ms: float = 0.0
    served_ms: float = 0.0
    """Of the wall time, what AWS on this machine took to answer; AWS takes another time."""
    log_bytes: float = 0.0
    requests: dict[str, float] = {}
    """By service and operation, such as `dynamodb UpdateItem`."""
    units: dict[str, float] = {}
    """Of DynamoDB, by operation."""

    def ms(self, memory: int) -> float:
        """Billed milliseconds with so many MB: what was computed takes longer, waiting does not."""
        computed = self.cpu_ms * max(1.0, FULL_CPU_MB / memory)
        asked = AWS_ANSWERS_MS * sum(self.requests.values())
        return computed + asked + max(0.0, self.wall_ms - self.cpu_ms - self.served_ms)


class Way(msgspec.Struct, kw_only=True):
    """One way that mails go, or what happens to them later."""

    name: str
    functions: dict[str, Used]


type Prices = dict[str, dict[str, float]]


class Counted(msgspec.Struct, kw_only=True):
    """What was measured."""

    machine: str
    memory: dict[str, int]
    """MB, by function."""
    ways: list[Way]


# --- Counting ----------------------------------------------------------------------------------


class Site:
    """The deployed application, and what it has used so far."""

    def __init__(self, aws: Aws, outputs: dict[str, str]) -> None:
        self.aws = aws
        self.outputs = outputs
        resources = aws.client("cloudformation").describe_stack_resources(StackName=stack.STACK)
        self.functions = {
            each["PhysicalResourceId"]: each["LogicalResourceId"]
            for each in resources["StackResources"]
            if each["ResourceType"] == "AWS::Lambda::Function"
        }
        self._queues = {
            each["LogicalResourceId"]: _url(aws, each["PhysicalResourceId"])
            for each in resources["StackResources"]
            if each["ResourceType"] == "AWS::SQS::Queue"
            and "DeadLetter" not in each["LogicalResourceId"]
        }
        # What others left here may wait for a quarter of an hour, and is not counted.
        self._left = self._bounces_under_way()

    def memory(self) -> dict[str, int]:
        lambda_ = self.aws.client("lambda")
        return {
            logical: lambda_.get_function_configuration(FunctionName=name)["MemorySize"]
            for name, logical in self.functions.items()
        }

    def mail(self, recipient: str, *, sender: str = "pat@sender.example", header: str = "") -> None:
        with smtplib.SMTP("127.0.0.1", self.aws.smtp_port, timeout=60) as client:
            text = f"From: Pat <{sender}>\nTo: {recipient}\nSubject: Cost\n{header}\nHi\n"
            client.sendmail(sender, [recipient], text.encode())

    def polls(self, function: str, *, enabled: bool) -> None:
        """Let a function's queue be polled, or not."""
        lambda_ = self.aws.client("lambda")
        (name,) = [name for name, logical in self.functions.items() if logical == function]
        for each in lambda_.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]:
            lambda_.update_event_source_mapping(UUID=each["UUID"], Enabled=enabled)

    def waiting(self, queue: str) -> int:
        """Messages of a queue, those in somebody's hands too."""
        counts = self.aws.client("sqs").get_queue_attributes(
            QueueUrl=self._queues[queue],
            AttributeNames=[
                "ApproximateNumberOfMessages",
                "ApproximateNumberOfMessagesNotVisible",
                "ApproximateNumberOfMessagesDelayed",
            ],
        )["Attributes"]
        return sum(int(count) for count in counts.values())

    def rest(self, who: Sequence[str]) -> None:
        """Wait until everything that was begun for these is done."""

        def done() -> bool | None:
            queues = ["UsageQueue", *(["AuditQueue"] if "AuditFunction" in who else [])]
            if any(self.waiting(queue) for queue in queues):
                return None
            if not _all_done(self):
                return None
            return None if self._bounces_under_way() - self._left else True

        for _ in range(3):  # what is delivered goes on to the next queue
            until(done, "it did not come to an end", _QUIET_SECONDS)
            time.sleep(0.5)

    def _bounces_under_way(self) -> set[tuple[str, str]]:
        """By their keys in the ledger."""
        table = self.outputs["BounceTable"]
        pages = self.aws.client("dynamodb").get_paginator("scan").paginate(TableName=table)
        return {
            (item["pk"]["S"], item["sk"]["S"])
            for page in pages
            for item in page["Items"]
            if item.get("state", {}).get("S") in {"queued", "claimed"}
        }

    def next_slot(self, moment: float) -> None:
        item: Any = SLOTS_ITEM | {"next_slot": {"N": f"{moment:.3f}"}}
        table = self.outputs["BounceTable"]
        self.aws.client("dynamodb").put_item(TableName=table, Item=item)

    def used(self) -> dict[str, Used]:
        """Since the deployment, by function."""
        found: defaultdict[str, Used] = defaultdict(Used)
        for asked in self.aws.listing("requests"):
            name = self.functions.get(asked["caller"], "SES")
            if name == "SES" and asked["service"] != "sns":
                continue  # ours, or somebody's who looks on
            kind = f"{asked['service']} {asked['operation']}"
            found[name].requests[kind] = float(asked["count"])
            found[name].served_ms += 1000 * asked["seconds"]
            if asked["service"] == "dynamodb":
                found[name].units[asked["operation"]] = asked["units"]
        for each in self.aws.listing("work"):
            if name := self.functions.get(each["function"]):
                used = found[name]
                used.invocations = float(each["invocations"])
                used.wall_ms = 1000 * each["seconds"]
                used.cpu_ms = 1000 * each["processor_seconds"]
                used.log_bytes = (
                    each["log_bytes"]
                    + _LOG_EVENT_BYTES * each["log_lines"]
                    + _REPORT_BYTES * each["invocations"]
                )
        return dict(found)


def _url(aws: Aws, queue: str) -> str:
    """A queue's, by its name or its address."""
    found: str = aws.client("sqs").get_queue_url(QueueName=queue.rpartition("/")[2])["QueueUrl"]
    return found


def count(
    site: Site, mails: int, do: Callable[[Site, int], None], who: Sequence[str]
) -> dict[str, Used]:
    """What each of these functions used, a mail; `SES` may be one."""
    site.polls("AuditFunction", enabled="AuditFunction" in who)
    try:
        site.rest(who)
        do(site, 2)  # the functions are up, and their connections open
        site.rest(who)
        before = site.used()
        do(site, mails)
        site.rest(who)
        after = site.used()
    finally:
        site.polls("AuditFunction", enabled=True)
    return {
        name: _difference(before.get(name, Used()), after[name], mails)
        for name in who
        if name in after
    }


def _difference(before: Used, after: Used, mails: int) -> Used:
    def each(of: str) -> dict[str, float]:
        old, new = getattr(before, of), getattr(after, of)
        return {k: (v - old.get(k, 0)) / mails for k, v in new.items() if v != old.get(k, 0)}

    plain = ("invocations", "wall_ms", "cpu_ms", "served_ms", "log_bytes")
    return Used(
        **{name: (getattr(after, name) - getattr(before, name)) / mails for name in plain},
        requests=each("requests"),
        units=each("units"),
    )


def accepted(site: Site, mails: int) -> None:
    _one_by_one(site, mails, lambda: site.mail("alice@example.com"))


def bounced(site: Site, mails: int) -> None:
    numbers = itertools.count()

    def one() -> None:
        time.sleep(1.3)  # a slot is free
        site.mail("nobody@example.com", sender=_stranger(next(numbers)))

    _one_by_one(site, mails, one)


def bounced_after_waiting(site: Site, mails: int) -> None:
    """As in a flood: the queue has some batches when the pace is free again."""
    numbers = itertools.count()
    site.polls("SendFunction", enabled=False)
    site.next_slot(time.time() + _BUSY_SECONDS)
    _one_by_one(
        site, mails, lambda: site.mail("nobody@example.com", sender=_stranger(next(numbers)))
    )
    time.sleep(timing.LEDGER_FIRST)
    site.next_slot(time.time())
    site.polls("SendFunction", enabled=True)


def _stranger(number: int) -> str:
    """A sender, in a domain with a budget of its own."""
    return f"pat@sender{number}.example"


def suppressed(site: Site, mails: int) -> None:
    _one_by_one(
        site, mails, lambda: site.mail("nobody@example.com", header="Auto-Submitted: yes\n")
    )


def deleted(site: Site, mails: int) -> None:
    s3, bucket = site.aws.client("s3"), site.outputs["MailBucket"]
    prefix = site.outputs["MailPrefix"]
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    newest = sorted(listed, key=lambda each: each["LastModified"])[-mails:]
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": each["Key"]} for each in newest]})
    time.sleep(1)


def audited(site: Site, mails: int) -> None:
    """As with much mail, when the notices come ten at a time: they wait for each other first."""
    site.polls("AuditFunction", enabled=False)
    accepted(site, mails)
    until(lambda: site.waiting("AuditQueue") >= mails or None, "the notices did not come")
    time.sleep(AUDIT_DELAY)
    site.polls("AuditFunction", enabled=True)


def _one_by_one(site: Site, mails: int, one: Callable[[], None]) -> None:
    for _ in range(mails):
        one()
        until(lambda: _all_done(site), "the rules did not end")


def _all_done(site: Site) -> bool | None:
    return all(each["done"] for each in site.aws.listing("mails")) or None


_MAILED = ("InboundFunction", "SendFunction")
WAYS: tuple[tuple[str, Callable[[Site, int], None], Sequence[str]], ...] = (
    ("accepted", accepted, _MAILED),
    ("its mail deleted later", deleted, ("UsageFunction",)),
    ("suppressed", suppressed, _MAILED),
    ("each mail, by the audit", audited, ("AuditFunction", "SES")),
    ("bounced at once", bounced, _MAILED),
    ("bounced after waiting", bounced_after_waiting, _MAILED),
)
"""A name, what makes it happen, and who works for it; SES publishes the audit's notice."""


WORKERS = 2
"""Of a stack: SendFunction's MaximumConcurrency."""
FLOOD = 3
"""Batches of a flood."""


def measure(mails: int = 10) -> Counted:
    """Deploy, mail every way, and count."""
    with deployed(outbox=STATE / "cost") as (aws, outputs):
        site = Site(aws, outputs)
        counted = Counted(machine=machine("boto3", "ministack"), memory=site.memory(), ways=[])
        for name, do, who in WAYS:
            say(f"{name} …")
            many = FLOOD * mails if do is bounced_after_waiting else mails
            counted.ways.append(Way(name=name, functions=count(site, many, do, who)))
    return counted


# --- Pricing -----------------------------------------------------------------------------------


def dollars(counted: Counted, way: Way, prices: Prices) -> float:
    """A million mails of a way."""
    return MILLION * sum(
        _of_function(name, used, counted.memory.get(name), prices)
        for name, used in way.functions.items()
    )


_READS = {"BatchGetItem", "GetItem", "Query", "Scan", "TransactGetItems"}


def _of_function(name: str, used: Used, memory: int | None, prices: Prices) -> float:
    table = sum(
        units * prices["dynamodb"]["read_unit" if operation in _READS else "write_unit"]
        for operation, units in used.units.items()
    )
    queue = sum(count for kind, count in used.requests.items() if kind.startswith("sqs "))
    if name in _POLLED:
        queue += _REQUESTS_A_BATCH * used.invocations
    stored = used.requests.get("s3 HEAD", 0) + used.requests.get("s3 GET", 0)
    cost = (
        table
        + prices["sqs"]["request"] * queue
        + prices["sns"]["publish"] * used.requests.get("sns Publish", 0)
        + prices["s3"]["read"] * stored
        + prices["logs"]["gb"] * used.log_bytes / 1e9
    )
    if memory is not None:
        billed = used.ms(memory) / 1000 * memory / 1024
        cost += prices["lambda"]["request"] * used.invocations
        cost += prices["lambda"]["gb_second"] * billed
    return cost


def table(counted: Counted, prices: Prices) -> str:
    """The README's table."""
    rows = [
        "| mail | requests of a mail | logged | functions run | a million |",
        "|---|---|---|---|---|",
    ]
    rows += [_row(way, counted, prices) for way in counted.ways]
    return "\n".join(rows) + "\n"


def flood_day(counted: Counted, prices: Prices) -> float:
    """Dollars of a day in which two workers take turns without a pause."""
    gigabytes = WORKERS * counted.memory["SendFunction"] / 1024
    return gigabytes * 86_400 * prices["lambda"]["gb_second"]


def _row(way: Way, counted: Counted, prices: Prices) -> str:
    asked: defaultdict[str, float] = defaultdict(float)
    for used in way.functions.values():
        for kind, requests in used.requests.items():
            asked[_NAMES.get(kind, kind.rpartition(" ")[2])] += requests
    counts = ", ".join(f"{_number(n)} {kind}" for kind, n in sorted(asked.items()) if n >= 0.01)
    logged = sum(used.log_bytes for used in way.functions.values()) / 1000
    ran = ", ".join(
        f"{used.ms(counted.memory[name]):,.0f} ms of {counted.memory[name]} MB"
        for name, used in way.functions.items()
        if name in counted.memory and used.invocations
    )
    cost = dollars(counted, way, prices)
    return f"| {way.name} | {counts} | {logged:.1f} kB | {ran} | ${cost:.2f} |"


_NAMES = {"s3 HEAD": "HeadObject", "s3 GET": "GetObject"}


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value - round(value)) < 0.05 else f"{value:.1f}"


def read() -> tuple[Counted, dict[str, Any]]:
    """What was counted, and the prices."""
    counted = msgspec.json.decode(COUNTED.read_bytes(), type=Counted)
    return counted, tomllib.loads(PRICES.read_text("utf-8"))


def main(
    again: Annotated[
        bool, typer.Option("--measure", help="Count anew, and write bench/cost.json.")
    ] = False,
) -> None:
    """Print the README's table of costs."""
    if again:
        counted = measure()
        COUNTED.write_bytes(msgspec.json.format(msgspec.json.encode(counted), indent=1) + b"\n")
    counted, prices = read()
    typer.echo(table(counted, prices), nl=False)
    say(f"\na day of flood, its workers alone: ${flood_day(counted, prices):.2f}")
    say(f"{counted.machine}; prices of {prices['dated']}")
    say("milliseconds of a mail, by MB of memory:")
    for way in counted.ways:
        for function, used in way.functions.items():
            if function in counted.memory and used.invocations:
                by_memory = ", ".join(f"{used.ms(each):,.0f} at {each}" for each in MEMORIES)
                say(f"  {way.name}: {function}: {by_memory}")


if __name__ == "__main__":
    typer.run(main)
