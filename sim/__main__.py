"""The simulator's command: many worlds, or one with its story.

python -m sim --seeds 10000        worlds 0 to 9,999, on every core
python -m sim --seed 4711          one world, step by step
"""

import argparse
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from sim.replay import shortest, story
from sim.run import prepared, run
from sim.world import Violation

_SHOWN = 10
_CHUNK = 25
"""Worlds that a process runs before it says what came of them."""
_SAY_EVERY = 15.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="sim", description="the system in virtual time")
    parser.add_argument("--seed", type=int, help="replay this world, with its trace")
    parser.add_argument("--all", action="store_true", help="with --seed: the whole trace")
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    if asked.seed is not None:
        return _replay(asked.seed, whole=asked.all)
    return _many(range(asked.first, asked.first + asked.seeds), asked.processes)


def _replay(seed: int, *, whole: bool) -> int:
    with prepared():
        report = run(seed, traced=True)
        if not report.violations:
            if whole:
                _print("\n".join(report.trace))
            _print(f"seed {seed}: {report.mails} mails ({report.kind}), {report.sent} bounces sent")
            _print(f"faults: {report.fell}\nevery promise was kept")
            return 0
        _print(story(shortest(report), whole=whole))
    return 1


def _many(seeds: range, processes: int) -> int:
    began = said = time.monotonic()
    mails = sent = done = 0
    fell: Counter[str] = Counter()
    failed: list[tuple[int, Violation]] = []
    for result in _results(seeds, processes):
        mails, sent, done = mails + result[0], sent + result[1], done + _CHUNK
        fell.update(result[2])
        failed += result[3]
        if time.monotonic() - said >= _SAY_EVERY:
            said = time.monotonic()
            left = (said - began) * (len(seeds) - done) / done
            bad = f"{len(failed)} broken, " if failed else ""
            _print(f"{done} of {len(seeds)} worlds, {bad}about {max(left, 0):.0f} s more")
    took = time.monotonic() - began
    _print(f"{len(seeds)} worlds, {mails} mails, {sent} bounces in {took:.0f} s")
    _print("faults that fell: " + ", ".join(f"{n} {name}" for name, n in sorted(fell.items())))
    if not failed:
        _print("every promise was kept")
        return 0
    broken = Counter(violation.invariant for _, violation in failed)
    _print("broken: " + ", ".join(f"{name} in {n} worlds" for name, n in sorted(broken.items())))
    for seed, violation in sorted(failed, key=lambda each: each[0])[:_SHOWN]:
        _print(f"  make sim SEED={seed}: {violation.invariant}: {violation.what}")
    return 1


type Result = tuple[int, int, dict[str, int], list[tuple[int, Violation]]]


def _results(seeds: range, processes: int) -> Iterator[Result]:
    chunks = [seeds[at : at + _CHUNK] for at in range(0, len(seeds), _CHUNK)]
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(_chunk, chunks)


def _chunk(seeds: range) -> Result:
    mails = sent = 0
    fell: Counter[str] = Counter()
    failed: list[tuple[int, Violation]] = []
    gc.disable()  # a world is of one piece, and goes as one
    with prepared():
        for seed in seeds:
            report = run(seed)
            mails, sent = mails + report.mails, sent + report.sent
            fell.update(report.fell)
            failed += [(seed, violation) for violation in report.violations[:1]]
    gc.collect()
    return mails, sent, dict(fell), failed


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
