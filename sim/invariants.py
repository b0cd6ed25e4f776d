"""What must never happen, whatever goes wrong; each with its name."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from bouncer import timing
from bouncer.mail_record import FOUND_UNDECIDED
from sim import excuses
from sim.kernel import Actor
from sim.receiving import Mail
from sim.ses import WINDOW, Call
from sim.workload import OTHER, OURS
from sim.world import CLOCK_ERROR, Violation, World

_ENDS = ("sent", "suppressed", "expired", "rejected", "dead-lettered")
_WITHIN = 1e-6
# From the last look at the clock to the call: the lead, a connection that is opened, the turn.
_AFTER_THE_LOOK = 15.0


# --- As soon as a call starts ------------------------------------------------------------------


def of_call(world: World, call: Call, previous: Call | None) -> list[Violation]:
    """What a call breaks by starting now."""
    return [
        *_pace(world, call, previous),
        *_penalty(world, call),
        *_window(world, call),
        *_claimed(world, call),
        *_fresh_connection(call),
        *_late(world, call),
        *_never_answered(world, call),
    ]


def _never_answered(world: World, call: Call) -> Iterator[Violation]:
    """Null senders and lists are told nothing, however much of the mail's headers came."""
    mail = next(each for each in world.work.mails if each.id == call.message_id)
    if not mail.sender or mail.headers:
        yield Violation(
            invariant="never-answered",
            what=f"{call.actor} answers {mail.sender or 'the null sender'} {mail.headers}",
            message_id=mail.id,
        )


# --- As soon as an invocation ends --------------------------------------------------------------


def of_answer(world: World, event: Any, actor: Actor) -> list[Violation]:
    """What InboundFunction breaks by answering as if nothing were wrong."""
    return [*_handled_or_kept(world, event, actor)]


def _handled_or_kept(world: World, event: Any, actor: Actor) -> Iterator[Violation]:
    """Who answers has handled every recipient, or kept the event; a failure is not swallowed."""
    if excuses.left_to_the_audit(actor):
        return
    ses = event["Records"][0]["ses"]
    message_id = ses["mail"]["messageId"]
    lines = world.bounces.items.get((f"message#{message_id}", "mail"), {})
    recorded = " ".join(lines.get("recipients", {}).get("SS", []))
    kept = any(f'"{message_id}"' in m.body for m in world.event_dead_letters.messages.values())
    for recipient in ses["receipt"]["recipients"]:
        line = (f"message#{message_id}", f"recipient#{recipient}")
        if recipient not in recorded and line not in world.bounces.items and not kept:
            yield Violation(
                invariant="handled-or-kept",
                what=f"{actor.name} answers, and nothing tells what became of {recipient}",
                message_id=message_id,
            )


def _pace(world: World, call: Call, previous: Call | None) -> Iterator[Violation]:
    """Two calls never start closer than the interval, as long as the clocks are as stated."""
    if previous is None or excuses.wrong_clock(world) or excuses.held_up(call, previous):
        return
    gap = call.start - previous.start
    if gap < world.interval - _WITHIN:
        yield Violation(
            invariant="pace",
            what=f"{gap:.4f} s after the call before, by {previous.actor} and {call.actor}",
            message_id=call.message_id,
        )


def _penalty(world: World, call: Call) -> Iterator[Violation]:
    """Who was throttled makes room for two intervals."""
    before = world.ses.throttled.pop(call.actor, None)
    if before is None or excuses.wrong_clock(world) or excuses.penalty_not_written(before):
        return
    if call.start - before.start < 2 * world.interval - 2 * CLOCK_ERROR:
        yield Violation(
            invariant="penalty",
            what=f"{call.actor} calls {call.start - before.start:.3f} s after it was throttled",
            message_id=call.message_id,
        )


def _fresh_connection(call: Call) -> Iterator[Violation]:
    """No call goes out on a connection that may be dead."""
    if call.idle > timing.STALE + timing.LEAD + 1.0:
        yield Violation(
            invariant="fresh-connection",
            what=f"{call.actor} calls on a connection that was idle for {call.idle:.0f} s",
            message_id=call.message_id,
        )


def _late(world: World, call: Call) -> Iterator[Violation]:
    """A late decision bounces nobody who may have the mail."""
    known = {box.address for box in world.work.mailboxes if box.always}
    if call.actor.startswith("audit") and not known.isdisjoint(call.recipients):
        yield Violation(
            invariant="late-decisions",
            what=f"{call.actor} bounces {' '.join(call.recipients)}",
            message_id=call.message_id,
        )


def _window(world: World, call: Call) -> Iterator[Violation]:
    """Nothing is sent after the 24 hours, nor in their last minutes."""
    age = call.start - world.ses.received[call.message_id]
    if age > min(WINDOW - world.margin + _AFTER_THE_LOOK, WINDOW):
        yield Violation(
            invariant="window",
            what=f"a call {age:.0f} s after the mail",
            message_id=call.message_id,
        )


def _claimed(world: World, call: Call) -> Iterator[Violation]:
    """No call is made for a recipient that nobody holds, or that is at an end."""
    for recipient in call.recipients:
        item = world.bounces.items.get((f"message#{call.message_id}", f"recipient#{recipient}"))
        state = item["state"]["S"] if item is not None else "none"
        if state != "claimed" and not excuses.wrong_clock(world):
            yield Violation(
                invariant="claimed",
                what=f"a call for {recipient}, which is {state}",
                message_id=call.message_id,
            )


# --- When the world is quiet -------------------------------------------------------------------


def of_world(world: World) -> list[Violation]:
    """What is left that must not be."""
    return [
        *_told_or_recorded(world),
        *_once(world),
        *_lost_answers(world),
        *_sent_is_true(world),
        *_claims_end(world),
        *_accepted(world),
        *_usage(world),
        *_named(world),
        *_healthy(world),
    ]


def _refused(world: World, recipient: str) -> bool:
    """Whether the policy refuses it whenever it is asked."""
    boxes = {box.address: box for box in world.work.mailboxes}
    if not recipient.endswith(f"@{OURS}"):
        return False
    box = boxes.get(recipient)
    return box is None or (box.always and box.disabled and not world.faults.has("policy-change"))


def _taken(world: World, recipient: str) -> bool:
    """Whether the policy accepts it whenever it is asked."""
    if recipient.endswith(f"@{OTHER}"):
        return True
    boxes = {box.address: box for box in world.work.mailboxes}
    box = boxes.get(recipient)
    return box is not None and box.always and not box.disabled and box.quota in (0, 10**12)


def _state(world: World, mail: Mail, recipient: str) -> str:
    item = world.bounces.items.get((f"message#{mail.id}", f"recipient#{recipient}"))
    return str(item["state"]["S"]) if item is not None else "none"


def _kept(world: World) -> set[str]:
    """Mails whose bounce or notice waits for a person.

    Not those whose event does: the audit decides them all the same.
    """
    queues = (world.bounce_dead_letters, world.audit_dead_letters)
    bodies = [each.body for queue in queues for each in queue.messages.values()]
    return {mail.id for mail in world.work.mails if any(f'"{mail.id}"' in b for b in bodies)}


def _withheld(world: World, mail: Mail, recipient: str) -> bool:
    """Whether its record says that it was decided too late to tell its sender."""
    item = world.bounces.items.get((f"message#{mail.id}", "mail"), {})
    lines = item.get("recipients", {}).get("SS", [])
    return any(FOUND_UNDECIDED in line and line.endswith(f" {recipient}") for line in lines)


def _told_or_recorded(world: World) -> Iterator[Violation]:
    """Every refused recipient's sender is told, or a reason is on record."""
    told = {(c.message_id, r) for c in world.ses.sent for r in c.recipients}
    kept = _kept(world)
    for mail in world.work.mails:
        # Who is never answered waits for no word; that is in the log, if not in the ledger.
        if not mail.sender or mail.headers or mail.id in kept:
            continue
        for recipient in filter(lambda each: _refused(world, each), mail.recipients):
            recorded = _state(world, mail, recipient) in _ENDS or _withheld(world, mail, recipient)
            if (mail.id, recipient) not in told and not recorded:
                yield Violation(
                    invariant="told-or-recorded",
                    what=f"{recipient} is {_state(world, mail, recipient)} and nobody was told",
                    message_id=mail.id,
                )


def _once(world: World) -> Iterator[Violation]:
    """A recipient is bounced once; again only for an answer that was lost, or a crash after it."""
    sent = Counter((c.message_id, r) for c in world.ses.sent for r in c.recipients)
    for (message_id, recipient), times in sent.items():
        its = [
            c for c in world.ses.sent if c.message_id == message_id and recipient in c.recipients
        ]
        unknown = [excuses.died_after(call) or excuses.note_failed(call) for call in its]
        pairs = zip(its, unknown, strict=True)
        lost = min(1, sum(not call.answered and not excused for call, excused in pairs))
        # By a clock that is far ahead, a lease that holds has run out: two send.
        if times > 1 + lost + excuses.wrong_clock(world) + sum(unknown):
            yield Violation(
                invariant="once",
                what=f"{times} bounces for {recipient}",
                message_id=message_id,
            )


def _lost_answers(world: World) -> Iterator[Violation]:
    """Two calls without an answer are enough."""
    lost: Counter[tuple[str, str]] = Counter()
    crashed: set[str] = set()
    for call in world.ses.calls:
        if excuses.died_after(call) or excuses.note_failed(call):
            crashed.add(call.message_id)
        elif call.lost:
            lost.update((call.message_id, recipient) for recipient in call.recipients)
    for (message_id, recipient), times in lost.items():
        if times > 2 and message_id not in crashed:
            yield Violation(
                invariant="lost-answers",
                what=f"{times} calls for {recipient} were never answered",
                message_id=message_id,
            )


def _sent_is_true(world: World) -> Iterator[Violation]:
    """What the ledger calls sent, SES has taken."""
    told = {(c.message_id, r) for c in world.ses.sent for r in c.recipients}
    for mail in world.work.mails:
        for recipient in mail.recipients:
            if _state(world, mail, recipient) == "sent" and (mail.id, recipient) not in told:
                yield Violation(
                    invariant="sent-is-true",
                    what=f"{recipient} is sent, and SES knows nothing of it",
                    message_id=mail.id,
                )


def _claims_end(world: World) -> Iterator[Violation]:
    """Nothing is held or waits for ever."""
    kept = _kept(world)
    for (pk, sk), item in sorted(world.bounces.items.items()):
        state = item.get("state", {}).get("S")
        message_id = pk.removeprefix("message#")
        if state not in ("claimed", "queued"):
            continue
        recipient = sk.removeprefix("recipient#")
        its = [
            c for c in world.ses.sent if c.message_id == message_id and recipient in c.recipients
        ]
        unsaid = any(excuses.note_failed(call) for call in its)
        # The two write over each other's ends.
        unsaid = unsaid or (bool(its) and excuses.wrong_clock(world))
        late = not its and excuses.claimed_after_the_audit(world, message_id, item)
        if not (unsaid or late or message_id in kept):
            yield Violation(
                invariant="claims-end", what=f"{sk} is {state} at the end", message_id=message_id
            )


def _accepted(world: World) -> Iterator[Violation]:
    """Who is accepted gets the mail, and nobody is told otherwise."""
    told = {(c.message_id, r) for c in world.ses.sent for r in c.recipients}
    for mail in world.work.mails:
        for recipient in filter(lambda each: _taken(world, each), mail.recipients):
            if (mail.id, recipient) in told:
                yield Violation(
                    invariant="accepted-not-told", what=f"{recipient} bounced", message_id=mail.id
                )
            if (mail.id, recipient) not in world.receiving.delivered:
                yield Violation(
                    invariant="accepted-delivered",
                    what=f"{recipient} never got it: {world.receiving.stopped.get(mail.id)} "
                    "stopped it",
                    message_id=mail.id,
                )


def _usage(world: World) -> Iterator[Violation]:
    """A mailbox's counter is what its mails add up to; deleted ones are given back."""
    sums: Counter[str] = Counter()
    waits = [each.body for each in world.usage_dead_letters.messages.values()]
    for (pk, sk), item in sorted(world.bounces.items.items()):
        if not sk.startswith("usage#") or "returned_at" in item:
            continue
        message_id = pk.removeprefix("message#")
        size = int(item["size"]["N"])  # 0 of what was deleted before it was counted
        sums[item["mailbox"]["S"]] += size
        deleted = message_id in world.deleted
        if size and deleted and not any(message_id in body for body in waits):
            yield Violation(
                invariant="given-back", what=f"{sk} is still counted", message_id=message_id
            )
        if _refused(world, item["mailbox"]["S"]):
            yield Violation(
                invariant="usage-exact", what=f"{sk} counts what it refused", message_id=message_id
            )
    for box in world.work.mailboxes:
        entry = world.mailboxes.items.get((box.address,))
        counted = int(entry.get("used_bytes", {}).get("N", 0)) if entry is not None else None
        if counted is not None and box.always and counted != sums[box.address]:
            yield Violation(
                invariant="usage-exact",
                what=f"{box.address} counts {counted}, its mails are {sums[box.address]}",
            )


def _named(world: World) -> Iterator[Violation]:
    """SES refuses nobody who was in the directory all the time, and at the end it names just it."""
    always = {box.address for box in world.work.mailboxes if box.always}
    for message_id, recipient in sorted(world.receiving.refused):
        if recipient in always or recipient.endswith(f"@{OTHER}"):
            yield Violation(
                invariant="named", what=f"SES refuses {recipient}", message_id=message_id
            )
    if world.synced:
        ours = [rule for rule in world.receiving.rules if rule.invokes]
        named = {recipient for rule in ours for recipient in rule.recipients}
        there = {address for (address,) in world.mailboxes.items}
        if named != there or not all(rule.recipients for rule in ours):
            yield Violation(invariant="named", what=f"the rules name {sorted(named)}")


def _healthy(world: World) -> Iterator[Violation]:
    """Where nothing goes wrong, every sender is told, and every mail is counted."""
    if world.faults.fell or world.ses.outages or world.work.kind in ("slow", "outage"):
        return
    told = {(c.message_id, r) for c in world.ses.sent for r in c.recipients}
    for mail in world.work.mails:
        plain = mail.sender.startswith("pat@s") and mail.spf == "PASS" and not mail.headers
        if not plain or "same" in mail.sender:
            continue
        for recipient in mail.recipients:
            if _refused(world, recipient) and (mail.id, recipient) not in told:
                yield Violation(
                    invariant="healthy", what=f"{recipient}: not told", message_id=mail.id
                )
