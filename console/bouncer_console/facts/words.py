"""What became of a recipient's mail, in a few words."""

from bouncer.delivery.ledger import BounceState
from bouncer.guards import OtherReason
from bouncer_console.facts.mails import BUDGETS, MailFacts, RecipientFacts

_BOUNCED: dict[str | None, str] = {
    BounceState.SENT: "bounced",
    BounceState.QUEUED: "bounce waits",
    BounceState.CLAIMED: "bounce under way",
    BounceState.SUPPRESSED: "sender not told",
    BounceState.EXPIRED: "bounce given up",
    BounceState.REJECTED: "bounce refused by SES",
    BounceState.DEAD_LETTERED: "bounce is a dead letter",
}


def what(mail: MailFacts, each: RecipientFacts) -> str:
    """What was done."""
    would = "would be " if each.dry_run else ""
    match each.outcome:
        case "accept":
            return "accepted"
        case "drop":
            return f"{would}dropped"
        case "bounce" if each.withheld:
            return "bounce withheld"
        case "bounce" if each in mail.would_bounce or (each.dry_run and not each.state):
            return "would be bounced"
        case "bounce" if mail.observed:
            return "sender would not be told"
    return _BOUNCED.get(each.state, each.outcome)


_LOOKS: dict[str, str] = {
    BounceState.SENT: "warning",
    BounceState.QUEUED: "warning",
    BounceState.CLAIMED: "warning",
    BounceState.EXPIRED: "bad",
    BounceState.REJECTED: "bad",
    BounceState.DEAD_LETTERED: "bad",
}


def look(mail: MailFacts, each: RecipientFacts) -> str:
    """How that is shown: good, warning, bad, or nothing of these."""
    if each.outcome == "accept":
        return "good"
    return "" if mail.observed or each.outcome == "drop" else _LOOKS.get(each.state, "")


def why(mail: MailFacts, each: RecipientFacts) -> str:
    """The rule, and whatever else had a say in it."""
    said = [each.reason]
    if each.entry:
        said.append(f"by {each.entry} ({each.way})" if each.way else f"by {each.entry}")
    if each.dry_run and not mail.observed:
        said.append("rule on trial")
    if each.outcome == "bounce" and mail.suppressed not in ("", OtherReason.OBSERVE_MODE):
        kind = "budget" if mail.suppressed in BUDGETS else "guard"
        others = [each for each in mail.objections if each != mail.suppressed]
        said.append(", ".join((f"{kind}{'s' if others else ''} {mail.suppressed}", *others)))
    if each.error_code:
        said.append(each.error_code)
    if mail.late:
        said.append("found by the audit")
    return "; ".join(said)
