"""What `sam build` makes: complete, compiled, importable, and for either architecture."""

import shutil
import subprocess
import sys
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path

import pytest

from local import stack
from local.stack import ROOT
from tests.e2e.conftest import NOWHERE

FUNCTIONS = ("inbound", "audit", "send", "usage", "rules")
_MODULE = {"audit": "audit"}  # of its handler, where it is not app
_LOGICAL = {name: f"{name.title()}Function" for name in FUNCTIONS}
# ELF's e_machine (a 16-bit field at offset 18).
_MACHINE = {"x86_64": 0x3E, "arm64": 0xB7}
# What the Lambda runtime has, and so the layer need not.
_IN_THE_RUNTIME = ("boto3", "botocore", "dateutil", "s3transfer", "urllib3", "six.py")


def test_the_layer_holds_code_for_both_architectures(built: Path) -> None:
    machines: dict[str, set[int]] = {}
    for library in (built / "BouncerLayer").rglob("*.so"):
        machine = int.from_bytes(library.read_bytes()[18:20], "little")
        machines.setdefault(library.name.partition(".")[0], set()).add(machine)
    assert machines
    assert all(found == set(_MACHINE.values()) for found in machines.values())


def test_all_python_is_built_compiled_and_is_used_without_a_look_at_its_source(
    built: Path,
) -> None:
    sources = [path for path in built.rglob("*.py") if "template" not in path.name]
    assert len(sources) > 100
    for source in sources:
        compiled = Path(cache_from_source(str(source))).read_bytes()
        assert compiled[:4] == MAGIC_NUMBER
        # PEP 552: hash-based, and unchecked; what is behind the hash is of the source here.
        assert int.from_bytes(compiled[4:8], "little") == 0b01
        assert compiled[8:16] == source_hash(source.read_bytes())


def test_a_second_build_is_the_same_byte_for_byte(
    built: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    again = stack.build(NOWHERE, tmp_path_factory.mktemp("again"), anew=True).parent

    def contents(root: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(root)): path.read_bytes()
            for folder in ("BouncerLayer", *_LOGICAL.values())
            for path in (root / folder).rglob("*")
            if path.is_file()
        }

    first, second = contents(built), contents(again)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_the_layer_brings_every_dependency_and_nothing_of_the_machine(built: Path) -> None:
    names = {path.name for path in (built / "BouncerLayer" / "python").iterdir()}
    assert {"bouncer", "msgspec", "aws_lambda_powertools", "idna", "jmespath"} <= names
    assert not {"boto3", "botocore", "local", "ministack"} & names


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_handler_is_imported_from_what_was_built(
    built: Path, tmp_path: Path, name: str
) -> None:
    """With nothing on the path but the function, the layer, and what the runtime has."""
    packages = next(p for p in map(Path, sys.path) if p.name == "site-packages")
    for each in _IN_THE_RUNTIME:
        (tmp_path / each).symlink_to(packages / each)
    module = _MODULE.get(name, "app")
    path = [str(built / _LOGICAL[name]), str(built / "BouncerLayer" / "python")]
    code = (
        "import sys\n"
        f"sys.path[:0] = {path}\n"
        f"sys.path.append({str(tmp_path)!r})\n"
        f"import {module} as app, bouncer, msgspec\n"
        "assert callable(app.handler)\n"
        "print(bouncer.__file__, msgspec.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"POWERTOOLS_SERVICE_NAME": "test"},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(built / "BouncerLayer")) == 2


def test_the_policy_is_built_in_beside_its_handler(built: Path) -> None:
    policy = (built / "InboundFunction" / "policy.toml").read_text()
    assert policy == (ROOT / "functions" / "inbound" / "policy.toml").read_text()


def test_a_bad_policy_ends_a_plain_build_too(tmp_path: Path) -> None:
    """Where the command is on the path, as the README puts it there."""
    shutil.copytree(ROOT / "functions" / "inbound", tmp_path / "inbound")
    (tmp_path / "artifacts").mkdir()

    def built_with(policy: str) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "inbound" / "policy.toml").write_text(policy)
        return subprocess.run(
            ["make", "-f", str(ROOT / "functions" / "Makefile"), "build-InboundFunction"],
            cwd=tmp_path / "inbound",
            env=NOWHERE.environment() | {"ARTIFACTS_DIR": str(tmp_path / "artifacts")},
            capture_output=True,
            text=True,
            check=False,
        )

    assert built_with((ROOT / "functions/inbound/policy.toml").read_text()).returncode == 0
    refused = built_with('version = 1\n[[rules]]\nname = "x\naction = "accept"\n')
    assert refused.returncode != 0
    assert "policy.toml:3" in refused.stderr
