"""The stack at a glance: what `bouncer status` and the page "Now" show, read once.

Each part that cannot be read says why, and fails no other.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import batched
from typing import Any, Self

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from bouncer.aws.telemetry import BY_OUTCOME, BY_STATE, FOUND, NAMESPACE, SENDER_NOT_TOLD
from bouncer.deadline import utc_now
from bouncer.delivery.bounce import WINDOW
from bouncer.delivery.fate import Incident
from bouncer.delivery.ledger import BounceState
from bouncer.limiter import Pace
from bouncer.policy.decide import Outcome
from bouncer_console.deployment import Deployment, DeploymentError

COUNTS = {
    "accepted": BY_OUTCOME[Outcome.ACCEPT],
    "dropped": BY_OUTCOME[Outcome.DROP],
    "observed": "RecipientDryRun",
    "sent": BY_STATE[BounceState.SENT],
    "queued": BY_STATE[BounceState.QUEUED],
    "suppressed": BY_STATE[BounceState.SUPPRESSED],
    "expired": BY_STATE[BounceState.EXPIRED],
    "rejected": BY_STATE[BounceState.REJECTED],
    "dead-lettered": BY_STATE[BounceState.DEAD_LETTERED],
    "senders not told": SENDER_NOT_TOLD,
    "events kept": "EventKept",
    "found undecided": FOUND,
    "throttled": Incident.THROTTLED.value,
}
"""What is counted to its metric, by the stack's name alone: recipients, but for the last three."""

_COUNTS_HOLD = timedelta(minutes=1)
"""CloudWatch counts by the minute, and asks $0.01 for a thousand metrics."""
_METRICS_LATE = timedelta(minutes=15)
"""SQS tells CloudWatch of a queue's age every minute, and of a quiet queue's not at all."""
_NAMES_A_REQUEST = 100
"""DescribeAlarms takes no more."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """BounceQueue, as SQS counts it: about."""

    visible: int
    in_hand: int
    """With a worker that is at them, or that will give them back."""
    delayed: int
    oldest_seconds: float | None = None
    """None: nothing waits, or CloudWatch has not heard of it yet."""

    @property
    def total(self) -> int:
        return self.visible + self.in_hand + self.delayed


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """Its logical id, as in docs/operations.md."""
    state: str
    """OK, ALARM or INSUFFICIENT_DATA."""
    since: datetime | None = None
    description: str = ""


class Glance(msgspec.Struct, frozen=True, kw_only=True):
    """What was read; None where it could not be, for the reason in `unread`."""

    stack: str
    at: datetime
    mode: str | None = None
    """observe or enforce."""
    interval: float = 1.0
    """Seconds between two calls: the allowance."""
    waiting: Waiting | None = None
    next_slot: datetime | None = None
    """The next call that nobody has reserved may start then; in the past: at once."""
    last_hour: Mapping[str, int] | None = None
    """By the names of COUNTS."""
    dead_letters: Mapping[str, int] | None = None
    """By the logical id of the queue."""
    alarms: tuple[Alarm, ...] | None = None
    unread: Mapping[str, str] = {}
    """Part to why it could not be read."""

    @property
    def empty_at(self) -> datetime | None:
        """About when the queue will be empty, should nothing come after."""
        if self.waiting is None:
            return None
        start = max(self.at, self.next_slot or self.at)
        return start + timedelta(seconds=Pace(interval=self.interval).drain(self.waiting.total))

    @property
    def gives_up(self) -> bool:
        """Whether the last in the queue will be older than SES's 24 hours when its turn comes.

        Unless a flood of a day is over, what came last is the youngest; the age of the oldest
        says the rest.
        """
        if self.waiting is None or self.empty_at is None:
            return False
        drained = self.empty_at - self.at
        late = self.oldest_share is not None and self.oldest_share >= 1
        return late or drained >= WINDOW

    @property
    def oldest_share(self) -> float | None:
        """Of SES's 24 hours, how much the oldest waiting bounce has used: 0 to 1 and beyond."""
        oldest = self.waiting.oldest_seconds if self.waiting else None
        return None if oldest is None else oldest / WINDOW.total_seconds()


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One metric over time; where nothing was counted, there is no moment."""

    name: str
    moments: tuple[datetime, ...]
    values: tuple[float, ...]


class Glancer:
    """Looks at one stack as often as it is asked; what costs money is asked once a minute."""

    def __init__(self, deployment: Deployment, clock: Callable[[], datetime] = utc_now) -> None:
        self._deployment = deployment
        self._clock = clock
        # Sessions are not safe to share among threads; clients are.
        self._clients = {
            name: deployment.client(name)
            for name in ("cloudformation", "cloudwatch", "dynamodb", "sqs")
        }
        self._counted: tuple[datetime, dict[str, int]] | None = None

    @classmethod
    def of(cls, stack: str, region: str | None) -> Self:
        """
        Raises:
            DeploymentError: no such stack here.
        """
        return cls(Deployment.find(stack, region))

    def now(self) -> datetime:
        return self._clock()

    def look(self) -> Glance:
        now = self._clock()
        unread: dict[str, str] = {}

        def tried(part: str, read: Callable[[], Any]) -> Any:
            try:
                return read()
            except (ClientError, BotoCoreError, DeploymentError, OSError) as error:
                unread[part] = str(error)
                return None

        parts: dict[str, Callable[[], Any]] = {
            "mode": self._mode,
            "waiting": lambda: self._waiting(now),
            "next_slot": self._next_slot,
            "last_hour": lambda: self._last_hour(now),
        }
        with ThreadPoolExecutor(max_workers=len(parts) + 1) as pool:
            resources = pool.submit(tried, "resources", self._resources)
            found = {name: pool.submit(tried, name, read) for name, read in parts.items()}
            ours = resources.result()
            if ours is not None:
                found |= {
                    "dead_letters": pool.submit(
                        tried, "dead_letters", lambda: self._dead_letters(ours)
                    ),
                    "alarms": pool.submit(tried, "alarms", lambda: self._alarms(ours)),
                }
            values = {name: each.result() for name, each in found.items()}
        if why := unread.pop("resources", None):
            unread |= dict.fromkeys(("dead_letters", "alarms"), why)
        return Glance(
            stack=self._deployment.stack,
            at=now,
            interval=self._deployment.interval,
            unread=unread,
            **values,
        )

    def history(self, names: Iterable[str], *, since: timedelta, period: timedelta) -> list[Series]:
        """How the counts went, for plots.

        Args:
            names: of COUNTS.
            period: a point each; at least a minute.

        Raises:
            ClientError, BotoCoreError
        """
        wanted = list(names)
        now = self._clock()
        queries = [
            _query(f"m{n}", NAMESPACE, COUNTS[name], self._service, "Sum", period)
            for n, name in enumerate(wanted)
        ]
        points = self._metric_data(queries, now - since, now)
        return [
            Series(
                name=name,
                moments=tuple(moment for moment, _ in sorted(points[f"m{n}"])),
                values=tuple(value for _, value in sorted(points[f"m{n}"])),
            )
            for n, name in enumerate(wanted)
        ]

    # --- The parts -----------------------------------------------------------------------------

    @property
    def _service(self) -> dict[str, str]:
        return {"service": self._deployment.stack}

    def _mode(self) -> str:
        stack = self._clients["cloudformation"].describe_stacks(StackName=self._deployment.stack)
        given = {
            each["ParameterKey"]: each["ParameterValue"]
            for each in stack["Stacks"][0].get("Parameters", [])
        }
        return str(given.get("Mode", "observe"))

    def _waiting(self, now: datetime) -> Waiting:
        url = self._deployment.output("BounceQueue")
        visible, in_hand, delayed = self._counts(url)
        oldest = None
        if visible or in_hand or delayed:
            name = url.rpartition("/")[2]
            query = _query(
                "oldest",
                "AWS/SQS",
                "ApproximateAgeOfOldestMessage",
                {"QueueName": name},
                "Maximum",
                timedelta(minutes=1),
            )
            try:
                points = self._metric_data([query], now - _METRICS_LATE, now)["oldest"]
            except (ClientError, BotoCoreError):
                points = []  # the number alone says much
            if points:
                moment, age = max(points)
                oldest = age + (now - moment).total_seconds()
        return Waiting(visible=visible, in_hand=in_hand, delayed=delayed, oldest_seconds=oldest)

    def _counts(self, url: str) -> tuple[int, int, int]:
        kinds = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        attributes = self._clients["sqs"].get_queue_attributes(
            QueueUrl=url, AttributeNames=list(kinds)
        )["Attributes"]
        visible, in_hand, delayed = (int(attributes.get(kind, 0)) for kind in kinds)
        return visible, in_hand, delayed

    def _next_slot(self) -> datetime | None:
        return self._deployment.next_slot(self._clients["dynamodb"])

    def _last_hour(self, now: datetime) -> dict[str, int]:
        if self._counted is not None and now - self._counted[0] < _COUNTS_HOLD:
            return self._counted[1]
        hour = timedelta(hours=1)
        queries = [
            _query(f"m{n}", NAMESPACE, metric, self._service, "Sum", timedelta(minutes=1))
            for n, metric in enumerate(COUNTS.values())
        ]
        # The end is exclusive: the minute that has begun counts, too.
        points = self._metric_data(queries, now - hour, now + timedelta(minutes=1))
        counts = {
            name: round(sum(value for _, value in points[f"m{n}"])) for n, name in enumerate(COUNTS)
        }
        self._counted = (now, counts)
        return counts

    def _metric_data(
        self, queries: Sequence[dict[str, Any]], start: datetime, end: datetime
    ) -> dict[str, list[tuple[datetime, float]]]:
        pages = (
            self._clients["cloudwatch"]
            .get_paginator("get_metric_data")
            .paginate(MetricDataQueries=list(queries), StartTime=start, EndTime=end)
        )
        points: dict[str, list[tuple[datetime, float]]] = {each["Id"]: [] for each in queries}
        for page in pages:
            for result in page["MetricDataResults"]:
                moments = result.get("Timestamps", [])
                points[result["Id"]] += zip(moments, result.get("Values", []), strict=True)
        return points

    def _resources(self) -> dict[str, tuple[str, str]]:
        """Logical id to type and physical id."""
        pages = (
            self._clients["cloudformation"]
            .get_paginator("list_stack_resources")
            .paginate(StackName=self._deployment.stack)
        )
        return {
            each["LogicalResourceId"]: (each["ResourceType"], each.get("PhysicalResourceId", ""))
            for page in pages
            for each in page["StackResourceSummaries"]
        }

    def _dead_letters(self, resources: Mapping[str, tuple[str, str]]) -> dict[str, int]:
        return {
            logical: sum(self._counts(url))
            for logical, (kind, url) in sorted(resources.items())
            if kind == "AWS::SQS::Queue" and logical.endswith("DeadLetterQueue") and url
        }

    def _alarms(self, resources: Mapping[str, tuple[str, str]]) -> tuple[Alarm, ...]:
        logical = {
            physical: name
            for name, (kind, physical) in resources.items()
            if kind == "AWS::CloudWatch::Alarm" and physical
        }
        found = []
        for names in batched(sorted(logical), _NAMES_A_REQUEST, strict=False):
            answer = self._clients["cloudwatch"].describe_alarms(
                AlarmNames=list(names), MaxRecords=_NAMES_A_REQUEST
            )
            found += [
                Alarm(
                    name=logical[each["AlarmName"]],
                    state=each["StateValue"],
                    since=each.get("StateUpdatedTimestamp"),
                    description=each.get("AlarmDescription", ""),
                )
                for each in answer["MetricAlarms"]
            ]
        return tuple(sorted(found, key=lambda each: (each.state, each.name)))


def _query(
    query_id: str,
    namespace: str,
    metric: str,
    dimensions: Mapping[str, str],
    statistic: str,
    period: timedelta,
) -> dict[str, Any]:
    return {
        "Id": query_id,
        "MetricStat": {
            "Metric": {
                "Namespace": namespace,
                "MetricName": metric,
                "Dimensions": [{"Name": k, "Value": v} for k, v in dimensions.items()],
            },
            "Period": int(period.total_seconds()),
            "Stat": statistic,
        },
    }
