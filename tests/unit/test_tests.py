"""What holds for every test."""

import ast
from collections.abc import Iterator

from tests.unit.builders import ROOT

CLOCKS = ("datetime.now", "time.time", "time.monotonic", "utc_now")


def read_at_import(source: str) -> Iterator[str]:
    """Values that a module takes from a clock while it is imported."""
    for each in ast.parse(source).body:
        if not isinstance(each, (ast.Assign, ast.AnnAssign)):
            continue
        calls = [node for node in ast.walk(each) if isinstance(node, ast.Call)]
        if any(ast.unparse(call.func) in CLOCKS for call in calls):
            yield ast.unparse(each)


def test_no_test_reads_the_clock_while_it_is_imported() -> None:
    """A whole run takes many minutes from there to the test: a deadline would have passed."""
    assert [*read_at_import("NOW = datetime.now(UTC) + timedelta(1)\n\ndef f(): time.time()")]
    found = {
        str(path.relative_to(ROOT)): read
        for path in (ROOT / "tests").rglob("*.py")
        if (read := [*read_at_import(path.read_text("utf-8"))])
    }
    assert found == {}
