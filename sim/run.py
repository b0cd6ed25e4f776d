"""A world, run from its beginning to its end and held against the invariants."""

import io
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

import functions.inbound.app
import functions.inbound.audit
import functions.receipt_rules.app
import functions.send.app
import functions.usage.app
from bouncer import receipt_rules
from bouncer.aws import clients
from bouncer.aws.telemetry import Telemetry
from bouncer.policy.decide import Policy
from sim import invariants
from sim.clocks import kernel, running, virtual
from sim.kernel import Kernel
from sim.world import Violation, World


class Report(msgspec.Struct, kw_only=True):
    """What came of a world."""

    seed: int
    violations: list[Violation]
    lines: Kernel
    faults: dict[str, float]
    fell: dict[str, int]
    kind: str
    mails: int
    sent: int
    steps: int

    @property
    def trace(self) -> list[str]:
        return self.lines.trace


_A_RULE = 2
"""Of 500 addresses, so that a directory of six needs copies of the rule."""


class _Session:
    """In the place of botocore's session in `bouncer.aws.clients`."""

    def __init__(self) -> None:
        self.world: World | None = None

    def create_client(self, service: str, *, config: Any) -> Any:
        assert self.world is not None
        return self.world.client(service, config)


_session = _Session()


def _the_session() -> _Session:
    return _session


def _nothing(_: Telemetry) -> None: ...


def _count(_: Telemetry, name: str, _reason: str = "", _bounce_type: str = "") -> None:
    kernel().count(name)


@contextmanager
def prepared() -> Iterator[None]:
    """The product lives in virtual time, with our services behind its clients."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(clients, "_session", _the_session))
        stack.enter_context(virtual())

        def load_once(path: Path) -> Policy:
            assert _session.world is not None
            return _session.world.policy(path)

        stack.enter_context(mock.patch("bouncer.aws.policy_source.load_file", load_once))
        # To print what is counted takes a tenth of a world's time.
        stack.enter_context(mock.patch.object(Telemetry, "flush", _nothing))
        stack.enter_context(mock.patch.object(Telemetry, "count", _count))
        for module in (
            functions.inbound.app,
            functions.inbound.audit,
            functions.receipt_rules.app,
            functions.send.app,
            functions.usage.app,
        ):
            logger: Any = module.logger
            before = logger.level if hasattr(logger, "level") else logging.INFO
            logger.setLevel(logging.CRITICAL)
            stack.callback(logger.setLevel, before)
        yield


def run(
    seed: int,
    *,
    without: frozenset[str] = frozenset(),
    most: int | None = None,
    traced: bool = False,
) -> Report:
    """One world from its beginning to its end, inside of `prepared`.

    Args:
        without: faults that are switched off.
        most: only so many of its mails.
        traced: with its trace.
    """
    world = World(
        seed, invariants.of_call, invariants.of_answer, without=without, most=most, traced=traced
    )
    with ExitStack() as stack:
        stack.enter_context(running(world.kernel))
        stack.enter_context(mock.patch.object(_session, "world", world))
        stack.enter_context(mock.patch.dict(os.environ, world.environment(), clear=True))
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(mock.patch.object(receipt_rules, "RECIPIENTS_A_RULE", _A_RULE))
        for function in world.functions:
            stack.enter_context(
                mock.patch.object(function.module, "application", function.own_application())
            )
        world.run()
    violations = world.violations or invariants.of_world(world)
    return Report(
        seed=seed,
        violations=violations,
        lines=world.kernel,
        faults=world.faults.described(),
        fell=world.faults.fell,
        kind=world.work.kind,
        mails=len(world.work.mails),
        sent=len(world.ses.sent),
        steps=world.kernel.steps,
    )
