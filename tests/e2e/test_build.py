"""What `sam build` makes: complete, importable, and for the architecture that it says."""

import subprocess
import sys
from pathlib import Path

import pytest

from local import stack
from local.aws.gate import Credentials
from local.stack import ROOT, Aws

FUNCTIONS = ("inbound", "send", "usage", "rules")
_LOGICAL = {name: f"{name.title()}Function" for name in FUNCTIONS}
# ELF's e_machine (a 16-bit field at offset 18).
_MACHINE = {"x86_64": 0x3E, "arm64": 0xB7}
# What the Lambda runtime has, and so the layer need not.
_IN_THE_RUNTIME = ("boto3", "botocore", "dateutil", "s3transfer", "urllib3", "six.py")


def _build(arch: str, directory: Path) -> Path:
    nowhere = Aws(port=1, smtp_port=1, outbox=directory, credentials=Credentials.new())
    return stack.build(nowhere, directory, arch).parent


@pytest.fixture(scope="module", params=sorted(_MACHINE))
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(request.param, tmp_path_factory.mktemp(f"build-{request.param}"))


def test_the_layer_holds_code_for_the_architecture_that_the_template_says(built: Path) -> None:
    template = (built / "template.yaml").read_text()
    compiled = list((built / "BouncerLayer").rglob("*.so"))
    assert compiled
    for library in compiled:
        machine = int.from_bytes(library.read_bytes()[18:20], "little")
        named = {name for name, code in _MACHINE.items() if code == machine}
        assert f"BuildArchitecture: {named.pop()}" in template


def test_the_layer_brings_every_dependency_and_nothing_of_the_machine(built: Path) -> None:
    names = {path.name for path in (built / "BouncerLayer" / "python").iterdir()}
    assert {"bouncer", "msgspec", "aws_lambda_powertools", "idna", "jmespath"} <= names
    assert not {"boto3", "botocore", "local", "ministack"} & names


@pytest.fixture(scope="module")
def runnable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(stack.architecture(), tmp_path_factory.mktemp("build"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_handler_is_imported_from_what_was_built(
    runnable: Path, tmp_path: Path, name: str
) -> None:
    """With nothing on the path but the function, the layer, and what the runtime has."""
    packages = next(p for p in map(Path, sys.path) if p.name == "site-packages")
    for each in _IN_THE_RUNTIME:
        (tmp_path / each).symlink_to(packages / each)
    path = [str(runnable / _LOGICAL[name]), str(runnable / "BouncerLayer" / "python")]
    code = (
        "import sys\n"
        f"sys.path[:0] = {path}\n"
        f"sys.path.append({str(tmp_path)!r})\n"
        "import app, bouncer, msgspec\n"
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
    assert done.stdout.count(str(runnable / "BouncerLayer")) == 2


def test_the_policy_is_built_in_beside_its_handler(runnable: Path) -> None:
    built = (runnable / "InboundFunction" / "policy.toml").read_text()
    assert built == (ROOT / "functions" / "inbound" / "policy.toml").read_text()
