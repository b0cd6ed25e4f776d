"""What anybody can do to the SMTP server of AWS on this machine: it is attacked over a socket."""

from collections.abc import Iterator

import pytest

from bouncer.headers import BLOCK_LIMIT
from bouncer_console.mail import ReceivedMail, Verdicts, lambda_event, receive
from local.aws import smtp
from local.aws.server import free_port
from tests.integration.sockets import told

BEGIN = (
    b"EHLO mx.sender.example\r\nMAIL FROM:<pat@sender.example>\r\n"
    b"RCPT TO:<alice@example.com>\r\nDATA\r\n"
)
SECOND = (
    b"MAIL FROM:<admin@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"
    b"From: admin@example.com\r\n\r\nsmuggled\r\n.\r\n"
)


class Server:
    """One that takes mail for example.com, and what it took."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.mails: list[ReceivedMail] = []
        self.asked = 0

    def accepts(self, address: str) -> bool:
        self.asked += 1
        return address.endswith("@example.com")

    def told(self, data: bytes) -> bytes:
        return told(self.port, data)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server(free_port())
    inbound = smtp.Inbound(
        accepts=found.accepts,
        blocks=lambda _: False,
        deliver=found.mails.append,
        defaults=Verdicts(),
    )
    controller = smtp.start(inbound, "127.0.0.1", found.port)
    yield found
    assert b"\r\n250 OK " in found.told(BEGIN + b"Subject: still there\r\n\r\n.\r\nQUIT\r\n")
    controller.stop()


@pytest.mark.parametrize(
    "end",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\r\n\0.\r\n",
        b"\n\r.\n\r",
        b"\r\n.\0\r\n",
        b"\r\r\n.\n",
    ],
)
def test_no_second_mail_is_smuggled_in_a_first_one(server: Server, end: bytes) -> None:
    """Only CRLF, a dot and CRLF end a mail (RFC 5321 §2.3.8, §4.1.1.4)."""
    server.told(BEGIN + b"Subject: one\r\n\r\nhi" + end + SECOND + b"QUIT\r\n")
    (mail,) = server.mails
    assert (mail.mail_from, mail.recipients) == ("pat@sender.example", ("alice@example.com",))
    assert b"smuggled" in mail.raw


def test_a_mail_has_a_hundred_recipients_at_most(server: Server) -> None:
    many = b"".join(b"RCPT TO:<u%d@example.com>\r\n" % number for number in range(2000))
    said = server.told(
        b"EHLO x\r\nMAIL FROM:<pat@sender.example>\r\n" + many + b"DATA\r\nx\r\n.\r\nQUIT\r\n"
    )
    assert len(server.mails[0].recipients) == smtp.RECIPIENTS
    assert server.asked == smtp.RECIPIENTS, "nobody is looked up for nothing"
    assert said.count(b"452 4.5.3") == 2000 - smtp.RECIPIENTS


@pytest.mark.parametrize(
    "data",
    [
        b"\0\xff\r\n" * 500 + b"QUIT\r\n",
        b"DATA\r\nRCPT TO:<a>\r\nMAIL\r\n.\r\n" * 50 + b"QUIT\r\n",
        b"EHLO " + b"a" * 50_000_000 + b"\r\nQUIT\r\n",
        BEGIN + b"a" * 50_000_000 + b"\r\n.\r\nQUIT\r\n",
        BEGIN + (b"a" * 900 + b"\r\n") * 50_000 + b".\r\nQUIT\r\n",
        b"EHLO x\r\nMAIL FROM:<pat@sender.example\nRCPT TO:<eve@example.com>>\r\nDATA\r\nQUIT\r\n",
        b"EHLO x\r\nMAIL FROM:<pat@sender.example> SIZE=99999999999\r\nDATA\r\n.\r\nQUIT\r\n",
        b"EHLO x\r\nMAIL FROM:<\xff@x.example>\r\nRCPT TO:<\xff@example.com>\r\nDATA\r\nQUIT\r\n",
        bytes.fromhex("1603010200010001fc0303") + bytes(range(256)) + b"\r\nQUIT\r\n",
    ],
    ids=["junk", "order", "command", "line", "size", "newline", "declared", "8 bit", "TLS"],
)
def test_what_is_no_mail_is_none_and_the_next_client_is_served(server: Server, data: bytes) -> None:
    server.told(data)
    assert server.mails == []


@pytest.mark.parametrize(
    "header",
    [b"a\n", b"A: b\r\n", b" z\r\n", b"=?utf-8?q?a?= ", b"(a)", b"a@b.c,"],
    ids=["lines", "fields", "folds", "words", "comments", "addresses"],
)
def test_a_mail_of_any_shape_is_taken_and_told_of(server: Server, header: bytes) -> None:
    """Its headers are bounded before anything is made of them; what stands behind stays."""
    data = b"To: x\r\nFrom: " + header * (3 * BLOCK_LIMIT // len(header)) + b"\r\nX-Last: 1"
    server.told(BEGIN + data + b"\r\n.\r\nQUIT\r\n")
    (mail,) = server.mails
    assert b"X-Last: 1" in mail.raw[-100:]
    event = lambda_event(mail, recipients=mail.recipients, function_arn="arn")
    assert event["Records"][0]["ses"]["mail"]["source"] == "pat@sender.example"


def test_what_is_beyond_the_headers_that_are_read_stays_as_it_came() -> None:
    fields = b"".join(b"X-%07d: %s\r\n" % (n, b"y" * 88) for n in range(BLOCK_LIMIT // 50))
    mail = receive(fields + b"\r\nbody\r\n", mail_from="", recipients=("a@example.com",))
    assert mail.raw.endswith(fields + b"\r\nbody\r\n")
