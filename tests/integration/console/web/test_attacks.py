"""The page attacked over a socket, byte by byte: what no HTTP client would send."""

import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from bouncer_console.web.app import Server
from bouncer_console.web.pages import PAGES
from tests.integration.console.builders import Stack
from tests.integration.sockets import told


class Victim:
    """The page of a stack, and somebody who is let in."""

    def __init__(self, server: Server) -> None:
        self.port = server.port
        self.csrf = server.site.csrf
        self.token = server.address.partition("token=")[2]
        self.cookie = f"Cookie: bouncer-{self.port}={self.token}"
        self.ours = (f"Origin: http://127.0.0.1:{self.port}", "Sec-Fetch-Site: same-origin")

    def told(self, data: bytes) -> bytes:
        return told(self.port, data)

    def ask(self, line: str, *headers: str, host: str | None = "", body: bytes = b"") -> bytes:
        """
        Args:
            host: "" is the page's own, None no header at all.
        """
        named = [] if host is None else [f"Host: {host or f'127.0.0.1:{self.port}'}"]
        head = "\r\n".join((line, *named, *headers, "Connection: close", "", ""))
        return self.told(head.encode("latin-1") + body)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def fields(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[0].lower()


@pytest.fixture
def victim(stack: Stack) -> Iterator[Victim]:
    server = Server(stack="ses-bouncer", region=None)
    uvicorns: list[uvicorn.Server] = []
    thread = threading.Thread(target=server.run, args=(uvicorns.append,), daemon=True)
    thread.start()
    while not (uvicorns and uvicorns[0].started):
        time.sleep(0.02)
    found = Victim(server)
    yield found
    assert status(found.ask("GET /directory HTTP/1.1", found.cookie)) == 200, "it still answers"
    uvicorns[0].should_exit = True
    thread.join(10)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:PORT evil",
        "localhost.:PORT",
        "127.0.0.1:PORT\r\nHost: evil.example",
        "evil.example\r\nHost: 127.0.0.1:PORT",
        "evil.example\r\nX-Forwarded-Host: 127.0.0.1:PORT",
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_another_host_is_told_nothing_with_the_cookie_itself(
    victim: Victim, host: str | None, version: str
) -> None:
    named = host and host.replace("PORT", str(victim.port))
    answer = victim.ask(f"GET /directory HTTP/{version}", victim.cookie, host=named)
    assert status(answer) in (400, 403)
    assert victim.csrf.encode() not in answer


def test_an_address_in_the_request_line_leads_nowhere_else(victim: Victim) -> None:
    """A proxy's form of a request (RFC 9112 §3.2.2)."""
    whole = f"http://127.0.0.1:{victim.port}/directory"
    line = f"GET {whole} HTTP/1.1"
    assert status(victim.ask(line, victim.cookie, host="evil.example")) == 403
    assert status(victim.ask("GET http://evil.example/directory HTTP/1.1", victim.cookie)) == 404


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e%2f%2e%2e%2fweb/app.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/....//app.py",
        "/static/..\\app.py",
        "/static/%5c..%5capp.py",
        "/static/%00",
        "/static/style.css%00.txt",
        "/static/" + "%2e%2e/" * 30 + "etc/passwd",
        "/static/" + "a" * 5000,
        "/%0d%0aSet-Cookie:%20evil=1",
        "//evil.example/",
        "/directory/..;/policy",
        "/directory%2f..%2fpolicy",
    ],
)
def test_no_path_leads_out_of_the_page(victim: Victim, path: str) -> None:
    answer = victim.ask(f"GET {path} HTTP/1.1", victim.cookie)
    assert status(answer) == 404
    assert b"evil" not in fields(answer)
    assert b"root:" not in answer
    assert b"import " not in answer


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"G\x01T / HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 2_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 3_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 300,
        b"EHLO evil\r\nMAIL FROM:<>\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    ],
    ids=["NUL", "verb", "line", "field", "fields", "TLS", "SMTP", "HTTP 2", "CONNECT", "OPTIONS"],
)
def test_what_is_no_request_ends_soon_and_says_nothing(victim: Victim, data: bytes) -> None:
    answer = victim.told(data)
    assert not answer or status(answer) in (400, 403)
    assert victim.csrf.encode() not in answer


POSTS = [page.path + view.path for page in PAGES for view in page.views if view.method == "POST"]
FORM = "Content-Type: application/x-www-form-urlencoded"


@pytest.mark.parametrize("path", POSTS)
def test_no_form_is_taken_without_the_pages_own_secret(victim: Victim, path: str) -> None:
    """Also of a browser that holds the cookie: a page on another port, an older run's form."""
    line = f"POST {path} HTTP/1.1"
    forged, right = b"csrf=guessed&sure=yes", f"csrf={victim.csrf}&sure=yes".encode()
    answers = [
        victim.ask(line, victim.cookie, *victim.ours, FORM, _length(forged), body=forged),
        victim.ask(
            line, victim.cookie, "Origin: http://evil.example", FORM, _length(right), body=right
        ),
        victim.ask(line, victim.cookie, "Content-Type: text/plain", _length(right), body=right),
        victim.ask(line, *victim.ours, FORM, _length(right), body=right),
    ]
    assert {status(each) for each in answers} <= {403, 404}  # 404: only with AWS on this machine


def _length(body: bytes) -> str:
    return f"Content-Length: {len(body)}"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Transfer-Encoding: chunked"], b"4\r\nsure\r\n0\r\n\r\n"),
        (["Content-Length: 4", "Transfer-Encoding: chunked"], b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
        (["Content-Length: 4", "Content-Length: 40"], b"sure"),
        (["Content-Length: -1"], b"sure"),
        (["Content-Length: +4"], b"sure"),
        (["Content-Length: 99999999999"], b"sure"),
        (["Content-Type: multipart/form-data; boundary=", "Content-Length: 4"], b"sure"),
        (
            ["Content-Type: multipart/form-data; boundary=b", "Content-Length: 65"],
            b'--b\r\nContent-Disposition: form-data; name="csrf"\r\n\r\nx\r\n--b--\r\n12345',
        ),
        (
            ["Content-Type: application/x-www-form-urlencoded; charset=utf-7", "Content-Length: 9"],
            b"csrf=\xff\x00\xfe%",
        ),
    ],
    ids=["chunks", "both", "two", "negative", "plus", "huge", "boundary", "part", "charset"],
)
def test_a_form_of_another_length_or_shape_is_none(
    victim: Victim, headers: list[str], body: bytes
) -> None:
    line = f"POST {POSTS[0]} HTTP/1.1"
    answer = victim.ask(line, victim.cookie, *victim.ours, *headers, body=body)
    assert 400 <= status(answer) < 500
    assert answer.count(b"HTTP/1.1 ") == 1, "one request, one answer"
