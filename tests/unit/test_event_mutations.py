"""Thousands of events that are broken in a few places: read or refused, decided, never answered
wrongly. The hypothesis tests look for the smallest such event; this is breadth."""

import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from bouncer.address import is_deliverable, normalise
from bouncer.guards import OtherReason
from bouncer.message import InboundMessage, MalformedEventError, parse_event
from bouncer.policy.load import load
from bouncer.proof import is_proven, prove
from tests.soak import many
from tests.unit.builders import ROOT, SHIPPED_POLICY, event, plan

SEEDS = [
    json.loads(path.read_text("utf-8"))
    for path in sorted((ROOT / "events").glob("*.json"))
    if path.stem != "malformed"
]
SHIPPED = load(SHIPPED_POLICY.read_text("utf-8"))
EACH = many(250, soak=5000)

VALUES: list[Any] = [
    *(None, True, 0, -1, 1e308, 2**70, "", [], {}, [[]], {"status": None}),
    *("<>", "\ud800", "null", "true", "PASS", "FAIL", "(((((", "\r\n", "x" * 5000),
    *("1970-01-01T00:00:00.000Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00"),
    *("postmaster", "j\u00fcrgen@ex\u00e4mple.com", "@", "a@b@c", "a@" + "\u00fc" * 300),
    *({"name": "From", "value": "(" * 700}, {"name": "Auto-Submitted"}, "=?utf-7?b?+2AA-?="),
]
CHARACTERS = '\0\n\r"(<\ud800\u202e\u0130\ufb01\uffff'


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container inside, with every key or index of it."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def break_one_place(value: Any, chance: random.Random) -> None:
    found = list(places(value))
    if not found:
        return
    container, key = chance.choice(found)
    what, old = chance.random(), container[key]
    if what < 0.2:
        del container[key]
    elif what < 0.3 and isinstance(old, str) and old:
        at = chance.randrange(len(old))
        container[key] = old[:at] + chance.choice(CHARACTERS) + old[at + 1 :]
    elif what < 0.4 and isinstance(container, list):
        container.append(copy.deepcopy(chance.choice(VALUES)))
    else:
        container[key] = copy.deepcopy(chance.choice(VALUES))


def mutants(seed: int) -> Iterator[Any]:
    chance = random.Random(seed)
    for _ in range(EACH):
        mutant = copy.deepcopy(chance.choice(SEEDS))
        for _ in range(chance.choice([1, 1, 2, 3])):
            break_one_place(mutant, chance)
        yield mutant


def fate_of(mail: InboundMessage) -> str:
    """What the shipped policy does, with the checks that hold for every mail."""
    made = plan(SHIPPED, mail, now=mail.received_at)
    assert [each.recipient for each in made.decisions] == list(mail.recipients)
    assert made.suppressed is not OtherReason.GUARD_FAILED
    if made.to_send is None:
        return "suppressed" if made.suppressed else "kept"
    assert mail.reverse_path is not None
    assert is_deliverable(mail.reverse_path)
    assert is_proven(prove(mail))
    assert mail.headers_whole
    request = made.to_send.request()
    ours = {name: value for name, value in request.items() if name != "OriginalMessageId"}
    assert json.dumps(ours, ensure_ascii=False, default=str).isascii()
    told = [each["Recipient"] for each in request["BouncedRecipientInfoList"]]
    assert all("@" in each for each in told)
    assert len({normalise(each) for each in told}) == len(told)
    return "bounced"


@pytest.mark.parametrize("seed", range(4))
def test_a_broken_event_is_malformed_or_decided_and_never_answered_wrongly(seed: int) -> None:
    seen: Counter[str] = Counter()
    for mutant in mutants(seed):
        try:
            mails = parse_event(mutant)
        except MalformedEventError:
            seen["malformed"] += 1
        else:
            seen.update(fate_of(each) for each in mails)
    # The mutants reach every end, so that the checks above were made.
    assert min(seen[each] for each in ("malformed", "kept", "suppressed", "bounced")) > EACH / 50


def test_a_mutant_differs_from_what_it_was() -> None:
    chance = random.Random(0)
    broken = event()
    break_one_place(broken, chance)
    assert broken != event()
