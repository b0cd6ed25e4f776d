"""The SMTP server in front: it takes mail from any client, as SES's inbound endpoint does."""

import logging
from collections.abc import Callable
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from bouncer_console.mail import ReceivedMail, Verdicts, receive

logger = logging.getLogger("local.aws.smtp")

SIZE_LIMIT = 40 * 2**20
"""SES's limit for a received mail, in bytes."""

RECIPIENTS = 100
"""Of one mail: what RFC 5321 §4.5.3.1.8 asks for at least, and more than SES was seen to take."""

_HTTP = ("GET", "POST", "PUT", "HEAD", "OPTIONS", "PATCH", "DELETE", "CONNECT", "TRACE", "PRI")


class _Server(SMTP):
    """Takes lines of any length: a client that ends them with a bare LF has only one.

    What speaks HTTP is shown the door at its first word, before its body is read as commands: a
    web page may post to any port, and its text would be a mail.
    """

    line_length_limit = SIZE_LIMIT
    command_size_limit = SIZE_LIMIT  # a long URL too is seen for what it is

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._smtp_methods |= dict.fromkeys(_HTTP, self._no_smtp)

    async def _no_smtp(self, _argument: str | None) -> None:
        await self.push("421 4.7.0 This is SMTP")
        if self.transport is not None:
            self.transport.close()


class _Controller(Controller):
    def factory(self) -> SMTP:
        return _Server(self.handler, **self.SMTP_kwargs)


class Inbound:
    """aiosmtpd's hooks. They run in the server's own thread, and so may call AWS."""

    def __init__(
        self,
        *,
        accepts: Callable[[str], bool],
        blocks: Callable[[str], bool],
        deliver: Callable[[ReceivedMail], None],
        defaults: Verdicts,
    ) -> None:
        """
        Args:
            accepts: whether some receipt rule is for a recipient.
            blocks: whether an IP filter keeps a client's address out.
            deliver: takes a mail and returns at once; the rules run later, as on SES.
        """
        self._accepts = accepts
        self._blocks = blocks
        self._deliver = deliver
        self._defaults = defaults

    async def handle_RCPT(  # noqa: N802  (aiosmtpd's name)
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if len(envelope.rcpt_tos) >= RECIPIENTS:
            return "452 4.5.3 Too many recipients"
        # When SES tells a blocked client so, and in which words, is not documented.
        if self._blocks(_client(session)):
            return "550 5.7.1 Requested action not taken: your address is blocked"
        if not self._accepts(address):
            return "550 5.1.1 Requested action not taken: mailbox unavailable"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802  (aiosmtpd's name)
        self, _server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        content = envelope.content
        mail = receive(
            content if isinstance(content, bytes) else (content or "").encode(),
            mail_from=envelope.mail_from or "",
            recipients=tuple(envelope.rcpt_tos),
            client=_client(session),
            helo=session.host_name or "localhost",
            defaults=self._defaults,
        )
        self._deliver(mail)
        return f"250 OK {mail.message_id}"


def _client(session: Session) -> str:
    return session.peer[0] if session.peer else "127.0.0.1"


def start(inbound: Inbound, host: str, port: int) -> Controller:
    """Listen; `stop()` of what is returned ends it."""
    controller = _Controller(
        inbound,
        hostname=host,
        port=port,
        data_size_limit=SIZE_LIMIT,
        enable_SMTPUTF8=False,  # as SES: addresses are 7-bit
        ident="SES on this machine",
        ready_timeout=10,
    )
    controller.start()
    return controller
