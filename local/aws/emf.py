"""Metrics in log lines: CloudWatch's embedded metric format, as far as the functions write it.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple


class Datum(NamedTuple):
    namespace: str
    name: str
    dimensions: dict[str, str]
    at: float
    """Epoch seconds."""
    value: float
    unit: str


def read(log: str) -> Iterator[Datum]:
    """The metrics in a log's lines; a line that is none, or no whole one, has none."""
    for line in log.splitlines():
        if '"_aws"' not in line:
            continue
        try:
            yield from _of_line(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue


def _of_line(line: dict[str, Any]) -> list[Datum]:
    about = line["_aws"]
    found = []
    for directive in about["CloudWatchMetrics"]:
        for metric in directive["Metrics"]:
            values = line[metric["Name"]]
            for names in directive["Dimensions"]:
                dimensions = {name: str(line[name]) for name in names}
                found += [
                    Datum(
                        directive["Namespace"],
                        metric["Name"],
                        dimensions,
                        about["Timestamp"] / 1000,
                        float(value),
                        metric.get("Unit", "None"),
                    )
                    for value in (values if isinstance(values, list) else [values])
                ]
    return found
