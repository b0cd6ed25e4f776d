"""DynamoDB's expressions as the simulator's stores understand them."""

from typing import Any

import pytest

from sim import expressions
from sim.expressions import ExpressionError

ITEM = {
    "n": {"N": "5"},
    "s": {"S": "abc"},
    "set": {"SS": ["a", "b"]},
    "m": {"M": {"x": {"N": "1"}}},
}
VALUES: dict[str, Any] = {
    ":five": {"N": "5.0"},
    ":six": {"N": "6"},
    ":ab": {"S": "ab"},
    ":a": {"S": "a"},
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("n = :five", True),
        ("n <> :five", False),
        ("n < :six AND n >= :five", True),
        ("missing < :six", False),
        ("NOT n < :six OR attribute_not_exists(missing)", True),
        ("attribute_exists(#s) AND begins_with(#s, :ab)", True),
        ("contains(set, :a)", True),
        ("n IN (:six, :five)", True),
        ("n BETWEEN :five AND :six", True),
        ("m.x < :five", True),
        ("(n = :six OR n = :five) AND s = :ab", False),
        ("s < :six", False),
    ],
)
def test_a_condition_holds_as_dynamodb_says(text: str, holds: bool) -> None:
    assert expressions.condition(text)(ITEM, {"#s": "s"}, VALUES) is holds


def updated(text: str, item: dict[str, Any]) -> dict[str, Any]:
    new = dict(item)
    for step in expressions.update(text):
        step(new, item, {"#n": "n"}, VALUES)
    return new


def test_an_update_computes_from_the_item_as_it_was() -> None:
    after = updated("SET #n = n + :six, other = #n, fresh = if_not_exists(fresh, :six)", ITEM)
    assert (after["n"], after["other"], after["fresh"]) == ({"N": "11"}, {"N": "5"}, {"N": "6"})


def test_an_update_adds_to_numbers_and_to_sets() -> None:
    values = {"set": {"SS": ["b", "a"]}, "n": {"N": "1.5"}}
    after = updated("ADD n :six, gone :six REMOVE set", values)
    assert after == {"n": {"N": "7.5"}, "gone": {"N": "6"}}


@pytest.mark.parametrize("text", ["n = ", "n ~ :five", "(n = :five", "n = :five n"])
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        expressions.condition(text)(ITEM, {}, VALUES)
