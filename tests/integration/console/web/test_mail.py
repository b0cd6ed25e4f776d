"""The page of a mail."""

import html
import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_s3 import S3Client

from bouncer.aws.mail_records import DynamoMailRecords
from bouncer.delivery.ledger import BounceState
from bouncer.mail_record import MailRecord, RecipientRecord
from bouncer.policy.load import load_file
from bouncer_console.web.pages.mail import SHOWN
from bouncer_console.web.site import LocalBounce
from tests.fakes.bounces import NOBODY
from tests.integration.builders import BOUNCES, BUCKET, PAT, PREFIX
from tests.integration.console.builders import SHIPPED, Stack, settle
from tests.unit.web.builders import Answer, Browser, LocalMail

DIGEST = load_file(SHIPPED).digest
EVIL = '"><script>alert(1)</script>\x1b]0;owned\x07@evil.example'


def written(stack: Stack, message_id: str = "msg1", sender: str = PAT, **fields: object) -> None:
    refused = {
        "recipient": NOBODY,
        "outcome": "bounce",
        "reason": "unknown-recipient",
        "dry_run": False,
        "state": "queued",
    }
    line = {
        "message": "mail handled",
        "ses_message_id": message_id,
        "received_at": datetime.now(UTC).isoformat(),
        "sender": sender,
        "client": "198.51.100.7",
        "message_id_header": "hello@sender.example",
        "disposition": "STOP_RULE",
        "recipients": [refused],
        **fields,
    }
    stack.logs.add(datetime.now(UTC) - timedelta(minutes=1), json.dumps(line))


def recorded(dynamodb: DynamoDBClient, message_id: str = "msg1") -> None:
    end = RecipientRecord(NOBODY, "bounce", "unknown-recipient")
    record = MailRecord(
        message_id=message_id, received_at=datetime.now(UTC), recipients=frozenset({end})
    )
    records = DynamoMailRecords(dynamodb, BOUNCES, retention=timedelta(days=1))
    records.add(record, until=datetime.now(UTC) + timedelta(minutes=5))


def stored(s3: S3Client, headers: str, message_id: str = "msg1") -> None:
    mail = f"{headers}\r\n\r\nHello\r\n".encode()
    s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}{message_id}", Body=mail)


DOMAIN: Any = {"address": {"S": "@example.com"}, "catch_all": {"BOOL": False}}
HEADERS = (
    f"Return-Path: <{PAT}>\r\nAuthentication-Results: amazonses.com; spf=pass\r\n"
    f"From: {PAT}\r\nTo: {NOBODY}\r\nSubject: <b>Hello</b>"
)


def settled(browser: Browser, url: str) -> Answer:
    """The page, once what it asks for is there."""
    for _ in range(200):
        page = browser.get(url)
        if "Still asking" not in page.text:
            return page
        time.sleep(0.2)
    raise AssertionError(page.text)


def test_it_asks_for_nothing_before_it_is_asked(browser: Browser, stack: Stack) -> None:
    assert "Find" in browser.get("/mail").text
    assert stack.logs.started == []


@pytest.mark.parametrize(
    "query",
    ["who=pat@sender.example", "who=hello@sender.example", "who=msg1", "who=198.51.100.7",
     "recipient=Nobody@example.com", "sender=@sender.example", "message_id=<hello@sender.example>",
     ""],
)  # fmt: skip
def test_a_mail_is_found_by_what_people_know(browser: Browser, stack: Stack, query: str) -> None:
    written(stack)
    written(stack, "msg2", "other@else.example", client="", message_id_header="", recipients=[])
    page = settled(browser, f"/mail?since=24h&{query}")
    assert "/mail?id=msg1" in page.html
    assert NOBODY in page.text
    assert "bounce waits" in page.text


def test_one_mail_has_its_decision_its_ledger_and_its_headers(
    browser: Browser, stack: Stack, dynamodb: DynamoDBClient, s3: S3Client
) -> None:
    written(stack, suppressed="spf-failed", objections=["spf-failed", "list-mail"])
    recorded(dynamodb)
    settle(dynamodb, BounceState.SENT)
    stored(s3, HEADERS)
    page = settled(browser, "/mail?id=msg1")
    for part in (
        *(PAT, "198.51.100.7", "hello@sender.example", "spf-failed, list-mail", "STOP_RULE"),
        *(NOBODY, "unknown-recipient", "sent", "bounce-1", "<b>Hello</b>"),
    ):
        assert part in page.text
    assert "<b>Hello" not in page.html
    asked = stack.logs.started[0]
    assert asked["endTime"] - asked["startTime"] < 2 * 86_400, "it knows when the mail came"


def test_it_is_explained_again_by_the_present_policy(
    browser: Browser, stack: Stack, dynamodb: DynamoDBClient, s3: S3Client
) -> None:
    dynamodb.put_item(TableName="mailboxes", Item=DOMAIN)
    recorded(dynamodb)
    stored(s3, HEADERS)
    page = settled(browser, "/mail?id=msg1&explain=yes")
    for part in ("unknown-recipient", "Every guard", "no objection", "OriginalMessageId"):
        assert part in page.text
    assert "Final-Recipient: rfc822; nobody@example.com" in page.text


@pytest.fixture
def stores(dynamodb: DynamoDBClient, s3: S3Client) -> tuple[DynamoDBClient, S3Client]:
    return dynamodb, s3


@pytest.mark.parametrize(
    ("was", "said"),
    [
        ((DIGEST, "unknown-recipient"), "They are what was sent"),
        (("another", "unknown-recipient"), "The policy has changed since"),
        (("", "unknown-recipient"), "Nobody knows any more by which policy"),
        ((DIGEST, "over-quota"), "it said over-quota, 5.1.1; now it would say unknown-recipient"),
    ],
)
def test_what_is_made_anew_says_whether_it_is_what_was_sent(
    browser: Browser,
    stack: Stack,
    stores: tuple[DynamoDBClient, S3Client],
    was: tuple[str, str],
    said: str,
) -> None:
    (dynamodb, s3), (policy, reason) = stores, was
    dynamodb.put_item(TableName="mailboxes", Item=DOMAIN)
    written(stack, policy=policy)
    recorded(dynamodb)
    settle(dynamodb, BounceState.SENT, reason=reason)
    stored(s3, HEADERS)
    page = settled(browser, "/mail?id=msg1&explain=yes")
    assert said in page.text
    assert ("They are what was sent" in page.text) is (said == "They are what was sent")


def test_on_aws_on_this_machine_what_was_sent_is_there(stack: Stack) -> None:
    local = LocalMail()
    local.sent_bounces["msg1"] = [
        LocalBounce(
            at=datetime.now(UTC),
            request={"Explanation": EVIL},
            dsn=f"To: {PAT}\r\n{EVIL}",
            error="",
        ),
        LocalBounce(at=datetime.now(UTC), request={}, dsn="", error="Throttling"),
    ]
    written(stack)
    page = settled(Browser(local=local), "/mail?id=msg1")
    assert f"To: {PAT}" in page.text
    assert "Throttling" in page.text
    assert "<script" not in page.html
    assert "\x1b" not in page.html


def test_a_mail_that_nobody_knows_is_said_to_be_none(browser: Browser) -> None:
    page = settled(browser, "/mail?id=made-up")
    assert page.status == 404
    assert "Nobody knows a mail made-up" in page.text


def test_older_mails_are_a_page_further(browser: Browser, stack: Stack) -> None:
    for number in range(SHOWN + 5):
        line = {
            "message": "mail handled",
            "ses_message_id": f"many{number:03}",
            "sender": PAT,
            "disposition": "CONTINUE",
            "recipients": [{"recipient": NOBODY, "outcome": "accept", "reason": "accept"}],
        }
        stack.logs.add(datetime.now(UTC) - timedelta(minutes=number + 1), json.dumps(line))
    page = settled(browser, "/mail?since=24h&who=pat@sender.example")
    assert page.html.count("/mail?id=many") == SHOWN
    older = re.search(r'href="([^"]*until=[^"]*)">Older', page.html)
    assert older is not None
    rest = settled(browser, html.unescape(older[1]))
    assert {f"many{n:03}" for n in range(SHOWN, SHOWN + 5)} <= set(
        re.findall(r"id=(many\d+)", rest.html)
    )
    assert "Older ones" not in rest.text
    assert "after since" in browser.get("/mail?since=1h&until=2h").text


def test_a_time_that_is_none_is_told(browser: Browser) -> None:
    assert "24h, 90m or 7d" in browser.get("/mail?since=yesterday").text


def test_what_a_mail_says_is_text_and_bounded(browser: Browser, stack: Stack, s3: S3Client) -> None:
    written(stack, sender=EVIL, message_id_header="x" * 900)
    stored(s3, f"Subject: {'y' * 10_000}\r\nX-Evil: {EVIL}")
    for page in (settled(browser, "/mail?since=24h"), settled(browser, "/mail?id=msg1")):
        assert "<script" not in page.html
        assert "\x1b" not in page.html
        assert "<script>alert(1)</script>\\x1b]0;owned" in page.text
        assert "y" * 1000 not in page.html
