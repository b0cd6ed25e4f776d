"""What is not judged, and why: the limits of what is promised, each with its name.

Each asks what happened (a clock was wrong, a process died), or what the product itself counted,
as an operator can. docs/simulator.md has them in words; tests/sim/test_excuses.py has for each a
world that breaks a promise without it.
"""

from bouncer.delivery.fate import Incident
from sim.expressions import Item
from sim.kernel import Actor
from sim.ses import Call
from sim.world import AUDIT_DELAY, World


def wrong_clock(world: World) -> bool:
    """A machine's clock was further off than the limiter is told to expect."""
    return "wrong-clock" in world.faults.fell


def held_up(*calls: Call) -> bool:
    """A process stood still between its last look at the clock and its call."""
    return any(each.suspended for each in calls)


def left_to_the_audit(actor: Actor) -> bool:
    """It said that it could not write the mail's record, or that too many came at once."""
    return bool(actor.counted["MailRecordFailed"] or actor.counted["UsageBusy"])


def penalty_not_written(throttled: Call) -> bool:
    """Its process said that the limiter did not answer when it was told to make room."""
    return throttled.said_since(Incident.NO_SLOT)


def died_after(call: Call) -> bool:
    """Its process was killed, or timed out: what became of the call may not be written down."""
    return call.run.doomed


def note_failed(call: Call) -> bool:
    """Its process said that it could not write down what became of a call."""
    return call.said_since(Incident.LEDGER_LAGS)


def claimed_after_the_audit(world: World, message_id: str, claim: Item) -> bool:
    """SES or Lambda called once more, after the audit had looked, and that invocation died."""
    mail = world.bounces.items.get((f"message#{message_id}", "mail"), {})
    recorded = [line.rpartition(" ")[2] for line in mail.get("recipients", {}).get("SS", [])]
    late = float(claim["updated_at"]["N"]) - world.ses.received[message_id] > AUDIT_DELAY
    owner = claim.get("owner", {}).get("S", "")
    workers = "#" in owner  # whose messages come again until the claim ends
    return late and not workers and claim["recipient"]["S"] in recorded
