"""The receiving end: a process of its own that notes when each call arrives.

Calls are datagrams on loopback. All times are CLOCK_MONOTONIC, which all processes of a
Linux machine share.
"""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import msgspec

_END = b"end"
_DATAGRAM = 4096


class Call(msgspec.Struct, kw_only=True):
    """One call. `checked` is the caller's last look at the clock; only ours has one."""

    caller: int
    asked: float
    """When it began to ask for the permit."""
    start: float
    """At the very start of the call, in the caller."""
    checked: float | None = None
    arrived: float = 0.0
    """At the recorder."""


class Ringer:
    """The caller's side."""

    def __init__(self, port: int, caller: int) -> None:
        self._caller = caller
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))

    def __call__(self, asked: float, checked: float | None = None) -> None:
        """Make the call, now."""
        start = time.monotonic()
        call = Call(caller=self._caller, asked=asked, start=start, checked=checked)
        self._socket.send(msgspec.json.encode(call))


@contextmanager
def recording() -> Iterator[tuple[int, Callable[[], list[Call]]]]:
    """The port to call, and a function that ends the recording and returns its calls."""
    context = multiprocessing.get_context("fork")
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    ours, theirs = context.Pipe()
    process = context.Process(target=_record, args=(listener, theirs), daemon=True)
    process.start()

    def finish() -> list[Call]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(_END, ("127.0.0.1", port))
        calls = msgspec.json.decode(ours.recv_bytes(), type=list[Call])
        return sorted(calls, key=lambda call: call.start)

    try:
        yield port, finish
    finally:
        process.kill()
        process.join()
        listener.close()
        ours.close()
        theirs.close()


def _record(listener: socket.socket, answer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this ends it
    starter = os.getppid()
    listener.settimeout(1.0)
    received: list[tuple[float, bytes]] = []
    while True:
        try:
            datagram = listener.recv(_DATAGRAM)
        except TimeoutError:
            if os.getppid() != starter:
                return  # it went without a word
            continue
        if datagram == _END:
            break
        received.append((time.monotonic(), datagram))
    calls = []
    for arrived, datagram in received:
        call = msgspec.json.decode(datagram, type=Call)
        call.arrived = arrived
        calls.append(call)
    answer.send_bytes(msgspec.json.encode(calls))
