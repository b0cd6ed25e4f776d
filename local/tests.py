"""`make test`: every test. Those of what is deployed wait a lot, so the fast ones run beside them.

What is timed runs alone, at the end. Each part's output stands together; Ctrl-C ends them all.
"""

import os
import signal
import subprocess
import sys
import time

from bouncer_console.output import say
from local.aws.gate import folder
from local.stack import ROOT, STATE

FAST = ("unit", "contract", "integration", "sim")
PYTEST = (sys.executable, "-m", "pytest", "-q")


def fast(processes: str) -> list[str]:
    """What neither deploys nor starts AWS: test by test, in several processes, after the others."""
    return ["nice", "-n", "10", *PYTEST, "-n", processes, *(f"tests/{each}" for each in FAST)]


def deployed(processes: str) -> list[str]:
    """What is deployed: file by file, each process with a deployment of its own."""
    return [*PYTEST, "-n", processes, "--dist", "loadfile", "--no-loadscope-reorder", "tests/e2e"]


def main(processes: str, deployments: str) -> int:
    """
    Returns:
        The exit status: that of the first part that failed.
    """
    started = time.monotonic()
    written = folder(STATE) / "e2e.log"
    with written.open("wb") as log:
        beside = subprocess.Popen(
            deployed(deployments), cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            status = subprocess.run(fast(processes), cwd=ROOT, check=False).returncode
            status = beside.wait() or status
        finally:
            if beside.poll() is None:  # Ctrl-C
                os.killpg(beside.pid, signal.SIGINT)
                beside.wait()
    sys.stdout.write(written.read_text("utf-8", "replace"))
    sys.stdout.flush()
    if status == 0:
        status = subprocess.run([*PYTEST, "tests/proof"], cwd=ROOT, check=False).returncode
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    say(f"{'passed' if status == 0 else 'FAILED'} in {minutes} min {seconds} s")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
