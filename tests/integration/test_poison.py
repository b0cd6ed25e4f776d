"""Whoever may write to a queue puts in what he likes: no message costs the others theirs."""

import json
from typing import Any

import pytest

from bouncer.delivery.queue import encode
from functions.inbound import audit
from functions.send import app as send
from functions.usage import app as usage
from tests.fakes.bounces import NOBODY, bounce
from tests.integration.builders import (
    ALICE,
    BOUNCES,
    PREFIX,
    QUEUE_KEY,
    Context,
    SesServer,
    entry_of,
    item,
    know_domain,
    know_key,
    mailbox_of,
    put_mailbox,
    ses_event,
)
from tests.integration.conftest import Printed, Services

DEEP = 50_000
SHAPES = {
    "deep list": "[" * DEEP,
    "deep list, closed": "[" * DEEP + "]" * DEEP,
    "deep object": '{"a":' * DEEP,
    "deep inside": '{"detail": {"object": {"key": ' + "[" * DEEP,
    "no JSON": "{",
    "nothing": "",
    "null": "null",
    "a number of any length": "1" * 5000,
    "a number beyond all": '{"detail": {"object": {"key": 1e999}}}',
    "half a character": '"\\ud800"',
}
KEYS: list[Any] = [None, 7, True, [], {}, "", "\0", "\ud800", "x" * 100_000]
IDS: list[Any] = [None, 7, [], "", "\0", "\ud800", "x" * 3000]


def record(body: Any, number: int) -> dict[str, Any]:
    return {
        "messageId": f"id{number}",
        "body": body if isinstance(body, str) else json.dumps(body),
        "attributes": {"ApproximateReceiveCount": "1"},
    }


def handed_back(function: Any, *bodies: Any) -> set[str]:
    records = [record(body, number) for number, body in enumerate(bodies)]
    answer = function.handler({"Records": records}, Context())
    return {each["itemIdentifier"] for each in answer["batchItemFailures"]}


def deletion(key: Any) -> dict[str, Any]:
    return {"detail": {"object": {"key": key}}}


def notice(message_id: Any = "msg1", **fields: Any) -> dict[str, Any]:
    its = ses_event(NOBODY)["Records"][0]["ses"]
    mail = {**its["mail"], "messageId": message_id, **fields}
    return {"notificationType": "Received", "mail": mail, "receipt": its["receipt"]}


@pytest.fixture
def site(
    monkeypatch: pytest.MonkeyPatch, services: Services, ses_server: SesServer, printed: Printed
) -> Services:
    services.start(monkeypatch, audit, send, usage)
    know_key(services.dynamodb)
    know_domain(services.dynamodb)
    return services


POISON_OF_SEND = [*SHAPES.values(), *(deletion(key) for key in KEYS)]
POISON_OF_USAGE = [*SHAPES.values(), *(deletion(key) for key in KEYS), {"detail": None}, [], {}]
POISON_OF_AUDIT = [
    *SHAPES.values(),
    *map(notice, IDS),
    notice(timestamp="0001-01-01T00:00:00+14:00"),
    notice(timestamp=9**30),
    notice(headers=[{"name": "Subject", "value": "\ud800"}], message_id="half"),
]


@pytest.mark.parametrize("poison", POISON_OF_SEND, ids=lambda each: str(each)[:30])
def test_a_bounce_is_sent_whatever_stands_beside_it(
    site: Services, ses_server: SesServer, poison: Any
) -> None:
    assert handed_back(send, poison, encode(bounce("good"), QUEUE_KEY)) == set()
    assert [each.parameters["OriginalMessageId"] for each in ses_server.calls] == ["good"]


@pytest.mark.parametrize("poison", POISON_OF_USAGE, ids=lambda each: str(each)[:30])
def test_a_deletion_is_given_back_whatever_stands_beside_it(site: Services, poison: Any) -> None:
    put_mailbox(site.dynamodb, used_bytes=100)
    counted = item(pk="message#good", sk=f"usage#{ALICE}", mailbox=ALICE, size=100)
    site.dynamodb.put_item(TableName=BOUNCES, Item=counted)
    assert handed_back(usage, poison, deletion(f"{PREFIX}good")) <= {"id0"}
    assert mailbox_of(site.dynamodb)["used_bytes"] == "0"


@pytest.mark.parametrize("poison", POISON_OF_AUDIT, ids=lambda each: str(each)[:30])
def test_a_mail_is_audited_whatever_notice_stands_beside_its_own(
    site: Services, poison: Any
) -> None:
    assert handed_back(audit, poison, notice("good")) <= {"id0"}
    assert entry_of(site.dynamodb, "good", NOBODY)["state"] == "sent"


def test_a_notice_with_half_a_character_is_a_mails_and_no_trial_of_sess(site: Services) -> None:
    """JSON has it as an escape; a reader that refuses it would miss the mail without a word."""
    headers = [{"name": "Subject", "value": "\ud800"}]
    assert handed_back(audit, notice("half", headers=headers)) == set()
    assert entry_of(site.dynamodb, "half", NOBODY)["state"] == "sent"
