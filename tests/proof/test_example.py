"""The example of docs/pacing.md, in three processes at once on an atomic engine."""

import subprocess
import sys
from itertools import pairwise

from local.stack import ROOT, running
from tests.integration.builders import create_bounce_table

PROCESSES, CALLS = 3, 3
# The times are noted after the answers, which take a moment more or less each.
NOTED_AT_LEAST_APART = 0.7


def test_three_processes_call_one_after_the_other() -> None:
    with running() as aws:
        create_bounce_table(aws.client("dynamodb"), "paces")
        running_examples = [
            subprocess.Popen(
                [sys.executable, "examples/paced_client.py", "paces", str(CALLS)],
                cwd=ROOT,
                env=aws.environment(),
                stdout=subprocess.PIPE,
            )
            for _ in range(PROCESSES)
        ]
        printed = [each.communicate(timeout=120)[0] for each in running_examples]
    assert [each.returncode for each in running_examples] == [0] * PROCESSES
    times = sorted(float(line) for each in printed for line in each.split())
    assert len(times) == PROCESSES * CALLS
    assert min(later - earlier for earlier, later in pairwise(times)) >= NOTED_AT_LEAST_APART
