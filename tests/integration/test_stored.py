"""What earlier versions stored is handled; what today's code stores has a file in the corpus."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from bouncer.aws.budget import DynamoBudget
from bouncer.aws.directory import DynamoDirectory
from bouncer.aws.ledger import DynamoLedger
from bouncer.aws.mail_records import DynamoMailRecords
from bouncer.aws.slots import DynamoSlots
from bouncer.aws.stack_key import stack_key
from bouncer.aws.usage import DynamoUsage
from bouncer.delivery.ledger import SETTLED, BounceState
from bouncer.delivery.queue import verify
from bouncer.guards import OtherReason
from bouncer.limiter import Busy, Granted
from bouncer.mail_record import RecipientRecord
from bouncer.policy.file import BudgetSection
from functions.send import app
from tests.integration.builders import (
    BOUNCES,
    MAILBOXES,
    Context,
    SesServer,
    mailbox_of,
    set_date,
)
from tests.integration.conftest import Services
from tests.integration.stored import (
    BY_A_MAIL_HOST,
    ENTRIES,
    KEY,
    MAIL,
    NOBODY,
    NOW,
    QUEUED,
    RETENTION,
    SIZE,
    UNTIL,
    bounce,
    formats,
    item_of,
    written,
)

pytestmark = pytest.mark.parametrize("file", formats(), ids=lambda file: f"format {file.stem}")


@pytest.fixture
def queue_messages(file: Path) -> list[str]:
    found: list[str] = json.loads(file.read_text())["queue"]
    return found


@pytest.fixture
def dynamodb(file: Path, dynamodb: Any) -> Any:
    """Both tables, filled."""
    content = json.loads(file.read_text())
    for table in (BOUNCES, MAILBOXES):
        for item in content[table]:
            dynamodb.put_item(TableName=table, Item=item_of(item))
    set_date(dynamodb, None)
    return dynamodb


def test_today_s_code_writes_the_newest_of_them(file: Path) -> None:
    """Else `python -m tests.integration.stored` adds a file; those before it stay, and are read."""
    if file == formats()[-1]:
        assert json.loads(file.read_text()) == written()


def test_mailboxes_are_found(dynamodb: Any) -> None:
    bad: list[str] = []
    directory = DynamoDirectory(dynamodb, MAILBOXES, {}, lambda address, _: bad.append(address))
    asked = ["alice-tag@example.com", NOBODY, "sales@example.com", "any@shop.example.com"]
    found = directory.look_up([*asked, *(each.address for each in ENTRIES[:5])])
    assert bad == []
    taken_by = {each: answer.mailbox and answer.mailbox.address for each, answer in found.items()}
    assert [taken_by[each] for each in asked] == [
        "alice@example.com",
        None,
        "alice@example.com",
        "@shop.example.com",
    ]
    assert found[NOBODY].domain_known
    alice, *others = ENTRIES
    counted = replace(alice, used_bytes=SIZE, messages_day="2099-06-01", messages_today=2)
    for entry in (counted, *others[:2], others[3]):
        assert found[entry.address].mailbox == entry


def test_the_ledger_lets_claim_what_waits_and_nothing_else(dynamodb: Any) -> None:
    ledger = DynamoLedger(dynamodb, BOUNCES, retention=RETENTION, clock=lambda: NOW)
    mine: dict[str, list[int]] = {}
    settled: dict[str, list[BounceState]] = {}
    held = set()
    for message_id in (
        "queued",
        "queued-once-unanswered",
        "dead-lettered",
        "rejected",
        "rejected-unanswered",
        "claimed",
        "claimed-once-unanswered",
        "sent",
        "suppressed",
        "expired",
    ):
        claims = ledger.claim(message_id, {NOBODY: "unknown-recipient"}, owner="me", until=UNTIL)
        mine[message_id] = [*claims.mine.values()]
        settled[message_id] = [*claims.settled.values()]
        if claims.in_flight:
            held.add(message_id)
    assert {each: lost for each, lost in mine.items() if lost} == {
        "queued": [0],
        "queued-once-unanswered": [1],
        "dead-lettered": [0],
        "rejected": [0],
    }
    assert {each: states for each, states in settled.items() if states} == {
        **{str(state): [state] for state in SETTLED},
        "rejected-unanswered": [BounceState.REJECTED],
    }
    assert held == {"claimed", "claimed-once-unanswered"}


def test_a_claim_that_was_left_behind_is_taken_over_with_what_it_knew(dynamodb: Any) -> None:
    later = NOW + timedelta(hours=1)
    ledger = DynamoLedger(dynamodb, BOUNCES, retention=RETENTION, clock=lambda: later)
    claims = ledger.claim(
        "claimed-once-unanswered", {NOBODY: "x"}, owner="me", until=later + timedelta(seconds=20)
    )
    assert claims.mine == {NOBODY: 1}


def test_the_ledger_tells_what_became_of_each(dynamodb: Any) -> None:
    ledger = DynamoLedger(dynamodb, BOUNCES, retention=RETENTION, clock=lambda: NOW)
    (sent,) = ledger.history("sent")
    assert (sent.recipient, sent.bounce_id, sent.status) == (NOBODY, "0102018d-5f3a", "5.1.1")
    assert (sent.received_at, sent.updated_at) == (NOW, NOW)
    (rejected,) = ledger.history("rejected")
    assert rejected.why == "MessageRejected: Email address is not verified."


def test_the_worker_sends_what_waits_once(
    services: Services,
    dynamodb: Any,
    ses_server: SesServer,
    monkeypatch: pytest.MonkeyPatch,
    queue_messages: list[str],
) -> None:
    services.start(monkeypatch, app)
    records = [
        {"messageId": name, "body": body, "attributes": {"ApproximateReceiveCount": "1"}}
        for name, body in zip(QUEUED, queue_messages, strict=True)
    ]
    # The slot that is stored is of the year 2099: no clock of today's would wait for it.
    limiter = {"pk": {"S": "limiter"}, "sk": {"S": "send-bounce"}}
    dynamodb.delete_item(TableName=BOUNCES, Key=limiter)
    context = Context(function_name="ses-bouncer-send", seconds_left=90)
    answer = app.handler({"Records": records}, context)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "claimed"}]}
    sent_for = [call.parameters["OriginalMessageId"] for call in ses_server.calls]
    assert sorted(sent_for) == ["dead-lettered", "queued", "queued-once-unanswered"]
    (whole,) = [c.parameters for c in ses_server.calls if "Arn" in str([*c.parameters])]
    assert "new@example.net" in whole.values()


def test_the_queue_s_messages_are_the_stack_s_and_whole(
    dynamodb: Any, queue_messages: list[str]
) -> None:
    key = stack_key(dynamodb, BOUNCES)
    assert key == KEY
    assert [verify(body, key) for body in queue_messages] == [bounce(each) for each in QUEUED]


def test_the_records_of_mails_say_who_was_handled(dynamodb: Any) -> None:
    records = DynamoMailRecords(dynamodb, BOUNCES, retention=RETENTION, clock=lambda: NOW)
    found = records.of(["sent", "late"])
    assert found["sent"].received_at == NOW
    assert found["sent"].recipients == {
        RecipientRecord(NOBODY, "bounce", "unknown-recipient"),
        RecipientRecord('"a b"@example.com', "accept", "accept"),
    }
    assert (found["sent"].found_undecided, found["late"].found_undecided) == (False, True)


def test_what_was_counted_is_given_back_once(dynamodb: Any) -> None:
    usage = DynamoUsage(
        dynamodb,
        bounce_table=BOUNCES,
        mailbox_table=MAILBOXES,
        remember=RETENTION,
        clock=lambda: NOW,
    )
    for _ in range(2):
        assert usage.give_back({"counted", "deleted"}) == set()
        assert mailbox_of(dynamodb, "alice@example.com")["used_bytes"] == "0"


@pytest.mark.parametrize("mail", [MAIL, BY_A_MAIL_HOST], ids=["domain", "mail host"])
def test_what_a_sender_has_caused_still_counts(dynamodb: Any, mail: Any) -> None:
    budget = DynamoBudget(dynamodb, BOUNCES, clock=lambda: NOW)
    limits = replace(BudgetSection(), per_sender=4)
    assert budget.charge(mail, 2, limits, until=UNTIL) is OtherReason.SENDER_BUDGET
    assert budget.charge(mail, 1, limits, until=UNTIL) is None
    network = replace(BudgetSection(), per_sender=9, per_client_network=4)
    if mail is MAIL:
        assert budget.charge(mail, 1, network, until=UNTIL) is OtherReason.CLIENT_BUDGET


def test_nobody_gets_a_slot_before_the_next_one(dynamodb: Any) -> None:
    slots = DynamoSlots(dynamodb, BOUNCES)
    now = NOW.timestamp()
    assert slots.reserve(now, 1.075, 0.5, 600) == Busy(now + 1.075)
    assert slots.reserve(now, 1.075, 3, 600) == Granted(now + 1.075)
