"""Who may speak to AWS on this machine: whoever has this run's key, and no web page.

ministack is made for a test's own container: it takes any Origin and any Host, and a root caller
without looking at the signature. Here its functions run as the developer, so everything that
comes in passes this gate first, on every path:

- the Host is an address or `localhost`: a name that was rebound to loopback is refused;
- nothing that a browser sends for a page: no Origin, no cross-site fetch;
- a signature by a key that this run knows, over the request as it came; the listings take the
  key as user name and password too (`curl -u`);
- nothing below `/_`, where ministack keeps its administrative paths, but the listings.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs

import msgspec

type Scope = dict[str, Any]
type Receive = Callable[[], Awaitable[Any]]
type Send = Callable[[dict[str, Any]], Awaitable[None]]
type App = Callable[[Scope, Receive, Send], Awaitable[None]]

_BODY_LIMIT = 256 * 2**20
"""A request's body in bytes; sam uploads zips of a few MB, a mail has at most 40."""


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """The key of one run's root user."""

    access_key_id: str
    secret_access_key: str

    @classmethod
    def new(cls) -> Self:
        return cls(
            access_key_id=f"AKIA{secrets.token_hex(8).upper()}",
            secret_access_key=secrets.token_urlsafe(30),
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises: OSError, msgspec.DecodeError."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def write(self, path: Path) -> None:
        """Write a file that only its owner can read; one that is there is replaced."""
        folder(path.parent)
        written = path.with_name(f"{path.name}.{os.getpid()}")
        written.unlink(missing_ok=True)
        written.touch(0o600, exist_ok=False)  # that mode from its first moment on
        written.write_bytes(msgspec.json.encode(self))
        written.replace(path)

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        pair = f"{self.access_key_id}:{self.secret_access_key}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"


def folder(path: Path) -> Path:
    """A folder that is there, and is its owner's alone."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


class Gate:
    """An ASGI application in front of another."""

    def __init__(
        self,
        behind: App,
        listings: Mapping[str, Callable[[], bytes]],
        credentials: Credentials,
        code: Callable[[str, str], bytes | None] = lambda _path, _query: None,
    ) -> None:
        """
        Args:
            behind: ministack.
            listings: JSON by path, below /_local/.
            credentials: this run's root.
            code: what an address that is signed itself lets out, by path and query.
        """
        self._behind = behind
        self._code = code
        self._listings = listings
        self._credentials = credentials

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._behind(scope, receive, send)
            return
        if scope["type"] != "http":  # a web page may open a WebSocket to anywhere
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = _headers(scope)
        refused = _not_for_pages(headers)
        if refused is None and scope["path"].startswith("/_"):
            await self._list(scope, headers, send)
            return
        if refused is None and not headers.get("authorization", "").startswith("AWS4-HMAC-SHA256"):
            refused = "the request is not signed: export the keys in .local/credentials.json"
        if refused is not None:
            await answer(send, 403, refused)
            return
        body = await body_of(receive)
        if body is None:
            await answer(send, 413, "the body is too long")
            return
        refused = self._badly_signed(scope, headers, body)
        if refused is not None:
            await answer(send, 403, refused)
            return
        await self._behind(scope, replayed(body, receive), send)

    async def _list(self, scope: Scope, headers: Mapping[str, str], send: Send) -> None:
        query = scope.get("query_string", b"").decode("latin-1")
        code = self._code(scope["path"], query) if scope["method"] == "GET" else None
        if code is not None:
            await answer(send, 200, code)
            return
        listing = self._listings.get(scope["path"])
        if listing is None or scope["method"] != "GET":
            await answer(send, 403, "this path is closed")
            return
        given = headers.get("authorization", "")
        signed = given.startswith("AWS4-") and self._badly_signed(scope, headers, b"") is None
        if not signed and not _same(given, self._credentials.basic):
            needed = [(b"www-authenticate", b'Basic realm="AWS on this machine"')]
            await answer(send, 401, "the user is access_key_id of .local/credentials.json", needed)
            return
        await answer(send, 200, listing())

    def _badly_signed(self, scope: Scope, headers: Mapping[str, str], body: bytes) -> str | None:
        from ministack.core import sigv4

        signature = sigv4.parse_header_signature(headers)
        if isinstance(signature, tuple):
            return str(signature[1])
        secret = self._secret(signature.access_key_id, headers.get("x-amz-security-token", ""))
        if secret is None:
            return "nobody here has this access key"
        if "host" not in signature.signed_headers.split(";"):
            return "the Host is not signed"
        claimed = headers.get("x-amz-content-sha256", "")
        if re.fullmatch("[0-9a-f]{64}", claimed) and claimed != hashlib.sha256(body).hexdigest():
            return "the body is not what was signed"
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        failure = sigv4.request_time_failure(signature) or sigv4.header_signature_failure(
            signature, secret, scope["method"], scope["raw_path"].decode("latin-1"), query,
            headers, body,
        )  # fmt: skip
        return None if failure is None else str(failure[1])

    def _secret(self, access_key_id: str, token: str) -> str | None:
        """The secret of a key that this run made: root's, a role's session, a user's."""
        from ministack.services import iam, sts

        if _same(access_key_id, self._credentials.access_key_id):
            return self._credentials.secret_access_key
        session = sts._sessions.get(access_key_id)
        if session is not None:
            expected = session.get("SessionToken") or ""
            return str(session["SecretAccessKey"]) if _same(token, expected) else None
        for (_, known), record in iam._access_keys.to_dict().items():
            if known == access_key_id and record.get("Status") == "Active":
                return str(record["SecretAccessKey"])
        return None


def unguessable_sessions(key: str) -> None:
    """The functions' own credentials: ministack makes them from names, which anybody can guess.

    Args:
        key: this run's secret.
    """
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc, sts

    plain = lambda_runtime.execution_credentials

    def secret_of(guessable: str) -> str:
        return hmac.new(key.encode(), guessable.encode(), hashlib.sha256).hexdigest()

    def execution_credentials(config: dict[str, Any]) -> dict[str, str]:
        given: dict[str, str] = plain(config)
        session = sts._sessions[given["AWS_ACCESS_KEY_ID"]]
        secret = secret_of(given["AWS_SECRET_ACCESS_KEY"])
        token = secret_of(given["AWS_SESSION_TOKEN"])
        session |= {"SecretAccessKey": secret, "SessionToken": token}
        return given | {"AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token}

    lambda_runtime.execution_credentials = execution_credentials
    lambda_svc.execution_credentials = execution_credentials


def _not_for_pages(headers: Mapping[str, str]) -> str | None:
    """Why a request may come from a web page, or None."""
    if "origin" in headers:
        return "no web page has any business here: the request has an Origin"
    if headers.get("sec-fetch-site", "none") != "none":
        return "no web page has any business here: the request is cross-site"
    if not _is_address(headers.get("host", "")):
        return "the Host is a name; use 127.0.0.1"
    return None


def _is_address(host: str) -> bool:
    name = re.sub(r":\d+$", "", host)
    # Docker Desktop's containers have this name for their host; its own resolver answers it.
    if name in ("localhost", "host.docker.internal"):
        return True
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _headers(scope: Scope) -> dict[str, str]:
    """By lower-case name; what came several times is joined, so that nothing hides."""
    headers: dict[str, str] = {}
    for name, value in scope.get("headers", []):
        key, text = name.decode("latin-1").lower(), value.decode("utf-8", "replace")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    return headers


async def body_of(receive: Receive) -> bytes | None:
    """The whole body; None if it is longer than anything that is sent here."""
    parts, length, more = [], 0, True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > _BODY_LIMIT:
            return None
        more = message.get("more_body", False)
    return b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """Receive a body that was read already, and whatever follows it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Any:
        return waiting.pop() if waiting else await receive()

    return again


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


async def answer(
    send: Send,
    status: int,
    what: str | bytes,
    more: list[tuple[bytes, bytes]] | None = None,
) -> None:
    """Answer with JSON: as it is, or a message in the shape of AWS's errors."""
    if isinstance(what, str):
        what = json.dumps({"__type": "AccessDeniedException", "message": what}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(what)),
        (b"x-content-type-options", b"nosniff"),
        *(more or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": what})
