"""The stored mail is asked only where the outcome depends on it, and once."""

from datetime import datetime
from typing import Any

import pytest

from bouncer.guards import GuardName, OtherReason
from bouncer.headers import Header
from bouncer.inbound import Planned, Planner
from bouncer.mailboxes import Mailbox, StaticDirectory
from bouncer.message import InboundMessage, Verdicts
from bouncer.policy.decide import Outcome, Policy, trials
from tests.unit.builders import (
    ALICE,
    IDENTITY,
    NOBODY,
    NOW,
    UNKNOWN_BOUNCES,
    box,
    mail,
    policy,
    rule,
)

PERSON = (Header("From", "pat@sender.example"), Header("Message-ID", "<1@sender.example>"))
MACHINE = (*PERSON, Header("Auto-Submitted", "auto-replied"))


class CountingStore:
    def __init__(self, headers: tuple[Header, ...] | None) -> None:
        self._headers = headers
        self.asked = 0

    def size(self, message_id: str) -> int | None:
        return 1000

    def headers(self, message_id: str) -> tuple[Header, ...] | None:
        self.asked += 1
        return self._headers


def planned(
    rules: Policy,
    message: InboundMessage,
    stored: tuple[Header, ...] | None,
    boxes: tuple[Mailbox, ...] = (box("@example.com", catch_all=False),),
    now: datetime = NOW,
) -> tuple[Planned, int]:
    """The plan, and how often the stored mail was asked for its headers."""
    store = CountingStore(stored)
    planner = Planner(
        policy=lambda: rules,
        directory=StaticDirectory(boxes),
        store=store,
        identity=IDENTITY,
        clock=lambda: now,
    )
    return planner.plan(message), store.asked


def cut(*headers: str, **fields: Any) -> InboundMessage:
    return mail(*headers, headers_truncated=True, **fields)


BOUNCES = policy(UNKNOWN_BOUNCES)


@pytest.mark.parametrize(
    ("stored", "suppressed"),
    [
        (PERSON, None),
        (MACHINE, GuardName.AUTO_SUBMITTED),
        (None, GuardName.HEADERS_TRUNCATED),
    ],
    ids=["a person's", "a machine's", "not to be had"],
)
def test_before_a_bounce_the_stored_headers_are_asked_once(
    stored: tuple[Header, ...] | None, suppressed: GuardName | None
) -> None:
    found, asked = planned(BOUNCES, cut(), stored)
    assert (found.plan.suppressed, asked) == (suppressed, 1)


@pytest.mark.parametrize(
    "message",
    [
        mail(),
        cut("Auto-Submitted: auto-replied"),
        cut(source="<>"),
        cut(verdicts=Verdicts(spf="FAIL")),
        cut(recipients=[ALICE]),
        cut(recipients=[IDENTITY.bounce_sender]),
    ],
    ids=["whole", "seen", "null sender", "unproven", "no bounce", "to a bounce sender"],
)
def test_where_they_could_change_nothing_they_are_not_asked(message: InboundMessage) -> None:
    boxes = (box("@example.com", catch_all=False), box())
    _, asked = planned(BOUNCES, message, PERSON, boxes)
    assert asked == 0


def test_what_either_copy_shows_is_there() -> None:
    found, _ = planned(BOUNCES, cut("List-Id: <x>"), PERSON)
    assert found.plan.suppressed is GuardName.LIST_MAIL
    found, _ = planned(BOUNCES, cut("X-A: b"), (*PERSON, Header("List-Id", "<x>")))
    assert found.plan.suppressed is GuardName.LIST_MAIL


NO_ID = policy(rule('action = "drop"\nwhen.header.Message-ID = false', "no-id"))
UNLESS_ID = policy(rule('action = "drop"\nunless.header.Message-ID = true', "no-id"))


@pytest.mark.parametrize("rules", [NO_ID, UNLESS_ID], ids=["when", "unless"])
@pytest.mark.parametrize(
    ("stored", "outcome"),
    [
        (PERSON, Outcome.ACCEPT),
        ((Header("From", "x"),), Outcome.DROP),
        (None, Outcome.ACCEPT),
    ],
    ids=["there", "absent", "unknown"],
)
def test_a_rule_does_not_decide_by_half_of_the_headers(
    rules: Policy, stored: tuple[Header, ...] | None, outcome: Outcome
) -> None:
    found, asked = planned(rules, cut(), stored)
    assert (found.plan.decisions[0].outcome, asked) == (outcome, 1)
    if stored is None:
        tried, _ = trials(rules, found.plan.mail, found.facts[0])
        assert tried.unknown
        assert "unknown" in tried.why


def test_what_a_rule_sees_needs_no_asking() -> None:
    rules = policy(rule('action = "drop"\nwhen.header.X-Loop = true', "loop"))
    found, asked = planned(rules, cut("X-Loop: yes"), None)
    assert (found.plan.decisions[0].outcome, asked) == (Outcome.DROP, 0)
    elsewhere = policy(
        rule('action = "drop"\nwhen.header.X-Loop = true\nwhen.spam = "FAIL"', "spam-loop")
    )
    _, asked = planned(elsewhere, cut(), None)
    assert asked == 0


def test_who_answers_a_bounce_is_not_told_and_the_others_are() -> None:
    both = mail(recipients=[IDENTITY.bounce_sender, NOBODY])
    plan = planned(BOUNCES, both, None)[0].plan
    assert plan.withheld == {IDENTITY.bounce_sender: OtherReason.BOUNCE_SENDER_RECIPIENT}
    assert plan.to_send is not None
    assert [each.recipient for each in plan.to_send.recipients] == [NOBODY]
    alone = planned(BOUNCES, mail(recipients=["Mailer-Daemon@Example.com"]), None)[0].plan
    assert alone.to_send is None
    assert alone.suppressed is OtherReason.BOUNCE_SENDER_RECIPIENT


@pytest.mark.parametrize("recipient", ["postmaster", "j\u00fcrgen@example.com"])
def test_who_cannot_stand_in_a_bounce_keeps_the_mail_going(recipient: str) -> None:
    rules = policy(rule('action = "bounce"\nbounce_type = "Undefined"\nwhen.spf = "PASS"'))
    plan = planned(rules, mail(recipients=[recipient]), None)[0].plan
    assert plan.faults.keys() == {recipient}
    assert plan.to_send is None
    assert plan.disposition == "CONTINUE"
