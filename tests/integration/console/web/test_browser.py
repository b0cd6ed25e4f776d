"""The page in Chromium: as it looks, by keyboard, and against other pages."""

import re
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from playwright.sync_api import Browser, Page
from playwright.sync_api import Error as PlaywrightError

from bouncer.mailboxes import Status
from bouncer_console.web import command
from bouncer_console.web.app import Server
from bouncer_console.web.text import link
from tests.integration.console.web.chromium import EVIL_SENDER, SIZES, needs_chromium, opened
from tests.integration.console.web.test_directory import ALICE, entry

pytestmark = needs_chromium

PATHS = [
    "/now",
    "/now/queue",
    "/mail",
    "/mail?since=24h",
    "/mail?id=msg1&explain=yes",
    "/mail?id=made-up",
    "/attack",
    "/attack/filters",
    "/attack/mend?kind=Recipient&name=nobody%40example.com",
    link("/attack/mend", kind="Sender", name=EVIL_SENDER),
    "/attack/mend?kind=Domain&name=sender.example",
    "/attack/mend?kind=Network&name=198.51.100.0%2F24",
    "/directory",
    "/directory/whole",
    "/directory?kind=domains",
    f"/directory/entry?address={ALICE}",
    "/policy",
    "/policy/explain",
    "/policy/compare",
    "/dead-letters",
    "/write",
    "/nowhere",
]

# Text whose contrast to what is behind it is under 4.5 (WCAG 1.4.3), and what has no name.
_PALE = """() => {
  const rgb = text => {
    const numbers = (text.match(/[\\d.]+/g) || []).map(Number);
    return numbers.length < 4 ? [...numbers, 1] : numbers;
  };
  const linear = v => v <= 10 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = rgb(getComputedStyle(element).backgroundColor);
      if (colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.data.trim(), element = walk.currentNode.parentElement;
    if (!text || !element.checkVisibility() || element.closest(":disabled")) continue;
    const two = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(...two) + .05) / (Math.min(...two) + .05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(1)} ${element.tagName} ${text.slice(0, 40)}`);
  }
  return found;
}"""
_UNNAMED = """() => [...document.querySelectorAll(
    "input:not([type=hidden]), select, textarea, button, meter, progress, a[href]")]
  .filter(e => !e.closest("[aria-hidden=true]"))
  .filter(e => !e.labels?.length && !e.getAttribute("aria-label") && !e.textContent.trim())
  .map(e => e.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_page_can_be_read_at_every_width(
    chromium: Browser, served: Server, size: str, scheme: str
) -> None:
    with opened(chromium, served, size, scheme) as (page, trouble):
        for path in PATHS:
            page.goto(f"http://127.0.0.1:{served.port}{path}")
            page.wait_for_selector("main:not(:has(progress))", timeout=30_000)
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{path} is {wide} pixels too wide"
            assert page.evaluate(_PALE) == [], path
            assert page.evaluate(_UNNAMED) == [], path
            assert page.locator("h1").count() == 1, path
            assert page.locator("html[lang=en] main#main").count() == 1, path
    assert [each for each in trouble if "404" not in each] == []


def test_whoever_is_led_in_by_the_file_leaves_the_token_behind(
    chromium: Browser, served: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    led: list[str] = []
    monkeypatch.setattr(webbrowser, "open", led.append)
    context = chromium.new_context()
    with command.opened(served.address):
        path = Path(led[0].removeprefix("file://"))
        assert (path.stat().st_mode & 0o77, path.parent.stat().st_mode & 0o77) == (0, 0)
        page = context.new_page()
        page.goto(led[0])
        first = served.site.pages[0]
        page.wait_for_url(re.compile(f"{first.path}$"), timeout=10_000)
        assert page.locator("[aria-current]").inner_text() == first.title
        assert page.evaluate("document.cookie") == "", "no script may read it"
    assert not path.exists()
    assert "token" not in page.url
    context.close()


def test_everything_is_done_by_keyboard(
    chromium: Browser, served: Server, dynamodb: DynamoDBClient
) -> None:
    with opened(chromium, served) as (page, trouble):
        page.goto(f"http://127.0.0.1:{served.port}/directory")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the page"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "find"
        seen = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert seen == "solid", "where one is has to be seen"
        page.keyboard.type(ALICE)
        page.keyboard.press("Enter")
        page.wait_for_selector("text=900 bytes of 1 kB")
        _tab_to(page, "Disable …")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"text=Let {ALICE} take no mail?")
        assert entry(dynamodb, ALICE).status is Status.ACTIVE
        _tab_to(page, "Disable it")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=is disabled: it takes no mail")
        assert entry(dynamodb, ALICE).status is Status.DISABLED
    assert trouble == []


def _tab_to(page: Page, text: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == text:
            return
    raise AssertionError(f"Tab does not lead to {text}")


@contextmanager
def elsewhere(page: Callable[[str], str], target: str) -> Iterator[str]:
    """A page of somebody else's, on this machine too; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page(target).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def _evil(target: str) -> str:
    return f"""<!doctype html><title>waiting</title><body>
    <form id=f method=post action="{target}/directory/disable">
    <input name=address value="{ALICE}"><input name=sure value=yes></form>
    <iframe name=i src="{target}/directory"></iframe>
    <script>
    const tried = [];
    const image = ok => new Promise(done => {{ const i = new Image();
      i.onload = () => done(tried.push("image")); i.onerror = done;
      i.src = "{target}/static/icon.svg"; }});
    const fetched = fetch("{target}/directory", {{credentials: "include"}})
      .then(() => tried.push("fetch"), () => 0);
    const posted = fetch("{target}/directory/disable", {{method: "POST", mode: "no-cors",
      credentials: "include", body: new URLSearchParams({{address: "{ALICE}", sure: "yes"}})}})
      .then(() => 0, () => 0);
    Promise.all([image(), fetched, posted]).then(() => {{
      console.log("script got: " + (tried.join() || "nothing"));
      document.getElementById("f").submit(); }});
    </script>"""


def test_a_page_of_somebody_elses_gets_nothing(
    chromium: Browser, served: Server, dynamodb: DynamoDBClient
) -> None:
    target = f"http://127.0.0.1:{served.port}"
    with opened(chromium, served) as (owners, _), elsewhere(_evil, target) as other:
        page = owners.context.new_page()  # beside the page that was let in, with its cookie
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        asked: list[str] = []
        answers: list[tuple[str, int]] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("response", lambda response: answers.append((response.url, response.status)))
        page.goto(other)
        for _ in range(150):
            # What its script asked for, the browser keeps from it: only the form has an answer.
            if (f"{target}/directory/disable", 403) in answers:
                break
            page.wait_for_timeout(100)
        # Some of it the browser asks for twice.
        tried = {url.removeprefix(target) for url in asked if url.startswith(target)}
        assert tried == {"/directory", "/directory/disable", "/static/icon.svg"}
        assert {status for url, status in answers if url.startswith(target)} == {403}
        assert "script got: nothing" in said
    assert entry(dynamodb, ALICE).status is Status.ACTIVE


def test_a_name_that_leads_here_gets_nothing(chromium: Browser, served: Server) -> None:
    """DNS rebinding, as far as a browser sees it: another name for this address."""
    context = chromium.new_context()
    page = context.new_page()
    answers: list[tuple[int, str]] = []
    page.on(
        "response",
        lambda response: answers.append((response.status, response.headers["content-length"])),
    )
    with pytest.raises(PlaywrightError, match="ERR_HTTP_RESPONSE_CODE_FAILURE"):
        page.goto(served.address.replace("127.0.0.1", "rebound.localhost"))
    assert answers == [(403, "0")]
    context.close()
