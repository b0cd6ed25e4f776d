"""What the policy that is shipped decides."""

import pytest

from bouncer.delivery.bounce import BounceType
from bouncer.mailboxes import Status
from bouncer.message import InboundMessage, Verdicts
from bouncer.policy.conditions import Facts
from bouncer.policy.decide import Outcome, Trial, trials
from bouncer.policy.load import load
from tests.unit.builders import ALICE, SHIPPED_POLICY, box, decision, facts, mail

SHIPPED = load(SHIPPED_POLICY.read_text("utf-8"))


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


def test_the_trials_end_with_the_rule_that_decides() -> None:
    for known in (facts(), facts(ALICE, box(), size=1), facts(ALICE, box(moved_to="x@y.example"))):
        tried = trials(SHIPPED, mail(), known)
        assert tried[-1] == Trial(decision(SHIPPED, known=known).reason, None)
        assert all(each.failed for each in tried[:-1])
