"""`bouncer explain`: what would happen to a mail, and why."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from bouncer.guards import GUARDS
from bouncer.mailboxes import MailboxState
from bouncer.plan import Plan
from bouncer.policy.conditions import Facts
from bouncer.policy.decide import Trial
from bouncer.proof import SAYS, is_proven
from bouncer_console.checkout import DEFAULT_POLICY
from bouncer_console.deployment import RegionOption
from bouncer_console.explain.desk import MAILBOXES_BESIDE, Desk
from bouncer_console.explain.explained import Explained, facts_shown, is_in
from bouncer_console.explain.options import (
    EXPECTED,
    AttributesOption,
    MailboxesOption,
    MailFromOption,
    NowOption,
    PolicyOption,
    RcptOption,
    SenderOption,
    SizeOption,
    StackOption,
    TableOption,
    VerboseOption,
)
from bouncer_console.output import Json, note, plain_errors, print_json, print_table, say


def explain(
    event: Annotated[Path, typer.Argument(help="An SES event (.json) or a mail (.eml).")],
    policy: PolicyOption = DEFAULT_POLICY,
    mailboxes: MailboxesOption = None,
    table: TableOption = None,
    attributes: AttributesOption = None,
    stack: StackOption = None,
    size: SizeOption = None,
    now: NowOption = None,
    bounce_sender: SenderOption = None,
    mail_from: MailFromOption = None,
    rcpt_to: RcptOption = None,
    region: RegionOption = None,
    verbose: VerboseOption = False,
    as_json: Json = False,
) -> None:
    """Say what would happen to a mail, and why. Nothing is sent or stored."""
    with plain_errors(*EXPECTED):
        desk = Desk(
            policy=policy,
            mailboxes=mailboxes,
            table=table,
            attributes=attributes,
            stack=stack,
            size=size,
            now=now,
            bounce_sender=bounce_sender,
            region=region,
        )
        explained = [desk.explain(mail, event) for mail in desk.read(event, mail_from, rcpt_to)]
        if as_json:
            reports = [each.as_json() for each in explained]
            print_json(reports[0] if len(reports) == 1 else reports)
        else:
            for each in explained:
                _print(each, verbose=verbose)
    if any(each.size_missed for each in explained):
        note("The size is not in an event: rules that ask for it did not match (see --size).")
    if desk.without_directory and not (event.parent / MAILBOXES_BESIDE).exists():
        note(
            "No mailboxes were named, so nothing is known of any domain, and nobody is unknown "
            "(see --mailboxes, --stack, --table)."
        )


def _print(explained: Explained, *, verbose: bool) -> None:
    plan = explained.plan
    proof = explained.proof
    say(f"mail       {plan.mail.message_id}", "bold")
    say(f"sender     {plan.mail.reverse_path or '<> (null sender)'}")
    if proof is not None:
        proven = "proven" if is_proven(proof) else "not proven"
        say(f"           {proven}: {SAYS[proof]} ({proof.value})")
    if not plan.mail.headers_whole:
        say("headers    cut: a condition on what is not seen does not hold", "yellow")
    for facts in explained.planned.facts:
        _print_recipient(explained, facts, verbose=verbose)
    if verbose:
        _print_guards(explained)
    print_table(
        "\ndecisions",
        ("recipient", "outcome", "reason", "BounceType", "status", ""),
        [
            (
                each.recipient,
                each.outcome,
                each.reason,
                each.bounce.bounce_type if each.bounce else None,
                each.bounce.status if each.bounce else None,
                "dry run" if each.dry_run else "the mail is kept" if each.keep else None,
            )
            for each in plan.decisions
        ],
    )
    if explained.one_answer:
        say("\none answer for all: the sender can't tell which rule refused whom")
    _print_untold(plan)
    if plan.to_send is not None:
        say("\nSendBounce", "bold")
        print_json(plan.to_send.request())
    elif plan.bounce is None:
        say("\nno bounce")
    say(f"\ndisposition {plan.disposition}", "bold")


def _print_untold(plan: Plan) -> None:
    for recipient, fault in plan.faults.items():
        say(f"\n{recipient} cannot be in a bounce: {fault}", "yellow")
    for recipient, reason in plan.withheld.items():
        say(f"\nthe sender is not told of {recipient}: {reason}", "yellow")
    if plan.suppressed:
        sources = {guard.name.value: guard.source for guard in GUARDS}
        source = sources.get(plan.suppressed)
        say(f"\nsuppressed by {plan.suppressed}{f' ({source})' if source else ''}", "yellow")


def _print_recipient(explained: Explained, facts: Facts, *, verbose: bool) -> None:
    """Which entry answered, and each rule with why it did not hold; else only the last."""
    say(f"\n{facts.recipient}: {_in_words(facts)}")
    if verbose:
        known = facts_shown(facts)
        verdicts = msgspec.structs.asdict(explained.plan.mail.verdicts)
        states = ", ".join(known.pop("states"))
        rows = [(name, value) for name, value in known.items() if value is not None]
        rows += [("states", states), ("size", explained.size)]
        rows += [(f"{name} verdict", value or "absent") for name, value in verdicts.items()]
        print_table("", ("fact", "value"), rows)
    tried = explained.trials(facts)
    print_table(
        "",
        ("rule", "result"),
        [(trial.rule, _result(trial)) for trial in (tried if verbose else tried[-1:])],
    )


def _result(trial: Trial) -> str:
    if trial.failed is None:
        return "decides"
    doubt = "unknown" if trial.unknown else "no"
    return f"{doubt}: {trial.failed}{f' ({trial.why})' if trial.why else ''}"


def _in_words(facts: Facts) -> str:
    if facts.mailbox is None:
        return (
            "the directory has no entry for it"
            if facts.domain_known
            else "the directory says nothing of its domain"
        )
    taken = facts.mailbox.address
    leads = f", whose mail {taken} takes" if taken != facts.entry else ""
    states = ", ".join(state for state in MailboxState if is_in(facts, state))
    return f"{facts.entry or taken} answers ({facts.way or 'address'}){leads}; it is {states}"


def _print_guards(explained: Explained) -> None:
    print_table(
        "\nguards",
        ("guard", "answer", "source"),
        [
            (each["guard"], f"{each['answer']}{' (off)' if each['off'] else ''}", each["source"])
            for each in explained.guards()
        ],
    )
