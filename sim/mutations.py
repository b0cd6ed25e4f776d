"""The product, broken on purpose: a simulator that finds none of these has proven nothing.

Each mutation replaces one method of the product's, says what a person could have got wrong
there, and names the promise that it breaks, with a seed that shows it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

import msgspec

import functions.inbound.app
import functions.receipt_rules.app
from bouncer import audit, inbound, receipt_rules
from bouncer.aws import ledger as aws_ledger
from bouncer.aws import usage
from bouncer.aws.connections import Kept
from bouncer.aws.queue import SqsKeeper
from bouncer.delivery import bookkeeper, calls, inline, worker
from bouncer.delivery.bookkeeper import Held
from bouncer.delivery.bounce import Bounce
from bouncer.delivery.ledger import BounceState, Claims
from bouncer.limiter import Limiter, Pace, Reservation
from bouncer.receipt_rules import RuleChange


class Mutation(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake."""

    name: str
    what: str
    target: Any
    attribute: str
    instead: Any
    finds: frozenset[str]
    """The promises of which one is broken by it."""
    seed: int = 0
    """A world that shows it."""


def _never_too_late(_self: Any, _bounce: Bounce, ahead: timedelta = timedelta(0)) -> bool:
    return False


def _turn_without_expiry(self: Reservation) -> None:
    real: Any = self
    while (pause := real._until_turn()) > 0:
        real._sleep(pause)
    real._turns += 1
    real._earliest = real._monotonic() + real._pace.step


def _claim_everything(
    self: Any, bounce: Bounce, *, owner: str, until: datetime
) -> tuple[Held, Claims]:
    del self
    everybody = dict.fromkeys((each.recipient for each in bounce.recipients), 0)
    held = Held(bounce=bounce, owner=owner, until=until, lost_answers=everybody)
    return held, Claims(mine=everybody, settled={}, in_flight={})


def _monotonic_only(self: Kept) -> bool:
    used: Any = self._used
    return used is None or self._monotonic() - used[1] >= 5.0


def _settled_before_it_is_sent(self: calls.Calls, held: Held, window: Reservation) -> Any:
    real: Any = self
    real._books.settle(held, BounceState.SENT)
    return _CALL(self, held, window)


def _no_penalty(_self: Limiter, _window: Reservation, _seconds: float) -> None:
    return None


def _ledger_before_queue(self: inline.Inline, held: Held) -> Any:
    real: Any = self
    fates = real._books.settle(held, BounceState.QUEUED)
    real._bounce_queue.put(held.bounce, until=held.until, delay=timedelta(seconds=2))
    return fates


def _answers_are_not_counted(_self: bookkeeper.Bookkeeper, held: Held) -> Held:
    return held


def _in_flight_forgotten(
    self: bookkeeper.Bookkeeper, bounce: Bounce, *, owner: str, until: datetime
) -> tuple[Held | None, Claims]:
    held, claims = _CLAIM(self, bounce, owner=owner, until=until)
    return held, msgspec.structs.replace(claims, in_flight={})


def _stopping(event: Any, context: Any) -> dict[str, str]:
    _HANDLER(event, context)
    return {"disposition": "STOP_RULE_SET"}


def _rejected_at_once(self: calls.Calls, held: Held, window: Reservation) -> Any:
    called = _CALL(self, held, window)
    if called.left is not None and not called.at_once:
        return calls.Called(fates=called.fates)
    return called


def _too_short(self: Pace, calls: int) -> float:
    return (calls - 1) * self.step


def _counted_on_each_try(self: usage.DynamoUsage, items: Any) -> Any:
    for item in items:
        if "Put" in item:
            item["Put"].pop("ConditionExpression", None)
    return _TRANSACT(self, items)


def _recipients_forgotten(self: Bounce, recipients: set[str]) -> Bounce:
    kept = tuple(each for each in self.recipients if each.recipient in recipients)
    return msgspec.structs.replace(self, recipients=kept[:1])


def _nothing_uncovered(*_: Any) -> list[str]:
    return []


def _recorded_first(self: inbound.Inbound, mail: Any, **arguments: Any) -> Any:
    real: Any = self
    plan = real._planner.plan(mail).plan
    real._record(plan, [], frozenset(), arguments["until"], late=False)
    return _HANDLE(self, mail, **arguments)


def _all_in_time(planned: inbound.Planned, _late: Any) -> Any:
    return planned.plan, frozenset()


def _marked_again(self: usage.DynamoUsage, record: Any) -> Any:
    items = _RETURN(self, record)
    items[0]["Update"]["ConditionExpression"] = "attribute_exists(pk)"
    return items


def _not_kept(_self: SqsKeeper, _event: Any, _error: Exception, **_: Any) -> None:
    return None


def _audit_swallows(self: audit.Audit, notices: Any, *, until: datetime) -> Any:
    return msgspec.structs.replace(_AUDIT(self, notices, until=until), again=frozenset())


def _worker_swallows(self: worker.Worker, batch: Any, *, owner: str, until: datetime) -> Any:
    fates, _ = _BATCH(self, batch, owner=owner, until=until)
    return fates, set()


def _narrowed_first(*arguments: Any) -> list[RuleChange]:
    return [*reversed(_CHANGES(*arguments))]


_CHANGES: Callable[..., list[RuleChange]] = receipt_rules.changes
_HANDLE: Callable[..., Any] = inbound.Inbound.handle
_CALL: Callable[..., Any] = calls.Calls.call
_CLAIM: Callable[..., Any] = bookkeeper.Bookkeeper.claim
_HANDLER: Callable[..., Any] = functions.inbound.app.handler
_RETURN: Callable[..., Any] = usage.DynamoUsage._return
_AUDIT: Callable[..., Any] = audit.Audit.run
_BATCH: Callable[..., Any] = worker.Worker.send_batch
_TRANSACT: Callable[..., Any] = usage.DynamoUsage._transact


def _mutation(
    name: str, what: str, target: Any, attribute: str, instead: Any, *finds: str, seed: int = 0
) -> Mutation:
    return Mutation(
        name=name,
        what=what,
        target=target,
        attribute=attribute,
        instead=instead,
        finds=frozenset(finds),
        seed=seed,
    )


_CONDITION = aws_ledger._CLAIM
_LEASE_IGNORED = _CONDITION.replace(
    "#state = :claimed AND lease_until <= :now", "#state = :claimed"
)

MUTATIONS: tuple[Mutation, ...] = (
    _mutation(
        "window-ignored", "nothing is ever too late", calls.Calls, "too_late", _never_too_late,
        "window", seed=18,
    ),
    _mutation(
        "slot-never-expires", "a caller that wakes late calls all the same",
        Reservation, "turn", _turn_without_expiry, "pace", seed=29,
    ),
    _mutation(
        "claim-skipped", "nobody asks the ledger before a call",
        bookkeeper.Bookkeeper, "claim", _claim_everything, "claimed", "once",
    ),
    _mutation(
        "lease-ignored", "a claim is taken over while its holder is at work",
        aws_ledger, "_CLAIM", _LEASE_IGNORED, "once", "claimed",
    ),
    _mutation(
        "settled-too-soon", "a bounce is called sent before it is",
        calls.Calls, "call", _settled_before_it_is_sent, "claimed", "sent-is-true",
    ),
    _mutation(
        "ledger-before-queue", "what is to wait is noted before it is in the queue",
        inline.Inline, "_queue", _ledger_before_queue, "claims-end", "told-or-recorded", seed=35,
    ),
    _mutation(
        "lost-answers-forgotten", "a lost answer is repeated for ever",
        bookkeeper.Bookkeeper, "note_lost_answer", _answers_are_not_counted,
        "lost-answers", "once", seed=7,
    ),
    _mutation(
        "monotonic-clock", "a connection's age is measured by the clock that stands still",
        Kept, "may_be_dead", property(_monotonic_only), "fresh-connection",
    ),
    _mutation(
        "slots-overlap", "the span of a window leaves the guard out",
        Pace, "span", _too_short, "pace",
    ),
    _mutation(
        "stops-always", "every mail is stopped, accepted or not",
        functions.inbound.app, "handler", _stopping, "accepted-delivered", seed=1,
    ),
    _mutation(
        "passing-failure-is-final", "SES's passing failure ends a bounce without a word",
        calls.Calls, "call", _rejected_at_once, "told-or-recorded", "claims-end",
    ),
    _mutation(
        "charged-twice", "a repeated delivery is counted again",
        usage.DynamoUsage, "_transact", _counted_on_each_try, "usage-exact",
    ),
    _mutation(
        "in-flight-forgotten", "who finds a claim does not look again after its lease",
        bookkeeper.Bookkeeper, "claim", _in_flight_forgotten,
        "told-or-recorded", "claims-end", seed=7,
    ),
    _mutation(
        "one-recipient-told", "of several refused recipients only the first is told of",
        Bounce, "only", _recipients_forgotten, "told-or-recorded", "claims-end", "healthy",
    ),
    _mutation(
        "audit-off", "nobody looks for what was missed",
        audit.Audit, "_uncovered", _nothing_uncovered, "told-or-recorded", "claims-end", seed=9,
    ),
    _mutation(
        "recorded-too-soon", "a mail is recorded as handled before it is",
        inbound.Inbound, "handle", _recorded_first, "told-or-recorded", "claims-end", seed=7,
    ),
    _mutation(
        "late-for-all", "late decisions bounce those who may have the mail",
        inbound, "_in_time", _all_in_time, "late-decisions", seed=35,
    ),
    _mutation(
        "penalty-off", "SES throttles, and everybody goes on as before",
        Limiter, "penalise", _no_penalty, "penalty", seed=4,
    ),
    _mutation(
        "given-back-twice", "a deletion that is told twice gives the bytes back twice",
        usage.DynamoUsage, "_return", _marked_again, "usage-exact", seed=40,
    ),
    _mutation(
        "event-not-kept", "a failed event is neither kept nor tried again: the audit will see",
        SqsKeeper, "keep", _not_kept, "handled-or-kept", seed=214,
    ),
    _mutation(
        "failure-swallowed", "a notice that failed is called done",
        audit.Audit, "run", _audit_swallows, "told-or-recorded", "claims-end", seed=173,
    ),
    _mutation(
        "batch-swallowed", "a bounce that was not sent does not come back to the queue",
        worker.Worker, "send_batch", _worker_swallows, "told-or-recorded", "claims-end", seed=6,
    ),
    _mutation(
        "narrowed-first", "a rule stops naming addresses before another one names them",
        functions.receipt_rules.app, "changes", _narrowed_first, "named", seed=2,
    ),
)  # fmt: skip


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """The product with this mistake in it."""
    with mock.patch.object(mutation.target, mutation.attribute, mutation.instead):
        yield


def by_name() -> Mapping[str, Mutation]:
    return {each.name: each for each in MUTATIONS}
