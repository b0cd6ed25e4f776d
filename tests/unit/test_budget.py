"""Whom a budget counts: a sender without tags, what was registered, the network that SES saw."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from publicsuffixlist import PSLFILE, PublicSuffixList

from bouncer.address import normalise_domain
from bouncer.budget import UNCLEAR, client_network, counters, registrable_domain
from bouncer.headers import Header
from bouncer.policy.file import BudgetSection
from bouncer.proof import own_base_address
from tests.soak import many
from tests.unit.builders import SENDER, mail_of, received


@pytest.mark.parametrize(
    ("header", "network"),
    [
        (received("192.0.2.77"), "192.0.2.0/24"),
        (received("IPv6:2001:db8:1:2::3"), "2001:db8:1::/48"),
        (received("192.0.2.77", helo="[203.0.113.9]"), "192.0.2.0/24"),
        (
            received("192.0.2.77", helo="x [203.0.113.9]) by inbound-smtp.us-east-1.amazonaws.com"),
            UNCLEAR,
        ),
        (
            received("192.0.2.77", recipient='"x [203.0.113.9] by inbound-smtp."@example.com'),
            UNCLEAR,
        ),
        (received("192.0.2.77", recipient='"[192.0.2.77] by inbound-smtp."@a.b'), "192.0.2.0/24"),
        (received("192.0.2.77", helo="x" * 10_000), "192.0.2.0/24"),
        (received("IPv6:::ffff:192.0.2.77"), "192.0.2.0/24"),
        (received("999.0.2.77"), None),
        (Header("Received", "from x [192.0.2.1] by mx.elsewhere.example"), None),
        (Header("Received", "[" * 50_000), None),
        (Header("Subject", "hello"), None),
    ],
    ids=[
        "v4",
        "v6",
        "literal",
        "forged by name",
        "forged by recipient",
        "the same twice",
        "long name",
        "mapped",
        "no address",
        "not SES's",
        "long",
        "none",
    ],
)
def test_the_client_is_the_one_that_ses_saw(header: Header, network: str | None) -> None:
    forged = received("203.0.113.200")  # further down is what the sender wrote
    assert client_network(mail_of(SENDER, header)) == network
    if header.name == "Received":
        assert client_network(mail_of(SENDER, header, forged)) == network


@given(st.text())
def test_any_address_has_a_base_and_any_name_a_domain(text: str) -> None:
    base = own_base_address(text)
    assert own_base_address(base).rpartition("@")[2] == base.rpartition("@")[2]
    assert isinstance(registrable_domain(text), str)


def counted(sender: str) -> list[str]:
    return [each.name for each in counters(mail_of(sender), BudgetSection())]


@pytest.mark.parametrize(
    "path",
    [
        "pat+news@gmail.com",
        "p.a.t@gmail.com",
        "P.At+x.y@GoogleMail.com",
        "prvs=1234abcdef=pat@gmail.com",
        "btv1==0123456789ab==p.at@gmail.com",
        "msprvs1=20771abcdefgh=pat@gmail.com",
        "prvs=pat/1234@gmail.com",
        "SRS0=HHH=TT=sender.example=pat@gmail.com",
        "pat+SRS=HHH=TT=sender.example=another@gmail.com",
    ],
)
def test_one_account_has_one_share_however_it_spells_its_address(path: str) -> None:
    assert counted(path) == ["sender#pat@gmail.com", "domain#gmail.com"]


@pytest.mark.parametrize("path", ["pat@yahoo.co.uk", "pat-shop@yahoo.co.uk", "pat-@yahoo.co.uk"])
def test_a_disposable_address_is_its_accounts(path: str) -> None:
    assert counted(path) == ["sender#pat@yahoo.co.uk", "domain#yahoo.co.uk"]


@pytest.mark.parametrize(
    "path", ["pat@fastmail.com", "any.thing@pat.fastmail.com", "x+y@z.pat.fastmail.com"]
)
def test_a_name_in_an_accounts_subdomain_is_the_accounts(path: str) -> None:
    assert counted(path) == ["sender#pat@fastmail.com", "domain#fastmail.com"]


@pytest.mark.parametrize("path", ["p.at@gmx.de", "pat-x@outlook.com", "p.at@web.de"])
def test_elsewhere_dots_and_hyphens_make_another(path: str) -> None:
    assert counted(path)[0] == f"sender#{path}"


def test_nobody_spends_the_budget_of_a_domain_that_he_only_names() -> None:
    """SRS writes the victim's address into one of the attacker's own."""
    assert counted("SRS0=HHH=TT=victim.example=pat@attacker.example") == ["domain#attacker.example"]


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
@settings(max_examples=many(100, soak=3000))
def test_one_top_level_domains_suffixes_say_what_the_whole_list_says(
    labels: list[str], suffix: str, encoded: bool
) -> None:
    domain = ".".join((*labels, suffix))
    domain = normalise_domain(domain) if encoded else domain
    assert registrable_domain(domain) == (WHOLE_LIST.privatesuffix(domain) or domain)
