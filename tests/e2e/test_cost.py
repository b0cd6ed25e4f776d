"""What bench/cost.json says of a mail is what the deployed application asks AWS for."""

from collections.abc import Callable

import pytest

from bench import cost
from tests.e2e.conftest import Site

COUNTED = {way.name: way for way in cost.read()[0].ways}


@pytest.mark.parametrize(
    ("name", "do"),
    [each[:2] for each in cost.WAYS if each[1] in (cost.accepted, cost.suppressed)],
)
def test_a_mail_asks_for_what_was_counted(
    site: Site, name: str, do: Callable[[cost.Site, int], None]
) -> None:
    who = ["InboundFunction"]
    used = cost.count(cost.Site(site.aws, site.outputs), 4, do, who)["InboundFunction"]
    counted = COUNTED[name].functions["InboundFunction"]
    # Now and then a container reads the policy or the queue's length again, by the clock.
    assert {kind: round(n) for kind, n in used.requests.items() if n >= 0.5} == {
        kind: round(n) for kind, n in counted.requests.items() if n >= 0.5
    }
    assert {kind: round(2 * n) / 2 for kind, n in used.units.items() if n >= 0.5} == {
        kind: round(2 * n) / 2 for kind, n in counted.units.items() if n >= 0.5
    }
