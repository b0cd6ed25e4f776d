"""SQS: at least once, in no order, hidden while somebody has it, and dead letters at the end."""

from collections.abc import Callable
from typing import Any

import msgspec

from sim.faults import Swarm
from sim.kernel import Kernel
from sim.network import Client, Network


class Message(msgspec.Struct, kw_only=True):
    id: str
    body: str
    sent: float
    visible: float
    receives: int = 0


class Queue:
    """One standard queue."""

    def __init__(
        self,
        name: str,
        kernel: Kernel,
        faults: Swarm,
        *,
        visibility: float = 30.0,
        delay: float = 0.0,
        retention: float = 345600.0,
        max_receives: int = 0,
        dead_letters: "Queue | None" = None,
    ) -> None:
        self.name = name
        self.url = f"https://sqs.invalid/{name}"
        self.messages: dict[str, Message] = {}
        self.dropped: list[Message] = []
        self.visibility = visibility
        self.on_visible: Callable[[], None] = lambda: None
        self._kernel = kernel
        self._faults = faults
        self._delay = delay
        self._retention = retention
        self._max_receives = max_receives
        self._dead_letters = dead_letters

    def put(self, body: str, delay: float | None = None) -> str:
        kernel = self._kernel
        wait = self._delay if delay is None else delay
        if self._faults.falls("message-late", kernel.now):
            wait += kernel.chance.choice((1.0, 30.0, 600.0))
        name = f"{self.name}-{kernel.ticket()}"
        message = Message(id=name, body=body, sent=kernel.now, visible=kernel.now + wait)
        self.messages[name] = message
        kernel.after(wait, self.on_visible)
        return name

    def receive(self, most: int) -> list[Message]:
        """What Lambda's poller gets; what was received too often is a dead letter instead."""
        now, taken = self._kernel.now, []
        for message in [*self.messages.values()]:
            if message.visible > now:
                continue
            if now - message.sent > self._retention:
                self.dropped.append(self.messages.pop(message.id))
                continue
            message.receives += 1
            if self._max_receives and message.receives > self._max_receives:
                del self.messages[message.id]
                if self._dead_letters is not None:
                    self._dead_letters.put(message.body, 0.0)
                continue
            twice = self._faults.falls("message-twice", now)
            message.visible = now + (0.5 if twice else self.visibility)
            self._kernel.after(message.visible - now, self.on_visible)
            taken.append(message)
            if len(taken) == most:
                break
        return taken

    def show(self, ids: list[str], delay: float) -> None:
        """Hand messages back: others may have them after so long."""
        for each in ids:
            if each in self.messages:
                self.messages[each].visible = self._kernel.now + delay
        self._kernel.after(delay, self.on_visible)

    def delete(self, ids: list[str]) -> None:
        for each in ids:
            self.messages.pop(each, None)


class SQSClient(Client):
    """What the product asks of boto3's client."""

    def __init__(self, queues: dict[str, Queue], network: Network, config: Any) -> None:
        super().__init__("sqs", network, config)
        self._queues = queues

    def send_message(self, **request: Any) -> dict[str, Any]:
        queue = self._queues[request["QueueUrl"]]
        delay = request.get("DelaySeconds")

        def do() -> dict[str, Any]:
            wait = None if delay is None else float(delay)
            return {"MessageId": queue.put(request["MessageBody"], wait)}

        return self.request("SendMessage", f"SendMessage {queue.name} in {delay or 0} s", do)

    def get_queue_attributes(self, **request: Any) -> dict[str, Any]:
        queue = self._queues[request["QueueUrl"]]

        def do() -> dict[str, Any]:
            count = str(len(queue.messages))
            return {
                "Attributes": {
                    "ApproximateNumberOfMessages": count,
                    "ApproximateNumberOfMessagesNotVisible": "0",
                    "ApproximateNumberOfMessagesDelayed": "0",
                }
            }

        return self.request("GetQueueAttributes", f"GetQueueAttributes {queue.name}", do)
