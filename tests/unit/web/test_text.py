"""Whatever a template prints is text of bounded length, which does nothing."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bouncer_console.web.text import (
    LIMIT,
    LONG_LIMIT,
    Whole,
    duration,
    environment,
    link,
    shown,
    size,
)

EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onfocus=alert(1) autofocus='",
    "\x1b[31mred\x1b]0;title\x07",
    "[red]rich[/red]",
    "\u202egnp.exe",
    "\u2066isolate",
    "zero\u200bwidth",
    "{{ 7 * 7 }}",
    "\x00\r\n\t",
]
FORMS = ["{{ value }}", '<a title="{{ value }}">', "{{ value | whole }}", '<i a="{{ value }}">']


def rendered(form: str, value: object) -> str:
    return environment().from_string(form).render(value=value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", EVIL)
def test_evil_is_shown_as_text(form: str, value: str) -> None:
    inside = rendered(form, value)
    for part in form.split("{{ value }}" if "{{ value }}" in form else "{{ value | whole }}"):
        assert part in inside
        inside = inside.replace(part, "", 1) if part else inside
    assert not set("<>\"'") & set(inside)
    assert all(each.isprintable() or each in "\n\t" for each in inside)
    assert "49" not in inside


@given(st.text(max_size=2 * LIMIT))
def test_any_text_is_bounded_and_printable(text: str) -> None:
    found = rendered("{{ value }}", text)
    assert all(each.isprintable() or each == "\n" for each in found)
    assert len(shown(text)) <= 10 * LIMIT + 40  # the longest spelling of one character: \U000e0001


def test_a_word_of_ten_thousand_is_cut_and_says_so() -> None:
    assert shown("W" * 10_000) == "W" * LIMIT + " … (10,000 characters)"
    assert len(shown(Whole("W" * 10 * LONG_LIMIT))) < LONG_LIMIT + 40


def test_marks_do_not_pile_up() -> None:
    assert len(shown("a" + "\u0301" * 400)) == 4


def test_a_whole_text_keeps_its_lines() -> None:
    assert shown(Whole("a\r\n\tb\rc\n")) == "a\n\tb\nc\n"


def test_an_absent_variable_is_an_error_and_not_an_empty_text() -> None:
    with pytest.raises(Exception, match="nowhere"):
        environment().from_string("{{ nowhere }}").render()


@given(st.text(), st.text())
def test_a_link_stays_on_this_page_whatever_it_is_about(name: str, value: str) -> None:
    made = rendered('<a href="{{ link("/mail", **value) }}">', {name: value})
    assert made.startswith('<a href="/mail')
    assert made.count('"') == 2
    assert made.isascii()
    assert link("/mail", x=None, y="") == "/mail"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (2_500_000, "2.5 MB"), (10**13, "10 TB")],
)
def test_sizes_are_the_policys(value: int, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 s"),
        (61, "1 min 1 s"),
        (timedelta(days=1, hours=2, minutes=3), "1 d 2 h"),
        (-5, "0 s"),
    ],
)
def test_spans_have_two_units(value: float | timedelta, text: str) -> None:
    assert duration(value) == text


def test_times_are_in_utc() -> None:
    assert shown(datetime(2026, 11, 30, 12, 0, 5, tzinfo=UTC)) == "2026-11-30 12:00:05 UTC"
