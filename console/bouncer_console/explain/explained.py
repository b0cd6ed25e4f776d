"""One mail's plan, with all that it was made from: facts, rules, guards."""

from typing import Any

import msgspec

from bouncer.guards import GUARDS, answer_of
from bouncer.inbound import Planned
from bouncer.mailboxes import MailboxState
from bouncer.plan import Identity, Plan, circumstances
from bouncer.policy.conditions import Facts
from bouncer.policy.decide import Trial, trials
from bouncer.proof import Doubt, Proof, prove


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One mail's plan, and what it was made from."""

    planned: Planned
    identity: Identity
    size: int | None
    """Bytes, where anybody knows, whether or not a rule asked."""
    size_missed: bool

    @property
    def plan(self) -> Plan:
        return self.planned.plan

    @property
    def proof(self) -> Proof | Doubt | None:
        return None if self.plan.mail.reverse_path is None else prove(self.plan.mail)

    def guards(self) -> list[dict[str, Any]]:
        """Each guard with its answer; where nothing is bounced, what it would say."""
        plan, policy = self.plan, self.planned.policy
        told_of = None
        if plan.bounce is not None:
            told_of = frozenset(e.recipient for e in plan.bounce.recipients) - {*plan.withheld}
        at = circumstances(policy, plan.mail, self.identity, plan.bounce, told_of)
        return [
            {
                "guard": guard.name,
                "answer": _OBJECTIONS.get(answer_of(guard, at), "failed"),
                "off": guard.name in policy.file.guards.off,
                "source": guard.source,
            }
            for guard in GUARDS
        ]

    def trials(self, facts: Facts) -> list[Trial]:
        return trials(self.planned.policy, self.plan.mail, facts)

    @property
    def one_answer(self) -> bool:
        """Whether every rule's bounce was made the same."""
        return self.planned.policy.file.one_answer is not None

    def as_json(self) -> dict[str, Any]:
        plan, bounce = self.plan, self.plan.to_send
        facts = {each.recipient: each for each in self.planned.facts}
        return {
            "message_id": plan.mail.message_id,
            "sender": plan.mail.reverse_path,
            "proof": self.proof,
            "verdicts": msgspec.structs.asdict(plan.mail.verdicts),
            "dmarc_policy": plan.mail.dmarc_policy or None,
            "headers_whole": plan.mail.headers_whole,
            "size": self.size,
            "disposition": plan.disposition,
            "suppressed": plan.suppressed,
            "recipients": [
                {
                    "recipient": each.recipient,
                    "outcome": each.outcome,
                    "reason": each.reason,
                    "bounce_type": each.bounce.bounce_type if each.bounce else None,
                    "status": each.bounce.status if each.bounce else None,
                    "dry_run": each.dry_run,
                    "not_told": plan.faults.get(each.recipient)
                    or plan.withheld.get(each.recipient),
                    "facts": facts_shown(facts[each.recipient]),
                    "rules": [
                        {
                            "rule": trial.rule,
                            "holds": trial.failed is None,
                            "failed": trial.failed,
                            "why": trial.why or None,
                            "unknown": trial.unknown,
                        }
                        for trial in self.trials(facts[each.recipient])
                    ],
                }
                for each in plan.decisions
            ],
            "one_answer": self.one_answer,
            "guards": self.guards(),
            "send_bounce": bounce.request() if bounce else None,
        }


_OBJECTIONS: dict[Any, str] = {True: "objects", False: "no objection", None: "unknown"}


def facts_shown(facts: Facts) -> dict[str, Any]:
    """What was known of a recipient."""
    box = facts.mailbox
    return {
        "domain_known": facts.domain_known,
        "entry": facts.entry or None,
        "way": facts.way,
        "mailbox": box.address if box else None,
        "states": [state for state in MailboxState if is_in(facts, state)],
        "used_bytes": box.used_bytes if box else None,
        "quota_bytes": box.quota_bytes if box else None,
        "size_limit_bytes": box.size_limit_bytes if box else None,
    }


def is_in(facts: Facts, state: MailboxState) -> bool:
    return bool(msgspec.structs.replace(facts, size_asked=True).has_state(state))
