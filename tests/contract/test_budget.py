"""Budgets, every one of them: by sender, domain and network, and by place in the queue."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bouncer import timing
from bouncer.aws.budget import DynamoBudget
from bouncer.budget import Budget, BudgetUnavailableError
from bouncer.guards import OtherReason
from bouncer.headers import Header
from bouncer.policy.file import BudgetSection
from tests.fakes.budget import MemoryBudget
from tests.fakes.counts import Counts
from tests.integration.builders import BOUNCES, PAT
from tests.unit.builders import mail_of, received

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = 3600
SENDER, DOMAIN = OtherReason.SENDER_BUDGET, OtherReason.SENDER_DOMAIN_BUDGET
CLIENT, SHARE = OtherReason.CLIENT_BUDGET, OtherReason.QUEUE_SHARE

type Make = Callable[[Callable[[], datetime], Callable[[datetime], float]], Budget]


def in_dynamodb(client: Any) -> Make:
    return lambda clock, backlog: DynamoBudget(client, BOUNCES, backlog, clock)


class At:
    """A budget whose clock and whose queue are set by hand."""

    def __init__(self, make: Make) -> None:
        self.now = NOON
        self.backlog = 0.0
        self.budget = make(lambda: self.now, lambda _: self.backlog)

    def charge(
        self,
        sender: str = PAT,
        *headers: Header,
        told: int = 1,
        seconds: float = 20,
        **limits: Any,
    ) -> OtherReason | None:
        section = BudgetSection(**{"period_seconds": HOUR, **limits})
        until = self.now + timedelta(seconds=seconds)
        return self.budget.charge(mail_of(sender, *headers), told, section, until=until)


@pytest.fixture(params=["in memory", "in DynamoDB", "simulated"])
def at(request: pytest.FixtureRequest) -> At:
    if request.param == "in memory":
        return At(MemoryBudget)
    if request.param == "simulated":
        return At(in_dynamodb(request.getfixturevalue("simulated")(NOON.timestamp()).dynamodb))
    return At(in_dynamodb(request.getfixturevalue("dynamodb")))


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


def test_a_large_mail_host_has_a_share_of_its_own(at: At) -> None:
    answers = [at.charge(f"user{n}@gmail.com", per_mail_host=3) for n in range(4)]
    assert answers == [None, None, None, DOMAIN]


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


@pytest.mark.parametrize("seconds", [0.0, timing.ATTEMPT - 0.1])
def test_nothing_is_counted_whose_answer_could_come_too_late(at: At, seconds: float) -> None:
    with pytest.raises(BudgetUnavailableError):
        at.charge(per_sender=1, seconds=seconds)
    assert at.charge(per_sender=1) is None


# --- Of hundreds of mails, with DynamoDB's counting in memory --------------------------------


def as_in_dynamodb(clock: Callable[[], datetime], backlog: Callable[[datetime], float]) -> Budget:
    return in_dynamodb(Counts())(clock, backlog)


MAKERS: list[Make] = [MemoryBudget, as_in_dynamodb]
each_maker = pytest.mark.parametrize("make", MAKERS, ids=["in memory", "as in DynamoDB"])


@each_maker
def test_five_accounts_at_a_large_mail_host_leave_its_honest_users_alone(make: Make) -> None:
    at = At(make)
    for account in range(5):
        answers = [at.charge(f"bad{account}@gmail.com", per_sender=20) for _ in range(30)]
        assert answers == [None] * 20 + [SENDER] * 10
    honest = [at.charge(f"user{n}@gmail.com", received("192.0.2.1")) for n in range(50)]
    assert honest == [None] * 50


@each_maker
@given(
    waits=st.lists(st.integers(0, HOUR), min_size=1, max_size=40),
    cap=st.integers(1, 8),
)
def test_no_period_of_that_length_holds_more_than_the_limit(
    make: Make, waits: list[int], cap: int
) -> None:
    """Wherever it begins: midnight is no better time than any other."""
    at, told = At(make), list[datetime]()
    for wait in waits:
        at.now += timedelta(seconds=wait)
        if at.charge(per_sender=cap) is None:
            told.append(at.now)
    for start in told:
        assert sum(start <= each < start + timedelta(seconds=HOUR) for each in told) <= cap


_MAILS = st.tuples(
    st.integers(0, HOUR),  # seconds since the one before
    st.sampled_from(["pat", "kim", "pat+tag"]),
    st.sampled_from(["sender.example", "mail.sender.example", "gmail.com"]),
    st.sampled_from(["192.0.2.1", "192.0.2.9", "198.51.100.1"]),
    st.integers(1, 4),  # recipients told
    st.sampled_from([0.0, HOUR]),  # the backlog
)


@given(mails=st.lists(_MAILS, max_size=30))
def test_memory_and_dynamodb_answer_the_same(mails: list[tuple[Any, ...]]) -> None:
    both = [At(make) for make in MAKERS]
    for wait, local, domain, client, told, backlog in mails:
        answers = []
        for at in both:
            at.now += timedelta(seconds=wait)
            at.backlog = backlog
            answers.append(
                at.charge(
                    f"{local}@{domain}",
                    received(client),
                    told=told,
                    per_sender=3,
                    per_sender_domain=5,
                    per_mail_host=5,
                    per_client_network=6,
                )
            )
        assert answers[0] == answers[1]
