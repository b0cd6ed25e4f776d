"""The page "Now", and what waits."""

import base64
import re
import shlex
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_sqs import SQSClient

from bouncer.aws.ledger import DynamoLedger
from bouncer.delivery.ledger import BounceState, LedgerEntry
from bouncer_console import plots
from bouncer_console.glance import Glance, Waiting
from bouncer_console.glance import Series as Counted
from bouncer_console.web.pages.now import over_time
from tests.fakes.bounces import NOBODY
from tests.integration.builders import BOUNCES, entry_of
from tests.integration.console.builders import STACK, Stack, dead_bounce
from tests.unit.web.builders import Answer, Browser

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _settled(browser: Browser, path: str) -> Answer:
    """The page when it has stopped asking."""
    for _ in range(60):
        answer = browser.get(path)
        if "Still asking" not in answer.html:
            return answer
    raise AssertionError(answer.text)


def _queued(dynamodb: DynamoDBClient, message_id: str, sender: str) -> None:
    DynamoLedger(dynamodb, BOUNCES, retention=timedelta(days=14)).record(
        [
            LedgerEntry(
                message_id=message_id,
                recipient=NOBODY,
                state=BounceState.QUEUED,
                reason="unknown-recipient",
                reverse_path=sender,
                received_at=datetime.now(UTC) - HOUR,
            )
        ],
        until=datetime.now(UTC) + HOUR,
    )


def test_now_shows_queue_mode_dead_letters_and_plots(
    stack: Stack, dynamodb: DynamoDBClient, sqs: SQSClient
) -> None:
    for number in range(3):
        sqs.send_message(QueueUrl=stack.bounce_queue, MessageBody=str(number))
    dead_bounce(sqs, stack)
    boto3.client("cloudwatch").put_metric_data(
        Namespace="SesBouncer",
        MetricData=[
            {
                "MetricName": "BounceSent",
                "Dimensions": [{"Name": "service", "Value": STACK}],
                "Value": 7,
                "Timestamp": datetime.now(UTC) - timedelta(minutes=5),
            }
        ],
    )
    answer = _settled(Browser(), "/now")
    assert answer.status == 200
    for part in ("Waiting 3", "Next slot free", "Dead letters 1", "The stack observes", "sent 7"):
        assert part in answer.text
    assert 'alt="The last hour: recipients, per minute: sent 7 (at most 7)"' in answer.html
    assert answer.html.count("prefers-color-scheme: dark") == 2


def test_what_cannot_be_read_is_said_and_the_rest_shown(
    stack: Stack, dynamodb: DynamoDBClient
) -> None:
    stack.denied = True
    answer = _settled(Browser(), "/now")
    assert answer.status == 200
    assert "not read:" in answer.text
    assert "Waiting 0" in answer.text


def test_what_waits_is_shown_and_an_attackers_taken_out_after_a_question(
    stack: Stack, dynamodb: DynamoDBClient
) -> None:
    hostile = "<script>alert(1)</script>\u202e@evil.example"
    _queued(dynamodb, "msg1", hostile)
    _queued(dynamodb, "msg2", "pat@sender.example")
    browser = Browser()
    answer = _settled(browser, "/now/queue")
    assert "Bounces 2" in answer.text
    assert "<script>" not in answer.html
    assert "\u202e" not in answer.html.partition('type="hidden"')[0]

    form = {"field": "domain", "value": "evil.example"}
    question = browser.post("/now/queue/drop", form)
    assert "Take the waiting bounces of evil.example out" in question.text
    assert entry_of(dynamodb, "msg1", NOBODY)["state"] == "queued"
    done = browser.post("/now/queue/drop", form | {"sure": "yes"})
    assert "1 bounces of evil.example are taken out" in done.text
    assert entry_of(dynamodb, "msg1", NOBODY)["reason"] == "taken-out"
    assert entry_of(dynamodb, "msg2", NOBODY)["state"] == "queued"
    assert "Bounces 1" in _settled(browser, "/now/queue").text


@pytest.mark.parametrize(
    "form", [{}, {"field": "domain", "value": " "}, {"field": "recipient", "value": "x"}]
)
def test_nobody_is_taken_out_without_being_named(
    stack: Stack, dynamodb: DynamoDBClient, form: dict[str, str]
) -> None:
    _queued(dynamodb, "msg1", "pat@sender.example")
    answer = Browser().post("/now/queue/drop", form | {"sure": "yes"})
    assert answer.status == 400
    assert entry_of(dynamodb, "msg1", NOBODY)["state"] == "queued"


@pytest.mark.parametrize("sender", ["$(reboot)@evil.example", "a'; reboot #@evil.example"])
def test_a_command_to_copy_does_nothing_else(stack: Stack, sender: str) -> None:
    asked = Browser().post("/now/queue/drop", {"field": "sender", "value": sender}).text
    command = asked.partition("bouncer queue drop ")[2].partition(" --run")[0]
    assert shlex.split(command) == ["--sender", sender]


# --- Plots -----------------------------------------------------------------------------------


def _svg(url: str) -> str:
    return base64.b64decode(url.removeprefix("data:image/svg+xml;base64,")).decode()


def test_what_cloudwatch_counted_stands_in_columns() -> None:
    counted = [
        Counted(name="sent", moments=(NOW - HOUR / 2,), values=(7.0,)),
        Counted(name="queued", moments=(), values=()),
        Counted(name="<b>", moments=(NOW - HOUR / 2, NOW - HOUR * 2), values=(1.0, 2.0)),
    ]
    over = over_time(counted, NOW - HOUR, NOW, timedelta(minutes=1))
    assert len(over.starts) in (60, 61)
    assert [(each.name, sum(each.counts)) for each in over.series] == [("sent", 7), ("<b>", 1)]
    at = over.starts[over.series[0].counts.index(7)]
    assert at <= NOW - HOUR / 2 < at + over.width


def test_a_plot_is_a_picture_for_light_and_one_for_dark_with_words() -> None:
    counted = [
        Counted(name="sent", moments=(NOW - HOUR / 2,), values=(7.0,)),
        Counted(name="<b>$x$", moments=(NOW - HOUR / 2,), values=(1.0,)),
    ]
    over = over_time(counted, NOW - HOUR, NOW, timedelta(minutes=1))
    for picture in (
        plots.columns(over, title="Mail", size=plots.HALF),
        plots.bars({"sent": 7, "<b>$x$": 1}, title="Mail"),
    ):
        assert "sent 7" in picture.alt
        light, dark = _svg(picture.light), _svg(picture.dark)
        for each in (light, dark):
            assert ">sent</text>" in each
            assert "&lt;b&gt;$x$" in each
            assert not re.search(r"<(script|image|a)\b|href=\"[^#]", each)
        assert light != dark


def test_nothing_is_a_plot_too() -> None:
    picture = plots.columns(over_time([], NOW - HOUR, NOW, HOUR), title="Mail")
    assert picture.alt == "Mail, per hour: nothing"
    assert "</svg>" in _svg(picture.light)


@pytest.mark.parametrize(
    ("waiting", "oldest", "gives_up"),
    [(0, None, False), (3600, 60.0, False), (90_000, 60.0, True), (10, 86_400.0, True)],
)
def test_a_queue_of_a_day_is_said_to_give_up(
    waiting: int, oldest: float | None, gives_up: bool
) -> None:
    glance = Glance(
        stack=STACK,
        at=NOW,
        waiting=Waiting(visible=waiting, in_hand=0, delayed=0, oldest_seconds=oldest),
    )
    assert glance.gives_up is gives_up
