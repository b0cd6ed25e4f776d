"""More mail at once than SES takes bounces: all of it comes back, one a second."""

import itertools
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from local.demo import until
from tests.e2e.conftest import Site
from tests.soak import many

MAILS = many(24, soak=60)
SES_WAITS_SECONDS = 30.0
# The account's allowance is one a second; the calls must start that far apart, and they reach
# SES through one busy process here, so what it notes may be closer by its own delays.
NOTED_AT_LEAST_APART = 0.9


@pytest.fixture(scope="module")
def first_call(site: Site) -> int:
    return len(site.aws.listing("bounces"))


@pytest.fixture(scope="module")
def ids(site: Site, first_call: int) -> list[str]:
    """The mails, sent all at once."""
    senders = [f"pat{number}@sender.example" for number in range(MAILS)]
    with ThreadPoolExecutor(20) as pool:
        return [*pool.map(lambda sender: site.mail("nobody@example.com", sender=sender), senders)]


def test_mails_at_once_come_back_one_a_second(site: Site, first_call: int, ids: list[str]) -> None:
    def calls() -> list[dict[str, Any]]:
        return site.aws.listing("bounces")[first_call:]

    def sent() -> list[str]:
        return [c["request"]["OriginalMessageId"] for c in calls() if not c["error"]]

    until(lambda: set(ids) <= set(sent()) or None, "not every mail came back", seconds=MAILS * 2)
    told = Counter(each for each in sent() if each in ids)
    assert told == dict.fromkeys(ids, 1)

    times = sorted(c["arrived"] for c in calls() if not c["error"])
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) >= NOTED_AT_LEAST_APART
    throttled = [c for c in calls() if c["error"]]
    # A machine that is busy otherwise holds calls up after their last look at the clock.
    assert len(throttled) <= MAILS * 0.25

    # The function answered each within its wait budget; the queue's worker did the rest.
    logs = site.client("logs").get_paginator("filter_log_events")
    pages = logs.paginate(logGroupName=site.outputs["InboundLogGroup"])
    lines = [e["message"] for page in pages for e in page["events"]]
    # The audit, five seconds behind here, may handle what the function has not come to yet.
    handled = [json.loads(line) for line in lines if '"mail handled"' in line]
    ends = {each["ses_message_id"]: each["recipients"][0].get("state") for each in handled}
    assert ends.keys() >= set(ids)
    states = [ends[each] for each in ids]
    assert set(states) <= {"sent", "queued"}
    assert states.count("queued") > MAILS / 2
    waited = [
        step["seconds"]
        for mail in site.aws.listing("mails")
        if mail["message_id"] in ids
        for step in mail["steps"]
        if step["action"] == "LambdaAction"
    ]
    assert max(waited) < SES_WAITS_SECONDS
    queue = site.client("sqs").get_queue_attributes(
        QueueUrl=site.outputs["BounceQueue"], AttributeNames=["ApproximateNumberOfMessages"]
    )
    assert queue["Attributes"]["ApproximateNumberOfMessages"] == "0"


def test_the_ledger_says_sent_for_each_of_them(site: Site, ids: list[str]) -> None:
    """Nothing is left claimed or queued."""
    table = site.outputs["BounceTable"]

    def states() -> Counter[str]:
        pages = site.client("dynamodb").get_paginator("scan").paginate(TableName=table)
        return Counter(
            item["state"]["S"]
            for page in pages
            for item in page["Items"]
            if "state" in item and item["pk"]["S"].removeprefix("message#") in ids
        )

    until(lambda: states() == {"sent": MAILS} or None, f"the ledger says {states()}", seconds=10)
