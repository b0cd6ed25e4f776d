"""Logs Insights on this machine: understood as AWS documents it, or refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bouncer_console.facts.insights import literal
from local.aws.insights import FIELDS_DISCOVERED, Line, QueryError, parse


def line(at: int, text: str = "", **fields: Any) -> Line:
    return Line(at=at, text=text or json.dumps(fields), log="group", stream="stream")


MAILS = [
    line(1, message="mail", sender="a@x", size=10, to=[{"who": "u", "what": "bounce"}]),
    line(2, message="mail", sender="b@x", size=9, to=[{"who": "v", "what": "accept"}]),
    line(3, message="mail", sender="a@x", size=None, to=[{"who": "w", "what": "bounce"}]),
    line(4, text="START RequestId: 1"),
    line(5, text='2026 INFO {"message": "other", "sender": "c@x"} and more'),
]


def rows(query: str, limit: int = 10_000) -> list[dict[str, str]]:
    return parse(query).run(MAILS, limit)[0]


def senders(condition: str) -> str:
    found = rows(f"fields sender | filter {condition} | sort @timestamp asc")
    return " ".join(each.get("sender", "-") for each in found)


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ('message = "mail"', "a@x b@x a@x"),
        ("message = 'mail' and size > 9", "a@x"),
        ("size != 10", "b@x"),
        ("to.0.what = 'bounce' or sender = \"c@x\"", "a@x a@x c@x"),
        ("not (to.0.what = 'bounce') and message like /^mail$/", "b@x"),
        ("@message like /(?i)start|INFO/", "- c@x"),
        ('@message like "and more"', "c@x"),
        ("@message not like /mail/", "- c@x"),
        ('sender in ["b@x", "c@x"] # who they are\n', "b@x c@x"),
        ("`sender` = 'b@x'", "b@x"),
    ],
)
def test_a_condition_finds_what_it_says(condition: str, found: str) -> None:
    assert senders(condition) == found


def test_the_newest_come_first_unless_somebody_says_otherwise() -> None:
    assert [each["@message"] for each in rows("filter size > 0")] == [
        MAILS[1].text,
        MAILS[0].text,
    ]
    assert [each["size"] for each in rows("fields size | filter size > 0 | sort size asc")] == [
        "9",
        "10",
    ]


def test_lines_are_counted_by_a_field() -> None:
    asked = (
        "filter message = 'mail' | stats count(*) as mails by to.0.what as end | sort mails desc"
    )
    assert rows(asked) == [{"end": "bounce", "mails": "2"}, {"end": "accept", "mails": "1"}]
    assert rows(f"{asked} | limit 1") == [{"end": "bounce", "mails": "2"}]
    assert rows("stats count(*)") == [{"count(*)": "5"}]


def test_a_limit_says_how_many_there_would_be() -> None:
    found, matched = parse("filter message = 'mail' | limit 2").run(MAILS, 1)
    assert (len(found), matched) == (1, 3)


def test_of_a_large_line_only_the_first_fields_are_known() -> None:
    fields: dict[str, Any] = {f"f{n}": n for n in range(FIELDS_DISCOVERED + 1)}
    wide = line(1, **fields)
    for name, number in ((f"f{FIELDS_DISCOVERED - 1}", 1), (f"f{FIELDS_DISCOVERED}", 0)):
        assert parse(f"filter {name} >= 0").run([wide], 10)[1] == number


@pytest.mark.parametrize(
    "query",
    ["", "pattern @message", "filter", "filter sender", "filter sender ~ 1", "sort", "limit many",
     "filter strcontains(sender, 'x')", "stats avg(size)", "stats count(*) | filter a = 1",
     "fields @message limit 1", "filter @message like /(/", "fields 'a'", "filter a = 'b"],
)  # fmt: skip
def test_what_is_not_understood_is_refused(query: str) -> None:
    with pytest.raises(QueryError):
        parse(query)


@given(st.text(min_size=1, max_size=30))
def test_a_pattern_of_the_console_finds_its_text_and_breaks_no_query(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    written = json.dumps({"who": text}, ensure_ascii=False)
    query = parse(f"fields who\n| filter @message like /{literal(text)}/\n| sort @timestamp desc")
    found, _ = query.run([line(1, written)], 10)
    assert found == [{"who": text, "@timestamp": "1970-01-01 00:00:00.001"}]
