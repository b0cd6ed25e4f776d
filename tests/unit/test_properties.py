"""Whatever arrives: no unhandled error, one decision a recipient, and never a wrong bounce."""

import contextlib
import copy
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bouncer.address import is_deliverable, normalise
from bouncer.guards import NOT_CONFIGURABLE, GuardName
from bouncer.mailboxes import Mailbox, MailboxState, Status
from bouncer.message import (
    HeadersNeeded,
    InboundMessage,
    MalformedEventError,
    Verdicts,
    parse_event,
)
from bouncer.plan import Plan, make_plan
from bouncer.policy.conditions import Facts, SizeNeeded
from bouncer.policy.decide import Outcome, Policy, decide, trials
from bouncer.policy.load import load
from bouncer.proof import is_proven, prove
from bouncer.text import VARIABLES, clean, fill
from tests.soak import many
from tests.unit.builders import (
    IDENTITY,
    NOW,
    SHIPPED_POLICY,
    UNKNOWN_BOUNCES,
    box,
    event,
    facts_of,
    policy,
)

# --- Any JSON --------------------------------------------------------------------------------

any_text = st.text(st.characters(), max_size=30)  # with lone surrogates: JSON allows them
sound_text = st.text(max_size=30)
words = st.sampled_from(
    [
        "Records",
        "ses",
        "mail",
        "receipt",
        "recipients",
        "headers",
        "name",
        "value",
        "messageId",
        "timestamp",
        "source",
        "action",
        "invocationType",
        "spfVerdict",
        "status",
        "dmarcPolicy",
    ]
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | sound_text,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(words | sound_text, inner, max_size=4)
    ),
    max_leaves=12,
)

# --- Events of SES's shape -------------------------------------------------------------------

PEOPLE = ("pat@sender.example", "Pat@Sender.Example", "p\u00e4t@sender.example", "x@[192.0.2.1]")
OURS = ("nobody@example.com", "alice@example.com", "daemon@a.example", IDENTITY.bounce_sender)
NOBODY_AT_ALL = (None, "", "<>", " < > ")

statuses = st.sampled_from(["PASS", "FAIL", "GRAY", "PROCESSING_FAILED", "DISABLED"]) | sound_text
verdicts = st.fixed_dictionaries({}, optional={"status": statuses})
header_names = (
    st.sampled_from(
        [
            "Subject",
            "From",
            "Return-Path",
            "Auto-Submitted",
            "Precedence",
            "Content-Type",
            "List-Id",
            "Received",
            "X-Auto-Response-Suppress",
            "X-Failed-Recipients",
            "x-ses-bouncer",
        ]
    )
    | sound_text
)
header_values = (
    st.sampled_from([*PEOPLE, "no", "<>", "bulk", "multipart/report", "All"]) | sound_text
)
headers = st.lists(
    st.fixed_dictionaries({"name": header_names, "value": header_values}), max_size=6
)
senders = st.sampled_from([*PEOPLE, *OURS, *NOBODY_AT_ALL]) | sound_text
# SES takes 7-bit recipients only: RCPT TO with others is refused before any rule.
recipients = st.lists(
    st.sampled_from(
        [
            "nobody@example.com",
            "alice@example.com",
            "ALICE+tag@example.com",
            "closed@example.com",
            "full@example.com",
            "gone@example.com",
            "x@a.example",
            "y@b.example",
            "x;y@b.example",
        ]
    )
    | st.from_regex(r"[!-~]{1,20}@(example\.com|a\.example|b\.example)", fullmatch=True),
    unique=True,
    max_size=5,
)
moments = st.datetimes(
    datetime.fromisoformat("2000-01-01"), datetime.fromisoformat("2100-01-01")
).map(lambda moment: moment.isoformat(timespec="milliseconds") + "Z")
recent = st.integers(0, 23 * 3600).map(
    lambda seconds: (NOW - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
)
message_ids = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=40)


common_headers = st.tuples(
    st.dictionaries(st.just("subject") | sound_text, json_values, max_size=2),
    st.fixed_dictionaries({}, optional={"returnPath": st.none() | sound_text}),
).map(lambda both: both[0] | both[1])


@st.composite
def events(draw: st.DrawFn) -> Any:
    """An event of the documented shape, full of what a stranger may write into a mail."""
    mail = {
        "messageId": message_ids,
        "timestamp": recent | moments,
        "source": senders,
        "headers": headers,
        "headersTruncated": st.booleans(),
        "destination": st.lists(sound_text, max_size=2),
        "commonHeaders": common_headers,
    }
    receipt = {
        "recipients": recipients,
        "action": st.fixed_dictionaries({"type": st.just("Lambda"), "invocationType": sound_text}),
        "dmarcPolicy": sound_text,
        "processingTimeMillis": st.integers() | sound_text,
        **{f"{name}Verdict": verdicts for name in ("spam", "virus", "spf", "dkim", "dmarc")},
    }
    return event(
        mail=draw(st.fixed_dictionaries(mail)), receipt=draw(st.fixed_dictionaries(receipt))
    )


mails = events().map(lambda each: parse_event(each)[0])
proven_mails = mails.map(
    lambda mail: InboundMessage(
        message_id=mail.message_id,
        received_at=NOW - timedelta(minutes=1),
        source="pat@sender.example",
        recipients=mail.recipients,
        headers=tuple(each for each in mail.headers if each.name.lower() != "return-path"),
        verdicts=Verdicts(spf="PASS"),
    )
)

BOXES = [
    box(size_limit_bytes=10_000),
    box("closed@example.com", status=Status.DISABLED),
    box("full@example.com", quota_bytes=1000, used_bytes=990),
    box("gone@example.com", moved_to="gone@example.net", tell_new_address=True),
    box("@b.example", quota_bytes=10**6),
]
directories = st.lists(st.sampled_from(BOXES), unique_by=lambda each: each.address)
sizes = st.none() | st.integers(0, 40_000_000)

# --- Policies --------------------------------------------------------------------------------

ALL_OFF = f"guards.off = {[str(each) for each in sorted(set(GuardName) - NOT_CONFIGURABLE)]}"
TALKATIVE = f"""
    [[rules]]
    name = "too-large"
    when.larger_than = "mailbox"
    action = "bounce"
    bounce_type = "MessageTooLarge"
    explanation = "{" ".join(f"{{{name}}}" for name in VARIABLES)}"

    [[rules]]
    name = "full"
    when.mailbox = ["full", "disabled", "moved"]
    action = "defer"
    recipient_dsn_fields.action = "delayed"
    recipient_dsn_fields.status = "4.2.2"
    recipient_dsn_fields.final_recipient = "{{recipient}}"
    recipient_dsn_fields.diagnostic_code = "smtp; 452 {{recipient}} {{sender}} {{subject}}"
    recipient_dsn_fields.last_attempt_date = true
    recipient_dsn_fields.extension_fields.X-Subject = "{{subject}} {{sender}} {{recipient}}"

    [[rules]]
    name = "unknown-recipient"
    when.mailbox = "unknown"
    action = "bounce"
    bounce_type = "DoesNotExist"
    explanation = "{{subject}}{{sender}}{{recipient}}"
"""
TWO_DOMAINS = """
    [domains."a.example"]
    send_bounce.bounce_sender = "daemon@a.example"
    send_bounce.message_dsn.reporting_mta = "dns; mx.a.example"
    [domains."b.example"]
    send_bounce.bounce_sender = "daemon@b.example"
    [domains."b.example".rules.unknown-recipient]
    explanation = "{subject}"
    keep = true
"""
SHIPPED = load(SHIPPED_POLICY.read_text("utf-8"))
POLICIES = {
    "shipped": SHIPPED,
    "talkative": policy(TALKATIVE),
    "talkative without guards": policy(TALKATIVE, ALL_OFF, TWO_DOMAINS),
    "domains": policy(UNKNOWN_BOUNCES, end=TWO_DOMAINS),
    "domains without guards": policy(UNKNOWN_BOUNCES, ALL_OFF, TWO_DOMAINS),
    "observing": policy(UNKNOWN_BOUNCES, 'mode = "observe"'),
}
guarded = st.sampled_from([name for name in POLICIES if "without guards" not in name])

any_policy = st.sampled_from(sorted(POLICIES))


def planned(name: str, mail: InboundMessage, boxes: list[Mailbox], size: int | None = None) -> Plan:
    return make_plan(POLICIES[name], mail, facts_of(mail, boxes, size=size), IDENTITY, NOW)


# --- Reading ---------------------------------------------------------------------------------


def read(value: Any) -> list[InboundMessage] | None:
    """The mails of an event, None for a malformed one; no other error is expected."""
    with contextlib.suppress(MalformedEventError):
        return parse_event(value)
    return None


@given(json_values)
def test_any_json_is_an_event_or_a_malformed_one(value: Any) -> None:
    messages = read(value)
    assert messages is None or messages


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from paths(inner, (*path, key))


@st.composite
def broken_events(draw: st.DrawFn) -> Any:
    """An event of the documented shape with one place made something else, or nothing."""
    broken = copy.deepcopy(draw(events()))
    *way, last = draw(st.sampled_from(list(paths(broken))))
    place = broken
    for key in way:
        place = place[key]
    if draw(st.booleans()):
        del place[last]
    else:
        place[last] = draw(json_values)
    return broken


@given(broken_events())
def test_an_event_with_anything_in_one_place_is_an_event_or_a_malformed_one(value: Any) -> None:
    assert all(each.message_id for each in read(value) or [])


# --- Deciding --------------------------------------------------------------------------------


@given(name=any_policy, mail=mails, boxes=directories, size=sizes)
def test_every_recipient_gets_exactly_one_decision_of_a_rule_that_holds(
    name: str, mail: InboundMessage, boxes: list[Mailbox], size: int | None
) -> None:
    plan = planned(name, mail, boxes, size)
    assert [each.recipient for each in plan.decisions] == list(mail.recipients)
    for decided, known in zip(plan.decisions, facts_of(mail, boxes, size=size), strict=True):
        assert trials(POLICIES[name], mail, known)[-1].rule == decided.reason
        assert (decided.bounce is not None) == (decided.outcome is Outcome.BOUNCE)


patterns = st.sampled_from(
    [
        "alice@example.com",
        "@example.com",
        "@.example.com",
        "alice@.example.com",
        "a*@example.com",
        "<>",
        "@b.example",
        "*@*.example.com",
        "?lice@example.com",
        "K*@b.example",
        "\u017f@b.example",
    ]
)
one_or_more = partial(st.lists, min_size=1, max_size=3, unique=True)
verdict = one_or_more(st.sampled_from(["PASS", "FAIL", "GRAY"]))
CONDITIONS: dict[str, st.SearchStrategy[Any]] = {
    "recipient": one_or_more(patterns.filter(lambda each: each != "<>")),
    "sender": one_or_more(patterns),
    "mailbox": one_or_more(st.sampled_from(["full", "known", *map(str, MailboxState)])),
    "larger_than": one_or_more(st.sampled_from(["mailbox", "10 kB", "20 MB"])),
    "spf": verdict,
    "header": st.dictionaries(
        st.sampled_from(["Subject", "X-Loop", "List-Id"]),
        st.booleans() | one_or_more(st.sampled_from(["*", "Re:*", "a?"])),
        min_size=1,
        max_size=2,
    ),
    "more_recipients_than": st.integers(0, 3),
}
OF_RECIPIENTS = ("recipient", "mailbox", "larger_than")


@st.composite
def asked(draw: st.DrawFn, most: int) -> dict[str, Any]:
    """A few conditions, for many seldom hold together."""
    names = st.sampled_from([*CONDITIONS, *OF_RECIPIENTS, *OF_RECIPIENTS])
    return {name: draw(CONDITIONS[name]) for name in draw(st.sets(names, max_size=most))}


@st.composite
def any_rules(draw: st.DrawFn) -> Policy:
    """A policy of rules that ask anything, in any order; the last one asks nothing."""
    rules: list[dict[str, Any]] = [
        {"name": f"rule-{at}", "action": "drop", "when": when, "unless": unless}
        for at, (when, unless) in enumerate(
            draw(st.lists(st.tuples(asked(2).filter(bool), asked(1)), max_size=5))
        )
    ]
    rules.append({"name": "accept", "action": "accept"})
    return load(json.dumps({"version": 1, "rules": rules}))


KNOWN_ADDRESSES = (
    "alice@example.com",
    "bob@sub.example.com",
    "\u017f@b.example",
    "\u212aim@b.example",
)
any_facts = st.builds(
    Facts,
    recipient=st.sampled_from(KNOWN_ADDRESSES) | sound_text.map("{}@example.com".format),
    mailbox=st.none() | st.just(BOXES[2]) | st.sampled_from(BOXES),
    now=st.just(NOW),
    domain_known=st.booleans(),
    size=sizes,
    size_asked=st.booleans(),
)


@given(
    rules=any_rules(),
    mail=mails,
    known=st.lists(any_facts, min_size=1, max_size=5),
    sought=st.booleans(),
)
@settings(max_examples=many(60, soak=3000))
def test_deciding_for_all_at_once_is_what_explain_tells_of_each(
    rules: Policy, mail: InboundMessage, known: list[Facts], sought: bool
) -> None:
    mail = replace(mail, stored_asked=sought)

    def told(facts: Facts) -> str | type[Exception]:
        try:
            return trials(rules, mail, facts)[-1].rule
        except (SizeNeeded, HeadersNeeded) as need:
            return type(need)

    explained = [told(each) for each in known]
    needs = tuple(each for each in explained if isinstance(each, type))
    if needs:
        with pytest.raises(needs):
            decide(rules, mail, known)
    else:
        assert [each.reason for each in decide(rules, mail, known)] == explained


@given(name=any_policy, mail=mails, boxes=directories, size=sizes)
def test_where_the_size_is_not_asked_for_it_changes_nothing(
    name: str, mail: InboundMessage, boxes: list[Mailbox], size: int | None
) -> None:
    unasked = facts_of(mail, boxes, size_asked=False)
    try:
        plan = make_plan(POLICIES[name], mail, unasked, IDENTITY, NOW)
    except SizeNeeded:
        return
    assert plan == planned(name, mail, boxes, size)


@given(name=any_policy, mail=mails, boxes=directories, size=sizes)
def test_deciding_is_deterministic(
    name: str, mail: InboundMessage, boxes: list[Mailbox], size: int | None
) -> None:
    assert planned(name, mail, boxes, size) == planned(name, mail, boxes, size)


@given(name=any_policy, mail=mails | proven_mails, boxes=directories, size=sizes, data=st.data())
def test_the_order_of_the_recipients_changes_nothing(
    name: str, mail: InboundMessage, boxes: list[Mailbox], size: int | None, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(mail.recipients))
    one = planned(name, mail, boxes, size)
    two = planned(name, replace(mail, recipients=tuple(shuffled)), boxes, size)
    assert {each.recipient: each for each in one.decisions} == {
        each.recipient: each for each in two.decisions
    }
    assert (one.suppressed, one.disposition) == (two.suppressed, two.disposition)
    assert _envelope(one) == _envelope(two)


def _envelope(plan: Plan) -> Any:
    bounce = plan.bounce
    return bounce and (bounce.bounce_sender, bounce.bounce_sender_arn, bounce.message_dsn)


# --- Bouncing --------------------------------------------------------------------------------


@given(name=any_policy, mail=mails, boxes=directories, source=st.sampled_from(NOBODY_AT_ALL))
def test_a_null_sender_is_never_answered(
    name: str, mail: InboundMessage, boxes: list[Mailbox], source: str | None
) -> None:
    unsent = replace(mail, source=source or "")
    assert unsent.reverse_path is None
    assert planned(name, unsent, boxes).to_send is None


@given(name=any_policy, mail=mails, boxes=directories)
def test_a_virus_is_never_answered(name: str, mail: InboundMessage, boxes: list[Mailbox]) -> None:
    infected = replace(mail, verdicts=Verdicts(virus="FAIL", spf="PASS"))
    assert planned(name, infected, boxes).to_send is None


@given(name=guarded, mail=mails | proven_mails, boxes=directories)
def test_only_a_proven_person_who_can_be_reached_is_answered(
    name: str, mail: InboundMessage, boxes: list[Mailbox]
) -> None:
    bounce = planned(name, mail, boxes).to_send
    if bounce is None:
        return
    assert mail.reverse_path is not None
    assert is_deliverable(mail.reverse_path)
    assert is_proven(prove(mail))
    assert "PASS" in (mail.verdicts.spf, mail.verdicts.dkim, mail.verdicts.dmarc)
    assert mail.return_path is None or mail.return_path.strip() not in ("", "<>")
    assert "FAIL" not in (mail.verdicts.spam, mail.verdicts.virus)
    assert normalise(mail.reverse_path) not in {
        normalise(each)
        for each in (bounce.bounce_sender, *(told.recipient for told in bounce.recipients))
    }
    assert not mail.header("List-Id")
    assert not mail.header("X-Failed-Recipients")
    assert mail.headers_whole


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


@given(name=any_policy, mail=mails | proven_mails, boxes=directories, size=sizes)
def test_whatever_is_in_the_mail_the_request_is_printable_ascii_within_the_limits(
    name: str, mail: InboundMessage, boxes: list[Mailbox], size: int | None
) -> None:
    plan = planned(name, mail, boxes, size)
    assume(plan.bounce is not None)
    bounce = replace(plan, suppressed=None).to_send
    if bounce is None:
        assert plan.faults or plan.withheld
        return
    request = bounce.request()
    for text in _strings(request):
        assert text.isascii()
        # Only the explanation may have several lines; nothing else holds this pair.
        assert text.replace("\r\n", "").isprintable()
        assert "\r\n" not in text or text == request["Explanation"]
    assert len(request.get("Explanation", "")) <= 500
    assert {each["Recipient"] for each in request["BouncedRecipientInfoList"]} <= set(
        mail.recipients
    )


@given(name=any_policy, mail=proven_mails, boxes=directories)
def test_exactly_those_who_are_refused_stand_in_the_bounce(
    name: str, mail: InboundMessage, boxes: list[Mailbox]
) -> None:
    plan = planned(name, mail, boxes)
    refused = [each.recipient for each in plan.decisions if each.outcome is Outcome.BOUNCE]
    bounced = [each.recipient for each in plan.bounce.recipients] if plan.bounce else []
    assert bounced == refused


@given(name=any_policy, mail=proven_mails, boxes=directories)
def test_everyone_who_is_refused_is_bounced_or_has_a_fault(
    name: str, mail: InboundMessage, boxes: list[Mailbox]
) -> None:
    plan = replace(planned(name, mail, boxes), suppressed=None)
    refused = {each.recipient for each in plan.bounce.recipients} if plan.bounce else set()
    sent = {each.recipient for each in plan.to_send.recipients} if plan.to_send else set()
    assert sent == refused - plan.faults.keys() - plan.withheld.keys()
    assert plan.faults.keys() | plan.withheld.keys() <= refused
    assert not plan.faults.keys() & plan.withheld.keys()


# --- Texts and addresses ---------------------------------------------------------------------


@given(any_text, st.integers(3, 60))
def test_any_text_becomes_one_bounded_line_of_printable_ascii(value: str, limit: int) -> None:
    line = clean(value, limit)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) <= limit
    assert clean(line, limit) == line


@given(st.dictionaries(st.sampled_from(sorted(VARIABLES)), any_text))
def test_any_values_fill_a_text_without_breaking_its_line(values: dict[str, str]) -> None:
    filled = fill(" ".join(f"{{{name}}}" for name in VARIABLES), values)
    assert filled.isascii()
    assert filled.isprintable()


@given(any_text)
def test_any_address_has_one_normal_form(address: str) -> None:
    assert normalise(address) == normalise(address.upper()) or not address.isascii()
    assert is_deliverable(address) <= address.isascii()


def test_the_examples_reach_what_they_are_for() -> None:
    # A property about bounces proves nothing if no example is ever bounced.
    sent: set[str] = set()

    @given(mail=proven_mails, boxes=directories, size=sizes)
    def look(mail: InboundMessage, boxes: list[Mailbox], size: int | None) -> None:
        for name in POLICIES:
            if planned(name, mail, boxes, size).to_send is not None:
                sent.add(name)

    look()
    assert sent == POLICIES.keys() - {"observing"}
