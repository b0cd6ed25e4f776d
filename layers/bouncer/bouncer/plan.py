"""From facts to a plan: who is refused, whether the sender may be told, and what happens
to the mail. Pure, so that the function, `bouncer explain` and the tests share one path.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from bouncer.address import normalise_domain
from bouncer.delivery.bounce import Bounce, MessageDsn
from bouncer.guards import Circumstances, GuardName, OtherReason, objection
from bouncer.message import InboundMessage
from bouncer.policy.conditions import Facts
from bouncer.policy.decide import Decision, Outcome, Policy, decide
from bouncer.policy.file import Mode


class Disposition(StrEnum):
    """What SES is told to do next with the mail (RequestResponse only)."""

    CONTINUE = "CONTINUE"
    STOP_RULE_SET = "STOP_RULE_SET"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who the deployment is, where the policy does not say otherwise."""

    bounce_sender: str
    region: str
    mode: Mode = Mode.ENFORCE
    """OBSERVE sends and stops nothing, whatever the policy says."""
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
    suppressed: GuardName | OtherReason | None
    """Why the sender is not told, or None."""

    @property
    def to_send(self) -> Bounce | None:
        if self.bounce is None or self.suppressed is not None:
            return None
        sendable = self.bounce.only(
            {each.recipient for each in self.bounce.recipients} - {*self.faults}
        )
        return sendable if sendable.recipients else None

    @property
    def disposition(self) -> Disposition:
        """Stop when no recipient is left to deliver to."""
        left = not self.decisions or any(each.delivered for each in self.decisions)
        return Disposition.CONTINUE if left else Disposition.STOP_RULE_SET


def make_plan(
    policy: Policy,
    mail: InboundMessage,
    facts: Iterable[Facts],
    identity: Identity,
    now: datetime,
) -> Plan:
    """Decide for every recipient, then ask the guards.

    Raises:
        SizeNeeded: the policy asks for the mail's size and nobody has looked it up.
    """
    decisions = tuple(decide(policy, mail, facts))
    refused = [each for each in decisions if each.bounce is not None and not each.dry_run]
    bounce = _bounce(mail, refused, identity) if refused else None
    suppressed = _suppressed(policy, mail, bounce, identity, now) if bounce else None
    if Mode.OBSERVE in (policy.file.mode, identity.mode):
        decisions = tuple(
            msgspec.structs.replace(each, dry_run=each.outcome is not Outcome.ACCEPT)
            for each in decisions
        )
        suppressed = suppressed or (OtherReason.OBSERVE_MODE if bounce else None)
    return Plan(
        mail=mail,
        decisions=decisions,
        bounce=bounce,
        faults=bounce.faults() if bounce else {},
        suppressed=suppressed,
    )


def _suppressed(
    policy: Policy, mail: InboundMessage, bounce: Bounce, identity: Identity, now: datetime
) -> GuardName | OtherReason | None:
    if now >= bounce.deadline(identity.window_margin):
        return OtherReason.WINDOW_CLOSED
    guards = policy.file.guards
    return objection(
        Circumstances(
            mail=mail,
            bounce_senders=policy.bounce_senders | {bounce.bounce_sender, identity.bounce_sender},
            own_domains=frozenset(map(normalise_domain, guards.own_domains)),
            max_received=guards.max_received,
        ),
        guards.off,
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
        recipients=tuple(each.bounce for each in decisions if each.bounce is not None),
    )
