"""The first rule whose conditions all hold decides, for each recipient on its own."""

from datetime import datetime
from typing import Any

import pytest

from bouncer.mailboxes import Status
from bouncer.policy.decide import Outcome, Trial, decide, trials
from tests.unit.builders import (
    ALICE,
    NOBODY,
    UNKNOWN_BOUNCES,
    box,
    decision,
    facts,
    mail,
    policy,
    rule,
)


def test_the_first_rule_that_holds_decides() -> None:
    rules = policy(
        rule('action = "drop"\nwhen.mailbox = "disabled"', "first")
        + rule('action = "drop"\nwhen.mailbox = "known"', "second")
        + rule('action = "drop"\nwhen.recipient = "@example.com"', "third")
    )
    assert decision(rules, known=facts(ALICE, box(status=Status.DISABLED))).reason == "first"
    assert decision(rules, known=facts(ALICE, box())).reason == "second"
    assert decision(rules, known=facts()).reason == "third"
    assert decision(rules, known=facts("x@other.example")).reason == "accept"


@pytest.mark.parametrize(
    ("body", "holds"),
    [
        ('when.mailbox = "unknown"\nwhen.spf = "PASS"', True),
        ('when.mailbox = "unknown"\nwhen.spf = "GRAY"', False),
        ('when.mailbox = "known"\nwhen.spf = "PASS"', False),
        ('when.spf = "PASS"\nunless.sender = "@sender.example"', False),
        ('when.spf = "PASS"\nunless.sender = "@other.example"', True),
        ('unless.sender = "@other.example"\nunless.mailbox = "unknown"', False),
        ('unless.mailbox = "known"', True),
        ('when.recipient = "@example.com"\nunless.recipient = "nobody@example.com"', False),
    ],
)
def test_all_of_when_must_hold_and_nothing_of_unless(body: str, holds: bool) -> None:
    rules = policy(rule('action = "drop"\n' + body))
    assert decision(rules).reason == ("rule" if holds else "accept")


def test_a_rule_that_is_not_enabled_is_not_there() -> None:
    rules = policy(rule('action = "drop"\nenabled = false') + UNKNOWN_BOUNCES)
    assert decision(rules).reason == "unknown-recipient"


def test_each_recipient_is_decided_on_its_own_in_the_order_of_the_facts() -> None:
    known = [facts(), facts(ALICE, box()), facts("x@example.com")]
    decided = decide(policy(), mail(), known)
    assert [(each.recipient, each.outcome) for each in decided] == [
        (NOBODY, Outcome.BOUNCE),
        (ALICE, Outcome.ACCEPT),
        ("x@example.com", Outcome.BOUNCE),
    ]


def test_no_recipients_need_no_decisions() -> None:
    assert decide(policy(), mail(recipients=[]), []) == []


def test_the_trials_name_the_condition_that_failed_in_each_rule_up_to_the_one_that_decides() -> (
    None
):
    rules = policy(
        rule('action = "drop"\nwhen.spam = "FAIL"\nwhen.mailbox = "unknown"', "spam")
        + rule('action = "drop"\nwhen.mailbox = "known"', "known")
        + rule('action = "drop"\nunless.sender = "@sender.example"', "stranger")
        + rule('action = "drop"\nunless.recipient = "@example.com"', "elsewhere")
        + rule('action = "drop"\nwhen.mailbox = "unknown"\nwhen.spf = "PASS"', "decides")
        + rule('action = "drop"', "never-asked")
    )
    assert trials(rules, mail(), facts()) == [
        Trial("spam", "when.spam", "spam is PASS; needs FAIL"),
        Trial("known", "when.mailbox", "mailbox is unknown; needs known"),
        Trial(
            "stranger", "unless.sender", "sender is pat@sender.example; excludes @sender.example"
        ),
        Trial(
            "elsewhere",
            "unless.recipient",
            "recipient is nobody@example.com; excludes @example.com",
        ),
        Trial("decides", None),
    ]


def test_deciding_takes_the_moment_from_the_facts_and_not_from_a_clock() -> None:
    body = 'action = "bounce"\nrecipient_dsn_fields.status = "5.1.1"\n'
    rules = policy(rule(body + "recipient_dsn_fields.last_attempt_date = true"))
    then = datetime.fromisoformat("2020-02-29T00:00:00+00:00")
    decided = decision(rules, known=facts(now=then)).bounce
    assert decided is not None
    assert decided.dsn_fields is not None
    assert decided.dsn_fields.last_attempt_date == then


@pytest.mark.parametrize("asked", ['mailbox = "full"', 'larger_than = "mailbox"'])
def test_what_cannot_be_asked_of_one_recipient_is_unknown_of_him_only(asked: str) -> None:
    rules = policy(rule(f'action = "drop"\nwhen.{asked}', "asks"))
    full = box(quota_bytes=1, used_bytes=1, size_limit_bytes=1)
    broken: Any = object()
    known = [
        facts(ALICE, full, size=10),
        facts(NOBODY, broken, size=10),
        facts("bob@example.com", full, size=10),
    ]
    assert [each.reason for each in decide(rules, mail(), known)] == ["asks", "accept", "asks"]


@pytest.mark.parametrize(
    ("asked", "reasons"),
    [
        ('when.mailbox = ["known", "full"]', ["asks", "asks", "accept"]),  # known is enough
        ('unless.larger_than = "1 kB"', ["accept", "asks", "accept"]),  # whose size nobody knows
        ('when.larger_than = "2 kB"', ["accept", "accept", "asks"]),  # each has his own
    ],
)
def test_what_holds_for_each_is_decided_by_what_is_known_of_him(
    asked: str, reasons: list[str]
) -> None:
    rules = policy(rule(f'action = "drop"\n{asked}', "asks"))
    if "known" in asked:
        room = box(quota_bytes=10)
        known = [facts(ALICE, room, size_asked=False), facts(ALICE, room, size=1), facts()]
    else:
        known = [facts(ALICE), facts(ALICE, size=1000), facts(NOBODY, size=3000)]
    told = [trials(rules, mail(), each)[-1].rule for each in known]
    assert [each.reason for each in decide(rules, mail(), known)] == told == reasons
