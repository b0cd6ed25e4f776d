"""`bouncer rules`: the receipt rule set that SES runs."""

from typing import Annotated

import msgspec
import typer

from bouncer.aws.receipt_rules import ReceiptRules
from bouncer.receipt_rules import RuleChange, SyncError, changes, wanted
from bouncer_console import ip_filters
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
    client,
)
from bouncer_console.output import (
    Json,
    ask,
    fail,
    note,
    plain_errors,
    print_json,
    print_table,
    progress,
    report,
    say,
)

app = typer.Typer(help="The receipt rules: activate them, keep them in step.", no_args_is_help=True)
app.add_typer(ip_filters.app, name="filter")


@app.command()
def activate(
    rule_set: Annotated[str, typer.Argument(help="The rule set to make the active one.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Do so even if another one is active.")
    ] = False,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Make a rule set the active one.

    CloudFormation cannot do that. One set is active per account and Region. Another active one is
    not replaced unless you say so: its rules would stop working at once.
    """
    with plain_errors():
        ses = client("ses", region)
        active = ses.describe_active_receipt_rule_set().get("Metadata", {}).get("Name")
        if active == rule_set:
            text = f"{rule_set} is the active rule set already."
            report(text, as_json, active=rule_set, replaced=None)
            return
        if active and not replace:
            fail(
                f"{active} is the active rule set, and its rules would stop working. "
                f"Add your rules to {active}, or replace it: "
                f"bouncer rules activate {rule_set} --replace"
            )
        ses.set_active_receipt_rule_set(RuleSetName=rule_set)
        before = f", instead of {active}" if active else ""
        text = f"{rule_set} is the active rule set now{before}."
        report(text, as_json, active=rule_set, replaced=active)


@app.command()
def sync(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the difference, change nothing.")
    ] = False,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Name the directory's addresses in the receipt rules.

    Then SES refuses all others itself, with 550 5.1.1 in the SMTP dialogue: no mail, no bounce, no
    slot. Only the stack's own rule and its numbered copies are touched. SES takes one change a
    second; after an interruption, run it again.
    """
    with plain_errors(DeploymentError, SyncError):
        deployment = Deployment.find(stack, region)
        plan = plan_sync(deployment)
        todo = plan.changes
        if as_json:
            print_json({"changes": todo, "hints": plan.hints, "dry_run": dry_run})
        else:
            _show(todo, plan.hints)
        if todo and not dry_run and plan.refused:
            raise SyncError(plan.refused)
        if not todo or dry_run:
            return
        ask(f"Change {len(todo)} rules of {plan.rule_set}?", yes=yes)
        _apply(plan.rules, todo)
    note(f"{plan.recipients} recipients are named in the rules of {plan.rule_set}.")


class SyncPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What brings the receipt rules in step with the directory."""

    rules: ReceiptRules
    rule_set: str
    changes: list[RuleChange]
    recipients: int
    """Named in the rules then."""
    hints: list[str]
    refused: str
    """Why it may not be done in this stack, or ""."""


def plan_sync(deployment: Deployment) -> SyncPlan:
    """
    Raises:
        DeploymentError, SyncError
    """
    rule_set, base = deployment.output("ReceiptRuleSet"), deployment.output("ReceiptRule")
    ses = deployment.paced_ses()
    rules = ReceiptRules(ses, rule_set, base)
    needed = wanted(
        deployment.mailbox_table().scan(),
        deployment.mailbox_domains,
    )
    ours, others = rules.read()
    hints = [
        f"{domain} is named as a whole, for its catch-all, its tag separator, or because it "
        f"has no entry @{domain}: SES refuses nobody there, and the bouncer answers for "
        "unknown addresses"
        for domain in needed.whole_domains
    ] + [
        f"the rule {name}, which is not this stack's, takes mail for whole domains: SES "
        "refuses nobody there"
        for name in rules.taking_whole_domains()
    ]
    active = ses.describe_active_receipt_rule_set()
    if active.get("Metadata", {}).get("Name") != rule_set:
        hints.append(
            f"{rule_set} is not the active rule set: nothing happens before "
            f"`bouncer rules activate {rule_set}`"
        )
    refused = (
        "refused mail stops the whole rule set in this stack, which would take it from "
        "recipients of other rules once this one names its own: deploy with "
        "StopScope=rule first, and put what delivers the mail behind the function into "
        "the same rule (docs/policy.md)"
    )
    return SyncPlan(
        rules=rules,
        rule_set=rule_set,
        changes=changes(ours, base, needed.recipients, others, rules.stale_copies()),
        recipients=len(needed.recipients),
        hints=hints,
        refused=refused if deployment.outputs.get("RefusedMailStops") == "rule-set" else "",
    )


def _apply(rules: ReceiptRules, todo: list[RuleChange]) -> None:
    """Make the changes; an interruption says what holds now, and how to go on."""
    made: list[RuleChange] = []
    left = iter(todo)
    try:
        with progress("receipt rules", len(todo)) as advance:

            def done() -> None:
                made.append(next(left))
                advance(1)

            rules.apply(todo, done)
    except BaseException:
        refused = [address for change in made for address in change.removed]
        open_still = [change.name for change in todo if change.narrows and change not in made]
        note(
            f"{len(made)} of {len(todo)} changes are made. "
            + (
                f"{open_still[0]} is still for everyone: SES refuses nobody. "
                if open_still
                else f"Refused since now: {_some(tuple(refused), '')}. "
                if refused
                else "SES refuses nobody who is in the directory. "
            )
            + "Go on with: bouncer rules sync"
        )
        raise


def _show(todo: list[RuleChange], hints: list[str]) -> None:
    for hint in hints:
        say(f"note: {hint}", "yellow")
    if not todo:
        say("The rules are in step with the directory.", "green")
        return
    rows = [
        (
            change.name,
            _kind(change),
            _some(change.added, "+"),
            _some(change.removed, "-"),
            len(change.recipients),
        )
        for change in todo
    ]
    print_table("", ("rule", "", "added", "removed", "recipients"), rows)


def _kind(change: RuleChange) -> str:
    if change.new:
        return "new"
    if not change.recipients:
        return "deleted"
    if change.narrows:
        return "was for everyone"
    return "as the stack's" if change.settings and not change.added else "changed"


def _some(addresses: tuple[str, ...], sign: str) -> str:
    shown = " ".join(f"{sign}{each}" for each in addresses[:5])
    return f"{shown} … {len(addresses)} in all" if len(addresses) > 5 else shown
