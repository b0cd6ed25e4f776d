"""The doctor's judgements: each a pure function of what was read, with the mend beside it.

A module a subject. The checks are made in the order in which an operator would look.
"""

from collections.abc import Iterator

from bouncer_console.doctor.account import Account
from bouncer_console.doctor.checks import deciding, rule, running, sending, stack
from bouncer_console.doctor.finding import Checks, Finding, Health, UnreadError

CHECKS = Checks(sending.CHECKS | stack.CHECKS | rule.CHECKS | running.CHECKS | deciding.CHECKS)
"""Every check, by name."""


def examine(account: Account) -> Iterator[Finding]:
    """Every check, in order."""
    for name, check in CHECKS.items():
        try:
            state, found, mend = check(account)
        except UnreadError as missing:
            state, found, mend = Health.UNKNOWN, str(missing), ""
        yield Finding(name=name, state=state, found=found, mend=mend)
