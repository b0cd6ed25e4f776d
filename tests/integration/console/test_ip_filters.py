"""`bouncer rules filter`, on the emulator's own filters."""

from collections.abc import Mapping
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from bouncer_console import ip_filters
from local.aws import ip_filters as emulated
from local.aws.send_bounce import SesError
from tests.integration.console.builders import bouncer, error_of, printed_json, text_of


class Ses:
    """SES's client, as far as filters go."""

    def __init__(self) -> None:
        self.filters = emulated.IpFilters()
        self.meta = boto3.client("ses", region_name="us-east-1").meta

    def list_receipt_filters(self) -> dict[str, Any]:
        return {
            "Filters": [
                {"Name": e.name, "IpFilter": {"Policy": e.policy.value, "Cidr": e.cidr}}
                for e in self.filters.all()
            ]
        }

    def create_receipt_filter(self, Filter: Mapping[str, Any]) -> None:
        address = Filter["IpFilter"]
        try:
            self.filters.create(Filter["Name"], address["Policy"], address["Cidr"])
        except SesError as error:
            answer: Any = {"Error": {"Code": error.code, "Message": error.message}}
            raise ClientError(answer, "CreateReceiptFilter") from error

    def delete_receipt_filter(self, FilterName: str) -> None:
        self.filters.delete(FilterName)


@pytest.fixture
def ses(monkeypatch: pytest.MonkeyPatch) -> Ses:
    made = Ses()
    monkeypatch.setattr(ip_filters, "client", lambda _service, _region: made)
    monkeypatch.setattr(ip_filters, "_PAUSE_SECONDS", 0)
    return made


def test_a_network_is_blocked_listed_and_let_in_again(ses: Ses) -> None:
    assert "203.0.113.0/24 is blocked, by the filter" in text_of(
        "rules", "filter", "add", "203.0.113.9/24"
    )
    bouncer("rules", "filter", "add", "203.0.113.7", "--allow", "--name", "our-partner")
    assert ses.filters.blocks("203.0.113.8")
    assert not ses.filters.blocks("203.0.113.7")
    listed = printed_json("rules", "filter", "list")
    assert [(each["policy"], each["cidr"]) for each in listed["filters"]] == [
        ("Allow", "203.0.113.7"),
        ("Block", "203.0.113.0/24"),
    ]
    assert "2 of 100" in text_of("rules", "filter", "list")
    bouncer("rules", "filter", "remove", "203.0.113.0/24")
    bouncer("rules", "filter", "remove", "our-partner")
    assert not ses.filters.blocks("203.0.113.8")
    assert "There are no IP filters" in text_of("rules", "filter", "list")


def test_adding_twice_changes_nothing(ses: Ses) -> None:
    bouncer("rules", "filter", "add", "203.0.113.7")
    assert "already" in text_of("rules", "filter", "add", "203.0.113.7/32")
    assert "says Block" in error_of("rules", "filter", "add", "203.0.113.7", "--allow")
    assert len(ses.filters.all()) == 1


@pytest.mark.parametrize("text", ["example.com", "203.0.113.0/33", "", "1.2.3", "203.0.113.7/24/8"])
def test_what_is_no_network_is_refused_with_an_example(ses: Ses, text: str) -> None:
    assert "write it as 203.0.113.7" in error_of("rules", "filter", "add", text)


def test_the_hundred_and_first_is_refused_before_ses_does(ses: Ses) -> None:
    for number in range(100):
        ses.filters.create(f"f{number}", "Block", f"198.51.100.{number}")
    assert "takes 100 an account" in error_of("rules", "filter", "add", "203.0.113.7")


def test_a_name_that_is_taken_is_said_so(ses: Ses) -> None:
    bouncer("rules", "filter", "add", "203.0.113.7", "--name", "x1")
    error = error_of("rules", "filter", "add", "203.0.113.8", "--name", "x1")
    assert "choose another --name" in error
    assert "SES refused" in error_of("rules", "filter", "add", "203.0.113.8", "--name", "-")


def test_removing_what_is_not_there_is_an_error(ses: Ses) -> None:
    for what in ("203.0.113.7", "nothing"):
        assert "there is no filter" in error_of("rules", "filter", "remove", what)


def test_half_the_world_is_asked_about(ses: Ses) -> None:
    bouncer("rules", "filter", "add", "0.0.0.0/1", code=1, typed="n\n")
    assert ses.filters.all() == []
    bouncer("rules", "filter", "add", "0.0.0.0/1", "--yes")
    bouncer("rules", "filter", "add", "128.0.0.0/1", code=0, typed="y\n")
    assert len(ses.filters.all()) == 2


@pytest.mark.parametrize("network", ["2001:db8::/32", "2001:db8::1", "::1"])
def test_ipv6_is_passed_on_with_what_is_not_known(ses: Ses, network: str) -> None:
    result = bouncer("rules", "filter", "add", network)
    assert "not document" in result.stderr
    (made,) = ses.filters.all()
    assert made.cidr == network
    bouncer("rules", "filter", "remove", network)


def test_a_throttled_call_is_paced(ses: Ses, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(ip_filters, "_PAUSE_SECONDS", 1.05)
    filters = ip_filters.IpFilters(ses, sleep=slept.append)  # type: ignore[arg-type]  # as far as filters go
    filters.add("203.0.113.7", ip_filters.Policy.BLOCK)
    filters.remove("203.0.113.7")
    assert slept == [1.05, 1.05]
