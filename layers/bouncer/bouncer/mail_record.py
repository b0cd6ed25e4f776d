"""A mail's record: who of its recipients was handled to the end, and how. One item a mail.

It is the proof that a mail was not missed. What it lacks, the audit handles (audit.py); what
people ask for, `bouncer find` and the page read from it. Written once, at the end of handling,
also for accepted mail; recipients are only ever added, so that two rules of one mail, or two
deliveries of one event, complete each other in any order.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Protocol

import msgspec

from bouncer.address import normalise
from bouncer.backend import BackendUnavailableError

FOUND_UNDECIDED = "found-undecided"
"""The reason of a bounce that a late decision does not send: somebody may have the mail."""


class RecipientRecord(msgspec.Struct, frozen=True, order=True):
    """One recipient's end in this mail."""

    recipient: str
    """Normalised."""
    outcome: str
    """As decided: accept, bounce, drop."""
    reason: str
    """The reason code of the decision, or why its bounce is not sent."""


class MailRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What was recorded of one mail."""

    message_id: str
    received_at: datetime
    recipients: frozenset[RecipientRecord]
    found_undecided: bool = False
    """The audit handled it, at least in part: nobody had, in time."""

    def covers(self, recipient: str) -> bool:
        """Whether the recipient was handled to the end."""
        return normalise(recipient) in {each.recipient for each in self.recipients}


class RecordsUnavailableError(BackendUnavailableError):
    """The records did not answer; the audit asks again, and handles what was not recorded."""


class MailRecords(Protocol):
    def add(self, record: MailRecord, *, until: datetime) -> None:
        """Add the recipients to the mail's record, or begin it; safe to repeat.

        Raises:
            RecordsUnavailableError: it may or may not be written.
        """
        ...

    def of(
        self, message_ids: Collection[str], *, until: datetime | None = None
    ) -> Mapping[str, MailRecord]:
        """The records that there are, by message id.

        Raises:
            RecordsUnavailableError
        """
        ...
