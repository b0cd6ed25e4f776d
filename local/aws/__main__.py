"""`python -m local.aws`: AWS on this machine, until Ctrl-C."""

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from bouncer_console.mail import Verdicts
from local.aws.server import Options, serve


def main(
    aws_port: Annotated[int, typer.Option(help="Where AWS listens.")] = 4566,
    smtp_port: Annotated[int, typer.Option(help="Where SMTP listens.")] = 2525,
    outbox: Annotated[Path, typer.Option(help="Where DSNs are written.")] = Path(".local/outbox"),
    credentials: Annotated[
        Path, typer.Option(help="Where this run's key is written, for its owner only.")
    ] = Path(".local/credentials.json"),
    relay: Annotated[
        str, typer.Option(help="HOST:PORT of an SMTP server that DSNs are sent to as well.")
    ] = "",
    send_bounce_interval: Annotated[
        float, typer.Option(help="SendBounce throttles calls closer than this (seconds).")
    ] = 1.0,
    verdict: Annotated[
        list[str] | None, typer.Option(help="A verdict for every mail, such as spf=FAIL.")
    ] = None,
    events: Annotated[
        Path | None, typer.Option(help="A folder of event files whose mails count as received.")
    ] = None,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="End when standard input does.")
    ] = False,
) -> None:
    """AWS on this machine: ministack, SES's receiving side, and SMTP in front of it."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    if until_eof:
        threading.Thread(target=_end_with_input, name="until-eof", daemon=True).start()
    relay_host, _, relay_port = relay.rpartition(":")
    given = dict(each.split("=", 1) for each in verdict or [])
    serve(
        Options(
            aws_port=aws_port,
            smtp_port=smtp_port,
            outbox=outbox,
            credentials=credentials,
            relay=(relay_host, int(relay_port)) if relay else None,
            send_bounce_interval=send_bounce_interval,
            verdicts=Verdicts(**given),
            events=events,
        ),
        ready=lambda: typer.echo("ready"),  # to whoever started it
    )


def _end_with_input() -> None:
    """Whoever started this holds the pipe: when that process is gone, so is this."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    typer.run(main)
