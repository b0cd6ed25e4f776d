"""What is not judged is a limit that is really met: without the excuse a world breaks a promise."""

from types import FunctionType

import pytest

from sim import excuses
from sim.run import run
from tests.unit.builders import ROOT

NEEDED = {
    "wrong_clock": (75, "pace"),
    "held_up": (53, "pace"),
    "left_to_the_audit": (241, "handled-or-kept"),
    "penalty_not_written": (3281, "penalty"),
    "died_after": (34, "once"),
    "note_failed": (244, "once"),
    "claimed_after_the_audit": (9453, "claims-end"),
}
"""Excuse to a world that needs it, and the promise that it would break."""


def _never(*_: object) -> bool:
    return False


def test_every_excuse_has_a_world_that_needs_it_and_is_told_in_the_docs() -> None:
    found = {name for name, each in vars(excuses).items() if isinstance(each, FunctionType)}
    assert found == NEEDED.keys()
    docs = (ROOT / "docs/simulator.md").read_text("utf-8")
    assert [name for name in sorted(NEEDED) if f"`{name}`" not in docs] == []


@pytest.mark.parametrize(("name", "seed", "promise"), [(n, *s) for n, s in NEEDED.items()])
def test_without_an_excuse_the_world_that_needs_it_breaks_a_promise(
    virtual_time: None, monkeypatch: pytest.MonkeyPatch, name: str, seed: int, promise: str
) -> None:
    assert run(seed).violations == []
    monkeypatch.setattr(excuses, name, _never)
    assert promise in {each.invariant for each in run(seed).violations}
