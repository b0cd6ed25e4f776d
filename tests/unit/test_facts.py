"""A mail out of its log lines, whom it is found by, and what many of them add up to."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bouncer.pseudonym import pseudonym
from bouncer_console.facts.mails import (
    PATTERN,
    REFUSED_PATTERN,
    TEXT_LIMIT,
    MailFacts,
    merged,
    parse_line,
)
from bouncer_console.facts.search import Wanted
from bouncer_console.facts.totals import Case, Totals, over_time, totals, width_of

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
KEY = b"k" * 32
PAT = "pat@sender.example"
NOBODY = "nobody@example.com"


def recipient(address: str | None = NOBODY, state: str = "sent", **fields: Any) -> dict[str, Any]:
    return {
        "recipient": address,
        "outcome": "bounce",
        "reason": "unknown-recipient",
        "dry_run": False,
        "state": state,
        **fields,
    }


def line(*recipients: dict[str, Any], message_id: str = "msg1", **fields: Any) -> str:
    return json.dumps(
        {
            "message": "mail handled",
            "ses_message_id": message_id,
            "sender": PAT,
            "disposition": "STOP_RULE",
            "recipients": recipients or (recipient(),),
            **fields,
        }
    )


def worker_line(*recipients: dict[str, Any], message_id: str = "msg1") -> str:
    told = [{k: v for k, v in each.items() if k != "outcome"} for each in recipients]
    return json.dumps(
        {"message": "bounce handled", "ses_message_id": message_id, "recipients": told}
    )


def facts(text: str, after: float = 0) -> MailFacts:
    found = parse_line(text, AT + timedelta(seconds=after))
    assert found is not None
    return found


# --- One line --------------------------------------------------------------------------------


@given(st.text())
def test_any_line_is_a_mail_or_nothing(text: str) -> None:
    assert parse_line(text, AT) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    sorted({*json.loads(line()), "size", "client", "observed", "objections", "received_at"})
)


@given(st.dictionaries(FIELDS, JSON, max_size=4))
def test_a_line_of_our_own_with_anything_in_it_never_raises(changed: dict[str, Any]) -> None:
    text = json.dumps({**json.loads(line()), **changed})
    found = parse_line(text, AT)
    if found is not None:
        assert merged([found]) == [found]
        assert totals([found], AT, AT + timedelta(hours=1)).mails == 1


def test_a_text_that_is_longer_than_anyones_is_no_mail_of_ours() -> None:
    assert parse_line(line(sender="x" * (TEXT_LIMIT + 1)), AT) is None
    long = facts(line(recipient(detail="x" * 5000)))
    assert len(long.recipients[0].detail) == TEXT_LIMIT


# --- Lines of one mail -----------------------------------------------------------------------


def test_the_workers_end_is_the_mails_end() -> None:
    decided = facts(line(recipient(state="queued")))
    sent = facts(worker_line(recipient(state="sent", bounce_id="b1")), 60)
    for order in ([decided, sent], [sent, decided]):
        (mail,) = merged(order)
        assert mail.sender == PAT
        (only,) = mail.recipients
        assert (only.outcome, only.state, only.bounce_id) == ("bounce", "sent", "b1")


def test_the_rule_stays_the_reason_where_the_fate_has_one_of_its_own() -> None:
    decided = facts(line(recipient(state="queued")))
    given_up = facts(worker_line(recipient(state="expired", reason="window-closed")), 60)
    (only,) = merged([decided, given_up])[0].recipients
    assert (only.reason, only.state) == ("unknown-recipient", "expired")


def test_recipients_of_two_rules_are_one_mails() -> None:
    first, second = facts(line(recipient("a@example.com"))), facts(line(recipient("b@example.com")))
    (mail,) = merged([first, second])
    assert [each.recipient for each in mail.recipients] == ["a@example.com", "b@example.com"]


def test_a_delivery_that_is_repeated_changes_nothing() -> None:
    first = facts(line(recipient(state="sent", bounce_id="b1")))
    again = facts(line(recipient(state="sent", repeated=True)), 1)
    assert merged([first, again])[0].recipients == first.recipients


def test_without_addresses_the_worker_ends_what_waits() -> None:
    decided = facts(line(recipient(None, "queued"), recipient(None, "sent"), sender=None))
    sent = facts(worker_line(recipient(None, "sent")), 60)
    assert [each.state for each in merged([decided, sent])[0].recipients] == ["sent", "sent"]


def test_mails_come_the_newest_first() -> None:
    mails = [facts(line(message_id=f"m{n}"), n) for n in (2, 0, 1)]
    assert [each.message_id for each in merged(mails)] == ["m2", "m1", "m0"]


# --- Whom it is found by ---------------------------------------------------------------------


def found(mail: MailFacts, text: str, **wanted: str) -> bool:
    """Whether it is found in both ways: by its line, and as a value; they never differ."""
    asked, key = Wanted(**wanted), KEY
    by_value = asked.holds(mail, key)
    by_line = all(re.search(each, text) for each in asked.patterns(key))
    assert by_line or not by_value
    return by_value


@pytest.mark.parametrize(
    "wanted",
    [
        {"recipient": NOBODY},
        {"recipient": "NoBody@Example.COM"},
        {"recipient": "@example.com"},
        {"recipient": "example.com"},
        {"sender": PAT, "recipient": NOBODY},
        {"sender": "sender.example"},
        {"message_id_header": "<Abc.1@sender.example>"},
        {"message_id_header": "abc.1@sender.example"},
        {"anywhere": PAT},
        {"anywhere": "abc.1@sender.example"},
        {"anywhere": "msg1"},
        {"anywhere": "@sender.example"},
        {},
    ],
)
def test_a_mail_is_found_by_what_people_know_of_it(wanted: dict[str, str]) -> None:
    text = line(message_id_header="Abc.1@sender.example")
    assert found(facts(text), text, **wanted)
    assert Wanted(**wanted) or not wanted


@pytest.mark.parametrize(
    "wanted",
    [
        {"recipient": PAT},
        {"recipient": "obody@example.com"},
        {"recipient": "ample.com"},
        {"sender": NOBODY},
        {"sender": PAT, "recipient": "else@example.com"},
        {"sender": "<>"},
        {"message_id_header": "abc"},
        {"anywhere": ".*"},
    ],
)
def test_a_mail_is_not_found_by_anything_else(wanted: dict[str, str]) -> None:
    text = line(message_id_header="Abc.1@sender.example")
    assert not found(facts(text), text, **wanted)


def test_a_mail_is_found_by_the_hashes_of_what_people_know() -> None:
    hashed = {
        name: pseudonym(name, KEY) for name in (PAT, NOBODY, "sender.example", "id@x.example")
    }
    text = line(
        recipient(hashed[NOBODY]),
        sender=hashed[PAT],
        sender_domain=hashed["sender.example"],
        message_id_header=hashed["id@x.example"],
    )
    mail = facts(text)
    for wanted in (
        {"recipient": "Nobody@example.com"},
        {"sender": PAT},
        {"sender": "@sender.example"},
        {"message_id_header": "<id@x.example>"},
        {"anywhere": PAT},
    ):
        assert found(mail, text, **wanted)
    assert not found(mail, text, recipient=PAT)
    assert not Wanted(sender=PAT).holds(mail, b"another key")


def test_the_null_sender_is_found_by_its_brackets() -> None:
    text = line(sender="<>")
    assert found(facts(text), text, sender="<>")


@given(st.text(max_size=30), st.text(max_size=30))
def test_what_is_found_in_a_value_is_found_in_its_line(address: str, asked: str) -> None:
    text = line(recipient(address), sender=address)
    if (mail := parse_line(text, AT)) is not None:
        found(mail, json.dumps(json.loads(text), ensure_ascii=False), anywhere=asked)
        found(mail, json.dumps(json.loads(text), ensure_ascii=False), recipient=address)


def test_the_patterns_know_our_lines_and_those_that_refuse() -> None:
    accepted = line(recipient(outcome="accept"))
    for text in (line(), worker_line(recipient()), accepted):
        assert re.search(PATTERN, text)
    assert re.search(REFUSED_PATTERN, line())
    assert re.search(REFUSED_PATTERN, worker_line(recipient()))
    assert not re.search(REFUSED_PATTERN, accepted)


# --- What many add up to ---------------------------------------------------------------------


def added(*texts: str, **options: Any) -> Totals:
    mails = merged(facts(text, after=number) for number, text in enumerate(texts))
    return totals(mails, AT, AT + timedelta(hours=24), **options)


def test_what_observe_mode_would_have_bounced_comes_with_its_names() -> None:
    observed = {"observed": True, "suppressed": "observe-mode"}
    would = recipient(state="suppressed", dry_run=True)
    sums = added(
        line(would, recipient("b@example.com", "suppressed"), message_id="m1", **observed),
        line(would, message_id="m2", **observed, sender="else@sender.example"),
        # A guard would have kept these senders from being told, or nobody was refused.
        line(would, message_id="m3", observed=True, suppressed="null-sender"),
        line(recipient(outcome="accept", state=""), message_id="m4", observed=True),
        line(recipient(outcome="drop", state="", dry_run=True), message_id="m5", observed=True),
    ).observed
    assert (sums.mails, sums.would_bounce, sums.would_tell, sums.would_drop) == (5, 3, 2, 1)
    assert [(each.name, each.recipients) for each in sums.recipients.top] == [
        (NOBODY, 2),
        ("b@example.com", 1),
    ]
    assert [each.message_id for each in sums.examples] == ["m2", "m1"]
    assert sums.trials.recipients == 0


def test_a_rule_on_trial_is_told_apart_from_observe_mode() -> None:
    trial = recipient(state="", dry_run=True, reason="new-rule")
    sums = added(line(trial, message_id="m1"), line(trial, message_id="m2", observed=True))
    assert [(each.name, each.recipients) for each in sums.observed.trials.top] == [("new-rule", 2)]
    assert sums.observed.would_bounce == 0


def test_what_is_held_back_says_whose_doing_it_alone_is() -> None:
    held = recipient(state="suppressed")
    sums = added(
        line(
            held, message_id="m1", suppressed="spf-failed", objections=["spf-failed", "list-mail"]
        ),
        line(held, message_id="m2", suppressed="spf-failed"),
        line(
            held,
            recipient("b@example.com", "suppressed"),
            message_id="m3",
            suppressed="client-budget",
        ),
        line(message_id="m4"),
    ).held
    assert [(e.reason, e.budget, e.recipients, e.mails, e.alone) for e in sums] == [
        ("client-budget", True, 2, 1, 1),
        ("spf-failed", False, 2, 2, 1),
    ]
    assert [each.message_id for each in sums[1].examples] == ["m2"]


def test_whom_an_attack_comes_from_is_ranked_by_address_domain_host_and_network() -> None:
    sums = added(
        line(message_id="m1", client="198.51.100.7"),
        line(message_id="m2", client="198.51.100.8"),
        line(message_id="m3", client="198.51.100.8", sender="x@other.example"),
        line(recipient(outcome="accept"), message_id="m4", client="192.0.2.1"),
        line(message_id="m5", client=pseudonym("192.0.2.9", KEY)),
    )
    assert [(e.name, e.mails, e.latest) for e in sums.hosts.top[:2]] == [
        ("198.51.100.8", 2, "m3"),
        ("198.51.100.7", 1, "m1"),
    ]
    assert [(e.name, e.mails) for e in sums.networks.top] == [("198.51.100.0/24", 3)]
    assert sums.networks.unnamed == 1
    assert [(e.name, e.mails) for e in sums.domains.top] == [
        ("sender.example", 3),
        ("other.example", 1),
    ]
    assert (sums.mails, sums.refused_mails) == (5, 4)


def test_a_ranking_is_cut_and_says_how_many_there_are() -> None:
    texts = [line(recipient(f"n{n}@example.com"), message_id=f"m{n}") for n in range(30)]
    ranking = added(*texts, top=10).recipients
    assert (len(ranking.top), ranking.names, ranking.recipients) == (10, 30, 30)


@given(
    st.lists(st.floats(-7200, 100_000), max_size=30),
    st.floats(1, 40 * 86_400),
)
def test_every_case_has_a_column_and_columns_are_few(after: list[float], seconds: float) -> None:
    mails = [facts(line(message_id=f"m{n}"), each) for n, each in enumerate(after)]
    until = AT + timedelta(seconds=seconds)
    sums = totals(mails, AT, until)
    assert sum(sum(each.counts) for each in sums.over_time.series) == len(after)
    assert len(sums.over_time.starts) <= 102
    assert width_of(AT, until) in (60, 300, 900, 3600, 10_800, 21_600, 86_400, 604_800)


def test_series_beyond_the_largest_are_the_others() -> None:
    mails = [facts(line(sender=f"a@s{n % 12}.example", message_id=f"m{n}"), n) for n in range(40)]
    cases = totals(mails, AT, AT + timedelta(hours=1)).over_time
    assert [each.name for each in cases.series] == ["bounced"]
    by_domain = over_time(
        [Case(mail, each) for mail in mails for each in mail.recipients],
        AT,
        AT + timedelta(hours=1),
        lambda case: case.mail.sender_domain,
        top=5,
    )
    assert len(by_domain.series) == 6
    assert by_domain.series[-1].name == "others"
    assert sum(sum(each.counts) for each in by_domain.series) == 40


def test_nothing_adds_up_to_nothing() -> None:
    sums = totals([], AT, AT + timedelta(hours=1))
    assert (sums.mails, sums.refused_mails, sums.held) == (0, 0, ())
