"""The page of the policy."""

import io
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_s3 import S3Client

from bouncer.aws.mail_records import DynamoMailRecords
from bouncer.mail_record import MailRecord, RecipientRecord
from bouncer_console import deployment
from bouncer_console.mail import receive
from bouncer_console.policy_in_force import InForce
from tests.fakes.logs import FakeLogs
from tests.integration.builders import BOUNCES, BUCKET, PREFIX, put_mailbox
from tests.integration.console.builders import DROPS, EVENTS, POLICY, SHIPPED, Stack
from tests.unit.test_facts import line, recipient
from tests.unit.web.builders import Browser

ALICE, NOBODY, PAT = "alice@example.com", "nobody@example.com", "pat@sender.example"


class Code:
    """Lambda's client: where a function's code is."""

    def __init__(self, location: str) -> None:
        self.location = location

    def get_function(self, FunctionName: str) -> dict[str, Any]:
        return {"Code": {"Location": self.location}}


def code_is_at(stack: Stack, location: str) -> None:
    client: Any = Code(location)
    stack.lambda_ = client


@pytest.fixture
def code() -> Iterator[str]:
    """An address of a function's code, with a policy of its own in it."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("policy.toml", POLICY)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data.getvalue() if self.path == "/code" else b"no zip")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/code"
    server.shutdown()
    server.server_close()


def test_the_policy_in_force_is_the_deployed_one(browser: Browser, stack: Stack, code: str) -> None:
    code_is_at(stack, code)
    page = browser.get("/policy")
    assert "deployed with the function" in page.text
    assert "unknown-recipient" in page.html
    assert "too-large" not in page.html, "of the shipped policy"


@pytest.mark.parametrize("location", ["/nothing", "ftp", "http://169.254.169.254/x"])
def test_where_it_cannot_be_read_the_one_here_is_shown_and_said_so(
    browser: Browser, stack: Stack, code: str, location: str
) -> None:
    there = code.replace("/code", location) if location == "/nothing" else location
    code_is_at(stack, there)
    page = browser.get("/policy")
    assert "the deployed one cannot be read" in page.text
    assert "too-large" in page.html


@pytest.fixture
def shipped(stack: Stack) -> None:
    """The deployed policy cannot be read, so the shipped one is taken."""
    code_is_at(stack, "nowhere")


MAIL = (EVENTS / "unknown-recipient.eml").read_text()
PROVEN = {"mail_from": PAT, "rcpt_to": NOBODY}


def test_a_pasted_mail_is_explained(
    browser: Browser, dynamodb: DynamoDBClient, shipped: None
) -> None:
    put_mailbox(dynamodb, "@example.com", catch_all=False)
    page = browser.post("/policy/explain", {"mail": MAIL} | PROVEN)
    assert page.status == 200
    assert "DoesNotExist" in page.text
    assert "Final-Recipient: rfc822; nobody@example.com" in page.text, "the DSN"
    assert "BouncedRecipientInfoList" in page.text, "the request"
    assert "no objection" in page.text


def test_an_uploaded_event_is_explained_and_a_policy_may_be_given(
    browser: Browser, dynamodb: DynamoDBClient, shipped: None
) -> None:
    put_mailbox(dynamodb, "@example.com", catch_all=False)
    event = (EVENTS / "unknown-recipient.json").read_bytes()
    page = browser.post("/policy/explain", {"policy": DROPS}, files={"file": event})
    assert page.status == 200
    assert "drop" in page.text
    assert "SES is told: STOP_RULE_SET" in page.text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mail": ""}, "Paste a mail"),
        ({"mail": "{broken"}, "is not JSON"),
        ({"mail": "Subject: x\n\nx"}, "names nobody"),
        ({"mail": MAIL, "size": "huge"}, "huge"),
        ({"mail": MAIL, "policy": "version = 9"}, "version"),
        ({"mail": '{"Records": [{}]}'}, "ses"),
        ({"mail": "[" * 100_000}, "not JSON"),
    ],
)
def test_what_cannot_be_explained_is_said(
    browser: Browser, shipped: None, fields: dict[str, str], said: str
) -> None:
    page = browser.post("/policy/explain", fields)
    assert (page.status, said in page.text) == (400, True), page.text


def test_a_hostile_mail_is_text(browser: Browser, dynamodb: DynamoDBClient, shipped: None) -> None:
    put_mailbox(dynamodb, "@example.com", catch_all=False)
    evil = "<script>alert(1)</script>\x1b[31m\u202e[red]" + "W" * 10_000
    mail = f"From: {evil} <pat@sender.example>\nSubject: {evil}\nMessage-ID: {evil}\n\nx"
    page = browser.post("/policy/explain", {"mail": mail} | PROVEN)
    assert page.status == 200
    outside = page.html.partition("<textarea")[0]
    assert "<script" not in page.html
    assert "\x1b" not in outside
    assert "\u202e" not in outside


# --- Compare -----------------------------------------------------------------------------------


@pytest.fixture
def logs(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> FakeLogs:
    fake = FakeLogs()
    real = deployment.client

    def client(service: str, *arguments: Any) -> Any:
        return fake if service == "logs" else real(service, *arguments)

    monkeypatch.setattr(deployment, "client", client)
    stack.outputs |= {"InboundLogGroup": "inbound", "SendLogGroup": "send"}
    return fake


def handled(
    dynamodb: DynamoDBClient, s3: S3Client, logs: FakeLogs, message_id: str, to: str
) -> None:
    """A mail of an hour ago, as it is found afterwards: a line, a record, a stored copy."""
    at = datetime.now(UTC) - timedelta(hours=1)
    logs.add(at, line(recipient(to), message_id=message_id))
    record = MailRecord(
        message_id=message_id,
        received_at=at,
        recipients=frozenset({RecipientRecord(to, "bounce", "unknown-recipient")}),
    )
    records = DynamoMailRecords(dynamodb, BOUNCES, retention=timedelta(days=2))
    records.add(record, until=datetime.now(UTC) + timedelta(minutes=1))
    mail = receive(MAIL.encode(), mail_from=PAT, recipients=(to,), message_id=message_id)
    s3.put_object(Bucket=BUCKET, Key=PREFIX + message_id, Body=mail.raw)


def test_two_policies_are_compared_by_the_last_days_mails(
    browser: Browser, dynamodb: DynamoDBClient, s3: S3Client, logs: FakeLogs, shipped: None
) -> None:
    put_mailbox(dynamodb, "@example.com", catch_all=False)
    put_mailbox(dynamodb, ALICE)
    for number in range(3):
        handled(dynamodb, s3, logs, f"msg{number}", NOBODY)
    handled(dynamodb, s3, logs, "accepted", ALICE)
    logs.add(datetime.now(UTC), line(recipient(NOBODY), message_id="without-record"))
    page = browser.post("/policy/compare", {"policy": DROPS})
    for _ in range(20):
        if "Still asking" not in page.text:
            break
        page = browser.get(page.url)
    assert "3 recipients' outcome would change, of 4 mails" in page.text
    assert "1 mails are left out" in page.text
    assert "msg1 nobody@example.com bounce unknown-recipient drop unknown-recipient" in page.text
    assert "accept accept 1 1" in page.text


def test_a_policy_with_a_mistake_is_not_compared(
    browser: Browser, logs: FakeLogs, shipped: None
) -> None:
    page = browser.post("/policy/compare", {"policy": POLICY.replace("DoesNotExist", "Gone")})
    assert page.status == 400
    assert "Gone" in page.text
    assert not logs.started


def test_the_policy_in_force_is_what_a_comparison_begins_with(
    browser: Browser, shipped: None
) -> None:
    page = browser.get("/policy/compare")
    assert "too-large" in page.html.partition("<textarea")[2]
    assert browser.get("/policy/compare", draft="x" * 24).status == 404
    assert Path(SHIPPED).read_text()[:100] in page.html.replace("&#39;", "'").replace("&#34;", '"')


def test_a_policy_that_was_compared_is_deployed_after_a_question(
    browser: Browser,
    stack: Stack,
    logs: FakeLogs,
    shipped: None,
    deployed_policies: list[dict[str, Any]],
) -> None:
    page = browser.post("/policy/compare", {"policy": DROPS})
    assert "Deploy yours" not in page.text, "this stack's policy is a file"
    key = browser.site.keep(DROPS)
    refused = browser.post("/policy/push", {"draft": key, "sure": "yes"})
    assert refused.status == 409
    stack.parameters["PolicySource"] = "appconfig"
    browser.site.forget()
    asked = browser.post("/policy/push", {"draft": key})
    assert "Deploy this policy to ses-bouncer?" in asked.text
    assert deployed_policies == []
    wrong = browser.site.keep(DROPS.replace("drop", "fly"))
    assert "fly" in browser.post("/policy/push", {"draft": wrong, "sure": "yes"}).text
    assert deployed_policies == []
    browser.site.jobs.ask(("policy", "ses-bouncer"), lambda _: InForce(text=DROPS, source="x"))
    browser.post("/policy/push", {"draft": key, "sure": "yes"})
    assert len(deployed_policies) == 1
    assert browser.post("/policy/push", {"draft": "x" * 24}).status == 404
