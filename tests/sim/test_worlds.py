"""Many worlds, in which every promise is kept; `make sim` and `make soak` run more."""

import hashlib
import os
import subprocess
import sys

import pytest

from sim.mutations import by_name, mutated
from sim.replay import shortest, story
from sim.run import run
from tests.soak import many
from tests.unit.builders import ROOT

WORLDS = many(96, soak=3000)
_CHUNK = 12


@pytest.mark.parametrize("first", range(0, WORLDS, _CHUNK))
def test_every_promise_is_kept(virtual_time: None, first: int) -> None:
    broken = []
    for seed in range(first, first + _CHUNK):
        report = run(seed)
        broken += [
            f"make sim SEED={seed}: {each.invariant}: {each.what}" for each in report.violations
        ]
    assert broken == []


def test_the_worlds_are_not_all_kind(virtual_time: None) -> None:
    fell = {name for seed in range(24) for name in run(seed).fell}
    assert {"killed", "frozen", "answer-lost", "ses-answer-lost", "error", "message-twice"} <= fell


_DIGEST = """
import hashlib
from sim.run import prepared, run
with prepared():
    lines = [line for seed in (0, 3, 12, 40) for line in run(seed, traced=True).trace]
print(hashlib.sha256("\\n".join(lines).encode()).hexdigest())
"""


def test_a_seed_has_one_story_whatever_the_hash_seed_is(virtual_time: None) -> None:
    lines = [line for seed in (0, 3, 12, 40) for line in run(seed, traced=True).trace]
    here = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    for hash_seed in ("0", "4711"):
        told = subprocess.run(
            [sys.executable, "-c", _DIGEST],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        assert told == here


def test_a_broken_promise_is_told_shortly(virtual_time: None) -> None:
    mutation = by_name()["stops-always"]
    with mutated(mutation):
        report = run(mutation.seed)
        short = shortest(report)
    assert short.violations[0].invariant == report.violations[0].invariant
    assert (len(short.faults), short.mails) <= (len(report.faults), report.mails)
    told = story(short, whole=False).splitlines()
    assert told[0].startswith(f"seed {mutation.seed} breaks `accepted-delivered`: ")
    assert any(short.violations[0].message_id in line and "-> " in line for line in told[4:])
