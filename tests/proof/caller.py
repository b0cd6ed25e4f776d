"""One process of many: an inbound function or the queue's worker, over and over, with bad luck.

It is built from the product's own parts (Delivery, Limiter, DynamoSlots, DynamoLedger,
SesSendBounce, SqsBounceQueue); only its clock may be off, it stalls at random, and it kills
itself at random before, between and after calls.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

from bouncer.aws.ledger import DynamoLedger
from bouncer.aws.queue import SqsBounceQueue
from bouncer.aws.send_bounce import SesSendBounce
from bouncer.aws.slots import DynamoSlots
from bouncer.delivery.bounce import Bounce
from bouncer.delivery.calls import Terms
from bouncer.delivery.delivery import Delivery
from bouncer.delivery.ledger import BounceState, LedgerEntry, LedgerUnavailableError
from bouncer.delivery.queue import QueueUnavailableError, decode
from bouncer.limiter import Limiter, Pace
from tests.fakes.bounces import bounce

INVOCATION = timedelta(seconds=20)
"""As long as an invocation lasts at most; a lease is hardly longer."""


class Luck(msgspec.Struct, frozen=True, kw_only=True):
    """How often what goes wrong, as shares of calls."""

    stalls: float = 0.0
    longest_stall: float = 0.0
    kills: float = 0.0
    store_errors: float = 0.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller is told on its command line, as JSON."""

    role: str
    number: int
    endpoint: str
    receiver: str
    table: str
    queue: str
    log: str
    messages: list[str]
    clock_offset: float
    pace: Pace
    luck: Luck
    seed: int
    until: float
    """When the worker stops looking, on the monotonic clock."""


class _NotingLedger(DynamoLedger):
    """Notes whose end could not be written: a later delivery may send it again."""

    def __init__(
        self, note: Callable[[str, str], None], client: Any, table: str, clock: Any
    ) -> None:
        super().__init__(client, table, retention=timedelta(days=14), clock=clock)
        self._note = note

    def settle(
        self, entries: Iterable[LedgerEntry], *, owner: str, until: datetime
    ) -> dict[str, BounceState]:
        its = list(entries)
        try:
            return super().settle(its, owner=owner, until=until)
        except LedgerUnavailableError:
            self._note("unwritten", its[0].message_id)
            raise


class Caller:
    def __init__(self, plan: Plan) -> None:
        self.role = plan.role
        self._plan = plan
        self._random = random.Random(plan.seed)
        self._log = open(plan.log, "a", buffering=1)  # noqa: PTH123, SIM115  (kept until the end)
        self._looked = 0.0
        # One try less than the product has, so that some failures reach the code.
        quick = Config(retries={"total_max_attempts": 2, "mode": "standard"}, read_timeout=10)
        dynamodb = self._client("dynamodb", quick)
        self._sqs = self._client("sqs", quick)
        dynamodb.meta.events.register("before-send.dynamodb", self._store_error)
        once = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5)
        self._send_bounce = SesSendBounce(self._client("ses", once, plan.receiver))
        self._plain_send = self._send_bounce.send
        self._send_bounce.send = self._send  # type: ignore[assignment,method-assign]  # noted on the way
        self.delivery = Delivery(
            ledger=_NotingLedger(self._note, dynamodb, plan.table, self._datetime),
            limiter=Limiter(
                DynamoSlots(dynamodb, plan.table), plan.pace, clock=self._clock, sleep=self._sleep
            ),
            send_bounce=self._send_bounce,
            queue=SqsBounceQueue(self._sqs, plan.queue, lambda: b"key"),
            terms=Terms(wait_budget=3 * plan.pace.interval, penalty=2 * plan.pace.interval),
            count=lambda event: self._note("event", event),
            clock=self._datetime,
        )

    def _client(self, service: str, config: Config, endpoint: str = "") -> Any:
        make: Any = boto3.client  # typed by the name of the service, of which there are several
        return make(
            service,
            endpoint_url=endpoint or self._plan.endpoint,
            region_name="us-east-1",
            config=config,
        )

    # --- what goes wrong -----------------------------------------------------------------------

    def _clock(self) -> float:
        self._looked = time.monotonic()
        return time.time() + self._plan.clock_offset

    def _datetime(self) -> datetime:
        return datetime.fromtimestamp(time.time() + self._plan.clock_offset, UTC)

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)
        if self._random.random() < self._plan.luck.stalls:
            time.sleep(self._random.uniform(0, self._plan.luck.longest_stall))

    def _store_error(self, **_: Any) -> None:
        if self._random.random() < self._plan.luck.store_errors:
            raise EndpointConnectionError(endpoint_url=self._plan.endpoint, error="as told")

    def _note(self, kind: str, what: str, **more: Any) -> None:
        line = {"at": time.monotonic(), "kind": kind, "what": what, **more}
        print(json.dumps(line), file=self._log)

    def _die(self, message_id: str, where: str) -> None:
        self._note("killed", message_id, where=where)
        os.kill(os.getpid(), signal.SIGKILL)

    def _send(self, bounce: Bounce, turn: Callable[[], None], written: Callable[[], None]) -> str:
        share = self._plan.luck.kills / 3
        luck = self._random.random()
        message_id = bounce.message_id
        if luck < share:
            self._die(message_id, "before the call")

        def noted_turn() -> None:
            turn()
            started = time.monotonic()
            self._note("call", message_id, started=started, suspended=started - self._looked)
            if share <= luck < 2 * share:
                threading.Timer(0.003, self._die, (message_id, "between")).start()

        bounce_id = self._plain_send(bounce, noted_turn, written)
        if 2 * share <= luck < 3 * share:
            self._die(message_id, "after the answer")
        return bounce_id

    # --- the two roles -------------------------------------------------------------------------

    def inbound(self) -> None:
        """Each mail until it is dealt with: as SES, or Lambda, tries a failed one again."""
        for message_id in self._plan.messages:
            while True:
                until = self._datetime() + INVOCATION
                try:
                    fates = self.delivery.send_or_queue(
                        bounce(message_id), owner=str(uuid4()), until=until
                    )
                except (LedgerUnavailableError, QueueUnavailableError):
                    time.sleep(0.05)
                    continue
                self._note("fate", message_id, states=[fate.state for fate in fates])
                break

    def work(self) -> None:
        """Batches from the queue until it is told to stop."""
        while time.monotonic() < self._plan.until:
            try:
                answer = self._sqs.receive_message(
                    QueueUrl=self._plan.queue, MaxNumberOfMessages=10, WaitTimeSeconds=1
                )
                self._batch(answer.get("Messages", []))
            except (ClientError, BotoCoreError):
                time.sleep(0.05)

    def _batch(self, messages: list[Any]) -> None:
        if not messages:
            return
        batch = {each["ReceiptHandle"]: decode(each["Body"]) for each in messages}
        until = self._datetime() + INVOCATION
        _, again = self.delivery.send_batch(batch, owner=str(uuid4()), until=until)
        for handle in batch.keys() - again:
            self._sqs.delete_message(QueueUrl=self._plan.queue, ReceiptHandle=handle)


if __name__ == "__main__":
    caller = Caller(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))
    if caller.role == "inbound":
        caller.inbound()
    else:
        caller.work()
