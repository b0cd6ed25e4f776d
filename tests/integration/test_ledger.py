"""The ledger in DynamoDB, beyond what tests/contract says of every ledger."""

import pytest
from botocore.exceptions import EndpointConnectionError
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.delivery.ledger import BounceState, LedgerUnavailableError
from tests.contract.test_ledger import MAIL, NOW, RETENTION, At, in_dynamodb
from tests.fakes.bounces import NOBODY
from tests.integration.builders import BOUNCES, Answer, entry_of, fail, requests_of


@pytest.fixture
def at(request: pytest.FixtureRequest) -> At:
    return At(in_dynamodb(request))


def test_an_entry_expires_after_the_retention(at: At, dynamodb: DynamoDBClient) -> None:
    at.record(BounceState.SENT)
    expires = float(entry_of(dynamodb, MAIL, NOBODY)["expires_at"])
    assert expires == (NOW + RETENTION).timestamp()


def test_the_history_holds_every_recipient_and_nothing_else_of_the_table(
    at: At, dynamodb: DynamoDBClient
) -> None:
    at.claim("a@example.com", "b@example.com")
    at.claim(message_id="msg2")
    dynamodb.put_item(
        TableName=BOUNCES,
        Item={"pk": {"S": f"message#{MAIL}"}, "sk": {"S": "usage#alice@example.com"}},
    )
    recipients = [entry.recipient for entry in at.ledger.history(MAIL)]
    assert recipients == ["a@example.com", "b@example.com"]


def test_a_claim_costs_one_request_a_recipient(at: At, dynamodb: DynamoDBClient) -> None:
    seen = requests_of(dynamodb)
    at.claim("a@example.com", "b@example.com")
    at.claim("a@example.com", owner="other")
    assert seen == ["UpdateItem"] * 3


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(code="ProvisionedThroughputExceededException"),
        Answer(code="InternalServerError", status=500),
        Answer(code="AccessDeniedException"),
        EndpointConnectionError(endpoint_url="https://dynamodb"),
    ],
    ids=lambda trouble: getattr(trouble, "code", "no connection"),
)
def test_a_table_that_does_not_answer_is_an_error_of_the_ledger(
    at: At, dynamodb: DynamoDBClient, trouble: Answer | Exception
) -> None:
    fail(dynamodb, "UpdateItem", trouble, trouble)
    fail(dynamodb, "Query", trouble)
    with pytest.raises(LedgerUnavailableError):
        at.claim()
    with pytest.raises(LedgerUnavailableError):
        at.record(BounceState.SENT)
    with pytest.raises(LedgerUnavailableError):
        at.ledger.history(MAIL)
