"""From facts to a plan: who is refused, whether the sender is told, what becomes of the mail."""

import itertools
from collections.abc import Iterable
from datetime import timedelta

import msgspec
import pytest

from bouncer.delivery.bounce import (
    ADDRESS_LIMIT,
    WINDOW,
    BouncedRecipient,
    BounceType,
    ExtensionField,
    MessageDsn,
)
from bouncer.delivery.queue import decode, encode
from bouncer.guards import MARKER, GuardName, OtherReason
from bouncer.mailboxes import Mailbox, Status
from bouncer.message import InboundMessage
from bouncer.plan import Disposition, Identity, make_plan
from bouncer.policy.conditions import SizeNeeded
from bouncer.policy.decide import Outcome
from bouncer.policy.load import load
from tests.unit.builders import (
    ALICE,
    IDENTITY,
    NOBODY,
    NOW,
    PROVEN,
    RECEIVED,
    SHIPPED_POLICY,
    UNKNOWN_BOUNCES,
    bounce_rule,
    box,
    facts,
    mail,
    plan,
    policy,
    rule,
)

BOXES = (box(), box("closed@example.com", status=Status.DISABLED))
DROPPED = rule('action = "drop"\nwhen.mailbox = "disabled"', "closed")
POLICY = policy(UNKNOWN_BOUNCES + DROPPED)
LIST_MAIL = mail("List-Id: <l.sender.example>")


# --- The bounce ------------------------------------------------------------------------------


def test_a_refused_recipient_makes_a_bounce_with_everything_that_the_call_needs() -> None:
    planned = plan(POLICY)
    bounce = planned.bounce
    assert bounce is not None
    assert planned.to_send == bounce
    assert planned.suppressed is None
    assert bounce.message_id == "msg1"
    assert bounce.received_at == RECEIVED
    assert bounce.bounce_sender == "mailer-daemon@example.com"
    assert bounce.message_dsn == MessageDsn(
        reporting_mta="dns; inbound-smtp.us-east-1.amazonaws.com",
        arrival_date=RECEIVED,
        extension_fields=(ExtensionField(MARKER, "auto-generated"),),
    )
    assert bounce.recipients == (
        BouncedRecipient(
            recipient=NOBODY,
            reason="unknown-recipient",
            bounce_type=BounceType.DOES_NOT_EXIST,
            explanation="There is no mailbox nobody@example.com here.",
        ),
    )


@pytest.mark.parametrize("length", [20, 320, 321, 500_000])
def test_whom_it_tells_is_named_and_no_longer_than_a_queue_message_takes(length: int) -> None:
    source = "p" * (length - len("@sender.example")) + "@sender.example"
    bounce = plan(POLICY, mail(source=source)).bounce
    assert bounce is not None
    assert bounce.reverse_path == source[:ADDRESS_LIMIT]
    assert decode(encode(bounce, b"k" * 32)) == bounce


def test_the_reporting_mta_is_that_of_the_deployments_region() -> None:
    identity = Identity(bounce_sender="x@example.com", region="eu-central-1")
    assert identity.reporting_mta == "dns; inbound-smtp.eu-central-1.amazonaws.com"


def test_one_bounce_carries_all_that_failed_and_nobody_else() -> None:
    rules = policy(UNKNOWN_BOUNCES + DROPPED + bounce_rule('when.mailbox = "full"', "full"))
    message = mail(recipients=[NOBODY, ALICE, "closed@example.com", "full@example.com"])
    planned = plan(rules, message, [*BOXES, box("full@example.com", quota_bytes=0)])
    assert planned.bounce is not None
    assert [(each.recipient, each.reason) for each in planned.bounce.recipients] == [
        (NOBODY, "unknown-recipient"),
        ("full@example.com", "full"),
    ]


@pytest.mark.parametrize(
    ("recipients", "boxes"),
    [([ALICE], BOXES), (["closed@example.com"], BOXES), ([], ()), ([ALICE], [box()])],
)
def test_where_nobody_is_refused_there_is_no_bounce_and_nothing_to_suppress(
    recipients: list[str], boxes: Iterable[Mailbox]
) -> None:
    guilty = mail("List-Id: x", source="<>", recipients=recipients)
    planned = plan(POLICY, guilty, boxes)
    assert (planned.bounce, planned.suppressed, planned.to_send) == (None, None, None)


def test_a_dry_run_is_decided_and_not_sent() -> None:
    rules = policy(UNKNOWN_BOUNCES + "dry_run = true\n")
    planned = plan(rules)
    (decided,) = planned.decisions
    assert (decided.outcome, decided.reason, decided.dry_run) == (
        Outcome.BOUNCE,
        "unknown-recipient",
        True,
    )
    assert decided.bounce is not None
    assert (planned.bounce, planned.suppressed) == (None, None)
    assert planned.disposition is Disposition.CONTINUE


def test_a_dry_run_for_one_recipient_leaves_the_others_their_bounce() -> None:
    trial = rule(
        'action = "bounce"\nbounce_type = "Undefined"\ndry_run = true\nwhen.mailbox = "known"'
    )
    planned = plan(policy(UNKNOWN_BOUNCES + trial), mail(recipients=[ALICE, NOBODY]), BOXES)
    assert planned.to_send is not None
    assert [each.recipient for each in planned.to_send.recipients] == [NOBODY]


def test_the_size_is_asked_for_when_the_policy_depends_on_it() -> None:
    rules = policy(rule('action = "drop"\nwhen.larger_than = "1 MB"'))
    with pytest.raises(SizeNeeded):
        make_plan(rules, mail(), [facts(size_asked=False)], IDENTITY, NOW)


TO_THE_MAILBOX = bounce_rule("").replace(
    'bounce_type = "Undefined"',
    'recipient_dsn_fields = { status = "5.1.1", final_recipient = "{recipient}" }',
)
TYPED = "x-a;b@example.com"


def test_a_recipient_that_ses_would_refuse_does_not_cost_the_others_their_bounce() -> None:
    planned = plan(policy(TO_THE_MAILBOX), mail(recipients=[NOBODY, TYPED, ALICE]))
    assert planned.bounce is not None
    assert [each.recipient for each in planned.bounce.recipients] == [NOBODY, TYPED, ALICE]
    assert planned.faults == {TYPED: "final_recipient is the bare address, without 'rfc822;'"}
    assert planned.to_send is not None
    assert [each.recipient for each in planned.to_send.recipients] == [NOBODY, ALICE]


def test_where_ses_would_refuse_every_recipient_nothing_is_sent() -> None:
    planned = plan(policy(TO_THE_MAILBOX), mail(recipients=[TYPED]))
    assert planned.faults.keys() == {TYPED}
    assert (planned.to_send, planned.suppressed) == (None, None)


def test_a_bounce_without_faults_is_sent_whole() -> None:
    planned = plan(policy(TO_THE_MAILBOX), mail(recipients=[NOBODY, ALICE]))
    assert planned.faults == {}
    assert planned.to_send == planned.bounce


# --- Disposition -----------------------------------------------------------------------------

KEEP = "keep = true\n"
DRY_RUN = "dry_run = true\n"


@pytest.mark.parametrize(
    ("rules", "recipients", "stops"),
    [
        pytest.param(UNKNOWN_BOUNCES, [NOBODY], True, id="bounced"),
        pytest.param(DROPPED, ["closed@example.com"], True, id="dropped"),
        pytest.param(UNKNOWN_BOUNCES + DROPPED, [NOBODY, "closed@example.com"], True, id="both"),
        pytest.param(UNKNOWN_BOUNCES, [ALICE], False, id="accepted"),
        pytest.param(UNKNOWN_BOUNCES, [NOBODY, ALICE], False, id="one is accepted"),
        pytest.param(UNKNOWN_BOUNCES, [], False, id="no recipients"),
        pytest.param(UNKNOWN_BOUNCES + KEEP, [NOBODY], False, id="bounced and kept"),
        pytest.param(UNKNOWN_BOUNCES + DRY_RUN, [NOBODY], False, id="dry run"),
        pytest.param(DROPPED + DRY_RUN, ["closed@example.com"], False, id="dry run of a drop"),
        pytest.param(
            UNKNOWN_BOUNCES + KEEP + DROPPED,
            [NOBODY, "closed@example.com"],
            False,
            id="one is kept",
        ),
    ],
)
def test_the_mail_stops_when_no_recipient_is_left_to_deliver_to(
    rules: str, recipients: list[str], stops: bool
) -> None:
    planned = plan(policy(rules), mail(recipients=recipients), BOXES)
    expected = Disposition.STOP_RULE_SET if stops else Disposition.CONTINUE
    assert planned.disposition is expected


def test_a_kept_mail_is_bounced_all_the_same() -> None:
    assert plan(policy(UNKNOWN_BOUNCES + KEEP)).to_send is not None


def test_a_mail_whose_bounce_is_suppressed_stops_too() -> None:
    planned = plan(POLICY, LIST_MAIL)
    assert planned.suppressed is GuardName.LIST_MAIL
    assert planned.disposition is Disposition.STOP_RULE_SET


# --- Suppression -----------------------------------------------------------------------------


def test_a_guard_keeps_the_bounce_and_says_why_it_is_not_sent() -> None:
    planned = plan(POLICY, LIST_MAIL)
    assert planned.bounce is not None
    assert planned.to_send is None
    assert planned.suppressed is GuardName.LIST_MAIL


def test_a_guard_that_the_policy_switches_off_does_not_suppress() -> None:
    rules = policy(top='guards.off = ["list-mail"]')
    assert plan(rules, LIST_MAIL).suppressed is None


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (mail(source="<>"), GuardName.NULL_SENDER),
        (mail(verdicts=msgspec.structs.replace(PROVEN, virus="FAIL")), GuardName.VIRUS_FOUND),
    ],
)
def test_no_policy_can_answer_a_null_sender_or_a_virus(
    message: InboundMessage, reason: GuardName
) -> None:
    off = sorted(set(GuardName) - {GuardName.NULL_SENDER, GuardName.VIRUS_FOUND})
    rules = policy(top=f"guards.off = {[str(each) for each in off]}")
    assert plan(rules, message).suppressed is reason


@pytest.mark.parametrize("domain", ["subsidiary.example", "Subsidiary.Example."])
def test_the_policy_names_more_domains_of_ours(domain: str) -> None:
    unproven = msgspec.structs.replace(PROVEN, spf="GRAY", dmarc="GRAY")
    message = mail(source="x@subsidiary.example", verdicts=unproven)
    assert plan(POLICY, message).suppressed is GuardName.UNPROVEN_SENDER
    rules = policy(top=f'guards.own_domains = ["{domain}"]')
    assert plan(rules, message).suppressed is GuardName.OWN_DOMAIN


def test_the_policy_sets_how_many_hops_are_a_loop() -> None:
    hops = mail(*["Received: from a by b"] * 31)
    assert plan(POLICY, hops).suppressed is None
    rules = policy(top="guards.max_received = 30")
    assert plan(rules, hops).suppressed is GuardName.MAIL_LOOP


def test_the_bounce_sender_of_the_rule_is_an_address_of_ours() -> None:
    rules = policy(top='send_bounce.bounce_sender = "daemon@sender.example"')
    suppressed = plan(rules, mail(source="daemon@sender.example")).suppressed
    assert suppressed is GuardName.OWN_ADDRESS


@pytest.mark.parametrize(
    "source", ["daemon@a.example", "daemon@sender.example", IDENTITY.bounce_sender]
)
def test_every_bounce_sender_of_the_deployment_is_an_address_of_ours(source: str) -> None:
    """The bounce of another rule, of another domain or of no rule may come back, too."""
    rules = policy(
        top='send_bounce.bounce_sender = "daemon@sender.example"',
        end='[domains."a.example"]\nsend_bounce.bounce_sender = "daemon@a.example"',
    )
    message = mail(source=source, recipients=["x@b.example"])
    assert plan(rules, message).suppressed is GuardName.OWN_ADDRESS


@pytest.mark.parametrize(
    ("age", "suppressed"),
    [
        pytest.param(timedelta(0), None, id="just received"),
        pytest.param(WINDOW - timedelta(minutes=5, seconds=1), None, id="a second left"),
        pytest.param(WINDOW - timedelta(minutes=5), OtherReason.WINDOW_CLOSED, id="at the margin"),
        pytest.param(WINDOW, OtherReason.WINDOW_CLOSED, id="24 hours"),
        pytest.param(timedelta(days=400), OtherReason.WINDOW_CLOSED, id="long ago"),
        pytest.param(timedelta(minutes=-5), None, id="clocks that differ"),
    ],
)
def test_a_bounce_is_given_up_a_margin_before_sess_window_closes(
    age: timedelta, suppressed: OtherReason | None
) -> None:
    assert IDENTITY.window_margin == timedelta(minutes=5)
    planned = plan(POLICY, mail(received_at=NOW - age))
    assert planned.suppressed is suppressed


def test_the_margin_is_the_deployments() -> None:
    identity = msgspec.structs.replace(IDENTITY, window_margin=timedelta(hours=1))
    message = mail(received_at=NOW - timedelta(hours=23))
    suppressed = make_plan(POLICY, message, [facts()], identity, NOW).suppressed
    assert suppressed is OtherReason.WINDOW_CLOSED


OBSERVE = 'mode = "observe"'


@pytest.mark.parametrize(
    ("top", "message", "suppressed"),
    [
        ("", mail("List-Id: x", received_at=NOW - WINDOW), OtherReason.WINDOW_CLOSED),
        (OBSERVE, mail("List-Id: x", received_at=NOW - WINDOW), OtherReason.WINDOW_CLOSED),
        (OBSERVE, mail("List-Id: x"), GuardName.LIST_MAIL),
        (OBSERVE, mail(), OtherReason.OBSERVE_MODE),
    ],
)
def test_the_window_is_asked_first_then_the_guards_then_the_mode(
    top: str, message: InboundMessage, suppressed: GuardName | OtherReason
) -> None:
    assert plan(policy(top=top), message).suppressed is suppressed


def test_observing_decides_everything_and_does_nothing() -> None:
    rules = policy(UNKNOWN_BOUNCES + DROPPED, OBSERVE)
    message = mail(recipients=[NOBODY, ALICE, "closed@example.com"])
    planned = plan(rules, message, BOXES)
    assert [(each.recipient, each.outcome, each.dry_run) for each in planned.decisions] == [
        (NOBODY, Outcome.BOUNCE, True),
        (ALICE, Outcome.ACCEPT, False),
        ("closed@example.com", Outcome.DROP, True),
    ]
    assert planned.bounce is not None
    assert planned.to_send is None
    assert planned.disposition is Disposition.CONTINUE


@pytest.mark.parametrize("recipients", [[NOBODY], ["closed@example.com"], [ALICE]])
def test_observing_never_stops_a_mail(recipients: list[str]) -> None:
    rules = policy(UNKNOWN_BOUNCES + DROPPED, OBSERVE)
    planned = plan(rules, mail(recipients=recipients), BOXES)
    assert planned.disposition is Disposition.CONTINUE
    assert planned.to_send is None


# --- One sender for all ----------------------------------------------------------------------

OF_TWO_DOMAINS = policy(
    top='send_bounce.bounce_sender = "daemon@shared.example"',
    end="""
    [domains."a.example"]
    send_bounce.bounce_sender = "daemon@a.example"
    send_bounce.bounce_sender_arn = "arn:aws:ses:us-east-1:123456789012:identity/a.example"
    send_bounce.message_dsn.reporting_mta = "dns; mx.a.example"

    [domains."b.example"]
    send_bounce.bounce_sender = "daemon@b.example"
    send_bounce.message_dsn.arrival_date = false
    """,
)


@pytest.mark.parametrize(
    "recipients",
    list(itertools.permutations(["x@b.example", "x@a.example", "x@example.com"])),
    ids=",".join,
)
def test_the_sender_and_the_dsn_do_not_depend_on_the_order_of_the_recipients(
    recipients: tuple[str, ...],
) -> None:
    bounce = plan(OF_TWO_DOMAINS, mail(recipients=recipients)).to_send
    assert bounce is not None
    assert bounce.bounce_sender == "daemon@a.example"
    assert bounce.bounce_sender_arn == "arn:aws:ses:us-east-1:123456789012:identity/a.example"
    assert bounce.message_dsn is not None
    assert bounce.message_dsn.reporting_mta == "dns; mx.a.example"
    assert [each.recipient for each in bounce.recipients] == list(recipients)


def test_a_recipient_that_is_not_refused_has_no_say_in_the_sender() -> None:
    message = mail(recipients=["x@a.example", "x@b.example"])
    bounce = plan(OF_TWO_DOMAINS, message, [box("x@a.example")]).to_send
    assert bounce is not None
    assert bounce.bounce_sender == "daemon@b.example"
    assert bounce.bounce_sender_arn is None
    assert bounce.message_dsn is not None
    assert bounce.message_dsn.reporting_mta == IDENTITY.reporting_mta
    assert bounce.message_dsn.arrival_date is None


def test_the_deployments_sender_is_used_where_the_policy_names_none() -> None:
    shipped = load(SHIPPED_POLICY.read_text("utf-8"))
    bounce = plan(shipped).to_send
    assert bounce is not None
    assert bounce.bounce_sender == IDENTITY.bounce_sender
