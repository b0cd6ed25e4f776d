"""How an address finds its mailbox, and what state that is in."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bouncer.mailboxes import (
    EntryError,
    Mailbox,
    StaticDirectory,
    Status,
    Way,
    answer,
    candidates,
    check_entry,
    follow_alias,
    from_fields,
    from_item,
    resolve,
    usable,
    utc_day,
)
from tests.unit.builders import ALICE, NOBODY, NOW, box


def found(recipient: str, *entries: Mailbox) -> str | None:
    """The address of the entry that answers for a recipient."""
    mailbox = StaticDirectory(entries).look_up([recipient])[recipient].mailbox
    return mailbox.address if mailbox else None


# --- Finding ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipient", "keys"),
    [
        ("alice@example.com", ("alice@example.com", "@example.com")),
        ("Alice@Example.COM", ("alice@example.com", "@example.com")),
        ("alice+a@example.com", ("alice+a@example.com", "alice@example.com", "@example.com")),
        ("alice-a@example.com", ("alice-a@example.com", "alice@example.com", "@example.com")),
        (
            "alice-a+b@example.com",
            ("alice-a+b@example.com", "alice-a@example.com", "alice@example.com", "@example.com"),
        ),
        (
            "alice+a+b@example.com",
            ("alice+a+b@example.com", "alice+a@example.com", "alice@example.com", "@example.com"),
        ),
        ("+tag@example.com", ("+tag@example.com", "@example.com")),
    ],
)
def test_the_keys_that_may_answer_are_asked_nearest_first(
    recipient: str, keys: tuple[str, ...]
) -> None:
    assert candidates(recipient) == keys


NO_CATCH_ALL = box("@example.com", catch_all=False)
DASHES = box("@example.com", catch_all=False, separator="-")
NO_TAGS = box("@example.com", catch_all=False, separator="")
CATCH_ALL = box("@example.com")


@pytest.mark.parametrize(
    ("recipient", "entries", "answers"),
    [
        pytest.param("alice@example.com", [box()], ALICE, id="itself"),
        pytest.param("ALICE@EXAMPLE.COM", [box()], ALICE, id="in any case"),
        pytest.param(
            "alice@example.com", [box("Alice@Example.Com")], "Alice@Example.Com", id="key"
        ),
        pytest.param("alice+tag@example.com", [box()], ALICE, id="tag"),
        pytest.param("alice+a+b@example.com", [box()], ALICE, id="tag with the separator in it"),
        pytest.param("alice+@example.com", [box()], ALICE, id="empty tag"),
        pytest.param(
            "alice+tag@example.com",
            [box(), box("alice+tag@example.com")],
            "alice+tag@example.com",
            id="the tagged address has its own entry",
        ),
        pytest.param("alice-tag@example.com", [box()], None, id="dash is no tag by default"),
        pytest.param("alice-tag@example.com", [box(), DASHES], ALICE, id="dash by the domain"),
        pytest.param("alice+tag@example.com", [box(), DASHES], None, id="plus is no tag then"),
        pytest.param("alice+tag@example.com", [box(), NO_TAGS], None, id="tags off"),
        pytest.param("+tag@example.com", [box()], None, id="only a tag"),
        pytest.param("+tag@example.com", [box(), NO_CATCH_ALL], None, id="only a tag, defaults"),
        pytest.param("bob@example.com", [box()], None, id="unknown"),
        pytest.param("bob@example.com", [box(), CATCH_ALL], "@example.com", id="catch-all"),
        pytest.param("bob@example.com", [box(), NO_CATCH_ALL], None, id="defaults only"),
        pytest.param("alice@example.com", [box(), CATCH_ALL], ALICE, id="before the catch-all"),
        pytest.param(
            "bob@sub.example.com", [CATCH_ALL], None, id="catch-all is not for subdomains"
        ),
        pytest.param("alice@example.org", [box()], None, id="another domain"),
        pytest.param("alice", [box()], None, id="no domain"),
        pytest.param("", [box()], None, id="nothing"),
    ],
)
def test_a_recipient_is_found_by_itself_then_without_its_tag_then_by_catch_all(
    recipient: str, entries: list[Mailbox], answers: str | None
) -> None:
    assert found(recipient, *entries) == answers


@pytest.mark.parametrize(
    ("recipient", "separator", "entries", "answers"),
    [
        ("mary-ann-news", "-", ["mary", "mary-ann"], "mary-ann"),
        ("mary-ann-news", "-", ["mary"], "mary"),
        ("mary-ann", "-", ["mary", "mary-ann"], "mary-ann"),
        ("mary-ann-news-x", "-", ["mary", "mary-ann"], "mary-ann"),
        ("a+b+c", "+", ["a", "a+b"], "a+b"),
        ("mary-ann+news", "+", ["mary", "mary-ann"], "mary-ann"),
        ("mary-ann+news", "-", ["mary", "mary-ann"], "mary"),
        ("mary--ann", "-", ["mary", "mary-"], "mary-"),
    ],
)
def test_of_several_untagged_addresses_the_nearest_answers(
    recipient: str, separator: str, entries: list[str], answers: str
) -> None:
    boxes = [box(f"{each}@example.com") for each in entries]
    defaults = box("@example.com", catch_all=False, separator=separator)
    assert found(f"{recipient}@example.com", *boxes, defaults) == f"{answers}@example.com"


@given(
    parts=st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=6),
    has=st.sets(st.integers(1, 6), min_size=1),
    separator=st.sampled_from("+-"),
)
def test_the_entry_that_answers_has_the_longest_prefix_there_is(
    parts: list[str], has: set[int], separator: str
) -> None:
    entries = {n: box(f"{separator.join(parts[:n])}@example.com") for n in has if n <= len(parts)}
    defaults = box("@example.com", catch_all=False, separator=separator)
    answered = found(f"{separator.join(parts)}@example.com", *entries.values(), defaults)
    assert answered == (entries[max(entries)].address if entries else None)


def test_a_recipient_of_dashes_asks_for_no_more_keys_than_entries_can_have() -> None:
    assert len(candidates(f"{'a-' * 5000}@example.com")) <= 66


# --- What it speaks for ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipient", "entries", "known"),
    [
        pytest.param(NOBODY, [box()], True, id="a domain that occurs"),
        pytest.param(NOBODY, [], False, id="nothing at all"),
        pytest.param("x@example.org", [box()], False, id="another domain"),
        pytest.param("x@sub.example.com", [box()], False, id="a subdomain"),
        pytest.param("x@EXAMPLE.com.", [box("@example.com", catch_all=False)], True, id="spelling"),
        pytest.param("postmaster", [box()], False, id="no domain"),
    ],
)
def test_a_static_directory_speaks_for_the_domains_that_occur_in_it(
    recipient: str, entries: list[Mailbox], known: bool
) -> None:
    said = StaticDirectory(entries).look_up([recipient])[recipient]
    assert (said.mailbox, said.domain_known) == (None, known)


def test_entries_without_that_of_their_domain_speak_for_none() -> None:
    assert not answer(NOBODY, {ALICE: box()}).domain_known
    assert answer(NOBODY, {ALICE: box()}, {"example.com"}).domain_known


@pytest.mark.parametrize(
    ("recipient", "entry", "way", "takes"),
    [
        (ALICE, ALICE, Way.ADDRESS, ALICE),
        ("alice+x@example.com", ALICE, Way.TAG, ALICE),
        ("sales@example.com", "sales@example.com", Way.ADDRESS, ALICE),
        ("x@shop.example", "@shop.example", Way.CATCH_ALL, ALICE),
        (NOBODY, "", None, None),
    ],
)
def test_an_answer_says_which_entry_was_found_and_who_takes_the_mail(
    recipient: str, entry: str, way: Way | None, takes: str | None
) -> None:
    boxes = [box(), SALES, box("@shop.example", alias_for=ALICE)]
    said = StaticDirectory(boxes).look_up([recipient])[recipient]
    assert (said.entry, said.way) == (entry, way)
    assert (said.mailbox.address if said.mailbox else None) == takes


def test_every_recipient_is_answered_under_the_spelling_it_was_asked_by() -> None:
    looked_up = StaticDirectory([box()]).look_up(["ALICE@example.com", "bob@example.com"])
    assert list(looked_up) == ["ALICE@example.com", "bob@example.com"]
    assert looked_up["ALICE@example.com"].mailbox == box()
    assert looked_up["bob@example.com"].mailbox is None


LIMITS: dict[str, Any] = {"quota_bytes": 10, "quota_messages_per_day": 20, "size_limit_bytes": 30}


def test_a_mailbox_inherits_the_limits_of_its_domain() -> None:
    entries = {ALICE: box(used_bytes=5), "@example.com": box("@example.com", **LIMITS)}
    assert resolve(ALICE, entries) == box(used_bytes=5, **LIMITS)


@pytest.mark.parametrize("field", LIMITS)
def test_a_limit_of_its_own_wins_even_when_it_is_zero(field: str) -> None:
    own: dict[str, Any] = {field: 0}
    entries = {ALICE: box(**own), "@example.com": box("@example.com", **LIMITS)}
    assert resolve(ALICE, entries) == box(**(LIMITS | own))


def test_nothing_but_limits_is_inherited() -> None:
    domain = box(
        "@example.com",
        status=Status.DISABLED,
        moved_to="x@example.net",
        alias_for="y@example.net",
        used_bytes=7,
        tell_new_address=True,
    )
    assert resolve(ALICE, {ALICE: box(), "@example.com": domain}) == box()


SALES = box("sales@example.com", alias_for=ALICE)


@pytest.mark.parametrize(
    ("mailbox", "others", "answers"),
    [
        pytest.param(SALES, [box()], ALICE, id="the target"),
        pytest.param(
            box("sales@example.com", alias_for="Alice+x@Example.com"), [box()], ALICE, id="spelling"
        ),
        pytest.param(SALES, [], "sales@example.com", id="target outside of the directory"),
        pytest.param(
            SALES,
            [box(alias_for="bob@example.com"), box("bob@example.com")],
            ALICE,
            id="one step only",
        ),
        pytest.param(
            msgspec.structs.replace(SALES, status=Status.DISABLED),
            [box()],
            "sales@example.com",
            id="disabled alias",
        ),
        pytest.param(
            msgspec.structs.replace(SALES, moved_to="sales@example.net"),
            [box()],
            "sales@example.com",
            id="moved alias",
        ),
        pytest.param(
            box("loop@example.com", alias_for="loop@example.com"),
            [box("loop@example.com", alias_for="loop@example.com")],
            "loop@example.com",
            id="an alias of itself",
        ),
        pytest.param(box("bob@example.com"), [box()], "bob@example.com", id="no alias"),
    ],
)
def test_an_alias_answers_with_its_target(
    mailbox: Mailbox, others: list[Mailbox], answers: str
) -> None:
    followed = follow_alias(mailbox, {each.address: each for each in others})
    assert followed is not None
    assert followed.address == answers


def test_the_alias_of_an_unknown_address_is_unknown() -> None:
    assert follow_alias(None, {ALICE: box()}) is None


def test_an_alias_takes_the_limits_of_its_targets_domain() -> None:
    entries = (SALES, box(), box("@example.com", catch_all=False, quota_bytes=10))
    looked_up = StaticDirectory(entries).look_up(["sales+x@example.com"])
    assert looked_up["sales+x@example.com"].mailbox == box(quota_bytes=10)


# --- States ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mailbox", "disabled"),
    [
        pytest.param(box(), False, id="active"),
        pytest.param(box(status=Status.DISABLED), True, id="disabled"),
        pytest.param(
            box(status=Status.DISABLED, status_until=NOW + timedelta(seconds=1)), True, id="until"
        ),
        pytest.param(box(status=Status.DISABLED, status_until=NOW), False, id="until now"),
        pytest.param(
            box(status=Status.DISABLED, status_until=NOW - timedelta(days=9)), False, id="over"
        ),
        pytest.param(
            box(status=Status.DISABLED, status_until=datetime.fromisoformat("2026-11-21T12:01")),
            True,
            id="a time without a zone is UTC",
        ),
        pytest.param(box(status_until=NOW + timedelta(days=1)), False, id="active, until"),
    ],
)
def test_a_mailbox_is_disabled_until_its_status_ends(mailbox: Mailbox, disabled: bool) -> None:
    assert mailbox.disabled(NOW) is disabled


@pytest.mark.parametrize(
    ("fields", "over"),
    [
        ({}, False),
        ({"messages_today": 99, "messages_day": "2026-11-21"}, False),
        (
            {"quota_messages_per_day": 3, "messages_today": 2, "messages_day": "2026-11-21"},
            False,
        ),
        ({"quota_messages_per_day": 3, "messages_today": 3, "messages_day": "2026-11-21"}, True),
        ({"quota_messages_per_day": 3, "messages_today": 3, "messages_day": "2026-11-20"}, False),
        ({"quota_messages_per_day": 3, "messages_today": 3}, False),
        ({"quota_messages_per_day": 1, "messages_today": 1, "messages_day": "2026-11-20"}, False),
        ({"quota_messages_per_day": 0}, True),
        ({"quota_messages_per_day": 3, "messages_today": 3, "messages_day": "2026-11-22"}, True),
        ({"quota_messages_per_day": 3, "messages_today": 2, "messages_day": "2026-11-22"}, False),
    ],
)
def test_the_daily_quota_counts_the_messages_of_this_utc_day(
    fields: dict[str, Any], over: bool
) -> None:
    assert box(**fields).over_daily_quota(NOW) is over


def test_a_day_begins_at_midnight_utc() -> None:
    assert utc_day(datetime(2026, 11, 21, 23, 59, tzinfo=UTC)) == "2026-11-21"
    assert (
        utc_day(datetime(2026, 11, 22, 0, 30, tzinfo=timezone(timedelta(hours=1)))) == "2026-11-21"
    )


@pytest.mark.parametrize(
    ("quota", "used", "full", "size_without_room"),
    [(None, 10**12, False, None), (100, 99, False, 2), (100, 100, True, 1), (0, 0, True, 1)],
)
def test_a_mailbox_is_full_at_its_quota_and_has_no_room_past_it(
    quota: int | None, used: int, full: bool, size_without_room: int | None
) -> None:
    mailbox = box(quota_bytes=quota, used_bytes=used)
    assert mailbox.full() is full
    if size_without_room is None:
        assert not mailbox.without_room(10**12)
    else:
        assert mailbox.without_room(size_without_room)
        assert not mailbox.without_room(size_without_room - 1)


# --- Items of a table ------------------------------------------------------------------------


def test_an_item_with_every_attribute_is_read() -> None:
    # Numbers are text, as DynamoDB's API has them.
    item = {
        "address": ALICE,
        "status": "disabled",
        "status_until": "2026-12-01T00:00:00Z",
        "quota_bytes": "1000",
        "used_bytes": "10",
        "quota_messages_per_day": "5",
        "messages_day": "2026-11-21",
        "messages_today": "2",
        "size_limit_bytes": "500",
        "alias_for": "bob@example.com",
        "moved_to": "alice@example.net",
        "tell_new_address": True,
        "catch_all": False,
        "separator": "-",
    }
    assert item.keys() == set(Mailbox.__struct_fields__)
    assert from_item(item, {}) == box(
        status=Status.DISABLED,
        status_until=datetime(2026, 12, 1, tzinfo=UTC),
        quota_bytes=1000,
        used_bytes=10,
        quota_messages_per_day=5,
        messages_day="2026-11-21",
        messages_today=2,
        size_limit_bytes=500,
        alias_for="bob@example.com",
        moved_to="alice@example.net",
        tell_new_address=True,
        catch_all=False,
        separator="-",
    )


def test_an_item_may_say_only_its_address() -> None:
    assert from_item({"address": ALICE}, {}) == box()


def test_a_null_attribute_and_one_that_is_not_ours_count_as_absent() -> None:
    assert from_item({"address": ALICE, "quota_bytes": None, "owner": "IT"}, {}) == box()


def test_an_attribute_may_have_a_name_of_the_tables_own() -> None:
    names = {"address": "mail", "quota_bytes": "max"}
    item = {"mail": ALICE, "max": "1000", "quota_bytes": "ignored"}
    assert from_item(item, names) == box(quota_bytes=1000)


@pytest.mark.parametrize(
    ("item", "place"),
    [
        ({}, "address"),
        ({"address": ALICE, "quota_bytes": "much"}, "quota_bytes"),
        ({"address": ALICE, "quota_bytes": "1.5"}, "quota_bytes"),
        ({"address": ALICE, "status": "sleeping"}, "status"),
        ({"address": ALICE, "separator": "="}, "separator"),
        ({"address": ALICE, "status_until": "soon"}, "status_until"),
        ({"address": ALICE, "status_until": "2026-02-30"}, "status_until"),
        ({"address": ALICE, "quota_bytes": "-1"}, "quota_bytes"),
        ({"address": ALICE, "quota_messages_per_day": "-1"}, "quota_messages_per_day"),
        ({"address": ALICE, "size_limit_bytes": "-1"}, "size_limit_bytes"),
    ],
)
def test_an_item_that_is_wrong_names_the_field(item: dict[str, Any], place: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=place):
        from_item(item, {})


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-12-01", datetime(2026, 12, 1, tzinfo=UTC)),
        ("2026-12-01T08:30:00Z", datetime(2026, 12, 1, 8, 30, tzinfo=UTC)),
        ("2026-12-01T08:30:00+02:00", datetime(2026, 12, 1, 6, 30, tzinfo=UTC)),
        ("2026-12-01T08:30", datetime(2026, 12, 1, 8, 30, tzinfo=UTC)),
        ("2026-12-01 08:30", datetime(2026, 12, 1, 8, 30, tzinfo=UTC)),
        ("2026-12-01T08:30-0500", datetime(2026, 12, 1, 13, 30, tzinfo=UTC)),
    ],
)
def test_a_status_ends_at_a_time_or_as_a_date_begins_in_utc(text: str, moment: datetime) -> None:
    fields = {"address": ALICE, "status_until": text}
    assert from_fields(fields).status_until == moment
    assert from_item(fields, {}).status_until == moment


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"quota_bytes": 0}, "quota_bytes 0 would refuse every mail"),
        ({"size_limit_bytes": 0}, "size_limit_bytes 0 would refuse every mail"),
        ({"quota_messages_per_day": 0}, "quota_messages_per_day 0 would refuse every mail"),
        ({"alias_for": "bob"}, "alias_for 'bob': write user@domain"),
        ({"alias_for": "*@example.org"}, "alias_for '*@example.org': write user@domain"),
        ({"moved_to": ""}, "moved_to '': write user@domain"),
        ({"moved_to": ALICE}, "is the address itself"),
    ],
    ids=str,
)
def test_what_nobody_can_mean_counts_as_empty_in_a_table_and_is_told(
    fields: dict[str, Any], problem: str
) -> None:
    mailbox, told = usable(box(**fields))
    assert mailbox == box()
    assert problem in told[0]
    assert "counts as empty" in told[0]
    with pytest.raises(EntryError, match=re.escape(problem)):
        check_entry(box(**fields))


def test_what_can_be_meant_is_used_as_it_is() -> None:
    mailbox = box(quota_bytes=1, alias_for="bob@example.net")
    assert usable(mailbox) == (mailbox, [])


# --- Entries that nobody can mean ------------------------------------------------------------


@pytest.mark.parametrize(
    "mailbox",
    [
        box(),
        box("@example.com"),
        box("@xn--bcher-kva.example"),
        box("@bücher.example"),
        box(alias_for="bob@example.com"),
        box(alias_for="Bob@EXAMPLE.com"),
        box(moved_to="alice@bücher.example"),
        box("@example.com", alias_for=ALICE),
        box("alice+x@example.com", alias_for=ALICE),
    ],
    ids=str,
)
def test_an_entry_that_leads_somewhere_is_good(mailbox: Mailbox) -> None:
    check_entry(mailbox)


@pytest.mark.parametrize(
    ("mailbox", "complaint"),
    [
        (box("alice"), "address 'alice': write user@domain, or @domain"),
        (box(""), "address ''"),
        (box("@"), "address '@'"),
        (box("alice@"), "address 'alice@'"),
        (box("alice@localhost"), "address 'alice@localhost'"),
        (box("@localhost"), "address '@localhost'"),
        (box("@exa mple.com"), "address '@exa mple.com'"),
        (box("al ice@example.com"), "address 'al ice@example.com'"),
        (box("*@example.com"), "is a pattern, and the directory has none: write @example.com for"),
        (box("%@example.com"), "write @example.com for every address"),
        (box("sales-*@example.com"), "is a pattern"),
        (box("a?c@example.com"), "is a pattern"),
        (box("*"), "is a pattern, and the directory has none: write @domain"),
        (box("@*.example.com"), "is a pattern"),
        (box("example.com"), "write @example.com for the domain, or user@example.com"),
        (box("jürgen@example.com"), "SES takes no mail for a local part that is not ASCII"),
        (box(alias_for="*@example.net"), "alias_for '*@example.net': write user@domain"),
        (box(quota_bytes=0), "quota_bytes 0 would refuse every mail: leave it empty"),
        (box("a@b@example.com"), "address 'a@b@example.com'"),
        (box(alias_for="bob"), "alias_for 'bob': write user@domain"),
        (box(alias_for=""), "alias_for '': write user@domain"),
        (box(alias_for="@example.com"), "alias_for '@example.com': write user@domain"),
        (box(moved_to="new address"), "moved_to 'new address': write user@domain"),
        (box(moved_to="@new.example"), "moved_to '@new.example': write user@domain"),
        (box(alias_for=ALICE), f"alias_for '{ALICE}' is the address itself"),
        (box(alias_for="Alice@Example.com"), "alias_for 'Alice@Example.com' is the address itself"),
        (box(moved_to=ALICE), f"moved_to '{ALICE}' is the address itself"),
    ],
)
def test_an_entry_that_no_mail_finds_or_that_leads_nowhere_is_refused(
    mailbox: Mailbox, complaint: str
) -> None:
    with pytest.raises(EntryError, match=re.escape(complaint)):
        check_entry(mailbox)
