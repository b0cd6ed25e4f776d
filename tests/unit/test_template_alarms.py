"""What is counted has a row in the runbook, and what somebody has to act on an alarm."""

import re

import pytest

from bouncer.aws.telemetry import NAMESPACE
from tests.unit.template import ALARMS, FUNCTIONS, QUEUES, ROOT, emitted_metrics, environment

OUR_ALARMS = [name for name, each in ALARMS.items() if each["Namespace"] == NAMESPACE]
RUNBOOK = (ROOT / "docs/operations.md").read_text("utf-8")


def test_every_metric_that_is_counted_has_a_row_in_the_runbook() -> None:
    assert [name for name in sorted(emitted_metrics()) if f"`{name}`" not in RUNBOOK] == []


def test_every_alarm_has_a_row_in_the_runbook_and_every_row_an_alarm() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|", RUNBOOK.partition("## Alarms")[2].partition("\n## ")[0], re.M
    )
    assert sorted(rows) == sorted(ALARMS)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_has_alarms_for_errors_throttles_and_near_time_outs(function: str) -> None:
    dimension = [{"Name": "FunctionName", "Value": {"Ref": function}}]
    watched = {e["MetricName"]: e for e in ALARMS.values() if e["Dimensions"] == dimension}
    assert {"Errors", "Throttles", "Duration"} <= set(watched)
    limit = FUNCTIONS[function]["Timeout"] * 1000
    assert watched["Duration"]["Statistic"] == "Maximum"
    assert 0.9 * limit <= watched["Duration"]["Threshold"] < limit


@pytest.mark.parametrize("queue", [name for name in QUEUES if "DeadLetter" in name])
def test_every_dead_letter_queue_has_an_alarm(queue: str) -> None:
    watched = [e for e in ALARMS.values() if queue in str(e["Dimensions"])]
    assert [e["MetricName"] for e in watched] == ["ApproximateNumberOfMessagesVisible"]


@pytest.mark.parametrize("alarm", OUR_ALARMS)
def test_an_alarm_of_ours_watches_a_metric_that_is_written(alarm: str) -> None:
    properties = ALARMS[alarm]
    assert properties["MetricName"] in emitted_metrics()
    service = environment("InboundFunction")["POWERTOOLS_SERVICE_NAME"]
    assert properties["Dimensions"] == [{"Name": "service", "Value": service}]


def test_dead_letters_age_and_given_up_bounces_have_alarms() -> None:
    watched = {
        (each["MetricName"], str(each["Dimensions"][0]["Value"])) for each in ALARMS.values()
    }
    visible = "ApproximateNumberOfMessagesVisible"
    for queue in ("BounceDeadLetterQueue", "EventDeadLetterQueue"):
        assert any(metric == visible and queue in of for metric, of in watched)
    assert any(
        metric == "ApproximateAgeOfOldestMessage" and "BounceQueue" in of for metric, of in watched
    )
    assert {"BounceExpired", "BounceRejected"} <= {metric for metric, _ in watched}
