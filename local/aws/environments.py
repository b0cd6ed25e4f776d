"""The functions' processes: which are at work, which of them calls, and that each dies alone."""

import contextlib
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime

from local.aws.weather import Process


def processes_die_alone() -> None:
    """Lay it over ministack, once, before the server starts.

    When a process dies while it begins, ministack's Worker raises, and ministack takes that for
    broken code: it kills every other process of the function, at work or not, and deletes their
    folders under those that are only beginning. Here the invocation fails as any other whose
    process dies, and the worker begins anew when it is wanted next.
    """
    plain = lambda_runtime.Worker.invoke
    plain_spawn = lambda_runtime.Worker._spawn  # noqa: SLF001

    def spawn(worker: Any) -> None:
        worker.begins = True
        plain_spawn(worker)
        worker.begins = False

    def invoke(worker: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = plain(worker, *args, **kwargs)
        except (RuntimeError, OSError) as error:
            process, worker._proc = worker._proc, None  # noqa: SLF001
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process.wait()
            return {"status": "error", "error": str(error), "log": ""}
        return answer

    lambda_runtime.Worker.invoke = invoke
    lambda_runtime.Worker._spawn = spawn  # noqa: SLF001


def at_work() -> dict[int, Process]:
    """The processes that have an invocation, by their ids."""
    pools = [*lambda_runtime._workers.values()]  # noqa: SLF001
    found = {}
    for worker in [each for pool in pools for each in [*pool] if each.in_use]:
        process = worker._proc  # noqa: SLF001
        if process is not None and process.poll() is None:
            found[process.pid] = Process(worker.func_name, begins=worker.begins)
    return found


def behind(port: int) -> int | None:
    """Which function's process has the loopback connection from this port.

    Returns:
        Its id; nothing where the system does not say (it is read from Linux's /proc).
    """
    local = f"0100007F:{port:04X}"
    with contextlib.suppress(OSError):
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sockets = {f"socket:[{row[9]}]" for row in rows if row[1] == local}
        for process in at_work():
            with contextlib.suppress(OSError):  # it has just died
                for file in Path(f"/proc/{process}/fd").iterdir():
                    with contextlib.suppress(OSError):  # it has just been closed
                        if str(file.readlink()) in sockets:
                            return process
    return None
