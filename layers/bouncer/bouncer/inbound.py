"""One inbound mail, from facts to disposition: the order in which things are asked and done."""

from collections.abc import Callable, Iterable
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from bouncer.address import domain_of, normalise
from bouncer.budget import Budget
from bouncer.deadline import ends_in_time, utc_now
from bouncer.delivery.delivery import Delivery
from bouncer.delivery.fate import Fate
from bouncer.delivery.ledger import BounceState
from bouncer.headers import Header
from bouncer.mail_record import (
    FOUND_UNDECIDED,
    MailRecord,
    MailRecords,
    RecipientRecord,
    RecordsUnavailableError,
)
from bouncer.mailboxes import Directory, Mailbox, MailboxState, StaticDirectory
from bouncer.message import HeadersNeeded, InboundMessage
from bouncer.plan import Disposition, Identity, Plan, make_plan
from bouncer.policy.conditions import Facts, SizeNeeded
from bouncer.policy.decide import Policy
from bouncer.usage import Full, Usage, is_near_full


class LateBounces(StrEnum):
    """Which bounces are sent for a mail that was found undecided, minutes or hours later."""

    UNKNOWN = "unknown"
    """Those of recipients without a mailbox; nobody can have their mail."""
    ALL = "all"
    """Every one; for rules whose refused mail nobody delivers, come what may."""


class StoredMail(Protocol):
    """The stored mail; what cannot be had is None, and the mail goes on its way."""

    def size(self, message_id: str, /) -> int | None: ...

    def headers(self, message_id: str, /) -> tuple[Header, ...] | None: ...


class NoStoredMail:
    """Nobody stores the mail: no size, and truncated headers stay so."""

    def size(self, _message_id: str, /) -> int | None:
        return None

    def headers(self, _message_id: str, /) -> tuple[Header, ...] | None:
        return None


class Handled(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided of a mail, and what became of it."""

    plan: Plan
    fates: tuple[Fate, ...]
    disposition: Disposition
    late: bool = False
    """The audit found it, after nobody had handled it in time."""
    withheld: frozenset[str] = frozenset()
    """Recipients whose bounce is not sent because it is late and somebody may have the mail."""
    recorded: bool = True
    """False when the record was not written; the audit then looks again."""
    near_full: tuple[Mailbox, ...] = ()
    """Mailboxes that this mail took past the mark."""
    facts: tuple[Facts, ...] = ()
    """What the decisions were made from, in the recipients' order."""
    policy: str = ""
    """The digest of the policy that decided."""

    @property
    def unknown_domains(self) -> tuple[str, ...]:
        """The domain of each recipient of whose domain the directory says nothing."""
        return tuple(domain_of(each.recipient) for each in self.facts if not each.domain_known)


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A plan with what it was made from."""

    plan: Plan
    policy: Policy
    facts: tuple[Facts, ...]


class Planner:
    """Gathers what the policy asks for, as little as it asks for, and plans."""

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        directory: Directory,
        store: StoredMail,
        identity: Identity,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._policy = policy
        self._directory = directory
        self._store = store
        self._identity = identity
        self._clock = clock

    def plan(self, mail: InboundMessage) -> Planned:
        """
        Raises:
            Exception: whatever the policy's source or the directory raised.
        """
        policy, now = self._policy(), self._clock()
        static = policy.mailboxes
        directory = self._directory if static is None else StaticDirectory(static)
        facts = tuple(
            Facts(
                recipient=each,
                mailbox=said.mailbox,
                entry=said.entry,
                way=said.way,
                domain_known=said.domain_known,
                now=now,
                size_asked=False,
            )
            for each, said in directory.look_up(mail.recipients).items()
        )
        mail = msgspec.structs.replace(mail, stored_asked=mail.headers_whole)
        return self._planned(policy, mail, facts, now)

    def replan(self, planned: Planned, facts: tuple[Facts, ...]) -> Planned:
        """The same mail by the same policy, with facts that have changed since."""
        return self._planned(planned.policy, planned.plan.mail, facts, self._clock())

    def size(self, planned: Planned) -> int | None:
        """The mail's size, looked up now if the policy did not ask for it."""
        known = planned.facts[0] if planned.facts else None
        if known is not None and known.size_asked:
            return known.size
        return self._store.size(planned.plan.mail.message_id)

    def _planned(
        self, policy: Policy, mail: InboundMessage, facts: tuple[Facts, ...], now: datetime
    ) -> Planned:
        # Each of the two is asked for once at most, and only where the outcome depends on it.
        while True:
            try:
                plan = make_plan(policy, mail, facts, self._identity, now)
            except SizeNeeded:
                size = self._store.size(mail.message_id)
                facts = tuple(msgspec.structs.replace(f, size=size, size_asked=True) for f in facts)
            except HeadersNeeded:
                stored = self._store.headers(mail.message_id)
                mail = msgspec.structs.replace(mail, stored=stored, stored_asked=True)
            else:
                return Planned(plan=plan, policy=policy, facts=facts)


class Inbound:
    """Plans a mail and carries the plan out."""

    def __init__(
        self,
        *,
        planner: Planner,
        budget: Budget,
        delivery: Delivery,
        records: MailRecords,
        usage: Usage | None = None,
    ) -> None:
        """
        Args:
            usage: keeps the mailboxes' usage; None where somebody else does.
        """
        self._planner = planner
        self._budget = budget
        self._delivery = delivery
        self._records = records
        self._usage = usage

    @ends_in_time
    def handle(
        self,
        mail: InboundMessage,
        *,
        owner: str,
        until: datetime,
        late: LateBounces | None = None,
    ) -> Handled:
        """
        Args:
            owner: names this attempt; another invocation never has the same.
            until: when this invocation ends at the latest.
            late: for a mail that the receipt rule has let go on long ago: whose senders may
                still be told that it was not delivered. None: it is in time.

        Raises:
            Exception: whatever a backend raised. Nothing was sent that is not in the ledger,
                so the event can be tried again.
        """
        planned = self._planner.plan(mail)
        near_full: list[Mailbox] = []
        if self._usage is not None and planned.policy.mailboxes is None:
            planned, near_full = self._charge(planned, self._usage)
        plan, withheld = _in_time(planned, late)
        if self._usage is not None and planned.policy.mailboxes is None:
            self._charge_what_went_on(planned, withheld, self._usage)
        if plan.to_send is not None and mail.reverse_path is not None:
            told = len(plan.to_send.recipients)
            limits = planned.policy.file.guards.budget
            spent = self._budget.charge(mail, told, limits, until=until)
            plan = msgspec.structs.replace(plan, suppressed=spent)
        fates: list[Fate] = []
        if plan.bounce is not None and plan.suppressed is not None:
            fates = self._delivery.suppress(plan.bounce, plan.suppressed, until=until)
        elif plan.bounce is not None:
            fates = self._delivery.reject(plan.bounce, plan.faults, until=until)
            for recipient, reason in plan.withheld.items():
                fates += self._delivery.suppress(plan.bounce.only({recipient}), reason, until=until)
            if plan.to_send is not None:
                fates += self._delivery.send_or_queue(plan.to_send, owner=owner, until=until)
        return Handled(
            plan=plan,
            fates=tuple(fates),
            disposition=_disposition(plan, fates),
            late=late is not None,
            withheld=withheld,
            recorded=self._record(plan, fates, withheld, until, late=late is not None),
            near_full=tuple(near_full),
            facts=planned.facts,
            policy=planned.policy.digest,
        )

    def _record(
        self,
        plan: Plan,
        fates: Iterable[Fate],
        withheld: frozenset[str],
        until: datetime,
        *,
        late: bool,
    ) -> bool:
        """Prove that the mail was handled; without the proof the audit handles it again."""
        # A recipient in another invocation's hands has not come to an end here.
        elsewhere = {each.recipient for each in fates if each.state is BounceState.CLAIMED}
        ended = frozenset(
            RecipientRecord(
                normalise(each.recipient),
                each.outcome,
                FOUND_UNDECIDED if each.recipient in withheld else each.reason,
            )
            for each in plan.decisions
            if each.recipient not in elsewhere
        )
        if not ended:
            return True
        record = MailRecord(
            message_id=plan.mail.message_id,
            received_at=plan.mail.received_at,
            recipients=ended,
            found_undecided=late,
        )
        try:
            self._records.add(record, until=until)
        except RecordsUnavailableError:
            return False
        return True

    def _charge(self, planned: Planned, usage: Usage) -> tuple[Planned, list[Mailbox]]:
        """Count the mail where it is delivered; where it no longer fits, decide again."""
        size: int | None = None
        near_full: list[Mailbox] = []
        # The second round counts what the policy accepts although the mailbox is full.
        for enforce in (True, False):
            full: dict[str, Mailbox] = {}
            for decision, facts in zip(planned.plan.decisions, planned.facts, strict=True):
                if not decision.delivered or facts.mailbox is None:
                    continue
                size = self._planner.size(planned) or 0 if size is None else size
                charged = usage.charge(
                    facts.mailbox, planned.plan.mail.message_id, size, facts.now, enforce=enforce
                )
                if isinstance(charged, Full):
                    full[facts.recipient] = charged.mailbox
                elif not charged.repeated and is_near_full(charged.mailbox, size):
                    near_full.append(charged.mailbox)
            if not full:
                break
            facts_now = tuple(
                msgspec.structs.replace(
                    each,
                    mailbox=full.get(each.recipient, each.mailbox),
                    size=size,
                    size_asked=True,
                )
                for each in planned.facts
            )
            planned = self._planner.replan(planned, facts_now)
        return planned, near_full

    def _charge_what_went_on(
        self, planned: Planned, withheld: frozenset[str], usage: Usage
    ) -> None:
        """What had no room, but was let in undecided, is in the mailbox and counts beyond it."""
        for facts in planned.facts:
            if facts.recipient in withheld and facts.mailbox and _without_room(facts):
                usage.charge(
                    facts.mailbox,
                    planned.plan.mail.message_id,
                    self._planner.size(planned) or 0,
                    facts.now,
                    enforce=False,
                )


def _without_room(facts: Facts) -> bool:
    """Whether lack of room is all that was against a mailbox."""
    box = facts.mailbox
    if box is None or facts.has_state(MailboxState.DISABLED) or facts.has_state(MailboxState.MOVED):
        return False
    return box.full() or box.without_room(facts.size or 0) or box.over_daily_quota(facts.now)


def _in_time(planned: Planned, late: LateBounces | None) -> tuple[Plan, frozenset[str]]:
    """The plan without the bounces that come too late to be true, and whose those were.

    The mail went on long ago: other actions may have brought it to whoever has a mailbox, full
    or not. That there is nobody of that name is as true now as it was then.
    """
    plan = planned.plan
    if plan.bounce is None or plan.suppressed is not None or late in (None, LateBounces.ALL):
        return plan, frozenset()
    nobody = {f.recipient for f in planned.facts if f.has_state(MailboxState.UNKNOWN)}
    asked = {each.recipient for each in plan.bounce.recipients}
    kept = plan.bounce.only(nobody)
    plan = msgspec.structs.replace(plan, bounce=kept if kept.recipients else None)
    return plan, frozenset(asked - nobody)


def _disposition(plan: Plan, fates: Iterable[Fate]) -> Disposition:
    # SES refused the bounce for good, or it can't be sent in time, so its sender will never know:
    # let the mail go on instead of stopping it, or it would be lost without a word.
    if any(fate.state in (BounceState.REJECTED, BounceState.EXPIRED) for fate in fates):
        return Disposition.CONTINUE
    return plan.disposition
