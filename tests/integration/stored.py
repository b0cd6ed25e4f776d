"""What the stack stores, each kind of item and message once, as today's code writes it.

`python -m tests.integration.stored` writes it into a new file of tests/corpus/stored, beside those
of the formats before. It is of the year 2099: nothing in it has expired.
"""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
from moto import mock_aws
from msgspec.structs import replace

from bouncer.aws.budget import DynamoBudget
from bouncer.aws.ledger import DynamoLedger
from bouncer.aws.mail_records import DynamoMailRecords
from bouncer.aws.mailbox_table import MailboxTable
from bouncer.aws.slots import DynamoSlots
from bouncer.aws.stack_key import stack_key
from bouncer.aws.usage import DynamoUsage
from bouncer.delivery.bounce import (
    Bounce,
    BouncedRecipient,
    BounceType,
    DsnAction,
    ExtensionField,
    MessageDsn,
    RecipientDsnFields,
)
from bouncer.delivery.ledger import UNANSWERED, BounceState, LedgerEntry
from bouncer.delivery.queue import encode
from bouncer.headers import Header
from bouncer.mail_record import MailRecord, RecipientRecord
from bouncer.mailboxes import Mailbox, Status
from bouncer.message import InboundMessage, Verdicts
from bouncer.policy.file import BudgetSection
from tests.integration.builders import (
    BOUNCES,
    MAILBOXES,
    create_bounce_table,
    create_mailbox_table,
    set_date,
)

FILES = Path(__file__).parent.parent / "corpus" / "stored"

NOW = datetime(2099, 6, 1, 12, tzinfo=UTC)
UNTIL = NOW + timedelta(seconds=25)
RETENTION = timedelta(days=14)
KEY = bytes(range(32))
NOBODY = "nobody@example.com"
GONE = "gone@example.com"
IDENTITY = "arn:aws:ses:us-east-1:123456789012:identity/example.com"
OWNER = "0b1e8c7a"
SIZE = 40_960

QUEUED = ("queued", "queued-once-unanswered", "dead-lettered", "sent", "claimed")
"""The ids of mails whose bounces are in the queue, whatever the ledger says of them."""

MAILBOX = Mailbox(
    address="alice@example.com",
    quota_bytes=10**9,
    quota_messages_per_day=500,
    size_limit_bytes=10**7,
)
ENTRIES = (
    MAILBOX,
    Mailbox(
        address="bob@example.com",
        status=Status.DISABLED,
        status_until=datetime(2099, 7, 1, tzinfo=UTC),
    ),
    Mailbox(address="full@example.com", quota_bytes=1000, used_bytes=1000),
    Mailbox(address="sales@example.com", alias_for="alice@example.com"),
    Mailbox(address=GONE, moved_to="new@example.net", tell_new_address=True),
    Mailbox(address="@example.com", catch_all=False, separator="-"),
    Mailbox(address="@shop.example.com", quota_bytes=5000),
)

MAIL = InboundMessage(
    message_id="mail1",
    received_at=NOW,
    source="pat@sender.example",
    recipients=(NOBODY,),
    headers=(
        Header(
            name="Received",
            value="from mx.sender.example (mx.sender.example [192.0.2.17]) by "
            "inbound-smtp.us-east-1.amazonaws.com with SMTP id mail1",
        ),
    ),
    verdicts=Verdicts(spf="PASS"),
)
BY_A_MAIL_HOST = replace(MAIL, source="pat@gmail.com")


def bounce(message_id: str) -> Bounce:
    """As the worker gets it; one of them has everything that a bounce may have."""
    plain = Bounce(
        message_id=message_id,
        received_at=NOW,
        bounce_sender="mailer-daemon@example.com",
        recipients=(
            BouncedRecipient(
                recipient=NOBODY,
                reason="unknown-recipient",
                bounce_type=BounceType.DOES_NOT_EXIST,
                explanation="There is no mailbox nobody@example.com.",
            ),
        ),
    )
    if message_id != "queued":
        return plain
    moved = BouncedRecipient(
        recipient=GONE,
        reason="mailbox-moved",
        recipient_arn=IDENTITY,
        dsn_fields=RecipientDsnFields(
            action=DsnAction.FAILED,
            status="5.1.6",
            final_recipient="new@example.net",
            remote_mta="dns; mx.example.com",
            diagnostic_code="smtp; 551 5.1.6 moved",
            last_attempt_date=NOW,
            extension_fields=(ExtensionField("X-Moved", "yes"),),
        ),
    )
    return replace(
        plain,
        recipients=(*plain.recipients, moved),
        bounce_sender_arn=IDENTITY,
        message_dsn=MessageDsn(
            reporting_mta="dns; mx.example.com",
            arrival_date=NOW,
            extension_fields=(ExtensionField("X-Ses-Bouncer", "1"),),
        ),
    )


def written() -> dict[str, Any]:
    """Both tables' items and the queue's messages, as JSON has them."""
    with mock_aws():
        client: Any = boto3.client("dynamodb", region_name="us-east-1")
        create_bounce_table(client)
        create_mailbox_table(client)
        set_date(client, None)
        with patch("secrets.token_bytes", return_value=KEY):
            stack_key(client, BOUNCES)
        _write_ledger(DynamoLedger(client, BOUNCES, retention=RETENTION, clock=lambda: NOW))
        _write_records(DynamoMailRecords(client, BOUNCES, retention=RETENTION, clock=lambda: NOW))
        budget = DynamoBudget(client, BOUNCES, clock=lambda: NOW)
        for mail in (MAIL, BY_A_MAIL_HOST):
            assert budget.charge(mail, 3, BudgetSection(), until=UNTIL) is None
        DynamoSlots(client, BOUNCES).reserve(NOW.timestamp(), 1.075, 3, 600)
        directory = MailboxTable(client, MAILBOXES)
        for each in ENTRIES:
            assert directory.add(each)
        usage = DynamoUsage(
            client,
            bounce_table=BOUNCES,
            mailbox_table=MAILBOXES,
            remember=RETENTION,
            clock=lambda: NOW,
        )
        counted = MAILBOX
        for message_id in ("counted", "deleted"):
            charged = usage.charge(counted, message_id, SIZE, NOW, enforce=True)
            counted = charged.mailbox
        assert usage.give_back({"deleted"}) == set()
        tables = {name: _items(client, name) for name in (BOUNCES, MAILBOXES)}
    return {**tables, "queue": [encode(bounce(each), KEY) for each in QUEUED]}


def _write_ledger(ledger: DynamoLedger) -> None:
    def claimed(message_id: str, *, lost_answers: int = 0) -> LedgerEntry:
        claims = ledger.claim(message_id, {NOBODY: "unknown-recipient"}, owner=OWNER, until=UNTIL)
        assert claims.mine
        return LedgerEntry(
            message_id=message_id,
            recipient=NOBODY,
            state=BounceState.CLAIMED,
            reason="unknown-recipient",
            status="5.1.1",
            received_at=NOW,
            lost_answers=lost_answers,
        )

    def settle(entry: LedgerEntry, **facts: Any) -> None:
        assert ledger.settle([replace(entry, **facts)], owner=OWNER, until=UNTIL) == {}

    def record(message_id: str, **facts: Any) -> LedgerEntry:
        return LedgerEntry(message_id=message_id, recipient=NOBODY, received_at=NOW, **facts)

    claimed("claimed")
    claimed("claimed-once-unanswered")
    ledger.note_lost_answers("claimed-once-unanswered", {NOBODY: 1}, owner=OWNER, until=UNTIL)
    settle(claimed("sent"), state=BounceState.SENT, bounce_id="0102018d-5f3a")
    settle(
        claimed("rejected"),
        state=BounceState.REJECTED,
        error_code="MessageRejected",
        detail="Email address is not verified.",
    )
    settle(
        claimed("rejected-unanswered", lost_answers=2),
        state=BounceState.REJECTED,
        error_code=UNANSWERED,
    )
    settle(claimed("queued-once-unanswered", lost_answers=1), state=BounceState.QUEUED)
    for state in (BounceState.QUEUED, BounceState.EXPIRED):
        entry = record(state, state=state, reason="unknown-recipient", status="5.1.1")
        assert ledger.record([entry], until=UNTIL) == {}
    suppressed = record("suppressed", state=BounceState.SUPPRESSED, reason="auto-submitted")
    assert ledger.record([suppressed], until=UNTIL) == {}
    given_up = record("dead-lettered", state=BounceState.DEAD_LETTERED, reason="unknown-recipient")
    assert ledger.give_up([given_up], until=UNTIL) == {}


def _write_records(records: DynamoMailRecords) -> None:
    def add(message_id: str, *recipients: RecipientRecord, found_undecided: bool) -> None:
        record = MailRecord(
            message_id=message_id,
            received_at=NOW,
            recipients=frozenset(recipients),
            found_undecided=found_undecided,
        )
        records.add(record, until=UNTIL)

    add("sent", RecipientRecord(NOBODY, "bounce", "unknown-recipient"), found_undecided=False)
    add("sent", RecipientRecord('"a b"@example.com', "accept", "accept"), found_undecided=False)
    add("late", RecipientRecord(NOBODY, "bounce", "found-undecided"), found_undecided=True)


def _items(client: Any, table: str) -> list[dict[str, Any]]:
    pages = client.get_paginator("scan").paginate(TableName=table)
    items = [_plain(item) for page in pages for item in page["Items"]]
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item in DynamoDB's own JSON, in which bytes are base64 and sets have an order."""

    def value(kind: str, each: Any) -> Any:
        if kind == "B":
            return base64.b64encode(bytes(each)).decode()
        return sorted(each) if kind == "SS" else each

    return {
        name: {kind: value(kind, each) for kind, each in attribute.items()}
        for name, attribute in sorted(item.items())
    }


def item_of(plain: Mapping[str, Any]) -> dict[str, Any]:
    """An item as boto3 takes it."""
    return {
        name: {"B": base64.b64decode(attribute["B"])} if "B" in attribute else attribute
        for name, attribute in plain.items()
    }


def formats() -> list[Path]:
    """The files, from the oldest format to today's."""
    return sorted(FILES.glob("*.json"), key=lambda path: int(path.stem))


if __name__ == "__main__":
    newest = int(formats()[-1].stem) if formats() else 0
    file = FILES / f"{newest + 1}.json"
    file.write_text(json.dumps(written(), indent=1) + "\n")
