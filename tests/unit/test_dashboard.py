"""The dashboard shows what the code writes, and nothing else."""

import json
import re
from typing import Any

import pytest

from bouncer.aws.telemetry import BY_OUTCOME, BY_STATE, NAMESPACE
from local import dashboard
from local.aws.insights import parse
from tests.unit.template import (
    FUNCTIONS,
    PARAMETERS,
    QUEUES,
    emitted_metrics,
    resources,
    template,
)

_PLACE = re.compile(r"\$\{(?!!)([^}]+)\}")


def _properties() -> tuple[str, dict[str, Any]]:
    """The body's text and its pieces, as the template has them."""
    text, pieces = resources("AWS::CloudWatch::Dashboard")["Dashboard"]["DashboardBody"]["Fn::Sub"]
    return text, pieces


def _filled(piece: str) -> dict[str, Any]:
    """The body as CloudFormation makes it, with every piece, or with none."""
    text, pieces = _properties()
    for name, value in pieces.items():
        _, there, otherwise = value["Fn::If"]
        filling = there["Fn::Sub"] if piece == "all" else otherwise
        text = text.replace(f"${{{name}}}", filling)
    body: dict[str, Any] = json.loads(text)
    return body


BODY = _filled("all")
WIDGETS = BODY["widgets"]
METRICS = [
    each
    for widget in WIDGETS
    for each in widget["properties"].get("metrics", ())
    if isinstance(each[0], str)
]
EXPRESSIONS = [
    each[0]["expression"]
    for widget in WIDGETS
    for each in widget["properties"].get("metrics", ())
    if isinstance(each[0], dict)
]
QUERIES = {
    widget["properties"]["title"]: widget["properties"]["query"]
    for widget in WIDGETS
    if widget["type"] == "log"
}


def test_the_template_has_the_page_as_it_is_described() -> None:
    assert _properties()[0] == dashboard.text(), "`make dashboard` writes it"


@pytest.mark.parametrize("pieces", ["all", "none"])
def test_the_body_is_json_whatever_is_deployed(pieces: str) -> None:
    body = _filled(pieces)
    assert len(body["widgets"]) == len(WIDGETS)
    # CloudWatch takes 500 metrics a graph; a body has no more than a megabyte.
    assert len(json.dumps(body)) < 50_000


def test_widgets_are_named_and_overlap_nowhere() -> None:
    taken: set[tuple[int, int]] = set()
    for each in WIDGETS:
        cells = {
            (x, y)
            for x in range(each["x"], each["x"] + each["width"])
            for y in range(each["y"], each["y"] + each["height"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    titles = [each["properties"]["title"] for each in WIDGETS]
    assert len(titles) == len(set(titles))


def test_every_metric_of_ours_is_one_that_the_code_counts() -> None:
    ours = [each for each in METRICS if each[0] == NAMESPACE]
    assert ours
    for _, name, dimension, value, *_ in ours:
        assert name in emitted_metrics()
        assert (dimension, value) == ("service", "${AWS::StackName}")


def test_every_search_is_for_a_metric_and_dimensions_that_are_written() -> None:
    searches = [each for each in EXPRESSIONS if each.startswith("SEARCH")]
    assert searches
    for each in searches:
        found = re.fullmatch(
            r"SEARCH\('\{SesBouncer,service,Reason(,BounceType)?\} "
            r"service=\"\$\{AWS::StackName\}\" MetricName=\"(\w+)\"', 'Sum', 300\)",
            each,
        )
        assert found is not None, each
        assert found[2] in emitted_metrics()


def test_every_fate_of_a_bounce_and_every_outcome_is_shown() -> None:
    shown = {each[1] for each in METRICS}
    assert {*BY_STATE.values(), *BY_OUTCOME.values()} <= shown


@pytest.mark.parametrize("metric", ["Errors", "Throttles", "Duration"])
def test_every_function_is_shown(metric: str) -> None:
    shown = {each[3] for each in METRICS if each[:2] == ["AWS/Lambda", metric]}
    assert shown == {f"${{{name}}}" for name in FUNCTIONS}


def test_every_dead_letter_queue_is_shown() -> None:
    shown = {each[3] for each in METRICS if each[0] == "AWS/SQS"}
    dead = {f"${{{name}.QueueName}}" for name in QUEUES if "DeadLetter" in name}
    assert dead < shown
    assert shown - dead == {"${BounceQueue.QueueName}"}


def test_every_place_is_filled_by_something_that_there_is() -> None:
    known = {*PARAMETERS, *template()["Resources"], "AWS::StackName", "AWS::Region"}
    for place in _PLACE.findall(json.dumps(BODY)):
        assert place.partition(".")[0] in known


def test_what_is_there_under_a_condition_is_shown_under_the_same() -> None:
    for name, value in _properties()[1].items():
        condition, there, otherwise = value["Fn::If"]
        (resource,) = _PLACE.findall(there["Fn::Sub"])
        of = template()["Resources"][resource.partition(".")[0]]
        assert (of["Condition"], otherwise) == (condition, ""), name


@pytest.mark.parametrize("title", QUERIES)
def test_a_query_reads_fields_that_are_declared(title: str) -> None:
    """Every other word is the language's: this AWS refuses what it does not know."""
    source, _, query = QUERIES[title].partition(" | ")
    assert source == "SOURCE '${InboundLogGroup}'"
    assert parse(query).counted == "mails"
    words = re.sub(r"/[^/]*/|\"[^\"]*\"|\bas \w+", "", query)
    language = {"filter", "and", "like", "stats", "count", "by", "sort", "desc", "limit"}
    known = {*language, *dashboard.FIELDS, "@message", "mails"}
    assert set(re.findall(r"[@A-Za-z_][\w.]*", words)) <= known
