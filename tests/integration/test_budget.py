"""How many recipients others may be told of: by sender, domain, network, and place in the queue."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mypy_boto3_dynamodb import DynamoDBClient
from publicsuffixlist import PSLFILE, PublicSuffixList

from bouncer.address import normalise_domain
from bouncer.aws.budget import DynamoBudget
from bouncer.budget import BudgetUnavailableError, base_address, client_network, registrable_domain
from bouncer.guards import OtherReason
from bouncer.headers import Header
from bouncer.message import InboundMessage
from bouncer.policy.file import BudgetSection
from tests.integration.builders import BOUNCES, PAT, Answer, fail, item, requests_of

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = 3600
SENDER, DOMAIN = OtherReason.SENDER_BUDGET, OtherReason.SENDER_DOMAIN_BUDGET
CLIENT, SHARE = OtherReason.CLIENT_BUDGET, OtherReason.QUEUE_SHARE


def received(client: str, helo: str = "mx.sender.example") -> Header:
    """As SES writes it."""
    return Header(
        "Received",
        f"from {helo} (mx.sender.example [{client}]) by inbound-smtp.us-east-1.amazonaws.com "
        "with SMTP id abc123 for nobody@example.com; Sat, 21 Nov 2026 12:00:00 +0000 (UTC)",
    )


def mail(sender: str = PAT, *headers: Header) -> InboundMessage:
    return InboundMessage(
        message_id="msg",
        received_at=NOON,
        source=sender,
        recipients=("nobody@example.com",),
        headers=headers,
    )


class At:
    """A budget whose clock and whose queue are set by hand."""

    def __init__(self, dynamodb: Any) -> None:
        self.now = NOON
        self.backlog = 0.0
        self._budget = DynamoBudget(
            dynamodb, BOUNCES, lambda _: self.backlog, clock=lambda: self.now
        )

    def charge(
        self, sender: str = PAT, *headers: Header, told: int = 1, **limits: Any
    ) -> OtherReason | None:
        section = BudgetSection(**{"period_seconds": HOUR, **limits})
        until = self.now + timedelta(seconds=20)
        return self._budget.charge(mail(sender, *headers), told, section, until=until)


@pytest.fixture
def at(dynamodb: DynamoDBClient) -> At:
    return At(dynamodb)


def test_a_sender_may_cause_as_many_as_its_budget_and_not_one_more(at: At) -> None:
    assert [at.charge(per_sender=3) for _ in range(5)] == [None, None, None, SENDER, SENDER]


def test_recipients_are_counted_not_mails(at: At) -> None:
    assert at.charge(told=3, per_sender=5) is None
    assert at.charge(told=3, per_sender=5) is SENDER
    assert at.charge(told=2, per_sender=5) is None


@pytest.mark.parametrize(
    "alias",
    ["pat+1@sender.example", "PAT+x+y@Sender.Example", "prvs=4321abcd=pat@sender.example"],
)
def test_a_tag_makes_no_new_sender(at: At, alias: str) -> None:
    assert at.charge(alias, per_sender=1) is None
    assert at.charge(PAT, per_sender=1) is SENDER


def test_the_senders_of_a_domain_share_its_budget(at: At) -> None:
    answers = [at.charge(f"{n}@sender.example", per_sender_domain=3) for n in range(4)]
    assert answers == [None, None, None, DOMAIN]


def test_subdomains_share_the_budget_of_what_was_registered(at: At) -> None:
    answers = [at.charge(f"a@s{n}.evil.co.uk", per_sender_domain=3) for n in range(87)]
    assert answers.count(None) == 3
    assert at.charge("a@good.co.uk", per_sender_domain=3) is None


def test_names_that_a_dynamic_dns_service_gives_away_share_its_budget(at: At) -> None:
    answers = [at.charge(f"a@n{n}.duckdns.org", per_sender_domain=3) for n in range(4)]
    assert answers == [None, None, None, DOMAIN]


def test_many_domains_of_one_network_share_its_budget(at: At) -> None:
    answers = [
        at.charge(f"a@d{n}.example", received(f"192.0.2.{n}"), per_client_network=3)
        for n in range(5)
    ]
    assert answers == [None, None, None, CLIENT, CLIENT]
    assert at.charge("a@d9.example", received("198.51.100.1"), per_client_network=3) is None


def test_five_accounts_at_a_large_mail_host_leave_its_honest_users_alone() -> None:
    at = At(_Counts({}))
    for account in range(5):
        answers = [at.charge(f"bad{account}@gmail.com", per_sender=20) for _ in range(30)]
        assert answers == [None] * 20 + [SENDER] * 10
    honest = [at.charge(f"user{n}@gmail.com", received("192.0.2.1")) for n in range(50)]
    assert honest == [None] * 50


def test_a_large_mail_host_has_a_share_of_its_own(at: At) -> None:
    answers = [at.charge(f"user{n}@gmail.com", per_mail_host=3) for n in range(4)]
    assert answers == [None, None, None, DOMAIN]


@given(
    waits=st.lists(st.integers(0, HOUR), min_size=1, max_size=40),
    cap=st.integers(1, 8),
)
def test_no_period_of_that_length_holds_more_than_the_limit(waits: list[int], cap: int) -> None:
    """Wherever it begins: midnight is no better time than any other."""
    table: dict[str, dict[str, Any]] = {}
    client: Any = _Counts(table)
    budget = DynamoBudget(client, BOUNCES, clock=lambda: now)
    limits = BudgetSection(period_seconds=HOUR, per_sender=cap)
    now, told = NOON, list[datetime]()
    for wait in waits:
        now += timedelta(seconds=wait)
        if budget.charge(mail(), 1, limits, until=now + timedelta(seconds=20)) is None:
            told.append(now)
    for start in told:
        assert sum(start <= each < start + timedelta(seconds=HOUR) for each in told) <= cap


class _Counts:
    """DynamoDB's ADD and REMOVE of numbers, for hundreds of examples."""

    def __init__(self, items: dict[str, dict[str, Any]]) -> None:
        self._items = items

    def update_item(self, **request: Any) -> dict[str, Any]:
        its = self._items.setdefault(str(request["Key"]), {})
        adds, _, removes = request["UpdateExpression"].partition(" REMOVE ")
        told = int(request["ExpressionAttributeValues"][":told"]["N"])
        for each in adds.removeprefix("ADD ").partition(" SET ")[0].split(", "):
            name = each.split()[0]
            its[name] = {"N": str(int(its.get(name, {"N": "0"})["N"]) + told)}
        for name in removes.split(", "):
            its.pop(name, None)
        return {"Attributes": its}


def test_a_sender_who_was_silent_for_a_period_has_his_whole_budget_again(at: At) -> None:
    assert at.charge(told=5, per_sender=5) is None
    at.now += timedelta(seconds=HOUR * 7 // 6)
    assert at.charge(told=5, per_sender=5) is None


def test_what_is_refused_costs_nobody_anything(at: At) -> None:
    """A mail that its domain's budget refuses counts for neither sender nor network."""
    client = received("192.0.2.1")
    for _ in range(10):
        assert at.charge(PAT, client, told=5, per_client_network=4) is CLIENT
    assert at.charge(PAT, client, told=4, per_client_network=4, per_sender=4) is None


def test_in_a_backlog_a_domain_has_its_places_and_a_newcomer_too(at: At) -> None:
    at.backlog = 3600
    bad = [at.charge(f"a{n}@evil.example") for n in range(5)]
    assert bad == [None, None, None, SHARE, SHARE]
    assert at.charge("first@honest.example") is None


def test_places_are_shared_out_only_in_a_backlog(at: At) -> None:
    assert [at.charge() for _ in range(10)] == [None] * 10
    at.backlog = 3600
    assert at.charge() is SHARE
    at.backlog = 10
    assert at.charge() is None


def test_places_come_back(at: At) -> None:
    at.backlog = 3600
    assert [at.charge() for _ in range(4)] == [None, None, None, SHARE]
    at.now += timedelta(hours=1)
    assert at.charge() is None


def test_at_a_large_mail_host_each_sender_has_places_of_his_own(at: At) -> None:
    at.backlog = 3600
    assert [at.charge("bad@gmail.com") for _ in range(4)] == [None, None, None, SHARE]
    assert at.charge("good@gmail.com") is None


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"per_sender": 0}, SENDER),
        ({"per_sender_domain": 0}, DOMAIN),
        ({"per_client_network": 0}, CLIENT),
    ],
)
def test_a_budget_of_nothing_lets_nothing_through(
    at: At, limits: dict[str, Any], reason: OtherReason
) -> None:
    assert at.charge(PAT, received("192.0.2.1"), **limits) is reason


def test_a_counter_expires_after_its_period(at: At, dynamodb: DynamoDBClient) -> None:
    at.charge()
    (expiry,) = {each["expires_at"]["N"] for each in dynamodb.scan(TableName=BOUNCES)["Items"]}
    assert int(expiry) == NOON.timestamp() + 3 * HOUR


def test_an_item_stays_small_however_long_and_by_whomever_it_is_used() -> None:
    table: dict[str, dict[str, Any]] = {}
    at = At(_Counts(table))
    for hour in range(300):
        at.now += timedelta(minutes=7)
        at.charge(f"a{hour}@sender.example", told=50)
    (counter,) = table.values()
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


@pytest.mark.parametrize(
    ("header", "network"),
    [
        (received("192.0.2.77"), "192.0.2.0/24"),
        (received("IPv6:2001:db8:1:2::3"), "2001:db8:1::/48"),
        (received("192.0.2.77", helo="[203.0.113.9]"), "192.0.2.0/24"),
        (
            received("192.0.2.77", helo="x [203.0.113.9]) by inbound-smtp.us-east-1.amazonaws.com"),
            "192.0.2.0/24",
        ),
        (received("999.0.2.77"), None),
        (Header("Received", "from x [192.0.2.1] by mx.elsewhere.example"), None),
        (Header("Received", "[" * 50_000), None),
        (Header("Subject", "hello"), None),
    ],
    ids=["v4", "v6", "literal", "forged", "no address", "not SES's", "long", "none"],
)
def test_the_client_is_the_one_that_ses_saw(header: Header, network: str | None) -> None:
    forged = received("203.0.113.200")  # further down is what the sender wrote
    assert client_network(mail(PAT, header)) == network
    if header.name == "Received":
        assert client_network(mail(PAT, header, forged)) == network


@given(st.text())
def test_any_address_has_a_base_and_any_name_a_domain(text: str) -> None:
    assert (
        base_address(base_address(text)).rpartition("@")[2] == base_address(text).rpartition("@")[2]
    )
    assert isinstance(registrable_domain(text), str)


WHOLE_LIST = PublicSuffixList(only_icann=True)
SUFFIXES = [
    line.lstrip("!").replace("*", "wild")
    for line in Path(PSLFILE).read_text("utf-8").partition("===END ICANN DOMAINS===")[0].split("\n")
    if line and not line.startswith("//")
]


@given(
    labels=st.lists(st.sampled_from(["a", "www", "mail-1", "ck", "kobe", "city"]), max_size=3),
    suffix=st.sampled_from(SUFFIXES) | st.sampled_from(["nowhere", "example", "dyndns.org"]),
    encoded=st.booleans(),
)
@example(labels=["www"], suffix="ck", encoded=False)
@example(labels=["a", "city"], suffix="kobe.jp", encoded=False)
@example(labels=["a", "b"], suffix="香港", encoded=True)
@example(labels=["a"], suffix="公司.香港", encoded=True)
@settings(max_examples=300, deadline=None)
def test_one_top_level_domains_suffixes_say_what_the_whole_list_says(
    labels: list[str], suffix: str, encoded: bool
) -> None:
    domain = ".".join((*labels, suffix))
    domain = normalise_domain(domain) if encoded else domain
    assert registrable_domain(domain) == (WHOLE_LIST.privatesuffix(domain) or domain)
