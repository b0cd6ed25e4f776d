"""`bouncer redrive`."""

import itertools
import json
from typing import Any

import pytest
from mypy_boto3_sqs import SQSClient

from bouncer.message import parse_event, parse_notice
from tests.integration.builders import (
    bodies,
    no_response,
)
from tests.integration.console.builders import (
    DELETION,
    NOTICE,
    Stack,
    dead_bounce,
    dead_event,
    error_of,
    number_in,
    printed_json,
    text_of,
)


def test_without_run_dead_letters_are_only_shown(stack: Stack, sqs: SQSClient) -> None:
    dead_bounce(sqs, stack)
    dead_event(sqs, stack, "msg2")
    report = printed_json("redrive")
    assert report["run"] is False
    assert [
        (each["kind"], each["message_id"], each["why"], each["verdict"], each["result"])
        for each in report["letters"]
    ] == [
        ("bounce", "msg1", "SES failed too often", "again", None),
        ("event", "msg2", "ClientError: no table", "again", None),
    ]
    assert "2 would be tried again" in text_of("redrive")
    assert (len(bodies(sqs, stack.dead_letters)), len(bodies(sqs, stack.events))) == (1, 1)


def test_a_bounce_goes_back_to_the_queue_as_it_is(stack: Stack, sqs: SQSClient) -> None:
    dead_bounce(sqs, stack)
    (before,) = bodies(sqs, stack.dead_letters)
    sqs.purge_queue(QueueUrl=stack.dead_letters)
    sqs.send_message(QueueUrl=stack.dead_letters, MessageBody=json.dumps(before))
    (letter,) = printed_json("redrive", "--run")["letters"]
    assert letter["result"] == "queued"
    assert bodies(sqs, stack.bounce_queue) == [before]
    assert bodies(sqs, stack.dead_letters) == []


def test_an_event_goes_to_the_audit_as_a_notice_of_the_same_mail(
    stack: Stack, sqs: SQSClient
) -> None:
    """Its mail was delivered meanwhile: only the audit knows who may be bounced so late."""
    event = dead_event(sqs, stack)
    (letter,) = printed_json("redrive", "--run")["letters"]
    assert letter["result"] == "queued"
    (notice,) = bodies(sqs, stack.outputs["AuditQueue"])
    assert parse_notice(json.dumps(notice)) == parse_event(event)[0]
    assert bodies(sqs, stack.events) == []


@pytest.mark.parametrize("hours", [23.95, 30])
def test_what_is_too_old_for_ses_stays_where_it_is(
    stack: Stack, sqs: SQSClient, hours: float
) -> None:
    dead_bounce(sqs, stack, hours=hours)
    (letter,) = printed_json("redrive", "--run")["letters"]
    assert (letter["verdict"], letter["result"]) == ("too old", None)
    assert bodies(sqs, stack.bounce_queue) == []
    assert len(bodies(sqs, stack.dead_letters)) == 1


def test_an_event_goes_to_the_audit_however_old_for_the_audit_ends_old_mail_too(
    stack: Stack, sqs: SQSClient
) -> None:
    dead_event(sqs, stack, hours=99)
    (letter,) = printed_json("redrive", "--run")["letters"]
    assert (letter["verdict"], letter["result"]) == ("again", "queued")
    assert number_in(sqs, stack.outputs["AuditQueue"]) == 1


@pytest.mark.parametrize("body", ["not JSON", "{}", "[]", '{"requestPayload": {}}', "5"])
def test_what_cannot_be_read_stays_where_it_is(stack: Stack, sqs: SQSClient, body: str) -> None:
    sqs.send_message(QueueUrl=stack.dead_letters, MessageBody=body)
    sqs.send_message(QueueUrl=stack.events, MessageBody=body)
    report = printed_json("redrive", "--run")
    assert [each["verdict"] for each in report["letters"]] == ["unreadable"] * 2
    assert all(each["why"] for each in report["letters"])
    assert (len(bodies(sqs, stack.dead_letters)), len(bodies(sqs, stack.events))) == (1, 1)


@pytest.mark.parametrize(
    ("kind", "body", "back"), [("notice", NOTICE, "Audit"), ("deletion", DELETION, "Usage")]
)
def test_what_hangs_on_no_window_goes_back_to_its_queue_however_old(
    stack: Stack, sqs: SQSClient, kind: str, body: Any, back: str
) -> None:
    dead, queue = stack.outputs[f"{back}DeadLetterQueue"], stack.outputs[f"{back}Queue"]
    for text in (json.dumps(body), "not JSON", "{}", json.dumps({**body, "mail": 1, "detail": 1})):
        sqs.send_message(QueueUrl=dead, MessageBody=text)
    shown = printed_json("redrive")["letters"]
    assert [(each["kind"], each["verdict"]) for each in shown].count((kind, "again")) == 1
    assert [each["verdict"] for each in shown].count("unreadable") == 3
    assert number_in(sqs, dead) == 4
    done = [each["result"] for each in printed_json("redrive", "--run")["letters"]]
    assert sorted(done, key=str) == [None, None, None, "queued"]
    assert bodies(sqs, queue) == [body]
    assert number_in(sqs, dead) == 3


def test_a_stack_that_keeps_no_usage_has_no_queue_of_deletions(
    stack: Stack, sqs: SQSClient
) -> None:
    del stack.outputs["UsageDeadLetterQueue"], stack.outputs["UsageQueue"]
    dead_bounce(sqs, stack)
    assert len(printed_json("redrive", "--run")["letters"]) == 1


def test_more_dead_letters_than_one_read_holds_are_all_seen(stack: Stack, sqs: SQSClient) -> None:
    for number in range(25):
        dead_bounce(sqs, stack, f"msg{number}")
    assert len(printed_json("redrive", "--run")["letters"]) == 25
    assert len(bodies(sqs, stack.bounce_queue)) == 25


@pytest.mark.parametrize(
    ("margin", "hours", "verdict"),
    [("60", 23.95, "again"), ("300", 23.95, "too old"), ("7200", 22.5, "too old")],
)
def test_how_old_is_too_old_is_the_stacks_margin(
    stack: Stack, sqs: SQSClient, margin: str, hours: float, verdict: str
) -> None:
    stack.parameters["WindowMarginSeconds"] = margin
    dead_bounce(sqs, stack, hours=hours)
    (letter,) = printed_json("redrive")["letters"]
    assert letter["verdict"] == verdict


def test_a_letter_that_comes_back_during_a_long_list_is_listed_once(
    stack: Stack, sqs: SQSClient
) -> None:
    def hide_nothing(params: dict[str, Any], **_: Any) -> None:
        params["VisibilityTimeout"] = 0

    stack.hooks.append(("sqs", "before-parameter-build.sqs.ReceiveMessage", hide_nothing))
    for number in range(3):
        dead_bounce(sqs, stack, f"msg{number}")
    letters = printed_json("redrive")["letters"]
    assert sorted(letter["message_id"] for letter in letters) == ["msg0", "msg1", "msg2"]


def test_a_letter_that_has_come_back_by_itself_is_listed_all_the_same(
    stack: Stack, sqs: SQSClient
) -> None:
    def expired(**_: Any) -> Any:
        error = {"Code": "InvalidParameterValue", "Message": "the receipt handle has expired"}
        metadata = {"HTTPStatusCode": 400, "HTTPHeaders": {}}
        answer = {"Error": error, "ResponseMetadata": metadata}
        return no_response(400), answer

    stack.hooks.append(("sqs", "before-call.sqs.ChangeMessageVisibility", expired))
    dead_bounce(sqs, stack)
    (letter,) = printed_json("redrive")["letters"]
    assert letter["verdict"] == "again"
    assert number_in(sqs, stack.dead_letters) == 1


@pytest.mark.parametrize(
    ("operation", "arguments", "fails_from"),
    [("SendMessage", ["--run"], 2), ("ReceiveMessage", [], 5)],
)
def test_an_error_hides_no_letter(
    stack: Stack, sqs: SQSClient, operation: str, arguments: list[str], fails_from: int
) -> None:
    """They would be gone for ten minutes, for the operator's next try too."""
    for number in range(3):
        dead_bounce(sqs, stack, f"msg{number}")
    calls = itertools.count(1)

    def denied(**_: Any) -> Any:
        if next(calls) < fails_from:
            return None
        error = {"Code": "AccessDenied", "Message": "not you"}
        metadata = {"HTTPStatusCode": 403, "HTTPHeaders": {}}
        return no_response(403), {"Error": error, "ResponseMetadata": metadata}

    stack.hooks.append(("sqs", f"before-call.sqs.{operation}", denied))
    assert "not you" in error_of("redrive", *arguments)
    stack.hooks.pop()
    assert len(bodies(sqs, stack.dead_letters)) == (2 if arguments else 3)
