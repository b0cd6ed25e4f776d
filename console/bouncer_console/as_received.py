"""A stored mail as the function saw it when it came: with its recipients, and SES's verdicts.

SES writes what its checks said into the mail that it stores: X-SES-Spam-Verdict and
X-SES-Virus-Verdict, and an Authentication-Results of its own (recorded). They stand above what the
sender wrote, so the first of each counts.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from bouncer.headers import Header
from bouncer.message import InboundMessage, InvocationType, Verdicts

_RESULT = re.compile(r"(?:^|;)\s*(spf|dkim|dmarc)\s*=\s*(\w+)", re.IGNORECASE)
_AUTHORITY = re.compile(r"\s*amazonses\.com\s*;", re.IGNORECASE)
_WORDS = {
    "pass": "PASS",
    "fail": "FAIL",
    "temperror": "PROCESSING_FAILED",
    "permerror": "PROCESSING_FAILED",
}
"""Of RFC 8601; every other result is none to go by, as SES's GRAY is."""
_LIMIT = 10_000


def as_received(
    message_id: str,
    headers: Sequence[Header],
    recipients: Iterable[str],
    received_at: datetime,
) -> InboundMessage:
    """The mail as a value.

    Args:
        headers: all of the stored mail's, in their order.
        recipients: the envelope's, which no header tells; from the mail's record or the log.
    """
    sender = _first(headers, "Return-Path").strip().strip("<>")
    return InboundMessage(
        message_id=message_id,
        received_at=received_at,
        source=sender,
        return_path=sender,
        recipients=tuple(recipients),
        headers=tuple(headers),
        verdicts=verdicts(headers),
        invocation_type=InvocationType.REQUEST_RESPONSE,
    )


def verdicts(headers: Sequence[Header]) -> Verdicts:
    """What SES's checks said of a stored mail; "" where it does not say."""
    results: dict[str, str] = {}
    text = next(
        (
            each.value[:_LIMIT]
            for each in headers
            if each.name.lower() == "authentication-results" and _AUTHORITY.match(each.value)
        ),
        "",
    )
    for name, result in _RESULT.findall(text):
        verdict = _WORDS.get(result.lower(), "GRAY")
        # Of several signatures, one that passes is enough.
        if results.get(name.lower()) != "PASS":
            results[name.lower()] = verdict
    return Verdicts(
        spam=_first(headers, "X-SES-Spam-Verdict").strip().upper(),
        virus=_first(headers, "X-SES-Virus-Verdict").strip().upper(),
        **results,
    )


def _first(headers: Sequence[Header], name: str) -> str:
    return next((each.value for each in headers if each.name.lower() == name.lower()), "")
