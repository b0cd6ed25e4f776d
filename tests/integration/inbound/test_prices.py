"""What a mail may cost at the most: SECURITY.md states these prices."""

import json
from collections import Counter

from tests.integration.builders import requests_of
from tests.integration.inbound.site import Site

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


def test_however_long_its_addresses_are_its_line_is_one_that_cloudwatch_takes(site: Site) -> None:
    """An event of a log holds 256 KB; what is more is cut, and the line is no JSON any more."""
    long = [f"{each.partition('@')[0]}{chr(0x1F600) * 5000}@example.com" for each in HUNDRED]
    site.mail(*long, sender=f"{'x' * 100_000}@sender.example", headers=[("Message-ID", "<" * 9000)])
    assert size_of_line(site) < 200_000
