"""What a mail may cost at the most: SECURITY.md states these prices."""

import json
import tomllib
from collections import Counter
from math import ceil

from tests.integration.builders import BOUNCES, requests_of
from tests.integration.inbound.site import Site
from tests.unit.builders import ROOT

HUNDRED = [f"guess-{number:03}@example.com" for number in range(100)]
"""SES lets no mail have more recipients."""


def size_of_line(site: Site) -> int:
    (line,) = site.printed.lines
    return len(json.dumps(line, ensure_ascii=False).encode())


def test_a_mail_of_nobody_to_a_hundred_unknown_addresses_costs_a_hundred_writes_and_one_line(
    site: Site,
) -> None:
    seen = requests_of(site.dynamodb)
    assert site.mail(*HUNDRED, sender="") == "STOP_RULE_SET"
    assert Counter(seen) == {"BatchGetItem": 2, "UpdateItem": 101}
    assert site.ses.calls == []
    assert (site.queued, site.kept) == ([], [])
    assert size_of_line(site) < 20_000
    assert sum(len(json.dumps(each)) for each in site.printed.blobs) < 2_000


def test_what_security_md_says_that_it_costs_is_what_these_requests_cost(site: Site) -> None:
    """By the list prices that the README's table is made of; a write unit is 1 kB of an item."""
    prices = tomllib.loads((ROOT / "bench" / "prices.toml").read_text())
    site.mail(*HUNDRED, sender="")
    items = site.dynamodb.scan(TableName=BOUNCES)["Items"]
    written = sum(ceil(len(json.dumps(each)) / 1024) for each in items)
    keys = 2 * len(HUNDRED)  # at most: each address, and what else it may be found under
    cost = (
        written * prices["dynamodb"]["write_unit"]
        + keys / 2 * prices["dynamodb"]["read_unit"]
        + size_of_line(site) * prices["logs"]["gb"] / 1e9
    )
    assert len(items) == len(HUNDRED) + 1
    assert f"${cost:.5f}" in (ROOT / "SECURITY.md").read_text()


def test_however_long_its_addresses_are_its_line_is_one_that_cloudwatch_takes(site: Site) -> None:
    """An event of a log holds 256 KB; what is more is cut, and the line is no JSON any more."""
    long = [f"{each.partition('@')[0]}{chr(0x1F600) * 5000}@example.com" for each in HUNDRED]
    site.mail(*long, sender=f"{'x' * 100_000}@sender.example", headers=[("Message-ID", "<" * 9000)])
    assert size_of_line(site) < 200_000
