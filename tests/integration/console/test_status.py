"""`bouncer status`."""

from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.delivery.ledger import BounceState
from tests.integration.builders import (
    NOBODY,
)
from tests.integration.console.builders import (
    Stack,
    printed_json,
    settle,
    text_of,
)


def test_the_status_of_a_mail_is_its_recipients_lines(
    stack: Stack, dynamodb: DynamoDBClient
) -> None:
    settle(dynamodb, BounceState.SENT)
    (entry,) = printed_json("status", "msg1")
    assert {k: entry[k] for k in ("recipient", "state", "reason", "status", "bounce_id")} == {
        "recipient": NOBODY,
        "state": "sent",
        "reason": "unknown-recipient",
        "status": "5.1.1",
        "bounce_id": "bounce-1",
    }
    text = text_of("status", "msg1")
    for part in (NOBODY, "sent", "5.1.1", "bounce-1", "UTC"):
        assert part in text


def test_the_status_of_a_mail_that_nobody_knows_says_what_that_means(stack: Stack) -> None:
    assert printed_json("status", "msg1") == []
    assert "The ledger has nothing of this mail" in text_of("status", "msg1")
