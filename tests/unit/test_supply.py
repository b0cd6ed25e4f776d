"""What is built is what was pinned: by hash, by commit, from no address of anybody's."""

import json
import re
from typing import Any

import pytest

from tests.unit.builders import ROOT

LOCK: dict[str, Any] = json.loads((ROOT / "bench" / "package-lock.json").read_text("utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
REQUIREMENTS = ["requirements-dev.txt", "bench/requirements.txt", "layers/bouncer/requirements.txt"]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def test_every_package_of_npms_has_its_hash_no_address_and_no_script() -> None:
    packages = {name: each for name, each in LOCK["packages"].items() if name}
    assert packages
    for name, each in packages.items():
        assert each["integrity"].startswith("sha512-"), name
        assert not {"resolved", "hasInstallScript"} & each.keys(), name
    assert "://" not in json.dumps(
        {name: {**each, "funding": ""} for name, each in packages.items()}
    )


def test_the_lock_is_of_what_is_asked_for() -> None:
    package = json.loads((ROOT / "bench" / "package.json").read_text("utf-8"))
    assert LOCK["packages"][""]["dependencies"] == package["dependencies"]


def test_npm_installs_by_the_lock_and_runs_nothing() -> None:
    installs = re.findall(r"npm (?:ci|install)[^\n]*", MAKEFILE)
    assert [each for each in installs if "--ignore-scripts" not in each] == []
    assert [each for each in installs if each.startswith("npm install")] == [
        each for each in installs if "--package-lock-only" in each
    ]


@pytest.mark.parametrize("path", REQUIREMENTS)
def test_every_python_package_has_its_hash_and_no_address(path: str) -> None:
    text = (ROOT / path).read_text("utf-8").replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert pins
    assert [pin for pin in pins if "==" not in pin or "--hash=sha256:" not in pin] == []
    assert "://" not in text


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda each: each.stem)
def test_every_action_is_a_commit(path: Any) -> None:
    used = re.findall(r"uses: (\S+)", path.read_text("utf-8"))
    assert used
    assert [each for each in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", each)] == []


def test_the_workflows_are_looked_at_with_everything_else() -> None:
    lint = MAKEFILE.partition("\nlint:")[2].partition("\n\n")[0]
    assert "zizmor --offline" in lint
