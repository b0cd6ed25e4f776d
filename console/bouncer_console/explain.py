"""`bouncer explain`, `preview` and `replay`: what would happen, without doing it.

They take the function's own way through bouncer.inbound.Planner; nothing is decided twice.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import SMTP
from email.utils import getaddresses
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from bouncer.address import domain_of
from bouncer.aws.directory import DynamoDirectory
from bouncer.delivery.bounce import BounceError
from bouncer.guards import GUARDS
from bouncer.headers import Header
from bouncer.inbound import Planned, Planner
from bouncer.mailboxes import Directory, StaticDirectory
from bouncer.message import InboundMessage, MalformedEventError, parse_event
from bouncer.plan import Disposition, Identity, Plan
from bouncer.policy.conditions import PolicyError
from bouncer.policy.decide import trials
from bouncer.policy.load import load_file
from bouncer_console.checkout import DEFAULT_POLICY
from bouncer_console.deployment import RegionOption, client
from bouncer_console.dsn import build_dsn
from bouncer_console.mail import lambda_event, receive
from bouncer_console.mailbox_files import MailboxFileError, read_mailboxes
from bouncer_console.output import (
    MOMENT,
    Json,
    fail,
    note,
    plain_errors,
    print_json,
    print_table,
    say,
)

MAILBOXES_BESIDE = "mailboxes.csv"
"""A file of this name in an event's folder is its directory, unless another one is named."""

PolicyOption = Annotated[Path, typer.Option("--policy", help="The policy.", show_default=True)]
MailboxesOption = Annotated[
    Path | None,
    typer.Option("--mailboxes", help="A file of mailboxes (docs/mailboxes.md), JSON or CSV."),
]
TableOption = Annotated[
    str | None, typer.Option("--table", help="A mailbox table to ask; the only AWS call there is.")
]
SizeOption = Annotated[
    int | None,
    typer.Option(
        "--size", help="The mail's size in bytes; else that of the .eml beside the event."
    ),
]
NowOption = Annotated[
    datetime | None,
    typer.Option("--now", help="Pretend it is then.", **MOMENT),
]
SenderOption = Annotated[
    str | None, typer.Option("--bounce-sender", help="The stack's BounceSender.")
]
MailFromOption = Annotated[
    str | None, typer.Option("--mail-from", help="For an .eml: its envelope sender, <> for none.")
]
RcptOption = Annotated[
    list[str] | None, typer.Option("--rcpt-to", help="For an .eml: an envelope recipient; repeat.")
]


_EXPECTED = (PolicyError, MalformedEventError, MailboxFileError, BounceError)


class _KnownSize:
    """A Store that knows the size from the command line and nothing else."""

    def __init__(self, size: int | None) -> None:
        self._size = size
        self.asked_in_vain = False

    def size(self, message_id: str) -> int | None:  # noqa: ARG002
        self.asked_in_vain = self._size is None
        return self._size

    def headers(self, message_id: str) -> tuple[Header, ...] | None:  # noqa: ARG002
        return None


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One mail's plan, and what it was made from."""

    planned: Planned
    size_missed: bool

    @property
    def plan(self) -> Plan:
        return self.planned.plan

    def as_json(self) -> dict[str, Any]:
        bounce = self.plan.to_send
        return {
            "message_id": self.plan.mail.message_id,
            "disposition": self.plan.disposition,
            "suppressed": self.plan.suppressed,
            "recipients": [
                {
                    "recipient": each.recipient,
                    "outcome": each.outcome,
                    "reason": each.reason,
                    "bounce_type": each.bounce.bounce_type if each.bounce else None,
                    "status": each.bounce.status if each.bounce else None,
                    "dry_run": each.dry_run,
                }
                for each in self.plan.decisions
            ],
            "send_bounce": bounce.request() if bounce else None,
        }


class Desk:
    """Everything that explaining needs, from the command line's options."""

    def __init__(
        self,
        *,
        policy: Path,
        mailboxes: Path | None = None,
        table: str | None = None,
        size: int | None = None,
        now: datetime | None = None,
        bounce_sender: str | None = None,
        region: str | None = None,
    ) -> None:
        self._policy = load_file(policy)
        self._mailboxes = mailboxes
        self._table = table
        self._size = size
        self._now = now or datetime.now(UTC)
        self._bounce_sender = bounce_sender or os.environ.get("BOUNCE_SENDER")
        self._region = region

    def explain(self, mail: InboundMessage, path: Path) -> Explained:
        store = _KnownSize(self._size_of(path))
        first = mail.recipients[0] if mail.recipients else "example.com"
        planner = Planner(
            policy=lambda: self._policy,
            directory=self._directory(path),
            store=store,
            identity=Identity(
                bounce_sender=self._bounce_sender or f"mailer-daemon@{domain_of(first)}",
                region=self._region or os.environ.get("AWS_REGION", "us-east-1"),
                stop=Disposition.STOP_RULE_SET,  # as a stack whose rule is for everyone has it
            ),
            clock=lambda: self._now,
        )
        return Explained(planned=planner.plan(mail), size_missed=store.asked_in_vain)

    def _size_of(self, path: Path) -> int | None:
        if self._size is not None:
            return self._size
        eml = path if _is_mail(path) else path.with_suffix(".eml")
        return eml.stat().st_size if eml.exists() else None

    def _directory(self, path: Path) -> Directory:
        if self._table:
            return DynamoDirectory(client("dynamodb", self._region), self._table, names={})
        beside = path.parent / MAILBOXES_BESIDE
        file = self._mailboxes or (beside if beside.exists() else None)
        return StaticDirectory(read_mailboxes(file) if file else [])

    @property
    def without_directory(self) -> bool:
        return self._policy.mailboxes is None and not (self._mailboxes or self._table)


def _is_mail(path: Path) -> bool:
    return path.suffix.lower() == ".eml"


def read_mails(
    path: Path, mail_from: str | None = None, rcpt_to: list[str] | None = None
) -> list[InboundMessage]:
    """The mails of an event file, or the one of an .eml.

    Raises:
        MalformedEventError: not an SES event; the text names the place.
        OSError: it cannot be read.
    """
    if _is_mail(path):
        return parse_event(_event_of(path, mail_from, rcpt_to))
    try:
        event = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MalformedEventError(f"{path} is not JSON: {error}") from error
    try:
        return parse_event(event)
    except MalformedEventError as error:
        raise MalformedEventError(f"{path}: {error}") from error


def _event_of(path: Path, mail_from: str | None, rcpt_to: list[str] | None) -> dict[str, Any]:
    data = path.read_bytes()
    parsed = BytesParser(policy=SMTP).parsebytes(data, headersonly=True)

    def addresses(*names: str) -> list[str]:
        values = [str(value) for name in names for value in parsed.get_all(name, [])]
        return [address for _, address in getaddresses(values) if address]

    recipients = tuple(rcpt_to or addresses("To", "Cc"))
    if not recipients:
        raise MalformedEventError(f"{path} names nobody in To or Cc: say who with --rcpt-to")
    null = str(parsed.get("Return-Path", "")).strip() == "<>"
    sender = "" if null else next(iter(addresses("Return-Path", "From")), "")
    mail = receive(
        data,
        mail_from=sender if mail_from is None else mail_from.strip("<>"),
        recipients=recipients,
    )
    return lambda_event(mail, recipients=mail.recipients, function_arn="")


def explain(
    event: Annotated[Path, typer.Argument(help="An SES event (.json) or a mail (.eml).")],
    policy: PolicyOption = DEFAULT_POLICY,
    mailboxes: MailboxesOption = None,
    table: TableOption = None,
    size: SizeOption = None,
    now: NowOption = None,
    bounce_sender: SenderOption = None,
    mail_from: MailFromOption = None,
    rcpt_to: RcptOption = None,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Say what would happen to a mail, and why. Nothing is sent or stored."""
    with plain_errors(*_EXPECTED):
        desk = Desk(
            policy=policy,
            mailboxes=mailboxes,
            table=table,
            size=size,
            now=now,
            bounce_sender=bounce_sender,
            region=region,
        )
        explained = [desk.explain(mail, event) for mail in read_mails(event, mail_from, rcpt_to)]
        if as_json:
            reports = [each.as_json() for each in explained]
            print_json(reports[0] if len(reports) == 1 else reports)
        else:
            for each in explained:
                _print(each)
    if any(each.size_missed for each in explained):
        note("The size is not in an event: rules that ask for it did not match (see --size).")
    if desk.without_directory and not (event.parent / MAILBOXES_BESIDE).exists():
        note("No mailboxes were named, so every recipient is unknown (see --mailboxes, --table).")


def _print(explained: Explained) -> None:
    plan = explained.plan
    say(f"mail       {plan.mail.message_id}", "bold")
    say(f"sender     {plan.mail.reverse_path or '<> (null sender)'}")
    for facts in explained.planned.facts:
        print_table(
            f"\n{facts.recipient}",
            ("rule", "result"),
            [
                (trial.rule, "decides" if trial.failed is None else f"no: {trial.failed}")
                for trial in trials(explained.planned.policy, plan.mail, facts)
            ],
        )
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
    for recipient, fault in plan.faults.items():
        say(f"\n{recipient} cannot be in a bounce: {fault}", "yellow")
    if plan.suppressed:
        sources = {guard.name.value: guard.source for guard in GUARDS}
        source = sources.get(plan.suppressed)
        say(f"\nsuppressed by {plan.suppressed}{f' ({source})' if source else ''}", "yellow")
    if plan.to_send is not None:
        say("\nSendBounce", "bold")
        print_json(plan.to_send.request())
    elif plan.bounce is None:
        say("\nno bounce")
    say(f"\ndisposition {plan.disposition}", "bold")


def preview(
    event: Annotated[Path, typer.Argument(help="An SES event (.json) or a mail (.eml).")],
    policy: PolicyOption = DEFAULT_POLICY,
    mailboxes: MailboxesOption = None,
    table: TableOption = None,
    size: SizeOption = None,
    now: NowOption = None,
    bounce_sender: SenderOption = None,
    mail_from: MailFromOption = None,
    rcpt_to: RcptOption = None,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Print the DSN as the sender would get it."""
    with plain_errors(*_EXPECTED):
        desk = Desk(
            policy=policy,
            mailboxes=mailboxes,
            table=table,
            size=size,
            now=now,
            bounce_sender=bounce_sender,
            region=region,
        )
        for mail in read_mails(event, mail_from, rcpt_to):
            plan = desk.explain(mail, event).plan
            if plan.to_send is None or mail.reverse_path is None:
                fail(f"{mail.message_id}: no bounce is sent ({plan.suppressed or 'none decided'})")
            dsn = _dsn(plan, mail.reverse_path).decode("ascii", "replace")
            if as_json:
                print_json({"message_id": mail.message_id, "to": mail.reverse_path, "dsn": dsn})
            else:
                typer.echo(dsn)


def _dsn(plan: Plan, reverse_path: str) -> bytes:
    headers = "".join(f"{each.name}: {each.value}\r\n" for each in plan.mail.headers)
    original = BytesParser().parsebytes(headers.encode("utf-8", "replace"), headersonly=True)
    request: Any = plan.to_send.request() if plan.to_send else {}
    return build_dsn(
        request,
        reverse_path=reverse_path,
        original=original,
        bounce_id="preview",
        now=datetime.now(UTC),
    )


def replay(
    files: Annotated[list[Path], typer.Argument(help="Event files, mails, or folders of them.")],
    policy: PolicyOption = DEFAULT_POLICY,
    against: Annotated[
        Path | None, typer.Option("--against", help="Another policy: show whose outcome changes.")
    ] = None,
    mailboxes: MailboxesOption = None,
    table: TableOption = None,
    now: NowOption = None,
    bounce_sender: SenderOption = None,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Explain many mails, and sum up by reason."""
    with plain_errors(*_EXPECTED):
        desks = [
            Desk(
                policy=each,
                mailboxes=mailboxes,
                table=table,
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
        changes += _changes(path, plans)
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
        raise typer.Exit(1)


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
            mails = read_mails(path)
        except MalformedEventError as error:
            yield path, str(error)
            continue
        for mail in mails:
            yield path, [desk.explain(mail, path).plan for desk in desks]


def _event_files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for file in sorted(path.iterdir()):
            twin = _is_mail(file) and file.with_suffix(".json").exists()
            if (_is_mail(file) or file.suffix.lower() == ".json") and not twin:
                yield file


def _changes(path: Path, plans: list[Plan]) -> Iterator[dict[str, str]]:
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
            yield {"file": str(path), "recipient": old.recipient, "was": was, "becomes": becomes}
