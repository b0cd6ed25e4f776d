"""`bouncer send-bounce`."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_s3 import S3Client

from bouncer.aws.ledger import DynamoLedger
from bouncer.delivery.bounce import STATUS, BounceType
from bouncer.delivery.ledger import BounceState, LedgerEntry
from tests.fakes.bounces import BOUNCE_SENDER, NOBODY
from tests.integration.builders import BOUNCES, SesServer, entry_of, put_mail
from tests.integration.conftest import Services
from tests.integration.console.builders import (
    Stack,
    bouncer,
    error_of,
    file,
    printed_json,
    text_of,
)

RECIPIENT = f"Recipient={NOBODY},BounceType=DoesNotExist"
BY_HAND = ["--original-message-id", "msg1", "--bounce-sender", BOUNCE_SENDER]


@pytest.fixture
def ses(stack: Stack, ses_server: SesServer, services: Services) -> SesServer:
    return ses_server


def just_now() -> list[str]:
    moment = datetime.now(UTC) - timedelta(minutes=1)
    return ["--received-at", moment.strftime("%Y-%m-%dT%H:%M:%S")]


def send_bounce(*options: str, code: int = 0) -> Any:
    return printed_json("send-bounce", *BY_HAND, *options, code=code)


def test_a_bounce_by_hand_is_sent_and_stands_in_the_ledger(
    ses: SesServer, dynamodb: DynamoDBClient
) -> None:
    (fate,) = send_bounce("--bounced-recipient-info-list", RECIPIENT, *just_now())
    assert (fate["state"], fate["bounce_id"]) == ("sent", "bounce-1")
    (call,) = ses.calls
    assert call.parameters["BouncedRecipientInfoList.member.1.BounceType"] == "DoesNotExist"
    entry = entry_of(dynamodb, "msg1", NOBODY)
    assert (entry["state"], entry["reason"]) == ("sent", "operator")


def test_a_bounce_by_hand_is_sent_once(ses: SesServer) -> None:
    options = ["--bounced-recipient-info-list", RECIPIENT, *just_now()]
    send_bounce(*options)
    complaint = error_of("send-bounce", *BY_HAND, *options)
    assert f"{NOBODY}: settled before" in complaint
    assert len(ses.calls) == 1


@pytest.mark.parametrize("bounce_type", sorted(BounceType))
def test_every_bounce_type_can_be_sent_by_hand(ses: SesServer, bounce_type: BounceType) -> None:
    recipient = f"Recipient={NOBODY},BounceType={bounce_type}"
    (fate,) = send_bounce("--bounced-recipient-info-list", recipient, *just_now())
    assert fate["status"] == STATUS[bounce_type]


WRITTEN_OUT: dict[str, Any] = {
    "Recipient": NOBODY,
    "RecipientDsnFields": {
        "Action": "failed",
        "Status": "5.7.1",
        "DiagnosticCode": "smtp; 550 5.7.1 no, thank you",
        "LastAttemptDate": "2026-11-21T10:00:00Z",
        "ExtensionFields": [{"Name": "X-Why", "Value": "policy, mostly"}],
    },
}
SHORTHAND = (
    f"Recipient={NOBODY},RecipientDsnFields={{Action=failed,Status=5.7.1,"
    "DiagnosticCode='smtp; 550 5.7.1 no, thank you',LastAttemptDate=2026-11-21T10:00:00Z,"
    "ExtensionFields=[{Name=X-Why,Value='policy, mostly'}]}"
)


@pytest.mark.parametrize(
    "given",
    [json.dumps(WRITTEN_OUT), json.dumps([WRITTEN_OUT]), SHORTHAND],
    ids=["JSON", "JSON list", "shorthand"],
)
def test_a_dsn_that_is_written_out_is_sent_as_it_is(ses: SesServer, given: str) -> None:
    send_bounce("--bounced-recipient-info-list", given, *just_now())
    (call,) = ses.calls
    prefix = "BouncedRecipientInfoList.member.1.RecipientDsnFields."
    fields = {
        name.removeprefix(prefix): value
        for name, value in call.parameters.items()
        if name.startswith(prefix)
    }
    assert fields == {
        "Action": "failed",
        "Status": "5.7.1",
        "DiagnosticCode": "smtp; 550 5.7.1 no, thank you",
        "LastAttemptDate": "2026-11-21T10:00:00Z",
        "ExtensionFields.member.1.Name": "X-Why",
        "ExtensionFields.member.1.Value": "policy, mostly",
    }


def test_everything_may_come_from_a_file_and_be_overruled(tmp_path: Path, ses: SesServer) -> None:
    request = {
        "OriginalMessageId": "msg1",
        "BounceSender": "file@example.com",
        "Explanation": "from the file",
        "MessageDsn": {"ReportingMta": "dns; mx.example.com"},
        "BouncedRecipientInfoList": [{"Recipient": NOBODY, "BounceType": "Undefined"}],
    }
    path = file(tmp_path, "request.json", request)
    bouncer(
        "send-bounce",
        "--cli-input-json",
        f"file://{path}",
        "--bounce-sender",
        BOUNCE_SENDER,
        *just_now(),
    )
    (call,) = ses.calls
    assert call.parameters["BounceSender"] == BOUNCE_SENDER
    assert call.parameters["Explanation"] == "from the file"
    assert call.parameters["MessageDsn.ReportingMta"] == "dns; mx.example.com"


FILLED: dict[str, Any] = {
    "OriginalMessageId": "msg1",
    "BounceSender": BOUNCE_SENDER,
    "Explanation": None,
    "MessageDsn": None,
    "BouncedRecipientInfoList": [
        {
            "Recipient": NOBODY,
            "RecipientArn": None,
            "BounceType": "DoesNotExist",
            "RecipientDsnFields": None,
        }
    ],
    "BounceSenderArn": None,
}
NULL_FIELDS: dict[str, Any] = {**WRITTEN_OUT["RecipientDsnFields"], "RemoteMta": None}


@pytest.mark.parametrize(
    "options",
    [
        ["--cli-input-json", json.dumps(FILLED)],
        [
            *BY_HAND,
            "--bounced-recipient-info-list",
            json.dumps(FILLED["BouncedRecipientInfoList"]),
        ],
        [
            *BY_HAND,
            "--bounced-recipient-info-list",
            json.dumps({"Recipient": NOBODY, "RecipientDsnFields": NULL_FIELDS}),
        ],
        [
            *BY_HAND,
            "--bounced-recipient-info-list",
            RECIPIENT,
            "--message-dsn",
            json.dumps({"ReportingMta": "dns; mx.example.com", "ArrivalDate": None}),
        ],
    ],
    ids=["the whole request", "a recipient", "a recipient's DSN fields", "the DSN"],
)
def test_a_member_that_is_null_is_one_that_is_not_given(ses: SesServer, options: list[str]) -> None:
    (fate,) = printed_json("send-bounce", *options, *just_now())
    assert fate["state"] == "sent"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (1795255200, "2026-11-21T10:00:00Z"),
        (1795255200.0, "2026-11-21T10:00:00Z"),
        ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"),
        ("2026-11-21T12:00:00+02:00", "2026-11-21T10:00:00Z"),
    ],
)
def test_a_time_of_a_dsn_may_be_iso_8601_or_epoch_seconds(
    ses: SesServer, given: Any, sent: str
) -> None:
    dsn = json.dumps({"ReportingMta": "dns; mx.example.com", "ArrivalDate": given})
    send_bounce("--bounced-recipient-info-list", RECIPIENT, "--message-dsn", dsn, *just_now())
    (call,) = ses.calls
    told = datetime.fromisoformat(call.parameters["MessageDsn.ArrivalDate"])
    assert told == datetime.fromisoformat(sent)


@pytest.mark.parametrize("hours", [0, 2, -8])
def test_when_the_mail_came_may_be_told_with_an_offset(
    ses: SesServer, dynamodb: DynamoDBClient, hours: int
) -> None:
    moment = datetime.now(timezone(timedelta(hours=hours))).replace(microsecond=0)
    options = ["--bounced-recipient-info-list", RECIPIENT, "--received-at", moment.isoformat()]
    (fate,) = send_bounce(*options)
    assert fate["state"] == "sent"
    assert float(entry_of(dynamodb, "msg1", NOBODY)["received_at"]) == moment.timestamp()


def test_an_explanation_of_five_hundred_characters_is_sent_whole(ses: SesServer) -> None:
    text = "x" * 500
    options = ["--bounced-recipient-info-list", RECIPIENT, "--explanation", text]
    send_bounce(*options, *just_now())
    assert ses.calls[0].parameters["Explanation"] == text


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["table", "JSON"])
def test_what_ses_refuses_fails_with_its_reason(ses: SesServer, as_json: list[str]) -> None:
    ses.answers = [(400, "MessageRejected", "Email address is not verified")]
    options = ["--bounced-recipient-info-list", RECIPIENT, *just_now(), *as_json]
    complaint = error_of("send-bounce", *BY_HAND, *options)
    assert "Email address is not verified" in complaint
    assert "not sent: " in complaint


def test_what_ses_refused_may_be_sent_when_the_cause_is_mended(ses: SesServer) -> None:
    ses.answers = [(400, "MessageRejected", "Email address is not verified")]
    options = ["--bounced-recipient-info-list", RECIPIENT, *just_now()]
    (refused,) = send_bounce(*options, code=1)
    (sent,) = send_bounce(*options)
    assert (refused["state"], sent["state"]) == ("rejected", "sent")


def test_the_skeleton_has_every_parameter_and_needs_no_stack() -> None:
    skeleton = json.loads(bouncer("send-bounce", "--generate-cli-skeleton").stdout)
    assert set(skeleton) == {
        "OriginalMessageId",
        "BounceSender",
        "Explanation",
        "MessageDsn",
        "BouncedRecipientInfoList",
        "BounceSenderArn",
    }


def test_when_the_mail_came_is_known_from_the_ledger(
    ses: SesServer, dynamodb: DynamoDBClient
) -> None:
    ledger = DynamoLedger(dynamodb, BOUNCES, retention=timedelta(days=14))
    other = LedgerEntry(
        message_id="msg1",
        recipient="other@example.com",
        state=BounceState.SENT,
        reason="unknown-recipient",
        received_at=datetime.now(UTC) - timedelta(hours=2),
    )
    ledger.record([other], until=datetime.now(UTC) + timedelta(minutes=1))
    (fate,) = send_bounce("--bounced-recipient-info-list", RECIPIENT)
    assert fate["state"] == "sent"


def test_when_the_mail_came_is_known_from_the_bucket(ses: SesServer, s3: S3Client) -> None:
    put_mail(s3, "msg1")
    (fate,) = send_bounce("--bounced-recipient-info-list", RECIPIENT)
    assert fate["state"] == "sent"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "Missing required parameter"),
        (["--bounced-recipient-info-list", "[]"], "Missing required parameter"),
        (["--bounced-recipient-info-list", "nobody"], "write Name=value, or give JSON"),
        (["--bounced-recipient-info-list", "{nobody"], "is not JSON"),
        (["--bounced-recipient-info-list", f"Recipient={NOBODY}"], "exactly one of bounce_type"),
        (
            ["--bounced-recipient-info-list", f"Recipient={NOBODY},BounceType=Gone"],
            "'Gone' is none of DoesNotExist",
        ),
        (["--bounced-recipient-info-list", "BounceType=Undefined"], "Recipient"),
        (["--cli-input-json", "{"], "--cli-input-json is not JSON"),
        (["--cli-input-json", "[]"], "--cli-input-json is not an object"),
        (["--cli-input-json", "file://nowhere.json"], "nowhere.json"),
        (
            ["--cli-input-json", '{"Expl": "x"}', "--bounced-recipient-info-list", RECIPIENT],
            "SendBounce has no parameter Expl",
        ),
        (
            ["--bounced-recipient-info-list", RECIPIENT, "--message-dsn", "ArrivalDate=noon"],
            "'noon' is not an ISO 8601 time",
        ),
        (
            ["--bounced-recipient-info-list", RECIPIENT, "--message-dsn", "ReportingMta=mx"],
            "reporting_mta 'mx' lacks its type",
        ),
        (
            ["--bounced-recipient-info-list", RECIPIENT, "--explanation", "Grüße"],
            "printable 7-bit ASCII",
        ),
        (
            ["--bounced-recipient-info-list", RECIPIENT, "--explanation", "x" * 501],
            "Explanation has over 500 characters: shorten it",
        ),
        (["--cli-input-json", '{"BouncedRecipientInfoList": 5}'], "BouncedRecipientInfoList"),
        (
            ["--cli-input-json", '{"MessageDsn": 5}', "--bounced-recipient-info-list", RECIPIENT],
            "MessageDsn",
        ),
        (
            [
                "--bounced-recipient-info-list",
                RECIPIENT,
                "--message-dsn",
                '{"ReportingMta": "dns; mx.example.com", "ArrivalDate": 1e30}',
            ],
            "1e+30 is not an ISO 8601 time",
        ),
    ],
)
def test_a_parameter_that_is_wrong_is_named_and_nothing_is_sent(
    ses: SesServer, options: list[str], complaint: str
) -> None:
    assert complaint in error_of("send-bounce", *BY_HAND, *options, *just_now())
    assert ses.arrivals == []


def test_a_request_that_is_not_utf_8_is_named(tmp_path: Path, ses: SesServer) -> None:
    path = file(tmp_path, "request.json", b'{"Explanation": "caf\xe9"}')
    assert "UTF-8" in error_of("send-bounce", "--cli-input-json", f"file://{path}").upper()
    assert ses.arrivals == []


def test_a_mail_that_nobody_knows_needs_its_time(ses: SesServer) -> None:
    complaint = error_of("send-bounce", *BY_HAND, "--bounced-recipient-info-list", RECIPIENT)
    assert "nobody knows when msg1 was received: say it with --received-at" in complaint


def test_after_sess_24_hours_nothing_is_sent_by_hand(ses: SesServer) -> None:
    old = ["--received-at", "2020-01-01T00:00:00"]
    options = ["--bounced-recipient-info-list", RECIPIENT, *old]
    assert "was received over 24 hours ago" in error_of("send-bounce", *BY_HAND, *options)
    assert ses.arrivals == []


def test_a_person_reads_a_table(ses: SesServer) -> None:
    text = text_of("send-bounce", *BY_HAND, "--bounced-recipient-info-list", RECIPIENT, *just_now())
    for part in (NOBODY, "sent", "operator", "5.1.1", "bounce-1"):
        assert part in text
