"""Any client's requests take their turns: each of them, and the SDK's own retries."""

from itertools import pairwise
from typing import Any

import boto3
import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_ses import SESClient

from bouncer.aws.pacing import DynamoSlots, Limiter, NoSlotError, Pace, TooBusyError, paced
from bouncer.aws.receipt_rules import ReceiptRules
from bouncer.receipt_rules import changes
from tests.fakes.slots import MemorySlots
from tests.integration.builders import BOUNCES, Answer, fail, set_date

PACE = Pace()
START = 1_800_000_000.0
RULE = {"Name": "ses-bouncer", "Enabled": True, "Actions": [], "Recipients": []}


class Time:
    """Passes only while somebody sleeps."""

    def __init__(self, client: Any) -> None:
        self.now = START
        self.sent: list[float] = []
        """When each request went out."""
        self.names: list[str] = []
        service = client.meta.service_model.service_id.hyphenize()
        client.meta.events.register_last(f"before-send.{service}", self._note)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def _note(self, event_name: str, **_: Any) -> None:
        self.sent.append(self.now)
        self.names.append(event_name.rpartition(".")[2])

    def limiter(self, store: Any) -> Limiter:
        return Limiter(
            store, PACE, clock=lambda: self.now, monotonic=lambda: self.now, sleep=self.sleep
        )

    @property
    def closest(self) -> float:
        return min(later - earlier for earlier, later in pairwise(self.sent))


@pytest.fixture
def ses() -> SESClient:
    client: SESClient = boto3.client("ses")
    return client


@pytest.fixture
def time(ses: SESClient) -> Time:
    return Time(ses)


def test_every_request_takes_its_turn(ses: SESClient, time: Time) -> None:
    paced(ses, time.limiter(MemorySlots()))
    for _ in range(5):
        ses.list_receipt_rule_sets()
    assert len(time.sent) == 5
    assert time.closest >= PACE.step - 1e-6


def test_it_is_the_same_turn_for_everybody_who_shares_the_slots(ses: SESClient, time: Time) -> None:
    store = MemorySlots()
    paced(ses, time.limiter(store))
    ses.list_receipt_rule_sets()
    store.reserve(time.now, 10.0, 60.0, 600.0)
    ses.list_receipt_rule_sets()
    assert time.closest >= 10.0


def test_the_sdks_own_retries_are_paced_too(ses: SESClient, time: Time) -> None:
    paced(ses, time.limiter(MemorySlots()))
    tries = 0

    def twice(attempts: int, **_: Any) -> Any:
        nonlocal tries
        tries = attempts
        return 0.0 if attempts < 3 else None

    ses.meta.events.register_first("needs-retry.ses.ListReceiptRuleSets", twice)
    ses.list_receipt_rule_sets()
    assert tries == len(time.sent) == 3
    assert time.closest >= PACE.step - 1e-6


def test_a_request_that_gets_no_turn_in_time_is_not_made(ses: SESClient, time: Time) -> None:
    store = MemorySlots()
    store.hold_back(START, START + 60)
    paced(ses, time.limiter(store), max_wait=30)
    with pytest.raises(TooBusyError, match="no slot within 30 s"):
        ses.list_receipt_rule_sets()
    assert time.now == START


def test_who_would_rather_call_without_a_turn_decides_that_each_time(
    ses: SESClient, dynamodb: DynamoDBClient, time: Time
) -> None:
    set_date(dynamodb, START)
    missing: list[NoSlotError] = []
    paced(ses, time.limiter(DynamoSlots(dynamodb, BOUNCES)), without=missing.append)
    fail(dynamodb, "UpdateItem", Answer(code="ResourceNotFoundException"))
    ses.list_receipt_rule_sets()
    assert len(missing) == 1


def test_one_table_holds_any_number_of_paces(dynamodb: DynamoDBClient) -> None:
    set_date(dynamodb, None)
    keys = [{"pk": "pace", "sk": "one"}, {"pk": "pace", "sk": "two"}]
    one, two = (DynamoSlots(dynamodb, BOUNCES, key=key) for key in keys)
    ours = DynamoSlots(dynamodb, BOUNCES)
    starts = [each.reserve(START, 5.0, 60.0, 600.0) for each in (one, two, ours)]
    assert starts == [starts[0]] * 3
    assert one.reserve(START, 5.0, 60.0, 600.0) != starts[0]


def test_rules_are_read_and_changed_one_call_a_step(ses: SESClient, time: Time) -> None:
    ses.create_receipt_rule_set(RuleSetName="mail")
    ses.create_receipt_rule(RuleSetName="mail", Rule=RULE)  # type: ignore[arg-type]  # a rule
    time.sent.clear()
    rules = ReceiptRules(paced(ses, time.limiter(MemorySlots())), "mail", "ses-bouncer")
    needed = frozenset(f"a{number}@example.com" for number in range(1200))
    ours, others = rules.read()
    rules.apply(changes(ours, "ses-bouncer", needed, others), lambda: None)
    assert len(time.sent) == 5
    assert time.closest >= PACE.step - 1e-6
