"""The audit: minutes after each mail, was it handled to its end? If not, it is handled now.

SES publishes a notice of every mail that a rule took, whatever becomes of the function. A
recipient is accounted for when the mail's record or, with an end or in the queue, the ledger has
it. A claim whose lease is over was left behind by an invocation that died: nobody works on it any
more. If the invocation after it did not bounce the recipient, because the mailbox exists by now or
because it is too late, the audit ends the claim; if it was to try once more what SES had refused,
the mail is handled again.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from uuid import uuid4

import msgspec

from bouncer import timing
from bouncer.address import normalise
from bouncer.backend import BackendUnavailableError
from bouncer.deadline import utc_now
from bouncer.delivery.ledger import BounceState, Ledger, LedgerEntry
from bouncer.guards import OtherReason
from bouncer.inbound import Handled, Inbound, LateBounces
from bouncer.mail_record import FOUND_UNDECIDED, MailRecord, MailRecords
from bouncer.message import InboundMessage
from bouncer.policy.decide import Outcome

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
        clock: Callable[[], datetime] = utc_now,
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
            if until - self._clock() < _ONE_MAIL:
                again.add(key)
                continue
            record = records.get(mail.message_id)
            try:
                lines = self._ledger.history(mail.message_id, until=until)
                claims = [each for each in lines if each.state is BounceState.CLAIMED]
                if any(self._in_force(each) for each in claims):
                    again.add(key)
                    continue
                if self._missed(mail, record, lines) or any(each.error_code for each in claims):
                    # The whole mail, for its rules may ask of all its recipients; what has been
                    # done for some is not done again: ledger and usage know it.
                    handled = self._inbound.handle(
                        mail, owner=self._new_owner(), until=until, late=self._late
                    )
                    found.append(handled)
                    told = {normalise(each.recipient) for each in handled.fates}
                    if any(normalise(each.recipient) not in told for each in claims):
                        again.add(key)  # the record says now what became of these
                else:
                    self._end(claims, record, until)
            except Exception as error:  # noqa: BLE001  (one mail must not cost the others theirs)
                failures[key] = error
                again.add(key)
        return Audited(found=tuple(found), again=frozenset(again), failures=failures)

    def _in_force(self, claim: LedgerEntry) -> bool:
        return claim.lease_until is not None and claim.lease_until > self._clock()

    def _missed(
        self, mail: InboundMessage, record: MailRecord | None, lines: Iterable[LedgerEntry]
    ) -> bool:
        """Whether a recipient has neither a record nor, in the ledger, more than a dead claim."""
        settled = {each.recipient for each in lines if each.state is not BounceState.CLAIMED}
        return not settled.issuperset(self._uncovered(mail, record))

    def _end(
        self, claims: Iterable[LedgerEntry], record: MailRecord | None, until: datetime
    ) -> None:
        """End the claims on recipients who, by the mail's record, are not bounced."""
        reasons = {
            each.recipient: FOUND_UNDECIDED
            if each.reason == FOUND_UNDECIDED
            else OtherReason.DECIDED_OTHERWISE
            for each in (record.recipients if record is not None else ())
            if each.outcome != Outcome.BOUNCE or each.reason == FOUND_UNDECIDED
        }
        ends = [
            msgspec.structs.replace(
                claim, state=BounceState.SUPPRESSED, reason=reasons[normalise(claim.recipient)]
            )
            for claim in claims
            if normalise(claim.recipient) in reasons
        ]
        if ends:
            self._ledger.record(ends, until=until)

    def _uncovered(self, mail: InboundMessage, record: MailRecord | None) -> list[str]:
        return [each for each in mail.recipients if record is None or not record.covers(each)]
