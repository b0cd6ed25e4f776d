"""Receipt IP filters and metrics of AWS on this machine."""

import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.aws.emf import Datum, read
from local.aws.ip_filters import LIMIT, IpFilters
from local.aws.send_bounce import SesError


def _filters(*given: tuple[str, str]) -> IpFilters:
    filters = IpFilters()
    for number, (policy, cidr) in enumerate(given):
        filters.create(f"filter{number}", policy, cidr)
    return filters


@pytest.mark.parametrize(
    ("given", "client", "blocked"),
    [
        ([], "203.0.113.7", False),
        ([("Block", "203.0.113.7")], "203.0.113.7", True),
        ([("Block", "203.0.113.7")], "203.0.113.8", False),
        ([("Block", "203.0.113.1/24")], "203.0.113.200", True),
        ([("Block", "203.0.113.0/24"), ("Allow", "203.0.113.7")], "203.0.113.7", False),
        ([("Allow", "203.0.113.0/24"), ("Block", "203.0.113.7")], "203.0.113.7", True),
        ([("Block", "0.0.0.0/0"), ("Allow", "198.51.100.0/24")], "203.0.113.7", True),
        ([("Block", "0.0.0.0/0"), ("Allow", "198.51.100.0/24")], "198.51.100.1", False),
        ([("Allow", "203.0.113.7/32"), ("Block", "203.0.113.7")], "203.0.113.7", True),
        ([("Block", "2001:db8::/32")], "2001:db8::1", True),
        ([("Block", "0.0.0.0/0")], "2001:db8::1", False),
        ([("Block", "203.0.113.7")], "::ffff:203.0.113.7", True),
        ([("Block", "203.0.113.7")], "not an address", False),
    ],
)
def test_the_most_specific_filter_decides(
    given: list[tuple[str, str]], client: str, blocked: bool
) -> None:
    assert _filters(*given).blocks(client) is blocked


@given(st.lists(st.tuples(st.booleans(), st.ip_addresses(v=4), st.integers(0, 32)), max_size=20))
def test_the_order_in_which_filters_are_made_changes_nothing(
    made: list[tuple[bool, ipaddress.IPv4Address, int]],
) -> None:
    given = [("Block" if block else "Allow", f"{a}/{prefix}") for block, a, prefix in made]
    one, other = _filters(*given), _filters(*reversed(given))
    for _, address, _ in made:
        assert one.blocks(str(address)) is other.blocks(str(address))


@pytest.mark.parametrize(
    ("name", "policy", "cidr", "code"),
    [
        ("", "Block", "203.0.113.7", "InvalidParameterValue"),
        ("-x", "Block", "203.0.113.7", "InvalidParameterValue"),
        ("x" * 65, "Block", "203.0.113.7", "InvalidParameterValue"),
        ("a b", "Block", "203.0.113.7", "InvalidParameterValue"),
        ("x", "block", "203.0.113.7", "ValidationError"),
        ("x", "Block", "203.0.113.0/33", "InvalidParameterValue"),
        ("x", "Block", "example.com", "InvalidParameterValue"),
        ("x", "Block", "", "InvalidParameterValue"),
        ("filter0", "Block", "203.0.113.7", "AlreadyExists"),
    ],
)
def test_what_ses_refuses_is_refused(name: str, policy: str, cidr: str, code: str) -> None:
    filters = _filters(("Block", "198.51.100.1"))
    with pytest.raises(SesError) as refused:
        filters.create(name, policy, cidr)
    assert refused.value.code == code
    assert len(filters.all()) == 1


def test_an_account_has_a_hundred_filters() -> None:
    filters = _filters(*(("Block", f"203.0.113.{n}") for n in range(LIMIT)))
    with pytest.raises(SesError) as refused:
        filters.create("more", "Block", "198.51.100.1")
    assert refused.value.code == "LimitExceeded"
    filters.delete("filter0")
    filters.delete("filter0")
    filters.create("more", "Block", "198.51.100.1")
    assert len(filters.all()) == LIMIT


# --- Metrics ---------------------------------------------------------------------------------


def _line(**more: object) -> str:
    about = {
        "Timestamp": 1795608000125,
        "CloudWatchMetrics": [
            {
                "Namespace": "SesBouncer",
                "Dimensions": [["service"], ["Reason", "service"]],
                "Metrics": [{"Name": "BounceSent", "Unit": "Count"}],
            }
        ],
    }
    line = {"_aws": about, "service": "s", "Reason": "over-quota", "BounceSent": [2.0]}
    return json.dumps(line | more)


def test_a_line_has_a_metric_for_each_set_of_dimensions() -> None:
    at = 1795608000.125
    assert [*read("START\n" + _line() + "\nEND")] == [
        Datum("SesBouncer", "BounceSent", {"service": "s"}, at, 2.0, "Count"),
        Datum(
            "SesBouncer", "BounceSent", {"Reason": "over-quota", "service": "s"}, at, 2.0, "Count"
        ),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        'no JSON with "_aws"',
        '{"_aws": 5}',
        '{"_aws": {"CloudWatchMetrics": [{"Metrics": [{}]}]}}',
        _line(BounceSent=["much"]),
        '["_aws"]',
    ],
)
def test_what_is_no_metric_is_none(text: str) -> None:
    assert [*read(text)] == []
