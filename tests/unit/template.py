"""template.yaml as its tests read it."""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bouncer.aws.telemetry import BY_OUTCOME, BY_STATE, DOMAIN_UNKNOWN, FOUND, SENDER_NOT_TOLD
from bouncer.delivery.fate import Incident

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "template.yaml"
type Properties = dict[str, Any]


class _Loader(yaml.CSafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """YAML with CloudFormation's short tags, spelled out as its JSON has them."""


def _tag(loader: Any, suffix: str, node: Any) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    else:
        value = loader.construct_sequence(node, deep=True)
    return {name: value}


_Loader.add_multi_constructor("!", _tag)


@cache
def template() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(TEMPLATE.read_text("utf-8"), _Loader)  # noqa: S506  (a safe one)
    return loaded


def resources(kind: str) -> dict[str, Properties]:
    """The properties of every resource of a type, by its logical id."""
    return {
        name: resource.get("Properties", {})
        for name, resource in template()["Resources"].items()
        if resource["Type"] == kind
    }


FUNCTIONS = resources("AWS::Serverless::Function")
QUEUES = resources("AWS::SQS::Queue")
PARAMETERS: dict[str, Properties] = template()["Parameters"]
MAPPING: Properties = FUNCTIONS["SendFunction"]["Events"]["Queued"]["Properties"]


def walk(value: Any) -> Iterator[Any]:
    """A value and everything in it."""
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from walk(each)


SHARED: dict[str, Any] = template()["Globals"]["Function"]["Environment"]["Variables"]


def own_environment(function: str) -> dict[str, Any]:
    own: dict[str, Any] = FUNCTIONS[function].get("Environment", {}).get("Variables", {})
    return own


def environment(function: str) -> dict[str, Any]:
    return SHARED | own_environment(function)


def branches(value: Any) -> Iterator[Any]:
    """What a value may be, whichever way its conditions come out."""
    if isinstance(value, dict) and set(value) == {"Fn::If"}:
        for branch in value["Fn::If"][1:]:
            yield from branches(branch)
    elif value != {"Ref": "AWS::NoValue"}:
        yield value


def evaluate(expression: Any, given: dict[str, Any]) -> Any:
    """What CloudFormation makes of a condition, with these parameters and the others' defaults."""
    if not isinstance(expression, dict):
        return expression
    ((function, argument),) = expression.items()
    if function == "Ref":
        return given.get(argument, PARAMETERS[argument].get("Default"))
    if function == "Condition":
        return evaluate(template()["Conditions"][argument], given)
    values = [evaluate(each, given) for each in argument]
    combine: dict[str, Callable[[], bool]] = {
        "Fn::Equals": lambda: values[0] == values[1],
        "Fn::Not": lambda: not values[0],
        "Fn::And": lambda: all(values),
        "Fn::Or": lambda: any(values),
        "Fn::EachMemberEquals": lambda: set(str(values[0]).split(",")) == {values[1]},
    }
    return combine[function]()


def deployable(given: dict[str, Any]) -> bool:
    """Whether the template's rules let a stack with these parameters be made."""
    return all(
        evaluate(assertion["Assert"], given)
        for rule in template()["Rules"].values()
        if evaluate(rule["RuleCondition"], given)
        for assertion in rule["Assertions"]
    )


def statements_on(table: str) -> list[dict[str, Any]]:
    itself = ({"Fn::GetAtt": [table, "Arn"]}, {"Ref": table})
    holders = resources("AWS::IAM::Role") | resources("AWS::IAM::ManagedPolicy")
    return [
        each
        for holder in holders.values()
        for each in walk(holder)
        if isinstance(each, dict)
        and "Resource" in each
        and any(part in itself for part in walk(each["Resource"]))
    ]


ALARMS = resources("AWS::CloudWatch::Alarm")


@cache
def emitted_metrics() -> frozenset[str]:
    """Every metric that the code counts: by name, or by a table of names."""
    names = {*BY_STATE.values(), *BY_OUTCOME.values(), *map(str, Incident)}
    names |= {DOMAIN_UNKNOWN, FOUND, SENDER_NOT_TOLD}
    for path in [*(ROOT / "layers/bouncer/bouncer").rglob("*.py"), *ROOT.glob("functions/*/*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="count" | "warn"),
                    args=[ast.Constant(value=str(name)), *_],
                ) if name[:1].isupper() and name != "Received":  # a header
                    names.add(name)
    return frozenset(names)
