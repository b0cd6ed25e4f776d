"""What waits and what is kept, in SQS."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from mypy_boto3_sqs import SQSClient

from bouncer.aws.queue import _COUNT_HOLDS_SECONDS, SqsBounceQueue, SqsKeeper
from bouncer.delivery.bounce import Bounce
from bouncer.delivery.queue import PoisonError, QueueUnavailableError, decode, encode
from tests.integration.builders import Answer, bodies, bounce, fail, requests_of


class Line:
    """The queue of bounces, and a clock that is set by hand."""

    def __init__(self, sqs: SQSClient, url: str) -> None:
        self.url = url
        self.seconds = 0.0
        self.delays: list[int] = []
        self.queue = SqsBounceQueue(sqs, url, clock=lambda: self.seconds)
        sqs.meta.events.register("before-parameter-build.sqs.SendMessage", self._note)

    def _note(self, params: dict[str, Any], **_: Any) -> None:
        self.delays.append(params.get("DelaySeconds", 0))


@pytest.fixture
def line(sqs: SQSClient, queue: Callable[[str], str]) -> Line:
    return Line(sqs, queue("bounces"))


def test_a_bounce_comes_out_of_the_queue_as_it_went_in(line: Line, sqs: SQSClient) -> None:
    given = bounce("msg1", "a@example.com", "b@example.com", explanation="No such mailbox.")
    line.queue.put(given)
    (body,) = bodies(sqs, line.url)
    assert decode(json.dumps(body)) == given
    assert body["version"] == 1


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        (timedelta(0), 0),
        (timedelta(seconds=27.9), 27),
        (timedelta(minutes=15), 900),
        (timedelta(hours=3), 900),
    ],
)
def test_a_delay_is_at_most_what_sqs_takes(line: Line, delay: timedelta, seconds: int) -> None:
    line.queue.put(bounce(), delay=delay)
    assert line.delays == [seconds]


TROUBLES = [
    Answer(code="AWS.SimpleQueueService.NonExistentQueue"),
    Answer(code="InternalError", status=500),
    EndpointConnectionError(endpoint_url="https://sqs"),
]


@pytest.mark.parametrize(
    "trouble", TROUBLES, ids=lambda each: getattr(each, "code", type(each).__name__)
)
def test_a_queue_that_takes_nothing_is_an_error(
    line: Line, sqs: SQSClient, trouble: Answer | Exception
) -> None:
    fail(sqs, "SendMessage", trouble)
    with pytest.raises(QueueUnavailableError):
        line.queue.put(bounce())


def test_whoever_waits_or_is_being_sent_is_ahead(line: Line, sqs: SQSClient) -> None:
    for number in range(5):
        line.queue.put(bounce(f"msg{number}"))
    sqs.receive_message(QueueUrl=line.url, MaxNumberOfMessages=2, VisibilityTimeout=60)
    assert line.queue.waiting() == 5


def put_by_another_process(sqs: SQSClient, line: Line) -> None:
    sqs.send_message(QueueUrl=line.url, MessageBody=encode(bounce()))


def test_the_count_is_asked_for_only_now_and_then(line: Line, sqs: SQSClient) -> None:
    seen = requests_of(sqs)
    assert line.queue.waiting() == 0
    put_by_another_process(sqs, line)
    line.seconds = _COUNT_HOLDS_SECONDS - 0.1
    assert line.queue.waiting() == 0
    line.seconds = _COUNT_HOLDS_SECONDS
    assert line.queue.waiting() == 1
    assert seen.count("GetQueueAttributes") == 2


def test_what_was_put_meanwhile_counts_at_once(line: Line, sqs: SQSClient) -> None:
    assert line.queue.waiting() == 0
    line.queue.put(bounce("msg1"))
    line.queue.put(bounce("msg2"))
    assert line.queue.waiting() == 2
    line.seconds = _COUNT_HOLDS_SECONDS
    assert line.queue.waiting() == 2


@pytest.mark.parametrize(
    "trouble", TROUBLES, ids=lambda each: getattr(each, "code", type(each).__name__)
)
def test_a_count_that_cannot_be_had_is_the_last_one(
    line: Line, sqs: SQSClient, trouble: Answer | Exception
) -> None:
    put_by_another_process(sqs, line)
    fail(sqs, "GetQueueAttributes", trouble)
    assert line.queue.waiting() == 0
    assert line.queue.waiting() == 1
    line.seconds = _COUNT_HOLDS_SECONDS
    fail(sqs, "GetQueueAttributes", trouble)
    assert line.queue.waiting() == 1


def test_an_event_is_kept_in_the_shape_of_lambdas_own_records(
    sqs: SQSClient, queue: Callable[[str], str]
) -> None:
    url = queue("events")
    event: dict[str, Any] = {"Records": [{"ses": {}}]}
    SqsKeeper(sqs, url).keep(
        event, ValueError("what went wrong"), request_id="request-1", function_arn="arn:function"
    )
    (record,) = bodies(sqs, url)
    assert record["requestPayload"] == event
    assert record["responsePayload"] == {
        "errorType": "ValueError",
        "errorMessage": "what went wrong",
    }
    assert record["requestContext"]["requestId"] == "request-1"
    assert record["requestContext"]["functionArn"] == "arn:function"
    assert record["version"] == "1.0"


def test_a_message_is_kept_as_it_is(sqs: SQSClient, queue: Callable[[str], str]) -> None:
    url = queue("dead-letters")
    SqsKeeper(sqs, url).keep_body("not even JSON")
    assert bodies(sqs, url) == ["not even JSON"]


def test_what_is_not_kept_is_an_error(sqs: SQSClient, queue: Callable[[str], str]) -> None:
    keeper = SqsKeeper(sqs, queue("events"))
    fail(sqs, "SendMessage", *[Answer(code="InternalError", status=500)] * 2)
    with pytest.raises(ClientError):
        keeper.keep({}, ValueError(), request_id="", function_arn="")
    with pytest.raises(ClientError):
        keeper.keep_body("")


@pytest.mark.parametrize(
    "body",
    [
        "not JSON",
        "{}",
        "[]",
        '{"version": 2, "bounce": {}}',
        '{"version": 1}',
        '{"version": 1, "bounce": {"message_id": "msg1"}}',
    ],
)
def test_what_nobody_can_read_is_poison(body: str) -> None:
    with pytest.raises(PoisonError, match="not a queued bounce"):
        decode(body)


def test_a_bounce_in_the_queue_is_complete(line: Line, sqs: SQSClient) -> None:
    """Whoever takes it out can make the same request, and looks nothing up."""
    given = bounce(explanation="No such mailbox.")
    line.queue.put(given)
    (body,) = bodies(sqs, line.url)
    again: Bounce = decode(json.dumps(body))
    assert again.request() == given.request()
