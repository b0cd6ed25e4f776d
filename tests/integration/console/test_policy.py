"""`bouncer policy`."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from bouncer.policy.file import validator_schema
from bouncer_console.policy import laid_out
from tests.integration.console.builders import (
    LATIN_1,
    POLICY,
    SHIPPED,
    bouncer,
    error_of,
    file,
    printed_json,
    text_of,
)


def test_the_shipped_policy_is_good() -> None:
    report = printed_json("policy", "check")
    assert (report["ok"], report["errors"], report["warnings"]) == (True, [], [])
    assert "is a good policy" in text_of("policy", "check")


def test_the_texts_are_shown_as_a_sender_reads_them(tmp_path: Path) -> None:
    spoken = POLICY.replace(
        '"DoesNotExist"', '"DoesNotExist"\nexplanation = "Kein Postfach für {recipient}."'
    )
    path = file(tmp_path, "policy.toml", spoken)
    (text,) = printed_json("policy", "check", path)["texts"].values()
    assert text == "Kein Postfach fur alex@example.com."
    shown = text_of("policy", "check", path)
    assert text in shown
    assert "in letters that a bounce can hold" in shown


def test_a_bad_policy_is_refused_with_every_mistake(tmp_path: Path) -> None:
    bad = POLICY.replace('"DoesNotExist"', '"DoesNotExist"\nexplanation = "{recepient}"').replace(
        '"accept"\naction', '"accept"\nwhen.spam = "MAYBE"\naction'
    )
    path = file(tmp_path, "policy.toml", bad)
    report = printed_json("policy", "check", path, code=1)
    assert (report["ok"], report["warnings"]) == (False, [])
    assert len(report["errors"]) >= 2
    assert all(str(path) in each for each in report["errors"])
    complaint = error_of("policy", "check", path)
    assert "{recepient}" in complaint


@pytest.mark.parametrize(
    ("content", "mend"),
    [
        ("version = ", "cannot be read"),
        (POLICY.replace("when.mailbox", "when.mailbx"), "did you mean `mailbox`?"),
        (POLICY.replace("when.mailbox", "wen.mailbox"), "did you mean `when`?"),
    ],
)
def test_a_mistake_comes_with_its_mend(tmp_path: Path, content: str, mend: str) -> None:
    assert mend in error_of("policy", "check", file(tmp_path, "policy.toml", content))


def test_what_can_hardly_be_meant_is_a_warning_and_no_error(tmp_path: Path) -> None:
    twice = POLICY.replace('name = "accept"', 'name = "accept-known"\nwhen.mailbox = "unknown"')
    last = '\n[[rules]]\nname = "accept"\naction = "accept"\n'
    path = file(tmp_path, "policy.toml", twice + last)
    report = printed_json("policy", "check", path)
    assert report["ok"]
    never, *unreachable = report["warnings"]
    assert "never decides" in never
    assert ["postmaster@" in unreachable[0], "abuse@" in unreachable[1]] == [True, True]
    assert "warning:" in bouncer("policy", "check", path).stdout


def test_a_policy_to_check_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path, "policy.toml", LATIN_1)
    report = printed_json("policy", "check", path, code=1)
    assert report["errors"] == [f"{path} is not UTF-8: save it as UTF-8"]


def test_a_policy_that_is_not_there_is_named() -> None:
    assert "nowhere.toml" in error_of("policy", "check", "nowhere.toml")


def test_the_schema_takes_the_shipped_policy_and_refuses_another_version() -> None:
    schema = json.loads(bouncer("policy", "schema").stdout)
    policy = tomllib.loads(SHIPPED.read_text())
    jsonschema.validate(policy, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**policy, "version": 2}, schema)


def test_the_validators_schema_is_json_in_lines_that_a_template_holds() -> None:
    text = bouncer("policy", "schema", "--validator").stdout
    assert json.loads(text) == validator_schema()
    assert max(map(len, text.splitlines())) <= 86


def test_a_json_value_that_fits_stays_on_its_line_and_others_go_deeper() -> None:
    value = {"a": [1, {"b": None}], "c": {"d": [True, "x" * 40, []], "e": {}}}
    text = laid_out(value, width=30)
    assert json.loads(text) == value
    assert '  "a": [1, {"b": null}],\n' in text
    assert all(len(line) <= 30 or "x" * 40 in line for line in text.splitlines())
