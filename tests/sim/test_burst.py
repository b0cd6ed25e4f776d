"""500 mails at once for a mailbox with room for 100: transactions that collide, in virtual time."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from bouncer import timing
from bouncer.aws.usage import DynamoUsage
from bouncer.deadline import deadline
from bouncer.mailboxes import Mailbox
from bouncer.usage import Charged, UsageBusyError
from sim.clocks import running
from sim.dynamodb import DynamoDB, Table
from sim.kernel import Kernel, Machine
from sim.network import refused

MAILS, ROOM_FOR, SIZE = 500, 100, 1000
TRANSACTION = 0.015
START = datetime(2026, 11, 21, 12, tzinfo=UTC)
BUSY = Mailbox(address="busy@example.com", quota_bytes=ROOM_FOR * SIZE)


class Colliding:
    """DynamoDB, whose transactions hold their items for 15 ms and refuse others meanwhile."""

    def __init__(self, kernel: Kernel) -> None:
        self.bounces = Table("bounces", kernel, "pk", "sk")
        self.mailboxes = Table("mailboxes", kernel, "address")
        self.collisions = 0
        self._db = DynamoDB(kernel, (self.bounces, self.mailboxes))
        self._kernel = kernel
        self._held = False

    def transact_write_items(self, *, TransactItems: list[Any]) -> Any:
        if self._held:
            self.collisions += 1
            self._kernel.pause(TRANSACTION)
            reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
            raise refused(
                "TransactionCanceledException", 400, "TransactWriteItems",
                CancellationReasons=reasons,
            )  # fmt: skip
        self._held = True
        try:
            self._kernel.pause(TRANSACTION)
            return self._db.transact(TransactItems, str(self._kernel.ticket()))
        finally:
            self._held = False

    def get_item(self, *, TableName: str, Key: Any, **_: Any) -> Any:
        self._kernel.pause(0.004)
        table = self._db.tables[TableName]
        item = table.items.get(table.key_of(Key))
        return {"Item": dict(item)} if item is not None else {}


class Burst:
    def __init__(self, seed: int, *, room_for: int, patience: float) -> None:
        self.kernel = Kernel(seed, START.timestamp())
        self.db = Colliding(self.kernel)
        self.outcomes: dict[str, str] = {}
        self.mailbox = Mailbox(address=BUSY.address, quota_bytes=room_for * SIZE)
        quota = {"N": str(room_for * SIZE)}
        item: Any = {"address": {"S": BUSY.address}, "quota_bytes": quota}
        self.db.mailboxes.items[BUSY.address,] = item
        client: Any = self.db
        self.usage = DynamoUsage(
            client,
            bounce_table="bounces",
            mailbox_table="mailboxes",
            remember=timedelta(days=14),
            clock=self.clock,
            sleep=self.kernel.pause,
        )
        until = START + timedelta(seconds=patience)
        machine = Machine(self.kernel, off=0.0, stands_still=False)
        with running(self.kernel):
            for number in range(MAILS):
                mail = partial(self.mail, f"m{number}", until)
                self.kernel.spawn(f"m{number}", machine, mail)
            self.kernel.run(until.timestamp() + 60)

    def clock(self) -> datetime:
        return datetime.fromtimestamp(self.kernel.now, UTC)

    def mail(self, message_id: str, until: datetime) -> None:
        try:
            with deadline(until, self.clock):
                charged = self.usage.charge(self.mailbox, message_id, SIZE, START, enforce=True)
        except UsageBusyError:
            self.outcomes[message_id] = "busy"
        else:
            self.outcomes[message_id] = "in" if isinstance(charged, Charged) else "full"

    @property
    def counted(self) -> set[str]:
        return {pk.removeprefix("message#") for pk, _ in self.db.bounces.items}

    @property
    def used(self) -> int:
        item: Any = self.db.mailboxes.items[BUSY.address,]
        return int(item["used_bytes"]["N"])


@pytest.mark.parametrize("seed", range(3))
def test_a_burst_fills_the_room_that_there_is_and_the_rest_is_refused(seed: int) -> None:
    burst = Burst(seed, room_for=ROOM_FOR, patience=timing.INBOUND_TIMEOUT - timing.RESERVE)
    assert Counter(burst.outcomes.values()) == {"in": ROOM_FOR, "full": MAILS - ROOM_FOR}
    assert burst.counted == {each for each, said in burst.outcomes.items() if said == "in"}
    assert burst.used == ROOM_FOR * SIZE
    assert burst.db.collisions > MAILS


@pytest.mark.parametrize("seed", range(3))
def test_whose_turn_did_not_come_is_told_apart_and_nothing_is_counted_of_him(seed: int) -> None:
    """The audit counts him, when the burst is over."""
    burst = Burst(seed, room_for=MAILS, patience=2 * timing.ATTEMPT + 1)
    said = Counter(burst.outcomes.values())
    assert set(said) == {"in", "busy"}
    assert said.total() == MAILS
    assert burst.counted == {each for each, said in burst.outcomes.items() if said == "in"}
    assert burst.used == said["in"] * SIZE
