"""What waits and what is kept, in SQS."""

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import assume, given
from hypothesis import strategies as st
from mypy_boto3_sqs import SQSClient

from bouncer import timing
from bouncer.aws.queue import SqsBounceQueue, SqsKeeper
from bouncer.delivery.bounce import Bounce, BounceError
from bouncer.delivery.queue import PoisonError, QueueUnavailableError, decode, encode, verify
from tests.fakes.bounces import bounce
from tests.integration.builders import QUEUE_KEY, Answer, bodies, fail, requests_of

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Line:
    """The queue of bounces, and a clock that is set by hand."""

    def __init__(self, sqs: SQSClient, url: str) -> None:
        self.url = url
        self.seconds = 0.0
        self.delays: list[int] = []
        self.queue = SqsBounceQueue(sqs, url, lambda: QUEUE_KEY, clock=self.now)
        sqs.meta.events.register("before-parameter-build.sqs.SendMessage", self._note)

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def put(self, *given: Bounce, delay: timedelta = timedelta(0)) -> None:
        for each in given:
            self.queue.put(each, until=self.now() + timedelta(minutes=1), delay=delay)

    def waiting(self) -> int:
        return self.queue.waiting(until=self.now() + timedelta(minutes=1))

    def _note(self, params: dict[str, Any], **_: Any) -> None:
        self.delays.append(params.get("DelaySeconds", 0))


@pytest.fixture
def line(sqs: SQSClient, queue: Callable[[str], str]) -> Line:
    return Line(sqs, queue("bounces"))


def test_a_bounce_comes_out_of_the_queue_as_it_went_in(line: Line, sqs: SQSClient) -> None:
    given = bounce("msg1", "a@example.com", "b@example.com", explanation="No such mailbox.")
    line.put(given)
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
    line.put(bounce(), delay=delay)
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
        line.put(bounce())


def test_whoever_waits_or_is_being_sent_is_ahead(line: Line, sqs: SQSClient) -> None:
    for number in range(5):
        line.put(bounce(f"msg{number}"))
    sqs.receive_message(QueueUrl=line.url, MaxNumberOfMessages=2, VisibilityTimeout=60)
    assert line.waiting() == 5


def put_by_another_process(sqs: SQSClient, line: Line) -> None:
    sqs.send_message(QueueUrl=line.url, MessageBody=encode(bounce(), QUEUE_KEY))


def test_the_count_is_asked_for_only_now_and_then(line: Line, sqs: SQSClient) -> None:
    seen = requests_of(sqs)
    assert line.waiting() == 0
    put_by_another_process(sqs, line)
    line.seconds = timing.COUNT_HOLDS - 0.1
    assert line.waiting() == 0
    line.seconds = timing.COUNT_HOLDS
    assert line.waiting() == 1
    assert seen.count("GetQueueAttributes") == 2


def test_what_was_put_meanwhile_counts_at_once(line: Line, sqs: SQSClient) -> None:
    assert line.waiting() == 0
    line.put(bounce("msg1"))
    line.put(bounce("msg2"))
    assert line.waiting() == 2
    line.seconds = timing.COUNT_HOLDS
    assert line.waiting() == 2


@pytest.mark.parametrize(
    "trouble", TROUBLES, ids=lambda each: getattr(each, "code", type(each).__name__)
)
def test_a_count_that_cannot_be_had_is_the_last_one(
    line: Line, sqs: SQSClient, trouble: Answer | Exception
) -> None:
    put_by_another_process(sqs, line)
    fail(sqs, "GetQueueAttributes", trouble)
    assert line.waiting() == 0
    assert line.waiting() == 1
    line.seconds = timing.COUNT_HOLDS
    fail(sqs, "GetQueueAttributes", trouble)
    assert line.waiting() == 1


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


def with_field(**fields: Any) -> str:
    """A message of ours with a field that is not."""
    message = json.loads(encode(bounce(), QUEUE_KEY))
    return json.dumps({**message, "bounce": message["bounce"] | fields})


@pytest.mark.parametrize(
    "body",
    [
        "not JSON",
        "{}",
        "[]",
        '{"version": 2, "bounce": {}}',
        '{"version": 1}',
        '{"version": 1, "bounce": {"message_id": "msg1"}}',
        '{"version": 1, "bounce": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"version": 1, "bounce": {"x": ' + "[" * 100_000 + "]" * 100_000 + "}}",
        with_field(received_at="2026-11-21T12:00:00"),
        with_field(received_at="9999-12-31T23:59:59Z"),
        with_field(recipients=[]),
        with_field(recipients=[{"recipient": "", "reason": "r"}]),
        with_field(recipients=[{"recipient": "a" * 321, "reason": "r"}]),
        with_field(message_id=""),
        with_field(message_id="m" * 201),
        with_field(message_dsn={"reporting_mta": "x", "arrival_date": "2026-11-21T12:00:00"}),
    ],
)
def test_what_nobody_can_read_is_poison(body: str) -> None:
    with pytest.raises(PoisonError, match="not a queued bounce"):
        decode(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
MOMENTS = st.datetimes(timezones=st.just(UTC) | st.none()).map(lambda each: each.isoformat())


@given(
    field=st.sampled_from([each.encode_name for each in msgspec.structs.fields(Bounce)]),
    value=JSON | MOMENTS,
)
def test_whatever_a_field_of_a_message_holds_it_is_told_or_can_be_worked_with(
    field: str, value: Any
) -> None:
    """So that one message never fails the batch that it came with."""
    try:
        message = decode(with_field(**{field: value}))
    except PoisonError:
        return
    ours = bounce()
    assert sorted([message, ours], key=lambda each: each.received_at)
    assert message.deadline(timedelta(hours=12)) != ours.deadline(timedelta(0))
    assert message.recipients
    with contextlib.suppress(BounceError):
        message.request()
    assert decode(encode(message, QUEUE_KEY)) == message


def test_a_bounce_in_the_queue_is_complete(line: Line, sqs: SQSClient) -> None:
    """Whoever takes it out can make the same request, and looks nothing up."""
    given = bounce(explanation="No such mailbox.")
    line.put(given)
    (body,) = bodies(sqs, line.url)
    again: Bounce = decode(json.dumps(body))
    assert again.request() == given.request()


def test_a_message_of_this_stacks_is_verified(line: Line, sqs: SQSClient) -> None:
    given = bounce()
    line.put(given)
    (message,) = sqs.receive_message(QueueUrl=line.url)["Messages"]
    assert verify(message["Body"], QUEUE_KEY) == given


@given(
    field=st.sampled_from([each.encode_name for each in msgspec.structs.fields(Bounce)]),
    value=JSON | MOMENTS,
)
def test_a_message_in_which_anything_was_changed_is_nobodys(field: str, value: Any) -> None:
    ours = encode(bounce(), QUEUE_KEY)
    message = json.loads(ours)
    same = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
    assert same == ours, "what follows changes the field only"
    message["bounce"][field] = value
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
    assume(body != ours)
    with pytest.raises(PoisonError):
        verify(body, QUEUE_KEY)


@given(proof=JSON | st.text(alphabet="0123456789abcdef", min_size=64, max_size=64))
def test_a_proof_that_is_made_up_proves_nothing(proof: Any) -> None:
    message = json.loads(encode(bounce(), QUEUE_KEY))
    with pytest.raises(PoisonError):
        verify(json.dumps(message | {"proof": proof}), QUEUE_KEY)


def test_another_stacks_message_is_not_ours() -> None:
    with pytest.raises(PoisonError, match="its proof is wrong"):
        verify(encode(bounce(), b"another" * 5), QUEUE_KEY)
