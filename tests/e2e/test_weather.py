"""Nothing vanishes, whatever AWS does: mail under weather, and what its senders were told."""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest

from local.demo import until
from tests.e2e.conftest import Site

STORM_SECONDS = 30
KILLERS_SECONDS = 60
MAILS = 60
BEFORE = 20
"""Mails that come before the weather, so that the queue's worker has work while it lasts."""
# A worker that was killed held its messages this long at most; the template's 15 minutes, made
# short, for the wait is not what is looked at.
VISIBILITY = {"AuditQueue": "65", "BounceQueue": "155"}
PATIENCE = 420
ENDS = ("sent", "suppressed", "expired", "rejected", "dead-lettered")
# From a call to the note of SES's answer, on a machine with much else to do.
NOTED_SECONDS = 3.0
STEPS = ("claim", "call", "settle", "queue", "record")
SOMEBODY = "alice@example.com"

logger = logging.getLogger(__name__)


class Passed(msgspec.Struct, kw_only=True):
    """What a weather did, and to which mails."""

    mails: dict[str, list[str]]
    """Id to recipients: the first is nobody's address, a second one is somebody's."""
    killed: list[dict[str, Any]]
    froze: int
    befell: Counter[str]
    bounces: dict[str, list[dict[str, Any]]] = {}
    """The calls that SES took for each mail, by the end of it."""

    @property
    def untold(self) -> list[str]:
        return [each for each in self.mails if not self.bounces[each]]

    @property
    def twice(self) -> list[str]:
        return [each for each in self.mails if len(self.bounces[each]) > 1]


@pytest.fixture
def weather(site: Site) -> Iterator[Site]:
    sqs = site.client("sqs")
    for queue, seconds in VISIBILITY.items():
        sqs.set_queue_attributes(
            QueueUrl=site.outputs[queue], Attributes={"VisibilityTimeout": seconds}
        )
    yield site
    site.aws.weather("clear")


def mail_through(
    site: Site,
    forecast: str,
    seconds: float = STORM_SECONDS,
    mails: int = MAILS,
    earlier: int = BEFORE,
) -> Passed:
    """Mail unknown addresses while the weather is bad, and wait until all is done."""
    # Somebody is at work as long as it lasts.
    pause = 0.9 * seconds / mails
    before = site.aws.listing("weather")[0]
    sent = {}
    for number in range(earlier):
        people = [f"early{number}@example.com"]
        sent[site.mail(*people, sender=f"kim@e{number}.example")] = people
    rules_ended(site)
    site.aws.weather(forecast)
    ended = threading.Event()
    timer = threading.Timer(seconds, ended.set)
    timer.start()
    for number in range(mails):
        people = [f"nobody{number}@example.com", *([SOMEBODY] if number % 5 == 0 else [])]
        sent[site.mail(*people, sender=f"pat@s{number}.example")] = people
        time.sleep(pause)
    ended.wait(seconds)
    site.aws.weather("clear")
    after = site.aws.listing("weather")[0]
    rules_ended(site)
    passed = Passed(
        mails=sent,
        killed=after["killed"][before["kills"] :],
        froze=after["freezes"] - before["freezes"],
        befell=Counter(after["faults"]) - Counter(before["faults"]),
    )
    passed.bounces = told(site, sent)
    logger.info(
        "%s: killed %s, %d frozen, %s; %d invocations lost to SES; %d of %d told, %d of them twice",
        forecast,
        dict(Counter(each["function"].split("-")[2] for each in passed.killed)),
        passed.froze,
        dict(passed.befell),
        len(lost_invocations(site, passed)),
        len(sent) - len(passed.untold),
        len(sent),
        len(passed.twice),
    )
    return passed


def lost_invocations(site: Site, passed: Passed) -> list[str]:
    """Mails for which SES gave the function up."""
    return [each for each in passed.mails if "failed" in site.result(each)]


def nothing_vanished(site: Site, passed: Passed) -> None:
    """Every sender was told; of every recipient something tells his end; nobody lost his mail."""
    assert passed.untold == []
    table = site.physical_id("BounceTable")
    for message_id, people in passed.mails.items():
        items = site.client("dynamodb").query(
            TableName=table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"message#{message_id}"}},
        )["Items"]
        recorded = [text for each in items for text in each.get("recipients", {}).get("SS", [])]
        ended = [each["recipient"]["S"] for each in items if each.get("state", {}).get("S") in ENDS]
        for person in people:
            assert person in ended or any(text.endswith(f" {person}") for text in recorded), items
        if SOMEBODY in people:
            assert not site.result(message_id).startswith("STOP"), message_id
            named = [each for call in passed.bounces[message_id] for each in recipients_of(call)]
            assert SOMEBODY not in named


def recipients_of(call: dict[str, Any]) -> list[str]:
    return [each["Recipient"] for each in call["request"]["BouncedRecipientInfoList"]]


def rules_ended(site: Site) -> None:
    until(
        lambda: all(t["done"] for t in site.aws.listing("mails")) or None,
        "the rules did not end",
        PATIENCE,
    )


def waiting(site: Site) -> int:
    """Notices and bounces that are in the queues, hidden or not."""
    kinds = ("", "NotVisible", "Delayed")
    names = [f"ApproximateNumberOfMessages{kind}" for kind in kinds]
    total = 0
    for queue in VISIBILITY:
        answer = site.client("sqs").get_queue_attributes(
            QueueUrl=site.outputs[queue], AttributeNames=names
        )
        total += sum(int(answer["Attributes"][name]) for name in names)
    return total


def told(site: Site, ids: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """The bounces that SES took for each mail, when no more come: the queues are empty."""
    deadline = time.monotonic() + PATIENCE
    while waiting(site) and time.monotonic() < deadline:
        time.sleep(2)
    assert waiting(site) == 0
    bounces: dict[str, list[dict[str, Any]]] = {each: [] for each in ids}
    for call in site.aws.listing("bounces"):
        mail = call["request"]["OriginalMessageId"]
        if mail in bounces and not call["error"]:
            bounces[mail].append(call)
    return bounces


def lost_its_answer(
    call: dict[str, Any], calls: list[dict[str, Any]], killed: list[dict[str, Any]]
) -> bool:
    """Whether the process that made a call died of it: killed soon, and it made no call more.

    Whose call it was, AWS on this machine asks the system when it handles the call: a process that
    is not there any more by then was killed before it, or it would have been found.
    """
    caller, arrived = call["process"], call["arrived"]
    if caller is None:
        return any(abs(kill["at"] - arrived) < NOTED_SECONDS for kill in killed)
    later = [c for c in calls if c["process"] == caller and c["arrived"] > arrived]
    return not later and any(
        kill["process"] == caller and 0 <= kill["at"] - arrived < NOTED_SECONDS for kill in killed
    )


def unexplained(site: Site, passed: Passed) -> list[dict[str, Any]]:
    """Calls that were made once more although whoever made them before lived on."""
    calls = site.aws.listing("bounces")
    return [
        call
        for each in passed.twice
        for call in passed.bounces[each][:-1]
        if not lost_its_answer(call, calls, passed.killed)
    ]


long = pytest.mark.skipif(
    "ALL_WEATHER" not in os.environ, reason="three quarters of an hour: `make weather` runs it"
)


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(1, marks=long, id="ses-calls-again"),
        pytest.param(2, id="ses-never-calls-again"),
    ],
)
def test_every_sender_is_told_while_processes_are_killed(weather: Site, seed: int) -> None:
    passed = mail_through(weather, f"killers:{seed}", KILLERS_SECONDS)
    lost = lost_invocations(weather, passed)
    assert len(passed.killed) >= 20  # cold starts limit how many there are to kill
    assert seed == 1 or len(lost) >= 5, "the function came through; that proves nothing"
    nothing_vanished(weather, passed)
    assert unexplained(weather, passed) == []


@long
@pytest.mark.parametrize(
    "forecast", ["refusals:1", "refusals:2", "post:1", "tables:1", "bounces:1"]
)
def test_every_sender_is_told_in_other_weather(weather: Site, forecast: str) -> None:
    passed = mail_through(weather, forecast)
    assert passed.befell.total() >= 5, "it came to nobody; that proves nothing"
    nothing_vanished(weather, passed)
    assert max(map(len, passed.bounces.values())) <= 2


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(1, id="ses-calls-again"),
        pytest.param(2, marks=long, id="ses-never-calls-again"),
    ],
)
def test_whoever_is_called_again_and_again_tells_each_sender_once(weather: Site, seed: int) -> None:
    """SES hears nothing for half a minute; by then each mail was called for often, and audited."""
    passed = mail_through(weather, f"deaf:{seed}")
    assert passed.befell["invocation unheard"] >= MAILS // 2
    lost = lost_invocations(weather, passed)
    assert bool(lost) == (seed == 2), "SES gave nothing up, or everything"
    nothing_vanished(weather, passed)
    assert passed.twice == []


@long
@pytest.mark.parametrize("forecast", ["crashes:1", "crashes:2", "storm:1", "storm:2"])
def test_every_sender_is_told_in_the_worst_weather(weather: Site, forecast: str) -> None:
    """Who dies, or cannot write, after his call, is why a bounce is repeated."""
    passed = mail_through(weather, forecast)
    assert len(passed.killed) >= 5
    nothing_vanished(weather, passed)
    repeats = sum(len(each) - 1 for each in passed.bounces.values())
    assert repeats <= len(passed.killed) + passed.froze + passed.befell.total()
    assert max(map(len, passed.bounces.values())) <= 3


@long
@pytest.mark.parametrize(
    "forecast",
    [
        *(f"kill-{when}-{step}" for step in STEPS for when in ("before", "after")),
        *(f"freeze-{moment}" for moment in ("before-call", "after-call", "before-settle")),
    ],
)
def test_every_sender_is_told_whichever_step_a_process_dies_at(
    weather: Site, forecast: str
) -> None:
    # More than one a second, so that some are queued.
    passed = mail_through(weather, f"{forecast}:2", 12, mails=25, earlier=5)
    assert len(passed.killed) + passed.froze >= 2, "it came to nobody; that proves nothing"
    nothing_vanished(weather, passed)
    if passed.froze:  # for longer than it waits for an answer
        assert max(map(len, passed.bounces.values())) <= 2
    else:
        assert unexplained(weather, passed) == []
