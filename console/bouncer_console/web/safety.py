"""Who may ask the page: this machine's owner in the browser, and nobody else.

Another user of the machine, a web page that the owner visits, and a name that leads here (DNS
rebinding) get an empty 403, whatever they ask for.
"""

import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = "token"  # noqa: S105  (the parameter's name)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_SAFE_METHODS = frozenset({"GET", "HEAD"})
_OURS = frozenset({"same-origin", "none"})
"""Sec-Fetch-Site of what the owner wants: by our page, or by the address bar."""


class Gate:
    """Lets through what carries this run's token, and comes from the page itself."""

    def __init__(self, app: ASGIApp, *, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
        # Cookies know no ports: two pages on one machine must not end each other's session.
        self.cookie = f"bouncer-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket: nothing here has one
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        app = self._app
        if not self._is_addressed_to_us(headers):
            app = Response(status_code=403)
        elif (answer := self._entered(scope, headers)) is not None:
            app = answer
        elif not self._is_the_owners(scope["method"], headers):
            app = Response(status_code=403)
        await app(scope, receive, guarded)

    def _is_addressed_to_us(self, headers: Headers) -> bool:
        hosts = headers.getlist("host")
        return len(hosts) == 1 and hosts[0].lower() in self._hosts

    def _is_the_owners(self, method: str, headers: Headers) -> bool:
        if headers.get("sec-fetch-site", "none") not in _OURS:
            return False
        if not any(self._is_token(each) for each in self._cookies(headers)):
            return False
        return method in _SAFE_METHODS or (method == "POST" and self._is_from_us(headers))

    def _is_from_us(self, headers: Headers) -> bool:
        """Under `no-referrer`, browsers say Origin "null" of our own forms, and
        Sec-Fetch-Site, which no page can set, whose they are."""
        origin = headers.get("origin", "null")
        if origin == "null":
            return headers.get("sec-fetch-site") == "same-origin"
        return origin == f"http://{headers['host'].lower()}"

    def _cookies(self, headers: Headers) -> Iterable[str]:
        for header in headers.getlist("cookie"):
            try:
                found = SimpleCookie(header).get(self.cookie)
            except CookieError:
                continue
            if found is not None:
                yield found.value

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode("utf-8", "replace"), self._token)

    def _entered(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to an address with the token: a cookie, and the address without it.

        A browser holds a strict cookie back while it follows a redirect from elsewhere, so where
        somebody else led here (a terminal in a browser, the file that opens the page), a page of
        ours goes on instead.
        """
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == TOKEN]
        if scope["method"] != "GET" or not given:
            return None
        if len(given) != 1 or not self._is_token(given[0]):
            return Response(status_code=403)
        left = urlencode([each for each in query if each[0] != TOKEN])
        # A path that begins with two slashes would lead to another host.
        path = "/" + scope["path"].lstrip("/")
        to = str(RedirectResponse(f"{path}?{left}" if left else path).headers["location"])
        answer = Response(status_code=303, headers={"Location": to})
        if headers.get("sec-fetch-site", "none") not in _OURS:
            answer = Response(status_code=200, headers={"Refresh": f"0; url={to}"})
        answer.set_cookie(
            self.cookie, self._token.decode(), httponly=True, samesite="strict", path="/"
        )
        return answer
