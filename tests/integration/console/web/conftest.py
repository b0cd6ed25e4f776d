from collections.abc import Iterator
from threading import Thread

import pytest
import uvicorn
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_s3 import S3Client
from mypy_boto3_sqs import SQSClient
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import sync_playwright

from bouncer.delivery.ledger import BounceState
from bouncer.mailboxes import Mailbox, Status
from bouncer_console.web.app import Server
from tests.integration.console.builders import Stack, dead_bounce, dead_event, settle
from tests.integration.console.web.chromium import ALONE, CHROMIUM, EVIL, EVIL_SENDER
from tests.integration.console.web.test_directory import BOX, DOMAIN, put
from tests.integration.console.web.test_mail import HEADERS, recorded, stored, written
from tests.unit.web.builders import Browser, LocalMail


@pytest.fixture
def browser(stack: Stack) -> Browser:
    """One that was let in, to the page of a stack that is there."""
    return Browser()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ALONE)
        yield browser
        browser.close()


@pytest.fixture
def served(
    stack: Stack, dynamodb: DynamoDBClient, sqs: SQSClient, s3: S3Client
) -> Iterator[Server]:
    """The page of a stack in which hostile things are stored, over real HTTP."""
    put(
        dynamodb,
        DOMAIN,
        BOX,
        Mailbox(address="full@example.com", quota_bytes=1000, used_bytes=2000),
        Mailbox(address=f"{EVIL[:900]}@example.com", status=Status.DISABLED),
        Mailbox(address="moved@example.com", moved_to=f"{EVIL}@example.net"),
    )
    dead_bounce(sqs, stack)
    dead_event(sqs, stack, "msg2")
    sqs.send_message(QueueUrl=stack.events, MessageBody=EVIL.replace("\x1b", "\\x1b"))
    hostile = {"reason": EVIL[:900], "message_id_header": EVIL[:200], "suppressed": EVIL[:900]}
    for number in range(30):
        written(stack, f"evil{number}", EVIL_SENDER, **hostile)
    written(stack)
    recorded(dynamodb)
    settle(dynamodb, BounceState.SENT)
    settle(dynamodb, BounceState.QUEUED, "waits", EVIL_SENDER)
    stored(s3, f"{HEADERS}\r\nX-Evil: {EVIL}\r\n{EVIL}: x")
    server = Server(stack="ses-bouncer", region=None, local=LocalMail())
    uvicorns: list[uvicorn.Server] = []
    thread = Thread(target=server.run, args=(uvicorns.append,), daemon=True)
    thread.start()
    yield server
    uvicorns[0].should_exit = True
    thread.join(10)
