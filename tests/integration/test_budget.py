"""How many bounces a sender, and its domain, may cause in a window."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws.budget import DynamoBudget
from bouncer.budget import BudgetUnavailableError
from bouncer.guards import OtherReason
from bouncer.policy.file import BudgetSection
from tests.integration.builders import BOUNCES, PAT, Answer, fail, item, requests_of

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = 3600


class At:
    """A budget whose clock is set by hand."""

    def __init__(self, dynamodb: DynamoDBClient) -> None:
        self.now = NOON
        self._budget = DynamoBudget(dynamodb, BOUNCES, clock=lambda: self.now)

    def charge(
        self, sender: str = PAT, *, per_sender: int = 100, per_domain: int = 100
    ) -> OtherReason | None:
        limits = BudgetSection(
            window_seconds=HOUR, per_sender=per_sender, per_sender_domain=per_domain
        )
        return self._budget.charge(sender, limits)


@pytest.fixture
def at(dynamodb: DynamoDBClient) -> At:
    return At(dynamodb)


def test_a_sender_may_cause_as_many_as_its_budget_and_not_one_more(at: At) -> None:
    answers = [at.charge(per_sender=3) for _ in range(5)]
    assert answers == [None, None, None, OtherReason.SENDER_BUDGET, OtherReason.SENDER_BUDGET]


def test_the_senders_of_a_domain_share_its_budget(at: At) -> None:
    answers = [at.charge(f"{number}@sender.example", per_domain=3) for number in range(4)]
    assert answers == [None, None, None, OtherReason.SENDER_DOMAIN_BUDGET]


def test_another_domain_has_a_budget_of_its_own(at: At) -> None:
    at.charge("a@one.example", per_domain=1)
    assert at.charge("a@two.example", per_domain=1) is None


def test_a_sender_is_the_same_in_any_case(at: At) -> None:
    at.charge("Pat@Sender.Example", per_sender=1)
    assert at.charge(PAT, per_sender=1) is OtherReason.SENDER_BUDGET


def test_a_new_window_is_a_new_budget(at: At) -> None:
    at.charge(per_sender=1)
    at.now += timedelta(seconds=HOUR - 1)
    assert at.charge(per_sender=1) is OtherReason.SENDER_BUDGET
    at.now += timedelta(seconds=1)
    assert at.charge(per_sender=1) is None


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"per_sender": 0}, OtherReason.SENDER_BUDGET),
        ({"per_domain": 0}, OtherReason.SENDER_DOMAIN_BUDGET),
    ],
)
def test_a_budget_of_nothing_lets_nothing_through(
    at: At, limits: dict[str, Any], reason: OtherReason
) -> None:
    assert at.charge(**limits) is reason


def test_a_counter_expires_after_its_window(at: At, dynamodb: DynamoDBClient) -> None:
    at.charge()
    (expiry,) = {each["expires_at"]["N"] for each in dynamodb.scan(TableName=BOUNCES)["Items"]}
    assert int(expiry) == NOON.timestamp() + 2 * HOUR


def test_a_charge_costs_two_requests(at: At, dynamodb: DynamoDBClient) -> None:
    seen = requests_of(dynamodb)
    at.charge()
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
