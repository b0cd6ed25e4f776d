"""`python -m bench.decide`: what the policy costs, on one core.

A machine's speed is in every absolute figure, so each is also told as a multiple of reading
the same event with json.loads, measured in the same rounds.
"""

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any

import msgspec
import typer

from bench import ROOT
from bench.machine import machine
from bouncer.delivery.bounce import BounceType
from bouncer.mailboxes import Mailbox, Status
from bouncer.message import parse_event
from bouncer.plan import Identity, make_plan
from bouncer.policy.conditions import Facts
from bouncer.policy.decide import Outcome, decide
from bouncer.policy.load import load
from bouncer_console.output import print_table, say

RULES, RECIPIENTS = 100, 50
_ROUNDS = 15
_ROUND_SECONDS = 0.05
"""Each piece of work is repeated for about so long a round."""

_NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
_SHIPPED = ROOT / "functions" / "inbound" / "policy.toml"
_MAILBOXES: tuple[Mailbox | None, ...] = (
    Mailbox(address="user@example.com", quota_bytes=10**9, used_bytes=10**6),
    None,
    Mailbox(address="user@example.com", status=Status.DISABLED),
    Mailbox(address="user@example.com", quota_bytes=10**9, used_bytes=10**9),
    Mailbox(address="user@example.com", moved_to="elsewhere@example.com"),
)


class Piece(msgspec.Struct, kw_only=True):
    """A piece of work, and how long it took: seconds of one repetition, a round each."""

    name: str
    work: Callable[[], object]
    decisions: int = 0
    seconds: list[float] = msgspec.field(default_factory=list)


def event() -> dict[str, Any]:
    """A mail to many recipients, with the headers that ordinary mail has."""
    headers = {
        "Return-Path": "<alice@sender.example>",
        "Received": "from mx.sender.example by inbound-smtp.us-east-1.amazonaws.com; " * 2,
        "From": "Alice <alice@sender.example>",
        "To": "everybody@example.com",
        "Subject": "The minutes of our meeting",
        "Date": "Thu, 1 Jan 2026 11:59:58 +0000",
        "Message-ID": "<minutes@sender.example>",
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=utf-8",
        "DKIM-Signature": "v=1; a=rsa-sha256; d=sender.example; s=one; b=" + "x" * 340,
    }
    passed = {"status": "PASS"}
    verdicts = ("spamVerdict", "virusVerdict", "spfVerdict", "dkimVerdict", "dmarcVerdict")
    return {
        "Records": [
            {
                "eventSource": "aws:ses",
                "eventVersion": "1.0",
                "ses": {
                    "mail": {
                        "timestamp": "2026-01-01T11:59:59.000Z",
                        "source": "alice@sender.example",
                        "messageId": "o3vrnil0e2ic28trm7dfhrc2v0clambda4nbp0g1",
                        "headersTruncated": False,
                        "headers": [{"name": n, "value": v} for n, v in headers.items()],
                    },
                    "receipt": {
                        "recipients": [f"user{n}@example.com" for n in range(RECIPIENTS)],
                        **dict.fromkeys(verdicts, passed),
                        "action": {"type": "Lambda", "invocationType": "RequestResponse"},
                    },
                },
            }
        ]
    }


def policy_of(rules: int, *, hit: bool) -> str:
    """A policy of so many rules, a bit of everything.

    Args:
        hit: whether the shipped rules, which decide some of the recipients, are the last
            ones; else nothing holds but the very last rule.
    """
    kinds = (
        'when.recipient = "no-such-{n}@example.com"',
        'when.recipient = ["@list{n}.example.com", "@.dept{n}.example.com"]',
        'when.recipient = "sales-{n}-*@example.com"',
        'when.mailbox = "disabled"\nwhen.recipient = "box{n}@example.com"',
        'when.larger_than = "{n} GB"',
        'when.sender = "*@spam{n}.example"',
        'when.header.X-Campaign = "c{n}-*"',
        'when.spf = "FAIL"\nwhen.sender = "@partner{n}.example"',
    )
    shipped = _SHIPPED.read_text()
    ending = shipped[shipped.index("[[rules]]") :]
    if not hit:
        ending = '[[rules]]\nname = "accept"\naction = "accept"\n'
    own = rules - ending.count("[[rules]]")
    made = [
        f'[[rules]]\nname = "rule-{n}"\n{kinds[n % len(kinds)].format(n=n + 1)}\n'
        f'action = "bounce"\nbounce_type = "{BounceType.CONTENT_REJECTED}"\n'
        f'explanation = "{{recipient}} does not take this mail."\n'
        for n in range(own)
    ]
    return "\n".join(["version = 1", *made, ending])


def pieces() -> list[Piece]:
    text = json.dumps(event())
    (mail,) = parse_event(event())
    facts = [
        Facts(recipient=each, mailbox=_MAILBOXES[n % len(_MAILBOXES)], now=_NOW, size=50_000)
        for n, each in enumerate(mail.recipients)
    ]
    shipped_text = _SHIPPED.read_text()
    worst_text = policy_of(RULES, hit=False)
    shipped, worst = load(shipped_text), load(worst_text)
    mixed = load(policy_of(RULES, hit=True))
    assert len(worst.shared) == len(mixed.shared) == RULES
    assert {each.outcome for each in decide(worst, mail, facts)} == {Outcome.ACCEPT}
    assert {each.outcome for each in decide(mixed, mail, facts)} == {Outcome.ACCEPT, Outcome.BOUNCE}
    identity = Identity(bounce_sender="mailer-daemon@example.com", region="us-east-1")

    def whole() -> object:
        (read,) = parse_event(json.loads(text))
        return make_plan(mixed, read, facts, identity, _NOW)

    return [
        Piece(name="json.loads of the event", work=lambda: json.loads(text)),
        Piece(
            name=f"decide, shipped policy ({len(shipped.shared)} rules)",
            work=lambda: decide(shipped, mail, facts),
            decisions=RECIPIENTS,
        ),
        Piece(
            name=f"decide, {RULES} rules, the last holds",
            work=lambda: decide(worst, mail, facts),
            decisions=RECIPIENTS,
        ),
        Piece(
            name=f"decide, {RULES} rules, 4 of 5 bounce",
            work=lambda: decide(mixed, mail, facts),
            decisions=RECIPIENTS,
        ),
        Piece(name=f"event to plan, {RULES} rules, with guards", work=whole, decisions=RECIPIENTS),
        Piece(name="load the shipped policy", work=lambda: load(shipped_text)),
        Piece(name=f"load {RULES} rules", work=lambda: load(worst_text)),
    ]


def measure(all_pieces: Sequence[Piece]) -> None:
    """Fill in the seconds; round by round, so that a disturbance hits all alike."""
    repeats = [max(1, int(_ROUND_SECONDS / _seconds(piece.work, 1))) for piece in all_pieces]
    for _ in range(_ROUNDS):
        for piece, times in zip(all_pieces, repeats, strict=True):
            piece.seconds.append(_seconds(piece.work, times))


def _seconds(work: Callable[[], object], times: int) -> float:
    # Processor time: what another process takes is not this work's.
    begin = time.process_time()
    for _ in range(times):
        work()
    return max((time.process_time() - begin) / times, 1e-9)


def _row(piece: Piece, baseline: Piece) -> list[str]:
    middle = median(piece.seconds)
    ratios = [own / base for own, base in zip(piece.seconds, baseline.seconds, strict=True)]
    return [
        piece.name,
        f"{middle * 1000:.3f}",
        f"{min(piece.seconds) * 1000:.3f} to {max(piece.seconds) * 1000:.3f}",
        f"{1 / middle:,.0f}",
        f"{piece.decisions / middle:,.0f}" if piece.decisions else "",
        f"{median(ratios):.1f}",
        f"{median(ratios) / piece.decisions:.2f}" if piece.decisions else "",
    ]


_COLUMNS = (
    "work",
    "ms",
    "from to",
    "a second",
    "decisions a second",
    "times json.loads",
    "a decision",
)


def bench() -> None:
    """Measure and print."""
    measured = pieces()
    measure(measured)
    print_table(
        f"Deciding for {RECIPIENTS} recipients, on one core; medians of {_ROUNDS} rounds",
        _COLUMNS,
        (_row(piece, measured[0]) for piece in measured),
    )
    say(machine("msgspec"))


def main() -> None:
    """Measure what deciding costs."""
    bench()


if __name__ == "__main__":
    typer.run(main)
