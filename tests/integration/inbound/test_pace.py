"""Sent now, queued behind others, or too late; and once, however often the mail is delivered."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.fakes.bounces import NOBODY
from tests.integration.builders import recipients_of, requests_of, ses_event
from tests.integration.inbound.site import Site


@pytest.mark.parametrize(("age", "state"), [(23.9, "sent"), (24.0, "expired"), (100.0, "expired")])
def test_after_the_window_nothing_is_sent(site: Site, age: float, state: str) -> None:
    site.configure(WINDOW_MARGIN_SECONDS="60")
    received_at = datetime.now(UTC) - timedelta(hours=age)
    goes = "STOP_RULE_SET" if state == "sent" else "CONTINUE"
    assert site.mail(NOBODY, received_at=received_at) == goes
    assert site.state() == state
    assert len(site.ses.calls) == (state == "sent")


def test_in_a_backlog_the_bounce_is_queued_and_the_mail_still_stops(site: Site) -> None:
    site.limiter_is_busy_for(60)
    assert site.mail(NOBODY) == "STOP_RULE_SET"
    (message,) = site.queued
    assert message["bounce"]["message_id"] == "msg1"
    assert site.state() == "queued"
    assert site.delays == [2]
    assert site.ses.calls == []
    assert site.printed.counts["BounceQueued:unknown-recipient"] == 1


def test_a_container_that_knows_the_backlog_leaves_ledger_and_limiter_alone(site: Site) -> None:
    site.limiter_is_busy_for(60)
    site.mail(NOBODY, message_id="msg1")
    seen = requests_of(site.dynamodb)
    site.mail(NOBODY, message_id="msg2")
    # The directory, the domain's budget (nobody knows the network), the note that it was queued,
    # and the mail's record.
    assert seen == ["BatchGetItem", "UpdateItem", "UpdateItem", "UpdateItem"]
    assert len(site.queued) == 2


def test_a_mail_that_is_delivered_twice_is_bounced_once(site: Site) -> None:
    assert [site.mail(NOBODY) for _ in range(3)] == ["STOP_RULE_SET"] * 3
    assert len(site.ses.calls) == 1
    assert site.printed.counts["BounceRepeatPrevented"] == 2
    assert site.printed.counts["BounceSent:unknown-recipient"] == 1


def test_overlapping_rules_bounce_each_recipient_once(site: Site) -> None:
    site.mail("a@example.com", "b@example.com")
    site.mail("b@example.com", "c@example.com")
    assert [recipients_of(call) for call in site.ses.calls] == [
        ["a@example.com", "b@example.com"],
        ["c@example.com"],
    ]


def test_a_wrong_slot_in_the_limiter_is_repaired_and_noted(site: Site) -> None:
    site.limiter_is_busy_for(3600)
    site.mail(NOBODY)
    assert site.state() == "sent"
    assert "3600 s ahead" in site.printed.line("SlotRepaired")["detail"]


def test_what_was_refused_is_tried_again_with_the_next_delivery_of_the_mail(site: Site) -> None:
    site.ses.answers = [(400, "MessageRejected", "not verified")]
    site.mail(NOBODY)
    assert site.mail(NOBODY) == "STOP_RULE_SET"
    assert site.state() == "sent"


def test_what_waits_in_the_queue_is_left_to_it_by_the_next_delivery_of_the_mail(
    site: Site,
) -> None:
    site.limiter_is_busy_for(60)
    site.mail(NOBODY)
    site.mail(NOBODY, headers=[("List-Id", "<x>")])
    assert site.state() == "queued"


def test_an_invocation_that_is_nearly_over_queues(site: Site) -> None:
    assert site.handle(ses_event(), seconds_left=10) == "STOP_RULE_SET"
    assert len(site.queued) == 1
    assert site.ses.calls == []
