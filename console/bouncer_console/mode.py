"""`bouncer mode`: whether the stack only observes, or bounces."""

from typing import Annotated, Any

import typer
from botocore.exceptions import WaiterError

from bouncer.policy.file import Mode
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
)
from bouncer_console.doctor.command import DnsOption, findings, show
from bouncer_console.doctor.dns import DnsError
from bouncer_console.doctor.finding import Finding, Health
from bouncer_console.output import Json, fail, note, plain_errors, print_json, report

# An update of the functions' environment; more than that means that something is stuck.
_WAIT: Any = {"Delay": 2, "MaxAttempts": 300}


def mode(
    to: Annotated[
        Mode | None, typer.Argument(help="What to switch to; without it, say which it is.")
    ] = None,
    despite: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECK", help="Switch although this check of `bouncer doctor` is wrong; repeat."
        ),
    ] = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    dns_server: DnsOption = None,
    as_json: Json = False,
) -> None:
    """Say whether the stack observes or enforces, or switch it.

    observe decides, counts and logs every mail, sends nothing and stops nothing; it is what a
    first deployment does. `bouncer mode enforce` goes live: it runs the checks of `bouncer
    doctor` first, and refuses while one is wrong.
    """
    with plain_errors(DeploymentError, DnsError, WaiterError):
        deployment = Deployment.find(stack, region)
        present = Mode(deployment.parameters.get("Mode", Mode.OBSERVE))
        if to is None or to is present:
            report(f"{stack} is in mode {present}.", as_json, stack=stack, mode=present)
            return
        if to is Mode.ENFORCE:
            _refuse(findings(stack, region, dns_server=dns_server), despite or [], as_json)
        note(f"updating {stack}; it takes a minute")
        _switch(deployment, to)
    report(f"{stack} is in mode {to} now.", as_json, stack=stack, mode=to)


def _refuse(found: list[Finding], despite: list[str], as_json: bool) -> None:
    wrong = [each for each in found if each.state is Health.WRONG and each.name not in despite]
    if not wrong:
        return
    if as_json:
        print_json({"checks": wrong})
    else:
        show(wrong)
    names = " ".join(f"--despite {each.name}" for each in wrong)
    fail(f"Not switched: mend what is wrong first (or, if you know better, add {names})")


def _switch(deployment: Deployment, to: Mode) -> None:
    """Update the one parameter; everything else of the stack stays as it was deployed."""
    cloudformation = deployment.client("cloudformation")
    others = [
        {"ParameterKey": name, "UsePreviousValue": True}
        for name in deployment.parameters
        if name != "Mode"
    ]
    cloudformation.update_stack(
        StackName=deployment.stack,
        UsePreviousTemplate=True,
        Parameters=[*others, {"ParameterKey": "Mode", "ParameterValue": to.value}],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    cloudformation.get_waiter("stack_update_complete").wait(
        StackName=deployment.stack, WaiterConfig=_WAIT
    )
