"""Who may import whom: the pure core knows no AWS, and what is deployed knows no test stand."""

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.unit.builders import ROOT

LAYER = ROOT / "layers" / "bouncer" / "bouncer"
FUNCTIONS = ROOT / "functions"
STANDARD = sys.stdlib_module_names

PURE = sorted(path for path in LAYER.rglob("*.py") if path.parent.name != "aws")
ADAPTERS = sorted((LAYER / "aws").glob("*.py"))
CONSOLE = sorted((ROOT / "console" / "bouncer_console").rglob("*.py"))
HANDLERS = sorted(FUNCTIONS.glob("*/app.py"))


def modules(files: list[Path], root: Path) -> pytest.MarkDecorator:
    ids = [str(path.relative_to(root)) for path in files]
    return pytest.mark.parametrize("path", files, ids=ids)


@cache
def imported(path: Path) -> frozenset[str]:
    """The modules that a file imports when it runs, also those inside of functions."""
    return frozenset(_imports(ast.parse(path.read_text("utf-8"))))


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        yield node.module or ""
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        children = node.orelse
    for child in children:
        yield from _imports(child)


def packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def test_there_is_something_to_look_at() -> None:
    assert {"decide.py", "guards.py", "limiter.py"} <= {path.name for path in PURE}
    assert "send_bounce.py" in {path.name for path in ADAPTERS}
    assert {path.parent.name for path in HANDLERS} == {
        path.name for path in FUNCTIONS.iterdir() if path.is_dir() and path.name != "__pycache__"
    }


def test_the_tests_eyes_see_what_they_look_for(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        "import boto3.session as s\n"
        "from local import stack\n"
        "if TYPE_CHECKING:\n    import mypy_boto3_ses\nelse:\n    import msgspec\n"
        "def f():\n    from botocore.config import Config\n"
    )
    assert packages(source) == {"boto3", "local", "msgspec", "botocore"}
    assert {"local.stack", "botocore.config"} <= imported(source)


@modules(PURE, LAYER)
def test_the_core_imports_nothing_but_itself_and_what_is_pure(path: Path) -> None:
    allowed = STANDARD | {"anyascii", "bouncer", "idna", "msgspec", "publicsuffixlist"}
    assert packages(path) <= allowed
    assert not {name for name in imported(path) if name.startswith("bouncer.aws")}


@modules(PURE, LAYER)
def test_the_core_reads_no_environment(path: Path) -> None:
    assert not {"os", "subprocess", "socket"} & packages(path)


@modules(ADAPTERS, LAYER)
def test_the_adapters_add_only_boto3_and_powertools(path: Path) -> None:
    allowed = STANDARD | {"bouncer", "msgspec", "boto3", "botocore", "aws_lambda_powertools"}
    assert packages(path) <= allowed


@modules(HANDLERS, FUNCTIONS)
def test_a_handler_imports_only_powertools_and_the_layer(path: Path) -> None:
    assert packages(path) <= STANDARD | {"aws_lambda_powertools", "bouncer"}


@modules([*PURE, *ADAPTERS, *HANDLERS], ROOT)
def test_nothing_that_is_deployed_imports_what_is_not(path: Path) -> None:
    assert not {"local", "bouncer_console", "tests", "bench", "functions"} & packages(path)


def test_the_limiter_knows_nothing_of_mail_and_the_policy_nothing_of_sending() -> None:
    assert packages(LAYER / "limiter.py") <= STANDARD | {"msgspec", "bouncer"}
    ours = {name for name in imported(LAYER / "limiter.py") if name.startswith("bouncer")}
    assert ours == {"bouncer.backend", "bouncer.backend.BackendUnavailableError"}
    for path in (*sorted((LAYER / "policy").glob("*.py")), LAYER / "guards.py", LAYER / "plan.py"):
        sending = {name for name in imported(path) if name.startswith("bouncer.delivery.")}
        assert {name for name in sending if not name.startswith("bouncer.delivery.bounce")} == set()
        assert "bouncer.limiter" not in imported(path)


@modules(CONSOLE, ROOT)
def test_the_console_imports_nothing_of_the_test_stand(path: Path) -> None:
    assert not {"local", "tests", "bench", "functions"} & packages(path)


def _modules_of(root: Path, *folders: str) -> dict[str, Path]:
    """Every module below, by the name that it is imported by."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for folder in folders
        for path in (root / folder).rglob("*.py")
    }


def test_no_module_imports_itself_by_way_of_others() -> None:
    ours = (
        _modules_of(LAYER.parent, "bouncer")
        | _modules_of(ROOT / "console", "bouncer_console")
        | _modules_of(ROOT, "local", "functions", "bench", "sim")
    )
    graph = {name: imported(path) & ours.keys() - {name} for name, path in ours.items()}
    assert {"local.deployment", "local.docker"} <= graph["local.demo"]
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
