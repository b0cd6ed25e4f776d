"""The README's costs are what bench/cost.py prints of what was counted."""

import re
from typing import Any

import pytest

from bench.cost import AWS_ANSWERS_MS, FULL_CPU_MB, Used, Way, dollars, flood_day, read, table
from tests.unit.builders import ROOT
from tests.unit.template import resources

COUNTED, PRICES = read()


def test_the_readme_has_the_table_that_is_printed() -> None:
    assert table(COUNTED, PRICES) in (ROOT / "README.md").read_text("utf-8")


def test_the_readme_says_what_a_day_of_flood_costs() -> None:
    said = f"${flood_day(COUNTED, PRICES):.2f} a day"
    assert said in " ".join((ROOT / "README.md").read_text("utf-8").split())


def test_the_memory_that_was_counted_with_is_the_templates() -> None:
    made = {
        name: properties["MemorySize"]
        for name, properties in resources("AWS::Serverless::Function").items()
    }
    assert COUNTED.memory.items() <= made.items()


def test_the_audit_costs_at_most_two_dollars_a_million_mails() -> None:
    (row,) = (line for line in table(COUNTED, PRICES).splitlines() if "by the audit" in line)
    found = re.search(r"\$([0-9.]+) \|$", row)
    assert found
    assert float(found[1]) <= 2


def test_what_is_computed_takes_longer_with_less_memory_and_waiting_does_not() -> None:
    used = Used(wall_ms=100, cpu_ms=10)
    assert used.ms(FULL_CPU_MB) == 100
    assert used.ms(2 * FULL_CPU_MB) == 100
    assert used.ms(FULL_CPU_MB // 2) == pytest.approx(110, abs=0.1)


def test_aws_answers_in_its_own_time_and_not_in_this_machines() -> None:
    used = Used(wall_ms=100, cpu_ms=10, served_ms=50, requests={"dynamodb GetItem": 2.0})
    assert used.ms(FULL_CPU_MB) == 10 + 40 + 2 * AWS_ANSWERS_MS


ANSWER = AWS_ANSWERS_MS / 1000 * 0.5 * 13.3334
"""Waiting for it, with 512 MB, a million times."""


@pytest.mark.parametrize(
    ("used", "price"),
    [
        ({"units": {"BatchGetItem": 2.0}}, 2 * 0.125),
        ({"units": {"UpdateItem": 3.0}}, 3 * 0.625),
        ({"requests": {"sqs SendMessage": 1.0}}, 0.40 + ANSWER),
        ({"requests": {"s3 HEAD": 1.0}}, 0.40 + ANSWER),
        ({"log_bytes": 2000.0}, 1.0),
        ({"invocations": 1.0}, 0.20),
        ({"invocations": 1.0, "wall_ms": 1000.0}, 0.20 + 0.5 * 13.3334),
    ],
)
def test_a_million_of_each_kind_has_its_price(used: dict[str, Any], price: float) -> None:
    way = Way(name="a way", functions={"InboundFunction": Used(**used)})
    counted = type(COUNTED)(machine="", memory={"InboundFunction": 512}, ways=[way])
    assert dollars(counted, way, PRICES) == pytest.approx(price)


def test_a_batch_from_a_queue_is_received_and_deleted() -> None:
    way = Way(name="a way", functions={"SendFunction": Used(invocations=1.0)})
    counted = type(COUNTED)(machine="", memory={"SendFunction": 512}, ways=[way])
    assert dollars(counted, way, PRICES) == pytest.approx(0.20 + 2 * 0.40)
