"""The stories in events/: a mail each, what is decided of it, and the event that SES makes.

`python -m local.stories` writes the events anew from the mails.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from bouncer_console.mail import lambda_event, receive
from local.stack import EVENTS

FUNCTION_ARN = "arn:aws:lambda:us-east-1:000000000000:function:ses-bouncer-inbound"


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What is decided for one recipient."""

    recipient: str
    outcome: str
    reason: str
    bounce_type: str | None = None
    status: str | None = None


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """A mail with its envelope, and how it has to come out."""

    name: str
    """The file's, in events/."""
    mail_from: str
    expected: tuple[Expected, ...]
    suppressed: str | None = None
    disposition: str = "STOP_RULE_SET"

    @property
    def recipients(self) -> tuple[str, ...]:
        return tuple(each.recipient for each in self.expected)

    @property
    def bounced(self) -> tuple[Expected, ...]:
        """Whom the sender's DSN is about."""
        return tuple(
            each for each in self.expected if each.outcome == "bounce" and not self.suppressed
        )

    @property
    def mail(self) -> bytes:
        return (EVENTS / f"{self.name}.eml").read_bytes()


def _accept(recipient: str, reason: str = "accept") -> Expected:
    return Expected(recipient=recipient, outcome="accept", reason=reason)


def _drop(recipient: str, reason: str) -> Expected:
    return Expected(recipient=recipient, outcome="drop", reason=reason)


def _bounce(recipient: str, reason: str, bounce_type: str | None, status: str) -> Expected:
    return Expected(
        recipient=recipient,
        outcome="bounce",
        reason=reason,
        bounce_type=bounce_type,
        status=status,
    )


def _unknown(recipient: str) -> Expected:
    return _bounce(recipient, "unknown-recipient", "DoesNotExist", "5.1.1")


_PAT = "pat@sender.example"

STORIES: tuple[Story, ...] = (
    Story(name="unknown-recipient", mail_from=_PAT, expected=(_unknown("nobody@example.com"),)),
    Story(
        name="accepted-postmaster",
        mail_from=_PAT,
        expected=(_accept("postmaster@example.com", "postmaster-and-abuse"),),
        disposition="CONTINUE",
    ),
    Story(
        name="over-quota",
        mail_from=_PAT,
        expected=(_bounce("full@example.com", "over-quota", "ExceededQuota", "5.2.2"),),
    ),
    Story(
        name="too-large",
        mail_from=_PAT,
        expected=(_bounce("small@example.com", "too-large", "MessageTooLarge", "5.3.4"),),
    ),
    Story(
        name="disabled-mailbox",
        mail_from=_PAT,
        expected=(_bounce("closed@example.com", "mailbox-disabled", None, "5.2.1"),),
    ),
    Story(
        name="moved-mailbox",
        mail_from=_PAT,
        expected=(_bounce("gone@example.com", "mailbox-moved", None, "5.1.6"),),
    ),
    Story(
        name="accepted",
        mail_from=_PAT,
        expected=(_accept("alice@example.com"),),
        disposition="CONTINUE",
    ),
    Story(
        name="accepted-plus-tag",
        mail_from=_PAT,
        expected=(_accept("alice+newsletter@example.com"),),
        disposition="CONTINUE",
    ),
    Story(
        name="accepted-catch-all",
        mail_from=_PAT,
        expected=(_accept("whatever@shop.example.com"),),
        disposition="CONTINUE",
    ),
    Story(
        name="accepted-unknown-domain",
        mail_from=_PAT,
        expected=(_accept("whoever@new.example.com", "unknown-domain"),),
        disposition="CONTINUE",
    ),
    Story(
        name="several-recipients",
        mail_from=_PAT,
        expected=(
            _unknown("nobody@example.com"),
            _bounce("full@example.com", "over-quota", "ExceededQuota", "5.2.2"),
            _accept("alice@example.com"),
        ),
        disposition="CONTINUE",
    ),
    Story(
        name="null-sender",
        mail_from="",
        expected=(_unknown("nobody@example.com"),),
        suppressed="null-sender",
    ),
    Story(
        name="own-address",
        mail_from="nobody@example.com",
        expected=(_unknown("nobody@example.com"),),
        suppressed="own-address",
    ),
    Story(name="spam", mail_from=_PAT, expected=(_drop("nobody@example.com", "spam"),)),
    Story(name="virus", mail_from=_PAT, expected=(_drop("alice@example.com", "virus"),)),
    Story(
        name="older-than-24-hours",
        mail_from=_PAT,
        expected=(_unknown("nobody@example.com"),),
        suppressed="window-closed",
        disposition="CONTINUE",
    ),
)

MALFORMED = EVENTS / "malformed.json"
"""The story that does not start as a mail: an event without its `receipt`."""

# Event files are replayed for years, so all but one of them were "received" in the far future:
# SES's 24 hours have never passed since then.
_NEVER_TOO_LATE = "2099-01-01T12:00:00+00:00"


def event_of(story: Story) -> dict[str, Any]:
    """The event of a story; the same every time."""
    mail = story.mail
    if b"X-Local-Received-At" not in mail:
        mail = f"X-Local-Received-At: {_NEVER_TOO_LATE}\r\n".encode() + mail
    received = receive(
        mail,
        mail_from=story.mail_from,
        recipients=story.recipients,
        client="192.0.2.1",
        helo="mx.sender.example",
        message_id=hashlib.sha1(story.name.encode(), usedforsecurity=False).hexdigest(),
    )
    return lambda_event(received, recipients=received.recipients, function_arn=FUNCTION_ARN)


def as_text(event: dict[str, Any]) -> str:
    return json.dumps(event, indent=2) + "\n"


def write(folder: Path) -> None:
    for story in STORIES:
        (folder / f"{story.name}.json").write_text(as_text(event_of(story)))
    malformed = event_of(STORIES[0])
    del malformed["Records"][0]["ses"]["receipt"]
    (folder / MALFORMED.name).write_text(as_text(malformed))


if __name__ == "__main__":
    write(EVENTS)
