"""SendBounce on this machine, as SES documents it, seen through boto3."""

import time
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.e2e.conftest import Site


@pytest.fixture(scope="module")
def received(site: Site) -> str:
    message_id = site.mail("alice@example.com", "bob@example.com")
    site.trace(message_id)
    return message_id


def _request(received: str, **changes: Any) -> dict[str, Any]:
    return {
        "OriginalMessageId": received,
        "BounceSender": "mailer-daemon@example.com",
        "BouncedRecipientInfoList": [
            {"Recipient": "alice@example.com", "BounceType": "DoesNotExist"}
        ],
    } | changes


def _extension(name: str, value: str) -> list[dict[str, Any]]:
    fields = {
        "Action": "failed",
        "Status": "5.1.1",
        "ExtensionFields": [{"Name": name, "Value": value}],
    }
    return [{"Recipient": "alice@example.com", "RecipientDsnFields": fields}]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"OriginalMessageId": "never-received"}, "MessageRejected"),
        ({"BounceSender": "someone@unverified.example"}, "MessageRejected"),
        (
            {
                "BouncedRecipientInfoList": [
                    {"Recipient": "x@example.com", "BounceType": "Undefined"}
                ]
            },
            "MessageRejected",
        ),
        (
            {"BouncedRecipientInfoList": [{"Recipient": "alice@example.com", "BounceType": "No"}]},
            "ValidationError",
        ),
        (
            {"BouncedRecipientInfoList": [{"Recipient": "alice@example.com"}]},
            "InvalidParameterValue",
        ),
        ({"BouncedRecipientInfoList": _extension("no spaces", "x")}, "InvalidParameterValue"),
        ({"BouncedRecipientInfoList": _extension("X" * 51, "x")}, "InvalidParameterValue"),
        ({"BouncedRecipientInfoList": _extension("X-Ok", "a\r\nb")}, "InvalidParameterValue"),
        ({"BouncedRecipientInfoList": _extension("X-Ok", "x" * 2049)}, "InvalidParameterValue"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_ses_refuses_is_refused_in_its_error_shape(
    site: Site, received: str, changes: dict[str, Any], code: str
) -> None:
    time.sleep(1.1)
    with pytest.raises(ClientError) as refused:
        site.client("ses").send_bounce(**_request(received, **changes))
    error: dict[str, Any] = {**refused.value.response["Error"]}
    assert (error["Code"], error["Type"]) == (code, "Sender")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_a_required_member_that_is_missing_is_named(site: Site, received: str) -> None:
    """botocore would not let it out, so its check is off here."""
    client = site.client(
        "ses", Config(parameter_validation=False, retries={"total_max_attempts": 1})
    )
    request = _request(received)
    del request["BounceSender"]
    time.sleep(1.1)
    with pytest.raises(ClientError, match="BounceSender"):
        client.send_bounce(**request)


def test_a_second_call_within_the_second_is_throttled_and_listed(site: Site, received: str) -> None:
    client = site.client("ses", Config(retries={"total_max_attempts": 1}))
    time.sleep(1.1)
    first = client.send_bounce(**_request(received))
    with pytest.raises(ClientError) as throttled:
        client.send_bounce(**_request(received))
    assert throttled.value.response["Error"]["Code"] == "Throttling"

    allowed, refused = site.aws.listing("bounces")[-2:]
    assert set(allowed) == {"arrived", "process", "request", "error", "message_id", "dsn"}
    assert allowed["message_id"] == first["MessageId"]
    assert allowed["error"] is None
    assert allowed["request"] == _request(received)
    assert refused["error"] == "Throttling"
    assert refused["message_id"] is None
    assert refused["dsn"] is None
    assert 0 <= refused["arrived"] - allowed["arrived"] < 1


def test_a_mail_of_yesterday_cannot_be_bounced(site: Site) -> None:
    message_id = site.mail(
        "alice@example.com", headers=[("X-Local-Received-At", "2020-01-01T00:00:00+00:00")]
    )
    site.trace(message_id)
    time.sleep(1.1)
    with pytest.raises(ClientError, match="24 hours"):
        site.client("ses").send_bounce(**_request(message_id))
