"""The stack: its state, its version, its functions."""

from bouncer_console.doctor.account import (
    Account,
)
from bouncer_console.doctor.finding import Checks, Result, read, right, some, warning, wrong

CHECKS = Checks()


@CHECKS.named("stack")
def _stack(account: Account) -> Result:
    status = read(account.stack_status)
    if status.endswith("_IN_PROGRESS"):
        return warning(f"the stack is {status}", "wait, and look again")
    if "ROLLBACK" in status or "FAILED" in status:
        mend = "sam delete, then sam deploy" if status.startswith("ROLLBACK") else "sam deploy"
        return wrong(f"the stack is {status}", f"see the stack's events for the cause; {mend}")
    return right(f"the stack is {status}")


@CHECKS.named("versions")
def _versions(account: Account) -> Result:
    stack, command = read(account.stack_version), account.command_version
    if stack == command:
        return right(f"stack and command are {command}")
    return warning(
        f"the stack is {stack or 'of no stated version'}, the command {command}",
        "bring both to the same version: docs/upgrading.md",
    )


@CHECKS.named("architecture")
def _architecture(account: Account) -> Result:
    functions = read(account.functions)
    unlike = [
        f"{name} is {each.architecture}, its layer {'/'.join(each.layer_architectures)}"
        for name, each in functions.items()
        if each.layer_architectures and each.architecture not in each.layer_architectures
    ]
    if unlike:
        return wrong(
            some(unlike, 2), "build and deploy with one Architecture: make build, sam deploy"
        )
    kinds = sorted({each.architecture for each in functions.values()})
    return right(f"functions and layer are {', '.join(kinds)}")


@CHECKS.named("errors")
def _errors(account: Account) -> Result:
    failing = {n: each.errors for n, each in read(account.functions).items() if each.errors}
    if not failing:
        return right("no function has failed in 24 hours")
    counts = [f"{name} {count:.0f} times" for name, count in failing.items()]
    return warning(
        f"in 24 hours failed: {some(counts)}",
        "read its log; docs/operations.md has a line for each alarm",
    )


@CHECKS.named("throttles")
def _throttles(account: Account) -> Result:
    held = {n: each.throttles for n, each in read(account.functions).items() if each.throttles}
    reserved = [n for n, each in read(account.functions).items() if each.reserved == 0]
    if reserved:
        return wrong(
            f"{some(reserved)} has a reserved concurrency of 0: it never runs",
            "aws lambda delete-function-concurrency --function-name …",
        )
    if not held:
        return right("no invocation was throttled in 24 hours")
    counts = [f"{name} {count:.0f} times" for name, count in held.items()]
    return warning(f"in 24 hours throttled: {some(counts)}", "raise the account's concurrency")


@CHECKS.named("concurrency")
def _concurrency(account: Account) -> Result:
    left = read(account.concurrency_left)
    if left >= 100:
        return right(f"{left} concurrent invocations are left for functions without their own")
    return warning(
        f"only {left} concurrent invocations are left: a burst of mail would be throttled",
        "ask for more (Service Quotas, Lambda, Concurrent executions)",
    )
