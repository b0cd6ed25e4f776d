"""`python -m bench.hostile`: the longest that a mail of 40 MB can keep the function busy.

Every shape that has cost some parser dear, as a stored mail and as an event of Lambda's largest
size, through the whole decision: the event is read, the stored copy asked, every guard and rule
tried. Told in seconds of a full core, and of the quarter that a function of 512 MB has.
"""

import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import typer
from botocore.response import StreamingBody

from bench import ROOT
from bench.machine import machine
from bouncer.aws.stored_mail import S3StoredMail
from bouncer.inbound import Planner
from bouncer.mailboxes import Mailbox, StaticDirectory
from bouncer.message import MalformedEventError, parse_event
from bouncer.plan import Identity
from bouncer.policy.load import load_file
from bouncer_console.output import print_table, say

MAIL = 40 * 2**20
EVENT = 6 * 2**20
"""Lambda's limit of a synchronous call."""
QUARTER = 4.0
_TIMEOUT = 25.0
_POLICY = ROOT / "functions" / "inbound" / "policy.toml"
_NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def values() -> Iterator[tuple[str, str, str]]:
    """A shape's name, a header's, and what its value is filled with."""
    yield "one line", "X-Long", "a"
    yield "a line in From", "From", "a"
    yield "an address list", "From", "pat@sender.example, "
    yield "addresses with names", "From", '"Pat, the \\"author\\"" <pat@sender.example>, '
    yield "comments opened", "From", "("
    yield "comments nested", "Auto-Submitted", "(()"
    yield "comments closed", "Auto-Submitted", "()"
    yield "quotes", "From", '"'
    yield "quotes and backslashes", "From", '"\\'
    yield "angles", "From", "<"
    yield "groups", "From", "a:b;"
    yield "at signs", "From", "a@"
    yield "routes", "Return-Path", "<@a,@b:"
    yield "encoded words", "Subject", "=?utf-8?q?=41?= "
    yield "encoded words not closed", "Subject", "=?utf-8?q?="
    yield "encoded words of base64", "From", "=?utf-8?b?QUFB?= "
    yield "encoded words of strange sets", "From", "=?utf-7?q?+AGEAYgBj-?= "
    yield "charsets nobody has", "Subject", "=?x-none?b?////?= "
    yield "MIME parameters", "Content-Type", 'a*0*="x"; '
    yield "MIME boundaries", "Content-Type", "multipart/mixed; boundary=a; "
    yield "semicolons", "X-Auto-Response-Suppress", ";,"
    yield "signatures' tags", "DKIM-Signature", "d=sender.example; "
    yield "white space", "From", " \t"
    yield "references", "References", "<a@b.example> "
    yield "received", "Received", "from a by b ([192.0.2.1]) "
    yield "precedence", "Precedence", "bulk, "
    yield "not ASCII", "From", "\u0130\ufb01@\u00fc.example "


def filled(text: str, size: int) -> str:
    return (text * (size // len(text) + 1))[:size]


def mails(size: int = MAIL) -> Iterator[tuple[str, bytes]]:
    """Stored mails: each value as one line, and folded; and shapes of the whole block."""
    end = b"\r\n\r\nbody"
    for name, header, text in values():
        value = filled(text, size).encode()
        yield name, f"{header}: ".encode() + value[:size] + end
        folded = b"\r\n ".join(value[at : at + 70] for at in range(0, min(size, 2**21), 70))
        yield f"{name}, folded", f"{header}: ".encode() + folded + end
    for name, line in {
        "a million headers": b"X-A: b\r\n",
        "a million froms": b"From: pat@sender.example\r\n",
        "a million signatures": b"DKIM-Signature: d=sender.example; b=x\r\n",
        "a million received": b"Received: from a by b; x\r\n",
        "carriage returns": b"\r",
        "line feeds and spaces": b"\n ",
        "colons": b":",
        "no fields": b"no field\r\n",
        "names without end": b"a",
        "nulls": b"\0",
        "parts": b"--a\r\nContent-Type: multipart/mixed; boundary=a\r\n",
    }.items():
        yield name, (line * (size // len(line)))[:size] + end


def event(headers: list[dict[str, str]], *, cut: bool) -> dict[str, Any]:
    passed = {"status": "PASS"}
    verdicts: dict[str, Any] = {
        f"{name}Verdict": passed for name in ("spam", "virus", "spf", "dkim", "dmarc")
    }
    mail: dict[str, Any] = {
        "timestamp": _NOW.isoformat(),
        "source": "pat@sender.example",
        "messageId": "m",
        "headersTruncated": cut,
        "headers": headers,
    }
    receipt: dict[str, Any] = {
        "recipients": ["nobody@example.com"],
        **verdicts,
        "action": {"type": "Lambda"},
    }
    return {"Records": [{"eventSource": "aws:ses", "ses": {"mail": mail, "receipt": receipt}}]}


def events() -> Iterator[tuple[str, bytes]]:
    for name, header, text in values():
        value = filled(text, EVENT - 2000)
        while (
            len(whole := json.dumps(event([{"name": header, "value": value}], cut=False))) > EVENT
        ):
            value = value[: len(value) * EVENT // len(whole) - 100]
        yield name, whole.encode()
        some = [{"name": header, "value": filled(text, 40)}] * (EVENT // 200)
        yield f"{name}, often", json.dumps(event(some, cut=False)).encode()


def _with(header: str, value: str) -> bytes:
    return json.dumps(event([{"name": header, "value": value}], cut=False)).encode()


class Bucket:
    """Holds one mail, and counts what is read of it."""

    def __init__(self, mail: bytes) -> None:
        self.mail, self.read = mail, 0

    def head_object(self, **_: Any) -> dict[str, Any]:
        return {"ContentLength": len(self.mail)}

    def get_object(self, *, Range: str, **_: Any) -> dict[str, Any]:
        first, last = Range.removeprefix("bytes=").split("-")
        part = self.mail[int(first) : int(last) + 1]
        self.read += len(part)
        return {"Body": StreamingBody(io.BytesIO(part), len(part))}


def decide(raw: bytes, bucket: Bucket) -> float:
    """Processor seconds of one decision, as the function makes it."""
    policy = load_file(_POLICY)
    store: Any = bucket
    planner = Planner(
        policy=lambda: policy,
        directory=StaticDirectory([Mailbox(address="@example.com", catch_all=False)]),
        store=S3StoredMail(store, "bucket", "mail/"),
        identity=Identity(bounce_sender="mailer-daemon@example.com", region="us-east-1"),
        clock=lambda: _NOW,
    )
    began = time.process_time()
    try:
        for mail in parse_event(json.loads(raw)):
            planner.plan(mail)
    except MalformedEventError:
        pass
    return time.process_time() - began


def main() -> None:
    say(machine())
    cut = json.dumps(event([], cut=True)).encode()
    rows: list[tuple[float, str, str]] = []
    for name, mail in mails():
        rows.append((decide(cut, Bucket(mail)), "stored mail", name))
    small = Bucket(b"From: pat@sender.example\r\n\r\n")
    rows.extend((decide(raw, small), "event", name) for name, raw in events())
    rows.sort(reverse=True)
    print_table(
        f"{len(rows)} shapes; the slowest",
        ("where", "shape", "s of a core", "s of a quarter", "of the time-out"),
        [
            (
                where,
                name,
                f"{took:.2f}",
                f"{took * QUARTER:.2f}",
                f"{took * QUARTER / _TIMEOUT:.0%}",
            )
            for took, where, name in rows[:12]
        ],
    )


if __name__ == "__main__":
    typer.run(main)
