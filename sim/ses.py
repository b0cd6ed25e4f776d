"""SES as it sends: SendBounce, and everything that an observer there sees."""

import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from botocore.exceptions import ClientError, ReadTimeoutError

from bouncer.limiter import Pace
from sim.kernel import Actor, Kernel, Machine
from sim.network import Client, Network, refused
from sim.receiving import Rule

WINDOW = 24 * 3600.0
# SES's own idea of one a second; what is nearer is throttled.
_LENIENT = 0.9
# As long as a process may be held up between its last look at the clock and the call.
_SUSPENDED = Pace().suspension


class Call(msgspec.Struct, kw_only=True):
    """One SendBounce request."""

    start: float
    """When it left its process, by the true time."""
    actor: str
    run: Actor
    machine: Machine
    message_id: str
    recipients: tuple[str, ...]
    idle: float
    """How long its connection had been idle."""
    suspended: bool
    """The process stood still between its last look at the clock and the call."""
    before: Counter[str]
    """What its process had counted before."""
    accepted: bool = False
    answered: bool = False
    lost: bool = False
    """It went out, and its answer never came."""

    def said_since(self, metric: str) -> bool:
        """Whether its process counted this afterwards."""
        return self.run.counted[metric] > self.before[metric]


class Ses:
    """The service, and what it saw."""

    def __init__(
        self, kernel: Kernel, outages: list[tuple[float, float]], *, strict: bool, shares: bool
    ) -> None:
        """
        Args:
            strict: whoever comes a millisecond too early is throttled.
            shares: whether the calls for receipt rules share SendBounce's one a second.
        """
        self._kernel = kernel
        self._last = 0.0
        self._too_near = 1.0 if strict else _LENIENT
        self.outages = outages
        self.shares = shares
        self._others = (0.0, 0.0, kernel.chance)
        self.received: dict[str, float] = {}
        """Message id to when SES took the mail in."""
        self.calls: list[Call] = []
        self.sent: list[Call] = []
        self.throttled: dict[str, Call] = {}
        """Actor to its last call that was throttled."""
        self.on_call: Callable[[Call], None] = lambda _: None

    def down(self) -> bool:
        return any(begin <= self._kernel.now < end for begin, end in self.outages)

    def others_call(self, first: float, until: float, chance: random.Random) -> None:
        """Software that is not ours bounces too, from a moment to another."""
        self._others = (first, until, chance)

    def _others_called(self) -> None:
        """SES counts them with us; nobody looks before we call."""
        at, until, chance = self._others
        while at <= self._kernel.now and at < until:
            if at - self._last >= self._too_near:
                self._last = at
            at += chance.choice((0.3, 1.0, 7.0))
        self._others = (at, until, chance)

    def control(self, operation: str) -> None:
        """A call for receipt rules.

        Raises:
            ClientError: it came too early.
        """
        self._others_called()
        near = self._kernel.now - self._last < self._too_near
        if self.shares:
            self._last = self._kernel.now
            if near:
                raise refused("Throttling", 400, operation, "Rate exceeded")

    def send_bounce(self, call: Call) -> dict[str, Any]:
        kernel = self._kernel
        if kernel.now - self.received.get(call.message_id, -WINDOW) >= WINDOW:
            raise refused("InvalidParameterValue", 400, "SendBounce", "Message not found")
        self._others_called()
        near = kernel.now - self._last < self._too_near
        self._last = kernel.now
        if near:
            raise refused("Throttling", 400, "SendBounce", "Maximum sending rate exceeded.")
        call.accepted = True
        self.sent.append(call)
        return {"MessageId": f"bounce-{len(self.sent)}"}


class _Session:
    """For a client's `_endpoint`, through which it opens a connection beforehand."""

    def __init__(self, client: "SESClient") -> None:
        self.http_session = self
        self._client = client

    def send(self, _request: Any) -> None:
        self._client.knock()


class SESClient(Client):
    """What the product asks of boto3's client."""

    def __init__(self, service: Ses, network: Network, config: Any) -> None:
        super().__init__("ses", network, config)
        self._ses = service
        self._endpoint = _Session(self)
        self._call: Call | None = None
        self._turned = 0.0

    def turned(self) -> None:
        self._turned = self._kernel.now

    def knock(self) -> None:
        """A request that is no call of the API."""
        self.connect()
        if self._falls("slow"):
            self._kernel.pause(self._kernel.chance.uniform(0.0, 0.9) * self._read_timeout)
        elif self._ses.down() and self._kernel.chance.random() < 0.5:
            self._kernel.pause(self._read_timeout)
            self._used = None
            raise ReadTimeoutError(endpoint_url=self.meta.endpoint_url)
        else:
            self._kernel.pause(self._latency())
        self._kernel.note("SES: open a connection", "ok")
        self._used = self._kernel.now

    def generate_presigned_url(self, _method: str, **_: Any) -> str:
        """A request that is built and goes nowhere."""
        return self.meta.endpoint_url

    def send_bounce(self, **request: Any) -> dict[str, Any]:
        people = tuple(each["Recipient"] for each in request["BouncedRecipientInfoList"])
        actor = self._kernel.current
        assert actor is not None
        call = Call(
            start=0.0,
            actor=actor.name,
            run=actor,
            machine=actor.machine,
            message_id=request["OriginalMessageId"],
            recipients=people,
            idle=0.0,
            suspended=False,
            before=actor.counted.copy(),
        )
        self._call = call
        what = f"SendBounce {call.message_id} {' '.join(people)}"
        body = json.dumps(people)
        try:
            answer = self.request("SendBounce", what, lambda: self._ses.send_bounce(call), body)
        except ClientError as error:
            if error.response["Error"]["Code"] == "Throttling":
                self._ses.throttled[actor.name] = call
            raise
        call.answered = True
        return answer

    def started(self) -> None:
        call = self._call
        assert call is not None
        call.start, call.idle = self._kernel.now, self.idle
        call.suspended = call.start - self._turned > _SUSPENDED
        self._ses.calls.append(call)
        self._ses.on_call(call)

    def refuse(self, operation: str) -> None:
        if self._ses.down():
            raise refused("ServiceUnavailable", 503, operation)
        if self._falls("ses-error"):
            raise refused("InternalFailure", 500, operation)
        if self._falls("ses-throttled"):
            raise refused("Throttling", 400, operation, "Maximum sending rate exceeded.")
        if self._falls("ses-refused"):
            raise refused("MessageRejected", 400, operation, "Address is not verified.")

    def loses_answer(self) -> bool:
        lost = self._falls("ses-answer-lost")
        if lost and self._call is not None:
            self._call.lost = True
        return lost


class RulesClient(Client):
    """What the product asks of boto3's client about receipt rules."""

    def __init__(self, service: Ses, rules: list[Rule], network: Network, config: Any) -> None:
        super().__init__("ses", network, config)
        self._ses = service
        self._rules = rules

    def describe_receipt_rule_set(self, **_: Any) -> dict[str, Any]:
        return self._ask("DescribeReceiptRuleSet", lambda: {"Rules": [*map(_told, self._rules)]})

    def create_receipt_rule(self, **request: Any) -> dict[str, Any]:
        rule, after = _rule(request["Rule"]), request["After"]

        def do() -> dict[str, Any]:
            if rule.name in self._names():
                raise refused("AlreadyExists", 400, "CreateReceiptRule")
            if after not in self._names():
                raise refused("RuleDoesNotExist", 400, "CreateReceiptRule")
            self._rules.insert(self._names().index(after) + 1, rule)
            return {}

        return self._ask("CreateReceiptRule", do, rule.name)

    def update_receipt_rule(self, **request: Any) -> dict[str, Any]:
        rule = _rule(request["Rule"])

        def do() -> dict[str, Any]:
            if rule.name not in self._names():
                raise refused("RuleDoesNotExist", 400, "UpdateReceiptRule")
            self._rules[self._names().index(rule.name)] = rule
            return {}

        return self._ask("UpdateReceiptRule", do, rule.name)

    def delete_receipt_rule(self, **request: Any) -> dict[str, Any]:
        name = request["RuleName"]

        def do() -> dict[str, Any]:  # of one that is not there, too
            self._rules[:] = [each for each in self._rules if each.name != name]
            return {}

        return self._ask("DeleteReceiptRule", do, name)

    def _names(self) -> list[str]:
        return [each.name for each in self._rules]

    def _ask(
        self, operation: str, do: Callable[[], dict[str, Any]], about: str = ""
    ) -> dict[str, Any]:
        def paced() -> dict[str, Any]:
            self._ses.control(operation)
            return do()

        return self.request(operation, f"{operation} {about}", paced)


def _told(rule: Rule) -> dict[str, Any]:
    actions: list[dict[str, Any]] = [
        {name: {}}
        for name, there in (("LambdaAction", rule.invokes), ("S3Action", rule.delivers))
        if there
    ]
    return {
        "Name": rule.name,
        "Enabled": True,
        "Actions": actions,
        "Recipients": [*rule.recipients],
    }


def _rule(told: Any) -> Rule:
    actions = {name for action in told["Actions"] for name in action}
    return Rule(
        name=told["Name"],
        recipients=tuple(told["Recipients"]),
        invokes="LambdaAction" in actions,
        delivers="S3Action" in actions,
    )
