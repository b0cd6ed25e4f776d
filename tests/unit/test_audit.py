"""The audit: what nobody handled is handled late, and never to somebody who may have the mail."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bouncer.audit import Audit, Audited
from bouncer.delivery.delivery import Delivery
from bouncer.delivery.fate import Fate
from bouncer.delivery.ledger import BounceState, LedgerEntry, LedgerUnavailableError
from bouncer.inbound import Handled, Inbound, LateBounces, NoStoredMail, Planner
from bouncer.mail_record import (
    FOUND_UNDECIDED,
    MailRecord,
    RecipientRecord,
    RecordsUnavailableError,
)
from bouncer.mailboxes import Mailbox, StaticDirectory
from bouncer.message import InboundMessage, MalformedEventError, Verdicts, parse_notice
from bouncer.plan import Disposition
from bouncer.policy.load import load
from tests.fakes.budget import MemoryBudget
from tests.fakes.ledger import MemoryLedger
from tests.fakes.mail_records import MemoryMailRecords
from tests.unit.builders import IDENTITY, NOW

POLICY = """
version = 1
[[rules]]
name = "unknown-recipient"
action = "bounce"
when.mailbox = "unknown"
bounce_type = "DoesNotExist"
[[rules]]
name = "mailbox-disabled"
action = "bounce"
when.mailbox = "disabled"
bounce_type = "Undefined"
[[rules]]
name = "accept"
action = "accept"
"""
ALICE, OFF, NOBODY = "alice@example.com", "off@example.com", "nobody@example.com"
UNTIL = NOW + timedelta(seconds=55)


class Sent:
    """A Delivery that sends at once, or leaves a recipient in somebody else's hands."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.state = BounceState.SENT

    def send_or_queue(self, bounce: Any, *, owner: str, until: datetime) -> list[Fate]:
        assert owner
        assert until >= UNTIL
        self.told += [each.recipient for each in bounce.recipients]
        return [
            Fate(
                message_id=bounce.message_id,
                recipient=each.recipient,
                state=self.state,
                reason=each.reason,
            )
            for each in bounce.recipients
        ]

    def suppress(self, *_: Any, **__: Any) -> list[Fate]:
        return []

    def reject(self, *_: Any, **__: Any) -> list[Fate]:
        return []


class Site:
    def __init__(self, late: LateBounces = LateBounces.UNKNOWN) -> None:
        self.now = NOW
        self.records = MemoryMailRecords(lambda: self.now)
        self.ledger = MemoryLedger(lambda: self.now)
        self.sent = Sent()
        policy = load(POLICY)
        self.inbound = Inbound(
            planner=Planner(
                policy=lambda: policy,
                directory=StaticDirectory(
                    [
                        Mailbox(address="@example.com", catch_all=False),
                        Mailbox(address=ALICE),
                        msgspec.convert({"address": OFF, "status": "disabled"}, Mailbox),
                    ]
                ),
                store=NoStoredMail(),
                identity=IDENTITY,
                clock=lambda: self.now,
            ),
            budget=MemoryBudget(lambda: self.now),
            delivery=cast_delivery(self.sent),
            records=self.records,
        )
        self.audit = Audit(
            inbound=self.inbound,
            records=self.records,
            ledger=self.ledger,
            late=late,
            clock=lambda: self.now,
        )

    def run(self, *mails: InboundMessage) -> Audited:
        return self.audit.run({each.message_id: each for each in mails}, until=UNTIL)


def cast_delivery(sent: Any) -> Delivery:
    delivery: Delivery = sent
    return delivery


def mail(*recipients: str, message_id: str = "msg1") -> InboundMessage:
    return InboundMessage(
        message_id=message_id,
        received_at=NOW,
        source="pat@sender.example",
        recipients=recipients,
        verdicts=Verdicts(spf="PASS", dkim="PASS", dmarc="PASS", spam="PASS", virus="PASS"),
    )


def handle(site: Site, its: InboundMessage) -> Handled:
    return site.inbound.handle(its, owner="inbound", until=UNTIL)


def test_a_mail_that_was_handled_is_left_alone() -> None:
    site = Site()
    its = mail(ALICE, NOBODY)
    handle(site, its)
    assert site.run(its) == Audited()
    assert site.sent.told == [NOBODY]


def test_a_mail_that_nobody_handled_is_handled_and_its_record_says_so() -> None:
    site = Site()
    (found,) = site.run(mail(ALICE, NOBODY)).found
    assert found.late
    assert site.sent.told == [NOBODY]
    record = site.records.records["msg1"]
    assert record.found_undecided
    assert {each.recipient for each in record.recipients} == {ALICE, NOBODY}
    assert site.run(mail(ALICE, NOBODY)) == Audited()


def test_who_has_a_mailbox_is_not_bounced_late() -> None:
    site = Site()
    (found,) = site.run(mail(OFF, NOBODY)).found
    assert found.withheld == {OFF}
    assert site.sent.told == [NOBODY]
    reasons = {each.recipient: each.reason for each in site.records.records["msg1"].recipients}
    assert reasons == {OFF: FOUND_UNDECIDED, NOBODY: "unknown-recipient"}


def test_every_late_bounce_is_sent_where_the_operator_says_so() -> None:
    site = Site(LateBounces.ALL)
    (found,) = site.run(mail(OFF)).found
    assert (found.withheld, site.sent.told) == (frozenset(), [OFF])


def test_in_time_nothing_is_withheld() -> None:
    site = Site()
    handled = handle(site, mail(OFF))
    assert (handled.late, handled.withheld, site.sent.told) == (False, frozenset(), [OFF])
    assert handled.disposition is Disposition.STOP_RULE_SET


def test_a_claim_in_force_is_waited_for_and_one_left_behind_is_not() -> None:
    site = Site()
    site.ledger.claim("msg1", {NOBODY: "unknown-recipient"}, owner="dead", until=UNTIL)
    assert site.run(mail(NOBODY)) == Audited(again=frozenset({"msg1"}))
    assert site.sent.told == []
    site.now = UNTIL + timedelta(seconds=3)
    later = site.audit.run({"msg1": mail(NOBODY)}, until=site.now + timedelta(seconds=55))
    assert later.again == frozenset()
    assert [each.late for each in later.found] == [True]
    assert site.sent.told == [NOBODY]


LATER = UNTIL + timedelta(seconds=3)


def look_later(site: Site, its: InboundMessage) -> Audited:
    site.now = max(site.now, LATER)
    return site.audit.run({its.message_id: its}, until=site.now + timedelta(seconds=55))


def left_behind(site: Site, *recipients: str) -> None:
    """Claims of an invocation that died."""
    reasons = dict.fromkeys(recipients, "unknown-recipient")
    site.ledger.claim("msg1", reasons, owner="dead", until=UNTIL)


def test_a_claim_on_somebody_who_was_accepted_afterwards_ends() -> None:
    """His mailbox appeared between two deliveries of the mail."""
    site = Site()
    left_behind(site, ALICE)
    handle(site, mail(ALICE))
    assert site.run(mail(ALICE)).again == {"msg1"}, "its holder may be at work"
    assert site.ledger.state("msg1", ALICE) is BounceState.CLAIMED
    assert look_later(site, mail(ALICE)) == Audited()
    (line,) = site.ledger.history("msg1")
    assert (line.state, line.reason) == (BounceState.SUPPRESSED, "decided-otherwise")


@pytest.mark.parametrize(
    ("recipient", "reason"), [(ALICE, "decided-otherwise"), (OFF, FOUND_UNDECIDED)]
)
def test_a_claim_that_the_audit_does_not_carry_out_ends_at_its_next_look(
    recipient: str, reason: str
) -> None:
    site = Site()
    left_behind(site, recipient)
    first = look_later(site, mail(recipient))
    assert len(first.found) == 1
    assert first.again == {"msg1"}
    assert look_later(site, mail(recipient)) == Audited()
    (line,) = site.ledger.history("msg1")
    assert (line.state, line.reason) == (BounceState.SUPPRESSED, reason)
    assert site.sent.told == []


def test_what_ses_had_refused_and_somebody_took_up_once_more_is_handled_to_its_end() -> None:
    """A repeated event did, and died: before its call, after it, or once it was queued."""
    site, its = Site(), mail(NOBODY)
    handle(site, its)
    refused = LedgerEntry(
        message_id="msg1",
        recipient=NOBODY,
        state=BounceState.REJECTED,
        reason="unknown-recipient",
        error_code="MessageRejected",
        detail="Email address is not verified.",
    )
    site.ledger.record([refused], until=UNTIL)
    left_behind(site, NOBODY)
    assert site.ledger.state("msg1", NOBODY) is BounceState.CLAIMED
    assert len(look_later(site, its).found) == 1
    assert site.sent.told == [NOBODY, NOBODY]


def test_a_claim_on_somebody_who_is_recorded_as_bounced_is_left_alone() -> None:
    """His bounce may wait in the queue, whose worker takes the claim over."""
    site = Site()
    left_behind(site, NOBODY)
    handle(site, mail(NOBODY))
    assert look_later(site, mail(NOBODY)) == Audited()
    assert site.ledger.state("msg1", NOBODY) is BounceState.CLAIMED


@pytest.mark.parametrize("state", [s for s in BounceState if s is not BounceState.CLAIMED])
def test_an_end_in_the_ledger_accounts_for_a_recipient(state: BounceState) -> None:
    site = Site()
    entry = LedgerEntry(message_id="msg1", recipient=NOBODY, state=state, reason="x")
    site.ledger.record([entry], until=UNTIL)
    assert site.run(mail(NOBODY)) == Audited()


def test_who_is_in_other_hands_is_not_recorded() -> None:
    site = Site()
    site.sent.state = BounceState.CLAIMED
    handle(site, mail(ALICE, NOBODY))
    assert {each.recipient for each in site.records.records["msg1"].recipients} == {ALICE}


def test_a_record_that_is_not_written_does_not_keep_the_mail() -> None:
    site = Site()

    def fail(_: str) -> None:
        raise RecordsUnavailableError("down")

    site.records.fault = fail
    handled = handle(site, mail(ALICE))
    assert (handled.recorded, handled.disposition) == (False, Disposition.CONTINUE)
    assert site.run(mail(ALICE)).again == {"msg1"}


def test_one_mail_that_fails_costs_the_others_nothing() -> None:
    site = Site()

    def fail(request: str) -> None:
        if "msg1" in request:
            raise LedgerUnavailableError("down")

    site.ledger.fault = fail
    audited = site.run(mail(NOBODY), mail(NOBODY, message_id="msg2"))
    assert audited.again == {"msg1"}
    assert isinstance(audited.failures["msg1"], LedgerUnavailableError)
    assert [each.plan.mail.message_id for each in audited.found] == ["msg2"]


def test_what_there_is_no_time_for_comes_again() -> None:
    site = Site()
    site.now = UNTIL - timedelta(seconds=5)
    assert site.run(mail(NOBODY)).again == {"msg1"}
    assert site.sent.told == []


@given(st.sets(st.sampled_from([ALICE, OFF, NOBODY])))
def test_whatever_was_recorded_the_audit_completes(recorded: Iterable[str]) -> None:
    site = Site()
    ends = frozenset(RecipientRecord(each, "bounce", "x") for each in recorded)
    if ends:
        site.records.add(
            MailRecord(message_id="msg1", received_at=NOW, recipients=ends), until=UNTIL
        )
    its = mail(ALICE, OFF, NOBODY)
    site.run(its)
    assert all(site.records.records["msg1"].covers(each) for each in its.recipients)
    assert OFF not in site.sent.told


def test_a_notice_is_read_as_the_functions_event_is() -> None:
    text = """{"notificationType": "Received",
        "mail": {"messageId": "m", "timestamp": "2026-11-21T12:00:00.000Z",
                 "source": "pat@sender.example", "headersTruncated": true},
        "receipt": {"recipients": ["a@example.com"], "spfVerdict": {"status": "PASS"},
                    "action": {"type": "S3", "topicArn": "t", "bucketName": "b"}}}"""
    notice = parse_notice(text)
    assert notice is not None
    assert (notice.message_id, notice.recipients, notice.headers_truncated) == (
        "m",
        ("a@example.com",),
        True,
    )
    assert notice.verdicts.spf == "PASS"


@pytest.mark.parametrize("text", ["Successfully validated", "[]", '{"notificationType": "Setup"}'])
def test_a_notice_of_no_mail_is_none(text: str) -> None:
    assert parse_notice(text) is None


def test_a_notice_that_lacks_its_mail_is_malformed() -> None:
    with pytest.raises(MalformedEventError, match="receipt"):
        parse_notice('{"notificationType": "Received", "mail": {}}')
