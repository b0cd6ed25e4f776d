"""`bouncer queue`, and what a worker does with what was taken out."""

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_sqs import SQSClient

from bouncer.aws.ledger import DynamoLedger
from bouncer.delivery.bounce import WINDOW
from bouncer.delivery.ledger import BounceState, LedgerEntry
from bouncer.limiter import Pace
from bouncer_console.queue import Chosen, Turn, WaitingBounce, forecast, grouped
from tests.fakes.bounces import NOBODY
from tests.integration.builders import BOUNCES, entry_of
from tests.integration.console.builders import (
    STACK,
    Stack,
    bouncer,
    error_of,
    printed_json,
    text_of,
)

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
MARGIN = timedelta(minutes=5)
EVE = "eve@mass.evil.example"
PAT = "pat@sender.example"


def _entry(message_id: str, **fields: Any) -> LedgerEntry:
    values: dict[str, Any] = {
        "message_id": message_id,
        "recipient": NOBODY,
        "state": BounceState.QUEUED,
        "reason": "unknown-recipient",
        "status": "5.1.1",
        "reverse_path": PAT,
        "received_at": datetime.now(UTC) - timedelta(hours=1),
    }
    return LedgerEntry(**values | fields)


def _ledger(dynamodb: DynamoDBClient) -> DynamoLedger:
    return DynamoLedger(dynamodb, BOUNCES, retention=timedelta(days=14))


def _until() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


@pytest.fixture
def flooded(stack: Stack, dynamodb: DynamoDBClient) -> Stack:
    """Six of Eve's, two of Pat's, one of them too old to make it; and what does not wait."""
    entries = [_entry(f"eve{n}", reverse_path=EVE) for n in range(5)]
    entries += [
        _entry("eve5", reverse_path="EVE@other.evil.example", reason="over-quota"),
        _entry("pat1"),
        _entry("pat1", recipient="nemo@example.com"),
        _entry("pat2", received_at=datetime.now(UTC) - timedelta(hours=23, minutes=56)),
        _entry("sent1", state=BounceState.SENT),
        _entry("supp1", state=BounceState.SUPPRESSED),
    ]
    _ledger(dynamodb).record(entries, until=_until())
    return stack


def test_what_waits_is_counted_by_sender_domain_and_reason(flooded: Stack) -> None:
    found = printed_json("queue")
    assert found["waiting"] == 8
    assert found["given_up"] == 1
    assert found["items_read"] == 11
    assert found["senders"][0] == {"name": EVE, "waiting": 5}
    assert {"name": "mass.evil.example", "waiting": 5} in found["domains"]
    assert {"name": "over-quota", "waiting": 1} in found["reasons"]
    assert 23.9 * 3600 < found["oldest_seconds"] < 24 * 3600

    text = text_of("queue")
    for part in (
        "8 bounces wait; the oldest mail came 23 h 56 min ago",
        "Empty about",
        "1 will be given up",
        EVE,
        "62%",
    ):
        assert part in text
    assert "and 2 more senders" in text_of("queue", "--top", "1")


def test_looking_receives_nothing(flooded: Stack, sqs: SQSClient) -> None:
    sqs.send_message(QueueUrl=flooded.bounce_queue, MessageBody="x")
    bouncer("queue")
    (message,) = sqs.receive_message(
        QueueUrl=flooded.bounce_queue, MessageSystemAttributeNames=["ApproximateReceiveCount"]
    )["Messages"]
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


def test_an_empty_queue_is_said_to_be_empty(stack: Stack, dynamodb: DynamoDBClient) -> None:
    assert text_of("queue") == "Nothing waits."
    found = printed_json("queue")
    assert (found["waiting"], found["oldest_seconds"], found["empty_at"]) == (0, None, None)


def test_what_expired_does_not_wait(stack: Stack, dynamodb: DynamoDBClient) -> None:
    gone = DynamoLedger(dynamodb, BOUNCES, retention=timedelta(seconds=-1))
    gone.record([_entry("msg1")], until=_until())
    assert printed_json("queue")["waiting"] == 0


def test_dropping_without_run_changes_nothing(flooded: Stack, dynamodb: DynamoDBClient) -> None:
    found = printed_json("queue", "drop", "--domain", "evil.example")
    assert (found["run"], len(found["chosen"]), found["taken_out"]) == (False, 6, [])
    assert "6 would be taken out; add --run" in text_of("queue", "drop", "--domain=evil.example")
    assert entry_of(dynamodb, "eve0", NOBODY)["state"] == "queued"


def test_what_is_dropped_is_settled_with_its_reason_and_counted(
    flooded: Stack, dynamodb: DynamoDBClient
) -> None:
    found = printed_json("queue", "drop", "--domain", "evil.example", "--run")
    assert len(found["taken_out"]) == 6
    assert found["not_counted"] is None
    entry = entry_of(dynamodb, "eve0", NOBODY)
    assert (entry["state"], entry["reason"]) == ("suppressed", "taken-out")
    assert "unknown-recipient" in entry["detail"]
    assert printed_json("queue")["waiting"] == 2
    assert printed_json("status")["last_hour"]["suppressed"] == 6

    metrics = boto3.client("cloudwatch").list_metrics(MetricName="BounceSuppressed")["Metrics"]
    dimensions = [{d["Name"]: d["Value"] for d in each["Dimensions"]} for each in metrics]
    assert {"service": STACK} in dimensions
    assert {"service": STACK, "Reason": "taken-out"} in dimensions
    assert {"service": STACK, "Reason": "taken-out", "BounceType": "5.1.1"} in dimensions


def test_what_was_taken_out_is_never_claimed_again(
    flooded: Stack, dynamodb: DynamoDBClient
) -> None:
    bouncer("queue", "drop", "--recipient", "NEMO@example.com", "--run")
    reasons = {NOBODY: "unknown-recipient", "nemo@example.com": "unknown-recipient"}
    claims = _ledger(dynamodb).claim("pat1", reasons, owner="worker", until=_until())
    assert claims.mine == {NOBODY: 0}
    assert claims.settled == {"nemo@example.com": BounceState.SUPPRESSED}


@pytest.mark.parametrize(
    "state", [*(each for each in BounceState if each is not BounceState.QUEUED)]
)
def test_only_what_waits_is_taken_out(
    stack: Stack, dynamodb: DynamoDBClient, state: BounceState
) -> None:
    ledger = _ledger(dynamodb)
    if state is BounceState.CLAIMED:
        ledger.claim("msg1", {NOBODY: "x"}, owner="worker", until=_until())
    else:
        ledger.record([_entry("msg1", state=state)], until=_until())
    assert not ledger.take_out(_entry("msg1", state=BounceState.SUPPRESSED), until=_until())
    assert entry_of(dynamodb, "msg1", NOBODY)["state"] == state


def test_what_a_worker_takes_meanwhile_is_told_as_too_late(
    flooded: Stack, dynamodb: DynamoDBClient
) -> None:
    def claim(**_: Any) -> None:
        _ledger(dynamodb).claim("pat2", {NOBODY: "x"}, owner="worker", until=_until())
        flooded.hooks.clear()

    flooded.hooks.append(("dynamodb", "after-call.dynamodb.GetItem", claim))
    found = printed_json("queue", "drop", "--sender", PAT, "--run")
    assert {each["message_id"] for each in found["taken_out"]} == {"pat1"}
    assert [each["message_id"] for each in found["too_late"]] == ["pat2"]
    assert entry_of(dynamodb, "pat2", NOBODY)["state"] == "claimed"


def test_what_cannot_be_counted_is_taken_out_all_the_same(flooded: Stack) -> None:
    def refuse(**_: Any) -> None:
        raise boto3.client("cloudwatch").exceptions.ClientError(
            {"Error": {"Code": "AccessDenied", "Message": "not yours to count"}}, "PutMetricData"
        )

    flooded.hooks.append(("cloudwatch", "before-call.cloudwatch.PutMetricData", refuse))
    found = printed_json("queue", "drop", "--sender", PAT, "--run")
    assert len(found["taken_out"]) == 3
    assert "not yours to count" in found["not_counted"]


def test_dropping_asks_which(stack: Stack) -> None:
    assert "say which" in error_of("queue", "drop", "--run", code=2)


def test_nobody_is_dropped_by_an_empty_choice() -> None:
    waiting = grouped([_entry("msg1")], NOW)
    assert Chosen().of(waiting) == []
    for blank in (Chosen(senders=[""]), Chosen(domains=["@"]), Chosen(recipients=[""])):
        assert blank.of([*waiting, *grouped([_entry("msg2", reverse_path="")], NOW)]) == []


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (Chosen(senders=["EVE@Mass.Evil.Example"]), ["eve"]),
        (Chosen(domains=["evil.example"]), ["eve"]),
        (Chosen(domains=["@mass.evil.example"]), ["eve"]),
        (Chosen(domains=["vil.example"]), []),
        (Chosen(domains=["example"]), ["eve", "pat"]),
        (Chosen(recipients=[NOBODY]), ["eve", "pat"]),
        (Chosen(domains=["evil.example"], recipients=["x@example.com"]), []),
        (Chosen(senders=[PAT, EVE], recipients=[NOBODY]), ["eve", "pat"]),
    ],
)
def test_all_that_is_asked_for_has_to_fit(chosen: Chosen, found: list[str]) -> None:
    waiting = grouped([_entry("eve", reverse_path=EVE), _entry("pat")], NOW)
    assert [each.message_id for each in chosen.of(waiting)] == found


def test_hostile_addresses_are_shown_as_text(stack: Stack, dynamodb: DynamoDBClient) -> None:
    hostile = "[red]\x1b]0;gotcha\x07\u202e<script>@" + "x" * 10_000
    _ledger(dynamodb).record([_entry("msg1", reverse_path=hostile)], until=_until())
    output = bouncer("queue").output
    assert "\x1b" not in output
    assert "\u202e" not in output
    assert "[red]" in output


# --- When the turn of each comes -------------------------------------------------------------

_WAITING = st.lists(st.tuples(st.integers(0, 30 * 3600), st.integers(0, 3600)), max_size=60)


def _waiting(ages: Iterable[tuple[int, int]]) -> list[WaitingBounce]:
    """Of mails so many seconds old, each queued so many seconds after it came."""
    return [
        WaitingBounce(
            message_id=f"msg{n}",
            reverse_path=PAT,
            entries=(),
            received_at=NOW - timedelta(seconds=age),
            queued_at=NOW - timedelta(seconds=age) + timedelta(seconds=after),
        )
        for n, (age, after) in enumerate(ages)
    ]


def _forecast(waiting: Iterable[WaitingBounce], slot: float = 0, interval: float = 1) -> Any:
    return forecast(
        waiting,
        now=NOW,
        next_slot=NOW + timedelta(seconds=slot),
        pace=Pace(interval=interval),
        margin=MARGIN,
    )


@given(_WAITING, st.floats(-100, 3600), st.floats(1, 10))
def test_every_waiting_bounce_has_its_turn_or_is_given_up(
    ages: list[tuple[int, int]], slot: float, interval: float
) -> None:
    turns: tuple[Turn, ...] = _forecast(_waiting(ages), slot, interval)
    assert len(turns) == len(ages)
    sent = [each for each in turns if each.at is not None]
    assert [each.position for each in sent] == list(range(1, len(sent) + 1))
    starts = [each.at for each in sent if each.at is not None]
    assert all(start >= NOW for start in starts)
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(starts)]
    assert all(gap >= interval for gap in gaps)
    for each in sent:
        assert each.at is not None
        assert each.at < each.bounce.received_at + WINDOW - MARGIN
    queued = [each.bounce.queued_at for each in sent]
    assert queued == sorted(queued)


def test_a_day_of_queue_gives_up_its_end_and_no_more() -> None:
    """90,000 mails of just now at one a second: what the day less five minutes holds is sent."""
    turns = _forecast(_waiting([(0, 0)] * 90_000))
    held = sum(each.at is not None for each in turns)
    pace = Pace()
    assert held == pytest.approx((24 * 3600 - 300) / pace.drain(1), abs=1)
