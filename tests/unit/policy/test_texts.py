"""What a rule's texts tell, and that no mail can break out of them."""

import pytest

from bouncer.policy.conditions import SizeNeeded
from bouncer.text import VARIABLES
from tests.unit.builders import (
    ALICE,
    SENDER,
    UNKNOWN_BOUNCES,
    bounce_rule,
    box,
    decision,
    facts,
    mail,
    policy,
    rule,
)

TOLD = {
    "recipient": "Full@Example.com",
    "domain": "example.com",
    "sender": SENDER,
    "subject": "Hello there",
    "message_id": "msg1",
    "received_at": "2026-11-21 11:59:00 UTC",
    "size": "12.3 MB",
    "limit": "10 MB",
    "quota": "100 MB",
    "used": "99 MB",
    "new_address": "full@example.net",
    "rule": "told",
}


@pytest.mark.parametrize("name", VARIABLES)
def test_each_variable_tells_what_is_documented(name: str) -> None:
    rules = policy(bounce_rule(f'when.larger_than = "10 MB"\nexplanation = "<{{{name}}}>"', "told"))
    known = facts(
        "Full@Example.com",
        box(
            "full@example.com",
            quota_bytes=100_000_000,
            used_bytes=99_000_000,
            moved_to="full@example.net",
            tell_new_address=True,
        ),
        size=12_345_678,
    )
    decided = decision(rules, mail("Subject: Hello there", "Subject: second"), known).bounce
    assert decided is not None
    assert decided.explanation == f"<{TOLD[name]}>"


def test_a_variable_without_a_value_says_so_and_no_more() -> None:
    text = "{subject} {size} {limit} {quota} {used} {sender}"
    decided = decision(policy(bounce_rule(f'explanation = "{text}"')), mail(source="<>")).bounce
    assert decided is not None
    assert decided.explanation == " ".join(["(unknown)"] * 6)


@pytest.mark.parametrize(
    ("asked", "size_limit", "limit"),
    [
        ('["25 MB", "mailbox"]', 4000, "4 kB"),
        ('["25 MB", "mailbox"]', 30_000_000, "25 MB"),
        ('"25 MB"', 4000, "25 MB"),
        ('"mailbox"', 4000, "4 kB"),
        ('["3 kB", "25 MB"]', None, "3 kB"),
    ],
)
def test_the_limit_that_is_told_is_the_one_that_was_exceeded(
    asked: str, size_limit: int | None, limit: str
) -> None:
    rules = policy(bounce_rule(f'when.larger_than = {asked}\nexplanation = "{{limit}}"'))
    decided = decision(rules, known=facts(ALICE, box(size_limit_bytes=size_limit), size=10**9))
    assert decided.bounce is not None
    assert decided.bounce.explanation == limit


HOSTILE = "a\r\nBcc: victim@x.example\r\n\r\n\x00\u202e\u00fc{recipient}" + "x" * 5000


def test_what_the_mail_says_cannot_break_out_of_a_text() -> None:
    rules = policy(
        rule(
            """
            action = "bounce"
            explanation = "About {subject}"
            recipient_dsn_fields.status = "5.1.1"
            recipient_dsn_fields.diagnostic_code = "smtp; 550 {subject}"
            recipient_dsn_fields.extension_fields.X-Subject = "{subject}"
            """
        )
    )
    decided = decision(rules, mail(f"Subject: {HOSTILE}")).bounce
    assert decided is not None
    assert decided.dsn_fields is not None
    fields = decided.dsn_fields
    texts = [decided.explanation, fields.diagnostic_code or "", fields.extension_fields[0].value]
    for text in texts:
        assert text.isascii()
        assert text.isprintable()
        assert "a Bcc: victim@x.example u{recipient}xxx" in text
        assert len(text) < 300
    decided.check()


def test_an_explanation_is_cut_at_what_ses_takes() -> None:
    rules = policy(bounce_rule('explanation = "{subject} {subject} {subject}"'))
    decided = decision(rules, mail("Subject: " + "x" * 250)).bounce
    assert decided is not None
    assert len(decided.explanation) == 500
    assert decided.explanation.endswith("...")


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ('explanation = "It has {size}."', True),
        ('send_bounce.explanation = "It has {size}."', True),
        ('explanation = "It is too large."', False),
    ],
)
def test_a_text_that_tells_the_size_asks_for_it(text: str, needed: bool) -> None:
    rules = policy(bounce_rule(text))
    unasked = facts(size_asked=False)
    if needed:
        with pytest.raises(SizeNeeded):
            decision(rules, known=unasked)
    else:
        assert decision(rules, known=unasked).reason == "rule"


def test_a_diagnostic_code_that_tells_the_size_asks_for_it() -> None:
    body = """
        action = "bounce"
        recipient_dsn_fields.status = "5.3.4"
        recipient_dsn_fields.diagnostic_code = "smtp; 552 5.3.4 {size}"
    """
    with pytest.raises(SizeNeeded):
        decision(policy(rule(body)), known=facts(size_asked=False))


def test_the_size_is_not_asked_for_where_an_earlier_rule_decides() -> None:
    rules = policy(UNKNOWN_BOUNCES + rule('action = "drop"\nwhen.larger_than = "1 MB"'))
    assert decision(rules, known=facts(size_asked=False)).reason == "unknown-recipient"
    with pytest.raises(SizeNeeded):
        decision(rules, known=facts(ALICE, box(), size_asked=False))
