"""Lambda: environments that are frozen between invocations, time-outs, retries, and pollers."""

import importlib
import types
from collections.abc import Callable
from typing import Any

import msgspec

from sim.clocks import kernel as running_kernel
from sim.faults import Swarm
from sim.kernel import Actor, Kernel, Killed, Machine
from sim.sqs import Message, Queue

_COLD_START = (0.2, 2.5)
_RETRIES = 2
_RETRY_AFTER = (60.0, 120.0)
_EVENT_AGE = 21600.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an invocation."""

    result: Any = None
    error: str = ""
    throttled: bool = False

    @property
    def ok(self) -> bool:
        return not self.error


class Context:
    """What Lambda tells a function of its invocation."""

    memory_limit_in_mb = 512
    function_version = "$LATEST"

    def __init__(self, name: str, request_id: str, kernel: Kernel, end: float) -> None:
        self.function_name = name
        self.invoked_function_arn = f"arn:aws:lambda:us-east-1:123456789012:function:{name}"
        self.aws_request_id = request_id
        self._kernel = kernel
        self._end = end

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._end - self._kernel.now) * 1000))


class Environment(Machine):
    """A process with what it wired at its start."""

    application: Any = None


class Lambda:
    """One function."""

    def __init__(
        self,
        name: str,
        kernel: Kernel,
        faults: Swarm,
        *,
        timeout: float,
        concurrency: int,
        clock_error: float,
        module: str = "",
        on_failure: Queue | None = None,
    ) -> None:
        """
        Args:
            module: of its handler, where that is not its own.
            on_failure: where an asynchronous event ends that failed too often.
        """
        self.name = name
        self.machines: list[Environment] = []
        self.dropped: list[Any] = []
        self.on_answer: Callable[[Any, Actor], None] = lambda _event, _actor: None
        """Told of each invocation that ended well, when it does."""
        self._kernel = kernel
        self._faults = faults
        self._timeout = timeout
        self._concurrency = concurrency
        self._clock_error = clock_error
        self._on_failure = on_failure
        self._idle: list[Environment] = []
        self._running = 0
        self._count = 0
        self._module = importlib.import_module(module or f"functions.{name}.app")

    def deploy(self) -> None:
        """Every environment is made anew."""
        self._idle.clear()

    def invoke(self, event: Any, done: Callable[[Outcome], None]) -> None:
        """Run the handler; `done` is told what came of it."""
        kernel = self._kernel
        if self._running >= self._concurrency or self._faults.falls("refused", kernel.now):
            kernel.after(0.01, lambda: done(Outcome(error="refused", throttled=True)))
            return
        self._running += 1
        self._count += 1
        cold = not self._idle or self._faults.falls("fresh-environment", kernel.now)
        env = self._environment() if cold else self._idle.pop()
        env.thaw()
        name = f"{self.name}-{self._count}"
        self._run(name, env, event, done, cold=cold)

    def _run(
        self,
        name: str,
        env: Environment,
        event: Any,
        done: Callable[[Outcome], None],
        *,
        cold: bool,
    ) -> None:
        kernel = self._kernel
        outcome = [Outcome(error="ended without a word")]

        def body() -> None:
            kernel.note(f"{name} invoked", "cold" if cold else "warm")
            try:
                if cold:
                    kernel.pause(kernel.chance.uniform(*_COLD_START))
                self._start_up()
                began = kernel.now
                context = Context(name, name, kernel, began + self._timeout)
                kernel.after(self._timeout, lambda: self._time_out(actor))
                outcome[0] = Outcome(result=self._module.handler(event, context))
            except Killed:
                outcome[0] = Outcome(error="killed")
            except Exception as error:  # noqa: BLE001  (as Lambda does: it is a function error)
                outcome[0] = Outcome(error=f"{type(error).__name__}: {error}"[:200])
            kernel.note(f"{name} ends", str(outcome[0].error or outcome[0].result))
            if outcome[0].ok:
                self.on_answer(event, actor)
            kernel.after(0.0, after)

        def after() -> None:
            self._running -= 1
            if not actor.doomed:
                env.freeze()
                self._idle.append(env)
            done(outcome[0])

        actor = kernel.spawn(name, env, body)

    def _start_up(self) -> None:
        if self._faults.falls("crash-at-start", self._kernel.now):
            raise RuntimeError("crashed at its start")

    def _time_out(self, actor: Any) -> None:
        if not actor.ended:
            self._kernel.note(f"{actor.name} timed out")
            actor.kill()

    def send(self, event: Any) -> None:
        """Invoke asynchronously: Lambda tries again, twice; then it keeps or drops the event."""
        self._attempt(event, 0, self._kernel.now)
        if self._faults.falls("invoked-twice", self._kernel.now):
            again = self._kernel.chance.choice((0.1, 5.0, 300.0))
            self._kernel.after(again, lambda: self._attempt(event, 0, self._kernel.now))

    def _attempt(self, event: Any, failures: int, since: float) -> None:
        def done(outcome: Outcome) -> None:
            if outcome.ok:
                return
            failed = failures + (0 if outcome.throttled else 1)
            old = self._kernel.now - since > _EVENT_AGE
            if failed > _RETRIES or old:
                self._give_up(event, outcome)
                return
            wait = _RETRY_AFTER[min(failures, 1)]
            self._kernel.after(wait, lambda: self._attempt(event, failed, since))

        self.invoke(event, done)

    def _give_up(self, event: Any, outcome: Outcome) -> None:
        if self._on_failure is None:
            self.dropped.append(event)
            return
        record = {"requestPayload": event, "responsePayload": {"errorMessage": outcome.error}}
        self._on_failure.put(msgspec.json.encode(record).decode())

    def _environment(self) -> Environment:
        chance = self._kernel.chance
        off = chance.uniform(-self._clock_error, self._clock_error)
        if self._faults.falls("wrong-clock", self._kernel.now):
            off = chance.choice((-1.0, 1.0)) * chance.choice((0.5, 1.5, 30.0, 3600.0))
        env = Environment(self._kernel, off=off, stands_still=True)
        self.machines.append(env)
        return env

    def own_application(self) -> Callable[[], Any]:
        """The module's `application`, with one a process instead of one."""
        make = self._module.application.__wrapped__

        def application() -> Any:
            actor = running_kernel().current
            assert actor is not None
            env = actor.machine
            assert isinstance(env, Environment)
            if env.application is None:
                env.application = make()
            return env.application

        return application

    @property
    def module(self) -> types.ModuleType:
        return self._module


class Poller:
    """An event source mapping: takes batches from a queue, at most so many at once."""

    def __init__(
        self,
        queue: Queue,
        function: Lambda,
        kernel: Kernel,
        *,
        batch: int,
        at_once: int,
        back_at_once: bool,
    ) -> None:
        """
        Args:
            back_at_once: whether what failed is visible again at once, or when its time is over.
        """
        self._queue = queue
        self._function = function
        self._kernel = kernel
        self._batch = batch
        self._at_once = at_once
        self._back_at_once = back_at_once
        self._busy = 0
        self._asked = False
        queue.on_visible = self._ask

    def _ask(self) -> None:
        if self._asked or self._busy >= self._at_once:
            return
        self._asked = True
        self._kernel.after(self._kernel.chance.uniform(0.01, 0.2), self._poll)

    def _poll(self) -> None:
        self._asked = False
        if self._busy >= self._at_once:
            return
        taken = self._queue.receive(self._batch)
        if not taken:
            return
        self._busy += 1
        event = {"Records": [_record(each, self._queue) for each in taken]}
        ids = [each.id for each in taken]
        self._function.invoke(event, lambda outcome: self._done(ids, outcome))
        self._ask()

    def _done(self, ids: list[str], outcome: Outcome) -> None:
        self._busy -= 1
        if outcome.ok:
            failures = (outcome.result or {}).get("batchItemFailures", [])
            failed = {each["itemIdentifier"] for each in failures}
            self._queue.delete([each for each in ids if each not in failed])
            if self._back_at_once:
                self._queue.show([each for each in ids if each in failed], 0.0)
        self._ask()


def _record(message: Message, queue: Queue) -> dict[str, Any]:
    return {
        "messageId": message.id,
        "body": message.body,
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:us-east-1:123456789012:{queue.name}",
        "attributes": {
            "ApproximateReceiveCount": str(message.receives),
            "SentTimestamp": str(int(message.sent * 1000)),
        },
    }
