"""Log lines in any number, each once and the newest first, whatever a query's limits are."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bouncer_console.facts.insights import DOLLARS_A_GIGABYTE, InsightsError, Log, literal
from tests.fakes.logs import FakeLogs

START = datetime(2026, 11, 30, 12, tzinfo=UTC)
END = START + timedelta(minutes=2)


def log(client: Any, **options: Any) -> Log:
    return Log(client, ["/aws/lambda/in"], sleep=lambda _: None, **options)


def texts(reader: Log, since: datetime = START, until: datetime = END) -> list[str]:
    return [each.text for each in reader.lines([], since, until)]


@given(
    milliseconds=st.lists(st.integers(-2000, 122_000), max_size=60),
    rows=st.integers(3, 20),
    page=st.integers(1, 20),
    whole_last_second=st.booleans(),
    enough=st.none() | st.integers(1, 30),
)
def test_every_line_of_the_time_comes_once_and_the_newest_first(
    milliseconds: list[int], rows: int, page: int, whole_last_second: bool, enough: int | None
) -> None:
    client = FakeLogs(rows=rows, page=page, whole_last_second=whole_last_second)
    for number, each in enumerate(milliseconds):
        client.add(START + timedelta(milliseconds=each), str(number))
    reader = log(client)
    found = list(reader.lines([], START, END, enough=enough))
    wanted = {str(n) for n, each in enumerate(milliseconds) if 0 <= each < 120_000}
    assert len({each.text for each in found}) == len(found)
    assert [each.at for each in found] == sorted((each.at for each in found), reverse=True)
    if reader.cost.cut:  # more in one second than a query gives
        assert {each.text for each in found} <= wanted
    else:
        assert {each.text for each in found} == wanted
    fullest = max((milliseconds.count(each) for each in milliseconds), default=0)
    if enough is None and rows >= 20 and fullest < 3 and len(milliseconds) <= rows:
        assert reader.cost.queries == 1


def test_a_second_with_more_lines_than_a_query_gives_is_said_to_be_cut() -> None:
    client = FakeLogs(rows=5)
    for _ in range(9):
        client.add(START + timedelta(seconds=7), "a flood")
    reader = log(client)
    assert len(texts(reader)) == 5
    assert reader.cost.cut


def test_a_large_answer_is_not_asked_for_more_often_than_it_takes() -> None:
    client = FakeLogs(rows=1000)
    for number in range(10_000):
        client.add(START + timedelta(milliseconds=number * 12), str(number))
    reader = log(client)
    assert len(texts(reader)) == 10_000
    assert reader.cost.queries <= 20
    assert not reader.cost.cut


def test_who_wants_the_newest_only_is_not_given_a_day() -> None:
    client = FakeLogs()
    for number in range(5000):
        client.add(START + timedelta(milliseconds=number * 20), str(number))
    lines = log(client).lines([], START, END, enough=50)
    assert [next(lines).text for _ in range(50)] == [str(n) for n in range(4999, 4949, -1)]
    assert [each["limit"] for each in client.started] == [50, 200]


def test_what_was_scanned_is_counted_and_has_a_price() -> None:
    client = FakeLogs(looks=3)
    client.add(START, "x" * 1000)
    client.add(START, "y" * 1000)
    reader = log(client)
    assert [each.text for each in reader.lines(["x{5}"], START, END)] == ["x" * 1000]
    assert reader.cost.bytes_scanned == 2000
    assert reader.cost.dollars == pytest.approx(2000 / 1e9 * DOLLARS_A_GIGABYTE)


def test_only_the_count_is_asked_for_where_it_is_enough() -> None:
    client = FakeLogs()
    for _ in range(7):
        client.add(START, "a mail")
    assert log(client).count(["mail"], START, END) == 7
    assert client.started[0]["limit"] == 1


def test_an_account_that_runs_too_many_queries_is_asked_again() -> None:
    client: Any = FakeLogs()
    client.add(START, "a line")
    client.refuse = 3
    waits: list[float] = []
    reader = Log(client, ["in"], sleep=waits.append)
    assert texts(reader) == ["a line"]
    assert waits[:3] == [1, 2, 4]


def test_it_is_told_how_far_the_reading_is() -> None:
    client = FakeLogs(rows=10)
    for number in range(120):
        client.add(START + timedelta(seconds=number), str(number))
    heard: list[float] = []
    list(log(client).lines([], START, END, heard.append))
    assert heard == sorted(heard)
    assert heard[-1] == 1
    assert len(heard) > 10


@pytest.mark.parametrize("status", ["Failed", "Cancelled", "Timeout"])
def test_a_query_that_fails_is_an_error_and_is_not_left_running(status: str) -> None:
    client = FakeLogs()
    client.ends_as = status
    with pytest.raises(InsightsError, match=status):
        texts(log(client))
    assert client.stopped == ["query-0"]


def test_who_has_seen_enough_pays_for_no_more_queries() -> None:
    client = FakeLogs(rows=10)
    for number in range(120):
        client.add(START + timedelta(seconds=number), str(number))
    lines = log(client).lines([], START, END)
    next(lines)
    assert len(client.started) == 1


@given(
    text=st.text(max_size=40),
    around=st.tuples(st.text(max_size=5), st.text(max_size=5)),
    other=st.text(max_size=40),
)
def test_a_literal_matches_its_text_in_a_line_and_no_other(
    text: str, around: tuple[str, str], other: str
) -> None:
    pattern = literal(text)
    line = json.dumps({"sender": around[0] + text + around[1]}, ensure_ascii=False)
    assert re.search(pattern, line)
    if text not in other:
        assert not re.fullmatch(pattern, json.dumps(other, ensure_ascii=False)[1:-1])


@given(st.text())
def test_a_literal_never_ends_the_pattern_or_the_query(text: str) -> None:
    pattern = literal(text)
    assert "\n" not in pattern
    assert not re.search(r"(?<!\\)(?:\\\\)*[/|]", pattern)
