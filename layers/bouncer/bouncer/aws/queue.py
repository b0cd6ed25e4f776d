"""The queues in SQS: bounces that wait, and events that nobody could handle."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bouncer import timing
from bouncer.aws.deadline import FAILURES, tried_once
from bouncer.deadline import check_time_for, deadline, utc_now
from bouncer.delivery.bounce import Bounce
from bouncer.delivery.queue import QueueUnavailableError, encode

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_MAX_DELAY = timedelta(seconds=timing.LONGEST_DELAY)
_COUNT_HOLDS = timedelta(seconds=timing.COUNT_HOLDS)


class SqsBounceQueue:
    """A BounceQueue."""

    def __init__(
        self,
        client: "SQSClient",
        queue_url: str,
        key: Callable[[], bytes],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """
        Args:
            key: the stack's, which proves whose messages these are.
        """
        self._key = key
        self._client = client
        self._queue_url = queue_url
        self._clock = clock
        self._waiting = 0
        self._counted_at: datetime | None = None

    def put(self, bounce: Bounce, *, until: datetime, delay: timedelta = timedelta(0)) -> None:
        try:
            with deadline(until, self._clock):
                check_time_for(timing.ATTEMPT)
                self._client.send_message(
                    QueueUrl=self._queue_url,
                    MessageBody=encode(bounce, self._key()),
                    DelaySeconds=int(min(delay, _MAX_DELAY).total_seconds()),
                )
        except FAILURES as error:
            raise QueueUnavailableError(str(error)) from error
        self._waiting += 1

    def waiting(self, *, until: datetime) -> int:
        # By the wall clock: the monotonic one stands still while Lambda freezes the process.
        now = self._clock()
        if self._counted_at is not None and abs(now - self._counted_at) < _COUNT_HOLDS:
            return self._waiting
        try:
            with deadline(until, self._clock):
                check_time_for(timing.ATTEMPT)
                attributes = self._client.get_queue_attributes(
                    QueueUrl=self._queue_url,
                    AttributeNames=[
                        "ApproximateNumberOfMessages",
                        "ApproximateNumberOfMessagesNotVisible",
                    ],
                )["Attributes"]
        except FAILURES:
            return self._waiting  # an estimate is all it is for; the worker checks the window again
        self._waiting = sum(int(count) for count in attributes.values())
        self._counted_at = now
        return self._waiting


class SqsKeeper:
    """A dead-letter queue: what could not be handled, kept for people and for a replay."""

    def __init__(self, client: "SQSClient", queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def keep(
        self,
        event: Any,
        error: Exception,
        *,
        request_id: str,
        function_arn: str,
        until: datetime | None = None,
    ) -> None:
        """Keep an event in the shape of Lambda's own on-failure records, which stand beside it.

        https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html

        Args:
            until: when the invocation ends; it is tried once, however late it is.

        Raises:
            botocore.exceptions.ClientError, BotoCoreError: it is not kept.
        """
        record = {
            "version": "1.0",
            "timestamp": datetime.now(UTC).isoformat(),
            "requestContext": {
                "requestId": request_id,
                "functionArn": function_arn,
                "condition": "HandledByBouncer",
                "approximateInvokeCount": 1,
            },
            "requestPayload": event,
            "responsePayload": {"errorType": type(error).__name__, "errorMessage": str(error)},
        }
        with deadline(until), tried_once():
            self._client.send_message(QueueUrl=self._queue_url, MessageBody=json.dumps(record))

    def keep_body(self, body: str) -> None:
        """Keep a queue message as it is."""
        self._client.send_message(QueueUrl=self._queue_url, MessageBody=body)
