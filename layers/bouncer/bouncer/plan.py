"""From facts to a plan: who is refused, whether the sender may be told, and what happens
to the mail. Pure, so that the function, `bouncer explain` and the tests share one path.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from bouncer.address import normalise, normalise_domain
from bouncer.delivery.bounce import ADDRESS_LIMIT, Bounce, MessageDsn
from bouncer.guards import NOT_TOLD, Circumstances, GuardName, OtherReason, objections
from bouncer.message import InboundMessage
from bouncer.policy.conditions import Facts
from bouncer.policy.decide import Decision, Outcome, Policy, decide
from bouncer.policy.file import Mode


class Disposition(StrEnum):
    """What SES is told to do next with the mail (RequestResponse only)."""

    CONTINUE = "CONTINUE"
    STOP_RULE = "STOP_RULE"
    """Nothing more of this rule: it was for the event's recipients only, who are all refused."""
    STOP_RULE_SET = "STOP_RULE_SET"
    """Nothing more for the message at all, whoever else of its envelope other rules are for."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who the deployment is, where the policy does not say otherwise."""

    bounce_sender: str
    region: str
    mode: Mode = Mode.ENFORCE
    """OBSERVE sends and stops nothing, whatever the policy says."""
    stop: Disposition = Disposition.STOP_RULE
    """How refused mail stops: STOP_RULE_SET only where the rule covers the whole envelope."""
    window_margin: timedelta = timedelta(minutes=5)
    """How long before the end of SES's 24 hours a bounce is given up."""

    @property
    def reporting_mta(self) -> str:
        """SES's own default (SendBounce, MessageDsn.ReportingMta)."""
        return f"dns; inbound-smtp.{self.region}.amazonaws.com"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done about one mail."""

    mail: InboundMessage
    decisions: tuple[Decision, ...]
    bounce: Bounce | None
    """What its sender is to be told; None when nobody's bounce was decided."""
    faults: Mapping[str, str] = {}
    """Recipients that SES would refuse to have in the bounce, and why."""
    withheld: Mapping[str, OtherReason] = {}
    """Recipients of whom the sender is not told, whatever is told of others, and why."""
    suppressed: GuardName | OtherReason | None
    """Why the sender is not told of anyone, or None."""
    objections: tuple[GuardName | OtherReason, ...] = ()
    """Every guard that objects; the first is why the sender is not told."""
    observed: bool = False
    """Whether nothing of it is carried out, in observe mode."""
    stop: Disposition = Disposition.STOP_RULE
    """How the mail stops when nobody is left to deliver it to."""

    @property
    def to_send(self) -> Bounce | None:
        if self.bounce is None or self.suppressed is not None:
            return None
        sendable = self.bounce.only(
            {each.recipient for each in self.bounce.recipients} - {*self.faults, *self.withheld}
        )
        return sendable if sendable.recipients else None

    @property
    def disposition(self) -> Disposition:
        """Stop when no recipient is left to deliver to.

        Where only our own limits or SES's window keep the sender from being told, or a recipient
        can't stand in a bounce, the mail goes on: stopped, it would be lost without a word.
        """
        if self.suppressed in NOT_TOLD or (self.suppressed is None and self.faults):
            return Disposition.CONTINUE
        left = not self.decisions or any(each.delivered for each in self.decisions)
        return Disposition.CONTINUE if left else self.stop


def make_plan(
    policy: Policy,
    mail: InboundMessage,
    facts: Iterable[Facts],
    identity: Identity,
    now: datetime,
) -> Plan:
    """Decide for every recipient, then ask the guards.

    Raises:
        SizeNeeded: the outcome depends on the mail's size and nobody has looked it up.
        HeadersNeeded: it depends on headers that the event lacks, and nobody has looked.
    """
    decisions = tuple(decide(policy, mail, facts))
    refused = [each for each in decisions if each.bounce is not None and not each.dry_run]
    bounce = _bounce(mail, refused, identity) if refused else None
    withheld: dict[str, OtherReason] = {}
    suppressed: GuardName | OtherReason | None = None
    objecting: tuple[GuardName | OtherReason, ...] = ()
    if bounce is not None:
        withheld = _withheld(policy, bounce, identity)
        told_of = frozenset(each.recipient for each in bounce.recipients) - withheld.keys()
        suppressed = _hopeless(bounce, told_of, identity, now)
        if suppressed is None:
            at = circumstances(policy, mail, identity, bounce, told_of)
            objecting = objections(at, policy.file.guards.off)
            suppressed = next(iter(objecting), None)
    observed = Mode.OBSERVE in (policy.file.mode, identity.mode)
    if observed:
        decisions = tuple(
            msgspec.structs.replace(each, dry_run=each.outcome is not Outcome.ACCEPT)
            for each in decisions
        )
        suppressed = suppressed or (OtherReason.OBSERVE_MODE if bounce else None)
    return Plan(
        mail=mail,
        decisions=decisions,
        bounce=bounce,
        faults=_faults(bounce, withheld) if bounce else {},
        withheld=withheld,
        suppressed=suppressed,
        objections=objecting,
        observed=observed,
        stop=identity.stop,
    )


def _withheld(policy: Policy, bounce: Bounce, identity: Identity) -> dict[str, OtherReason]:
    """Who writes to a bounce sender answers a bounce: told of that, a robot answers again."""
    senders = {normalise(each) for each in _bounce_senders(policy, bounce, identity)}
    return {
        each.recipient: OtherReason.BOUNCE_SENDER_RECIPIENT
        for each in bounce.recipients
        if normalise(each.recipient) in senders
    }


def _bounce_senders(policy: Policy, bounce: Bounce, identity: Identity) -> frozenset[str]:
    return policy.bounce_senders | {bounce.bounce_sender, identity.bounce_sender}


def _faults(bounce: Bounce, withheld: Mapping[str, OtherReason]) -> dict[str, str]:
    return {
        recipient: fault
        for recipient, fault in bounce.faults().items()
        if recipient not in withheld
    }


def _hopeless(
    bounce: Bounce, told_of: frozenset[str], identity: Identity, now: datetime
) -> OtherReason | None:
    """Why the sender is told of nobody, whatever the guards say."""
    if not told_of:
        return OtherReason.BOUNCE_SENDER_RECIPIENT
    if now >= bounce.deadline(identity.window_margin):
        return OtherReason.WINDOW_CLOSED
    return None


def circumstances(
    policy: Policy,
    mail: InboundMessage,
    identity: Identity,
    bounce: Bounce | None = None,
    refused: frozenset[str] | None = None,
) -> Circumstances:
    """What the guards look at, with a bounce or before anyone thinks of one."""
    guards = policy.file.guards
    sender = {bounce.bounce_sender} if bounce is not None else set()
    return Circumstances(
        mail=mail,
        bounce_senders=policy.bounce_senders | {identity.bounce_sender} | sender,
        own_domains=frozenset(map(normalise_domain, guards.own_domains)),
        max_received=guards.max_received,
        refused=refused,
    )


def _bounce(mail: InboundMessage, decisions: list[Decision], identity: Identity) -> Bounce:
    # One call carries all that failed, so it has one sender and one MessageDsn. Should
    # domains differ, the choice must not depend on the order of the recipients.
    envelope = min(decisions, key=lambda each: each.recipient).envelope
    dsn: MessageDsn = envelope.message_dsn(mail.received_at, identity.reporting_mta)
    return Bounce(
        message_id=mail.message_id,
        received_at=mail.received_at,
        bounce_sender=envelope.bounce_sender or identity.bounce_sender,
        bounce_sender_arn=envelope.bounce_sender_arn,
        message_dsn=dsn,
        reverse_path=(mail.reverse_path or "")[:ADDRESS_LIMIT],
        recipients=tuple(each.bounce for each in decisions if each.bounce is not None),
    )
