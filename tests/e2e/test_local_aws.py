"""AWS on this machine trusts nobody but whoever has this run's key."""

import http.client
import json
import os
import smtplib
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Key

from local import docker
from local.stack import STATE, Aws, running
from tests.e2e.conftest import Site

CREATE = "/2015-03-31/functions"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with running(outbox=tmp_path_factory.mktemp("outbox") / "dsns") as aws:
        yield aws


def _ask(
    aws: Aws,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    *,
    address: str = "127.0.0.1",
) -> tuple[int, bytes]:
    """One request as it stands, with nothing added but what HTTP asks for."""
    with closing(http.client.HTTPConnection(address, aws.port, timeout=10)) as connection:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in ({"Host": f"127.0.0.1:{aws.port}"} | (headers or {})).items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()


def _signed(
    aws: Aws,
    key: Key | None = None,
    *,
    service: str = "lambda",
    path: str = CREATE,
    method: str = "GET",
    body: bytes = b"",
    more: dict[str, str] | None = None,
) -> dict[str, str]:
    """The headers that boto3 would send."""
    own = aws.credentials
    headers = {"Host": f"127.0.0.1:{aws.port}"} | (more or {})
    request = AWSRequest(method, f"http://127.0.0.1:{aws.port}{path}", headers=headers, data=body)
    key = key or Key(own.access_key_id, own.secret_access_key)
    SigV4Auth(key, service, "us-east-1").add_auth(request)
    return dict(request.headers)


def _functions(aws: Aws) -> list[object]:
    found: list[object] = aws.client("lambda").list_functions()["Functions"]
    return found


def test_whoever_has_the_key_is_served(aws: Aws) -> None:
    status, answer = _ask(aws, "GET", CREATE, _signed(aws))

    assert status == 200
    assert json.loads(answer)["Functions"] == []


@pytest.mark.parametrize(
    "page",
    [
        {"Origin": "https://evil.example", "Content-Type": "text/plain"},
        {"Origin": "null", "Content-Type": "text/plain"},
        {"Origin": "http://127.0.0.1:8000", "Content-Type": "application/x-www-form-urlencoded"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example:4566"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "mail.s3.amazonaws.com"},
        {"Host": "x.lambda-url.us-east-1.localhost"},
        {"Host": ""},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", CREATE),
        ("POST", "/"),
        ("GET", "/bucket/key"),
        ("PUT", "/bucket/key"),
        ("OPTIONS", "/bucket/key"),
        ("POST", "/_ministack/reset"),
        ("POST", "/_ministack/config"),
        ("GET", "/_ministack/health"),
        ("GET", "/_local/mails"),
        ("GET", "/_aws/lambda-url/x/"),
        ("POST", "/graphql"),
    ],
)
def test_a_web_page_gets_nothing_on_any_path_even_with_the_key(
    aws: Aws, page: dict[str, str], method: str, path: str
) -> None:
    body = json.dumps({"FunctionName": "evil"}).encode()
    plain, _ = _ask(aws, method, path, page, body)
    signed = _signed(aws, path=path, method=method, body=body, more=page)
    with_key, answer = _ask(aws, method, path, {**signed, **page}, body)

    assert (plain, with_key) == (403, 403), answer
    assert _functions(aws) == []


@pytest.mark.parametrize(
    "key",
    [
        Key("test", "test"),
        Key("000000000000", "test"),
        Key("AKIAIOSFODNN7EXAMPLE", "test"),
        Key("ASIA0000000000000000", "guessed", "guessed"),
    ],
    ids=lambda key: str(key.access_key),
)
@pytest.mark.parametrize(
    "service", ["lambda", "s3", "sqs", "iam", "sts", "cloudformation", "made-up"]
)
def test_a_container_without_the_key_gets_nothing(aws: Aws, key: Key, service: str) -> None:
    for path in (CREATE, "/", "/bucket/key"):
        status, _ = _ask(
            aws,
            "POST",
            path,
            _signed(aws, key, service=service, path=path, method="POST", body=b"x"),
            b"x",
        )

        assert status == 403


def test_the_key_without_its_secret_is_worth_nothing(aws: Aws) -> None:
    key = Key(aws.credentials.access_key_id, "test")

    assert _ask(aws, "GET", CREATE, _signed(aws, key))[0] == 403


@pytest.mark.parametrize(
    "sign", ["", "Bearer x", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 x", "AWS a:b"]
)
@pytest.mark.parametrize("path", ["/", CREATE, "/bucket/key", "/health", "/_local/mails", "/_x"])
def test_what_is_not_signed_is_refused(aws: Aws, sign: str, path: str) -> None:
    status, _ = _ask(aws, "GET", path, {"Authorization": sign} if sign else {})

    assert status in (401, 403)


def test_a_signature_is_good_for_its_own_request_only(aws: Aws) -> None:
    headers = _signed(aws, body=b"{}", method="POST")

    assert _ask(aws, "POST", CREATE, headers, b'{"FunctionName": "evil"}')[0] == 403
    assert _ask(aws, "POST", f"{CREATE}/other/invocations", headers, b"{}")[0] == 403


@pytest.mark.parametrize("path", ["/_ministack/reset", "/_ministack/config", "/_localstack/health"])
def test_ministacks_administration_is_closed_to_everybody(aws: Aws, path: str) -> None:
    headers = _signed(aws, path=path, method="POST")

    assert _ask(aws, "POST", path, headers)[0] == 403


def test_the_functions_keys_can_not_be_guessed_from_their_names(site: Site) -> None:
    """ministack makes them of the function's name and its role's."""
    function = site.client("lambda").get_function_configuration(
        FunctionName=site.physical_id("InboundFunction")
    )
    digest = sha256(f"{function['FunctionArn']}:{function['Role']}".encode()).hexdigest()
    guessed = Key(
        f"ASIA{digest[:16].upper()}",
        sha256(f"secret:{digest}".encode()).hexdigest(),
        sha256(f"token:{digest}".encode()).hexdigest(),
    )
    site.trace(site.mail("alice@example.com"))  # the function runs, so its session is there

    assert _ask(site.aws, "GET", CREATE, _signed(site.aws, guessed))[0] == 403


def test_a_web_socket_is_closed(aws: Aws) -> None:
    status, _ = _ask(
        aws,
        "GET",
        "/_aws/execute-api/x/y",
        {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        },
    )

    assert status == 403


def test_it_listens_on_loopback_and_on_no_other_address(aws: Aws) -> None:
    others = {
        info[4][0]
        for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
        if not str(info[4][0]).startswith("127.")
    }
    for address in (*others, "127.0.0.2"):
        for port in (aws.port, aws.smtp_port):
            with socket.socket() as probe:
                assert probe.connect_ex((str(address), port)) != 0


def test_the_bridge_is_open_as_long_as_a_function_runs_in_its_container(aws: Aws) -> None:
    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.2", aws.port)) == 0

    assert not listens()
    with docker.door(aws.port, ("127.0.0.2",)):
        served = _ask(aws, "GET", CREATE, _signed(aws), address="127.0.0.2")
        refused = _ask(aws, "GET", CREATE, address="127.0.0.2")
    assert (served[0], refused[0]) == (200, 403)
    assert not listens()


@pytest.mark.parametrize(
    "verb", ["GET", "POST", "post", "PUT", "HEAD", "OPTIONS", "PATCH", "DELETE", "CONNECT", "TRACE"]
)
@pytest.mark.parametrize("path", ["/", "/" + "x" * 5000], ids=["short", "long"])
def test_smtp_ends_when_a_web_page_posts_a_mail(aws: Aws, verb: str, path: str) -> None:
    mail = (
        f"{verb} {path} HTTP/1.1\r\n\r\n"
        "HELO page\r\nMAIL FROM:<pat@sender.example>\r\nRCPT TO:<alice@example.com>\r\n"
        "DATA\r\nSubject: hello\r\n\r\nhello\r\n.\r\nQUIT\r\n"
    )
    with socket.create_connection(("127.0.0.1", aws.smtp_port), timeout=10) as client:
        client.sendall(mail.encode())
        answers = b""
        try:
            while data := client.recv(4096):
                answers += data
        except ConnectionResetError:
            pass  # it did not wait for the rest

    codes = [line[:3] for line in answers.splitlines()]
    assert codes in ([b"220", b"421"], [b"220"], [])
    assert aws.listing("mails") == []
    with smtplib.SMTP("127.0.0.1", aws.smtp_port, timeout=10) as next_one:
        assert next_one.ehlo("mx.sender.example")[0] == 250


def test_what_it_writes_is_its_owners_alone(aws: Aws) -> None:
    def others_may(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode) & 0o077

    written = STATE / f"credentials-{aws.port}.json"
    assert others_may(written) == 0
    assert json.loads(written.read_bytes()) == {
        "access_key_id": aws.credentials.access_key_id,
        "secret_access_key": aws.credentials.secret_access_key,
    }
    assert others_may(STATE) == 0
    assert others_may(aws.outbox) == 0


def test_every_run_has_a_key_of_its_own(aws: Aws, tmp_path: Path) -> None:
    with running(outbox=tmp_path) as other:
        there = {"Host": f"127.0.0.1:{other.port}"}
        assert other.credentials != aws.credentials
        assert _ask(other, "GET", CREATE, _signed(aws, more=there))[0] == 403
    assert os.environ.get("AWS_ACCESS_KEY_ID") != other.credentials.access_key_id
