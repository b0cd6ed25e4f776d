"""Nothing vanishes, whatever AWS does: mail under weather, and what its senders were told."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from local.aws.weather import WEATHERS
from tests.e2e.conftest import Site

STORM_SECONDS = 40
MAILS = 60
# A worker that was killed held its messages this long at most; the template's nine minutes, made
# short, for the wait is not what is looked at.
VISIBILITY = {"AuditQueue": "65", "BounceQueue": "95"}
PATIENCE = 420


@pytest.fixture
def weather(site: Site) -> Iterator[Site]:
    sqs = site.client("sqs")
    for queue, seconds in VISIBILITY.items():
        sqs.set_queue_attributes(
            QueueUrl=site.outputs[queue], Attributes={"VisibilityTimeout": seconds}
        )
    yield site
    site.aws.weather("clear")


def mail_through(site: Site, forecast: str) -> tuple[list[str], dict[str, Any]]:
    """Mail unknown addresses while the weather is bad; their ids, and what the weather did."""
    before = site.aws.listing("weather")[0]
    site.aws.weather(forecast)
    ended = threading.Event()
    timer = threading.Timer(STORM_SECONDS, ended.set)
    timer.start()
    ids = []
    for number in range(MAILS):
        ids.append(site.mail(f"nobody{number}@example.com", sender=f"pat@s{number}.example"))
        time.sleep(STORM_SECONDS / MAILS / 2)
    ended.wait(STORM_SECONDS)
    after = site.aws.listing("weather")[0]
    site.aws.weather("clear")
    return ids, {name: after[name] - before[name] for name in ("kills", "freezes")} | {
        "faults": after["faults"]
    }


def told(site: Site, ids: list[str]) -> Counter[str]:
    """How many bounces SES took for each mail, when no more come."""
    deadline = time.monotonic() + PATIENCE
    count: Counter[str] = Counter()
    while time.monotonic() < deadline:
        calls = [c for c in site.aws.listing("bounces") if not c["error"]]
        count = Counter(c["request"]["OriginalMessageId"] for c in calls)
        if all(count[each] for each in ids):
            break
        time.sleep(2)
    return Counter({each: count[each] for each in ids if count[each]})


def test_every_sender_is_told_while_processes_are_killed(weather: Site) -> None:
    ids, storm = mail_through(weather, "killers:1")
    failed = [each for each in ids if "failed" in weather.result(each)]
    assert storm["kills"] >= 5
    assert len(failed) >= 20, "the function came through; that proves nothing"
    count = told(weather, ids)
    missing = [each for each in ids if not count[each]]
    assert missing == []
    # A process that dies between SES's answer and the note of it has lost the answer.
    twice = [each for each in ids if count[each] > 1]
    assert all(count[each] == 2 for each in twice)
    assert len(twice) <= storm["kills"] / 10


@pytest.mark.parametrize(
    "forecast", ["refusals:1", "refusals:2", "post:1", "tables:1", "bounces:1"]
)
def test_every_sender_is_told_in_other_weather(weather: Site, forecast: str) -> None:
    assert forecast.partition(":")[0] in WEATHERS
    ids, _ = mail_through(weather, forecast)
    count = told(weather, ids)
    assert [each for each in ids if not count[each]] == []
    assert max(count.values()) <= 2
