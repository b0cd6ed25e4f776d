"""The page as an ASGI application, and its server."""

import secrets
import socket
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from bouncer_console.web.pages import PAGES
from bouncer_console.web.safety import TOKEN, Gate
from bouncer_console.web.site import Local, Site, not_found

HERE = Path(__file__).parent


def application(site: Site, *, token: str, port: int) -> ASGIApp:
    """Everything, behind the gate."""

    async def first(_request: Request) -> Response:
        return RedirectResponse(site.pages[0].path, 303)

    async def nowhere(request: Request, _error: Exception) -> Response:
        return not_found(site, request)

    pages = Starlette(
        routes=[
            Route("/", first),
            Mount("/static", StaticFiles(directory=HERE / "static")),
            *site.routes(),
        ],
        exception_handlers={404: nowhere, 405: nowhere},
    )
    return Gate(pages, token=token, port=port)


class Server:
    """The page on a loopback port, from the moment that this is made."""

    def __init__(
        self, *, stack: str, region: str | None, port: int = 0, local: Local | None = None
    ) -> None:
        """
        Args:
            port: 0 takes a free one.

        Raises:
            OSError: the port is taken.
        """
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._socket.listen(64)
        self.port: int = self._socket.getsockname()[1]
        self._token = secrets.token_urlsafe(32)
        self.site = Site(stack=stack, region=region, pages=PAGES, local=local)

    @property
    def address(self) -> str:
        """Where a browser gets in; holds the token."""
        return f"http://127.0.0.1:{self.port}/?{TOKEN}={self._token}"

    def run(self, started: Callable[[uvicorn.Server], object] = lambda _: None) -> None:
        """Serve until a signal.

        Args:
            started: is given the server, which ends when its `should_exit` is set.
        """
        config = uvicorn.Config(
            application(self.site, token=self._token, port=self.port),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            limit_concurrency=64,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        started(server)
        # The first page with a plot would wait for it.
        threading.Thread(target=import_module, args=("bouncer_console.plots",), daemon=True).start()
        try:
            server.run(sockets=[self._socket])
        except KeyboardInterrupt:
            pass
        finally:
            self._socket.close()
