"""With Usage=managed, an accepted mail counts in its mailbox."""

from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws import usage as aws_usage
from bouncer.inbound import LateBounces
from bouncer.message import parse_event
from functions.inbound import app
from tests.integration.builders import (
    ALICE,
    BOUNCES,
    Answer,
    fail,
    mailbox_of,
    put_mail,
    put_mailbox,
    requests_of,
    ses_event,
    stored,
)
from tests.integration.inbound.site import Site


@pytest.fixture
def managed(site: Site) -> Site:
    site.configure(USAGE="managed")
    put_mail(site.s3, "msg1", bytes(400))
    put_mail(site.s3, "msg2", bytes(400))
    put_mailbox(site.dynamodb, quota_bytes=1000)
    return site


def test_an_accepted_mail_is_counted_once(managed: Site) -> None:
    assert [managed.mail(ALICE) for _ in range(2)] == ["CONTINUE"] * 2
    assert mailbox_of(managed.dynamodb)["used_bytes"] == "400"


def test_counting_costs_one_transaction_a_recipient_more(managed: Site) -> None:
    put_mailbox(managed.dynamodb, "bob@example.com")
    seen = requests_of(managed.dynamodb)
    managed.mail(ALICE, "bob@example.com")
    assert seen == ["BatchGetItem", "TransactWriteItems", "TransactWriteItems", "UpdateItem"]


def test_a_refused_mail_is_not_counted(managed: Site) -> None:
    put_mailbox(managed.dynamodb, quota_bytes=300)
    assert managed.mail(ALICE) == "STOP_RULE_SET"
    assert "used_bytes" not in mailbox_of(managed.dynamodb)
    assert len(managed.ses.calls) == 1


def test_a_mailbox_that_fills_up_meanwhile_bounces(managed: Site) -> None:
    """Another mail came between the look-up and the charge."""

    another: DynamoDBClient = boto3.client("dynamodb")

    def meanwhile(**_: Any) -> None:
        put_mailbox(another, quota_bytes=1000, used_bytes=900)

    managed.dynamodb.meta.events.register("after-call.dynamodb.BatchGetItem", meanwhile)
    assert managed.mail(ALICE) == "STOP_RULE_SET"
    assert managed.printed.line("mail handled")["recipients"][0]["reason"] == "over-quota"
    assert mailbox_of(managed.dynamodb)["used_bytes"] == "900"
    assert managed.state(ALICE) == "sent"


def test_whose_turn_does_not_come_goes_on_and_is_left_to_the_audit(
    managed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No dead letter and no alarm for each mail of a burst."""
    monkeypatch.setattr(aws_usage.DynamoUsage, "_pause", lambda *_: None)
    reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
    busy = Answer(code="TransactionCanceledException", more={"CancellationReasons": reasons})
    fail(managed.dynamodb, "TransactWriteItems", *[busy] * 100)
    assert managed.mail(ALICE) == "CONTINUE"
    assert managed.kept == []
    assert managed.printed.counts["UsageBusy"] == 1
    assert stored(managed.dynamodb, BOUNCES, pk="message#msg1", sk="mail") == {}
    assert "used_bytes" not in mailbox_of(managed.dynamodb)


@pytest.mark.parametrize(
    ("mailbox", "counted"),
    [
        ({"quota_bytes": 300}, "400"),
        ({"quota_bytes": 1000, "used_bytes": 1000}, "1400"),
        ({"quota_bytes": 300, "status": "disabled"}, None),
    ],
    ids=["too small", "full", "disabled"],
)
def test_what_went_on_undecided_to_a_full_mailbox_is_counted_beyond_its_quota(
    managed: Site, mailbox: dict[str, Any], counted: str | None
) -> None:
    put_mailbox(managed.dynamodb, **mailbox)
    (mail,) = parse_event(ses_event(ALICE))
    until = datetime.now(UTC) + timedelta(seconds=50)
    for owner in ("first", "again"):
        handled = app.application().inbound.handle(
            mail, owner=owner, until=until, late=LateBounces.UNKNOWN
        )
        assert handled.withheld == {ALICE}
    assert mailbox_of(managed.dynamodb).get("used_bytes") == counted
    assert managed.ses.calls == []


def test_the_mail_that_passes_the_mark_is_noted(managed: Site) -> None:
    put_mailbox(managed.dynamodb, quota_bytes=1000, used_bytes=500)
    managed.mail(ALICE, message_id="msg1")
    assert managed.printed.counts["MailboxNearFull"] == 1
    line = managed.printed.line("mailbox near full")
    assert (line["mailbox"], line["used_bytes"], line["quota_bytes"]) == (ALICE, 900, 1000)


def test_a_mail_is_counted_in_the_mailbox_that_an_alias_leads_to(managed: Site) -> None:
    put_mailbox(managed.dynamodb, "sales@example.com", alias_for=ALICE)
    managed.mail("sales@example.com")
    assert mailbox_of(managed.dynamodb)["used_bytes"] == "400"
    assert "used_bytes" not in mailbox_of(managed.dynamodb, "sales@example.com")


def test_usage_that_somebody_else_keeps_is_only_read(site: Site) -> None:
    put_mailbox(site.dynamodb, quota_bytes=1000)
    put_mail(site.s3, "msg1")
    site.mail(ALICE)
    assert "used_bytes" not in mailbox_of(site.dynamodb)
