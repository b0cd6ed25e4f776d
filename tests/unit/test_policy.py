"""The first rule whose conditions all hold decides, for each recipient on its own."""

from datetime import datetime
from typing import Any

import pytest

from bouncer.delivery.bounce import (
    STATUS,
    BounceType,
    DsnAction,
    ExtensionField,
    RecipientDsnFields,
)
from bouncer.guards import MARKER
from bouncer.mailboxes import Status
from bouncer.message import InboundMessage, Verdicts
from bouncer.policy.conditions import Facts, PolicyError, SizeNeeded
from bouncer.policy.decide import Envelope, Outcome, Trial, decide, trials
from bouncer.policy.load import load
from bouncer.text import VARIABLES
from tests.unit.builders import (
    ALICE,
    NOBODY,
    NOW,
    RECEIVED,
    SENDER,
    SHIPPED_POLICY,
    UNKNOWN_BOUNCES,
    bounce_rule,
    box,
    decision,
    facts,
    mail,
    policy,
    rule,
)

SHIPPED = load(SHIPPED_POLICY.read_text("utf-8"))
MARKED = (MARKER, "auto-generated")


# --- The policy that is shipped --------------------------------------------------------------


def failing(**verdicts: str) -> InboundMessage:
    return mail(verdicts=Verdicts(**verdicts))


ACCEPTED = ("accept", "accept", None, None)
TOO_LARGE = ("bounce", "too-large", BounceType.MESSAGE_TOO_LARGE, "5.3.4")
OVER_QUOTA = ("bounce", "over-quota", BounceType.EXCEEDED_QUOTA, "5.2.2")


@pytest.mark.parametrize(
    ("known", "message", "expected"),
    [
        pytest.param(
            facts(),
            mail(),
            ("bounce", "unknown-recipient", BounceType.DOES_NOT_EXIST, "5.1.1"),
            id="unknown",
        ),
        pytest.param(
            facts(ALICE, box(status=Status.DISABLED)),
            mail(),
            ("bounce", "mailbox-disabled", None, "5.2.1"),
            id="disabled",
        ),
        pytest.param(
            facts(ALICE, box(moved_to="alice@example.net")),
            mail(),
            ("bounce", "mailbox-moved", None, "5.1.6"),
            id="moved",
        ),
        pytest.param(facts(ALICE, box(), size=1000), mail(), ACCEPTED, id="known"),
        pytest.param(
            facts("x@example.com", box("@example.com"), size=1000), mail(), ACCEPTED, id="catch-all"
        ),
        pytest.param(facts(ALICE, box(), size=None), mail(), ACCEPTED, id="no size to be had"),
        pytest.param(facts(ALICE, box(), size=25_000_000), mail(), ACCEPTED, id="just fits"),
        pytest.param(
            facts(ALICE, box(), size=25_000_001), mail(), TOO_LARGE, id="too large for all"
        ),
        pytest.param(
            facts(ALICE, box(size_limit_bytes=10), size=11),
            mail(),
            TOO_LARGE,
            id="too large for this mailbox",
        ),
        pytest.param(
            facts(ALICE, box(quota_bytes=10, used_bytes=10), size=1), mail(), OVER_QUOTA, id="full"
        ),
        pytest.param(
            facts(ALICE, box(quota_bytes=10, used_bytes=9), size=2),
            mail(),
            OVER_QUOTA,
            id="no room",
        ),
        pytest.param(facts(), failing(virus="FAIL"), ("drop", "virus", None, None), id="virus"),
        pytest.param(facts(), failing(spam="FAIL"), ("drop", "spam", None, None), id="spam"),
        pytest.param(
            facts(ALICE, box()),
            failing(spam="FAIL", virus="FAIL"),
            ("drop", "virus", None, None),
            id="virus in spam",
        ),
    ],
)
def test_the_shipped_policy_decides(
    known: Facts,
    message: InboundMessage,
    expected: tuple[str, str, BounceType | None, str | None],
) -> None:
    decided = decision(SHIPPED, message, known)
    bounced = decided.bounce
    told = (bounced.bounce_type, bounced.status) if bounced else (None, None)
    assert (decided.outcome, decided.reason, *told) == expected
    assert decided.delivered is (decided.outcome is Outcome.ACCEPT)


def test_the_shipped_policy_tells_a_new_address_only_where_the_mailbox_says_so() -> None:
    moved = {"moved_to": "alice@example.net"}
    told = decision(SHIPPED, known=facts(ALICE, box(**moved, tell_new_address=True))).bounce
    hidden = decision(SHIPPED, known=facts(ALICE, box(**moved))).bounce
    assert told is not None
    assert hidden is not None
    assert "alice@example.net" in told.explanation
    assert "alice@example.net" not in str(hidden)
    assert "not disclosed" in hidden.explanation


# --- Order -----------------------------------------------------------------------------------


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


# --- Outcomes --------------------------------------------------------------------------------


@pytest.mark.parametrize("bounce_type", BounceType)
def test_a_bounce_of_each_type_has_the_types_status(bounce_type: BounceType) -> None:
    decided = decision(policy(rule(f'action = "bounce"\nbounce_type = "{bounce_type}"')))
    assert decided.outcome is Outcome.BOUNCE
    assert decided.bounce is not None
    assert decided.bounce.bounce_type is bounce_type
    assert decided.bounce.dsn_fields is None
    assert decided.bounce.status == STATUS[bounce_type]


@pytest.mark.parametrize("action", ["accept", "drop"])
def test_what_is_accepted_or_dropped_has_no_bounce(action: str) -> None:
    decided = decision(policy(rule(f'action = "{action}"')))
    assert decided.outcome == action
    assert decided.bounce is None
    assert decided.delivered is (action == "accept")


def test_defer_is_a_bounce_that_says_it_is_temporary() -> None:
    decided = decision(policy(rule('action = "defer"'))).bounce
    assert decided is not None
    assert decided.bounce_type is BounceType.TEMPORARY_FAILURE
    assert decided.status == "4.0.0"


def test_defer_may_say_its_own_temporary_status() -> None:
    body = 'action = "defer"\nrecipient_dsn_fields.status = "4.3.2"'
    decided = decision(policy(rule(body))).bounce
    assert decided is not None
    assert decided.bounce_type is None
    assert decided.dsn_fields == RecipientDsnFields(action=DsnAction.FAILED, status="4.3.2")


def test_every_recipient_dsn_field_is_filled() -> None:
    decided = decision(
        policy(
            rule(
                """
                action = "bounce"
                recipient_arn = "arn:aws:ses:us-east-1:123456789012:identity/example.com"
                [rules.recipient_dsn_fields]
                action = "delayed"
                status = "4.2.2"
                final_recipient = "real-{recipient}"
                remote_mta = "dns; mx2.example.com"
                diagnostic_code = "smtp; 452 4.2.2 <{recipient}> is full: {used} of {quota}"
                last_attempt_date = true
                extension_fields.X-Rule = "{rule}"
                extension_fields.X-Fixed = "yes"
                """
            )
        ),
        known=facts(ALICE, box(quota_bytes=2000, used_bytes=1500)),
    ).bounce
    assert decided is not None
    assert decided.recipient == ALICE
    assert decided.recipient_arn == "arn:aws:ses:us-east-1:123456789012:identity/example.com"
    assert decided.dsn_fields == RecipientDsnFields(
        action=DsnAction.DELAYED,
        status="4.2.2",
        final_recipient="real-alice@example.com",
        remote_mta="dns; mx2.example.com",
        diagnostic_code="smtp; 452 4.2.2 <alice@example.com> is full: 1.5 kB of 2 kB",
        last_attempt_date=NOW,
        extension_fields=(ExtensionField("X-Rule", "rule"), ExtensionField("X-Fixed", "yes")),
    )


@pytest.mark.parametrize(
    ("body", "delivered"),
    [
        ('action = "drop"', False),
        ('action = "drop"\ndry_run = true', True),
        ('action = "bounce"\nbounce_type = "Undefined"', False),
        ('action = "bounce"\nbounce_type = "Undefined"\ndry_run = true', True),
        ('action = "bounce"\nbounce_type = "Undefined"\nkeep = true', True),
        ('action = "defer"\nkeep = true', True),
    ],
)
def test_a_dry_run_and_a_kept_mail_are_still_delivered(body: str, delivered: bool) -> None:
    assert decision(policy(rule(body))).delivered is delivered


# --- Texts -----------------------------------------------------------------------------------


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


# --- SendBounce's parameters -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("top", "body", "envelope"),
    [
        pytest.param("", "", Envelope(extension_fields=(MARKED,)), id="the deployment's own"),
        pytest.param(
            """
            [send_bounce]
            bounce_sender = "global@example.com"
            bounce_sender_arn = "arn:aws:ses:us-east-1:123456789012:identity/example.com"
            message_dsn.reporting_mta = "dns; mx.example.com"
            message_dsn.arrival_date = false
            message_dsn.extension_fields.X-Site = "main"
            """,
            "",
            Envelope(
                bounce_sender="global@example.com",
                bounce_sender_arn="arn:aws:ses:us-east-1:123456789012:identity/example.com",
                reporting_mta="dns; mx.example.com",
                arrival_date=False,
                extension_fields=(MARKED, ("X-Site", "main")),
            ),
            id="the policy's",
        ),
        pytest.param(
            'send_bounce.bounce_sender = "global@example.com"\n'
            'send_bounce.message_dsn.reporting_mta = "dns; mx.example.com"\n',
            'send_bounce.bounce_sender = "rule@example.com"\n'
            "send_bounce.message_dsn.arrival_date = false\n",
            Envelope(
                bounce_sender="rule@example.com",
                reporting_mta="dns; mx.example.com",
                arrival_date=False,
                extension_fields=(MARKED,),
            ),
            id="the rule's over the policy's, field by field",
        ),
        pytest.param(
            "send_bounce.message_dsn.arrival_date = false\n",
            "send_bounce.message_dsn.arrival_date = true\n",
            Envelope(arrival_date=True, extension_fields=(MARKED,)),
            id="false can be overridden",
        ),
    ],
)
def test_the_rule_says_it_before_the_policy_and_the_policy_before_the_deployment(
    top: str, body: str, envelope: Envelope
) -> None:
    assert decision(policy(bounce_rule(body), top)).envelope == envelope


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "global"),
        ('send_bounce.explanation = "by the rules send_bounce"', "by the rules send_bounce"),
        ('explanation = "own"\nsend_bounce.explanation = "not this"', "own"),
        ('explanation = ""', ""),
    ],
)
def test_a_rules_explanation_stands_before_the_policys(body: str, text: str) -> None:
    decided = decision(policy(bounce_rule(body), 'send_bounce.explanation = "global"')).bounce
    assert decided is not None
    assert decided.explanation == text


def test_a_message_dsn_has_the_time_that_ses_received_the_mail() -> None:
    dsn = Envelope(reporting_mta="dns; mx.example.com").message_dsn(
        RECEIVED, "dns; default.example"
    )
    assert (dsn.reporting_mta, dsn.arrival_date) == ("dns; mx.example.com", RECEIVED)
    without = Envelope(arrival_date=False).message_dsn(RECEIVED, "dns; default.example")
    assert (without.reporting_mta, without.arrival_date) == ("dns; default.example", None)


def test_every_sender_that_a_rule_names_is_known_for_the_deployment_to_check() -> None:
    rules = policy(
        bounce_rule('when.spam = "GRAY"\nsend_bounce.bounce_sender = "rule@example.com"', "one")
        + bounce_rule('when.spf = "GRAY"', "two"),
        'send_bounce.bounce_sender = "global@example.com"',
        '[domains."example.org"]\nsend_bounce.bounce_sender = "domain@example.org"',
    )
    assert rules.bounce_senders == {
        "rule@example.com",
        "global@example.com",
        "domain@example.org",
    }
    assert policy().bounce_senders == set()


def test_a_sender_of_a_rule_that_is_switched_off_is_not_asked_about() -> None:
    off = bounce_rule('enabled = false\nsend_bounce.bounce_sender = "rule@example.com"')
    assert policy(off).bounce_senders == set()


# --- Several domains -------------------------------------------------------------------------


def test_an_override_of_null_leaves_the_rule_as_it_is() -> None:
    text = (
        '{"version": 1, "rules": [{"name": "accept", "action": "accept"}], '
        '"domains": {"example.org": {"rules": {"accept": {"action": null, "when": null}}}}}'
    )
    loaded = load(text)
    assert [rule.section for rule in loaded.rules_for("a@example.org")] == [
        rule.section for rule in loaded.shared
    ]


SHARED = """
    [[rules]]
    name = "unknown-recipient"
    when.mailbox = "unknown"
    when.spf = "PASS"
    action = "bounce"
    bounce_type = "DoesNotExist"
    explanation = "shared"
"""


def of_domain(override: str, recipient: str = "x@example.org", **kwargs: Any) -> Any:
    rules = policy(SHARED, end=f'[domains."Example.ORG"]\n{override}', **kwargs)
    return decision(rules, known=facts(recipient))


OF_RULE = '[domains."Example.ORG".rules.unknown-recipient]\n'


def test_a_domain_without_differences_is_decided_by_the_shared_rules() -> None:
    assert of_domain("").bounce.explanation == "shared"


def test_a_domains_difference_is_for_that_domain_alone() -> None:
    override = OF_RULE + 'explanation = "ours"'
    assert of_domain(override).bounce.explanation == "ours"
    assert of_domain(override, "X@EXAMPLE.org.").bounce.explanation == "ours"
    assert of_domain(override, "x@example.com").bounce.explanation == "shared"
    assert of_domain(override, "x@sub.example.org").bounce.explanation == "shared"


def test_what_a_domain_does_not_say_stays_as_it_is() -> None:
    decided = of_domain(OF_RULE + 'bounce_type = "ContentRejected"\nkeep = true')
    assert decided.bounce.bounce_type is BounceType.CONTENT_REJECTED
    assert decided.bounce.explanation == "shared"
    assert decided.keep is True
    assert decided.reason == "unknown-recipient"


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ('when.spf = "GRAY"', "accept"),
        ('when.spf = ["GRAY", "PASS"]', "unknown-recipient"),
        ('when.mailbox = "full"', "accept"),
        ('unless.sender = "@sender.example"', "accept"),
        ("enabled = false", "accept"),
        ("dry_run = true", "unknown-recipient"),
    ],
)
def test_a_domain_may_change_one_condition_of_a_rule(override: str, reason: str) -> None:
    assert of_domain(OF_RULE + override).reason == reason


def test_a_domain_may_write_out_what_the_shared_rule_calls_by_type_and_the_other_way_round() -> (
    None
):
    written = of_domain(OF_RULE + 'recipient_dsn_fields.status = "5.7.1"').bounce
    assert (written.bounce_type, written.status) == (None, "5.7.1")
    rules = policy(
        rule('action = "bounce"\nrecipient_dsn_fields.status = "5.7.1"'),
        end='[domains."example.org".rules.rule]\nbounce_type = "Undefined"',
    )
    named = decision(rules, known=facts("x@example.org")).bounce
    assert named is not None
    assert (named.bounce_type, named.dsn_fields) == (BounceType.UNDEFINED, None)


def test_a_domain_may_have_its_own_sender_between_the_rules_and_the_policys() -> None:
    top = 'send_bounce.bounce_sender = "global@example.com"\nsend_bounce.explanation = "global"'
    ours = 'send_bounce.bounce_sender = "ours@example.org"'
    assert of_domain(ours, top=top).envelope.bounce_sender == "ours@example.org"
    assert of_domain(ours, "x@example.com", top=top).envelope.bounce_sender == "global@example.com"
    over = ours + "\n" + OF_RULE + 'send_bounce.bounce_sender = "rule@example.org"'
    assert of_domain(over, top=top).envelope.bounce_sender == "rule@example.org"
    assert of_domain(ours, top=top).bounce.explanation == "shared"


def test_an_internationalised_domain_may_be_written_either_way() -> None:
    rules = policy(
        SHARED, end='[domains."b\u00fccher.example".rules.unknown-recipient]\nkeep = true'
    )
    assert decision(rules, known=facts("x@xn--bcher-kva.example")).keep is True


def test_recipients_of_several_domains_are_each_decided_by_their_own() -> None:
    rules = policy(SHARED, end=OF_RULE + "enabled = false")
    message = mail(recipients=["a@example.com", "b@example.org", "c@example.com"])
    decided = decide(rules, message, [facts(each) for each in message.recipients])
    assert [each.outcome for each in decided] == [Outcome.BOUNCE, Outcome.ACCEPT, Outcome.BOUNCE]


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        (
            '[domains."example.org".rules.unknwon]\nkeep = true',
            'domains."example.org".rules."unknwon": no shared rule has this name',
        ),
        (
            '[domains."example.org".rules.accept]\nwhen.spam = "FAIL"',
            'domains."example.org".rules[1] "accept": the last rule must have no conditions',
        ),
        (
            '[domains."example.org".rules.unknown-recipient]\nexplanation = "{nobody}"',
            'domains."example.org".rules[0] "unknown-recipient": explanation: no '
            "variable is called {nobody}",
        ),
        (
            '[domains."example.org".rules.unknown-recipient]\nwhen.recipient = "x"',
            'domains."example.org".rules[0] "unknown-recipient": \'x\' is not an',
        ),
        (
            '[domains."example.org"]\nsend_bounce.bounce_sender = "x"',
            'domains."example.org".rules[0] "unknown-recipient": '
            "send_bounce.bounce_sender 'x': write an address",
        ),
        (
            '[domains."example"]',
            'domains."example": write a domain, as in domains."example.com"',
        ),
        (
            '[domains."@example.com"]',
            'domains."@example.com": write a domain, as in domains."example.com"',
        ),
        (
            '[domains."example.org"]\n[domains."Example.ORG."]',
            'domains."Example.ORG." is the same domain as "example.org": write both as one',
        ),
        (
            '[domains."xn--bcher-kva.example"]\n[domains."b\u00fccher.example"]',
            'domains."b\u00fccher.example" is the same domain as '
            '"xn--bcher-kva.example": write both as one',
        ),
    ],
)
def test_a_mistake_in_a_domain_names_the_domain(end: str, problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy(SHARED, end=end)
    place, _, said = str(caught.value).partition(": ")
    assert said.startswith(problem)
    assert place.startswith("policy.toml:")


# --- A static list of mailboxes --------------------------------------------------------------


def test_a_policy_may_list_its_mailboxes() -> None:
    rules = policy(
        end="""
        [mailboxes]
        "a@example.com" = { status = "disabled", quota = "1 GB", used = "5 kB", size_limit = 100 }
        "b@example.com" = { alias_for = "a@example.com" }
        "c@example.com" = { moved_to = "c@example.net", tell_new_address = true }
        "@example.org" = { catch_all = false, separator = "-" }
        "@example.net" = { status = "active", catch_all = true, separator = "" }
        "@example.edu" = { catch_all = true, separator = "+" }
        """
    )
    assert rules.mailboxes == (
        box(
            "a@example.com",
            status=Status.DISABLED,
            quota_bytes=10**9,
            used_bytes=5000,
            size_limit_bytes=100,
        ),
        box("b@example.com", alias_for="a@example.com"),
        box("c@example.com", moved_to="c@example.net", tell_new_address=True),
        box("@example.org", catch_all=False, separator="-"),
        box("@example.net", separator=""),
        box("@example.edu"),
    )


def test_a_policy_without_a_list_leaves_it_to_the_directory() -> None:
    assert policy().mailboxes is None
    assert policy(end="[mailboxes]").mailboxes == ()


# --- Why -------------------------------------------------------------------------------------


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
        Trial("spam", "when.spam", "spam is PASS; asks for FAIL"),
        Trial("known", "when.mailbox", "mailbox is unknown; asks for known"),
        Trial("stranger", "unless.sender", "sender is pat@sender.example; not for @sender.example"),
        Trial(
            "elsewhere",
            "unless.recipient",
            "recipient is nobody@example.com; not for @example.com",
        ),
        Trial("decides", None),
    ]


def test_the_trials_end_with_the_rule_that_decides() -> None:
    for known in (facts(), facts(ALICE, box(), size=1), facts(ALICE, box(moved_to="x@y.example"))):
        tried = trials(SHIPPED, mail(), known)
        assert tried[-1] == Trial(decision(SHIPPED, known=known).reason, None)
        assert all(each.failed for each in tried[:-1])


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
