"""A browser without a window: it asks the page as a person's would."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import httpx

from bouncer_console.web.app import application
from bouncer_console.web.pages import PAGES
from bouncer_console.web.site import Local, LocalBounce, Page, ProblemError, Site

PORT = 8123
TOKEN = "the-token-of-this-run"
ORIGIN = f"http://127.0.0.1:{PORT}"


class LocalMail:
    """AWS on this machine, as far as the page sees it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, tuple[str, ...], bytes]] = []
        self.trace: dict[str, Any] | None = None
        self.sent_bounces: dict[str, list[LocalBounce]] = {}

    def send(self, mail_from: str, recipients: Sequence[str], mail: bytes) -> str:
        if "refused@example.net" in recipients:
            raise ProblemError("SES refused refused@example.net: 550")
        self.sent.append((mail_from, tuple(recipients), mail))
        return "mail1"

    def steps(self, message_id: str) -> Mapping[str, Any] | None:
        return self.trace if message_id == "mail1" else None

    def bounces(self, message_id: str) -> Sequence[LocalBounce]:
        return self.sent_bounces.get(message_id, [])


class Answer:
    """What came back."""

    def __init__(self, response: Any) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.html: str = response.text
        self.url = str(response.url)

    @property
    def text(self) -> str:
        """What a person reads, in one line."""
        body = self.html.partition("<main")[2]
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


class Client:
    """Sends requests as they are given; keeps cookies."""

    def __init__(self, app: Any) -> None:
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url=ORIGIN, trust_env=False
        )

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            return await self._client.request(method, url, **options)

        return anyio.run(ask)

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> httpx.Response:
        return self.request("POST", url, **options)


class Browser:
    """Sends what a browser sends: its cookie, and whose page led to the request."""

    def __init__(
        self, *, local: Local | None = None, pages: Sequence[Page] = PAGES, enter: bool = True
    ) -> None:
        self.site = Site(stack="ses-bouncer", region=None, pages=pages, local=local)
        app = application(self.site, token=TOKEN, port=PORT)
        self.client = Client(app)
        if enter:
            self.client.get(f"/static/icon.svg?token={TOKEN}")

    def get(self, path: str, headers: Mapping[str, str] | None = None, **query: str) -> Answer:
        given = {"Sec-Fetch-Site": "none"} | dict(headers or {})
        return Answer(
            self.client.get(path, params=query or None, headers=given, follow_redirects=True)
        )

    def post(
        self,
        path: str,
        fields: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Answer:
        """Send a form of the page."""
        given = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"} | dict(headers or {})
        data = {"csrf": self.site.csrf} | dict(fields or {})
        uploads = {name: (f"{name}.eml", content) for name, content in (files or {}).items()}
        return Answer(
            self.client.post(
                path, data=data, headers=given, files=uploads or None, follow_redirects=True
            )
        )
