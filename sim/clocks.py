"""The product's clocks, sleeps and chance, given over to the kernel while a world runs.

The product takes its clocks as arguments, but in the end somebody names the real ones: as a
module's global, or as an argument's default. Both are replaced here, by identity, in every module
of the product, and put back afterwards.
"""

import random
import sys
import time
import types
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import msgspec

from sim.kernel import Kernel

_PRODUCT = ("bouncer", "functions")


class _Now:
    """The kernel of the world that runs."""

    kernel: Kernel | None = None


def kernel() -> Kernel:
    assert _Now.kernel is not None, "no world runs"
    return _Now.kernel


def _time() -> float:
    running = kernel()
    return running.current.machine.wall() if running.current is not None else running.now


def _monotonic() -> float:
    running = kernel()
    return running.current.machine.monotonic() if running.current is not None else running.now


def _sleep(seconds: float) -> None:
    kernel().note(f"sleep {seconds:.3f}")
    kernel().pause(seconds)


def _uuid4() -> uuid.UUID:
    return uuid.UUID(int=kernel().chance.getrandbits(128), version=4)


def _uniform(low: float, high: float) -> float:
    return kernel().chance.uniform(low, high)


def _random() -> float:
    return kernel().chance.random()


class _Any(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


class _Datetime(metaclass=_Any):
    """`datetime` with another present; everything else is the real one's."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return datetime(*args, **kwargs)  # noqa: DTZ001  (the caller's own)

    @staticmethod
    def now(tz: tzinfo | None = None) -> datetime:
        return (_EPOCH + timedelta(seconds=_time())).astimezone(tz)

    fromtimestamp = staticmethod(datetime.fromtimestamp)
    fromisoformat = staticmethod(datetime.fromisoformat)
    strptime = staticmethod(datetime.strptime)
    combine = staticmethod(datetime.combine)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Time(types.ModuleType):
    """The module `time`."""


class _Random(types.ModuleType):
    """The module `random`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(kernel().chance, name)


def _replacements() -> dict[int, Any]:
    virtual = _Time("time")
    vars(virtual).update(vars(time), time=_time, monotonic=_monotonic, sleep=_sleep)
    return {
        id(time): virtual,
        id(time.time): _time,
        id(time.monotonic): _monotonic,
        id(time.sleep): _sleep,
        id(datetime): _Datetime,
        id(uuid.uuid4): _uuid4,
        id(random): _Random("random"),
        id(random.uniform): _uniform,
        id(random.random): _random,
    }


def _modules() -> list[types.ModuleType]:
    found = sorted(name for name in sys.modules if name.partition(".")[0] in _PRODUCT)
    return [sys.modules[name] for name in found]


def _functions(module: types.ModuleType) -> Iterator[types.FunctionType]:
    for value in [*vars(module).values()]:
        if getattr(value, "__module__", None) != module.__name__:
            continue
        members = vars(value).values() if isinstance(value, type) else (value,)
        yield from (each for each in members if isinstance(each, types.FunctionType))


def _read_annotations(module: types.ModuleType) -> None:
    """msgspec reads them when a struct is first used, and wants the real classes."""
    for value in [*vars(module).values()]:
        if isinstance(value, type) and issubclass(value, msgspec.Struct):
            with suppress(TypeError):  # what can't be decoded is never asked for
                msgspec.json.Decoder(value)


def _swap_defaults(
    function: types.FunctionType, swaps: dict[int, Any], put: Callable[[Any, str, Any], None]
) -> None:
    given, named = function.__defaults__ or (), function.__kwdefaults__ or {}
    if any(id(each) in swaps for each in given):
        put(function, "__defaults__", tuple(swaps.get(id(each), each) for each in given))
    if any(id(each) in swaps for each in named.values()):
        swapped = {name: swaps.get(id(each), each) for name, each in named.items()}
        put(function, "__kwdefaults__", swapped)


@contextmanager
def virtual() -> Iterator[None]:
    """The product lives in virtual time inside."""
    swaps = _replacements()
    undo: list[Callable[[], None]] = []

    def put(holder: Any, name: str, value: Any) -> None:
        before = getattr(holder, name)
        undo.append(lambda: setattr(holder, name, before))
        setattr(holder, name, value)

    for module in _modules():
        _read_annotations(module)
        for name, value in [*vars(module).items()]:
            if id(value) in swaps:
                put(module, name, swaps[id(value)])
        for function in _functions(module):
            _swap_defaults(function, swaps, put)
    try:
        yield
    finally:
        for each in reversed(undo):
            each()


@contextmanager
def running(world: Kernel) -> Iterator[None]:
    before, _Now.kernel = _Now.kernel, world
    try:
        yield
    finally:
        _Now.kernel = before
