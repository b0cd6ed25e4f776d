"""SES as it receives: the rules of a mail in order, each with its actions, until one stops it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from sim.functions import Lambda, Outcome
from sim.kernel import Kernel

# When SES tries a failed action again, if it does; it gives up after four hours.
_AGAIN = (60.0, 300.0, 1800.0, 3600.0, 8000.0)


class Mail(msgspec.Struct, kw_only=True):
    """One mail, as it came."""

    id: str
    sender: str
    recipients: tuple[str, ...]
    size: int
    received: float
    spf: str = "PASS"
    headers: tuple[tuple[str, str], ...] = ()
    cut: bool = False
    """The event has only the first of its headers; the stored mail has them all."""

    @property
    def block(self) -> list[tuple[str, str]]:
        """Its headers, whole."""
        to = ", ".join(self.recipients)
        return [("From", self.sender or "<>"), ("To", to), ("Subject", "Hello"), *self.headers]


class Rule(msgspec.Struct, kw_only=True, frozen=True):
    """One receipt rule: whom it is for, and whether it invokes the function or delivers."""

    name: str
    domains: tuple[str, ...] = ()
    """Empty: everybody."""
    delivers: bool = False

    def matching(self, mail: Mail) -> tuple[str, ...]:
        if not self.domains:
            return mail.recipients
        return tuple(r for r in mail.recipients if r.partition("@")[2] in self.domains)


class Receiving:
    """The rule set that is active."""

    def __init__(
        self,
        kernel: Kernel,
        inbound: Lambda,
        rules: tuple[Rule, ...],
        *,
        request_response: bool,
        tries_again: bool,
        stored: Callable[[Mail], None],
        published: Callable[[Mail, Rule], None],
    ) -> None:
        """
        Args:
            request_response: how the rule invokes the function; else as an event.
            tries_again: whether SES calls again after a failure; nobody has found that out.
            stored: told of each mail that the S3 action stored.
            published: told of what that action's topic is told.
        """
        self.delivered: set[tuple[str, str]] = set()
        self.stopped: dict[str, str] = {}
        self._kernel = kernel
        self._inbound = inbound
        self._rules = rules
        self._request_response = request_response
        self._tries_again = tries_again
        self._stored = stored
        self._published = published

    def take(self, mail: Mail) -> None:
        self._kernel.note(f"mail {mail.id} to {' '.join(mail.recipients)}")
        self._next(mail, 0)

    def _next(self, mail: Mail, index: int) -> None:
        if index == len(self._rules):
            return
        rule = self._rules[index]
        people = rule.matching(mail)
        if people and rule.delivers:
            self._kernel.note(f"rule {rule.name}", f"{mail.id} delivered to {' '.join(people)}")
            self.delivered |= {(mail.id, each) for each in people}
        elif people:
            self._stored(mail)
            self._published(mail, rule)
            self._kernel.after(0.05, lambda: self._invoke(mail, index, people, 0))
            return
        self._kernel.after(0.01, lambda: self._next(mail, index + 1))

    def _invoke(self, mail: Mail, index: int, people: tuple[str, ...], tried: int) -> None:
        event = self.event(mail, people)
        if not self._request_response:
            self._inbound.send(event)
            self._next(mail, index + 1)
            return

        def done(outcome: Outcome) -> None:
            if outcome.ok:
                self._dispose(mail, index, outcome.result)
            elif self._tries_again and tried < len(_AGAIN):
                again = self._kernel.chance.uniform(0.5, 1.0) * _AGAIN[tried]
                self._kernel.after(again, lambda: self._invoke(mail, index, people, tried + 1))
            else:
                self._kernel.note(f"SES gives up on the function for {mail.id}", outcome.error)
                self._next(mail, index + 1)

        self._inbound.invoke(event, done)

    def _dispose(self, mail: Mail, index: int, answer: Any) -> None:
        disposition = (answer or {}).get("disposition", "CONTINUE")
        if disposition == "STOP_RULE_SET":
            self.stopped[mail.id] = self._rules[index].name
            return
        self._next(mail, index + 1)

    def event(self, mail: Mail, people: tuple[str, ...]) -> dict[str, Any]:
        """What the function gets; docs.aws.amazon.com has the format."""
        moment = datetime.fromtimestamp(mail.received, UTC)
        stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
        headers = mail.block[:2] if mail.cut else mail.block
        kind = "RequestResponse" if self._request_response else "Event"
        verdict = {"status": "PASS"}
        return {
            "Records": [
                {
                    "eventSource": "aws:ses",
                    "eventVersion": "1.0",
                    "ses": {
                        "mail": {
                            "timestamp": stamp,
                            "source": mail.sender,
                            "messageId": mail.id,
                            "destination": [*mail.recipients],
                            "headersTruncated": mail.cut,
                            "headers": [{"name": n, "value": v} for n, v in headers],
                            "commonHeaders": {
                                "returnPath": mail.sender,
                                "from": [mail.sender],
                                "to": [*mail.recipients],
                                "subject": "Hello",
                            },
                        },
                        "receipt": {
                            "timestamp": stamp,
                            "processingTimeMillis": 100,
                            "recipients": [*people],
                            "spamVerdict": verdict,
                            "virusVerdict": verdict,
                            "spfVerdict": {"status": mail.spf},
                            "dkimVerdict": verdict,
                            "dmarcVerdict": verdict,
                            "action": {
                                "type": "Lambda",
                                "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:f",
                                "invocationType": kind,
                            },
                        },
                    },
                }
            ]
        }
