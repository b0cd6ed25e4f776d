"""`bouncer status`."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_s3 import S3Client
from mypy_boto3_sqs import SQSClient

from bouncer.aws.mail_records import DynamoMailRecords
from bouncer.delivery.ledger import BounceState
from bouncer.mail_record import MailRecord, RecipientRecord
from bouncer_console import status as console_status
from bouncer_console.deployment import Deployment
from bouncer_console.glance import COUNTS, Alarm, Glance, Glancer, Waiting
from tests.fakes.bounces import NOBODY
from tests.integration.builders import ALICE, BOUNCES, put_mail, reserve_until
from tests.integration.console.builders import (
    STACK,
    Stack,
    bouncer,
    dead_bounce,
    dead_event,
    error_of,
    number_in,
    printed_json,
    settle,
    text_of,
)

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)

# --- One mail --------------------------------------------------------------------------------


def test_the_status_of_a_mail_is_its_recipients_lines(
    stack: Stack, dynamodb: DynamoDBClient
) -> None:
    settle(dynamodb, BounceState.SENT)
    (entry,) = printed_json("status", "msg1")["ledger"]
    assert {k: entry[k] for k in ("recipient", "state", "reason", "status", "bounce_id")} == {
        "recipient": NOBODY,
        "state": "sent",
        "reason": "unknown-recipient",
        "status": "5.1.1",
        "bounce_id": "bounce-1",
    }
    text = text_of("status", "msg1")
    for part in (NOBODY, "sent", "5.1.1", "bounce-1", "UTC"):
        assert part in text


@pytest.mark.parametrize("message_id", ["msg1", "", "x" * 3000, "[bold]\x1b[31m", "a b", "ä"])
def test_an_id_that_nobody_knows_is_refused(stack: Stack, s3: S3Client, message_id: str) -> None:
    assert "No mail" in error_of("status", message_id)
    assert "\x1b" not in bouncer("status", message_id, code=1).output
    answer = printed_json("status", message_id, code=1)
    assert (answer["ledger"], answer["record"], answer["dead_letters"]) == ([], None, [])


def test_accepted_mail_is_known_by_its_record(stack: Stack, dynamodb: DynamoDBClient) -> None:
    records = DynamoMailRecords(dynamodb, BOUNCES, retention=timedelta(days=14))
    records.add(
        MailRecord(
            message_id="msg1",
            received_at=datetime.now(UTC),
            recipients=frozenset({RecipientRecord(ALICE, "accept", "accept")}),
        ),
        until=datetime.now(UTC) + timedelta(minutes=1),
    )
    text = text_of("status", "msg1")
    assert ALICE in text
    assert "accept" in text
    assert printed_json("status", "msg1")["record"] == [
        {"recipient": ALICE, "outcome": "accept", "reason": "accept"}
    ]


def test_a_mail_that_only_the_dead_letters_know_is_found_there_and_stays(
    stack: Stack, sqs: SQSClient
) -> None:
    dead_event(sqs, stack, "msg2")
    dead_bounce(sqs, stack, "msg3")
    assert "dead letters (event): ClientError: no table; again" in text_of("status", "msg2")
    (letter,) = printed_json("status", "msg3")["dead_letters"]
    assert (letter["kind"], letter["verdict"]) == ("bounce", "again")
    assert (number_in(sqs, stack.events), number_in(sqs, stack.dead_letters)) == (1, 1)


def test_a_mail_that_is_only_stored_has_not_been_decided(stack: Stack, s3: S3Client) -> None:
    put_mail(s3, "msg1")
    assert "nobody has decided on it yet" in text_of("status", "msg1")
    assert printed_json("status", "msg1")["stored_at"]


def test_what_waits_has_a_position_and_a_time(stack: Stack, dynamodb: DynamoDBClient) -> None:
    next_slot = datetime.now(UTC) + timedelta(minutes=10)
    reserve_until(dynamodb, next_slot.timestamp())
    for message_id in ("msg1", "msg2", "msg3"):
        settle(dynamodb, BounceState.QUEUED, message_id)
    place = printed_json("status", "msg3")["place"]
    assert place["position"] == 3
    late = datetime.fromisoformat(place["at"]) - next_slot
    assert timedelta(seconds=2) <= late <= timedelta(seconds=3)
    assert "about number 3" in text_of("status", "msg3")
    assert "An estimate" in text_of("status", "msg3")


# --- The stack -------------------------------------------------------------------------------


def _count(metric: str, value: float, **dimensions: str) -> None:
    boto3.client("cloudwatch").put_metric_data(
        Namespace="SesBouncer",
        MetricData=[
            {
                "MetricName": metric,
                "Dimensions": [{"Name": k, "Value": v} for k, v in dimensions.items()],
                "Value": value,
                "Timestamp": datetime.now(UTC) - timedelta(minutes=5),
            }
        ],
    )


def _alarm(stack: Stack, name: str, state: Any) -> None:
    cloudwatch = boto3.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=f"ses-bouncer-{name}-X1",
        AlarmDescription="Somebody should look",
        Namespace="SesBouncer",
        MetricName="EventKept",
        Statistic="Sum",
        Period=300,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
    )
    cloudwatch.set_alarm_state(
        AlarmName=f"ses-bouncer-{name}-X1", StateValue=state, StateReason="a test"
    )
    stack.resources[name] = ("AWS::CloudWatch::Alarm", f"ses-bouncer-{name}-X1")


def test_the_whole_stack_is_one_screen(
    stack: Stack, dynamodb: DynamoDBClient, sqs: SQSClient
) -> None:
    stack.parameters["Mode"] = "enforce"
    for number in range(3):
        sqs.send_message(QueueUrl=stack.bounce_queue, MessageBody=str(number))
    dead_bounce(sqs, stack)
    _count("BounceSent", 7, service=STACK)
    _count("BounceSent", 100, service=STACK, Reason="unknown-recipient")  # the same ones, split
    _count("BounceSent", 100, service="another")
    _alarm(stack, "EventsKept", "ALARM")
    _alarm(stack, "SendFails", "INSUFFICIENT_DATA")
    _alarm(stack, "AuditFails", "OK")

    found = printed_json("status")
    assert found["mode"] == "enforce"
    assert found["waiting"]["visible"] == 3
    assert found["last_hour"]["sent"] == 7
    assert found["last_hour"]["queued"] == 0
    assert found["dead_letters"] == {"BounceDeadLetterQueue": 1, "EventDeadLetterQueue": 0}
    assert [(each["name"], each["state"]) for each in found["alarms"]] == [
        ("EventsKept", "ALARM"),
        ("SendFails", "INSUFFICIENT_DATA"),
        ("AuditFails", "OK"),
    ]
    assert found["unread"] == {}
    drained = datetime.fromisoformat(found["empty_at"]) - datetime.fromisoformat(found["at"])
    assert timedelta(seconds=3) <= drained <= timedelta(seconds=4)

    text = text_of("status")
    for part in (
        "enforce: live",
        "3 waiting",
        "free; one call every 1 s",
        "7 sent",
        "1 in BounceDeadLetterQueue (bouncer redrive)",
        "EventsKept since",
        "1 without data yet",
    ):
        assert part in text


PARTS = {
    "mode": ("cloudformation", None),
    "waiting": ("sqs", "GetQueueAttributes"),
    "next_slot": ("dynamodb", "GetItem"),
    "last_hour": ("cloudwatch", "GetMetricData"),
    "alarms": ("cloudwatch", "DescribeAlarms"),
}


@pytest.mark.parametrize("part", ["waiting", "next_slot", "last_hour", "alarms"])
def test_a_part_that_cannot_be_read_says_so_and_fails_no_other(
    stack: Stack, dynamodb: DynamoDBClient, part: str
) -> None:
    def refuse(**_: Any) -> None:
        raise OSError("no permission for this")

    _alarm(stack, "EventsKept", "OK")
    service, operation = PARTS[part]
    stack.hooks.append((service, f"before-call.{service}.{operation}", refuse))
    found = printed_json("status")
    assert found[part] is None
    assert part in found["unread"]
    others = {*PARTS, "dead_letters"} - {part, "next_slot"}
    if part == "waiting":  # dead letters are counted by the same call
        others -= {"dead_letters"}
    assert all(found[other] is not None for other in others)
    assert "not read: no permission for this" in text_of("status")


def test_without_the_resources_neither_dead_letters_nor_alarms_are_known(
    stack: Stack, dynamodb: DynamoDBClient
) -> None:
    stack.denied = True
    found = printed_json("status")
    assert set(found["unread"]) == {"dead_letters", "alarms"}
    assert found["waiting"]["visible"] == 0
    assert text_of("status").count("not yours to list") == 2


def test_the_age_of_the_oldest_goes_on_since_it_was_measured(stack: Stack, sqs: SQSClient) -> None:
    sqs.send_message(QueueUrl=stack.bounce_queue, MessageBody="x")
    measured = datetime.now(UTC) - timedelta(minutes=3)
    boto3.client("cloudwatch").put_metric_data(
        Namespace="AWS/SQS",
        MetricData=[
            {
                "MetricName": "ApproximateAgeOfOldestMessage",
                "Dimensions": [
                    {"Name": "QueueName", "Value": stack.bounce_queue.rpartition("/")[2]}
                ],
                "Value": 3600.0,
                "Timestamp": measured,
            }
        ],
    )
    oldest = printed_json("status")["waiting"]["oldest_seconds"]
    assert 3600 + 120 <= oldest <= 3600 + 300
    assert "the oldest for 1 h 0" in text_of("status")


def test_counts_are_asked_for_once_a_minute_only(stack: Stack, dynamodb: DynamoDBClient) -> None:
    now = [NOW]
    asked: list[str] = []
    stack.hooks.append(
        ("cloudwatch", "before-call.cloudwatch.GetMetricData", lambda **_: asked.append("x"))
    )
    glancer = Glancer(Deployment.find(STACK, None), clock=lambda: now[0])
    for _ in range(3):
        glancer.look()
        now[0] += timedelta(seconds=25)
    assert len(asked) == 1
    now[0] += timedelta(seconds=25)
    glancer.look()
    assert len(asked) == 2


def test_history_has_a_point_a_period(stack: Stack) -> None:
    _count("BounceSent", 7, service=STACK)
    glancer = Glancer(Deployment.find(STACK, None))
    (sent, queued) = glancer.history(
        ["sent", "queued"], since=timedelta(hours=1), period=timedelta(minutes=5)
    )
    assert (sent.name, sent.values) == ("sent", (7.0,))
    assert (queued.values, queued.moments) == ((), ())


def test_watching_prints_a_line_a_part_off_a_terminal_and_ends_quietly(
    stack: Stack, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks(glancer: Glancer, _every: float) -> Any:
        yield glancer.look()
        yield glancer.look()
        raise KeyboardInterrupt

    monkeypatch.setattr(console_status, "_looks", looks)
    output = bouncer("status", "--watch").stdout
    assert output.count("next slot:") == 2
    lines = bouncer("status", "--watch", "--json").stdout.splitlines()
    assert [json.loads(each)["stack"] for each in lines] == [STACK] * 2


def test_watching_is_for_the_stack() -> None:
    assert "leave the id out" in error_of("status", "msg1", "--watch", code=2)


# --- What is shown, and nothing read ---------------------------------------------------------


def _lines(**fields: Any) -> dict[str, tuple[str, str]]:
    glance = Glance(stack=STACK, at=NOW, mode="enforce", **fields)
    return {name: (text, style) for name, text, style in console_status.lines(glance)}


def test_a_queue_with_a_past_is_shown_against_ses_s_day() -> None:
    text, style = _lines(
        waiting=Waiting(visible=3000, in_hand=10, delayed=0, oldest_seconds=7 * 3600),
        next_slot=NOW + timedelta(seconds=12),
    )["queue"]
    assert text.startswith("3,010 waiting, 10 of them with a worker; the oldest for 7 h 00 min")
    assert "of 24 h (29%)" in text
    assert style == "red"


def test_who_is_quiet_is_told_as_quiet() -> None:
    found = _lines(
        waiting=Waiting(visible=0, in_hand=0, delayed=0),
        last_hour=dict.fromkeys(COUNTS, 0),
        dead_letters={"BounceDeadLetterQueue": 0},
        alarms=(Alarm(name="SendFails", state="OK"),),
    )
    assert found["queue"] == ("empty", "green")
    assert found["last hour"] == ("no mail was counted", "")
    assert found["dead letters"] == ("none", "green")
    assert found["alarms"] == ("none of 1", "green")


def test_a_stack_that_observes_says_so() -> None:
    glance = Glance(stack=STACK, at=NOW, mode="observe")
    assert "sends nothing" in console_status.lines(glance)[0][1]
