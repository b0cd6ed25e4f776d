"""However slow AWS is, a function answers in time, nothing is lost and nobody is wrongly bounced.

The adapters, clients and handlers are the product's own, the SDK's retries and pauses included.
Time is virtual: it passes by what AWS takes to answer and by what the code sleeps.
"""

import io
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError
from botocore.httpsession import URLLib3Session
from moto.core.botocore_stubber import MockRawResponse

from bouncer import timing
from bouncer.aws import clients, wiring
from bouncer.aws.slots import SLOTS_ITEM
from bouncer.aws.usage import DynamoUsage
from bouncer.limiter import Limiter
from bouncer.mailboxes import Mailbox
from functions.inbound import app as inbound
from functions.inbound import audit
from functions.send import app as send
from functions.usage import app as usage
from tests.integration.builders import (
    ALICE,
    BOUNCES,
    BUCKET,
    MAILBOXES,
    PREFIX,
    Context,
    create_bounce_table,
    create_mailbox_table,
    know_domain,
    mailbox_of,
    put_mail,
    put_mailbox,
    reserve_until,
    ses_event,
    set_date,
)
from tests.integration.conftest import Printed, Services, VirtualTime

SLOW = 1.9
"""Just in time, every time."""
AUDIT_TIMEOUT = 60.0
USAGE_TIMEOUT = 60.0
UNKNOWN = ("one@example.com", "two@example.com", "three@example.com")
SERVICES = ("dynamodb", "s3", "sqs", "ses")
SEEDS = 6
MODES = ("slow", "hanging", "unreachable", "failing", "late")

type Forecast = Callable[[str], str]
"""A service's name to how its next request goes."""


def calm(_service: str) -> str:
    return "calm"


def response(request: Any, status: int, body: bytes) -> AWSResponse:
    raw: Any = MockRawResponse(body)
    return AWSResponse(request.url, status, HTTPHeaders(), raw)


class Weather:
    """Decides of every request that a client sends how it goes."""

    def __init__(self, passing: VirtualTime) -> None:
        self.forecast: Forecast = calm
        self.told = Counter[str]()
        """How many bounces SES made of each recipient."""
        self._passing = passing
        self._mode = "calm"

    def over(self, service: str, client: Any) -> Any:
        events = client.meta.events
        events.register_first(f"before-send.{service}", partial(self._before, service))
        # moto answers to the event without the service's name, which comes last.
        events.register_last("before-send", self._after)
        if service == "ses":
            events.register_last("before-send.ses.SendBounce", self._send_bounce)
        return client

    def _before(self, service: str, request: Any, **_: Any) -> AWSResponse | None:
        """Before the service sees the request."""
        if service == "ses":
            return None  # its turn comes first: see _send_bounce
        return self._goes(service, request)

    def _goes(self, service: str, request: Any) -> AWSResponse | None:
        self._mode = self.forecast(service)
        read = timing.SES_READ if service == "ses" else timing.READ
        match self._mode:
            case "slow":
                self._passing.sleep(SLOW)
            case "hanging":
                self._passing.sleep(read)
                raise ReadTimeoutError(endpoint_url=request.url)
            case "unreachable":
                self._passing.sleep(timing.CONNECT)
                raise ConnectTimeoutError(endpoint_url=request.url)
            case "failing":
                return response(request, 503, b"{}")
        return None

    def _after(self, request: Any, **_: Any) -> None:
        """When the service has done what was asked."""
        mode, self._mode = self._mode, "calm"
        if mode == "late":
            self._passing.sleep(timing.READ)
            raise ReadTimeoutError(endpoint_url=request.url)

    def _send_bounce(self, request: Any, **_: Any) -> AWSResponse:
        body = io.TextIOWrapper(request.body).read()  # all of it, and the end
        answer = self._goes("ses", request)
        if answer is not None:
            return answer
        mode, self._mode = self._mode, "calm"
        self.told.update(each for each in UNKNOWN if each.replace("@", "%40") in body)
        assert ALICE.replace("@", "%40") not in body
        if mode == "late":
            self._passing.sleep(timing.SES_READ)
            raise ReadTimeoutError(endpoint_url=request.url)
        result = "<SendBounceResult><MessageId>b</MessageId></SendBounceResult>"
        return response(request, 200, f"<SendBounceResponse>{result}</SendBounceResponse>".encode())

    def warm(self, request: Any) -> AWSResponse:
        """What goes out beside botocore's events: the request that opens SES's connection."""
        answer = self._goes("ses", request)
        if self._mode == "late":
            self._passing.sleep(timing.SES_READ)
            raise ReadTimeoutError(endpoint_url=request.url)
        return answer or response(request, 404, b"")


class Stack:
    """The functions that decide, send and give back, and their backends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, printed: Printed) -> None:
        self.printed = printed
        self.passing = VirtualTime()
        self.weather = Weather(self.passing)
        monkeypatch.setenv("AWS_ENDPOINT_URL_SES", "http://ses.invalid")  # not moto's
        made = {name: getattr(clients, name)() for name in SERVICES}
        self.dynamodb, self.s3, self.sqs, _ = made.values()
        create_bounce_table(self.dynamodb)
        create_mailbox_table(self.dynamodb)
        self.s3.create_bucket(Bucket=BUCKET)
        self.queue = self.sqs.create_queue(QueueName="bounces")["QueueUrl"]
        self.events = self.sqs.create_queue(QueueName="events")["QueueUrl"]
        know_domain(self.dynamodb)
        put_mailbox(self.dynamodb, ALICE, quota_bytes=10**9, used_bytes=0)
        set_date(self.dynamodb, None)
        for name, client in made.items():
            self.weather.over(name, client)
            monkeypatch.setattr(clients, name, lambda client=client: client)
        self.sqs.meta.events.register(
            "before-parameter-build.sqs.SendMessage",
            lambda params, **_: params.pop("DelaySeconds", None) and None,
        )
        monkeypatch.setattr(URLLib3Session, "send", lambda _, request: self.weather.warm(request))
        clock = self.passing
        limiter = partial(Limiter, clock=clock.clock, monotonic=clock.monotonic, sleep=clock.sleep)
        monkeypatch.setattr(wiring, "Limiter", limiter)
        monkeypatch.setattr(time, "time", clock.clock)
        monkeypatch.setattr(time, "sleep", clock.sleep)
        services = Services(self.dynamodb, self.s3, self.sqs)
        dead_letters = {"BOUNCE_DEAD_LETTER_QUEUE_URL": self.events}
        services.start(monkeypatch, inbound, audit, send, usage, USAGE="managed", **dead_letters)

    def mail(self, event: Any) -> bool:
        """Let the inbound function handle it: whether it answered at all."""
        end = self.passing.clock() + timing.INBOUND_TIMEOUT
        try:
            answer = inbound.handler(event, Context(seconds_left=timing.INBOUND_TIMEOUT))
        except Exception:  # noqa: BLE001  (so SES and Lambda see it)
            answered = False
        else:
            answered = answer["disposition"] in {"CONTINUE", "STOP_RULE_SET"}
        assert self.passing.clock() <= end + 0.1
        return answered

    def work(self, messages: list[str]) -> list[str]:
        """Let the worker have these: those that go back to the queue."""
        return self._batch(send.handler, messages, timing.SEND_TIMEOUT)

    def audit(self, notices: list[str]) -> list[str]:
        """Let the audit have these: those that go back to its queue."""
        return self._batch(audit.handler, notices, AUDIT_TIMEOUT)

    def give_back(self, deletions: list[str]) -> list[str]:
        """Let the usage function have these: those that go back to its queue."""
        return self._batch(usage.handler, deletions, USAGE_TIMEOUT)

    def _batch(self, handler: Any, messages: list[str], seconds: float) -> list[str]:
        end = self.passing.clock() + seconds
        attributes = {"ApproximateReceiveCount": "1"}
        event = {
            "Records": [
                {"messageId": str(number), "body": body, "attributes": attributes}
                for number, body in enumerate(messages)
            ]
        }
        answer = handler(event, Context(function_name="batch", seconds_left=seconds))
        assert self.passing.clock() <= end + 0.1
        return [messages[int(each["itemIdentifier"])] for each in answer["batchItemFailures"]]

    def queued(self) -> list[str]:
        return self._taken_from(self.queue)

    def kept(self) -> list[Any]:
        return [json.loads(body)["requestPayload"] for body in self._taken_from(self.events)]

    def _taken_from(self, queue: str) -> list[str]:
        found = []
        while messages := self.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in messages:
                found.append(message["Body"])
                self.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return found

    def states(self) -> dict[str, str]:
        items = self.dynamodb.scan(TableName=BOUNCES)["Items"]
        return {
            item["recipient"]["S"]: item["state"]["S"] for item in items if "lost_answers" in item
        }

    def clears_up(self, event: Any, *, answered: bool, waiting: list[str]) -> None:
        """The weather is fine again: what was kept is replayed, what waits is worked off."""
        self.weather.forecast = calm
        again = [event] if not answered else []
        for _ in range(6):
            for each in [*self.kept(), *again]:
                assert self.mail(each)
            again = []
            waiting = self.work(waiting + self.queued())
            if not waiting and len(self.states()) == len(UNKNOWN):
                break
            self.passing.sleep(timing.VISIBILITY)


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, printed: Printed) -> Stack:
    return Stack(monkeypatch, printed)


def everything_asked_for() -> Any:
    """A mail for which the function asks every backend it has."""
    return ses_event(*UNKNOWN, ALICE, headers_truncated=True)


def of_all(mode: str) -> Forecast:
    return lambda _: mode


def of_one(service: str, mode: str) -> Forecast:
    return lambda asked: mode if asked == service else "calm"


def by_chance(seed: int) -> Forecast:
    luck = random.Random(seed)
    share = luck.choice([0.1, 0.3, 0.6, 0.9])
    return lambda _: luck.choice(MODES) if luck.random() < share else "calm"


FORECASTS: list[Any] = [
    *(pytest.param(of_all(mode), id=f"everything {mode}") for mode in MODES),
    *(
        pytest.param(of_one(service, mode), id=f"{service} {mode}")
        for service in SERVICES
        for mode in MODES
    ),
    *(pytest.param(by_chance(seed), id=f"seed {seed}") for seed in range(SEEDS)),
]


def told_or_with_a_reason(stack: Stack) -> None:
    states = stack.states()
    # Suppressed: of a mail whose headers cannot be read nobody knows whether it may be bounced.
    # That nobody is told stands in the log even where the ledger could not be written.
    logged = {
        each["recipient"]: each["state"]
        for line in stack.printed.lines
        if line["message"] == "mail handled"
        for each in line["recipients"]
        if each.get("state") == "suppressed"
    }
    states = logged | states
    assert states.keys() == set(UNKNOWN)
    # Every try to note the end of a call failed, which is counted: the line stays as it was.
    unnoted = {"claimed"} if "LedgerWriteFailed" in stack.printed.counts else set()
    assert set(states.values()) <= {"sent", "rejected", "suppressed"} | unnoted
    for recipient in UNKNOWN:
        assert stack.weather.told[recipient] <= 2  # one repeat for an answer that was lost
        assert stack.weather.told[recipient] >= (states[recipient] in {"sent", "claimed"})


@pytest.mark.parametrize("forecast", FORECASTS)
def test_in_any_weather_an_inbound_mail_is_answered_in_time_and_nothing_is_lost(
    stack: Stack, forecast: Forecast
) -> None:
    put_mail(stack.s3, "msg1")
    event = everything_asked_for()
    stack.weather.forecast = forecast
    answered = stack.mail(event)
    stack.clears_up(event, answered=answered, waiting=[])
    told_or_with_a_reason(stack)


@pytest.mark.parametrize("forecast", FORECASTS)
def test_in_any_weather_the_worker_answers_in_time_and_nothing_is_lost(
    stack: Stack, forecast: Forecast
) -> None:
    event = everything_asked_for()
    put_mail(stack.s3, "msg1")
    reserve_until(stack.dynamodb, stack.passing.clock() + 300)
    assert stack.mail(event)
    stack.dynamodb.delete_item(TableName=BOUNCES, Key=SLOTS_ITEM)
    waiting = stack.queued()
    assert waiting
    stack.weather.forecast = forecast
    again = stack.work(waiting)
    stack.clears_up(event, answered=True, waiting=again)
    told_or_with_a_reason(stack)


@pytest.mark.parametrize("forecast", FORECASTS)
def test_in_any_weather_the_audit_answers_in_time_and_nothing_is_lost(
    stack: Stack, forecast: Forecast
) -> None:
    """Nobody had handled the mail before."""
    put_mail(stack.s3, "msg1")
    (record,) = everything_asked_for()["Records"]
    stack.weather.forecast = forecast
    notice = json.dumps({"notificationType": "Received", **record["ses"]})
    again, waiting = stack.audit([notice]), list[str]()
    stack.weather.forecast = calm
    for _ in range(6):
        again = stack.audit(again)
        waiting = stack.work(waiting + stack.queued())
        if not again and not waiting:
            break
        stack.passing.sleep(timing.VISIBILITY)
    assert again == waiting == []
    told_or_with_a_reason(stack)


@pytest.mark.parametrize(
    "forecast", [each for each in FORECASTS if not str(each.id).startswith(("s3", "sqs", "ses"))]
)
def test_in_any_weather_deletions_are_given_back_in_time_and_exactly(
    stack: Stack, forecast: Forecast
) -> None:
    deletions = counted_and_deleted(stack, mails=40)
    stack.weather.forecast = forecast
    for _ in range(3):
        deletions = stack.give_back(deletions)
    stack.weather.forecast = calm
    for _ in range(3):
        deletions = stack.give_back(deletions)
    assert deletions == []
    assert mailbox_of(stack.dynamodb)["used_bytes"] == "0"


def test_however_slow_all_is_what_was_found_is_also_given_back(stack: Stack) -> None:
    """A batch whose look-ups alone take more time than there is gets on, batch by batch."""
    deletions = counted_and_deleted(stack, mails=40)
    stack.weather.forecast = of_all("slow")
    before = len(deletions)
    while deletions:
        deletions = stack.give_back(deletions)
        assert len(deletions) < before
        before = len(deletions)
    assert mailbox_of(stack.dynamodb)["used_bytes"] == "0"


def counted_and_deleted(stack: Stack, mails: int) -> list[str]:
    """Mails that one mailbox had; the events of their deletion."""
    counters = DynamoUsage(
        stack.dynamodb, bounce_table=BOUNCES, mailbox_table=MAILBOXES, remember=timedelta(days=14)
    )
    for number in range(mails):
        box, now = Mailbox(address=ALICE), datetime.now(UTC)
        counters.charge(box, f"mail{number}", 100, now, enforce=False)
    return [
        json.dumps({"detail": {"object": {"key": f"{PREFIX}mail{number}"}}})
        for number in range(mails)
    ]


def test_when_everything_is_slow_the_event_is_kept_or_the_bounce_waits(stack: Stack) -> None:
    put_mail(stack.s3, "msg1")
    stack.weather.forecast = of_all("slow")
    assert stack.mail(everything_asked_for())
    stack.weather.forecast = calm
    assert stack.kept() or stack.queued()
