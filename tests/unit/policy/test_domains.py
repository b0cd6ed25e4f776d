"""Each domain may differ from the shared rules, for itself alone."""

from typing import Any

import pytest

from bouncer.delivery.bounce import BounceType
from bouncer.policy.conditions import PolicyError
from bouncer.policy.decide import Outcome, decide
from bouncer.policy.load import load
from tests.unit.builders import decision, facts, mail, policy, rule


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
