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
    """One receipt rule: whom it is for, whether it invokes the function, and then delivers."""

    name: str
    recipients: tuple[str, ...] = ()
    """Addresses and domains; empty: everybody."""
    invokes: bool = False
    delivers: bool = False

    def names(self, recipient: str) -> bool:
        named = self.recipients
        return not named or recipient in named or recipient.partition("@")[2] in named

    def matching(self, mail: Mail) -> tuple[str, ...]:
        return tuple(each for each in mail.recipients if self.names(each))


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
        self.rules = [*rules]
        self.refused: set[tuple[str, str]] = set()
        """Mails and recipients that SES refused in the SMTP dialogue: no rule was for them."""
        self.delivered: set[tuple[str, str]] = set()
        self.stopped: dict[str, str] = {}
        self._kernel = kernel
        self._inbound = inbound
        self._request_response = request_response
        self._tries_again = tries_again
        self._stored = stored
        self._published = published

    def take(self, mail: Mail) -> None:
        """The rules of this moment are the mail's, whatever becomes of them meanwhile."""
        self._kernel.note(f"mail {mail.id} to {' '.join(mail.recipients)}")
        rules = tuple(self.rules)
        taken = tuple(r for r in mail.recipients if any(rule.names(r) for rule in rules))
        self.refused |= {(mail.id, each) for each in mail.recipients if each not in taken}
        mail.recipients = taken
        if taken:
            self._next(mail, rules)

    def _next(self, mail: Mail, rules: tuple[Rule, ...]) -> None:
        if not rules:
            return
        rule, *_ = rules
        people = rule.matching(mail)
        if people and rule.invokes:
            self._stored(mail)
            self._published(mail, rule)
            self._kernel.after(0.05, lambda: self._invoke(mail, rules, people, 0))
            return
        if people:
            self._deliver(mail, rule, people)
        self._kernel.after(0.01, lambda: self._next(mail, rules[1:]))

    def _deliver(self, mail: Mail, rule: Rule, people: tuple[str, ...]) -> None:
        self._kernel.note(f"rule {rule.name}", f"{mail.id} delivered to {' '.join(people)}")
        self.delivered |= {(mail.id, each) for each in people}

    def _invoke(
        self, mail: Mail, rules: tuple[Rule, ...], people: tuple[str, ...], tried: int
    ) -> None:
        event = self.event(mail, people)
        if not self._request_response:
            self._inbound.send(event)
            self._dispose(mail, rules, people, None)
            return

        def done(outcome: Outcome) -> None:
            if outcome.ok:
                self._dispose(mail, rules, people, outcome.result)
            elif self._tries_again and tried < len(_AGAIN):
                again = self._kernel.chance.uniform(0.5, 1.0) * _AGAIN[tried]
                self._kernel.after(again, lambda: self._invoke(mail, rules, people, tried + 1))
            else:
                self._kernel.note(f"SES gives up on the function for {mail.id}", outcome.error)
                self._dispose(mail, rules, people, None)

        self._inbound.invoke(event, done)

    def _dispose(
        self, mail: Mail, rules: tuple[Rule, ...], people: tuple[str, ...], answer: Any
    ) -> None:
        disposition = (answer or {}).get("disposition", "CONTINUE")
        rule, *_ = rules
        if disposition != "CONTINUE":
            self.stopped[mail.id] = rule.name
        elif rule.delivers:
            self._deliver(mail, rule, people)
        if disposition != "STOP_RULE_SET":
            self._next(mail, rules[1:])

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
