"""The queue's worker, whole: what is done leaves the queue, the rest comes back, nobody blocks."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bouncer.delivery.bounce import Bounce
from bouncer.delivery.queue import encode
from functions.send import app
from tests.fakes.bounces import NOBODY, bounce
from tests.integration.builders import (
    QUEUE_KEY,
    Answer,
    Context,
    SesServer,
    bodies,
    entry_of,
    fail,
    know_key,
)
from tests.integration.conftest import Printed, Services

MAX_RECEIVES = 20


class Site:
    """The deployed worker, as these tests see it."""

    def __init__(self, services: Services, ses: SesServer, printed: Printed) -> None:
        self.dynamodb, _, self.sqs = services
        self.ses = ses
        self.printed = printed
        self.bounce_queue = services.queue("bounces")
        self.dead_letter_queue = services.queue("dead-letters")

    def work(self, *records: dict[str, Any], seconds_left: float = 90) -> list[str]:
        """The ids of the messages that go back to the queue."""
        event = {"Records": list(records)}
        context = Context(function_name="ses-bouncer-send", seconds_left=seconds_left)
        answer = app.handler(event, context)
        assert set(answer) == {"batchItemFailures"}
        return [each["itemIdentifier"] for each in answer["batchItemFailures"]]

    def state(self, message_id: str, recipient: str = NOBODY) -> str | None:
        return entry_of(self.dynamodb, message_id, recipient).get("state")

    @property
    def dead_letters(self) -> list[Any]:
        return bodies(self.sqs, self.dead_letter_queue)

    @property
    def sent_for(self) -> list[str]:
        return [call.parameters["OriginalMessageId"] for call in self.ses.calls]


@pytest.fixture
def site(
    monkeypatch: pytest.MonkeyPatch, services: Services, ses_server: SesServer, printed: Printed
) -> Site:
    site = Site(services, ses_server, printed)
    know_key(services.dynamodb)
    services.start(monkeypatch, app, BOUNCE_QUEUE_MAX_RECEIVES=str(MAX_RECEIVES))
    return site


def record(body: str | Bounce, *, message_id: str = "", tries: int = 1) -> dict[str, Any]:
    """A message as Lambda's poller hands it over; its id is that of its mail, unless given."""
    if isinstance(body, Bounce):
        message_id, body = message_id or body.message_id, encode(body, QUEUE_KEY)
    return {
        "messageId": message_id,
        "body": body,
        "attributes": {"ApproximateReceiveCount": str(tries)},
    }


def unavailable(*, times: int = 1) -> list[tuple[int, str, str]]:
    return [(503, "ServiceUnavailable", "later")] * times


def test_what_was_sent_leaves_the_queue(site: Site) -> None:
    assert site.work(record(bounce("a")), record(bounce("b"))) == []
    assert sorted(site.sent_for) == ["a", "b"]
    assert (site.state("a"), site.state("b")) == ("sent", "sent")
    assert site.printed.counts == {"BounceSent:unknown-recipient": 2}


def test_the_log_has_a_line_a_mail(site: Site) -> None:
    site.work(record(bounce("a")), record(bounce("b")))
    lines = [line for line in site.printed.lines if line["message"] == "bounce handled"]
    assert {line["ses_message_id"] for line in lines} == {"a", "b"}


def test_the_oldest_mail_goes_first(site: Site) -> None:
    now = datetime.now(UTC)
    ages = {"new": 1, "old": 60, "older": 3600}
    batch = [bounce(name, received_at=now - timedelta(seconds=age)) for name, age in ages.items()]
    site.work(*map(record, batch))
    assert site.sent_for == ["older", "old", "new"]


def test_only_what_failed_comes_back(site: Site) -> None:
    old = bounce("old", received_at=datetime.now(UTC) - timedelta(hours=1))
    site.ses.answers = unavailable()
    assert site.work(record(bounce("new")), record(old)) == ["old"]
    assert (site.state("old"), site.state("new")) == ("queued", "sent")


def test_a_throttle_comes_back_to_nobody(site: Site) -> None:
    site.ses.answers = [(400, "Throttling", "slow down")]
    assert site.work(record(bounce("a")), record(bounce("b"))) == []
    assert len(site.ses.calls) == 3
    assert site.printed.counts["SendBounceThrottled"] == 1


def test_what_ses_refuses_is_done(site: Site) -> None:
    site.ses.answers = [(400, "MessageRejected", "no")]
    assert site.work(record(bounce("a"))) == []
    assert site.state("a") == "rejected"
    assert site.printed.counts == {"BounceRejected:unknown-recipient": 1}


def test_what_is_too_old_is_given_up_and_done(site: Site) -> None:
    old = bounce("a", received_at=datetime.now(UTC) - timedelta(hours=24))
    assert site.work(record(old)) == []
    assert site.state("a") == "expired"
    assert site.ses.calls == []
    assert site.printed.counts == {"BounceExpired:window-closed": 1}


def test_what_was_sent_before_is_done(site: Site) -> None:
    site.work(record(bounce("a")))
    assert site.work(record(bounce("a"))) == []
    assert len(site.ses.calls) == 1
    assert site.printed.counts["BounceRepeatPrevented"] == 1


def test_two_messages_of_one_mail_in_one_batch_are_sent_once(site: Site) -> None:
    batch = [record(bounce("a"), message_id="first"), record(bounce("a"), message_id="second")]
    assert site.work(*batch) == ["second"]
    assert site.work(batch[1]) == []
    assert site.sent_for == ["a"]
    assert site.state("a") == "sent"


def test_after_two_calls_without_an_answer_the_bounce_is_given_up(site: Site) -> None:
    site.ses.hang_up = True
    assert site.work(record(bounce("a"), tries=1)) == ["a"]
    assert site.state("a") == "queued"
    assert site.work(record(bounce("a"), tries=2)) == []
    assert site.state("a") == "rejected"
    assert len(site.ses.calls) == 2


def test_what_failed_is_sent_on_its_next_try(site: Site) -> None:
    site.ses.answers = unavailable()
    assert site.work(record(bounce("a"), tries=1)) == ["a"]
    assert site.work(record(bounce("a"), tries=2)) == []
    assert site.state("a") == "sent"


def test_without_time_everything_comes_back(site: Site) -> None:
    batch = [record(bounce("a")), record(bounce("b"))]
    assert site.work(*batch, seconds_left=5) == ["a", "b"]
    assert site.ses.calls == []
    assert site.dead_letters == []


# --- Poison ----------------------------------------------------------------------------------

POISON = '{"version": 99, "bounce": {}}'


def test_what_nobody_can_read_is_set_aside_at_once_and_blocks_nobody(site: Site) -> None:
    assert site.work(record(POISON, message_id="poison"), record(bounce("a"))) == []
    assert site.state("a") == "sent"
    assert site.dead_letters == [json.loads(POISON)]
    assert site.printed.counts == {
        "BounceDeadLettered:unreadable": 1,
        "BounceSent:unknown-recipient": 1,
    }
    assert site.printed.line("bounce unreadable")["sqs_message_id"] == "poison"


def test_poison_that_cannot_be_set_aside_comes_back_and_blocks_nobody(site: Site) -> None:
    """The queue's redrive policy moves it in the end."""
    fail(site.sqs, "SendMessage", Answer(code="AccessDenied", status=403))
    assert site.work(record(POISON, message_id="poison"), record(bounce("a"))) == ["poison"]
    assert site.state("a") == "sent"
    assert site.printed.line("dead letter not kept")["level"] == "ERROR"


# --- The last try ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tries", "state"),
    [
        (1, "queued"),
        (MAX_RECEIVES - 1, "queued"),
        (MAX_RECEIVES, "dead-lettered"),
        (MAX_RECEIVES + 1, "dead-lettered"),
    ],
)
def test_after_the_last_try_the_ledger_says_that_the_queue_gave_it_up(
    site: Site, tries: int, state: str
) -> None:
    site.ses.answers = unavailable()
    assert site.work(record(bounce("a"), tries=tries)) == ["a"]
    assert site.state("a") == state
    dead = {"BounceDeadLettered:unknown-recipient": 1} if state == "dead-lettered" else {}
    assert {k: v for k, v in site.printed.counts.items() if "Dead" in k} == dead


def test_the_last_try_that_works_is_no_dead_letter(site: Site) -> None:
    assert site.work(record(bounce("a"), tries=MAX_RECEIVES)) == []
    assert site.state("a") == "sent"


def test_a_dead_letter_that_is_redriven_is_sent(site: Site) -> None:
    site.ses.answers = unavailable()
    site.work(record(bounce("a"), tries=MAX_RECEIVES))
    assert site.work(record(bounce("a"), tries=1)) == []
    assert site.state("a") == "sent"


# --- Trouble ---------------------------------------------------------------------------------


def test_a_ledger_that_fails_hands_back_what_it_was_asked_about(site: Site) -> None:
    app.application().key()  # the worker has been at work before
    fail(site.dynamodb, "UpdateItem", Answer(code="InternalServerError", status=500))
    old = bounce("old", received_at=datetime.now(UTC) - timedelta(hours=1))
    assert site.work(record(old), record(bounce("new"))) == ["old"]
    assert site.state("new") == "sent"


def test_a_failure_that_nobody_foresaw_fails_the_batch_and_the_metrics_are_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue gives every message another try; the ledger keeps them from being sent twice."""

    def broken(*_: Any, **__: Any) -> Any:
        raise ClientError({"Error": {"Code": "Strange"}}, "SendBounce")

    site.ses.answers = [(400, "Throttling", "slow down")]
    site.work(record(bounce("a")))
    monkeypatch.setattr(app.application().delivery, "send_batch", broken)
    app.application().telemetry.count("CountedBefore")
    with pytest.raises(ClientError, match="Strange"):
        site.work(record(bounce("b")))
    assert site.printed.counts["CountedBefore"] == 1


def test_a_message_that_this_stack_did_not_write_is_set_aside_and_not_sent(site: Site) -> None:
    forged = record(encode(bounce("forged"), b"another key"), message_id="forged")
    assert site.work(forged, record(bounce("ours"))) == []
    assert site.sent_for == ["ours"]
    assert site.state("forged") is None
    (kept,) = site.dead_letters
    assert kept["bounce"]["message_id"] == "forged"
    assert site.printed.counts["BounceDeadLettered:unreadable"] == 1


def test_without_the_key_everything_comes_again(site: Site) -> None:
    fail(site.dynamodb, "UpdateItem", Answer(code="AccessDeniedException"))
    assert site.work(record(bounce("a")), record(bounce("b"))) == ["a", "b"]
    assert site.sent_for == []
    assert site.work(record(bounce("a")), record(bounce("b"))) == []
    assert sorted(site.sent_for) == ["a", "b"]
