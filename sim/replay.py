"""A world that broke a promise, told as shortly as it still breaks it."""

from sim.faults import FAULTS
from sim.run import Report, run

_RUNS = 60


class _Search:
    """Tries smaller worlds, a bounded number of them."""

    def __init__(self, report: Report) -> None:
        self.best = report
        self.without: frozenset[str] = frozenset()
        self.most: int | None = None
        self._runs = _RUNS
        self._invariant = report.violations[0].invariant

    def still_fails(self, without: frozenset[str], most: int | None) -> bool:
        if self._runs == 0:
            return False
        self._runs -= 1
        report = run(self.best.seed, without=without, most=most)
        if not any(each.invariant == self._invariant for each in report.violations):
            return False
        self.best, self.without, self.most = report, without, most
        return True


def shortest(report: Report) -> Report:
    """The same seed with as few faults, then as few mails, as still break the same promise."""
    search = _Search(report)
    for fault in FAULTS:
        if fault in report.faults:
            search.still_fails(search.without | {fault}, search.most)
    size = search.best.mails
    while size > 1:
        size //= 2
        if not search.still_fails(search.without, search.best.mails - size):
            continue
        size = min(size * 2, search.best.mails)
    best = search.best
    return run(best.seed, without=search.without, most=search.most, traced=True)


def story(report: Report, *, whole: bool) -> str:
    """Seed, promise and trace: of the mail that it is about, or all of it."""
    violation = report.violations[0]
    lines = report.trace
    if violation.message_id and not whole:
        lines = _about(lines, violation.message_id)
    head = [
        f"seed {report.seed} breaks `{violation.invariant}`: {violation.what}",
        f"mail {violation.message_id or '-'}, of {report.mails} ({report.kind}); "
        f"faults: {report.faults}",
        f"{len(lines)} of {len(report.trace)} steps (with --all: every one)",
        "",
    ]
    return "\n".join([*head, *lines])


def _about(lines: list[str], message_id: str) -> list[str]:
    """What names a mail, and how the invocations began and ended that did."""
    name = f"{message_id} "
    actors = {line.split()[1] for line in lines if name in f"{line} "} - {"world"}
    return [line for line in lines if name in f"{line} " or _frames(line, actors)]


def _frames(line: str, actors: set[str]) -> bool:
    _, actor, first, *_ = line.split()
    return actor in actors and first in (actor, "!")
