"""What comes from a mail reaches a DSN as one bounded line of printable ASCII, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bouncer.text import (
    VARIABLES,
    TextError,
    apart,
    check_line,
    check_lines,
    check_template,
    clean,
    clean_lines,
    fill,
    in_units,
)


@pytest.mark.parametrize("name", VARIABLES)
def test_every_documented_variable_may_stand_in_a_text(name: str) -> None:
    check_template(f"before {{{name}}} after")
    assert fill(f"before {{{name}}} after", {name: "value"}) == "before value after"


@pytest.mark.parametrize("text", ["", "plain words", "{{literal}} braces", "{recipient}{sender}"])
def test_a_good_template_is_taken(text: str) -> None:
    check_template(text)


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("{recepient}", "no variable is called {recepient}; there are: recipient, "),
        ("{}", "no variable is called {}"),
        ("{0}", "no variable is called {0}"),
        ("{recipient.__class__}", "no variable is called {recipient.__class__}"),
        ("{recipient[0]}", "no variable is called {recipient[0]}"),
        ("{recipient!r}", "write {recipient} alone"),
        ("{recipient:>40}", "write {recipient} alone"),
        ("{recipient:{size}}", "write {recipient} alone"),
        ("50 % { off", "literal braces"),
        ("50 % } off", "literal braces"),
        ("two\nlines", "write it as one line"),
        ("two\rlines", "write it as one line"),
        ("tab\there", "printable 7-bit ASCII"),
        ("bell\x07", "printable 7-bit ASCII"),
        ("delete\x7f", "printable 7-bit ASCII"),
    ],
)
def test_a_template_that_cannot_be_filled_or_sent_is_refused(text: str, mend: str) -> None:
    with pytest.raises(TextError) as caught:
        check_template(text)
    assert mend in str(caught.value)


def test_all_of_printable_ascii_may_stand_in_a_line() -> None:
    check_line("".join(map(chr, range(0x20, 0x7F))))


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA1), 0x2028, 0x2029, 0xFEFF])
def test_every_control_character_and_line_separator_is_refused_in_a_line(code: int) -> None:
    with pytest.raises(TextError):
        check_line(f"a{chr(code)}b")


@pytest.mark.parametrize(
    ("value", "cleaned"),
    [
        pytest.param("pat@sender.example", "pat@sender.example", id="an address stays"),
        pytest.param("x\r\nBcc: y@z.example", "x Bcc: y@z.example", id="header injection"),
        pytest.param("x\r\n\r\n<b>body</b>", "x <b>body</b>", id="body injection"),
        pytest.param("a\x00b\x1b[31mc\x7fd", "a b [31mc d", id="control characters"),
        pytest.param("a\u2028b\u2029c\u0085d", "a b cd", id="Unicode line ends"),
        pytest.param("Z\u00fcrich caf\u00e9", "Zurich cafe", id="accents"),
        pytest.param("\u65e5\u672c", "RiBen", id="another script"),
        pytest.param("\ud800x", "x", id="lone surrogate"),
        pytest.param("a\u202egnp.exe", "agnp.exe", id="right-to-left override"),
        pytest.param("\ufb01ne \u2460", "fine 1", id="compatibility forms"),
        pytest.param("  many \t  spaces  ", "many spaces", id="white space"),
        pytest.param("{recipient}", "{recipient}", id="braces are no variables"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_untrusted_text_becomes_one_line_of_printable_ascii(value: str, cleaned: str) -> None:
    assert clean(value) == cleaned


@pytest.mark.parametrize(
    ("length", "limit", "expected"),
    [(10, 10, "x" * 10), (11, 10, "x" * 7 + "..."), (100_000, 10, "x" * 7 + "...")],
)
def test_untrusted_text_is_cut_at_its_limit(length: int, limit: int, expected: str) -> None:
    assert clean("x" * length, limit) == expected


def test_a_character_that_expands_does_not_exceed_the_limit() -> None:
    # U+FDFA becomes 30 characters.
    assert len(clean("\ufdfa" * 1000, 50)) <= 50


def test_a_value_does_not_bring_variables_of_its_own() -> None:
    assert fill("{sender}", {"sender": "{recipient}", "recipient": "x"}) == "{recipient}"


def test_a_variable_without_a_value_is_unknown() -> None:
    assert fill("{size} of {limit}", {"size": ""}) == "(unknown) of (unknown)"


def test_each_value_is_cleaned_and_bounded() -> None:
    filled = fill("<{subject}>", {"subject": "a\r\nb" + "x" * 1000})
    assert filled.startswith("<a bx")
    assert filled.endswith("...>")
    assert len(filled) == 258


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, ""),
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1500, "1.5 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1 MB"),
        (25_000_000, "25 MB"),
        (12_345_678, "12.3 MB"),
        (3_000_000_000, "3 GB"),
        (7_000_000_000_000, "7 TB"),
        (7_000_000_000_000_000, "7000 TB"),
    ],
)
def test_a_size_is_written_in_decimal_units(size: int | None, text: str) -> None:
    assert in_units(size) == text


@pytest.mark.parametrize(
    ("size", "limit", "texts"),
    [
        (25_000_001, 25_000_000, ("25,000,001 bytes", "25,000,000 bytes")),
        (25_040_000, 25_000_000, ("25.04 MB", "25 MB")),
        (25_170_000, 24 * 2**20, ("25.17 MB", "25.166 MB")),
        (30_000_000, 25_000_000, ("30 MB", "25 MB")),
        (999_960, 1_000_000, ("999.96 kB", "1 MB")),
        (5, 5, ("5 bytes", "5 bytes")),
        (None, 25_000_000, ("", "25 MB")),
    ],
)
def test_two_sizes_that_differ_read_differently(
    size: int | None, limit: int, texts: tuple[str, str]
) -> None:
    assert tuple(apart({"size": size, "limit": limit}).values()) == texts


sizes = st.integers(0, 2**63) | st.integers(24_900_000, 25_100_000)


@given(st.lists(sizes | st.none(), max_size=4))
def test_sizes_read_alike_exactly_where_they_are(values: list[int | None]) -> None:
    written = apart({str(number): value for number, value in enumerate(values)})
    assert len(set(written.values())) == len(set(values))


def test_a_text_for_people_may_have_lines() -> None:
    check_lines("one\r\ntwo\nthree")
    check_template("one\n{recipient}\nthree", lines=True)
    with pytest.raises(TextError):
        check_lines("one\ttwo")
    assert clean_lines("one\n  two\x07\r\n\r\nthree ", 100) == "one\r\ntwo\r\n\r\nthree"


def test_of_several_lines_those_that_fit_are_kept() -> None:
    assert clean_lines("one\ntwo\nthree", 9) == "one\r\ntwo"
    assert clean_lines("one and a half\ntwo", 9) == "one an..."


@pytest.mark.parametrize(
    "text", ["Gr\u00fc\u00dfe", "\u65e5\u672c", "\u201cquoted\u201d \u2013 so"]
)
def test_a_text_in_any_script_is_taken(text: str) -> None:
    check_template(text)
    check_line(clean(text))
