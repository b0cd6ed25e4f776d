"""The operator's page for AWS on this machine; `make local` starts it and prints its address.

`python -m local.web` runs in the environment of that AWS, and ends when its starter does.
"""

import contextlib
import os
import signal
import smtplib
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from bouncer_console.mail import REGION
from bouncer_console.web.app import Server
from bouncer_console.web.site import LocalBounce, ProblemError
from local.aws.gate import Credentials
from local.stack import ROOT, STACK, Aws, StackError, stop


class LocalMail:
    """Writes mail to AWS on this machine, and says what its rules did."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def send(self, mail_from: str, recipients: Sequence[str], mail: bytes) -> str:
        """As Local has it."""
        try:
            with smtplib.SMTP("127.0.0.1", self._aws.smtp_port, timeout=30) as client:
                client.ehlo("mx.sender.example")
                _accepted("the sender", client.mail(mail_from))
                for each in recipients:
                    _accepted(each, client.rcpt(each))
                answer = _accepted("the mail", client.data(mail))
        except (smtplib.SMTPException, UnicodeError, ValueError) as error:
            raise ProblemError(f"SES did not take the mail: {error}") from error
        return answer.split()[-1]

    def steps(self, message_id: str) -> Mapping[str, Any] | None:
        """As Local has it."""
        traces = (each for each in self._aws.listing("mails") if each["message_id"] == message_id)
        return next(traces, None)

    def bounces(self, message_id: str) -> Sequence[LocalBounce]:
        """As Local has it."""
        return [
            LocalBounce(
                at=datetime.fromtimestamp(each["arrived"], UTC),
                request=each["request"],
                dsn=Path(each["dsn"]).read_text("ascii", "replace") if each["dsn"] else "",
                error=each["error"] or "",
            )
            for each in self._aws.listing("bounces")
            if each["request"].get("OriginalMessageId") == message_id
        ]


def _accepted(what: str, answered: tuple[int, bytes]) -> str:
    code, text = answered
    said = text.decode("utf-8", "replace")
    if code >= 300:
        raise ProblemError(
            f"SES refused {what}: {code} {said}",
            "A receipt rule has to be for the recipient: its domain has to be verified.",
        )
    return said


@contextlib.contextmanager
def page(aws: Aws) -> Iterator[str]:
    """The page of an AWS on this machine, as long as the context lasts; its address.

    Raises:
        StackError: it did not start.
    """
    command = [
        *(sys.executable, "-m", "local.web", str(aws.port), str(aws.smtp_port), str(aws.outbox)),
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=aws.environment(),
        stdin=subprocess.PIPE,  # it ends when this closes, even if this process is killed
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        address = process.stdout.readline().strip() if process.stdout else ""
        if not address:
            raise StackError("the page did not start")
        yield address
    finally:
        stop(process)


def main(aws_port: int, smtp_port: int, outbox: Path) -> None:
    """Serve until stdin ends."""
    aws = Aws(
        port=aws_port,
        smtp_port=smtp_port,
        outbox=outbox,
        credentials=Credentials(
            access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
            secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        ),
    )
    server = Server(stack=STACK, region=REGION, local=LocalMail(aws))
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    typer.echo(server.address)
    server.run()


def _end_with_stdin() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    typer.run(main)
