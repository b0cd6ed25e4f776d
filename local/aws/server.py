"""One process: ministack with SES laid over it, an SMTP server, and a listing of bounces."""

import asyncio
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import msgspec
from botocore.config import Config as BotoConfig
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config

from bouncer_console.mail import REGION, ReceivedMail, Verdicts
from local.aws import smtp
from local.aws.dns import DnsServer, records_of
from local.aws.faults import Door
from local.aws.gate import Credentials, Gate, Receive, Scope, Send, folder, unguessable_sessions
from local.aws.ip_filters import IpFilters
from local.aws.outgoing import Outgoing
from local.aws.permissions import Authorizations
from local.aws.requests import Requests
from local.aws.rules import RuleRunner, Trace
from local.aws.send_bounce import SendBounce
from local.aws.weather import FORECAST, Weather

logger = logging.getLogger("local.aws")

# Rules run so many mails at a time; in bad weather most of them wait for SES's next try.
_CONCURRENT_MAILS = 64
# SES waits so long for a function's answer (AWS's documentation), and asks once; whether it comes
# again is the weather's to say.
_SES_CALLS = BotoConfig(read_timeout=30, retries={"total_max_attempts": 1})


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the server is told on its command line."""

    aws_port: int = 4566
    smtp_port: int = 2525
    outbox: Path = Path(".local/outbox")
    credentials: Path = Path(".local/credentials.json")
    """Where this run's key is written, for its owner only."""
    relay: tuple[str, int] | None = None
    send_bounce_interval: float = 1.0
    verdicts: Verdicts = Verdicts()
    events: Path | None = None
    """A folder of event files whose mails count as received, for replays."""


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def environment(port: int, key: Credentials) -> dict[str, str]:
    """What ministack reads when it is imported, and what it hands to its functions."""
    return {
        "AUTH": "true",
        "GATEWAY_PORT": str(port),
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": key.access_key_id,  # ministack's root
        "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
        "AWS_DEFAULT_REGION": REGION,
        "MINISTACK_REGION": REGION,
        "LAMBDA_EXECUTOR": "local",
        "LAMBDA_KEEPALIVE_MS": "60000",
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "DOCKER_HOST": "unix:///nonexistent",  # no containers: ministack has no business there
        "LOG_LEVEL": "WARNING",
    }


class Mails:
    """The mails that were received, and what the rules did with each."""

    def __init__(self, runner: RuleRunner) -> None:
        self._runner = runner
        self._mails: dict[str, ReceivedMail] = {}
        self.traces: list[Trace] = []
        self._pool = ThreadPoolExecutor(_CONCURRENT_MAILS, thread_name_prefix="rules")

    def find(self, message_id: str) -> ReceivedMail | None:
        return self._mails.get(message_id)

    def remember(self, mail: ReceivedMail) -> None:
        self._mails[mail.message_id] = mail

    def deliver(self, mail: ReceivedMail) -> None:
        """Take a mail; the rules run later, a few mails at a time."""
        self.remember(mail)
        trace = Trace(
            message_id=mail.message_id,
            received_at=mail.received_at,
            mail_from=mail.mail_from,
            recipients=list(mail.recipients),
        )
        self.traces.append(trace)
        self._pool.submit(self._run, mail, trace)

    def later(self, do: Callable[[], None]) -> None:
        """What calls this same server: not while a request is answered."""
        self._pool.submit(do)

    def _run(self, mail: ReceivedMail, trace: Trace) -> None:
        try:
            self._runner.run(mail, trace)
        except Exception:
            logger.exception("the rules failed for %s", mail.message_id)
        finally:
            trace.done = True

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _listed(of: Callable[[], Iterable[Any]]) -> bytes:
    return msgspec.json.encode(list(of()))


def serve(options: Options, ready: Callable[[], None] = lambda: None) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        ready: called when both servers listen.
    """
    os.umask(0o077)  # mails, DSNs and functions are their owner's alone
    folder(options.outbox)
    key = Credentials.new()
    for inherited in ("AWS_SESSION_TOKEN", "AWS_PROFILE"):
        os.environ.pop(inherited, None)
    os.environ |= environment(options.aws_port, key)
    # ministack reads its environment when it is imported, so it comes late.
    from ministack.app import app as ministack
    from ministack.core import lambda_runtime

    from local.aws import cloudformation, code, environments, logs, metrics, ses

    weather = Weather()
    runner = RuleRunner(
        ses=boto3.client("ses"),
        s3=boto3.client("s3"),
        lambda_=boto3.client("lambda", config=_SES_CALLS),
        sns=boto3.client("sns"),
        may=ses.may,
        weather=weather,
    )
    mails = Mails(runner)
    outgoing = Outgoing(verified=ses.verified, accepts=runner.accepts, deliver=mails.deliver)
    send_bounce = SendBounce(
        outbox=options.outbox,
        find_mail=mails.find,
        verified=ses.verified,
        interval=options.send_bounce_interval,
        relay=options.relay,
        bounced=lambda path, dsn: mails.later(lambda: outgoing.bounced(path, dsn)),
    )
    runner.own_bounce = send_bounce.of_rule
    filters = IpFilters()
    cloudformation.install()
    ses.install(send_bounce, outgoing, filters)
    ended = threading.Event()
    metrics.install(ended)
    logs.install()
    unguessable_sessions(key.secret_access_key)
    work = environments.Work()
    environments.processes_die_alone(work)
    environments.unpacks_once()
    for mail in _mails_of_events(options.events):
        mails.remember(mail)
    authorizations = Authorizations()
    requests = Requests(Door(ministack, weather, key.access_key_id, environments.behind))
    listings: dict[str, Callable[[], Iterable[Any]]] = {
        "/_local/bounces": lambda: sorted(send_bounce.calls, key=lambda call: call.arrived),
        "/_local/mails": lambda: mails.traces,
        "/_local/requests": requests.listed,
        "/_local/permissions": authorizations.listed,
        "/_local/work": work.listed,
        "/_local/weather": lambda: [
            {
                "forecast": weather.forecast,
                "kills": weather.kills,
                "killed": weather.killed,
                "freezes": weather.freezes,
                "faults": weather.faults,
            }
        ],
    }
    threading.Thread(
        target=weather.haunt,
        args=(environments.at_work, options.outbox / FORECAST, ended),
        name="weather",
        daemon=True,
    ).start()

    async def clocked(scope: Scope, receive: Receive, send: Send) -> None:
        ses.arrived.set(time.time())
        ses.caller.set((scope.get("client") or ("", 0))[1])
        await app(scope, receive, send)

    app = Gate(
        requests,
        {path: partial(_listed, of) for path, of in listings.items()},
        key,
        code.Code(port=options.aws_port, key=key.secret_access_key).at,
    )
    key.write(options.credentials)
    inbound = smtp.Inbound(
        accepts=runner.accepts,
        blocks=filters.blocks,
        deliver=mails.deliver,
        defaults=options.verdicts,
    )
    try:
        asyncio.run(_serve(clocked, options, inbound, ses.verified, ready))
    finally:
        ended.set()
        mails.close()
        lambda_runtime.reset()  # the functions' processes do not end by themselves


async def _serve(
    app: Any,
    options: Options,
    inbound: smtp.Inbound,
    domains: Callable[[], Iterable[str]],
    ready: Callable[[], None],
) -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{options.aws_port}"]
    config.loglevel = "WARNING"
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    listener = await asyncio.to_thread(smtp.start, inbound, "127.0.0.1", options.smtp_port)
    await loop.create_datagram_endpoint(
        lambda: DnsServer(lambda: records_of(domains())), local_addr=("127.0.0.1", options.aws_port)
    )
    server = asyncio.create_task(hypercorn_serve(app, config, shutdown_trigger=stop.wait))
    threading.Thread(
        target=_announce, args=(options.aws_port, ready), name="announce", daemon=True
    ).start()
    try:
        await server
    finally:
        await asyncio.to_thread(listener.stop)


def _announce(port: int, ready: Callable[[], None]) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                ready()
                return
        time.sleep(0.05)


def _mails_of_events(folder: Path | None) -> Iterable[ReceivedMail]:
    """The mails that the event files tell of, as if they had come in just now."""
    for path in sorted(folder.glob("*.json")) if folder else ():
        try:
            ses = json.loads(path.read_text())["Records"][0]["ses"]
            mail = ses["mail"]
            headers = "".join(f"{h['name']}: {h['value']}\r\n" for h in mail["headers"])
            yield ReceivedMail(
                message_id=mail["messageId"],
                received_at=datetime.now(UTC),
                mail_from="" if mail["source"] == "<>" else mail["source"],
                recipients=tuple(ses["receipt"]["recipients"]),
                raw=headers.encode() + b"\r\n",
                verdicts=Verdicts(),
            )
        except (KeyError, ValueError) as error:
            logger.info("%s tells of no mail: %s", path, error)
