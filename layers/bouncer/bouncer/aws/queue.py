"""The queues in SQS: bounces that wait, and events that nobody could handle."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from bouncer.delivery.bounce import Bounce
from bouncer.delivery.queue import QueueUnavailableError, encode

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_MAX_DELAY = timedelta(minutes=15)
_COUNT_HOLDS_SECONDS = 5.0


class SqsBounceQueue:
    """An BounceQueue."""

    def __init__(
        self, client: "SQSClient", queue_url: str, clock: Callable[[], float] = monotonic
    ) -> None:
        self._client = client
        self._queue_url = queue_url
        self._clock = clock
        self._waiting = 0
        self._counted_at = -_COUNT_HOLDS_SECONDS

    def put(self, bounce: Bounce, delay: timedelta = timedelta(0)) -> None:
        try:
            self._client.send_message(
                QueueUrl=self._queue_url,
                MessageBody=encode(bounce),
                DelaySeconds=int(min(delay, _MAX_DELAY).total_seconds()),
            )
        except (ClientError, BotoCoreError) as error:
            raise QueueUnavailableError(str(error)) from error
        self._waiting += 1

    def waiting(self) -> int:
        if self._clock() - self._counted_at < _COUNT_HOLDS_SECONDS:
            return self._waiting
        try:
            attributes = self._client.get_queue_attributes(
                QueueUrl=self._queue_url,
                AttributeNames=[
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesNotVisible",
                ],
            )["Attributes"]
        except (ClientError, BotoCoreError):
            return self._waiting  # an estimate is all it is for; the worker checks the window again
        self._waiting = sum(int(count) for count in attributes.values())
        self._counted_at = self._clock()
        return self._waiting


class SqsKeeper:
    """A dead-letter queue: what could not be handled, kept for people and for a replay."""

    def __init__(self, client: "SQSClient", queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def keep(self, event: Any, error: Exception, *, request_id: str, function_arn: str) -> None:
        """Keep an event in the shape of Lambda's own on-failure records, which stand beside it.

        https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html

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
        self._client.send_message(QueueUrl=self._queue_url, MessageBody=json.dumps(record))

    def keep_body(self, body: str) -> None:
        """Keep a queue message as it is."""
        self._client.send_message(QueueUrl=self._queue_url, MessageBody=body)
