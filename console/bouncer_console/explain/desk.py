"""What the function knows when it plans, made of files and options instead."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bouncer.address import domain_of
from bouncer.aws.directory import DynamoDirectory
from bouncer.headers import Header, read_block
from bouncer.inbound import Planner
from bouncer.mailboxes import Directory, StaticDirectory
from bouncer.message import InboundMessage
from bouncer.plan import Disposition, Identity
from bouncer.policy.decide import Policy
from bouncer.policy.load import load_file
from bouncer.settings import attribute_names
from bouncer_console.deployment import Deployment, client, say_bad_item
from bouncer_console.explain.explained import Explained
from bouncer_console.explain.mails import is_mail, read_mails
from bouncer_console.mailbox.files import read_mailboxes

MAILBOXES_BESIDE = "mailboxes.csv"
"""A file of this name in an event's folder is its directory, unless another one is named."""


class _StoredBeside:
    """A StoredMail of what the command line and the .eml beside the event tell."""

    def __init__(self, size: int | None, eml: Path | None) -> None:
        self._eml = eml
        self.known_size = size if size is not None or eml is None else eml.stat().st_size
        self.asked_in_vain = False

    def size(self, _message_id: str, /) -> int | None:
        self.asked_in_vain = self.known_size is None
        return self.known_size

    def headers(self, _message_id: str, /) -> tuple[Header, ...] | None:
        return None if self._eml is None else read_block(self._eml.read_bytes()).headers


class Desk:
    """Everything that explaining needs, from the command line's options."""

    def __init__(
        self,
        *,
        policy: Path | Policy,
        mailboxes: Path | None = None,
        table: str | None = None,
        attributes: str | None = None,
        stack: str | None = None,
        deployment: Deployment | None = None,
        size: int | None = None,
        now: datetime | None = None,
        bounce_sender: str | None = None,
        region: str | None = None,
    ) -> None:
        """
        Args:
            deployment: the stack, where it is found already.

        Raises:
            PolicyError, MailboxFileError, DeploymentError, OSError
        """
        self._policy = policy if isinstance(policy, Policy) else load_file(policy)
        self._size = size
        self._now = now
        self._region = region
        self._names = attribute_names(attributes or "")
        self._domains: frozenset[str] = frozenset()
        self._table = table
        self._mailboxes = None if mailboxes is None else StaticDirectory(read_mailboxes(mailboxes))
        sender = bounce_sender or os.environ.get("BOUNCE_SENDER")
        if stack is not None:
            deployment = Deployment.find(stack, region)
        self._client: Callable[[str], Any] = partial(client, region=region)
        if deployment is not None:
            self._client = deployment.client
            self._region = self._region or deployment.region
            self._table = table or deployment.output("MailboxTable")
            self._names = attribute_names(deployment.parameters.get("MailboxAttributes", ""))
            self._domains = deployment.mailbox_domains
            sender = sender or deployment.parameters.get("BounceSender")
        self._bounce_sender = sender

    @property
    def now(self) -> datetime:
        return self._now or datetime.now(UTC)

    def read(
        self, path: Path, mail_from: str | None = None, rcpt_to: list[str] | None = None
    ) -> list[InboundMessage]:
        """The mails of a file; an .eml arrives at the time that is pretended."""
        return read_mails(path, mail_from, rcpt_to, received_at=self._now)

    def explain(self, mail: InboundMessage, path: Path) -> Explained:
        eml = path if is_mail(path) else path.with_suffix(".eml")
        store = _StoredBeside(self._size, eml if eml.exists() else None)
        first = mail.recipients[0] if mail.recipients else "example.com"
        identity = Identity(
            bounce_sender=self._bounce_sender or f"mailer-daemon@{domain_of(first)}",
            region=self._region or os.environ.get("AWS_REGION", "us-east-1"),
            stop=Disposition.STOP_RULE_SET,  # as a stack whose rule is for everyone has it
        )
        planner = Planner(
            policy=lambda: self._policy,
            directory=self._directory(path),
            store=store,
            identity=identity,
            clock=lambda: self.now,
        )
        planned = planner.plan(mail)
        return Explained(
            planned=planned,
            identity=identity,
            size=store.known_size,
            size_missed=store.asked_in_vain,
        )

    def _directory(self, path: Path) -> Directory:
        if self._table:
            dynamodb = self._client("dynamodb")
            return DynamoDirectory(
                dynamodb, self._table, self._names, on_bad_item=say_bad_item, domains=self._domains
            )
        beside = path.parent / MAILBOXES_BESIDE
        if self._mailboxes is None and beside.exists():
            return StaticDirectory(read_mailboxes(beside))
        return self._mailboxes or StaticDirectory([])

    @property
    def without_directory(self) -> bool:
        return self._policy.mailboxes is None and not (self._mailboxes or self._table)
