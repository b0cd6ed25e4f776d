"""What in a valid policy can hardly be meant: rules that never decide, bounces never sent."""

import pytest

from bouncer.policy.load import load
from bouncer.policy.review import review, sample_texts, unreachable
from tests.unit.builders import SHIPPED_POLICY, UNKNOWN_BOUNCES, bounce_rule, policy, rule


def warnings(rules: str, top: str = "", end: str = "") -> list[str]:
    return review(policy(rules, top, end))


def drop(conditions: str, name: str) -> str:
    return rule('action = "drop"\n' + conditions, name)


SHADOWED = (
    'rules "later": never decides: whatever it is for, "earlier" above has decided before; '
    "move it up"
)


def test_the_shipped_policy_is_not_odd() -> None:
    assert review(load(SHIPPED_POLICY.read_text("utf-8"))) == []


# --- Shadowed --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("", 'when.mailbox = "unknown"'),
        ('when.spam = "FAIL"', 'when.spam = "FAIL"'),
        ('when.spam = "FAIL"', 'when.spam = "FAIL"\nwhen.mailbox = "unknown"'),
        ('when.spam = ["GRAY", "FAIL"]', 'when.spam = "FAIL"'),
        ('when.mailbox = "known"', 'when.mailbox = "disabled"'),
        ('when.mailbox = "known"', 'when.mailbox = ["full", "moved", "catch-all"]'),
        (
            'when.mailbox = ["known", "unknown", "unknown-domain"]',
            'when.recipient = "@example.com"',
        ),
        ('when.larger_than = "10 MB"', 'when.larger_than = "25 MB"'),
        ('when.larger_than = ["10 MB", "mailbox"]', 'when.larger_than = "mailbox"'),
        ("when.larger_than = 1000", 'when.larger_than = "1 kB"'),
        ("when.more_recipients_than = 10", "when.more_recipients_than = 50"),
        ('when.recipient = "@example.com"', 'when.recipient = "sales@Example.com"'),
        ('when.recipient = "@example.com"', 'when.recipient = "sales-*@example.com"'),
        ('when.recipient = ["@example.com", "@example.net"]', 'when.recipient = "@example.net"'),
        ('when.sender = ["<>", "@a.example"]', 'when.sender = "@a.example"'),
        ("when.header.X-A = true", 'when.header.X-A = "yes"'),
        ("when.header.X-A = true", "when.header.X-A = true\nwhen.header.X-B = true"),
        ('when.header.X-A = ["yes", "no"]', 'when.header.X-A = "yes"'),
        ("when.header.X-A = false", "when.header.X-A = false"),
        ('when.header.X-A = "yes"', 'when.header.X-A = "yes"'),
        ('when.time_of_day = "22:00-06:00"', 'when.time_of_day = "22:00-06:00"'),
        ('when.dmarc_policy = ["reject", "none"]', 'when.dmarc_policy = "reject"'),
        (
            'when.spam = "GRAY"\nunless.sender = "@a.example"',
            'when.spam = "GRAY"\nunless.sender = "@a.example"',
        ),
        (
            'when.spam = "GRAY"\nunless.sender = "boss@a.example"',
            'when.spam = "GRAY"\nunless.sender = "@a.example"',
        ),
    ],
)
def test_a_rule_for_which_an_earlier_one_has_always_decided_is_shadowed(
    earlier: str, later: str
) -> None:
    assert SHADOWED in warnings(drop(earlier, "earlier") + drop(later, "later"))


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ('when.spam = "FAIL"', ""),
        ('when.spam = "FAIL"', 'when.spam = ["FAIL", "GRAY"]'),
        ('when.spam = "FAIL"', 'when.virus = "FAIL"'),
        ('when.spam = "FAIL"\nwhen.mailbox = "unknown"', 'when.spam = "FAIL"'),
        ('when.mailbox = "disabled"', 'when.mailbox = "known"'),
        ('when.mailbox = "known"', 'when.mailbox = "unknown"'),
        ('when.mailbox = "known"', 'when.mailbox = ["disabled", "unknown"]'),
        ('when.larger_than = "25 MB"', 'when.larger_than = "10 MB"'),
        ('when.larger_than = "mailbox"', 'when.larger_than = "10 MB"'),
        ('when.larger_than = "10 MB"', 'when.larger_than = "mailbox"'),
        ('when.larger_than = "mailbox"', 'when.larger_than = ["10 MB", "mailbox"]'),
        ("when.more_recipients_than = 50", "when.more_recipients_than = 10"),
        ('when.recipient = "sales@example.com"', 'when.recipient = "@example.com"'),
        ('when.recipient = "@example.com"', 'when.recipient = "@.example.com"'),
        ('when.recipient = "@.example.com"', 'when.recipient = "@example.com"'),
        ('when.recipient = "@example.com"', 'when.recipient = "*@*.example.com"'),
        ('when.recipient = "@example.com"', 'when.sender = "@example.com"'),
        ('when.sender = "@a.example"', 'when.sender = ["@a.example", "<>"]'),
        ('when.header.X-A = "yes"', "when.header.X-A = true"),
        ("when.header.X-A = false", "when.header.X-A = true"),
        ("when.header.X-A = true", "when.header.X-B = true"),
        ("when.header.X-A = true\nwhen.header.X-B = true", "when.header.X-A = true"),
        ('when.spam = "GRAY"\nunless.sender = "@a.example"', 'when.spam = "GRAY"'),
        (
            'when.spam = "GRAY"\nunless.sender = "@a.example"',
            'when.spam = "GRAY"\nunless.sender = "boss@a.example"',
        ),
        ("enabled = false", 'when.spam = "FAIL"'),
    ],
)
def test_a_rule_that_may_still_decide_is_not_reported(earlier: str, later: str) -> None:
    assert SHADOWED not in warnings(drop(earlier, "earlier") + drop(later, "later"))


def test_a_rule_below_one_without_conditions_is_reported_up_to_the_last() -> None:
    assert warnings(drop("", "all")) == [
        'rules "accept": never decides: whatever it is for, "all" above has decided before; '
        "move it up"
    ]


def test_a_shadowed_rule_of_one_domain_names_the_domain() -> None:
    rules = drop('when.mailbox = "full"', "earlier") + drop('when.mailbox = "moved"', "later")
    end = '[domains."example.org".rules.earlier]\nwhen.mailbox = "known"'
    assert warnings(rules, end=end) == [
        'domains."example.org".rules "later": never decides: whatever it is for, '
        '"earlier" above has decided before; move it up'
    ]


# --- Impossible ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "problem"),
    [
        (
            'when.spam = "FAIL"\nunless.spam = "FAIL"',
            "when.spam holds only where unless.spam forbids it",
        ),
        (
            'when.mailbox = "disabled"\nunless.mailbox = "known"',
            "when.mailbox holds only where unless.mailbox forbids it",
        ),
        (
            'when.recipient = "sales@example.com"\nunless.recipient = "@example.com"',
            "when.recipient holds only where unless.recipient forbids it",
        ),
        (
            'when.larger_than = "25 MB"\nunless.larger_than = "10 MB"',
            "when.larger_than holds only where unless.larger_than forbids it",
        ),
        (
            'when.header.X-A = "yes"\nunless.header.X-A = true',
            "when.header holds only where unless.header forbids it",
        ),
        (
            'when.mailbox = "unknown"\nwhen.larger_than = "mailbox"',
            "an unknown mailbox has no limit of its own",
        ),
        (
            'when.mailbox = ["unknown"]\nwhen.larger_than = ["mailbox"]',
            "an unknown mailbox has no limit of its own",
        ),
        (
            'when.dmarc = ["PASS", "GRAY"]\nwhen.dmarc_policy = "reject"',
            "SES gives dmarc_policy only when dmarc is FAIL",
        ),
    ],
)
def test_a_rule_that_contradicts_itself_is_impossible(conditions: str, problem: str) -> None:
    assert warnings(drop(conditions, "odd")) == [f'rules "odd": never decides: {problem}']


@pytest.mark.parametrize(
    "conditions",
    [
        'when.spam = ["FAIL", "GRAY"]\nunless.spam = "FAIL"',
        'when.mailbox = "known"\nunless.mailbox = "disabled"',
        'when.recipient = "@example.com"\nunless.recipient = "postmaster@example.com"',
        'when.larger_than = "10 MB"\nunless.larger_than = "25 MB"',
        "when.header.X-A = true\nunless.header.X-B = true",
        'when.mailbox = ["unknown", "full"]\nwhen.larger_than = "mailbox"',
        'when.mailbox = "unknown"\nwhen.larger_than = ["mailbox", "10 MB"]',
        'when.dmarc = "FAIL"\nwhen.dmarc_policy = "reject"',
        'when.dmarc_policy = "reject"',
    ],
)
def test_a_rule_that_can_hold_is_not_impossible(conditions: str) -> None:
    assert warnings(drop(conditions, "fine")) == []


# --- Never sent ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "guard"),
    [
        ('when.virus = "FAIL"', "virus-found"),
        ('when.spam = ["FAIL"]', "spam-found"),
        ('when.dmarc = "FAIL"\nwhen.dmarc_policy = "reject"', "dmarc-failed"),
        ('when.spf = "FAIL"\nwhen.mailbox = "unknown"', "spf-failed"),
    ],
)
def test_a_bounce_that_a_guard_always_stops_is_reported(conditions: str, guard: str) -> None:
    expected = [f'rules "odd": bounces nothing: the guard {guard} stops it; the mail is dropped']
    assert warnings(bounce_rule(conditions, "odd")) == expected
    assert warnings(rule(f'action = "defer"\n{conditions}', "odd")) == expected
    assert warnings(drop(conditions, "odd")) == []


def test_a_bounce_to_the_null_sender_is_reported() -> None:
    conditions = 'when.sender = "<>"'
    assert warnings(bounce_rule(conditions, "odd")) == [
        'rules "odd": bounces nothing: a null sender is never answered'
    ]
    assert warnings(bounce_rule('when.sender = ["<>", "@a.example"]', "odd")) == []
    assert warnings(drop(conditions, "odd")) == []


def test_a_bounce_whose_guard_is_off_or_that_is_not_only_for_failures_is_not_reported() -> None:
    assert warnings(bounce_rule('when.spam = "FAIL"', "odd"), 'guards.off = ["spam-found"]') == []
    assert warnings(bounce_rule('when.spf = ["FAIL", "GRAY"]', "odd")) == []


def test_what_holds_for_every_domain_is_said_of_each_once() -> None:
    found = warnings(bounce_rule('when.sender = "<>"', "odd"), end='[domains."example.org"]')
    assert found == [
        'rules "odd": bounces nothing: a null sender is never answered',
        'domains."example.org".rules "odd": bounces nothing: a null sender is never answered',
    ]


# --- Who must be reachable -------------------------------------------------------------------


def test_the_shipped_policy_takes_mail_for_postmaster_and_abuse() -> None:
    assert unreachable(load(SHIPPED_POLICY.read_text("utf-8"))) == []


REACHABLE = rule('action = "accept"\nwhen.recipient = ["postmaster@*", "abuse@*"]', "reachable")


@pytest.mark.parametrize(
    ("rules", "refused"),
    [
        (UNKNOWN_BOUNCES, ["postmaster", "abuse"]),
        (REACHABLE + UNKNOWN_BOUNCES, []),
        (UNKNOWN_BOUNCES + REACHABLE, ["postmaster", "abuse"]),
        (REACHABLE.replace('"abuse@*"', '"x@*"') + UNKNOWN_BOUNCES, ["abuse"]),
        (UNKNOWN_BOUNCES.replace("action =", "dry_run = true\naction ="), []),
        (drop('when.virus = "FAIL"', "virus"), []),
        ("", []),
    ],
)
def test_a_policy_that_refuses_postmaster_or_abuse_is_warned_of(
    rules: str, refused: list[str]
) -> None:
    found = unreachable(policy(rules))
    assert [warning.partition("refuses ")[2].partition("@")[0] for warning in found] == refused


def test_a_domain_that_refuses_postmaster_is_named() -> None:
    rules = REACHABLE + UNKNOWN_BOUNCES
    off = '[domains."example.org".rules.reachable]\nenabled = false'
    warning, _ = unreachable(policy(rules, end=off))
    assert warning.startswith('domains."example.org".rules "unknown-recipient": refuses postmaster')


# --- What a sender reads ---------------------------------------------------------------------


def test_each_text_is_shown_as_its_sender_reads_it() -> None:
    german = (
        '[domains."example.org".rules.unknown-recipient]\n'
        'explanation = "F\u00fcr {recipient} gibt es kein Postfach."'
    )
    shared, own = sample_texts(policy(UNKNOWN_BOUNCES, end=german))
    assert (shared.place, shared.text, shared.transliterated) == (
        'rules "unknown-recipient"',
        "There is no mailbox alex@example.com here.",
        False,
    )
    assert (own.place, own.text, own.transliterated) == (
        'domains."example.org".rules "unknown-recipient"',
        "Fur alex@example.org gibt es kein Postfach.",
        True,
    )
