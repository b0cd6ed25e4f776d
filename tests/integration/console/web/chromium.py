"""Chromium at a page that was let in; what the tests in a real browser share."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, Request

from bouncer_console.web.app import Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not here: install chromium"
)
ALONE = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
EVIL = "<script>alert(1)</script>\x1b[31m\u202e[red]" + "W" * 10_000
EVIL_SENDER = f"{EVIL[:300]}@evil.example"
SIZES = {"desktop": (1280, 900), "phone": (390, 844), "narrow": (320, 640)}


@contextmanager
def opened(
    chromium: Browser, served: Server, size: str = "desktop", scheme: Any = "light"
) -> Iterator[tuple[Page, list[str]]]:
    """A page that was let in, and what it complained of."""
    width, height = SIZES[size]
    context: BrowserContext = chromium.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme
    )
    page = context.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))

    def dismissed(dialog: Dialog) -> None:
        trouble.append("a dialog")
        dialog.dismiss()

    def asked(request: Request) -> None:
        if not _is_ours(request.url, served):
            trouble.append(request.url)

    page.on("dialog", dismissed)
    page.on("request", asked)
    page.goto(served.address)
    try:
        yield page, trouble
    finally:
        context.close()


def _is_ours(url: str, served: Server) -> bool:
    return url.startswith((f"http://127.0.0.1:{served.port}/", "data:"))
