"""What each condition of a rule asks, and how it is answered."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from bouncer.mailboxes import Mailbox, MailboxState, Status, Way
from bouncer.message import InboundMessage
from bouncer.policy.conditions import (
    VERDICTS,
    Conditions,
    Facts,
    PolicyError,
    SizeNeeded,
    address_pattern,
    compile_mail_tests,
    compile_recipient_tests,
    parse_size,
)
from tests.unit.builders import ALICE, NOBODY, NOW, PROVEN, SENDER, box, facts, mail


def holds(
    asked: dict[str, Any], message: InboundMessage | None = None, known: Facts | None = None
) -> bool:
    """Whether all conditions, as a policy writes them, hold."""
    conditions = msgspec.convert(asked, Conditions)
    message, known = message or mail(), known or facts()
    return all(test(message) for test in compile_mail_tests(conditions).values()) and all(
        test(message, known) for test in compile_recipient_tests(conditions).values()
    )


def test_each_condition_is_about_the_mail_or_about_one_recipient() -> None:
    # A condition that neither knows would silently never be asked.
    examples: dict[str, Any] = {
        "recipient": NOBODY,
        "sender": SENDER,
        "mailbox": "unknown",
        "larger_than": 1,
        "spam": "PASS",
        "virus": "PASS",
        "spf": "PASS",
        "dkim": "PASS",
        "dmarc": "PASS",
        "dmarc_policy": "none",
        "header": {"X-Loop": True},
        "more_recipients_than": 1,
        "time_of_day": "00:00-12:00",
    }
    assert examples.keys() == set(Conditions.__struct_fields__)
    conditions = msgspec.convert(examples, Conditions)
    about_mail = compile_mail_tests(conditions).keys()
    about_recipient = compile_recipient_tests(conditions).keys()
    assert about_mail | about_recipient == examples.keys()
    assert not about_mail & about_recipient


def test_no_condition_always_holds() -> None:
    assert holds({})


# --- Sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (1500, 1500),
        (0, 0),
        ("1500", 1500),
        ("1500 b", 1500),
        ("1500 bytes", 1500),
        ("10 kB", 10_000),
        ("25 MB", 25_000_000),
        ("25mb", 25_000_000),
        (" 2.5 GB ", 2_500_000_000),
        ("1 TB", 10**12),
        ("1 KiB", 1024),
        ("24 MiB", 24 * 2**20),
        ("0.5 GiB", 2**29),
        ("1 TiB", 2**40),
    ],
)
def test_a_size_has_a_number_and_a_unit(written: int | str, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize(
    "written", ["", "MB", "25 XB", "-5 MB", "1,5 MB", "1e6", "25 M", ".5 MB", "5. MB", "25 MB 3"]
)
def test_what_is_not_a_size_says_how_to_write_one(written: str) -> None:
    with pytest.raises(
        PolicyError, match=r"is not a size: write a number and a unit, as in '25 MB'"
    ):
        parse_size(written)


@pytest.mark.parametrize("size", [-1, 2**63, f"{2**63}", "9" * 400, "9000000 TiB"])
def test_a_size_is_one_that_a_table_can_hold(size: int | str) -> None:
    with pytest.raises(PolicyError, match="is not a size: it has to be from 0 to 8 EiB"):
        parse_size(size)


# --- Address patterns ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("alice@example.com", ["alice@example.com"], ["alice+x@example.com", "xalice@example.com"]),
        ("Alice@Example.COM.", ["alice@example.com"], ["alice@example.com.au"]),
        ("a.b@example.com", ["a.b@example.com"], ["axb@example.com"]),
        ("@example.com", ["bob@example.com"], ["bob@sub.example.com", "bob@notexample.com"]),
        ("@EXAMPLE.com", ["bob@example.com"], ["bob@example.org"]),
        (
            "@.example.com",
            ["bob@sub.example.com", "bob@a.b.example.com"],
            ["bob@example.com", "bob@notexample.com"],
        ),
        (
            "alice@.example.com",
            ["alice@sub.example.com"],
            ["bob@sub.example.com", "alice@example.com", "malice@sub.example.com"],
        ),
        (
            "sales-*@example.com",
            ["sales-@example.com", "sales-eu@example.com"],
            ["sales@example.com"],
        ),
        ("Sales-?@Example.com", ["sales-1@example.com"], ["sales-12@example.com"]),
        ("Sales-?@Example.com.", ["sales-1@example.com"], ["sales-12@example.com"]),
        ("*@*.example.com", ["x@sub.example.com"], ["x@example.com"]),
        ("@mail*.example.com", ["x@mail2.example.com"], ["x@web.example.com"]),
        ("*@example.com", ["x@example.com", "x@y@example.com"], ["x@example.com.evil.example"]),
        ("@b\u00fccher.example", ["x@xn--bcher-kva.example"], ["x@bucher.example"]),
        ("*-x@B\u00fccher.example", ["a-x@xn--bcher-kva.example"], ["a-x@bucher.example"]),
        (
            "@*.b\u00fccher.example",
            ["x@mail.xn--bcher-kva.example"],
            ["x@xn--bcher-kva.example"],
        ),
        ("[ab]*@example.com", ["[ab]c@example.com"], ["ac@example.com"]),
        ("[!a]?@example.com", ["[!a]b@example.com"], ["bb@example.com"]),
        ("a]*@example.com", ["a]b@example.com"], ["ab@example.com"]),
        ("*@[192.0.2.1]", ["x@[192.0.2.1]"], ["x@1"]),
        ('"alice"@example.com', ["alice@example.com"], ["alicia@example.com"]),
    ],
)
def test_an_address_pattern_matches_the_normal_form(
    pattern: str, matching: list[str], other: list[str]
) -> None:
    test = address_pattern(pattern)
    assert [each for each in matching + other if test(each)] == matching


@pytest.mark.parametrize("pattern", ["", "alice", "example.com", "*", "alice@", "al ice@x.example"])
def test_what_is_not_an_address_pattern_says_how_to_write_one(pattern: str) -> None:
    with pytest.raises(PolicyError, match="is not an address pattern: write user@domain, @domain"):
        address_pattern(pattern)


@pytest.mark.parametrize("pattern", ["*@b\u00fccher*.example", "@*.b?\u00fccher.example"])
def test_a_wildcard_does_not_stand_in_a_label_that_is_compared_in_another_form(
    pattern: str,
) -> None:
    with pytest.raises(PolicyError, match=r"is compared in its ASCII form \(xn--"):
        address_pattern(pattern)


@pytest.mark.parametrize(
    ("recipient", "asked", "expected"),
    [
        ("Bob@Example.com", "bob@example.com", True),
        ("bob@example.com", ["@example.net", "@example.com"], True),
        ("bob@example.com", ["@example.net", "@example.org"], False),
    ],
)
def test_a_recipient_matches_any_of_the_patterns(
    recipient: str, asked: str | list[str], expected: bool
) -> None:
    assert holds({"recipient": asked}, known=facts(recipient)) is expected


@pytest.mark.parametrize(
    ("source", "asked", "expected"),
    [
        ("Pat@Sender.example", "pat@sender.example", True),
        ("pat@sender.example", ["<>", "@sender.example"], True),
        ("pat@sender.example", "<>", False),
        ("<>", "<>", True),
        ("", ["@sender.example", "<>"], True),
        ("<>", ["@sender.example", "*@*"], False),
    ],
)
def test_a_sender_matches_any_of_the_patterns_and_the_null_sender_only_its_own(
    source: str, asked: str | list[str], expected: bool
) -> None:
    assert holds({"sender": asked}, mail(source=source)) is expected


# --- Mailboxes -------------------------------------------------------------------------------

DISABLED = box(status=Status.DISABLED)
MOVED = box(moved_to="alice@example.net")
FULL = box(quota_bytes=10, used_bytes=10)
BUSY = box(quota_messages_per_day=1, messages_today=1, messages_day="2026-11-21")
NOBODYS = {MailboxState.UNKNOWN, MailboxState.UNKNOWN_DOMAIN}
EVERYTHING = box("@example.com", status=Status.DISABLED, moved_to="x@example.net", quota_bytes=0)


@pytest.mark.parametrize(
    ("mailbox", "states"),
    [
        pytest.param(None, {MailboxState.UNKNOWN}, id="no mailbox"),
        pytest.param(box(), {MailboxState.KNOWN}, id="active"),
        pytest.param(DISABLED, {MailboxState.KNOWN, MailboxState.DISABLED}, id="disabled"),
        pytest.param(
            msgspec.structs.replace(DISABLED, status_until=NOW - timedelta(days=1)),
            {MailboxState.KNOWN},
            id="disabled until yesterday",
        ),
        pytest.param(MOVED, {MailboxState.KNOWN, MailboxState.MOVED}, id="moved"),
        pytest.param(FULL, {MailboxState.KNOWN, MailboxState.FULL}, id="quota used up"),
        pytest.param(BUSY, {MailboxState.KNOWN, MailboxState.FULL}, id="daily quota used up"),
        pytest.param(
            box(quota_bytes=100, used_bytes=91),
            {MailboxState.KNOWN, MailboxState.FULL},
            id="no room for this",
        ),
        pytest.param(box(quota_bytes=100, used_bytes=90), {MailboxState.KNOWN}, id="room for this"),
        pytest.param(
            box("@example.com"), {MailboxState.KNOWN, MailboxState.CATCH_ALL}, id="catch-all"
        ),
        pytest.param(EVERYTHING, set(MailboxState) - NOBODYS, id="all at once"),
    ],
)
def test_a_mailbox_is_in_these_states_and_no_others(
    mailbox: Mailbox | None, states: set[MailboxState]
) -> None:
    known = facts(ALICE, mailbox, size=10)
    assert {each for each in MailboxState if holds({"mailbox": each.value}, known=known)} == states


def test_where_the_directory_says_nothing_of_the_domain_nobody_is_unknown() -> None:
    known = facts(NOBODY, None, domain_known=False)
    assert {each for each in MailboxState if holds({"mailbox": each.value}, known=known)} == {
        MailboxState.UNKNOWN_DOMAIN
    }


def test_a_catch_all_answers_as_such_through_its_alias() -> None:
    known = facts(NOBODY, box(), way=Way.CATCH_ALL)
    assert holds({"mailbox": "catch-all"}, known=known)


def test_a_list_of_states_means_any_of_them() -> None:
    assert holds({"mailbox": ["unknown", "disabled"]}, known=facts(ALICE, DISABLED))
    assert not holds({"mailbox": ["unknown", "moved"]}, known=facts(ALICE, DISABLED))


# --- Sizes of mails --------------------------------------------------------------------------

SMALL = box(size_limit_bytes=4000)


@pytest.mark.parametrize(
    ("asked", "mailbox", "size", "expected"),
    [
        pytest.param("1 kB", None, 1000, False, id="as large"),
        pytest.param("1 kB", None, 1001, True, id="larger"),
        pytest.param(1000, None, 1001, True, id="a number is bytes"),
        pytest.param("1 kB", None, None, False, id="nobody knows the size"),
        pytest.param("mailbox", SMALL, 4001, True, id="larger than the mailbox's limit"),
        pytest.param("mailbox", SMALL, 4000, False, id="as large as the mailbox's limit"),
        pytest.param("mailbox", box(), 10**9, False, id="the mailbox has no limit"),
        pytest.param("mailbox", None, 10**9, False, id="no mailbox, no limit"),
        pytest.param(["25 MB", "mailbox"], SMALL, 4001, True, id="the mailbox's is smaller"),
        pytest.param(["2 kB", "mailbox"], SMALL, 2001, True, id="the rule's is smaller"),
        pytest.param(["25 MB", "mailbox"], box(), 25_000_001, True, id="only the rule's"),
        pytest.param(["3 kB", "2 kB"], None, 2001, True, id="the smallest binds"),
        pytest.param("0", None, 1, True, id="limit zero"),
        pytest.param("mailbox", box(size_limit_bytes=0), 1, True, id="the mailbox's limit is zero"),
    ],
)
def test_a_mail_is_larger_than_the_smallest_limit_that_is_named(
    asked: Any, mailbox: Mailbox | None, size: int | None, expected: bool
) -> None:
    assert holds({"larger_than": asked}, known=facts(ALICE, mailbox, size=size)) is expected


ROOMY = box(quota_bytes=100, used_bytes=1)


@pytest.mark.parametrize(
    ("asked", "mailbox", "needed"),
    [
        pytest.param({"larger_than": "1 kB"}, None, True, id="a limit"),
        pytest.param({"larger_than": "mailbox"}, SMALL, True, id="the mailbox's limit"),
        pytest.param({"larger_than": "mailbox"}, box(), False, id="no limit to exceed"),
        pytest.param({"mailbox": "full"}, ROOMY, True, id="room for it"),
        pytest.param({"mailbox": "full"}, box(), False, id="no quota"),
        pytest.param({"mailbox": "full"}, FULL, False, id="full whatever the size"),
        pytest.param({"mailbox": "full"}, BUSY, False, id="the day's number is reached"),
        pytest.param({"mailbox": "full"}, None, False, id="no mailbox to be full"),
        pytest.param({"mailbox": ["full", "known"]}, ROOMY, False, id="another state settles it"),
        pytest.param(
            {"larger_than": 1, "recipient": "@other.example"}, None, False, id="not asked so far"
        ),
        pytest.param({"larger_than": 1, "mailbox": "known"}, None, False, id="the state first"),
    ],
)
def test_the_size_is_asked_for_only_when_the_answer_depends_on_it(
    asked: dict[str, Any], mailbox: Mailbox | None, needed: bool
) -> None:
    known = facts(ALICE, mailbox, size_asked=False)
    if needed:
        with pytest.raises(SizeNeeded):
            holds(asked, known=known)
    else:
        assert holds(asked, known=known) in (True, False)


# --- Verdicts --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spam", "virus", "spf", "dkim", "dmarc"])
def test_a_verdict_is_exactly_one_of_those_asked_for(name: str) -> None:
    for given in VERDICTS:
        message = mail(verdicts=msgspec.structs.replace(PROVEN, **{name: given}))
        assert [each for each in VERDICTS if holds({name: each}, message)] == [given]
        assert holds({name: ["FAIL", "GRAY"]}, message) is (given in {"FAIL", "GRAY"})


def test_the_verdicts_are_those_that_ses_documents() -> None:
    assert set(VERDICTS) == {"PASS", "FAIL", "GRAY", "PROCESSING_FAILED", "DISABLED"}


@pytest.mark.parametrize("given", ["", "pass", "NEW_VERDICT"])
def test_a_verdict_that_ses_does_not_document_matches_nothing(given: str) -> None:
    message = mail(verdicts=msgspec.structs.replace(PROVEN, spf=given))
    assert not holds({"spf": list(VERDICTS)}, message)


@pytest.mark.parametrize(
    ("given", "asked", "expected"),
    [
        ("reject", "reject", True),
        ("REJECT", ["quarantine", "reject"], True),
        ("none", ["quarantine", "reject"], False),
        ("", ["none", "quarantine", "reject"], False),
    ],
)
def test_a_dmarc_policy_is_one_of_those_asked_for(
    given: str, asked: str | list[str], expected: bool
) -> None:
    assert holds({"dmarc_policy": asked}, mail(dmarc_policy=given)) is expected


# --- Headers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "asked", "expected"),
    [
        pytest.param(["X-Loop: a"], {"X-Loop": True}, True, id="there"),
        pytest.param(["x-loop: a"], {"X-LOOP": True}, True, id="names have no case"),
        pytest.param(["X-Loop: "], {"X-Loop": True}, True, id="there and empty"),
        pytest.param([], {"X-Loop": True}, False, id="not there"),
        pytest.param([], {"X-Loop": False}, True, id="wanted absent"),
        pytest.param(["X-Loop: a"], {"X-Loop": False}, False, id="there and wanted absent"),
        pytest.param(["Subject: Win Money now"], {"Subject": "*money*"}, True, id="glob, any case"),
        pytest.param(["Subject: money"], {"Subject": "win*"}, False, id="glob from the beginning"),
        pytest.param(["X-A:  spaced  "], {"X-A": "spaced"}, True, id="white space around it"),
        pytest.param(["X-A: one", "X-A: two"], {"X-A": "two"}, True, id="every occurrence"),
        pytest.param(["X-A: b"], {"X-A": ["a", "b"]}, True, id="any of a list"),
        pytest.param(["X-A: a", "X-B: b"], {"X-A": "a", "X-B": "b"}, True, id="all headers"),
        pytest.param(["X-A: a"], {"X-A": "a", "X-B": True}, False, id="one of two headers"),
        pytest.param(["X-A: a.c"], {"X-A": "a.c"}, True, id="a dot is a dot"),
        pytest.param(["X-A: abc"], {"X-A": "a.c"}, False, id="and nothing else"),
        pytest.param(["Subject: [SPAM] x"], {"Subject": "[spam]*"}, True, id="brackets"),
        pytest.param(["Subject: Prices"], {"Subject": "[spam]*"}, False, id="are no class"),
        pytest.param(["Subject: [!a] x"], {"Subject": "*[!a]*"}, True, id="nor its opposite"),
    ],
)
def test_a_header_is_there_or_matches(
    headers: list[str], asked: dict[str, Any], expected: bool
) -> None:
    assert holds({"header": asked}, mail(*headers)) is expected


# --- The rest --------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "expected"), [(0, True), (2, True), (3, False), (4, False)])
def test_the_recipients_of_the_envelope_are_counted(limit: int, expected: bool) -> None:
    message = mail(recipients=["a@example.com", "b@example.com", "c@example.com"])
    assert holds({"more_recipients_than": limit}, message) is expected


@pytest.mark.parametrize(
    ("hours", "at", "expected"),
    [
        ("09:00-17:00", "09:00", True),
        ("09:00-17:00", "16:59", True),
        ("09:00-17:00", "17:00", False),
        ("09:00-17:00", "08:59", False),
        ("22:00-06:00", "23:30", True),
        ("22:00-06:00", "22:00", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "06:00", False),
        ("22:00-06:00", "12:00", False),
        ("22:00-00:00", "23:59", True),
        ("22:00-00:00", "00:00", False),
        (["00:00-01:00", "12:00-13:00"], "12:30", True),
    ],
)
def test_the_time_of_day_is_when_ses_received_the_mail_in_utc(
    hours: str | list[str], at: str, expected: bool
) -> None:
    received = datetime.fromisoformat(f"2026-11-21T{at}:00+00:00")
    assert holds({"time_of_day": hours}, mail(received_at=received)) is expected


@pytest.mark.parametrize(
    ("asked", "mend"),
    [
        ({"recipient": []}, "recipient is an empty list, which nothing matches: remove it"),
        ({"sender": []}, "sender is an empty list"),
        ({"mailbox": []}, "mailbox is an empty list"),
        ({"spam": []}, "spam is an empty list"),
        ({"larger_than": []}, "larger_than is an empty list"),
        ({"time_of_day": []}, "time_of_day is an empty list"),
        ({"header": {}}, "header is empty: name a header, as in header.X-Loop = true"),
        ({"header": {"X-A": []}}, "header.X-A is an empty list"),
        ({"recipient": "nobody"}, "'nobody' is not an address pattern"),
        ({"sender": ["<>", "nobody"]}, "'nobody' is not an address pattern"),
        (
            {"mailbox": "gone"},
            "mailbox 'gone': write one of known, unknown, unknown-domain, catch-all, disabled",
        ),
        ({"larger_than": "25 lbs"}, "'25 lbs' is not a size"),
        ({"larger_than": -5}, "-5 is not a size: it has to be from 0 to 8 EiB"),
        ({"larger_than": ["mailbox", "x"]}, "'x' is not a size"),
        ({"spam": "fail"}, "spam 'fail': write one of PASS, FAIL, GRAY"),
        (
            {"dmarc_policy": "p=none"},
            "dmarc_policy 'p=none': write one of none, quarantine, reject",
        ),
        ({"time_of_day": "9:00-17:00"}, "write hours in UTC, as in '22:00-06:00'"),
        ({"time_of_day": "24:00-06:00"}, "write hours in UTC"),
        ({"time_of_day": "09:00-09:00"}, "is empty: its ends are the same"),
    ],
)
def test_a_condition_that_is_wrong_says_how_to_mend_it(asked: dict[str, Any], mend: str) -> None:
    with pytest.raises(PolicyError) as caught:
        holds(asked)
    assert mend in str(caught.value)
