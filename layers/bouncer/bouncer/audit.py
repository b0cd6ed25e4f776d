"""The audit: minutes after each mail, was it handled to its end? If not, it is handled now.

SES publishes a notice of every mail that a rule took, whatever becomes of the function. A
recipient is accounted for when the mail's record names him, or when his line in the ledger is
at an end or waits in the queue. A claim whose lease is over was left behind by an invocation
that died: nobody works on it any more.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import msgspec

from bouncer import timing
from bouncer.backend import BackendUnavailableError
from bouncer.delivery.ledger import BounceState, Ledger
from bouncer.inbound import Handled, Inbound, LateBounces
from bouncer.mail_record import MailRecord, MailRecords
from bouncer.message import InboundMessage

# What handling one mail takes when every backend is slow; with less time left, it waits.
_ONE_MAIL = timedelta(seconds=timing.CALL)


class Audited(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one batch of notices."""

    found: tuple[Handled, ...] = ()
    """Mails that nobody had handled to the end, handled now."""
    again: frozenset[str] = frozenset()
    """Keys of notices to be looked at again: somebody is at work, or a backend failed."""
    failures: Mapping[str, Exception] = {}
    """Why, by key, where it was a failure."""


class Audit:
    """Looks at notices, and handles what was missed with the code that missed it."""

    def __init__(
        self,
        *,
        inbound: Inbound,
        records: MailRecords,
        ledger: Ledger,
        late: LateBounces = LateBounces.UNKNOWN,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_owner: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        """
        Args:
            late: whose senders are told so late.
            new_owner: names an attempt in the ledger; never the same twice.
        """
        self._inbound = inbound
        self._records = records
        self._ledger = ledger
        self._late = late
        self._clock = clock
        self._new_owner = new_owner

    def run(self, notices: Mapping[str, InboundMessage], *, until: datetime) -> Audited:
        """
        Args:
            notices: by a key of the caller's.
            until: when this invocation ends at the latest.
        """
        found: list[Handled] = []
        again: set[str] = set()
        failures: dict[str, Exception] = {}
        try:
            records = self._records.of({m.message_id for m in notices.values()}, until=until)
        except BackendUnavailableError as error:
            return Audited(again=frozenset(notices), failures=dict.fromkeys(notices, error))
        for key, mail in notices.items():
            if not self._uncovered(mail, records.get(mail.message_id)):
                continue
            if until - self._clock() < _ONE_MAIL:
                again.add(key)
                continue
            try:
                handled = self._look(mail, records.get(mail.message_id), until)
            except Exception as error:  # noqa: BLE001  (one mail must not cost the others theirs)
                failures[key] = error
                again.add(key)
                continue
            if handled is None:
                again.add(key)
            elif isinstance(handled, Handled):
                found.append(handled)
        return Audited(found=tuple(found), again=frozenset(again), failures=failures)

    def _look(
        self, mail: InboundMessage, record: MailRecord | None, until: datetime
    ) -> Handled | bool | None:
        """What was handled, True when nothing had to be, None when somebody is at work."""
        lines = {
            each.recipient: each for each in self._ledger.history(mail.message_id, until=until)
        }
        missing = False
        for recipient in self._uncovered(mail, record):
            line = lines.get(recipient)
            if line is None:
                missing = True
            elif line.state is BounceState.CLAIMED:
                if line.lease_until is not None and line.lease_until > self._clock():
                    return None
                missing = True
        if not missing:
            return True
        # The whole mail, for its rules may ask of all its recipients; what has been done for some
        # of them is not done again: ledger and usage know it.
        return self._inbound.handle(mail, owner=self._new_owner(), until=until, late=self._late)

    def _uncovered(self, mail: InboundMessage, record: MailRecord | None) -> list[str]:
        return [each for each in mail.recipients if record is None or not record.covers(each)]
