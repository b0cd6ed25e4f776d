"""The deployed dashboard and policy, against what was counted and logged on AWS on this machine."""

import json
import re
import time
from typing import Any

import httpx
import pytest

from bouncer.aws.telemetry import NAMESPACE
from bouncer.policy.load import load
from bouncer_console.deployment import Deployment
from bouncer_console.policy_in_force import policy_in_force
from local import dashboard
from local.demo import until
from local.stack import STACK
from tests.e2e.conftest import Site


@pytest.fixture(scope="module")
def body(site: Site) -> dict[str, Any]:
    name = site.physical_id("Dashboard")
    found: dict[str, Any] = json.loads(
        site.client("cloudwatch").get_dashboard(DashboardName=name)["DashboardBody"]
    )
    return found


def _metrics(body: dict[str, Any]) -> list[list[Any]]:
    return [
        each
        for widget in body["widgets"]
        for each in widget["properties"].get("metrics", ())
        if isinstance(each[0], str)
    ]


def test_everything_in_it_is_filled_in(site: Site, body: dict[str, Any]) -> None:
    assert "${" not in json.dumps(body).replace("${PROP", "")
    assert site.outputs["Dashboard"].endswith(site.physical_id("Dashboard"))
    functions = {each[3] for each in _metrics(body) if each[0] == "AWS/Lambda"}
    expected = {
        site.physical_id(f"{name}Function") for name in ("Inbound", "Send", "Audit", "Usage")
    }
    assert functions == expected


def test_what_a_mail_counts_is_found_by_the_dashboards_names(
    site: Site, body: dict[str, Any]
) -> None:
    for recipients in (["alice@example.com"], ["nobody@example.com"]):
        site.decided(site.mail(*recipients))
    cloudwatch = site.client("cloudwatch")

    def written() -> set[tuple[str, str, frozenset[tuple[str, str]]]] | None:
        found = {
            (
                each["Namespace"],
                each["MetricName"],
                frozenset((d["Name"], d["Value"]) for d in each["Dimensions"]),
            )
            for page in cloudwatch.get_paginator("list_metrics").paginate()
            for each in page["Metrics"]
        }
        names = {name for _, name, _ in found}
        return found if {"RecipientAccepted", "BounceSent", "Duration"} <= names else None

    found = until(written, "nothing was counted")
    shown = {(each[0], each[1], frozenset([(each[2], each[3])])) for each in _metrics(body)}
    # Whatever is counted without a reason, and is not there to be switched off, is shown; so the
    # names and dimensions of both are the same.
    ours = {each for each in found if each[0] == NAMESPACE and len(each[2]) == 1}
    assert {name for _, name, _ in ours & shown} >= {"RecipientAccepted", "BounceSent"}
    assert {of for _, _, of in ours} == {frozenset([("service", "ses-bouncer")])}
    by_dimension = {frozenset(name for name, _ in of) for ns, _, of in found if ns == NAMESPACE}
    searched = {
        frozenset(each.split(",")[1:])
        for each in re.findall(r"SEARCH\('\{([\w,]+)\}", json.dumps(body))
    }
    assert searched <= by_dimension
    inbound = site.physical_id("InboundFunction")
    assert ("AWS/Lambda", "Errors", frozenset([("FunctionName", inbound)])) in found & shown


def test_the_tables_show_who_was_refused(site: Site, body: dict[str, Any]) -> None:
    line = site.decided(site.mail("nobody@example.com"))
    recipients = line.pop("recipients")
    fields = {*line, *(f"recipients.0.{name}" for name in recipients[0])}
    assert set(dashboard.FIELDS) <= fields
    logs, now = site.client("logs"), int(time.time())
    for widget in (each["properties"] for each in body["widgets"] if each["type"] == "log"):
        source, _, query = widget["query"].partition(" | ")
        group = re.fullmatch("SOURCE '(.+)'", source)
        assert group is not None
        query_id = logs.start_query(
            logGroupName=group[1], startTime=now - 3600, endTime=now + 60, queryString=query
        )["queryId"]

        def answered(query_id: str = query_id) -> list[Any] | None:
            answer = logs.get_query_results(queryId=query_id)
            return answer["results"] if answer["status"] == "Complete" else None

        rows = [
            {each["field"]: each["value"] for each in row}
            for row in until(answered, "the query did not end")
        ]
        refused = {
            **{name: line[name] for name in ("sender", "sender_domain")},
            "recipient": "nobody@example.com",
        }
        name = next(each for each in rows[0] if each != "mails")
        assert {row[name]: int(row["mails"]) for row in rows}[refused[name]] >= 1


def test_the_policy_in_force_is_read_and_is_the_one_that_decides(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in site.aws.environment().items():
        monkeypatch.setenv(name, value)
    force = policy_in_force(Deployment.find(STACK, None))
    assert force.sure
    line = site.decided(site.mail("alice@example.com"))
    assert line["policy"] == load(force.text).digest
    location = site.client("lambda").get_function(FunctionName=site.outputs["InboundFunction"])[
        "Code"
    ]["Location"]
    for wrong in (location.replace("Inbound", "Send"), location[:-1], location.partition("?")[0]):
        assert httpx.get(wrong, trust_env=False).status_code == 403
