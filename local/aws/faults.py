"""The weather at AWS's door: requests of the functions that fail, hang, or are done twice."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from local.aws.weather import Deed, Fault, Process, Step, Weather, thaw

type Scope = dict[str, Any]
type Receive = Callable[[], Awaitable[Any]]
type Send = Callable[[dict[str, Any]], Awaitable[None]]
type App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SEND_MESSAGE = b"AmazonSQS.SendMessage"
_READS = (b"GetItem", b"BatchGetItem", b"Query")
_STALE_SECONDS = 5.0
# Longer than the functions' client waits for SES; what it then does not know, nobody does.
_SES_HANGS_SECONDS = 8.0

_JSON = [(b"content-type", b"application/x-amz-json-1.0")]
_XML = [(b"content-type", b"text/xml")]


class Door:
    """An ASGI application around another one."""

    def __init__(
        self,
        app: App,
        weather: Weather,
        root: str,
        behind: Callable[[int], tuple[int, Process] | None] = lambda _: None,
    ) -> None:
        """
        Args:
            root: the account's access key; who signs with it is the tester, not a function.
            behind: the function's process that has the connection from a port, and its id.
        """
        self._behind = behind
        self._app = app
        self._root = f"Credential={root}/".encode()
        self._weather = weather
        self._seen: dict[bytes, tuple[float, list[dict[str, Any]]]] = {}
        self._later: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        target = headers.get(b"x-amz-target", b"")
        signed = headers.get(b"authorization", b"")
        if scope["type"] != "http" or self._weather.calm or self._root in signed:
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        step = _step(target, body)
        said: list[dict[str, Any]] = []
        if await self._struck(scope, step, before=True):
            return
        await self._done(scope, body, _keep(said), target)
        if await self._struck(scope, step, before=False):
            return
        for message in said:
            await send(message)

    async def _struck(self, scope: Scope, step: Step | None, *, before: bool) -> bool:
        """Strike the caller, if this is the moment: whether nobody waits for an answer any more."""
        deed = self._weather.blow(step, before=before)
        victim = self._behind(scope["client"][1]) if deed is not None else None
        if victim is None:
            return False
        pid, process = victim
        if deed is Deed.KILL:
            return self._weather.kill(pid, process)
        self._weather.stop(pid)
        await asyncio.sleep(self._weather.odds.freeze_seconds)
        thaw(pid)
        return False

    async def _done(self, scope: Scope, body: bytes, send: Send, target: bytes) -> None:
        service = _service(target, body)
        fault = self._weather.befalls(service) if service else None
        if fault is None and service != "table":
            await self._app(scope, _replay(body), send)
            return
        read = target.rpartition(b".")[2] in _READS and b'"ConsistentRead": true' not in body
        await self._answer(scope, body, send, fault=fault, service=service, read=read)

    async def _answer(
        self,
        scope: Scope,
        body: bytes,
        send: Send,
        *,
        fault: Fault | None,
        service: str,
        read: bool,
    ) -> None:
        hang = _SES_HANGS_SECONDS if service == "bounce" else self._weather.odds.slow_seconds
        if fault in (Fault.THROTTLED, Fault.FAILED):
            await _refuse(send, service, throttled=fault is Fault.THROTTLED)
            return
        before = self._seen.get(body) if read else None
        if fault is Fault.STALE and before and time.monotonic() - before[0] < _STALE_SECONDS:
            for message in before[1]:
                await send(message)
            return
        if fault is Fault.SLOW:
            await asyncio.sleep(hang / 2)
        if fault is Fault.LATE:
            body = _delayed(body, self._weather.odds.late_message)
        said: list[dict[str, Any]] = []
        await self._app(scope, _replay(body), _keep(said))
        if read:
            self._seen[body] = (time.monotonic(), said)
        if fault is Fault.TWICE:
            again = asyncio.create_task(self._once_more(scope, body))
            self._later.add(again)
            again.add_done_callback(self._later.discard)
        if fault is Fault.ANSWER_LOST:
            await asyncio.sleep(hang)
            await _refuse(send, service, throttled=False)
            return
        for message in said:
            await send(message)

    async def _once_more(self, scope: Scope, body: bytes) -> None:
        await asyncio.sleep(self._weather.odds.slow_seconds)
        await self._app(scope, _replay(body), _keep([]))


def _delayed(body: bytes, seconds: int) -> bytes:
    """A SendMessage whose message is seen so much later."""
    asked = json.loads(body)
    return json.dumps(asked | {"DelaySeconds": asked.get("DelaySeconds", 0) + seconds}).encode()


def _service(target: bytes, body: bytes) -> str:
    if target.startswith(b"DynamoDB"):
        return "table"
    if target == _SEND_MESSAGE:
        return "queue"
    return "bounce" if b"Action=SendBounce" in body else ""


def _step(target: bytes, body: bytes) -> Step | None:
    """What a function's request does for a mail."""
    if b"Action=SendBounce" in body:
        return Step.CALL
    if target == _SEND_MESSAGE:
        return Step.QUEUE
    if target.rpartition(b".")[2] != b"UpdateItem":
        return None
    request = json.loads(body)
    key = request["Key"].get("sk", {}).get("S", "")
    if key == "mail":
        return Step.RECORD
    state = request.get("ExpressionAttributeValues", {}).get(":new_state", {}).get("S")
    if not key.startswith("recipient#") or state is None:
        return None
    return Step.CLAIM if state == "claimed" else Step.SETTLE


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


def _replay(body: bytes) -> Receive:
    told = False

    async def receive() -> dict[str, Any]:
        nonlocal told
        if told:
            await asyncio.Event().wait()  # the client says nothing more
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _keep(said: list[dict[str, Any]]) -> Send:
    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    return send


async def _refuse(send: Send, service: str, *, throttled: bool) -> None:
    status = 400 if throttled else 500
    if service == "bounce":
        code = "Throttling" if throttled else "InternalFailure"
        kind = "Sender" if throttled else "Receiver"
        body = (
            f'<ErrorResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><Error><Type>{kind}'
            f"</Type><Code>{code}</Code><Message>the weather</Message></Error></ErrorResponse>"
        ).encode()
        headers = _XML
    else:
        name = "ProvisionedThroughputExceededException" if throttled else "InternalServerError"
        body = f'{{"__type":"#{name}","message":"the weather"}}'.encode()
        headers = _JSON
    length = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers + length})
    await send({"type": "http.response.body", "body": body})
