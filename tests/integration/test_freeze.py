"""A process that was frozen: the other end has forgotten it, and its clock does not know."""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bouncer.aws import clients
from bouncer.aws.send_bounce import SesSendBounce
from bouncer.delivery.send_bounce import TryAgainError
from tests.fakes.bounces import bounce
from tests.unit.builders import ROOT

SERVICES = 5
"""DynamoDB, S3, SQS, AppConfig and SES."""
_RESULT = b"<SendBounceResult><MessageId>b</MessageId></SendBounceResult>"
_SENT = b"<SendBounceResponse>" + _RESULT + b"</SendBounceResponse>"


class Peer:
    """Every AWS service at once; it can forget its connections without a word.

    Who writes to a forgotten connection gets a reset, as from a host that knows nothing of it.
    Or it resets them at once, as a host does that ends.
    """

    def __init__(self) -> None:
        self.knocks = 0
        """Requests that came on forgotten connections."""
        self.requests = 0
        self.resets_calls = False
        """When a call has come."""
        self._generation = 0
        self._says_so = False
        self._closing = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def forget(self, *, at_once: bool = False) -> None:
        self._says_so = at_once
        self._generation += 1

    @contextmanager
    def running(self) -> Iterator["Peer"]:
        self._listener.settimeout(0.05)
        accepting = threading.Thread(target=self._accept)
        accepting.start()
        try:
            yield self
        finally:
            self._closing = True
            accepting.join()
            for each in self._threads:
                each.join()
            self._listener.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._serve, args=(connection, self._generation))
            thread.start()
            self._threads.append(thread)

    def _serve(self, connection: socket.socket, generation: int) -> None:
        with connection:
            while not self._closing:
                if self._says_so and generation != self._generation:
                    _reset(connection)
                    return
                if not select.select([connection], [], [], 0.05)[0]:
                    continue
                if generation != self._generation:
                    self.knocks += bool(connection.recv(1, socket.MSG_PEEK))
                    _reset(connection)
                    return
                if not self._answer(connection):
                    return

    def _answer(self, connection: socket.socket) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return False
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lines = [line.partition(b": ") for line in head.lower().split(b"\r\n")]
        size = sum(int(value) for name, _, value in lines if name == b"content-length")
        while len(body) < size:
            body += connection.recv(65536)
        if head.startswith(b"POST") and self.resets_calls:
            _reset(connection)
            return False
        self.requests += 1
        answer = b"{}" if head.startswith(b"POST") else b""
        answer = _SENT if body.startswith(b"Action=") else answer
        length = b"" if head.startswith(b"HEAD") else b"Content-Length: %d\r\n" % len(answer)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + answer)
        return True


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    with Peer().running() as peer:
        monkeypatch.setenv("AWS_ENDPOINT_URL", peer.url)
        yield peer


class Frozen:
    """The process; `ask` returns the bounce's id, or says what became of the answer."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def say(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def call_stopped(self, meanwhile: Callable[[], None]) -> Any:
        """It stops when only the request's bytes remain; something happens; it goes on."""
        assert self._process.stdin is not None
        print("call", file=self._process.stdin, flush=True)
        os.waitpid(self._process.pid, os.WUNTRACED)
        meanwhile()
        self._process.send_signal(signal.SIGCONT)
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def stop(self, seconds: float) -> None:
        began = time.monotonic()
        self._process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            self._process.send_signal(signal.SIGCONT)
        self.say(f"thaw {time.monotonic() - began:.3f}")


@pytest.fixture
def frozen(peer: Peer) -> Iterator[Frozen]:
    environment = {**os.environ, "AWS_ENDPOINT_URL": peer.url, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.frozen"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    ) as process:
        yield Frozen(process)
        assert process.stdin is not None
        process.stdin.close()


def test_after_a_freeze_no_request_goes_out_on_a_connection_from_before(
    peer: Peer, frozen: Frozen
) -> None:
    assert frozen.say("ask") == "b"
    peer.forget()
    frozen.stop(1.5)
    assert frozen.say("ask") == "b"
    assert peer.knocks == 0


def test_without_a_freeze_connections_are_kept(peer: Peer, frozen: Frozen) -> None:
    """Else the test above would say nothing."""
    frozen.say("ask")
    peer.forget()
    frozen.say("ask")
    assert peer.knocks == SERVICES


# --- A reset before SES can have the call ----------------------------------------------------


def test_a_reset_while_the_process_is_stopped_before_its_call_is_no_lost_answer(
    peer: Peer, frozen: Frozen
) -> None:
    assert frozen.say("ask") == "b"
    asked = peer.requests

    def resets() -> None:
        peer.forget(at_once=True)
        time.sleep(0.7)

    answer = frozen.call_stopped(resets)
    # Told in time, the SDK opens a new connection; else the call failed before SES could have it.
    assert answer in ("b", "answer lost: False")
    assert peer.requests - asked == (answer == "b")


def test_a_connection_that_breaks_before_the_call_was_written_is_no_lost_answer(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = SesSendBounce(clients.ses())
    sender.warm()
    peer.forget()

    def turn() -> None:
        """The other end's word comes between the look at the connection and the writing."""
        client: Any = sender._client
        pool = client._endpoint.http_session._manager.pools
        (key,) = pool.keys()
        connection = pool[key].pool.queue[-1]
        connection.sock.sendall(b"x")
        select.select([connection.sock], [], [], 1)

    monkeypatch.setattr("urllib3.connectionpool.is_connection_dropped", lambda _: False)
    with pytest.raises(TryAgainError) as caught:
        sender.send(bounce(), turn)
    assert not caught.value.answer_lost
    assert peer.requests == 1


def test_a_connection_that_breaks_after_the_call_was_written_is_a_lost_answer(peer: Peer) -> None:
    sender = SesSendBounce(clients.ses())
    sender.warm()
    peer.resets_calls = True
    with pytest.raises(TryAgainError) as caught:
        sender.send(bounce(), lambda: None)
    assert caught.value.answer_lost


def test_a_handshake_that_is_cut_off_is_no_lost_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{listener.getsockname()[1]}")

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(1)
            _reset(connection)

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(TryAgainError) as caught:
            SesSendBounce(clients.ses()).send(bounce(), lambda: None)
        thread.join()
    assert not caught.value.answer_lost
