"""A client of AWS's as botocore's is: tries, time-outs, kept connections, and its events.

One request has three moments: asked, done at the service, answered. A fault can fall before,
between and after: not done; done and the answer lost; done late, when nobody waits any more.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from sim.faults import Swarm
from sim.kernel import Kernel, Killed

_URL = "https://aws.invalid"
_LOST = (ConnectionClosedError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError)
_PASSING = ("Throttl", "Exceeded", "SlowDown", "TooManyRequests", "RequestTimeout")
# The longest that a process is held up between its last look at the clock and the call.
HELD_UP = 0.019
_ALL = 16384


def refused(code: str, status: int, operation: str, message: str = "", **more: Any) -> ClientError:
    """An error as a service answers it."""
    response: Any = {
        "Error": {"Code": code, "Message": message or code},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}},
        **more,
    }
    return ClientError(response, operation)


class Request:
    """What a `before-send` handler may look at and change."""

    def __init__(self, body: str) -> None:
        self.body: Any = body


class _Http(NamedTuple):
    status_code: int


class _Model:
    def __init__(self, name: str) -> None:
        self.service_id = self
        self._name = name

    def hyphenize(self) -> str:
        return self._name


class _Events:
    def __init__(self) -> None:
        self._handlers: list[tuple[str, Callable[..., Any]]] = []
        self._known: dict[tuple[str, str, str], list[Callable[..., Any]]] = {}

    def register(self, event: str, handler: Callable[..., Any], *_: Any, **__: Any) -> None:
        self._handlers.append((event, handler))
        self._known.clear()

    register_last = register

    def register_first(self, event: str, handler: Callable[..., Any], *_: Any, **__: Any) -> None:
        self._handlers.insert(0, (event, handler))
        self._known.clear()

    def emit(self, event: str, service: str, operation: str, **facts: Any) -> None:
        key = event, service, operation
        handlers = self._known.get(key)
        if handlers is None:
            whole = ".".join(key)
            handlers = self._known[key] = [
                handler
                for name, handler in self._handlers
                if whole == name or whole.startswith(name + ".")
            ]
        for handler in handlers:
            handler(**facts)


class _Meta:
    def __init__(self, service: str) -> None:
        self.events = _Events()
        self.service_model = _Model(service)
        self.endpoint_url = _URL
        self.region_name = "us-east-1"


class Network(NamedTuple):
    """What every client of a world shares."""

    kernel: Kernel
    faults: Swarm
    idle_limit: float
    """So long the other end keeps a connection that nobody uses."""
    silent: bool
    """What is sent on a connection that the other end forgot is never answered."""

    def moment(self) -> None:
        """A hand-over at which the actor may be killed or frozen."""
        actor, chances = self.kernel.current, self.faults.chances
        if actor is None:
            return
        if "killed" in chances and self.faults.falls("killed", self.kernel.now):
            self.kernel.note("!", "killed")
            actor.kill()
            raise Killed
        if "frozen" in chances and self.faults.falls("frozen", self.kernel.now):
            seconds = self.kernel.chance.choice((0.3, 2.0, 8.0, 20.0, 45.0))
            self.kernel.note("!", f"frozen for {seconds} s")
            actor.machine.freeze()
            self.kernel.pause(seconds)
            actor.machine.thaw()


class Client:
    """The parts of a boto3 client that do not depend on the service."""

    def __init__(self, service: str, network: Network, config: Any) -> None:
        self.meta = _Meta(service)
        self.network = network
        self._kernel = network.kernel
        self._chances = network.faults.chances
        self._service = service
        self._connect_timeout = float(config.connect_timeout)
        self._read_timeout = float(config.read_timeout)
        self._tries = int((config.retries or {}).get("total_max_attempts", 3))
        self._used: float | None = None
        """When the kept connection last carried something; None: there is none."""
        self.idle = 0.0
        """How long the connection had been idle that the last request went out on."""

    def close(self) -> None:
        self._used = None

    def request[T](self, operation: str, what: str, do: Callable[[], T], body: str = "") -> T:
        """Let the service do something, as often as botocore would ask for it."""
        attempt = 1
        facts: dict[str, Any]
        while True:
            try:
                return self._try(operation, what, do, body)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status < 500 and not any(each in code for each in _PASSING):
                    raise
                failed: Any = error
                facts = {"response": (_Http(status), error.response), "caught_exception": None}
            except _LOST as error:
                failed, facts = error, {"response": None, "caught_exception": error}
            self._emit("needs-retry", operation, attempts=attempt, **facts)
            if attempt == self._tries:
                raise failed
            self._kernel.pause(min(20.0, self._kernel.chance.random() * 2 ** (attempt - 1)))
            attempt += 1

    def connect(self) -> None:
        """Open a connection, unless one is kept.

        Raises:
            ConnectTimeoutError, EndpointConnectionError: there is none to be had.
        """
        if self._used is not None:
            return
        if self._falls("unreachable"):
            if self._kernel.chance.random() < 0.5:
                self._kernel.pause(self._connect_timeout)
                raise ConnectTimeoutError(endpoint_url=_URL)
            raise EndpointConnectionError(endpoint_url=_URL)
        self._kernel.pause(self._latency())
        self._used = self._kernel.now

    def _emit(self, event: str, operation: str, **facts: Any) -> None:
        self.meta.events.emit(event, self._service, operation, **facts)

    def _try[T](self, operation: str, what: str, do: Callable[[], T], body: str) -> T:
        note = self._kernel.note
        request = Request(body)
        try:
            self._emit("before-send", operation, request=request)
        except Exception as error:
            note(what, f"not asked: {type(error).__name__}")
            raise
        self.turned()
        try:
            self.connect()
            self._write(request)
            self.started()
            answer = self._exchange(operation, what, do)
        except ClientError as error:
            note(what, error.response["Error"]["Code"])
            self._used = self._kernel.now
            self._emit("response-received", operation, context={})
            raise
        except _LOST as error:
            note(what, f"no answer: {type(error).__name__}")
            self._used = None
            raise
        note(what, _short(answer))
        self._used = self._kernel.now
        self._emit("response-received", operation, context={})
        return answer

    def _write(self, request: Request) -> None:
        """The request goes out, perhaps on a connection that the other end forgot."""
        assert self._used is not None
        self.idle = self._kernel.now - self._used
        dead = self.network.faults.has("dead-connections") and self.idle > self.network.idle_limit
        read = getattr(request.body, "read", lambda _: b"")
        if dead and not self.network.silent:
            raise ConnectionClosedError(endpoint_url=_URL)
        read(_ALL)
        if dead:
            read(_ALL)
            self._kernel.pause(self._read_timeout)
            raise ReadTimeoutError(endpoint_url=_URL)
        self.network.moment()
        self._kernel.pause(self._kernel.chance.uniform(0.0, HELD_UP))
        read(_ALL)  # urllib3 learns only now that there is no more

    def turned(self) -> None:
        """The last handler has looked at the request; a service may want to note that."""

    def started(self) -> None:
        """The request is on its way; the same."""

    def _exchange[T](self, operation: str, what: str, do: Callable[[], T]) -> T:
        kernel = self._kernel
        if self._falls("reset"):
            raise ConnectionClosedError(endpoint_url=_URL)
        there, back = self._latency(), self._latency()
        if self._falls("slow"):
            there += kernel.chance.uniform(0.0, 0.45) * self._read_timeout
            back += kernel.chance.uniform(0.0, 0.45) * self._read_timeout
        if self._falls("done-late"):
            late = self._read_timeout + kernel.chance.choice((0.0, 0.5, 5.0, 60.0))
            kernel.after(late, lambda: self._late(what, do))
            kernel.pause(self._read_timeout)
            raise ReadTimeoutError(endpoint_url=_URL)
        kernel.pause(there)
        self.refuse(operation)
        done = self._do(do)
        self.network.moment()
        if self.loses_answer():
            kernel.note(what, "done, and the answer lost")
            if kernel.chance.random() < 0.5:
                raise ConnectionClosedError(endpoint_url=_URL)
            kernel.pause(self._read_timeout - there)
            raise ReadTimeoutError(endpoint_url=_URL)
        kernel.pause(back)
        self.network.moment()
        if isinstance(done, ClientError):
            raise done
        return done

    def _do[T](self, do: Callable[[], T]) -> T | ClientError:
        try:
            return do()
        except ClientError as error:
            return error

    def _late(self, what: str, do: Callable[[], Any]) -> None:
        self._kernel.note(what, f"done late: {_short(self._do(do))}")

    def refuse(self, operation: str) -> None:
        """
        Raises:
            ClientError: the service does not do it now.
        """
        if self._falls("error"):
            raise refused("InternalServerError", 500, operation)
        if self._falls("throttled"):
            raise refused("ThrottlingException", 400, operation)

    def loses_answer(self) -> bool:
        return self._falls("answer-lost")

    def _falls(self, fault: str) -> bool:
        return fault in self._chances and self.network.faults.falls(fault, self._kernel.now)

    def _latency(self) -> float:
        return self._kernel.chance.uniform(0.001, 0.012)


def _short(answer: Any) -> str:
    if isinstance(answer, ClientError):
        return str(answer.response["Error"]["Code"])
    if isinstance(answer, dict) and "MessageId" in answer:
        return str(answer["MessageId"])
    return "ok"
