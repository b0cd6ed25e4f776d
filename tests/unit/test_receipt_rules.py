"""The directory projected onto SES's receipt rules: everyone named, never nobody, few changes."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bouncer.mailboxes import Mailbox, Status
from bouncer.receipt_rules import (
    RECIPIENTS_A_RULE,
    RULES_A_SET,
    RuleChange,
    SyncError,
    changes,
    is_ours,
    rule_name,
    wanted,
)
from tests.unit.builders import ALICE, box

BASE = "ses-bouncer"

type Rules = dict[str, list[str]]


def addresses(*ranges: tuple[int, int]) -> list[str]:
    return [f"user{n:06d}@example.com" for first, end in ranges for n in range(first, end)]


def todo(rules: Mapping[str, Sequence[str]], recipients: Sequence[str]) -> list[RuleChange]:
    return changes(rules, BASE, frozenset(recipients), others=0)


def steps(rules: Mapping[str, Sequence[str]], todo: Sequence[RuleChange]) -> list[Rules]:
    """The rules as they are after each change, carried out in order."""
    now: Rules = {name: list(recipients) for name, recipients in rules.items()}
    states = []
    for change in todo:
        if change.new:
            assert change.name not in now
            names = list(now)
            at = names.index(change.after) + 1 if change.after is not None else 0
            now = {
                name: [] if name == change.name else now[name]
                for name in [*names[:at], change.name, *names[at:]]
            }
        assert set(now[change.name]) == set(change.recipients) - set(change.added) | set(
            change.removed
        )
        now = now | {change.name: list(change.recipients)}
        if not change.recipients:
            del now[change.name]
        states.append({name: list(recipients) for name, recipients in now.items()})
    return states


def named(rules: Mapping[str, Sequence[str]]) -> set[str]:
    return {each for recipients in rules.values() for each in recipients}


HERE = box("@example.com", catch_all=False)


# --- What the directory needs ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "recipients", "whole"),
    [
        pytest.param([], set(), (), id="nothing"),
        pytest.param([box(), HERE], {ALICE}, (), id="an address"),
        pytest.param(
            [box()], {"example.com"}, ("example.com",), id="a domain that the directory lacks"
        ),
        pytest.param([box("Alice@Example.com"), HERE], set(), (), id="a key that no mail finds"),
        pytest.param(
            [
                HERE,
                box("off@example.com", status=Status.DISABLED),
                box("gone@example.com", moved_to="x@example.net"),
                box("full@example.com", quota_bytes=0),
                box("alias@example.com", alias_for=ALICE),
            ],
            {"off@example.com", "gone@example.com", "full@example.com", "alias@example.com"},
            (),
            id="whoever is told more by the bouncer",
        ),
        pytest.param(
            [box(), box("@example.com", catch_all=False)], {ALICE}, (), id="a domain's defaults"
        ),
        pytest.param(
            [box(), box("@example.com")], {"example.com"}, ("example.com",), id="a catch-all"
        ),
        pytest.param(
            [box(), box("@example.com", catch_all=False, separator="-")],
            {"example.com"},
            ("example.com",),
            id="tags that SES does not know",
        ),
        pytest.param(
            [box(), box("@example.com", catch_all=False, separator="")], {ALICE}, (), id="no tags"
        ),
        pytest.param(
            [
                box(),
                HERE,
                box("@sub.shop.example", catch_all=False),
                box("@shop.example"),
                box("x@shop.example"),
                box("@b.example"),
                box("y@sub.shop.example"),
            ],
            {ALICE, "shop.example", "b.example", "y@sub.shop.example"},
            ("b.example", "shop.example"),
            id="several domains",
        ),
    ],
)
def test_an_address_is_named_alone_unless_its_domain_is_named_as_a_whole(
    entries: list[Mailbox], recipients: set[str], whole: tuple[str, ...]
) -> None:
    needed = wanted(entries)
    assert needed.recipients == recipients
    assert needed.whole_domains == whole


# --- Names -----------------------------------------------------------------------------------


def test_our_rules_are_the_base_and_its_numbered_copies() -> None:
    assert [rule_name(BASE, n) for n in (1, 2, 200)] == [BASE, f"{BASE}-002", f"{BASE}-200"]
    assert all(is_ours(BASE, rule_name(BASE, n)) for n in range(1, RULES_A_SET + 1))


@pytest.mark.parametrize(
    "name", ["", "other", f"{BASE}-2", f"{BASE}-0002", f"{BASE}-abc", f"x-{BASE}", f"{BASE}-002-x"]
)
def test_a_rule_of_another_name_is_not_ours(name: str) -> None:
    assert not is_ours(BASE, name)


def test_a_base_name_is_no_pattern() -> None:
    assert not is_ours("ses.bouncer", "ses-bouncer-002")


# --- Changes ---------------------------------------------------------------------------------


def test_what_is_in_step_stays_as_it_is() -> None:
    rules = {BASE: addresses((0, 500)), f"{BASE}-002": addresses((500, 600))}
    assert todo(rules, addresses((0, 600))) == []


def test_a_base_rule_for_everyone_gets_the_recipients() -> None:
    assert todo({BASE: []}, addresses((0, 2))) == [
        RuleChange(
            name=BASE,
            after=None,
            recipients=tuple(addresses((0, 2))),
            added=tuple(addresses((0, 2))),
            removed=(),
            narrows=True,
        )
    ]


def test_a_rule_for_everyone_is_narrowed_when_every_copy_is_there() -> None:
    """Whoever is in the directory is refused at no moment, and not after an interruption."""
    names = [change.name for change in todo({BASE: []}, addresses((0, 1234)))]
    assert names == [f"{BASE}-002", f"{BASE}-003", BASE]


def test_a_copy_whose_settings_are_not_the_stacks_is_mended_with_the_same_recipients() -> None:
    rules = {BASE: addresses((0, 500)), f"{BASE}-002": addresses((500, 600))}
    (change,) = changes(
        rules, BASE, frozenset(addresses((0, 600))), 0, stale=frozenset({f"{BASE}-002"})
    )
    assert change == RuleChange(
        name=f"{BASE}-002",
        after=BASE,
        recipients=tuple(addresses((500, 600))),
        added=(),
        removed=(),
        settings=True,
    )


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(1, [1]), (500, [500]), (501, [500, 1]), (1000, [500, 500]), (1234, [500, 500, 234])],
)
def test_a_rule_names_at_most_five_hundred(count: int, sizes: list[int]) -> None:
    assert RECIPIENTS_A_RULE == 500
    found = sorted(todo({BASE: []}, addresses((0, count))), key=lambda change: change.name)
    assert [len(change.recipients) for change in found] == sizes
    assert [change.name for change in found] == [rule_name(BASE, n + 1) for n in range(len(sizes))]
    assert [change.after for change in found] == [None, *(change.name for change in found[:-1])]
    assert [change.new for change in found] == [False] + [True] * (len(sizes) - 1)


def test_one_address_more_changes_one_rule() -> None:
    rules = {BASE: addresses((0, 499)), f"{BASE}-002": addresses((1000, 1100))}
    (change,) = todo(rules, [*named(rules), *addresses((700, 701))])
    assert (change.name, change.added, change.removed) == (BASE, tuple(addresses((700, 701))), ())


def test_one_address_less_changes_the_rule_that_names_it_and_no_other() -> None:
    rules = {BASE: addresses((0, 500)), f"{BASE}-002": addresses((500, 1000))}
    gone = addresses((700, 701))
    (change,) = todo(rules, sorted(named(rules) - set(gone)))
    assert (change.name, change.added, change.removed) == (f"{BASE}-002", (), tuple(gone))


def test_a_place_that_became_free_is_used_before_a_new_rule_is_made() -> None:
    rules = {BASE: addresses((0, 500)), f"{BASE}-002": addresses((500, 1000))}
    found = todo(rules, addresses((1, 1001)))
    assert [(change.name, change.added, change.removed) for change in found] == [
        (BASE, tuple(addresses((1000, 1001))), tuple(addresses((0, 1))))
    ]


def test_a_rule_that_names_nobody_any_more_is_deleted() -> None:
    rules = {BASE: addresses((0, 500)), f"{BASE}-002": addresses((500, 510))}
    (change,) = todo(rules, addresses((0, 500)))
    assert (change.name, change.recipients) == (f"{BASE}-002", ())


def test_the_number_of_a_deleted_rule_is_taken_again() -> None:
    rules = {BASE: addresses((0, 500)), f"{BASE}-003": addresses((500, 1000))}
    (change,) = todo(rules, addresses((0, 1001)))
    assert (change.name, change.new, change.after) == (f"{BASE}-002", True, f"{BASE}-003")


def test_the_base_rule_is_never_left_empty_for_it_would_take_mail_for_everyone() -> None:
    rules = {BASE: addresses((0, 500)), f"{BASE}-002": addresses((500, 510))}
    found = todo(rules, addresses((500, 510)))
    assert [(change.name, change.recipients) for change in found] == [
        (BASE, tuple(addresses((500, 510)))),
        (f"{BASE}-002", ()),
    ]


def test_an_empty_directory_is_refused() -> None:
    with pytest.raises(SyncError, match="the directory is empty"):
        todo({BASE: addresses((0, 10))}, [])


@pytest.mark.parametrize(("others", "room"), [(0, 100_000), (1, 99_500), (199, 500), (200, 0)])
def test_more_addresses_than_sess_rules_can_name_are_refused(others: int, room: int) -> None:
    assert RULES_A_SET == 200
    with pytest.raises(
        SyncError, match=f"{room + 1} addresses do not fit.* {room} beside your own"
    ):
        changes({BASE: []}, BASE, frozenset(addresses((0, room + 1))), others)


def test_as_many_as_fit_are_named() -> None:
    found = changes({BASE: []}, BASE, frozenset(addresses((0, 1000))), others=RULES_A_SET - 2)
    assert [len(change.recipients) for change in found] == [500, 500]


# --- Any change of any directory -------------------------------------------------------------

spans = st.tuples(st.integers(0, 1500), st.integers(1, 1200)).map(lambda s: (s[0], s[0] + s[1]))
directories = st.lists(spans, min_size=1, max_size=2).map(lambda s: sorted(set(addresses(*s))))


@st.composite
def rules_before(draw: st.DrawFn) -> Rules:
    """Rules as an earlier run may have left them: full or not, with gaps in the numbers."""
    recipients = draw(directories)
    sizes = draw(st.lists(st.integers(1, RECIPIENTS_A_RULE), min_size=1, max_size=4))
    numbers = draw(st.permutations(range(2, 7)))
    names = [BASE, *(rule_name(BASE, n) for n in numbers)]
    rules: Rules = {BASE: []}
    for name, size in zip(names, sizes, strict=False):
        rules[name], recipients = recipients[:size], recipients[size:]
    return {name: its for name, its in rules.items() if its or name == BASE}


@given(rules_before(), directories)
def test_whatever_changes_the_rules_name_exactly_the_directory(
    before: Rules, directory: list[str]
) -> None:
    found = todo(before, directory)
    after = [before, *steps(before, found)][-1]
    assert named(after) == set(directory)
    assert sum(map(len, after.values())) == len(directory)
    assert all(0 < len(its) <= RECIPIENTS_A_RULE for its in after.values())
    assert todo(after, directory) == [], "a second run has nothing to do"


@given(rules_before(), directories)
def test_on_the_way_nobody_who_is_let_in_is_refused(before: Rules, directory: list[str]) -> None:
    """Wherever it is interrupted; a rule that is for everyone stays so until all are named."""
    let_in = named(before) & set(directory) if before[BASE] else set(directory)
    for state in steps(before, todo(before, directory)):
        assert not state[BASE] or let_in <= named(state)
        assert all(its for name, its in state.items() if name != BASE)
        assert not (before[BASE] and not state[BASE]), "no rule becomes one for everyone"


@given(rules_before(), directories)
def test_a_rule_without_an_address_that_came_or_went_is_left_alone(
    before: Rules, directory: list[str]
) -> None:
    for change in todo(before, directory):
        if change.new or change.name == BASE:
            continue
        moved_to_base = not change.recipients
        came_or_went = {*change.added, *change.removed} <= set(directory) ^ named(before)
        assert came_or_went or moved_to_base
