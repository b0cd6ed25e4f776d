"""How a check is written and what it finds: see checks/."""

from collections.abc import Callable
from enum import StrEnum

import msgspec

from bouncer_console.deployment import Deployment
from bouncer_console.doctor.account import Account, Rule, Unread, our_rule


class Health(StrEnum):
    """How a check came out."""

    RIGHT = "right"
    WRONG = "wrong"
    """Mail is lost, wrongly bounced or not bounced until it is mended: nothing goes live so."""
    WARNING = "warning"
    UNKNOWN = "unknown"
    """It could not be read."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check's result, as a person and a program read it."""

    name: str
    state: Health
    found: str
    mend: str = ""


type Result = tuple[Health, str, str]
type Check = Callable[[Account], Result]


class Checks(dict[str, Check]):
    """Checks by name, as they stand in a module."""

    def named(self, name: str) -> Callable[[Check], Check]:
        def add(check: Check) -> Check:
            self[name] = check
            return check

        return add


class UnreadError(Exception):
    """The fact that a check needs was not read; its text says why."""


def read[Value](value: Value | Unread) -> Value:
    """
    Raises:
        UnreadError: there is none.
    """
    if isinstance(value, Unread):
        raise UnreadError(value.why)
    return value


def right(found: str) -> Result:
    return Health.RIGHT, found, ""


def wrong(found: str, mend: str) -> Result:
    return Health.WRONG, found, mend


def warning(found: str, mend: str) -> Result:
    return Health.WARNING, found, mend


def some(names: list[str] | tuple[str, ...], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def deployed(account: Account) -> Deployment:
    return read(account.deployment)


def rule_of(account: Account) -> Rule:
    deployed(account)
    read(account.rules)
    rule = our_rule(account)
    if rule is None:
        raise UnreadError("the receipt rule is not there: see the check `rule`")
    return rule
