"""What is started here ends here, however it is ended."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.aws.server import free_port
from local.demo import until
from local.stack import ROOT, StackError, listens, running

needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc")


@pytest.fixture
def staying(alone: None) -> Iterator["tuple[subprocess.Popen[str], int, int]"]:
    """`make local`'s command, up, on ports of its own."""
    aws_port, smtp_port = free_port(), free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "local.demo", "--stay",
            "--port", str(aws_port), "--smtp-port", str(smtp_port),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        shown = []
        for line in process.stdout:
            shown.append(line)
            if "swaks --server" in line:
                break
        assert f"127.0.0.1:{smtp_port}" in "".join(shown)
        yield process, aws_port, smtp_port
    finally:
        process.stdout.close()
        if process.poll() is None:
            process.kill()
        process.wait(20)


@needs_proc
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_nothing_is_left(
    staying: "tuple[subprocess.Popen[str], int, int]", signum: signal.Signals
) -> None:
    process, aws_port, smtp_port = staying
    assert listens(aws_port)
    assert listens(smtp_port)
    process.send_signal(signum)
    code = process.wait(30)
    assert code == (-signal.SIGKILL if signum is signal.SIGKILL else 0)
    until(
        lambda: True if not (listens(aws_port) or listens(smtp_port)) else None,
        "a server is left",
        seconds=15,
    )
    until(lambda: True if not _of_port(aws_port) else None, "a process is left", seconds=15)


def _of_port(port: int) -> list[str]:
    """Processes of that AWS: the server, and its functions' workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        ours = f"AWS_ENDPOINT_URL=http://127.0.0.1:{port}".encode() in environment
        if ours and int(folder.name) != os.getpid():
            found.append(command)
    return found


def test_a_taken_port_is_said_and_not_waited_for() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(StackError, match=f"{taken.getsockname()[1]} is taken"),
            running(smtp_port=_port(taken)),
        ):
            pass


def _port(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


@needs_proc
def test_servers_listen_on_loopback_only() -> None:
    with running() as aws:
        addresses = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                address, port = fields[1].split(":")
                if fields[3] == "0A" and int(port, 16) in (aws.port, aws.smtp_port):
                    addresses.add(address)
        assert addresses == {"0100007F"}  # 127.0.0.1, in the kernel's notation
