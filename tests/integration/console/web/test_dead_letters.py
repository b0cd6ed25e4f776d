"""The page of dead letters."""

from mypy_boto3_sqs import SQSClient

from tests.integration.console.builders import Stack, dead_bounce, dead_event, number_in
from tests.unit.web.builders import Browser


def test_there_may_be_none(browser: Browser) -> None:
    assert "There are none" in browser.get("/dead-letters").text


def test_each_says_why_it_is_here_and_whether_it_can_be_tried(
    browser: Browser, stack: Stack, sqs: SQSClient
) -> None:
    dead_event(sqs, stack, "msg2")
    dead_bounce(sqs, stack, "msg3", hours=30)
    sqs.send_message(QueueUrl=stack.events, MessageBody="<b>\x1b[31mnot json</b>")
    page = browser.get("/dead-letters")
    assert "ClientError: no table" in page.text
    assert "too old" in page.text
    assert "unreadable" in page.text
    assert "&lt;b&gt;\\x1b[31mnot json&lt;/b&gt;" in page.html
    assert number_in(sqs, stack.events) == 2, "they were only looked at"


def test_one_is_tried_again_after_a_question(
    browser: Browser, stack: Stack, sqs: SQSClient
) -> None:
    dead_bounce(sqs, stack, "msg1")
    dead_bounce(sqs, stack, "msg2")
    chosen = {"message_id": "msg1", "kind": "bounce"}
    assert "Try the bounce of msg1 again?" in browser.post("/dead-letters/redrive", chosen).text
    assert number_in(sqs, stack.bounce_queue) == 0
    said = browser.post("/dead-letters/redrive", chosen | {"sure": "yes"}).text
    assert "1 given back" in said
    assert number_in(sqs, stack.bounce_queue) == 1
    assert number_in(sqs, stack.dead_letters) == 1
    assert "msg2" in said


def test_all_are_tried_that_can_be(browser: Browser, stack: Stack, sqs: SQSClient) -> None:
    dead_bounce(sqs, stack, "msg1")
    dead_event(sqs, stack, "msg2")
    dead_bounce(sqs, stack, "msg3", hours=30)
    page = browser.post("/dead-letters/redrive", {"sure": "yes"})
    assert "2 given back" in page.text
    assert number_in(sqs, stack.bounce_queue) == number_in(sqs, stack.outputs["AuditQueue"]) == 1
    assert number_in(sqs, stack.events) == 0
    assert number_in(sqs, stack.dead_letters) == 1, "what is too old stays"
