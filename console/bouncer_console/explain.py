"""`bouncer explain`, `preview` and `replay`: what would happen, without doing it.

They take the function's own way through bouncer.inbound.Planner; nothing is decided twice.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from bouncer.address import domain_of
from bouncer.aws.directory import DynamoDirectory
from bouncer.delivery.bounce import BounceError
from bouncer.guards import GUARDS, answer_of
from bouncer.headers import Header, read_block
from bouncer.inbound import Planned, Planner
from bouncer.mailboxes import Directory, MailboxState, StaticDirectory
from bouncer.message import InboundMessage, MalformedEventError, parse_event
from bouncer.plan import Disposition, Identity, Plan, circumstances
from bouncer.policy.conditions import Facts, PolicyError, parse_size
from bouncer.policy.decide import Policy, Trial, trials
from bouncer.policy.load import load_file
from bouncer.proof import SAYS, Doubt, Proof, is_proven, prove
from bouncer.settings import attribute_names
from bouncer_console.checkout import DEFAULT_POLICY
from bouncer_console.deployment import (
    Deployment,
    DeploymentError,
    RegionOption,
    client,
    say_bad_item,
)
from bouncer_console.dsn import build_dsn
from bouncer_console.mail import addresses_of, lambda_event, receive
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
    say_mail,
)

MAILBOXES_BESIDE = "mailboxes.csv"
"""A file of this name in an event's folder is its directory, unless another one is named."""


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except PolicyError as error:
        raise typer.BadParameter(str(error)) from error


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
        "--size",
        parser=_size,
        metavar="SIZE",
        help="The mail's size, as 25 MB or in bytes; else that of the .eml beside the event.",
    ),
]
StackOption = Annotated[
    str | None,
    typer.Option("--stack", help="A deployed stack: its directory, bounce sender and Region."),
]
AttributesOption = Annotated[
    str | None,
    typer.Option(
        "--attributes", help="With --table: its attribute names, as the stack's MailboxAttributes."
    ),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Every fact, rule and guard, with its why.")
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


_EXPECTED = (PolicyError, MalformedEventError, MailboxFileError, BounceError, DeploymentError)


class _StoredBeside:
    """A StoredMail of what the command line and the .eml beside the event tell."""

    def __init__(self, size: int | None, eml: Path | None) -> None:
        self._eml = eml
        self.known_size = size if size is not None or eml is None else eml.stat().st_size
        self.asked_in_vain = False

    def size(self, message_id: str) -> int | None:  # noqa: ARG002
        self.asked_in_vain = self.known_size is None
        return self.known_size

    def headers(self, message_id: str) -> tuple[Header, ...] | None:  # noqa: ARG002
        return None if self._eml is None else read_block(self._eml.read_bytes()).headers


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One mail's plan, and what it was made from."""

    planned: Planned
    identity: Identity
    size: int | None
    """Bytes, where anybody knows, whether or not a rule asked."""
    size_missed: bool

    @property
    def plan(self) -> Plan:
        return self.planned.plan

    @property
    def proof(self) -> Proof | Doubt | None:
        return None if self.plan.mail.reverse_path is None else prove(self.plan.mail)

    def guards(self) -> list[dict[str, Any]]:
        """Each guard with its answer; where nothing is bounced, what it would say."""
        plan, policy = self.plan, self.planned.policy
        told_of = None
        if plan.bounce is not None:
            told_of = frozenset(e.recipient for e in plan.bounce.recipients) - {*plan.withheld}
        at = circumstances(policy, plan.mail, self.identity, plan.bounce, told_of)
        return [
            {
                "guard": guard.name,
                "answer": _OBJECTIONS.get(answer_of(guard, at), "failed"),
                "off": guard.name in policy.file.guards.off,
                "source": guard.source,
            }
            for guard in GUARDS
        ]

    def trials(self, facts: Facts) -> list[Trial]:
        return trials(self.planned.policy, self.plan.mail, facts)

    @property
    def one_answer(self) -> bool:
        """Whether every rule's bounce was made the same."""
        return self.planned.policy.file.one_answer is not None

    def as_json(self) -> dict[str, Any]:
        plan, bounce = self.plan, self.plan.to_send
        facts = {each.recipient: each for each in self.planned.facts}
        return {
            "message_id": plan.mail.message_id,
            "sender": plan.mail.reverse_path,
            "proof": self.proof,
            "verdicts": msgspec.structs.asdict(plan.mail.verdicts),
            "dmarc_policy": plan.mail.dmarc_policy or None,
            "headers_whole": plan.mail.headers_whole,
            "size": self.size,
            "disposition": plan.disposition,
            "suppressed": plan.suppressed,
            "recipients": [
                {
                    "recipient": each.recipient,
                    "outcome": each.outcome,
                    "reason": each.reason,
                    "bounce_type": each.bounce.bounce_type if each.bounce else None,
                    "status": each.bounce.status if each.bounce else None,
                    "dry_run": each.dry_run,
                    "not_told": plan.faults.get(each.recipient)
                    or plan.withheld.get(each.recipient),
                    "facts": _facts(facts[each.recipient]),
                    "rules": [
                        {
                            "rule": trial.rule,
                            "holds": trial.failed is None,
                            "failed": trial.failed,
                            "why": trial.why or None,
                            "unknown": trial.unknown,
                        }
                        for trial in self.trials(facts[each.recipient])
                    ],
                }
                for each in plan.decisions
            ],
            "one_answer": self.one_answer,
            "guards": self.guards(),
            "send_bounce": bounce.request() if bounce else None,
        }


_OBJECTIONS: dict[Any, str] = {True: "objects", False: "no objection", None: "unknown"}


def _facts(facts: Facts) -> dict[str, Any]:
    """What was known of a recipient."""
    box = facts.mailbox
    return {
        "domain_known": facts.domain_known,
        "entry": facts.entry or None,
        "way": facts.way,
        "mailbox": box.address if box else None,
        "states": [state for state in MailboxState if _is_in(facts, state)],
        "used_bytes": box.used_bytes if box else None,
        "quota_bytes": box.quota_bytes if box else None,
        "size_limit_bytes": box.size_limit_bytes if box else None,
    }


def _is_in(facts: Facts, state: MailboxState) -> bool:
    return bool(msgspec.structs.replace(facts, size_asked=True).has_state(state))


class Desk:
    """Everything that explaining needs, from the command line's options."""

    def __init__(
        self,
        *,
        policy: Path | Policy,
        mailboxes: Path | None = None,
        table: str | None = None,
        attributes: str | None = None,
        stack: str | None = None,
        deployment: Deployment | None = None,
        size: int | None = None,
        now: datetime | None = None,
        bounce_sender: str | None = None,
        region: str | None = None,
    ) -> None:
        """
        Args:
            deployment: the stack, where it is found already.

        Raises:
            PolicyError, MailboxFileError, DeploymentError, OSError
        """
        self._policy = policy if isinstance(policy, Policy) else load_file(policy)
        self._size = size
        self._now = now
        self._region = region
        self._names = attribute_names(attributes or "")
        self._domains: frozenset[str] = frozenset()
        self._table = table
        self._mailboxes = None if mailboxes is None else StaticDirectory(read_mailboxes(mailboxes))
        sender = bounce_sender or os.environ.get("BOUNCE_SENDER")
        if stack is not None:
            deployment = Deployment.find(stack, region)
        self._client: Callable[[str], Any] = partial(client, region=region)
        if deployment is not None:
            self._client = deployment.client
            self._region = self._region or deployment.region
            self._table = table or deployment.output("MailboxTable")
            self._names = attribute_names(deployment.parameters.get("MailboxAttributes", ""))
            self._domains = deployment.mailbox_domains
            sender = sender or deployment.parameters.get("BounceSender")
        self._bounce_sender = sender

    @property
    def now(self) -> datetime:
        return self._now or datetime.now(UTC)

    def read(
        self, path: Path, mail_from: str | None = None, rcpt_to: list[str] | None = None
    ) -> list[InboundMessage]:
        """The mails of a file; an .eml arrives at the time that is pretended."""
        return read_mails(path, mail_from, rcpt_to, received_at=self._now)

    def explain(self, mail: InboundMessage, path: Path) -> Explained:
        eml = path if _is_mail(path) else path.with_suffix(".eml")
        store = _StoredBeside(self._size, eml if eml.exists() else None)
        first = mail.recipients[0] if mail.recipients else "example.com"
        identity = Identity(
            bounce_sender=self._bounce_sender or f"mailer-daemon@{domain_of(first)}",
            region=self._region or os.environ.get("AWS_REGION", "us-east-1"),
            stop=Disposition.STOP_RULE_SET,  # as a stack whose rule is for everyone has it
        )
        planner = Planner(
            policy=lambda: self._policy,
            directory=self._directory(path),
            store=store,
            identity=identity,
            clock=lambda: self.now,
        )
        planned = planner.plan(mail)
        return Explained(
            planned=planned,
            identity=identity,
            size=store.known_size,
            size_missed=store.asked_in_vain,
        )

    def _directory(self, path: Path) -> Directory:
        if self._table:
            dynamodb = self._client("dynamodb")
            return DynamoDirectory(
                dynamodb, self._table, self._names, on_bad_item=say_bad_item, domains=self._domains
            )
        beside = path.parent / MAILBOXES_BESIDE
        if self._mailboxes is None and beside.exists():
            return StaticDirectory(read_mailboxes(beside))
        return self._mailboxes or StaticDirectory([])

    @property
    def without_directory(self) -> bool:
        return self._policy.mailboxes is None and not (self._mailboxes or self._table)


def _is_mail(path: Path) -> bool:
    return path.suffix.lower() == ".eml"


def read_mails(
    path: Path,
    mail_from: str | None = None,
    rcpt_to: list[str] | None = None,
    received_at: datetime | None = None,
) -> list[InboundMessage]:
    """The mails of an event file, or the one of an .eml.

    Args:
        mail_from, rcpt_to: an .eml's envelope; else its headers have to tell.
        received_at: when an .eml arrives; now, if absent.

    Raises:
        MalformedEventError: not an SES event; the text names the place.
        OSError: it cannot be read.
    """
    if _is_mail(path):
        return parse_event(_event_of(path, mail_from, rcpt_to, received_at))
    try:
        event = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise MalformedEventError(f"{path} is not JSON: {error}") from error
    try:
        return parse_event(event)
    except MalformedEventError as error:
        raise MalformedEventError(f"{path}: {error}") from error


def _event_of(
    path: Path, mail_from: str | None, rcpt_to: list[str] | None, received_at: datetime | None
) -> dict[str, Any]:
    data = path.read_bytes()
    fields = [(each.name, each.value) for each in read_block(data).headers]
    recipients = tuple(rcpt_to or addresses_of(fields, "To", "Cc"))
    if not recipients:
        raise MalformedEventError(f"{path} names nobody in To or Cc: say who with --rcpt-to")
    if mail_from is None:
        mail_from = sender_of(path, fields)
    mail = receive(
        data, mail_from=mail_from.strip("<> "), recipients=recipients, received_at=received_at
    )
    return lambda_event(mail, recipients=mail.recipients, function_arn="")


def sender_of(path: Path, fields: list[tuple[str, str]]) -> str:
    """The envelope sender as the headers have it; said where it is only a guess."""
    paths = [value.strip() for name, value in fields if name.lower() == "return-path"]
    if "<>" in paths:
        return ""
    told = addresses_of(fields, "Return-Path")
    if told:
        return told[0]
    guessed = next(iter(addresses_of(fields, "From", "Sender")), "")
    note(
        f"{path} has no Return-Path, so its sender is taken to be "
        f"{guessed or 'the null sender'}: see --mail-from"
    )
    return guessed


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
    with plain_errors(*_EXPECTED):
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
        known = _facts(facts)
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
    states = ", ".join(state for state in MailboxState if _is_in(facts, state))
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


def preview(
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
    as_json: Json = False,
) -> None:
    """Print the DSN as the sender would get it."""
    with plain_errors(*_EXPECTED):
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
        for mail in desk.read(event, mail_from, rcpt_to):
            plan = desk.explain(mail, event).plan
            if plan.to_send is None or mail.reverse_path is None:
                fail(f"{mail.message_id}: no bounce is sent ({plan.suppressed or 'none decided'})")
            dsn = dsn_of(plan, mail.reverse_path).decode("ascii", "replace")
            if as_json:
                print_json({"message_id": mail.message_id, "to": mail.reverse_path, "dsn": dsn})
            else:
                say_mail(dsn)


def dsn_of(plan: Plan, reverse_path: str) -> bytes:
    request: Any = plan.to_send.request() if plan.to_send else {}
    return build_dsn(
        request,
        reverse_path=reverse_path,
        original=[(each.name, each.value) for each in plan.mail.headers],
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
    attributes: AttributesOption = None,
    stack: StackOption = None,
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
            twin = _is_mail(file) and file.with_suffix(".json").exists()
            if (_is_mail(file) or file.suffix.lower() == ".json") and not twin:
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
