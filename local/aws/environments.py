"""The functions' processes: which are at work, which of them calls, and that each dies alone."""

import contextlib
import hashlib
import os
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from ministack.core import lambda_runtime

from local.aws.weather import Process


class Done(msgspec.Struct, kw_only=True):
    """What a function has done since the start; its processes' beginnings are left out."""

    function: str
    invocations: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    log_lines: int = 0
    log_bytes: int = 0


class Work:
    """What all functions have done."""

    def __init__(self) -> None:
        self._done: dict[str, Done] = {}
        self._lock = threading.Lock()

    def listed(self) -> list[Done]:
        with self._lock:
            return [*self._done.values()]

    def add(self, function: str, *, seconds: float, processor_seconds: float, log: str) -> None:
        lines = log.splitlines()
        with self._lock:
            done = self._done.setdefault(function, Done(function=function))
            done.invocations += 1
            done.seconds += seconds
            done.processor_seconds += processor_seconds
            done.log_lines += len(lines)
            done.log_bytes += sum(len(line.encode()) for line in lines)


class _Unpacked:
    """What was unpacked once, for every process of a function.

    ministack unpacks a function and its layer anew for each process, and Python compiles them
    anew, which is most of what a cold start costs here. On AWS nobody writes there either.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ses-bouncer-unpacked-")
        self._lock = threading.Lock()

    def at(self, archive: Path) -> Path:
        kept = Path(self._folder.name, hashlib.sha256(archive.read_bytes()).hexdigest())
        with self._lock:
            if not kept.exists():
                half = kept.with_suffix(".half")
                with zipfile.ZipFile(archive) as packed:
                    packed.extractall(half)
                half.rename(kept)
        return kept


def unpacks_once() -> None:
    """Lay it over ministack, once, before the server starts."""
    unpacked = _Unpacked()

    class Archive(zipfile.ZipFile):
        def extractall(self, path: Any = None, members: Any = None, pwd: Any = None) -> None:
            del members, pwd  # ministack asks for everything, into a folder that it has just made
            folder = Path(path)
            folder.rmdir()
            folder.symlink_to(unpacked.at(Path(str(self.filename))))

    lambda_runtime.zipfile = SimpleNamespace(**{**vars(zipfile), "ZipFile": Archive})


def processes_die_alone(work: Work) -> None:
    """Lay it over ministack, once, before the server starts.

    When a process dies while it begins, ministack's Worker raises, and ministack takes that for
    broken code: it kills every other process of the function, at work or not, and deletes their
    folders under those that are only beginning. Here the invocation fails as any other whose
    process dies, and the worker begins anew when it is wanted next.
    """
    plain = lambda_runtime.Worker.invoke
    plain_spawn = lambda_runtime.Worker._spawn

    def spawn(worker: Any) -> None:
        worker.begins = True
        plain_spawn(worker)
        worker.begins = False
        worker.ready = time.monotonic(), _processor_seconds(worker)

    def invoke(worker: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        asked = time.monotonic(), _processor_seconds(worker)
        try:
            answer: dict[str, Any] = plain(worker, *args, **kwargs)
        except (RuntimeError, OSError) as error:
            process, worker._proc = worker._proc, None
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process.wait()
            return {"status": "error", "error": str(error), "log": ""}
        began, used = max(asked, worker.ready)  # it may have had to begin first
        work.add(
            worker.func_name,
            seconds=time.monotonic() - began,
            processor_seconds=max(0.0, _processor_seconds(worker) - used),
            log=answer.get("log") or "",
        )
        return answer

    lambda_runtime.Worker.invoke = invoke
    lambda_runtime.Worker._spawn = spawn


def at_work() -> dict[int, Process]:
    """The processes that have an invocation, by their ids."""
    pools = [*lambda_runtime._workers.values()]
    found = {}
    for worker in [each for pool in pools for each in [*pool] if each.in_use]:
        process = worker._proc
        if process is not None and process.poll() is None:
            found[process.pid] = Process(worker.func_name, begins=worker.begins)
    return found


def _processor_seconds(worker: Any) -> float:
    """Of its process; 0 where there is none, or the system does not say (Linux's /proc does)."""
    try:
        stat = Path(f"/proc/{worker._proc.pid}/stat").read_text()
    except (OSError, AttributeError):
        return 0.0
    # proc(5): utime and stime are the 14th and 15th; the name before them may hold blanks.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def behind(port: int) -> tuple[int, Process] | None:
    """Which function's process has the loopback connection from this port.

    Returns:
        Its id, and what it is; nothing where the system does not say (it is read from Linux's
        /proc).
    """
    local = f"0100007F:{port:04X}"
    with contextlib.suppress(OSError):
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sockets = {f"socket:[{row[9]}]" for row in rows if row[1] == local}
        for pid, process in at_work().items():
            with contextlib.suppress(OSError):  # it has just died
                for file in Path(f"/proc/{pid}/fd").iterdir():
                    with contextlib.suppress(OSError):  # it has just been closed
                        if str(file.readlink()) in sockets:
                            return pid, process
    return None
