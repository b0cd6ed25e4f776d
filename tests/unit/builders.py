"""Mails, policies and directories for the tests: what most of them need is said here once."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

from bouncer.headers import Header
from bouncer.mailboxes import Mailbox, StaticDirectory
from bouncer.message import InboundMessage, Verdicts
from bouncer.plan import Disposition, Identity, Plan, make_plan
from bouncer.policy.conditions import Facts
from bouncer.policy.decide import Decision, Policy, decide
from bouncer.policy.load import load

ROOT = Path(__file__).resolve().parents[2]
SHIPPED_POLICY = ROOT / "functions" / "inbound" / "policy.toml"
CORPUS = ROOT / "tests" / "corpus"

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
RECEIVED = NOW - timedelta(minutes=1)
SENDER = "pat@sender.example"
NOBODY = "nobody@example.com"
ALICE = "alice@example.com"
PROVEN = Verdicts(spam="PASS", virus="PASS", spf="PASS", dkim="PASS", dmarc="PASS")
IDENTITY = Identity(
    bounce_sender="mailer-daemon@example.com",
    region="us-east-1",
    stop=Disposition.STOP_RULE_SET,
)

ACCEPT = """
    [[rules]]
    name = "accept"
    action = "accept"
"""
UNKNOWN_BOUNCES = """
    [[rules]]
    name = "unknown-recipient"
    when.mailbox = "unknown"
    action = "bounce"
    bounce_type = "DoesNotExist"
    explanation = "There is no mailbox {recipient} here."
"""


def mail(
    *headers: str,
    source: str = SENDER,
    recipients: Iterable[str] = (NOBODY,),
    verdicts: Verdicts = PROVEN,
    received_at: datetime = RECEIVED,
    **fields: Any,
) -> InboundMessage:
    """A mail of a proven sender; each header is a line, such as `Subject: Hello`."""
    split = (line.partition(":") for line in headers)
    return InboundMessage(
        message_id=fields.pop("message_id", "msg1"),
        received_at=received_at,
        source=source,
        recipients=tuple(recipients),
        headers=tuple(Header(name, value.strip(" ")) for name, _, value in split),
        verdicts=verdicts,
        **fields,
    )


def received(
    client: str, helo: str = "mx.sender.example", recipient: str = "nobody@example.com"
) -> Header:
    """SES's own Received field, of a mail that came from this host."""
    return Header(
        "Received",
        f"from {helo} (mx.sender.example [{client}]) by inbound-smtp.us-east-1.amazonaws.com "
        f"with SMTP id abc123 for {recipient}; Sat, 21 Nov 2026 12:00:00 +0000 (UTC)",
    )


def mail_of(sender: str, *headers: Header) -> InboundMessage:
    """A mail of any sender, with header fields as they are."""
    return InboundMessage(
        message_id="msg1",
        received_at=RECEIVED,
        source=sender,
        recipients=(NOBODY,),
        headers=headers,
    )


def event(*, mail: dict[str, Any] | None = None, receipt: dict[str, Any] | None = None) -> Any:
    """The smallest event that says everything which is needed, and what is asked for besides."""
    return {
        "Records": [
            {
                "ses": {
                    "mail": {
                        "messageId": "msg1",
                        "timestamp": "2026-11-21T11:59:00.000Z",
                        "source": SENDER,
                        **(mail or {}),
                    },
                    "receipt": {"recipients": [NOBODY], **(receipt or {})},
                }
            }
        ]
    }


def box(address: str = ALICE, **fields: Any) -> Mailbox:
    return Mailbox(address=address, **fields)


def facts(recipient: str = NOBODY, mailbox: Mailbox | None = None, **fields: Any) -> Facts:
    return Facts(recipient=recipient, mailbox=mailbox, now=fields.pop("now", NOW), **fields)


def facts_of(message: InboundMessage, boxes: Iterable[Mailbox] = (), **fields: Any) -> list[Facts]:
    """What a directory of these mailboxes, which knows every domain, says of the recipients."""
    found = StaticDirectory(boxes).look_up(message.recipients)
    return [
        facts(recipient, said.mailbox, entry=said.entry, way=said.way, **fields)
        for recipient, said in found.items()
    ]


def policy_text(rules: str = UNKNOWN_BOUNCES, top: str = "", end: str = "") -> str:
    """A policy as it is written: rules, and the one for everybody else.

    Args:
        top: what stands above the rules.
        end: tables that stand below them.
    """
    parts = ("version = 1", top, rules, ACCEPT, end)
    return "\n".join(dedent(part) for part in parts)


def policy(rules: str = UNKNOWN_BOUNCES, top: str = "", end: str = "") -> Policy:
    return load(policy_text(rules, top, end))


def rule(body: str, name: str = "rule") -> str:
    """One rule, of the lines given."""
    return f'[[rules]]\nname = "{name}"\n{dedent(body)}\n'


def bounce_rule(body: str, name: str = "rule") -> str:
    """A rule that bounces every mail as `Undefined`."""
    return rule('action = "bounce"\nbounce_type = "Undefined"\n' + dedent(body), name)


def decision(
    policy: Policy, message: InboundMessage | None = None, known: Facts | None = None
) -> Decision:
    """What a policy says of one recipient."""
    known = known or facts()
    (only,) = decide(policy, message or mail(recipients=[known.recipient]), [known])
    return only


def plan(
    policy: Policy,
    message: InboundMessage | None = None,
    boxes: Iterable[Mailbox] = (),
    now: datetime = NOW,
) -> Plan:
    message = message or mail()
    return make_plan(policy, message, facts_of(message, boxes, now=now), IDENTITY, now)
