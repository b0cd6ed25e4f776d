"""`bouncer replay`: many mails explained, and what another policy would change."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from bouncer.delivery.bounce import BounceError
from bouncer.message import MalformedEventError
from bouncer.plan import Plan
from bouncer_console.checkout import DEFAULT_POLICY
from bouncer_console.deployment import RegionOption
from bouncer_console.explain.desk import Desk
from bouncer_console.explain.mails import is_mail
from bouncer_console.explain.options import (
    EXPECTED,
    AttributesOption,
    MailboxesOption,
    NowOption,
    PolicyOption,
    SenderOption,
    StackOption,
    TableOption,
)
from bouncer_console.output import Json, fail, plain_errors, print_json, print_table, say


def replay(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES...", help="Event files, mails, or folders of them."),
    ],
    policy: PolicyOption = DEFAULT_POLICY,
    against: Annotated[
        Path | None, typer.Option("--against", help="Another policy: show whose outcome changes.")
    ] = None,
    mailboxes: MailboxesOption = None,
    table: TableOption = None,
    attributes: AttributesOption = None,
    stack: StackOption = None,
    now: NowOption = None,
    bounce_sender: SenderOption = None,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Explain many mails, and sum up by reason."""
    with plain_errors(*EXPECTED):
        desks = [
            Desk(
                policy=each,
                mailboxes=mailboxes,
                table=table,
                attributes=attributes,
                stack=stack,
                now=now,
                bounce_sender=bounce_sender,
                region=region,
            )
            for each in (policy, against)
            if each is not None
        ]
        results = list(_replayed(files, desks))
    counts: Counter[tuple[str, str, str]] = Counter()
    changes: list[dict[str, str]] = []
    unreadable = []
    for path, plans in results:
        if isinstance(plans, str):
            unreadable.append({"file": str(path), "error": plans})
            continue
        counts.update(
            (each.outcome, each.reason, plans[0].suppressed or "") for each in plans[0].decisions
        )
        changes += differences(str(path), plans)
    mails = len(results) - len(unreadable)
    report: dict[str, Any] = {
        "mails": mails,
        "unreadable": unreadable,
        "recipients": [
            {"outcome": o, "reason": r, "suppressed": s or None, "count": n}
            for (o, r, s), n in sorted(counts.items())
        ],
        "changes": changes if against else None,
    }
    if as_json:
        print_json(report)
    else:
        _print_replay(report, policy, against)
    if unreadable and not mails:
        fail(f"nothing could be read: {unreadable[0]['error']}")


def _print_replay(report: dict[str, Any], policy: Path, against: Path | None) -> None:
    columns = ("outcome", "reason", "suppressed", "recipients")
    rows = [tuple(each.values()) for each in report["recipients"]]
    print_table(f"{report['mails']} mails", columns, rows)
    for each in report["unreadable"]:
        say(f"unreadable: {each['error']}", "yellow")
    if against:
        changes = [tuple(each.values()) for each in report["changes"]]
        title = f"\n{len(changes)} recipients' outcome would change"
        print_table(title, ("file", "recipient", str(policy), str(against)), changes)


def _replayed(files: list[Path], desks: list[Desk]) -> Iterator[tuple[Path, list[Plan] | str]]:
    for path in _event_files(files):
        try:
            mails = desks[0].read(path)
            plans = [[desk.explain(mail, path).plan for desk in desks] for mail in mails]
        except (MalformedEventError, BounceError, OSError) as error:
            yield path, f"{error}"
            continue
        for each in plans:
            yield path, each


def _event_files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for file in sorted(path.iterdir()):
            twin = is_mail(file) and file.with_suffix(".json").exists()
            if (is_mail(file) or file.suffix.lower() == ".json") and not twin:
                yield file


def differences(of: str, plans: list[Plan]) -> Iterator[dict[str, str]]:
    if len(plans) < 2:
        return
    for old, new in zip(*(plan.decisions for plan in plans), strict=True):
        was, becomes = (
            f"{each.outcome} {each.reason}"
            + (f" ({plan.suppressed})" if plan.suppressed and each.bounce else "")
            + (" dry run" if each.dry_run else "")
            for each, plan in zip((old, new), plans, strict=True)
        )
        if was != becomes:
            yield {"file": of, "recipient": old.recipient, "was": was, "becomes": becomes}
