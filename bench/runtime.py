"""Lambda without Lambda: a built function in a process of its own, under AWS's runtime client.

What is on the path is what Lambda has: the function, the layer, and the runtime's own packages
(boto3 and what it needs, and the client itself), as compiled as AWS's image has them. No process
writes compiled Python, so each begins with what the build ships.
"""

import compileall
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path
from py_compile import PycInvalidationMode
from queue import Queue
from types import TracebackType
from typing import Any, NamedTuple, Self

_RUNTIME_HAS = (
    "boto3",
    "botocore",
    "s3transfer",
    "jmespath",
    "urllib3",
    "python-dateutil",
    "six",
    "awslambdaric",
    "simplejson",
    "snapshot-restore-py",
)
_DEADLINE = 25.0


def runtime_packages(folder: Path) -> Path:
    """Copy what the runtime brings from this environment, compiled."""
    for name in _RUNTIME_HAS:
        package = distribution(name)
        for file in package.files or ():
            if file.suffix == ".pyc" or ".." in file.parts:
                continue
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(package.locate_file(file)), target)
    _compile(folder)
    return folder


def handler_of(source: Path, folder: Path) -> Path:
    """Copy a function that no build has made, compiled as the build does it."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    _compile(folder)
    return folder


def _compile(folder: Path) -> None:
    mode = PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(folder, quiet=1, invalidation_mode=mode)


class Share:
    """A share of one processor, as Lambda gives it: so many of each 20 ms, by a cgroup."""

    _PERIOD = 20_000

    def __init__(self, memory_mb: int, folder: Path) -> None:
        self.quota = round(self._PERIOD * memory_mb / 1769)
        self._folder = folder

    @classmethod
    @contextlib.contextmanager
    def of(cls, memory_mb: int) -> Iterator["Share | None"]:
        """None where this system lets nobody make one."""
        for root in (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")):
            folder = root / f"bouncer-bench-{os.getpid()}-{memory_mb}"
            try:
                folder.mkdir()
            except OSError:
                continue
            try:
                share = cls(memory_mb, folder)
                share._limit()
                yield share
                return
            finally:
                with contextlib.suppress(OSError):
                    folder.rmdir()
        yield None

    def _limit(self) -> None:
        if (self._folder / "cpu.max").exists():
            (self._folder / "cpu.max").write_text(f"{self.quota} {self._PERIOD}")
        else:
            (self._folder / "cpu.cfs_period_us").write_text(str(self._PERIOD))
            (self._folder / "cpu.cfs_quota_us").write_text(str(self.quota))

    def take(self, process: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(process))


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A process has ended with its connections open, which is how each of them ends."""


class Moment(NamedTuple):
    """Seconds, on two clocks."""

    wall: float
    processor: float
    """What all threads of the process have taken until then."""

    def since(self, other: "Moment") -> "Moment":
        return Moment(self.wall - other.wall, self.processor - other.processor)


class Process:
    """One execution environment: started, then given events one by one."""

    def __init__(
        self, task: Path, path: list[Path], environment: Mapping[str, str], handler: str
    ) -> None:
        self._asked: Queue[Moment] = Queue()
        self._answered: Queue[tuple[Moment, str, bytes]] = Queue()
        self._events: Queue[bytes | None] = Queue()
        self._number = 0
        self._api = Server(("127.0.0.1", 0), self._handler_class())
        threading.Thread(target=self._api.serve_forever, daemon=True).start()
        self.started = Moment(time.monotonic(), 0.0)
        self._process = subprocess.Popen(
            # -S, -s: nothing of this environment's own site-packages.
            [sys.executable, "-S", "-s", "-m", "awslambdaric", handler],
            cwd=task,
            env={
                "PATH": os.environ["PATH"],
                "LANG": "C.UTF-8",
                "PYTHONPATH": os.pathsep.join(map(str, (task, *path))),
                "PYTHONDONTWRITEBYTECODE": "1",
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.server_address[1]}",
                "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
                "AWS_LAMBDA_FUNCTION_NAME": "function",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
                "LAMBDA_TASK_ROOT": str(task),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._output: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._events.put(None)
        self._api.shutdown()
        self._api.server_close()
        self._reader.join()
        if kind is not None:
            sys.stderr.write(b"".join(self._output)[-4000:].decode(errors="replace"))

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> Moment:
        """When it asked for an event: the end of init, or of an invocation."""
        return self._asked.get(timeout=60)

    def invoke(self, event: Any) -> tuple[Moment, Any]:
        """Hand an event over: when it was answered, and how."""
        self._events.put(json.dumps(event).encode())
        answered, path, body = self._answered.get(timeout=60)
        if not path.endswith("/response"):
            raise RuntimeError(f"{path}: {body.decode(errors='replace')[:2000]}")
        return answered, json.loads(body)

    def now(self) -> Moment:
        return Moment(time.monotonic(), self._processor_seconds())

    def _processor_seconds(self) -> float:
        nanoseconds = 0
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                nanoseconds += int((thread / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9

    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        (line,) = (each for each in status.splitlines() if each.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._output.append(line)
        self._process.stdout.close()

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        process = self

        class Api(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                process._asked.put(process.now())  # it waits for us: both clocks are right
                event = process._events.get()
                if event is None:
                    return
                process._number += 1
                self.send_response(200)
                arn = "arn:aws:lambda:us-east-1:123456789012:function:function"
                self.send_header("Lambda-Runtime-Aws-Request-Id", f"request-{process._number}")
                self.send_header("Lambda-Runtime-Invoked-Function-Arn", arn)
                deadline = str(int((time.time() + _DEADLINE) * 1000))
                self.send_header("Lambda-Runtime-Deadline-Ms", deadline)
                self.send_header("Lambda-Runtime-Trace-Id", "Root=1-0-0;Sampled=0")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(event)))
                self.end_headers()
                self.wfile.write(event)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                process._answered.put((process.now(), self.path, body))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        return Api
