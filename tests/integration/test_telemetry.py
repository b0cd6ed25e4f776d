"""One line a mail and valid metrics; and where addresses are not wanted, none is printed."""

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aws_lambda_powertools import Logger

from bouncer.aws.discretion import Discretion
from bouncer.aws.telemetry import BY_OUTCOME, BY_STATE, MAIL_HANDLED, NAMESPACE, Telemetry
from bouncer.delivery.bounce import Bounce
from bouncer.delivery.fate import Fate, Incident
from bouncer.delivery.ledger import BounceState
from bouncer.guards import GuardName, OtherReason
from bouncer.headers import Header
from bouncer.inbound import Handled
from bouncer.mailboxes import Mailbox, Way
from bouncer.message import InboundMessage
from bouncer.plan import Disposition, Plan
from bouncer.policy.conditions import Facts
from bouncer.policy.decide import Decision, Outcome
from bouncer.pseudonym import pseudonym
from bouncer.settings import LogAddresses
from bouncer_console.facts.mails import MailFacts, parse_line
from local import dashboard
from tests.fakes.bounces import NOBODY, bounce
from tests.integration.builders import ALICE, PAT
from tests.integration.conftest import Printed

SERVICE = "my-stack"
HOST = "mx.sender.example"


def telemetry(addresses: LogAddresses = LogAddresses.FULL, service: str = SERVICE) -> Telemetry:
    logger = Logger(serialize_stacktrace=False)
    return Telemetry(logger, service=service, discretion=Discretion(addresses))


def fate(recipient: str = NOBODY, state: BounceState = BounceState.SENT, **fields: Any) -> Fate:
    given: dict[str, Any] = {
        "message_id": "msg1",
        "reason": "unknown-recipient",
        "bounce_type": "DoesNotExist",
        "status": "5.1.1",
        **fields,
    }
    return Fate(recipient=recipient, state=state, **given)


def decision(
    recipient: str = NOBODY, outcome: Outcome = Outcome.BOUNCE, *, dry_run: bool = False
) -> Decision:
    reason = "unknown-recipient" if outcome is Outcome.BOUNCE else outcome.value
    return Decision(recipient=recipient, outcome=outcome, reason=reason, dry_run=dry_run)


RECEIVED = (
    f"from {HOST} ({HOST} [198.51.100.7]) by inbound-smtp.us-east-1.amazonaws.com with SMTP id x"
)


def handled(
    *fates: Fate,
    decisions: Iterable[Decision] = (decision(),),
    sender: str = PAT,
    suppressed: GuardName | OtherReason | None = None,
    near_full: Iterable[Mailbox] = (),
    message_id_header: str = "<id.1@host.sender.example>",
    objections: tuple[GuardName | OtherReason, ...] = (),
    facts: tuple[Facts, ...] = (),
) -> Handled:
    what: Bounce = bounce()
    mail = InboundMessage(
        message_id="msg1",
        received_at=datetime.now(UTC),
        source=sender,
        recipients=(NOBODY,),
        headers=(Header("Received", RECEIVED), Header("Message-ID", message_id_header)),
    )
    plan = Plan(
        mail=mail,
        decisions=tuple(decisions),
        bounce=what,
        suppressed=suppressed,
        objections=objections,
        observed=suppressed is OtherReason.OBSERVE_MODE,
    )
    return Handled(
        plan=plan,
        fates=fates,
        disposition=Disposition.STOP_RULE_SET,
        near_full=tuple(near_full),
        facts=facts,
    )


# --- Metrics ---------------------------------------------------------------------------------


def test_a_metric_is_valid_embedded_metric_format(printed: Printed) -> None:
    """docs.aws.amazon.com: CloudWatch_Embedded_Metric_Format_Specification."""
    metrics = telemetry()
    metrics.sent([fate()])
    metrics.flush()
    (blob,) = printed.blobs
    directive = blob["_aws"]["CloudWatchMetrics"][0]
    assert directive["Namespace"] == NAMESPACE
    assert directive["Metrics"] == [{"Name": "BounceSent", "Unit": "Count"}]
    assert blob["BounceSent"] == [1]
    assert abs(blob["_aws"]["Timestamp"] / 1000 - datetime.now(UTC).timestamp()) < 60
    members = {name for dimensions in directive["Dimensions"] for name in dimensions}
    assert {name: blob[name] for name in members} == {
        "service": SERVICE,
        "Reason": "unknown-recipient",
        "BounceType": "DoesNotExist",
    }


@pytest.mark.parametrize(
    ("reason", "bounce_type", "dimensions"),
    [
        ("", "", [["service"]]),
        ("spam", "", [["service"], ["service", "Reason"]]),
        (
            "over-quota",
            "ExceededQuota",
            [["service"], ["service", "Reason"], ["service", "Reason", "BounceType"]],
        ),
    ],
)
def test_alarms_find_a_metric_without_its_reason(
    printed: Printed, reason: str, bounce_type: str, dimensions: list[list[str]]
) -> None:
    metrics = telemetry()
    metrics.count("Something", reason, bounce_type)
    metrics.flush()
    (blob,) = printed.blobs
    assert blob["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == dimensions


def test_what_happened_often_is_one_blob(printed: Printed) -> None:
    metrics = telemetry()
    for _ in range(500):
        metrics.incident(Incident.THROTTLED)
    metrics.count("BounceSent", "a")
    metrics.count("BounceSent", "b")
    metrics.flush()
    assert len(printed.blobs) == 3
    assert printed.counts == {"SendBounceThrottled": 500, "BounceSent:a": 1, "BounceSent:b": 1}


def test_what_was_flushed_is_not_counted_again(printed: Printed) -> None:
    metrics = telemetry()
    metrics.count("Something")
    metrics.flush()
    metrics.flush()
    assert len(printed.blobs) == 1


@pytest.mark.parametrize("state", sorted(BY_STATE))
def test_every_end_of_a_bounce_has_a_metric(printed: Printed, state: BounceState) -> None:
    metrics = telemetry()
    metrics.sent([fate(state=state)])
    metrics.flush()
    assert printed.counts == {f"{BY_STATE[state]}:unknown-recipient": 1}


def test_every_state_but_claimed_is_an_end_or_a_wait_with_a_metric() -> None:
    assert set(BY_STATE) == set(BounceState) - {BounceState.CLAIMED}


@pytest.mark.parametrize("state", [BounceState.SENT, BounceState.CLAIMED])
def test_what_was_so_before_is_not_counted_again(printed: Printed, state: BounceState) -> None:
    metrics = telemetry()
    metrics.sent([fate(state=state, repeated=True)])
    metrics.flush()
    assert printed.counts == {}


def test_a_bounce_without_a_type_is_counted_by_its_status(printed: Printed) -> None:
    metrics = telemetry()
    metrics.sent([fate(bounce_type="", status="5.2.1")])
    metrics.flush()
    assert printed.blobs[0]["BounceType"] == "5.2.1"


@pytest.mark.parametrize("outcome", sorted(BY_OUTCOME))
def test_what_is_not_bounced_is_counted_by_its_outcome(printed: Printed, outcome: Outcome) -> None:
    metrics = telemetry()
    metrics.handled(handled(decisions=[decision(outcome=outcome)]))
    metrics.flush()
    assert printed.counts == {f"{BY_OUTCOME[outcome]}:{outcome}": 1}


@pytest.mark.parametrize("outcome", sorted(Outcome))
def test_a_dry_run_is_counted_as_one(printed: Printed, outcome: Outcome) -> None:
    metrics = telemetry()
    metrics.handled(handled(decisions=[decision(outcome=outcome, dry_run=True)]))
    metrics.flush()
    (name,) = printed.counts
    assert name.startswith("RecipientDryRun:")


# --- The log ---------------------------------------------------------------------------------


def test_a_mail_is_one_line_with_every_recipients_decision_and_fate(printed: Printed) -> None:
    metrics = telemetry()
    metrics.handled(
        handled(
            fate(bounce_id="bounce-1"),
            decisions=[decision(), decision(ALICE, Outcome.ACCEPT)],
        )
    )
    (line,) = printed.lines
    assert line["message"] == "mail handled"
    assert (line["ses_message_id"], line["sender"], line["disposition"]) == (
        "msg1",
        PAT,
        "STOP_RULE_SET",
    )
    assert "suppressed" not in line
    assert line["recipients"] == [
        {
            "recipient": NOBODY,
            "outcome": "bounce",
            "reason": "unknown-recipient",
            "dry_run": False,
            "state": "sent",
            "bounce_type": "DoesNotExist",
            "status": "5.1.1",
            "bounce_id": "bounce-1",
        },
        {"recipient": ALICE, "outcome": "accept", "reason": "accept", "dry_run": False},
    ]


def test_a_null_sender_is_written_as_one(printed: Printed) -> None:
    telemetry().handled(handled(sender="", suppressed=GuardName.NULL_SENDER))
    (line,) = printed.lines
    assert (line["sender"], line["suppressed"]) == ("<>", "null-sender")


def test_the_worker_writes_a_line_a_mail(printed: Printed) -> None:
    telemetry().sent(
        [fate("a@example.com"), fate("b@example.com"), fate(message_id="msg2", detail="later")]
    )
    assert [(line["ses_message_id"], len(line["recipients"])) for line in printed.lines] == [
        ("msg1", 2),
        ("msg2", 1),
    ]


def test_a_mailbox_that_is_nearly_full_is_noted_and_counted(printed: Printed) -> None:
    metrics = telemetry()
    box = Mailbox(address=ALICE, quota_bytes=100, used_bytes=95)
    metrics.handled(handled(near_full=[box]))
    metrics.flush()
    line = printed.line("mailbox near full")
    assert (line["mailbox"], line["used_bytes"], line["quota_bytes"]) == (ALICE, 95, 100)
    assert printed.counts["MailboxNearFull"] == 1


def test_a_warning_is_a_line_and_a_count(printed: Printed) -> None:
    metrics = telemetry()
    metrics.warn("SlotRepaired", "the next slot was 3600 s ahead")
    metrics.bad_mailbox(ALICE, "Expected `int`")
    metrics.flush()
    assert [(line["level"], line["detail"]) for line in printed.lines] == [
        ("WARNING", "the next slot was 3600 s ahead"),
        ("WARNING", "Expected `int`"),
    ]
    assert printed.counts == {"SlotRepaired": 1, "MailboxItemInvalid": 1}


def told(printed: Printed) -> MailFacts:
    """What the console reads out of the last line."""
    found = parse_line(printed.text.splitlines()[-1], datetime.now(UTC))
    assert found is not None
    return found


def test_the_console_reads_what_is_written(printed: Printed) -> None:
    now = datetime.now(UTC)
    box = Mailbox(address="@example.com")
    facts = Facts(
        recipient=NOBODY, mailbox=box, now=now, entry="@example.com", way=Way.CATCH_ALL, size=4096
    )
    objections = (GuardName.SPF_FAILED, GuardName.LIST_MAIL)
    telemetry().handled(
        handled(
            fate(state=BounceState.SUPPRESSED),
            suppressed=GuardName.SPF_FAILED,
            objections=objections,
            facts=(facts,),
        )
    )
    mail = told(printed)
    assert (mail.sender, mail.sender_domain, mail.client) == (PAT, "sender.example", "198.51.100.7")
    assert (mail.message_id_header, mail.size) == ("id.1@host.sender.example", 4096)
    assert (mail.suppressed, mail.objections) == ("spf-failed", objections)
    assert mail.received_at is not None
    assert abs(mail.received_at - now).total_seconds() < 60
    (only,) = mail.recipients
    assert (only.recipient, only.entry, only.way) == (NOBODY, "@example.com", "catch-all")
    assert (only.outcome, only.reason, only.state) == ("bounce", "unknown-recipient", "suppressed")
    assert mail.held_back
    assert not mail.observed


def test_the_console_reads_observe_mode_and_the_worker(printed: Printed) -> None:
    metrics = telemetry()
    metrics.handled(
        handled(fate(state=BounceState.SUPPRESSED), suppressed=OtherReason.OBSERVE_MODE)
    )
    assert told(printed).would_bounce
    metrics.sent([fate(bounce_id="b1")])
    assert told(printed).recipients[0].bounce_id == "b1"


def test_what_every_mail_has_adds_little_to_its_line(printed: Printed) -> None:
    """CloudWatch takes $0.50 a GB: a line of 600 bytes is $0.30 per million mails."""
    telemetry().handled(handled(decisions=[decision(ALICE, Outcome.ACCEPT)]))
    (line,) = printed.lines
    # What an invocation adds stays in the logger, where a test before had one.
    ours = {name: value for name, value in line.items() if name not in INVOCATION}
    assert len(json.dumps(ours)) < 650


INVOCATION = {
    "cold_start",
    "function_arn",
    "function_memory_size",
    "function_name",
    "function_request_id",
    "xray_trace_id",
}


def test_a_message_id_is_no_longer_than_anyones(printed: Printed) -> None:
    telemetry().handled(handled(message_id_header="<" + "x\x1b[31m" * 5000 + "@a.example>"))
    (line,) = printed.lines
    assert len(line["message_id_header"]) <= 200
    assert line["message_id_header"].isprintable()


# --- Addresses -------------------------------------------------------------------------------


def say_everything(metrics: Telemetry) -> None:
    rejected = {"error_code": "MessageRejected", "detail": f"{NOBODY} is not verified"}
    metrics.handled(
        handled(
            fate(),
            fate(ALICE, BounceState.REJECTED, **rejected),
            decisions=[decision(), decision(ALICE)],
            near_full=[Mailbox(address=ALICE, quota_bytes=100, used_bytes=95)],
        )
    )
    metrics.sent([fate(state=BounceState.REJECTED, **rejected)])
    metrics.bad_mailbox(ALICE, "Expected `int`, got `str` - at `$.quota_bytes`")
    metrics.flush()


@pytest.mark.parametrize("addresses", [LogAddresses.HASH, LogAddresses.NONE])
def test_no_address_is_printed_where_none_is_wanted(
    printed: Printed, addresses: LogAddresses
) -> None:
    say_everything(telemetry(addresses))
    for address in (PAT, NOBODY, ALICE):
        assert address not in printed.text
        assert address.partition("@")[0] not in printed.text.replace("unknown-recipient", "")
    for personal in ("198.51.100", "id.1", HOST, "sender.example"):
        assert personal not in printed.text
    assert "MessageRejected" in printed.text


def test_with_full_addresses_everything_is_there(printed: Printed) -> None:
    say_everything(telemetry(LogAddresses.FULL))
    for text in (PAT, NOBODY, ALICE, "is not verified"):
        assert text in printed.text


def hashed(printed: Printed) -> str:
    sender: str = printed.lines[-1]["sender"]
    return sender


def test_a_hash_tells_the_same_address_again_and_others_apart(printed: Printed) -> None:
    metrics = telemetry(LogAddresses.HASH)
    found = []
    for sender in ("pat@sender.example", "Pat@Sender.Example", "pam@sender.example"):
        metrics.handled(handled(sender=sender))
        found.append(hashed(printed))
    assert found[0] == found[1] != found[2]


def test_whoever_has_the_key_can_ask_for_a_hash(printed: Printed) -> None:
    key = b"k" * 32
    metrics = Telemetry(
        Logger(serialize_stacktrace=False),
        service=SERVICE,
        discretion=Discretion(LogAddresses.HASH, lambda: key),
    )
    metrics.handled(handled(fate()))
    (line,) = printed.lines
    for field, text in {
        "sender": PAT,
        "sender_domain": "sender.example",
        "client": "198.51.100.7",
        "message_id_header": "id.1@host.sender.example",
    }.items():
        assert line[field] == pseudonym(text, key)
    assert line["recipients"][0]["recipient"] == pseudonym(NOBODY, key)


@pytest.mark.parametrize("addresses", sorted(LogAddresses))
def test_a_null_sender_is_nobody_and_always_written(
    printed: Printed, addresses: LogAddresses
) -> None:
    telemetry(addresses).handled(handled(sender="", suppressed=GuardName.NULL_SENDER))
    assert printed.lines[-1]["sender"] == "<>"


def test_a_hash_cannot_be_compared_between_deployments(printed: Printed) -> None:
    telemetry(LogAddresses.HASH, service="one").handled(handled())
    first = hashed(printed)
    telemetry(LogAddresses.HASH, service="another").handled(handled())
    assert hashed(printed) != first


def test_without_addresses_the_log_has_nothing_in_their_place(printed: Printed) -> None:
    telemetry(LogAddresses.NONE).handled(handled(fate()))
    (line,) = printed.lines
    assert "sender" not in line
    assert line["recipients"][0]["recipient"] is None


# --- The dashboard ---------------------------------------------------------------------------


def _flat(value: object, name: str = "") -> Iterator[str]:
    """Fields as Logs Insights names them."""
    items: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        yield name
    for key, each in items:
        yield from _flat(each, f"{name}.{key}" if name else str(key))


def test_the_fields_that_the_dashboard_asks_for_are_in_a_mails_line(printed: Printed) -> None:
    for addresses in (LogAddresses.FULL, LogAddresses.HASH):  # only this one names the domain
        telemetry(addresses).handled(handled(fate()))
    lines = [each for each in printed.lines if each["message"] == MAIL_HANDLED]
    assert set(dashboard.FIELDS) <= {field for line in lines for field in _flat(line)}
    assert re.search(r'"outcome": ?"bounce"', printed.text)
