"""SendBounce's own parameters: the rule's, the policy's, or the deployment's."""

import pytest

from bouncer.guards import MARKER
from bouncer.policy.decide import Envelope
from tests.unit.builders import RECEIVED, bounce_rule, decision, policy

MARKED = (MARKER, "auto-generated")


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
