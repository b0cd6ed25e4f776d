"""The budgets in DynamoDB: what a charge costs and leaves, and a table that does not answer."""

from datetime import timedelta

import pytest
from botocore.exceptions import EndpointConnectionError
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.budget import BudgetUnavailableError
from tests.contract.test_budget import HOUR, NOON, At, in_dynamodb
from tests.fakes.counts import Counts
from tests.integration.builders import BOUNCES, PAT, Answer, fail, item, requests_of
from tests.unit.builders import received


@pytest.fixture
def at(dynamodb: DynamoDBClient) -> At:
    return At(in_dynamodb(dynamodb))


def test_a_counter_expires_after_its_period(at: At, dynamodb: DynamoDBClient) -> None:
    at.charge()
    (expiry,) = {each["expires_at"]["N"] for each in dynamodb.scan(TableName=BOUNCES)["Items"]}
    assert int(expiry) == NOON.timestamp() + 3 * HOUR


def test_an_item_stays_small_however_long_and_by_whomever_it_is_used() -> None:
    table = Counts()
    at = At(in_dynamodb(table))
    for hour in range(300):
        at.now += timedelta(minutes=7)
        at.charge(f"a{hour}@sender.example", told=50)
    (counter,) = table.items.values()
    assert len(str(counter)) < 8000


@pytest.mark.parametrize("sender", [PAT, "somebody@gmail.com"])
def test_a_charge_costs_two_writes(at: At, dynamodb: DynamoDBClient, sender: str) -> None:
    seen = requests_of(dynamodb)
    at.charge(sender, received("192.0.2.1"))
    assert seen == ["UpdateItem", "UpdateItem"]


def test_the_budgets_share_the_table_with_whatever_else_is_in_it(
    at: At, dynamodb: DynamoDBClient
) -> None:
    dynamodb.put_item(TableName=BOUNCES, Item=item(pk="limiter", sk="send-bounce", next_slot=1.5))
    assert at.charge(per_sender=1) is None


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(code="ProvisionedThroughputExceededException"),
        Answer(code="InternalServerError", status=500),
        EndpointConnectionError(endpoint_url="https://dynamodb"),
    ],
    ids=lambda each: getattr(each, "code", type(each).__name__),
)
def test_counters_that_do_not_answer_allow_nothing_and_forbid_nothing(
    at: At, dynamodb: DynamoDBClient, trouble: Answer | Exception
) -> None:
    fail(dynamodb, "UpdateItem", trouble)
    with pytest.raises(BudgetUnavailableError):
        at.charge()
