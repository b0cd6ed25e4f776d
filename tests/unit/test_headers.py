"""Header fields as real and hostile mail writes them."""

import email.parser
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bouncer.headers import (
    BLOCK_LIMIT,
    Header,
    bounded,
    decoded,
    keyword,
    keywords,
    mentioned_addresses,
    named_addresses,
    read_block,
    without_comments,
)


def fields(data: bytes) -> list[tuple[str, str]]:
    return [(each.name, each.value) for each in read_block(data).headers]


# --- The block -------------------------------------------------------------------------------

AUTOMATIC = ("Auto-Submitted", "auto-replied")


@pytest.mark.parametrize(
    "before",
    [
        b"this is no field\r\n",
        b"no field\r\n with a continuation: of it\r\n",
        b"X-Foo : bar\r\n",
        "Stra\u00dfe: 8 bit\r\n".encode("latin-1"),
        "X-Gr\u00fc\u00dfe: 8 bit\r\n".encode(),
        b"Subject: two ends of a line\r\r\n",
        b"Subject: a bare CR\r",
        b"Subject: a bare LF\n",
        b"From pat@sender.example Sat Nov 21 09:00:00 2026\r\n",
        b">From pat@sender.example Sat Nov 21 09:00:00 2026\r\n",
        b">From: pat@sender.example\r\n",
        b": no name\r\n",
        b"Subject:\r\n",
        b"Subject: folded\r\n\tover\r\n \r\n lines\r\n",
        b"Subject: \x00\xff\xfe\r\n",
        b"Received: \x0b\x0c\x1c\x1d\x85 from x\r\n",
        b"\xef\xbb\xbfReceived: from x\r\n",
    ],
    ids=lambda each: ascii(each)[2:40],
)
def test_whatever_stands_above_it_a_field_is_read(before: bytes) -> None:
    block = read_block(before + b"Auto-Submitted: auto-replied\r\nList-Id: <x>\r\n\r\nX-Body: no")
    found = [(each.name, each.value) for each in block.headers]
    assert found[-2:] == [AUTOMATIC, ("List-Id", "<x>")]
    assert block.whole


def test_white_space_before_the_colon_is_no_part_of_the_name() -> None:
    assert fields(b"Auto-Submitted \t: auto-replied\r\n\r\n") == [AUTOMATIC]


def test_a_folded_value_is_one_line() -> None:
    assert fields(b"Subject: one\r\n  two\r\n\tthree\r\n\r\n") == [("Subject", "one two three")]


def test_after_a_bare_cr_stands_a_field_or_more_of_the_value() -> None:
    assert fields(b"Subject: a\rAuto-Submitted: auto-replied\r\n\r\n") == [
        ("Subject", "a"),
        AUTOMATIC,
    ]
    assert fields(b"Auto-Submitted:\rauto-replied\r\n\r\n") == [AUTOMATIC]


def test_lines_that_all_end_in_cr_cr_lf_are_a_block() -> None:
    data = b"Subject: a\r\r\nAuto-Submitted: auto-replied\r\r\n\r\r\nX-Body: no\r\r\n"
    assert fields(data) == [("Subject", "a"), AUTOMATIC]


def test_raw_8_bit_is_text() -> None:
    assert fields("Subject: Gr\u00fc\u00dfe\r\n\r\n".encode()) == [("Subject", "Gr\u00fc\u00dfe")]
    latin = "Subject: Gr\u00fc\u00dfe\r\n\r\n".encode("latin-1")
    assert fields(latin) == [("Subject", "Gr\u00fc\u00dfe")]


def test_a_mail_that_begins_with_a_blank_line_has_no_headers() -> None:
    assert fields(b"\r\nAuto-Submitted: auto-replied\r\n") == []


@pytest.mark.parametrize(
    ("data", "to_the_end", "whole"),
    [
        (b"Subject: a\r\n\r\nbody", False, True),
        (b"Subject: a\r\n", True, True),
        (b"Subject: a\r\n", False, False),
        (b"Subject: " + b"a" * BLOCK_LIMIT + b"\r\n\r\n", True, False),
    ],
    ids=["blank line", "ends", "goes on", "too long"],
)
def test_a_block_says_whether_it_is_whole(data: bytes, to_the_end: bool, whole: bool) -> None:
    assert read_block(data, to_the_end=to_the_end).whole is whole


names = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)
values = st.text(st.characters(codec="ascii", exclude_characters="\r\n\t \x0b\x0c\x00"), min_size=1)


@given(st.lists(st.tuples(names, values), min_size=1))
def test_a_correct_block_is_read_as_the_standard_library_reads_it(
    pairs: list[tuple[str, str]],
) -> None:
    data = "".join(f"{name}: {value}\r\n" for name, value in pairs).encode() + b"\r\nbody"
    parsed = email.parser.BytesHeaderParser(policy=email.policy.compat32).parsebytes(data)
    expected = [(name, str(value)) for name, value in parsed.items()]
    control = any(ord(c) < 32 or ord(c) == 127 for _, value in pairs for c in value)
    assert fields(data) == expected or control  # where it breaks lines at more than CR and LF


hostile = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"\r\n", b":", b" ", b"\t", b"A", b"Auto-Submitted", b"\xff", b"(", b">"]
    )
    | st.binary(max_size=4)
).map(b"".join)


@given(hostile)
def test_any_bytes_are_a_block_of_fields_in_one_line_each(data: bytes) -> None:
    for name, value in fields(data):
        assert name
        assert not {"\r", "\n"} & {*name, *value}


@given(hostile, hostile)
def test_a_field_at_the_beginning_of_a_line_is_never_hidden(before: bytes, after: bytes) -> None:
    data = before + b"\nAuto-Submitted: auto-replied\n" + after
    ended = read_block(before + b"\n", to_the_end=False).whole  # a blank line above it
    assert ended or AUTOMATIC[0] in [name for name, _ in fields(data)]


def test_headers_of_an_event_are_unfolded_and_bounded() -> None:
    folded = bounded([Header("Subject ", "one\r\n\ttwo")])
    assert folded.headers == (Header("Subject", "one two"),)
    assert folded.whole
    long = bounded([Header("A", "x"), Header("B", "x" * BLOCK_LIMIT), Header("C", "x")])
    assert long.headers == (Header("A", "x"),)
    assert not long.whole


# --- Values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "Gr\u00fc\u00dfe"),
        ("=?UTF-8?B?R3LDvMOfZQ==?=", "Gr\u00fc\u00dfe"),
        ("=?utf-8?B?R3LDvMOfZQ?=", "Gr\u00fc\u00dfe"),
        ("=?iso-8859-1?q?Gr=FC=DFe_an_alle?= zusammen", "Gr\u00fc\u00dfe an alle zusammen"),
        ("=?utf-8?q?Ihre?= =?utf-8?q?_Rechnung?=", "Ihre Rechnung"),
        ("=?utf-8?b?w7w=?=\t =?utf-8?b?w7w=?=", "\u00fc\u00fc"),
        ("=?utf-8?b?ww==?= =?utf-8?b?vA==?=", "\u00fc"),
        ("=?utf-8?q?a?= and =?utf-8?q?b?=", "a and b"),
        ("=?utf-8*de?q?Gr=C3=BC=C3=9Fe?=", "Gr\u00fc\u00dfe"),
        ("=?no-such-set?q?abc?=", "abc"),
        ("=?punycode?q?abc?=", "abc"),
        ("=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
        ("=?utf-8?b?a?=", "=?utf-8?b?a?="),
        ("=?", "=?"),
    ],
)
def test_encoded_words_are_text(value: str, text: str) -> None:
    assert decoded(value) == text


@given(st.text() | st.lists(st.sampled_from(["=?", "?=", "?q?", "?b?", "utf-7", "+2AA-", "="])))
def test_any_value_decodes_to_text_without_half_characters(value: str | list[str]) -> None:
    decoded(value if isinstance(value, str) else "".join(value)).encode("utf-8", "strict")


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("no", "no"),
        ("(comment) no", "no"),
        ("no (comment (nested)) ; x=y", "no"),
        ("(a;b) auto-replied; owner=x", "auto-replied"),
        ("Multipart / Report; report-type=x", "multipart/report"),
        ('"multipart/report"', "multipart/report"),
        ("(never closed no", ""),
        ("no )", "no)"),
        ("", ""),
    ],
)
def test_a_keyword_stands_between_comments_and_before_parameters(value: str, word: str) -> None:
    assert keyword(value) == word


@pytest.mark.parametrize(
    "value", ["OOF; NDR", "All;", ";;NDR", "ndr,oof", " OOF NDR ", "(x) NDR (y)", 'OOF,"NDR"']
)
def test_a_list_is_read_however_it_is_separated(value: str) -> None:
    assert keywords(value) & {"ndr", "all"}


def test_comments_are_taken_out_however_deep() -> None:
    assert without_comments("(" * 100_000 + ")" * 100_000 + "x").strip() == "x"
    assert without_comments(r"a (\) still) b").split() == ["a", "b"]
    assert without_comments('"(no comment)" x') == '"(no comment)" x'


# --- Addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("pat@sender.example", ["pat@sender.example"]),
        ("Pat <pat@sender.example>", ["pat@sender.example"]),
        ("Doe, Pat <pat@sender.example>", ["pat@sender.example"]),
        ('"Doe, Pat" <pat@sender.example>, b@x.example', ["pat@sender.example", "b@x.example"]),
        ("pat@sender.example (Pat (the one))", ["pat@sender.example"]),
        ('"a@b.example" <pat@sender.example>', ["pat@sender.example"]),
        ("Team: a@x.example, b@x.example;", ["a@x.example", "b@x.example"]),
        ("<@relay.example:pat@sender.example>", ["pat@sender.example"]),
        ("<a@x.example> <b@x.example>", ["a@x.example", "b@x.example"]),
        ("MAILER-DAEMON", ["MAILER-DAEMON"]),
        ("MAILER-DAEMON (Mail Delivery System)", ["MAILER-DAEMON"]),
        ("<>", [""]),
        ("Mail System <>", [""]),
        ('"a b"@x.example', ["a b@x.example"]),
        ("Pat <pat@sender.example", ["pat@sender.example"]),
        ('"', []),
        ("", []),
        (",,;", []),
    ],
)
def test_the_addresses_of_a_field(value: str, addresses: list[str]) -> None:
    assert [each.address for each in named_addresses(value)] == addresses


def test_an_address_has_its_name() -> None:
    (only,) = named_addresses('"Mail Delivery \\"System\\"" <x@y.example>')
    assert only.name == 'Mail Delivery "System"'


@given(st.text() | st.lists(st.sampled_from([*'()<>",;:\\@ a', "a@b.example"])))
def test_any_value_has_addresses_or_none(value: str | list[str]) -> None:
    text = value if isinstance(value, str) else "".join(value)
    assert all(isinstance(each.address, str) for each in named_addresses(text))
    assert all("@" in each for each in mentioned_addresses(text))


@pytest.mark.parametrize(
    "value",
    [
        '"victim@sender.example" <a@evil.example>',
        "victim@sender.example (a@evil.example)",
        "<victim@sender.example> ( <a@evil.example> (x))",
        "=?utf-8?q?a=40evil.example?= <victim@sender.example>",
    ],
)
def test_an_address_is_mentioned_wherever_it_stands(value: str) -> None:
    assert mentioned_addresses(value) == {"victim@sender.example", "a@evil.example"}


def test_what_was_not_read_of_a_long_field_is_mentioned() -> None:
    assert mentioned_addresses("a@b.example" + " " * 30_000 + "c@d.example") == {
        "a@b.example",
        "?",
    }
    assert mentioned_addresses("a" * 400 + "@b.example") == {"?"}
