"""`[one_answer]`: a sender can't tell by a bounce in which state a mailbox is."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from bouncer.mailboxes import Mailbox, Status
from bouncer.plan import Plan, make_plan
from bouncer.policy.conditions import PolicyError
from bouncer.policy.load import load
from tests.unit.builders import IDENTITY, NOW, SHIPPED_POLICY, facts_of, mail

TOLD = "alice@example.com"
SHIPPED = SHIPPED_POLICY.read_text("utf-8")
ONE_ANSWER = "\n[one_answer]\n"
TELLING = """
[[rules]]
name = "telling"
when.mailbox = "disabled"
action = "defer"
explanation = "{rule} {quota} {used}"
recipient_dsn_fields.status = "4.2.1"
recipient_dsn_fields.final_recipient = "target-of-{recipient}"
send_bounce.bounce_sender = "other@example.com"
send_bounce.message_dsn.extension_fields.X-Rule = "telling"
"""
STATES: dict[str, Mailbox | None] = {
    "unknown": None,
    "disabled": Mailbox(address=TOLD, status=Status.DISABLED),
    "moved": Mailbox(address=TOLD, moved_to="new@example.net", tell_new_address=True),
    "full": Mailbox(address=TOLD, quota_bytes=10, used_bytes=10),
    "of few messages": Mailbox(address=TOLD, quota_messages_per_day=0),
    "small": Mailbox(address=TOLD, size_limit_bytes=10),
    "larger than all": Mailbox(address=TOLD),
}


def planned(policy: str, state: str, now: datetime = NOW) -> Plan:
    message = mail(recipients=(TOLD,))
    boxes = [box] if (box := STATES[state]) else []
    size = 30_000_000 if state == "larger than all" else 1000
    facts = facts_of(message, boxes, size=size, size_asked=True)
    return make_plan(load(policy), message, facts, IDENTITY, now)


def told(policy: str) -> dict[str, Any]:
    """What the sender gets of each state."""
    requests = {}
    for state in STATES:
        made = planned(policy, state)
        assert made.to_send is not None, state
        requests[state] = made.to_send.request()
    return requests


def policy_with(section: str) -> str:
    before, accept = SHIPPED.split("# --- Recipients that cannot take any mail")
    return before + TELLING + "\n#" + accept + section


def test_without_it_every_state_has_an_answer_of_its_own() -> None:
    assert len(set(map(str, told(policy_with("")).values()))) == len(STATES) - 1  # full, twice


def test_with_it_nothing_in_any_bounce_differs() -> None:
    answers = told(policy_with(ONE_ANSWER))
    assert len(set(map(str, answers.values()))) == 1
    (info,) = answers["full"]["BouncedRecipientInfoList"]
    assert info == {"Recipient": TOLD, "BounceType": "Undefined"}
    assert answers["full"]["Explanation"] == f"Your message to {TOLD} was not delivered."


def test_a_domains_overrides_do_not_undo_it() -> None:
    own = '\n[domains."example.com".rules.over-quota]\nexplanation = "full: {used}"\n'
    own += 'bounce_type = "ExceededQuota"\nsend_bounce.bounce_sender = "full@example.com"\n'
    assert len(set(map(str, told(policy_with(ONE_ANSWER + own)).values()))) == 1


def test_the_log_still_knows_which_rule_it_was() -> None:
    reasons = {planned(policy_with(ONE_ANSWER), state).decisions[0].reason for state in STATES}
    assert {"unknown-recipient", "telling", "mailbox-moved", "over-quota", "too-large"} <= reasons


@pytest.mark.parametrize(
    ("section", "mistake"),
    [
        ('explanation = "{used}"', "{used} tells the mailboxes' states apart"),
        ('explanation = "{rule}"', "{rule} tells the mailboxes' states apart"),
        ('explanation = "{new_address}"', "tells the mailboxes' states apart"),
        ('explanation = "{nobody}"', "one_answer: explanation"),
        (f'explanation = "{"x" * 501}"', "shorten it"),
        ('bounce_type = "Full"', "Undefined"),
        ('text = "x"', "explanation"),
    ],
)
def test_what_would_tell_the_states_apart_is_an_error(section: str, mistake: str) -> None:
    with pytest.raises(PolicyError) as error:
        load(SHIPPED + ONE_ANSWER + section)
    assert mistake in str(error.value)


def test_a_bounce_of_mail_that_goes_on_is_an_error() -> None:
    kept = SHIPPED.replace('when.mailbox = "full"\n', 'when.mailbox = "full"\nkeep = true\n')
    load(kept)
    with pytest.raises(PolicyError, match=r"over-quota.*only a mailbox that exists does"):
        load(kept + ONE_ANSWER)


def test_when_it_is_too_late_it_is_so_for_every_state() -> None:
    late = NOW + timedelta(days=2)
    for state in STATES:
        made = planned(SHIPPED + ONE_ANSWER, state, late)
        assert made.to_send is None
