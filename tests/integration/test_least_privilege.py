"""No role of the template lets its function more of DynamoDB than the function asks for.

That it lets no less is held wherever a handler runs in these tests (`Witness` in conftest.py).
"""

import json
from fnmatch import fnmatchcase
from typing import Any

import boto3
import pytest

from bouncer.aws import clients
from bouncer.delivery.queue import encode
from functions.inbound import app as inbound
from functions.inbound import audit
from functions.receipt_rules import app as rules
from functions.send import app as send
from functions.usage import app as usage
from tests.fakes.bounces import NOBODY, bounce
from tests.integration.builders import (
    ALICE,
    BOUNCES,
    MAILBOXES,
    PREFIX,
    Answer,
    Context,
    SesServer,
    fail,
    know_domain,
    put_mail,
    put_mailbox,
    ses_event,
)
from tests.integration.conftest import HANDLERS, Services, Witness
from tests.integration.roles import Call, Statement, allowed, calls, statements

PLACES: Any = Context()


def batch(*bodies: Any) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": str(number),
                "body": each if isinstance(each, str) else json.dumps(each),
                "attributes": {"ApproximateReceiveCount": "1"},
            }
            for number, each in enumerate(bodies)
        ]
    }


def notice(*recipients: str, message_id: str) -> dict[str, Any]:
    """What SES tells the topic of a mail that nobody has handled."""
    its = ses_event(*recipients, message_id=message_id)["Records"][0]["ses"]
    return {"notificationType": "Received", "mail": its["mail"], "receipt": its["receipt"]}


def a_collision() -> Answer:
    reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
    return Answer(code="TransactionCanceledException", more={"CancellationReasons": reasons})


@pytest.fixture
def busy_day(
    monkeypatch: pytest.MonkeyPatch, services: Services, ses_server: SesServer, witness: Witness
) -> Witness:
    """Everything that each function ever does with a table has happened once."""
    services.start(
        monkeypatch,
        inbound,
        audit,
        send,
        usage,
        USAGE="managed",
        LOG_ADDRESSES="hash",
        RECEIPT_RULE_SET="inbound",
        RECEIPT_RULE="ses-bouncer",
    )
    dynamodb = services.dynamodb
    know_domain(dynamodb)
    put_mailbox(dynamodb, quota_bytes=150, used_bytes=0, quota_messages_per_day=5)
    put_mailbox(dynamodb, "full@example.com", quota_bytes=1, used_bytes=1)
    for message_id in ("msg1", "msg2", "msg3", "msg4", "msg5"):
        put_mail(services.s3, message_id, b"Subject: Hello\r\n\r\nBody")

    inbound.handler(ses_event(NOBODY, ALICE, "full@example.com"), PLACES)
    fail(dynamodb, "TransactWriteItems", a_collision())
    inbound.handler(ses_event(ALICE, message_id="msg2"), PLACES)
    # The next collides with mails that fill the mailbox: is it one of those that were counted?
    another = boto3.client("dynamodb")
    full = {":full": {"N": "150"}}

    def fill(parsed: dict[str, Any], **_: Any) -> None:
        if MAILBOXES in parsed.get("Responses", {}):  # it was just looked up
            another.update_item(
                TableName=MAILBOXES,
                Key={"address": {"S": ALICE}},
                UpdateExpression="SET used_bytes = :full",
                ExpressionAttributeValues=full,
            )

    for number, deciding in enumerate((inbound.handler, audit.handler)):
        dynamodb.meta.events.register("after-call.dynamodb", fill)
        fail(dynamodb, "TransactWriteItems", a_collision())
        its = f"msg{number + 3}"
        event = ses_event(ALICE, message_id=its) if deciding is inbound.handler else None
        deciding(event or batch(notice(ALICE, message_id=its)), PLACES)
        dynamodb.meta.events.unregister("after-call.dynamodb", fill)
        put_mailbox(dynamodb, quota_bytes=150, used_bytes=0)
    audit.handler(batch(notice(NOBODY, ALICE, message_id="msg5")), PLACES)

    key = dynamodb.get_item(TableName=BOUNCES, Key={"pk": {"S": "key"}, "sk": {"S": "log"}})
    assert key["Item"]["secret"]["B"]
    send.handler(batch(encode(bounce("queued"), bytes(key["Item"]["secret"]["B"]))), PLACES)
    usage.handler(batch({"detail": {"object": {"key": f"{PREFIX}msg1"}}}), PLACES)

    monkeypatch.delenv("AWS_ENDPOINT_URL_SES")  # the receipt rules are moto's
    ses = boto3.client("ses")
    ses.create_receipt_rule_set(RuleSetName="inbound")
    rule: Any = {"Name": "ses-bouncer", "Enabled": True, "Actions": []}
    ses.create_receipt_rule(RuleSetName="inbound", Rule=rule)
    monkeypatch.setattr(clients, "ses_rules", lambda: ses)
    rules.handler({}, PLACES)
    return witness


def beyond(statement: Statement, made: list[Call]) -> set[str]:
    """What a statement allows and none of these calls needed."""
    used = [each for each in made if statement.allows(each)]
    never = {each for each in statement.actions if each not in {call.action for call in used}}
    never |= {
        pattern
        for pattern in statement.values("dynamodb:LeadingKeys")
        if not any(fnmatchcase(call.leading_key, pattern) for call in used)
    }
    named = {name for call in used for name in call.attributes}
    never |= set(statement.values("dynamodb:Attributes")) - named
    return never


def test_every_role_lets_its_function_what_it_asks_and_no_more(busy_day: Witness) -> None:
    too_wide = {
        (role, statement.sid): never
        for role in HANDLERS
        for statement in statements(role)
        if (never := beyond(statement, [call for who, call in busy_day.seen if who == role]))
    }
    assert too_wide == {}
    assert busy_day.refused == []


# --- What each role must not ---------------------------------------------------------------------

KEY = {"TableName": BOUNCES, "Key": {"pk": {"S": "key"}, "sk": {"S": "log"}}}
LIMITER = {"TableName": BOUNCES, "Key": {"pk": {"S": "limiter"}, "sk": {"S": "send-bounce"}}}
LEDGER = {"TableName": BOUNCES, "Key": {"pk": {"S": "message#1"}, "sk": {"S": "recipient#a@b"}}}
MAILBOX = {"TableName": MAILBOXES, "Key": {"address": {"S": ALICE}}}
SET: dict[str, Any] = {"UpdateExpression": "SET #a = :b"}


def naming(attribute: str) -> dict[str, Any]:
    return {"UpdateExpression": "SET #a = :a", "ExpressionAttributeNames": {"#a": attribute}}


FORBIDDEN: list[tuple[str, str, str, dict[str, Any]]] = [
    ("the stack's key is read by nobody who signs nothing", "UsageRole", "GetItem", KEY),
    ("the same", "RulesRole", "GetItem", KEY),
    ("the key is not read but by making it", "InboundRole", "GetItem", KEY),
    ("the pace", "UsageRole", "UpdateItem", {**LIMITER, **naming("next_slot")}),
    ("what a bounce came to", "UsageRole", "UpdateItem", {**LEDGER, **naming("state")}),
    ("the ledger", "RulesRole", "UpdateItem", {**LEDGER, **naming("state")}),
    ("a quota", "InboundRole", "UpdateItem", {**MAILBOX, **naming("quota_bytes")}),
    ("a quota", "UsageRole", "UpdateItem", {**MAILBOX, **naming("quota_bytes")}),
    (
        "a whole mailbox, as the answer to a write",
        "UsageRole",
        "UpdateItem",
        {**MAILBOX, **naming("used_bytes"), "ReturnValues": "ALL_OLD"},
    ),
    ("a whole mailbox", "InboundRole", "GetItem", MAILBOX),
    (
        "a password hash in a table of the user's own",
        "AuditRole",
        "BatchGetItem",
        {
            "RequestItems": {
                MAILBOXES: {"Keys": [MAILBOX["Key"]], "ProjectionExpression": "address, password"}
            }
        },
    ),
    ("the whole directory", "InboundRole", "Scan", {"TableName": MAILBOXES}),
    ("whole items of it", "RulesRole", "Scan", {"TableName": MAILBOXES}),
    ("an entry's end", "SendRole", "DeleteItem", LEDGER),
]


@pytest.mark.parametrize(
    ("role", "operation", "request_of"),
    [each[1:] for each in FORBIDDEN],
    ids=[f"{role}-{operation}-{what}" for what, role, operation, _ in FORBIDDEN],
)
def test_no_role_lets_it(
    monkeypatch: pytest.MonkeyPatch, role: str, operation: str, request_of: dict[str, Any]
) -> None:
    for name, table in (("BOUNCE", BOUNCES), ("PACE", BOUNCES), ("MAILBOX", MAILBOXES)):
        monkeypatch.setenv(f"{name}_TABLE", table)
    asked = list(calls(operation, request_of))
    assert asked
    assert not any(allowed(role, each, renamed=False) for each in asked)
