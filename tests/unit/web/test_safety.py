"""Who is let in, and what a page may do in a browser."""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
import httpx
import pytest
from starlette.responses import PlainTextResponse, Response

from bouncer_console.web.app import application
from bouncer_console.web.pages import PAGES
from bouncer_console.web.site import Ask, Page, get, post
from bouncer_console.web.text import environment
from tests.unit.web.builders import ORIGIN, PORT, TOKEN, Browser, Client, LocalMail

COOKIE = f"bouncer-{PORT}={TOKEN}"
NO_TOKENS = ["", "?token=", "?token=wrong", f"?token={TOKEN}x", f"?Token={TOKEN}"]
PATHS = ["/", "/directory", "/static/style.css", "/static/../app.py", "/nowhere"]
VIEWS = [(page, view) for page in PAGES for view in page.views]


def _echo(ask: Ask) -> Response:
    return PlainTextResponse(ask.form.get("text", ""))


def _files(ask: Ask) -> Response:
    return PlainTextResponse(",".join(f"{k}={len(v)}" for k, v in ask.files.items()))


ECHO = Page(
    path="/echo",
    title="Echo",
    views=[get("", _echo), post("", _echo, limit=1000), post("/file", _files, limit=1000)],
)


def raw(browser: Browser) -> Client:
    """Without the headers that a browser adds."""
    return browser.client


@pytest.fixture
def browser() -> Browser:
    return Browser(pages=[ECHO, *PAGES], local=LocalMail())


@pytest.fixture
def stranger() -> Client:
    return raw(Browser(pages=[ECHO, *PAGES], enter=False))


def assert_says_nothing(response: httpx.Response) -> None:
    assert response.status_code == 403
    assert response.content == b""
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("query", NO_TOKENS)
def test_without_the_token_nothing_is_said(stranger: Client, path: str, query: str) -> None:
    assert_says_nothing(stranger.get(path + query))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_the_token_in_the_address_lets_nobody_do_anything(stranger: Client, method: str) -> None:
    assert_says_nothing(stranger.request(method, f"/directory/save?token={TOKEN}"))


def test_the_token_is_in_the_address_once(stranger: Client) -> None:
    entered = stranger.get(f"/directory?find=a%20b&token={TOKEN}")
    assert (entered.status_code, entered.headers["location"]) == (303, "/directory?find=a+b")
    cookie = entered.headers["set-cookie"]
    assert cookie.startswith(f"bouncer-{PORT}={TOKEN};")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {each.strip() for each in cookie.split(";")}
    assert stranger.get("/echo").status_code == 200


def test_a_token_given_twice_is_none(stranger: Client) -> None:
    assert_says_nothing(stranger.get(f"/?token={TOKEN}&token=x"))


def test_whoever_is_led_here_goes_on_by_a_page_of_ours(stranger: Client) -> None:
    led = {"Sec-Fetch-Site": "cross-site"}
    entered = stranger.get(f"/directory?token={TOKEN}", headers=led)
    assert (entered.status_code, entered.headers["refresh"]) == (200, "0; url=/directory")


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "///evil.example/x"])
def test_the_token_leads_to_no_other_host(stranger: Client, path: str) -> None:
    entered = stranger.get(f"{ORIGIN}{path}?token={TOKEN}")
    assert entered.status_code == 303
    assert entered.headers["location"].startswith("/")
    assert not entered.headers["location"].startswith(("//", "/\\"))


@pytest.mark.parametrize("cookie", ["", "x", TOKEN.upper(), TOKEN[:-1], "ä", '"', "\x00"])
def test_another_cookie_is_none(stranger: Client, cookie: str) -> None:
    header = f"bouncer-{PORT}={cookie}".encode()
    assert_says_nothing(stranger.get("/", headers={b"cookie": header}))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        f"evil.example:{PORT}",
        "127.0.0.1",
        f"127.0.0.1:{PORT + 1}",
        f"127.0.0.1.evil.example:{PORT}",
        f"127.0.0.1:{PORT}@evil.example",
        "",
    ],
)
def test_a_name_that_was_led_here_gets_nothing(browser: Browser, host: str) -> None:
    client = raw(browser)
    assert_says_nothing(client.get("/", headers={"Host": host}))
    assert_says_nothing(client.get(f"/?token={TOKEN}", headers={"Host": host}))


def test_localhost_is_this_machine_too(browser: Browser) -> None:
    assert raw(browser).get("/", headers={"Host": f"localhost:{PORT}"}).status_code == 303


OTHERS: list[Mapping[str, str]] = [
    {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://evil.example"},
    {"Origin": f"http://127.0.0.1:{PORT + 1}", "Sec-Fetch-Site": "same-site"},
    {"Origin": f"https://127.0.0.1:{PORT}"},
    {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "null"},
    {"Origin": "null", "Sec-Fetch-Site": "none"},
    {"Origin": f"http://localhost:{PORT}", "Sec-Fetch-Site": "same-site"},
    {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {},
]


@pytest.mark.parametrize("headers", OTHERS)
@pytest.mark.parametrize(
    "path", [page.path + view.path for page, view in VIEWS if view.method == "POST"]
)
def test_nobody_elses_form_is_taken(browser: Browser, headers: dict[str, str], path: str) -> None:
    data = {"csrf": browser.site.csrf}
    assert_says_nothing(raw(browser).post(path, data=data, headers=headers))


@pytest.mark.parametrize("site", ["cross-site", "same-site", "strange"])
def test_nobody_elses_page_can_load_ours(browser: Browser, site: str) -> None:
    assert_says_nothing(raw(browser).get("/echo", headers={"Sec-Fetch-Site": site}))
    assert_says_nothing(raw(browser).get("/static/style.css", headers={"Sec-Fetch-Site": site}))


@pytest.mark.parametrize("given", [{}, {"csrf": ""}, {"csrf": "x"}, {"csrf": "ä"}])
@pytest.mark.parametrize(
    "path", [page.path + view.path for page, view in VIEWS if view.method == "POST"]
)
def test_every_form_proves_that_it_is_ours(
    browser: Browser, given: dict[str, str], path: str
) -> None:
    headers = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
    assert_says_nothing(raw(browser).post(path, data=given, headers=headers))


def test_under_no_referrer_a_form_of_ours_comes_with_the_origin_null() -> None:
    browser = Browser(pages=[ECHO])
    answer = browser.post("/echo", {"text": "hi"}, headers={"Origin": "null"})
    assert (answer.status, answer.html) == (200, "hi")


def test_a_form_is_bounded() -> None:
    browser = Browser(pages=[ECHO])
    assert browser.post("/echo", {"text": "x" * 2000}).status == 413
    assert browser.post("/echo/file", files={"mail": b"x" * 2000}).status == 413
    assert browser.post("/echo/file", files={"mail": b"x" * 200}).html == "mail=200"
    many = {f"field{number}": "" for number in range(300)}
    assert (
        Browser(pages=[Page(path="/echo", title="", views=[post("", _echo)])])
        .post("/echo", many)
        .status
        == 400
    )


def test_a_body_without_a_length_is_not_taken() -> None:
    client = raw(Browser(pages=[ECHO]))
    headers = {"Origin": ORIGIN, "Content-Type": "application/x-www-form-urlencoded"}

    async def pieces() -> AsyncIterator[bytes]:
        yield b"text=hi"

    answer = client.post("/echo", content=pieces(), headers=headers)
    assert answer.status_code == 411


ANSWERS = ["/", "/echo", "/nowhere", "/static/style.css", f"/?token={TOKEN}", "/?token=wrong"]


@pytest.mark.parametrize("path", ANSWERS)
def test_every_answer_says_what_a_browser_may_do_with_it(browser: Browser, path: str) -> None:
    headers = raw(browser).get(path).headers
    policy = dict(
        each.strip().partition(" ")[::2] for each in headers["content-security-policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert not [name for name in headers if name.startswith("access-control")]


def test_web_sockets_are_closed(browser: Browser) -> None:
    sent: list[Any] = []

    async def connect() -> None:
        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        app = application(browser.site, token=TOKEN, port=PORT)
        headers = [(b"host", f"127.0.0.1:{PORT}".encode()), (b"cookie", COOKIE.encode())]
        scope = {"type": "websocket", "path": "/", "headers": headers, "query_string": b""}
        await app(scope, receive, send)

    anyio.run(connect)
    assert [each["type"] for each in sent] == ["websocket.close"]


def _sources() -> dict[str, str]:
    loader = environment().loader
    assert loader is not None
    return {
        name: loader.get_source(environment(), name)[0]
        for name in loader.list_templates()
        if name.endswith(".html")
    }


SOURCES = _sources()


@pytest.mark.parametrize("name", SOURCES)
def test_a_template_leaves_no_value_unescaped_and_loads_nothing_from_elsewhere(name: str) -> None:
    source = SOURCES[name]
    for forbidden in ("|safe", "| safe", "autoescape", "Markup", "<script", "style="):
        assert forbidden not in source, forbidden
    # The report is a file to send to somebody, with a policy of its own that names its style.
    assert ("<style" in source) == (name == "report.html")
    for forbidden in ("http://", "https://", 'src="//', "javascript:"):
        assert forbidden not in source, forbidden
    assert not re.findall(r"<[^>]*\son\w+=", source)
    # Without quotes, a value could add attributes of its own.
    assert not re.findall(r"=\{\{", source)


@pytest.mark.parametrize("name", SOURCES)
def test_every_form_that_posts_holds_the_token(name: str) -> None:
    for form in SOURCES[name].split("<form")[1:]:
        inner = form.partition("</form>")[0]
        if 'method="post"' in inner:
            assert 'name="csrf" value="{{ csrf }}"' in inner
