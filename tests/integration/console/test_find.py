"""`bouncer find`, with the lines that the functions really write."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_s3 import S3Client

from bouncer.aws.discretion import Discretion
from bouncer.aws.mail_records import DynamoMailRecords
from bouncer.aws.stack_key import stack_key
from bouncer.aws.telemetry import Telemetry
from bouncer.delivery.fate import Fate
from bouncer.delivery.ledger import BounceState
from bouncer.guards import GuardName, OtherReason
from bouncer.headers import Header
from bouncer.inbound import Handled
from bouncer.mail_record import MailRecord, RecipientRecord
from bouncer.message import InboundMessage
from bouncer.plan import Disposition, Plan
from bouncer.policy.decide import Decision, Outcome
from bouncer.settings import LogAddresses
from bouncer_console.output import screen
from tests.fakes.bounces import NOBODY, bounce
from tests.integration.builders import ALICE, BOUNCES, BUCKET, PAT, PREFIX
from tests.integration.conftest import Printed
from tests.integration.console.builders import (
    Stack,
    bouncer,
    error_of,
    printed_json,
    settle,
    text_of,
)


class Writer:
    """Writes a function's lines into the stack's log."""

    def __init__(self, stack: Stack, printed: Printed, dynamodb: DynamoDBClient) -> None:
        self.stack = stack
        self._printed = printed
        self._dynamodb = dynamodb
        self._written = 0
        self.addresses = LogAddresses.FULL

    def _telemetry(self) -> Telemetry:
        self.stack.parameters["LogAddresses"] = self.addresses
        return Telemetry(
            Logger(serialize_stacktrace=False),
            service="ses-bouncer",
            discretion=Discretion(self.addresses, lambda: stack_key(self._dynamodb, BOUNCES)),
        )

    def mail(
        self,
        message_id: str,
        *decisions: Decision,
        fates: tuple[Fate, ...] = (),
        sender: str = PAT,
        minutes_ago: float = 5,
        header: str = "<hello.1@sender.example>",
        suppressed: GuardName | OtherReason | None = None,
    ) -> None:
        mail = InboundMessage(
            message_id=message_id,
            received_at=datetime.now(UTC) - timedelta(minutes=minutes_ago),
            source=sender,
            recipients=tuple(each.recipient for each in decisions),
            headers=(Header("Message-ID", header),),
        )
        plan = Plan(mail=mail, decisions=decisions, bounce=bounce(), suppressed=suppressed)
        self._telemetry().handled(Handled(plan=plan, fates=fates, disposition=Disposition.CONTINUE))
        self._take(minutes_ago)

    def sent(self, *fates: Fate, minutes_ago: float = 1) -> None:
        self._telemetry().sent(fates)
        self._take(minutes_ago)

    def _take(self, minutes_ago: float) -> None:
        lines = self._printed.lines
        for each in lines[self._written :]:
            text = json.dumps(each, ensure_ascii=False)
            self.stack.logs.add(datetime.now(UTC) - timedelta(minutes=minutes_ago), text)
        self._written = len(lines)


@pytest.fixture
def log(stack: Stack, printed: Printed, dynamodb: DynamoDBClient) -> Writer:
    return Writer(stack, printed, dynamodb)


def accepted(recipient: str = ALICE) -> Decision:
    return Decision(recipient=recipient, outcome=Outcome.ACCEPT, reason="accept")


def refused(recipient: str = NOBODY, **fields: Any) -> Decision:
    given: dict[str, Any] = {"outcome": Outcome.BOUNCE, "reason": "unknown-recipient", **fields}
    return Decision(recipient=recipient, **given)


def fate(state: BounceState, recipient: str = NOBODY, message_id: str = "msg1") -> Fate:
    return Fate(message_id=message_id, recipient=recipient, state=state, reason="unknown-recipient")


def ids(*arguments: str) -> list[str]:
    return [each["message_id"] for each in printed_json("find", *arguments)]


def fill(log: Writer) -> None:
    log.mail("msg1", refused(), fates=(fate(BounceState.SENT),), minutes_ago=10)
    log.mail("msg2", accepted(), sender="Jo@Other.Example", header="<two@x.example>")
    log.mail("msg3", accepted(), refused("bob@example.com"), minutes_ago=60 * 30)


def test_mails_are_found_accepted_ones_too_the_newest_first(log: Writer) -> None:
    fill(log)
    assert ids() == ["msg2", "msg1"]
    assert ids("--since", "7d") == ["msg2", "msg1", "msg3"]
    assert ids("--since", "7d", "--until", "24h") == ["msg3"]
    assert ids("--recipient", ALICE.upper()) == ["msg2"]
    assert ids("--sender", "jo@other.example") == ["msg2"]
    assert ids("--sender", "@sender.example") == ["msg1"]
    assert ids("--message-id", "<two@x.example>") == ["msg2"]
    assert ids(PAT) == ids("msg1") == ["msg1"]
    assert ids("--sender", PAT, "--recipient", ALICE) == []


def test_the_table_has_the_id_and_what_was_done(log: Writer) -> None:
    fill(log)
    text = text_of("find")
    for part in ("msg1", PAT, NOBODY, "bounced", "unknown-recipient", "msg2", "accepted"):
        assert part in text


def test_whom_it_was_looked_for_comes_first(log: Writer) -> None:
    log.mail("msg1", *(accepted(f"user{n}@example.com") for n in range(50)), refused())
    text = text_of("find", "--recipient", NOBODY)
    assert NOBODY in text
    assert "and 46 more" in text
    assert printed_json("find", NOBODY)[0]["recipients"][0]["recipient"] == NOBODY


def test_the_state_is_the_ledgers_where_the_log_saw_only_the_beginning(
    log: Writer, dynamodb: DynamoDBClient
) -> None:
    log.mail("msg1", refused(), fates=(fate(BounceState.QUEUED),))
    assert "bounce waits" in text_of("find")
    settle(dynamodb, BounceState.SENT)
    (mail,) = printed_json("find")
    assert mail["recipients"][0]["state"] == "sent"
    assert mail["recipients"][0]["bounce_id"] == "bounce-1"


def test_the_worker_s_line_is_part_of_its_mail(log: Writer) -> None:
    log.mail("msg1", refused(), fates=(fate(BounceState.QUEUED),))
    log.sent(fate(BounceState.SENT))
    (mail,) = printed_json("find", NOBODY)
    assert (mail["sender"], mail["recipients"][0]["state"]) == (PAT, "sent")


def test_with_hashes_in_the_log_the_same_is_asked_for(log: Writer) -> None:
    log.addresses = LogAddresses.HASH
    fill(log)
    assert ids("--recipient", ALICE.upper()) == ["msg2"]
    assert ids("--sender", "@sender.example") == ["msg1"]
    assert ids("--message-id", "two@x.example") == ["msg2"]
    assert ids(PAT) == ["msg1"]
    assert PAT not in bouncer("find").output


def test_without_the_key_hashes_are_found_by_time_only(log: Writer, stack: Stack) -> None:
    log.addresses = LogAddresses.HASH
    fill(log)

    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetItem")

    stack.hooks.append(("dynamodb", "before-call.dynamodb.GetItem", refuse))
    assert "dynamodb:GetItem" in error_of("find", PAT)
    assert ids() == ["msg2", "msg1"]


def test_without_addresses_records_and_stored_mails_are_asked(
    log: Writer, dynamodb: DynamoDBClient, s3: S3Client
) -> None:
    log.addresses = LogAddresses.NONE
    fill(log)
    records = DynamoMailRecords(dynamodb, BOUNCES, retention=timedelta(days=1))
    for message_id, recipient, outcome, reason in (
        ("msg1", NOBODY, "bounce", "unknown-recipient"),
        ("msg2", ALICE, "accept", "accept"),
    ):
        records.add(
            MailRecord(
                message_id=message_id,
                received_at=datetime.now(UTC),
                recipients=frozenset({RecipientRecord(recipient, outcome, reason)}),
            ),
            until=datetime.now(UTC) + timedelta(minutes=1),
        )
    stored = b"Return-Path: <jo@other.example>\r\nMessage-ID: <two@x.example>\r\n\r\nHello\r\n"
    s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}msg2", Body=stored)
    assert ids("--recipient", NOBODY) == ["msg1"]
    assert ids("--recipient", ALICE) == ["msg2"]
    assert ids("--sender", "jo@other.example") == ["msg2"]
    assert ids("--message-id", "<two@x.example>") == ["msg2"]
    assert ids("msg1") == ["msg1"]
    assert ids("--sender", PAT) == []
    (mail,) = printed_json("find", "--recipient", NOBODY)
    assert mail["recipients"][0]["recipient"] == NOBODY


def test_what_a_mail_says_is_text_and_bounded(log: Writer) -> None:
    evil = '"\x1b]0;owned\x07[red]<script>alert(1)</script>"@evil.example'
    log.mail("msg1", accepted(), sender=evil, header=f"<{'x' * 10_000}@evil.example>")
    output = bouncer("find").output
    assert "\x1b" not in output
    assert "\\x1b]0;owned" in output
    assert "[red]" in output
    assert len(output) < 3000
    assert ids("--sender", evil) == ["msg1"]


def test_a_pattern_of_regular_expressions_is_a_text_like_any_other(log: Writer) -> None:
    fill(log)
    for text in (".*", "/", '" | filter 1=1', "a\nb", "(", "\\", "ä@ö.example", "\udcff@x.example"):
        assert ids(text) == []


def test_nothing_found_says_how_far_it_looked(log: Writer) -> None:
    result = bouncer("find", NOBODY)
    assert "No mail is found." in result.stdout
    assert "--since 7d" in result.stderr


def test_what_the_worker_did_does_not_push_mails_out(log: Writer) -> None:
    for number in range(12):
        message_id = f"m{number}"
        queued = fate(BounceState.QUEUED, message_id=message_id)
        log.mail(message_id, refused(), fates=(queued,), minutes_ago=20 + number)
        log.sent(fate(BounceState.SENT, message_id=message_id), minutes_ago=number)
    mails = printed_json("find", "--limit", "5")
    assert [each["message_id"] for each in mails] == [f"m{number}" for number in range(5)]
    assert {each["sender"] for each in mails} == {PAT}
    assert {each["recipients"][0]["state"] for each in mails} == {"sent"}


def test_more_than_is_shown_is_said(log: Writer) -> None:
    for number in range(12):
        log.mail(f"m{number}", accepted(), minutes_ago=number)
    result = bouncer("find", "--limit", "10")
    assert "m9" in result.stdout
    assert "m10" not in result.stdout
    assert "There are more" in result.stderr
    assert "of log were looked through: under $0.0001" in result.stderr


@pytest.mark.parametrize("since", ["yesterday", "24", "-1h", "99999w9"])
def test_a_time_that_is_none_is_told_with_what_it_may_be(stack: Stack, since: str) -> None:
    assert "24h, 90m or 7d" in error_of("find", "--since", since, code=2)


@pytest.mark.parametrize("width", [60, 160])
def test_an_id_can_be_copied_from_every_screen(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(screen, "width", width)
    message_id = "x" * 40
    line = {
        "message": "mail handled",
        "ses_message_id": message_id,
        "sender": PAT,
        "disposition": "CONTINUE",
        "recipients": [
            {"recipient": f"r{n}@example.com", "outcome": "accept", "reason": "accept"}
            for n in range(9)
        ],
    }
    stack.logs.add(datetime.now(UTC) - timedelta(minutes=1), json.dumps(line))
    output = bouncer("find").stdout
    assert message_id in output
    assert "r0@example.com" in output
    assert "and 4 more" in output
