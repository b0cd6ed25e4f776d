"""One structured log line a mail, and metrics by reason and bounce type (EMF)."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import (
    AmazonCloudWatchEMFProvider,
)

from bouncer.address import domain_of, normalise
from bouncer.aws.discretion import Discretion
from bouncer.budget import client_address
from bouncer.delivery.fate import Fate, Incident
from bouncer.delivery.ledger import BounceState
from bouncer.guards import NOT_TOLD
from bouncer.headers import message_id as id_of
from bouncer.inbound import Handled
from bouncer.mail_record import FOUND_UNDECIDED
from bouncer.message import InboundMessage
from bouncer.plan import Disposition
from bouncer.policy.conditions import Facts
from bouncer.policy.decide import Decision, Outcome

MAIL_HANDLED = "mail handled"
BOUNCE_HANDLED = "bounce handled"
"""Messages of the lines from which people and the console learn what became of a mail."""

SENDER_NOT_TOLD = "SenderNotTold"
"""A metric: a proven sender met a budget or SES's window, and the mail went on."""

NAMESPACE = "SesBouncer"

BY_STATE = {
    BounceState.SENT: "BounceSent",
    BounceState.QUEUED: "BounceQueued",
    BounceState.SUPPRESSED: "BounceSuppressed",
    BounceState.EXPIRED: "BounceExpired",
    BounceState.REJECTED: "BounceRejected",
    BounceState.DEAD_LETTERED: "BounceDeadLettered",
}
BY_OUTCOME = {Outcome.ACCEPT: "RecipientAccepted", Outcome.DROP: "RecipientDropped"}
DOMAIN_UNKNOWN = "RecipientDomainUnknown"


TRY_HEADER = "X-Ses-Bouncer-Try"
"""A header by which `bouncer try` finds its own mail in the log, whatever LogAddresses is."""
_TRY = re.compile(r"[a-z0-9]{8,40}")


def _tried(mail: InboundMessage) -> dict[str, str]:
    """The mark of an operator's live check; nothing else of a mail's headers is logged."""
    marks = [value for value in mail.header(TRY_HEADER)[:1] if _TRY.fullmatch(value)]
    return {"try": marks[0]} if marks else {}


FOUND = "MailFoundUndecided"


class Telemetry:
    """Collects while an invocation runs; `flush` prints what CloudWatch reads."""

    def __init__(self, logger: Logger, *, service: str, discretion: Discretion) -> None:
        self._logger = logger
        self._service = service
        self._discretion = discretion
        self._address = discretion.address
        self._counts: Counter[tuple[str, str, str]] = Counter()
        discretion.hold(logger)

    def count(self, name: str, reason: str = "", bounce_type: str = "") -> None:
        self._counts[name, reason, bounce_type] += 1

    def incident(self, incident: Incident) -> None:
        self.count(incident.value)

    def warn(self, name: str, detail: str | Exception, **fields: str) -> None:
        """Something that nobody notices in a mail's fate, and that somebody should know.

        Args:
            detail: our own words, which name nobody; or what went wrong.
        """
        self.count(name)
        if isinstance(detail, Exception):
            detail = self._discretion.words(detail) or ""
        self._logger.warning(name, extra={"detail": detail, **fields})

    def bad_mailbox(self, address: str, why: str) -> None:
        """An item of the directory that cannot be read, and so has no limits."""
        self.count("MailboxItemInvalid")
        detail = self._discretion.words(why) or "`bouncer mailbox check` says why"
        self._logger.warning(
            "MailboxItemInvalid", extra={"mailbox": self._address(address), "detail": detail}
        )

    def unreadable(self, sqs_message_id: str, error: Exception) -> None:
        """A message of the queue that is set aside."""
        self.count("BounceDeadLettered", "unreadable")
        why = self._discretion.words(error)
        self._logger.error(
            "bounce unreadable", extra={"sqs_message_id": sqs_message_id, "why": why}
        )

    def handled(self, handled: Handled) -> None:
        plan = handled.plan
        for decision in plan.decisions:
            if decision.dry_run:
                self.count("RecipientDryRun", decision.reason)
            elif decision.outcome in BY_OUTCOME:
                self.count(BY_OUTCOME[decision.outcome], decision.reason)
        self._count_fates(handled.fates)
        self._count_mail(handled)
        if plan.suppressed in NOT_TOLD:
            self.count(SENDER_NOT_TOLD, plan.suppressed or "")
        for domain in handled.unknown_domains:
            self.count(DOMAIN_UNKNOWN)
            self._logger.warning(DOMAIN_UNKNOWN, extra={"domain": domain})
        for mailbox in handled.near_full:
            self.count("MailboxNearFull")
            self._logger.info(
                "mailbox near full",
                extra={
                    "mailbox": self._address(mailbox.address),
                    "used_bytes": mailbox.used_bytes,
                    "quota_bytes": mailbox.quota_bytes,
                },
            )
        fates = {fate.recipient: fate for fate in handled.fates}
        facts = {each.recipient: each for each in handled.facts}
        self._logger.info(
            MAIL_HANDLED,
            extra={
                "ses_message_id": plan.mail.message_id,
                **self._mail(plan.mail),
                "suppressed": plan.suppressed,
                "disposition": handled.disposition,
                "policy": handled.policy,
                **_tried(plan.mail),
                **({"size": handled.facts[0].size} if handled.facts else {}),
                # The first is why it is suppressed.
                **({"objections": plan.objections} if plan.objections[1:] else {}),
                **({"observed": True} if plan.observed else {}),
                **({FOUND_UNDECIDED: True} if handled.late else {}),
                "recipients": [
                    {
                        "recipient": self._address(each.recipient),
                        **self._decision(each, facts.get(each.recipient)),
                        **self._fate(fates.get(each.recipient)),
                        **({"withheld": True} if each.recipient in handled.withheld else {}),
                    }
                    for each in plan.decisions
                ],
            },
        )

    def _mail(self, mail: InboundMessage) -> dict[str, Any]:
        """Who sent it, by which host; None where nobody knows, or wants it logged."""
        sender = mail.reverse_path
        client = client_address(mail)
        named = [id_of(each) for each in mail.header("Message-ID")[:1]]
        return {
            "received_at": mail.received_at.isoformat(timespec="milliseconds"),
            "sender": self._address(sender) if sender else "<>",
            # For tables by domain: a hash of the whole does not tell which senders share one.
            "sender_domain": self._address(domain_of(sender)) if sender else None,
            "client": None if client is None else self._address(str(client)),
            "message_id_header": self._address(named[0]) if named and named[0] else None,
        }

    def _decision(self, decision: Decision, facts: Facts | None) -> dict[str, Any]:
        found = {
            "outcome": decision.outcome,
            "reason": decision.reason,
            "dry_run": decision.dry_run,
        }
        if facts is None or facts.way is None or facts.entry == normalise(decision.recipient):
            return found
        return found | {"entry": self._address(facts.entry), "way": facts.way}

    def _count_mail(self, handled: Handled) -> None:
        if handled.late:
            self.count(FOUND)
        for _ in handled.withheld:
            self.count("BounceWithheld", FOUND_UNDECIDED)
        if not handled.recorded:
            self.count("MailRecordFailed")
        stops = handled.plan.disposition is not Disposition.CONTINUE
        if stops and handled.disposition is Disposition.CONTINUE:
            self.count("RefusedMailWentOn")

    def sent(self, fates: Iterable[Fate]) -> None:
        """What the queue's worker did, a line a mail."""
        by_mail: dict[str, list[Fate]] = {}
        for fate in fates:
            by_mail.setdefault(fate.message_id, []).append(fate)
        for message_id, its in by_mail.items():
            self._count_fates(its)
            self._logger.info(
                BOUNCE_HANDLED,
                extra={
                    "ses_message_id": message_id,
                    "recipients": [
                        {
                            "recipient": self._address(each.recipient),
                            "reason": each.reason,
                            **self._fate(each),
                        }
                        for each in its
                    ],
                },
            )

    def flush(self) -> None:
        for (name, reason, bounce_type), value in self._counts.items():
            blob = AmazonCloudWatchEMFProvider(
                namespace=NAMESPACE,
                service=self._service,
                metric_set={},
                dimension_set={},
                metadata_set={},
                default_dimensions={},
            )
            blob.add_metric(name, MetricUnit.Count, value)
            # One metric without the reason, for alarms; one for each reason; one for each type.
            if reason:
                blob.add_dimensions(service=self._service, Reason=reason)
            if bounce_type:
                blob.add_dimensions(service=self._service, Reason=reason, BounceType=bounce_type)
            blob.flush_metrics()
        self._counts.clear()

    def _count_fates(self, fates: Iterable[Fate]) -> None:
        for fate in fates:
            if not fate.repeated and fate.state in BY_STATE:
                self.count(BY_STATE[fate.state], fate.reason, fate.bounce_type or fate.status)

    def _fate(self, fate: Fate | None) -> dict[str, Any]:
        if fate is None:
            return {}
        told = {
            "state": fate.state,
            "bounce_type": fate.bounce_type or None,
            "status": fate.status,
            "bounce_id": fate.bounce_id or None,
            "error_code": self._discretion.code(fate.error_code) or None,
            "detail": self._discretion.words(fate.detail) or None,
            "repeated": fate.repeated or None,
        }
        return {name: value for name, value in told.items() if value is not None}
