"""What template.yaml says and what the code reads are the same facts."""

import ast
import json
import re
from collections.abc import Callable

import msgspec
import pytest

from bouncer.policy.file import validator_schema
from bouncer.settings import (
    AuditSettings,
    InboundSettings,
    RulesSettings,
    SendSettings,
    UsageSettings,
)
from tests.unit.template import (
    FUNCTIONS,
    PARAMETERS,
    ROOT,
    SHARED,
    TEMPLATE,
    environment,
    own_environment,
    resources,
    template,
    walk,
)

SETTINGS: dict[str, type[msgspec.Struct]] = {
    "InboundFunction": InboundSettings,
    "AuditFunction": AuditSettings,
    "SendFunction": SendSettings,
    "UsageFunction": UsageSettings,
    "RulesFunction": RulesSettings,
}
NOT_OURS = re.compile(r"POWERTOOLS_.*|AWS_ENDPOINT_URL")
FROM_LAMBDA = {"AWS_REGION"}
"""Lambda sets these itself: docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html"""


def test_every_function_has_its_settings() -> None:
    assert set(SETTINGS) == set(FUNCTIONS)


def read_by(function: str) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(SETTINGS[function])} - FROM_LAMBDA


@pytest.mark.parametrize("function", SETTINGS)
def test_a_functions_own_environment_is_what_its_settings_read(function: str) -> None:
    shared = {name for name in SHARED if not NOT_OURS.fullmatch(name)}
    assert set(own_environment(function)) == read_by(function) - shared


@pytest.mark.parametrize("name", [name for name in SHARED if not NOT_OURS.fullmatch(name)])
def test_what_every_function_is_told_is_read_by_several(name: str) -> None:
    assert sum(name in read_by(function) for function in SETTINGS) > 1


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_function_sets_what_lambda_sets_itself(function: str) -> None:
    assert not FROM_LAMBDA & set(environment(function))


@pytest.mark.parametrize(
    ("parameter", "field"),
    [
        ("SendIntervalSeconds", "send_interval_seconds"),
        ("WaitBudgetSeconds", "wait_budget_seconds"),
        ("WindowMarginSeconds", "window_margin_seconds"),
        ("LedgerRetentionDays", "ledger_retention_days"),
        ("LogAddresses", "log_addresses"),
    ],
)
def test_a_parameters_default_is_the_settings_own(parameter: str, field: str) -> None:
    (default,) = (f.default for f in msgspec.structs.fields(InboundSettings) if f.name == field)
    assert PARAMETERS[parameter]["Default"] == default


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_the_handler_that_stands_in_its_folder(function: str) -> None:
    properties = FUNCTIONS[function]
    module, name = properties["Handler"].split(".")
    assert f"def {name}(" in (ROOT / properties["CodeUri"] / f"{module}.py").read_text("utf-8")


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_every_parameter_says_what_it_is(parameter: str) -> None:
    assert len(PARAMETERS[parameter]["Description"]) > 20


def test_every_parameter_stands_in_a_group_of_the_console() -> None:
    groups = template()["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]
    assert sorted(grouped) == sorted(PARAMETERS)


def test_every_number_is_bounded() -> None:
    numbers = {name: each for name, each in PARAMETERS.items() if each["Type"] == "Number"}
    bounded = {
        name for name, each in numbers.items() if {"MinValue", "MaxValue"} <= each.keys()
    } | {name for name, each in numbers.items() if "AllowedValues" in each}
    assert bounded == set(numbers)


def test_there_is_no_default_where_a_wrong_guess_hurts() -> None:
    without = {name for name, each in PARAMETERS.items() if "Default" not in each}
    assert without == {"BounceSender", "ReceiptRuleSetName"}


def test_every_parameter_and_condition_is_used() -> None:
    text = TEMPLATE.read_text("utf-8").partition("\nConditions:")[2]
    refs = {each["Ref"] for each in walk(template()) if isinstance(each, dict) and "Ref" in each}
    refs |= set(re.findall(r"\$\{([A-Za-z]+)\}", text))
    assert set(PARAMETERS) <= refs
    for condition in template()["Conditions"]:
        assert len(re.findall(rf"\b{condition}\b", text)) > 1, condition


@pytest.mark.parametrize("output", template()["Outputs"])
def test_every_output_says_what_it_is(output: str) -> None:
    assert len(template()["Outputs"][output]["Description"]) > 10


def _asked_for(accept: Callable[[ast.Call], bool]) -> set[str]:
    """The constant first arguments of calls in the console's source."""
    found: set[str] = set()
    for path in (ROOT / "console" / "bouncer_console").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and accept(node):
                (argument,) = node.args[:1]
                if isinstance(argument, ast.Constant):
                    found.add(str(argument.value))
    return found


def _method(name: str, *owners: str) -> Callable[[ast.Call], bool]:
    def accept(call: ast.Call) -> bool:
        method = call.func
        if not isinstance(method, ast.Attribute) or method.attr != name:
            return False
        owner = method.value
        return not owners or (isinstance(owner, ast.Attribute) and owner.attr in owners)

    return accept


def test_every_output_that_the_console_asks_for_exists() -> None:
    asked = _asked_for(_method("output")) | _asked_for(_method("get", "outputs"))
    assert asked
    assert asked <= set(template()["Outputs"])


def test_every_parameter_that_the_console_asks_for_exists() -> None:
    asked = _asked_for(_method("get", "parameters"))
    assert asked
    assert asked <= set(PARAMETERS)


def test_appconfigs_validator_is_the_codes_own_schema() -> None:
    profile = resources("AWS::AppConfig::ConfigurationProfile")["PolicyProfile"]
    (validator,) = profile["Validators"]
    assert validator["Type"] == "JSON_SCHEMA"
    assert json.loads(validator["Content"]) == validator_schema(), "`make schema` writes it"


def test_appconfigs_validator_is_no_longer_than_it_may_be() -> None:
    """docs.aws.amazon.com/appconfig/2019-10-09/APIReference/API_Validator.html."""
    profile = resources("AWS::AppConfig::ConfigurationProfile")["PolicyProfile"]
    assert len(profile["Validators"][0]["Content"]) <= 32_768


def test_the_layer_fits_every_architecture_that_the_functions_may_have() -> None:
    layer = template()["Resources"]["BouncerLayer"]["Properties"]
    assert set(layer["CompatibleArchitectures"]) == set(PARAMETERS["Architecture"]["AllowedValues"])


def test_everything_that_is_built_gets_its_compiled_python() -> None:
    for name in (*FUNCTIONS, "BouncerLayer"):
        metadata = template()["Resources"][name]["Metadata"]
        assert metadata["BuildMethod"] == "makefile"
        folder = metadata.get("ContextPath", "layers/bouncer")
        assert f"build-{name}" in (ROOT / folder / "Makefile").read_text()
