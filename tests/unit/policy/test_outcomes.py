"""What a rule makes of a recipient: a bounce with its fields, or none."""

import pytest

from bouncer.delivery.bounce import (
    STATUS,
    BounceType,
    DsnAction,
    ExtensionField,
    RecipientDsnFields,
)
from bouncer.policy.decide import Outcome
from tests.unit.builders import ALICE, NOW, box, decision, facts, policy, rule


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
