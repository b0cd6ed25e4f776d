"""A whole deployment in virtual time: the product's own handlers between models of AWS.

with prepared():
    report = run(seed)
"""

import io
import random
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
from botocore.response import StreamingBody

from bouncer import timing
from bouncer.policy import load as policy_load
from bouncer.policy.decide import Policy
from sim.dynamodb import DynamoDB, DynamoDBClient, Table
from sim.faults import Swarm
from sim.functions import Lambda, Poller
from sim.kernel import Actor, Kernel
from sim.network import Client, Network, refused
from sim.receiving import Mail, Receiving, Rule
from sim.ses import Call, RulesClient, Ses, SESClient
from sim.sqs import Queue, SQSClient
from sim.workload import HOUR, OTHER, OURS, Mailbox, Workload

START = 1_780_000_000.0
CLOCK_ERROR = 0.0099
"""Just inside of what the limiter is told to expect (Pace.clock_error)."""
QUIET = 30 * HOUR
AUDIT_DELAY = 300.0
MAX_RECEIVES = 20
BUCKET_PREFIX = "mail/"
_BOUNCES, _MAILBOXES = "bounces", "mailboxes"
RULE = "ses-bouncer"
_SYNCED_SHARE = 0.15
# What delivers is behind the function in the same rule: refused mail stops that one only.
_SYNCED = (
    Rule(name=RULE, invokes=True, delivers=True),
    Rule(name="others", recipients=(OTHER,), delivers=True),
)


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """Which promise was broken, and how."""

    invariant: str
    what: str
    message_id: str = ""


class StoredMail(Client):
    """S3, as far as the functions ask it: how large is a mail, and what are its headers?"""

    def __init__(
        self,
        sizes: dict[str, int],
        blocks: dict[str, bytes],
        network: Network,
        config: Any,
    ) -> None:
        super().__init__("s3", network, config)
        self._sizes = sizes
        self._blocks = blocks

    def head_object(self, **request: Any) -> dict[str, Any]:
        key = request["Key"]

        def do() -> dict[str, Any]:
            if key not in self._sizes:
                raise refused("404", 404, "HeadObject", "Not Found")
            return {"ContentLength": self._sizes[key]}

        return self.request("HeadObject", f"HeadObject {key}", do)

    def get_object(self, **request: Any) -> dict[str, Any]:
        key = request["Key"]

        def do() -> dict[str, Any]:
            if key not in self._sizes:
                raise refused("NoSuchKey", 404, "GetObject")
            return {"Body": StreamingBody(io.BytesIO(self._blocks[key]), len(self._blocks[key]))}

        return self.request("GetObject", f"GetObject {key}", do)


class World:
    """One seed's deployment, its mails and its faults."""

    def __init__(
        self,
        seed: int,
        watch: "Callable[[World, Call, Call | None], list[Violation]]",
        judge: "Callable[[World, Any, Actor], list[Violation]]",
        *,
        without: frozenset[str] = frozenset(),
        most: int | None = None,
        traced: bool = False,
    ) -> None:
        """
        Args:
            watch: told of each call of SendBounce and the one before; what is wrong with it.
            judge: told of each answer of InboundFunction; what is wrong with it.
        """
        self._watch = watch
        self._judge = judge
        self.seed = seed
        self.kernel = kernel = Kernel(seed, START, traced=traced)
        self.work = work = Workload.of(seed, START, most)
        chance = kernel.chance
        self.faults = faults = Swarm.of(chance, START + work.busy + 2 * HOUR)
        for name in without:
            faults.chances.pop(name, None)
        self.interval = work.interval
        self.margin = work.margin
        self.violations: list[Violation] = []
        self.deleted: dict[str, float] = {}
        self.synced = random.Random(f"rules {seed}").random() < _SYNCED_SHARE
        """RulesFunction keeps the receipt rules in step with the directory."""
        self.lenient = False
        """The policy of now accepts mail for mailboxes that are disabled."""

        self.bounces = Table(_BOUNCES, kernel, "pk", "sk")
        self.mailboxes = Table(_MAILBOXES, kernel, "address")
        self.database = DynamoDB(kernel, (self.bounces, self.mailboxes))
        self.sizes: dict[str, int] = {}
        self.blocks: dict[str, bytes] = {}
        self.ses = Ses(kernel, self._outages(), strict=seed % 2 == 1, shares=seed % 3 == 0)
        self.ses.on_call = self._called
        self._previous: Call | None = None
        self.network = Network(
            kernel, faults, chance.choice((20.0, 60.0, 350.0)), chance.random() < 0.5
        )

        self.event_dead_letters = Queue("event-dead-letters", kernel, faults)
        self.bounce_dead_letters = Queue("bounce-dead-letters", kernel, faults)
        self.bounce_queue = Queue(
            "bounces",
            kernel,
            faults,
            visibility=timing.VISIBILITY,
            retention=172800.0,
            max_receives=MAX_RECEIVES,
            dead_letters=self.bounce_dead_letters,
        )
        self.audit_dead_letters = Queue("audit-dead-letters", kernel, faults)
        self.audit_queue = Queue(
            "audit",
            kernel,
            faults,
            visibility=360.0,
            delay=AUDIT_DELAY,
            retention=172800.0,
            max_receives=MAX_RECEIVES,
            dead_letters=self.audit_dead_letters,
        )
        self.usage_dead_letters = Queue("usage-dead-letters", kernel, faults)
        self.usage_queue = Queue(
            "usage",
            kernel,
            faults,
            visibility=360.0,
            max_receives=MAX_RECEIVES,
            dead_letters=self.usage_dead_letters,
        )
        self.queues = {
            queue.url: queue
            for queue in (self.event_dead_letters, self.bounce_dead_letters, self.bounce_queue)
        }
        self.inbound = self._function("inbound", timing.INBOUND_TIMEOUT, self.event_dead_letters)
        self.send = self._function("send", timing.SEND_TIMEOUT, None)
        self.usage = self._function("usage", 60.0, None)
        self.audit = self._function("audit", 60.0, None, "functions.inbound.audit")
        self.rules = Lambda(
            "rules",
            kernel,
            faults,
            timeout=900.0,
            concurrency=10,
            clock_error=CLOCK_ERROR,
            module="functions.receipt_rules.app",
        )
        self.inbound.on_answer = self._answered
        self.functions = (self.inbound, self.send, self.usage, self.audit)
        at_once = chance.random() < 0.5
        Poller(self.audit_queue, self.audit, kernel, batch=10, at_once=5, back_at_once=False)
        Poller(self.usage_queue, self.usage, kernel, batch=10, at_once=2, back_at_once=at_once)
        Poller(
            self.bounce_queue,
            self.send,
            kernel,
            batch=10,
            at_once=2,
            back_at_once=chance.random() < 0.25,
        )
        self.request_response = chance.random() < 0.7
        tries_again = not faults.has("ses-gives-up")
        self.restricted = chance.random() < 0.4
        copies = chance.random() < 0.3
        self.receiving = Receiving(
            kernel,
            self.inbound,
            _SYNCED if self.synced else self._rules(restricted=self.restricted, copies=copies),
            request_response=self.request_response,
            tries_again=tries_again,
            stored=self._store,
            published=self._publish,
        )

    # --- The deployment -----------------------------------------------------------------------

    def _function(
        self, name: str, timeout: float, on_failure: Queue | None, module: str = ""
    ) -> Lambda:
        return Lambda(
            name,
            self.kernel,
            self.faults,
            timeout=timeout,
            concurrency=self.kernel.chance.choice((10, 100, 1000)),
            clock_error=CLOCK_ERROR,
            module=module,
            on_failure=on_failure,
        )

    def _rules(self, *, restricted: bool, copies: bool) -> tuple[Rule, ...]:
        domains = (OURS,) if restricted else ()
        ours = [Rule(name=RULE, recipients=domains, invokes=True)]
        if copies:
            ours.append(Rule(name="another", recipients=domains, invokes=True))
        return (*ours, Rule(name="deliver", delivers=True))

    def _outages(self) -> list[tuple[float, float]]:
        chance = self.kernel.chance
        begin = START + chance.uniform(0.0, self.work.busy)
        if self.work.kind == "outage":
            return [(START, START + chance.choice((13.0, 25.0)) * HOUR)]
        if not self.faults.has("outage"):
            return []
        return [(begin, begin + chance.choice((60.0, 900.0, 2 * HOUR)))]

    def environment(self) -> dict[str, str]:
        """What the template tells the functions."""
        return {
            "AWS_REGION": "us-east-1",
            "BOUNCE_TABLE": _BOUNCES,
            "PACE_TABLE": _BOUNCES,
            "MAILBOX_TABLE": _MAILBOXES,
            "MAILBOX_DOMAINS": OURS,
            "BOUNCE_QUEUE_URL": self.bounce_queue.url,
            "BOUNCE_DEAD_LETTER_QUEUE_URL": self.bounce_dead_letters.url,
            "BOUNCE_QUEUE_MAX_RECEIVES": str(MAX_RECEIVES),
            "EVENT_DEAD_LETTER_QUEUE_URL": self.event_dead_letters.url,
            "BOUNCE_SENDER": f"mailer-daemon@{OURS}",
            "MODE": "enforce",
            "REFUSED_MAIL_STOPS": "rule" if self.restricted or self.synced else "rule-set",
            "RECEIPT_RULE_SET": "rules",
            "RECEIPT_RULE": RULE,
            "LATE_BOUNCES": "unknown",
            "SEND_INTERVAL_SECONDS": str(self.interval),
            "WAIT_BUDGET_SECONDS": "3",
            "WINDOW_MARGIN_SECONDS": str(self.margin),
            "USAGE": "managed",
            "MAIL_BUCKET": "stored-mail",
            "MAIL_PREFIX": BUCKET_PREFIX,
            "LEDGER_RETENTION_DAYS": "14",
        }

    def client(self, service: str, config: Any) -> Any:
        if service == "dynamodb":
            return DynamoDBClient(self.database, self.network, config)
        if service == "sqs":
            return SQSClient(self.queues, self.network, config)
        if service == "s3":
            return StoredMail(self.sizes, self.blocks, self.network, config)
        assert service == "ses", service
        if config.retries["total_max_attempts"] > 1:
            return RulesClient(self.ses, self.receiving.rules, self.network, config)
        return SESClient(self.ses, self.network, config)

    # --- What happens -------------------------------------------------------------------------

    def run(self) -> None:
        for box in self.work.mailboxes:
            self._keep(box)
        for mail in self.work.mails:
            mail.cut = self.faults.has("headers-cut") and self.kernel.chance.random() < 0.5
            self.ses.received[mail.id] = mail.received
            self._at(mail.received - START, partial(self.receiving.take, mail))
            if mail.id in self.work.deletions:
                at = self.work.deletions[mail.id] - START
                self._at(at, partial(self._delete, mail))
        self._plan_faults()
        self.kernel.run(START + self.work.busy + 24 * HOUR + QUIET)

    def _plan_faults(self) -> None:
        """What befalls the whole world, and when."""
        if self.faults.has("other-caller"):
            first = START + self.kernel.chance.uniform(0.0, 5.0)
            fate = random.Random(f"others {self.seed}")
            self.ses.others_call(first, self.faults.until, fate)
        if self.faults.has("table-expiry"):
            self._at(HOUR, self._expire)
        if self.faults.has("policy-change"):
            for at in (0.3, 0.7):
                self._at(at * self.work.busy, self._change_policy)
        if self.faults.has("deployment"):
            at = self.kernel.chance.uniform(0.0, self.work.busy)
            for function in self.functions:
                self._at(at, function.deploy)
        if self.synced:
            self._at(self.kernel.chance.uniform(0.0, 0.5) * self.work.busy, self._sync)
        if self.faults.has("redrive") or self.work.kind == "outage":
            at = self.work.busy + self.kernel.chance.choice((1.0, 10.0, 23.9)) * HOUR
            self._at(at, self._redrive)

    def _at(self, seconds: float, action: Callable[[], None]) -> None:
        self.kernel.after(seconds, action)

    def _keep(self, box: Mailbox) -> None:
        item: dict[str, Any] = {"address": {"S": box.address}}
        if box.quota:
            item["quota_bytes"] = {"N": str(box.quota)}
        if box.disabled:
            item["status"] = {"S": "disabled"}
        if box.appears:
            self._at(box.appears, lambda: self.mailboxes.write((box.address,), item))
        else:
            self.mailboxes.begin_with((box.address,), item)
        if box.vanishes != float("inf"):
            self._at(box.vanishes, lambda: self.mailboxes.write((box.address,), None))

    def _store(self, mail: Mail) -> None:
        key = BUCKET_PREFIX + mail.id
        self.sizes[key] = mail.size
        self.blocks[key] = "".join(f"{n}: {v}\r\n" for n, v in mail.block).encode() + b"\r\n"

    def _publish(self, mail: Mail, rule: Rule) -> None:
        """SES tells the topic, the topic the audit's queue."""
        ses = self.receiving.event(mail, rule.matching(mail))["Records"][0]["ses"]
        notice = {"notificationType": "Received", "content": "", **ses}
        self.audit_queue.put(msgspec.json.encode(notice).decode())

    def _delete(self, mail: Mail) -> None:
        key = BUCKET_PREFIX + mail.id
        if self.sizes.pop(key, None) is None:
            return
        self.deleted[mail.id] = self.kernel.now
        self.kernel.note(f"stored mail {mail.id} is deleted")
        told = msgspec.json.encode({"detail": {"object": {"key": key}}}).decode()
        self.usage_queue.put(told)
        if self.faults.falls("deletion-twice", self.kernel.now):
            # To another environment while the first is at it, or before a read shows what it did.
            again = self.kernel.chance.uniform(0.1, 0.6)
            self._at(again, partial(self._told_again, told))

    def _told_again(self, told: str) -> None:
        self.usage_queue.put(told)

    def _sync(self) -> None:
        """The schedule's turn: often while something happens, then a few times."""
        self.rules.send({})
        often = self.kernel.now < self.faults.until
        self._at(max(0.3 * self.work.busy, HOUR / 6) if often else 9 * HOUR, self._sync)

    def _expire(self) -> None:
        self.bounces.expire(self.kernel.chance.choice((0.0, 0.2, 1.0)))
        self._at(HOUR, self._expire)

    def _change_policy(self) -> None:
        """Another policy is deployed: new environments have it, and those at work the old one."""
        self.lenient = not self.lenient
        self.kernel.note("another policy", "lenient" if self.lenient else "as shipped")
        for function in (self.inbound, self.audit):
            function.deploy()

    def policy(self, path: Path) -> Policy:
        """What a process reads that starts now."""
        return _policy(path, lenient=self.lenient)

    def _redrive(self) -> None:
        """The operator has mended what was wrong, and lets everything be tried again."""
        self.kernel.note("redrive")
        for message in [*self.event_dead_letters.messages.values()]:
            (record,) = msgspec.json.decode(message.body)["requestPayload"]["Records"]
            self.event_dead_letters.delete([message.id])
            notice = {"notificationType": "Received", **record["ses"]}
            self.audit_queue.put(msgspec.json.encode(notice).decode(), 0.0)
        for message in [*self.bounce_dead_letters.messages.values()]:
            self.bounce_dead_letters.delete([message.id])
            self.bounce_queue.put(message.body)
        for dead, queue in (
            (self.audit_dead_letters, self.audit_queue),
            (self.usage_dead_letters, self.usage_queue),
        ):
            for message in [*dead.messages.values()]:
                dead.delete([message.id])
                queue.put(message.body)

    def _answered(self, event: Any, actor: Actor) -> None:
        self.violations += self._judge(self, event, actor)

    def _called(self, call: Call) -> None:
        self.violations += self._watch(self, call, self._previous)
        self._previous = call


@cache
def _policy(path: Path, *, lenient: bool) -> Policy:
    text = path.read_text()
    if lenient:
        before, rest = text.split('[[rules]]\nname = "mailbox-disabled"')
        text = f"{before}[[rules]]{rest.partition('[[rules]]')[2]}"
    return policy_load.load(text, str(path))
