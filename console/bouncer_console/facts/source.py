"""A deployed stack's mails: from its log, and where that names nobody, from its table and bucket.

The log has one line a mail, accepted mail included, and answers by sender, recipient, Message-ID
and time (docs/decisions.md says why no table does). With LogAddresses=hash the same questions are
asked for the hashes, by whoever may read the stack's key. With `none`, the mails of a time are
read, and who they were to from their records, who they were from out of the stored mails.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec

from bouncer.address import domain_of
from bouncer.aws.ledger import DynamoLedger
from bouncer.aws.mail_records import DynamoMailRecords
from bouncer.aws.stack_key import read_key
from bouncer.aws.stored_mail import S3StoredMail
from bouncer.aws.telemetry import MAIL_HANDLED
from bouncer.budget import client_address
from bouncer.delivery.ledger import Ledger, LedgerEntry
from bouncer.headers import Header, message_id
from bouncer.mail_record import MailRecord, MailRecords
from bouncer.message import InboundMessage
from bouncer.pseudonym import pseudonym
from bouncer.settings import LogAddresses, stored_prefix
from bouncer_console.deployment import Deployment
from bouncer_console.facts.insights import Cost, Log, literal
from bouncer_console.facts.mails import (
    PATTERN,
    REFUSED_PATTERN,
    MailFacts,
    RecipientFacts,
    merged,
    parse_line,
)
from bouncer_console.facts.search import Wanted

STORED_AT_MOST = 2000
"""Stored mails that are looked into for one question."""
_READERS = 16

type OnRead = Callable[[float], None]


class FactsError(Exception):
    """The question can't be answered here; the text says what would help."""


class MailLog:
    """What became of the mails of one stack."""

    def __init__(
        self,
        log: Log,
        *,
        addresses: LogAddresses,
        key: Callable[[], bytes | None],
        records: MailRecords,
        ledger: Ledger,
        stored: S3StoredMail | None,
    ) -> None:
        self._log = log
        self._addresses = addresses
        self._key = key
        self._records = records
        self._ledger = ledger
        self._stored = stored

    @classmethod
    def of(cls, deployment: Deployment) -> "MailLog":
        table = deployment.output("BounceTable")
        dynamodb = deployment.client("dynamodb")
        bucket = deployment.outputs.get("MailBucket")
        prefix = stored_prefix(deployment.outputs.get("MailPrefix", ""))
        groups = [deployment.output(each) for each in ("InboundLogGroup", "SendLogGroup")]
        never: Any = None  # it only reads
        return cls(
            Log(deployment.client("logs"), groups),
            addresses=LogAddresses(deployment.parameters.get("LogAddresses", LogAddresses.FULL)),
            key=lambda: read_key(dynamodb, table),
            records=DynamoMailRecords(dynamodb, table, retention=never),
            ledger=DynamoLedger(dynamodb, table, retention=never),
            stored=S3StoredMail(deployment.client("s3"), bucket, prefix) if bucket else None,
        )

    @property
    def cost(self) -> Cost:
        return self._log.cost

    @property
    def addresses(self) -> LogAddresses:
        """How the log names people at present."""
        return self._addresses

    def key(self) -> bytes | None:
        """The stack's, which its log's hashes are made with; None if it can't be read here."""
        return self._key()

    def count(self, since: datetime, until: datetime) -> int:
        """How many lines tell of a mail's decision."""
        return self._log.count([f'"message": ?"{MAIL_HANDLED}"'], since, until)

    def between(
        self,
        since: datetime,
        until: datetime,
        *,
        refused_only: bool = False,
        at_most: int | None = None,
        on_read: OnRead = lambda _: None,
    ) -> list[MailFacts]:
        """The mails that were decided in a time, the newest first.

        Args:
            refused_only: leave out those of which nobody was refused.
            at_most: lines to read; the newest are.
        """
        patterns = [PATTERN, *([REFUSED_PATTERN] if refused_only else [])]
        return merged(islice(self._read(patterns, since, until, on_read), at_most))

    def find(
        self,
        wanted: Wanted,
        since: datetime,
        until: datetime,
        *,
        at_most: int | None = None,
        on_read: OnRead = lambda _: None,
    ) -> list[MailFacts]:
        """The mails of a time that are meant, the newest first; with what the ledger knows now.

        Raises:
            FactsError: the log has hashes and nobody here may read the key, or none at all and
                too many mails would have to be looked into.
        """
        if self._addresses is LogAddresses.NONE:
            key = None
            mails = self._named(merged(self._read([PATTERN], since, until, on_read)), wanted)
        else:
            key = self._key() if self._addresses is LogAddresses.HASH else None
            if key is None and self._addresses is LogAddresses.HASH and wanted:
                raise FactsError(
                    "the log has hashes (LogAddresses=hash), and the stack's key can't be read: "
                    "that takes dynamodb:GetItem on BounceTable; by time alone you find it without"
                )
            patterns = [PATTERN, *wanted.patterns(key)]
            # A mail has a line, and one more for each time that the worker had its bounce.
            enough = None if at_most is None else 3 * at_most
            lines = self._read(patterns, since, until, on_read, enough)
            mails = merged(_newest(lines, at_most))
        found = [wanted.first(each, key) for each in mails if wanted.holds(each, key)]
        return found if at_most is None else found[:at_most]

    def one(self, message_id: str, since: datetime, until: datetime) -> MailFacts | None:
        """One mail by SES's id; with its recipients, where the log names none."""
        patterns = [PATTERN, literal(message_id)]
        mails = merged(self._read(patterns, since, until, lambda _: None))
        found = next((each for each in mails if each.message_id == message_id), None)
        if found is None or self._addresses is not LogAddresses.NONE:
            return found
        return with_record(found, self._records.of([message_id]).get(message_id))

    def as_of_now(self, mails: Iterable[MailFacts]) -> list[MailFacts]:
        """The same mails, with what the ledger says of bounces that the log saw begun."""
        key = self._key() if self._addresses is LogAddresses.HASH else None

        def now(mail: MailFacts) -> MailFacts:
            if all(each.settled or not each.state for each in mail.recipients):
                return mail
            return with_ledger(mail, self._ledger.history(mail.message_id), key)

        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(now, mails))

    def _read(
        self,
        patterns: list[str],
        since: datetime,
        until: datetime,
        on_read: OnRead,
        enough: int | None = None,
    ) -> Iterator[MailFacts]:
        for line in self._log.lines(patterns, since, until, on_read, enough=enough):
            if (mail := parse_line(line.text, line.at)) is not None:
                yield mail

    def _named(self, mails: list[MailFacts], wanted: Wanted) -> list[MailFacts]:
        """Mails of a log without addresses, with those that their records and headers have."""
        records = self._records.of([each.message_id for each in mails])
        named = [with_record(each, records.get(each.message_id)) for each in mails]
        if wanted.recipient:
            only = Wanted(recipient=wanted.recipient)
            named = [each for each in named if only.holds(each, None)]
        if not wanted.needs_stored_mail:
            return named
        if self._stored is None:
            raise FactsError(
                "the log names nobody (LogAddresses=none), and the stack stores no mail: "
                "only recipient and time can be looked for"
            )
        if len(named) > STORED_AT_MOST:
            raise FactsError(
                f"the log names nobody (LogAddresses=none), and {len(named):,} stored mails would "
                f"have to be opened, of {STORED_AT_MOST:,} at the most: give a shorter time"
            )
        with ThreadPoolExecutor(_READERS) as pool:
            headers = pool.map(self._stored.headers, [each.message_id for each in named])
            return [with_headers(mail, its) for mail, its in zip(named, headers, strict=True)]


def _newest(lines: Iterable[MailFacts], at_most: int | None) -> Iterator[MailFacts]:
    """Lines until so many mails are decided by them; what the worker did of others is left out."""
    decided: set[str] = set()
    of_the_worker: list[MailFacts] = []
    for each in lines:
        if not each.disposition:
            of_the_worker.append(each)
            continue
        decided.add(each.message_id)
        yield each
        if len(decided) == at_most:
            yield from (line for line in of_the_worker if line.message_id in decided)
            return
    yield from of_the_worker


def with_record(mail: MailFacts, record: MailRecord | None) -> MailFacts:
    """A mail whose line names nobody, with its recipients from its record."""
    if record is None or any(each.recipient for each in mail.recipients):
        return mail
    left = sorted(record.recipients)
    named: list[RecipientFacts] = []
    for each in mail.recipients:
        same = [r for r in left if (r.outcome, r.reason) == (each.outcome, each.reason)]
        if not same:
            named.append(each)
            continue
        left.remove(same[0])
        named.append(msgspec.structs.replace(each, recipient=same[0].recipient))
    return msgspec.structs.replace(mail, recipients=tuple(named))


def with_headers(mail: MailFacts, headers: tuple[Header, ...] | None) -> MailFacts:
    """A mail whose line names nobody, with sender and Message-ID as its stored copy has them."""
    if headers is None or mail.sender:
        return mail
    told = InboundMessage(
        message_id=mail.message_id, received_at=mail.when, source="", recipients=(), headers=headers
    )
    paths = [each.strip().strip("<>") for each in told.header("Return-Path")[:1]]
    ids = [message_id(each) for each in told.header("Message-ID")[:1]]
    client = client_address(told)
    return msgspec.structs.replace(
        mail,
        sender=(paths[0] or "<>") if paths else "",
        sender_domain=domain_of(paths[0]) if paths and paths[0] else "",
        message_id_header=ids[0] if ids else "",
        client="" if client is None else str(client),
    )


def with_ledger(mail: MailFacts, entries: Iterable[LedgerEntry], key: bytes | None) -> MailFacts:
    """A mail with what the ledger knows of its bounces now.

    Args:
        key: what the mail's addresses may be hashed with.
    """
    known = {}
    for each in entries:
        known[each.recipient.lower()] = each
        if key is not None:
            known[pseudonym(each.recipient, key)] = each
    recipients = [
        msgspec.structs.replace(
            each,
            state=entry.state,
            status=entry.status or each.status,
            bounce_id=entry.bounce_id or each.bounce_id,
            error_code=entry.error_code,
            detail=entry.detail,
        )
        if (entry := known.get(each.recipient.lower())) is not None
        else each
        for each in mail.recipients
    ]
    return msgspec.structs.replace(mail, recipients=tuple(recipients))
