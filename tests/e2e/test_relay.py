"""DSNs are mailed on to a relay when AWS on this machine is told of one."""

import email
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from local.aws.server import free_port
from local.stack import prepare_account, running


class Relay:
    """An SMTP server that keeps what it is given."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []

    async def handle_DATA(  # noqa: N802  (aiosmtpd's name)
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        self.taken.append(envelope)
        return "250 OK"


@pytest.fixture
def relay() -> Iterator[tuple[Relay, int]]:
    handler, port = Relay(), free_port()
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield handler, port
    controller.stop()


def test_a_dsn_is_mailed_to_the_relay_with_a_null_return_path(
    relay: tuple[Relay, int], tmp_path: Path
) -> None:
    handler, port = relay
    options = ["--relay", f"127.0.0.1:{port}"]
    with running(outbox=tmp_path, options=options) as aws:
        prepare_account(aws)
        ses = aws.client("ses")
        rule: Any = {
            "Name": "all",
            "Enabled": True,
            "Actions": [{"AddHeaderAction": {"HeaderName": "X-Seen", "HeaderValue": "yes"}}],
        }
        ses.create_receipt_rule(RuleSetName="local", Rule=rule)
        ses.set_active_receipt_rule_set(RuleSetName="local")
        with smtplib.SMTP("127.0.0.1", aws.smtp_port, timeout=30) as client:
            client.ehlo("mx.sender.example")
            client.mail("pat@sender.example")
            client.rcpt("nobody@example.com")
            code, answer = client.data(b"Subject: hello\r\n\r\nhello\r\n")
        assert code == 250
        ses.send_bounce(
            OriginalMessageId=answer.decode().split()[-1],
            BounceSender="mailer-daemon@example.com",
            BouncedRecipientInfoList=[
                {"Recipient": "nobody@example.com", "BounceType": "DoesNotExist"}
            ],
        )
    (envelope,) = handler.taken
    assert envelope.mail_from == "<>"
    assert envelope.rcpt_tos == ["pat@sender.example"]
    assert isinstance(envelope.content, bytes)
    assert email.message_from_bytes(envelope.content).get_content_type() == "multipart/report"
    (written,) = tmp_path.glob("*.eml")
    assert envelope.content.splitlines() == written.read_bytes().splitlines()
