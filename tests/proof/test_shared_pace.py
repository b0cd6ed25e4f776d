"""Two stacks in one account and Region, flooded at once: one call a second, half of them each."""

import itertools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from local import stack
from local.demo import until
from tests.e2e.conftest import Site
from tests.e2e.test_operation import run
from tests.proof.test_flood import NOTED_AT_LEAST_APART

SECOND = "ses-bouncer-two"
EACH = 20
# Each stack has two workers, and each worker a window of ten calls at the most.
AHEAD_AT_MOST = 20


@pytest.fixture(scope="module")
def domains(site: Site) -> Iterator[tuple[str, str]]:
    """Of the first stack, and of a second one that uses the first one's pace."""
    one, two = "example.com", "shop.example.com"
    site = site.switch(Recipients=one)
    stack.deploy(
        site.aws,
        stack.STATE / "build" / "template.yaml",
        name=SECOND,
        PaceTable=site.outputs["PaceTable"],
        ReceiptRuleName=SECOND,
        Recipients=two,
    )
    for command in (("mailbox", "add", f"alice@{two}", "--domain"), ("mode", "enforce")):
        done = run(site, *command, "--stack", SECOND)
        assert done.returncode == 0, done.stdout + done.stderr
    yield one, two
    site.client("cloudformation").delete_stack(StackName=SECOND)
    site.client("cloudformation").get_waiter("stack_delete_complete").wait(
        StackName=SECOND, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    site.switch(Recipients="")


def test_two_stacks_share_one_call_a_second(site: Site, domains: tuple[str, str]) -> None:
    before = len(site.aws.listing("bounces"))
    people = [
        (f"nobody@{domain}", f"pat{n}@sender.example") for n in range(EACH) for domain in domains
    ]
    with ThreadPoolExecutor(20) as pool:
        ids = [*pool.map(lambda each: site.mail(each[0], sender=each[1]), people)]

    def taken() -> list[dict[str, Any]]:
        return [each for each in site.aws.listing("bounces")[before:] if not each["error"]]

    def all_told() -> bool | None:
        return {each["request"]["OriginalMessageId"] for each in taken()} >= set(ids) or None

    until(all_told, "not every mail came back", seconds=4 * len(ids))
    calls = sorted(taken(), key=lambda each: each["arrived"])
    assert Counter(each["request"]["OriginalMessageId"] for each in calls) == dict.fromkeys(ids, 1)
    gaps = [b["arrived"] - a["arrived"] for a, b in itertools.pairwise(calls)]
    assert min(gaps) >= NOTED_AT_LEAST_APART

    served = dict.fromkeys(domains, 0)
    for each in calls:
        domain = each["request"]["BouncedRecipientInfoList"][0]["Recipient"].partition("@")[2]
        served[domain] += 1
        if max(served.values()) < EACH:
            assert max(served.values()) - min(served.values()) <= AHEAD_AT_MOST
    assert set(served.values()) == {EACH}
    assert stack.outputs(site.aws, SECOND)["PaceTable"] == site.outputs["PaceTable"]
