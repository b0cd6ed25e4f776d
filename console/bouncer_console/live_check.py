"""`bouncer try`: one real mail to a made-up address, followed to its bounce.

It answers on the user's own account what AWS does not document. Mail that SES sends has an
envelope sender of SES's own, and SES forwards what comes back to it to the mail's From; so the
DSN can be read where that address receives in the same bucket.
"""

import json
import secrets
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from email.message import EmailMessage, Message
from email.parser import BytesParser
from email.policy import SMTP, compat32
from typing import Annotated, Any

import msgspec
import typer
from botocore.exceptions import BotoCoreError, ClientError

from bouncer.address import domain_of
from bouncer.aws.ledger import DynamoLedger
from bouncer.aws.telemetry import TRY_HEADER
from bouncer.deadline import utc_now
from bouncer.delivery.ledger import BounceState, LedgerEntry, LedgerUnavailableError
from bouncer.settings import stored_prefix
from bouncer_console.deployment import (
    DEFAULT_STACK,
    SOMEBODY_WAITS,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
)
from bouncer_console.output import Json, fail, note, plain_errors, print_json, print_table, say

_POLL_SECONDS = 2.0
_CLOCKS = timedelta(seconds=5)
"""How far the log's clock may be behind this machine's."""
_ENDS = frozenset(
    {BounceState.SENT, BounceState.SUPPRESSED, BounceState.EXPIRED, BounceState.REJECTED}
)
_DSN_CANDIDATES = 50


class TryError(Exception):
    """The live check cannot be made; the text says why and what to do."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened, and when."""

    step: str
    seconds: float
    """Since the mail was sent."""
    found: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What this account does where AWS's documentation is silent."""

    question: str
    answer: str


class Report(msgspec.Struct, kw_only=True):
    """All that the live check saw."""

    region: str
    stack: str
    ok: bool = False
    message_id: str = ""
    steps: list[Step] = msgspec.field(default_factory=list)
    answers: list[Answer] = msgspec.field(default_factory=list)
    dsn: str | None = None


def live_check(
    sender: Annotated[
        str | None,
        typer.Option("--from", help="A verified address to send from; else the BounceSender's."),
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="The domain to invent an address in; else the sender's.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Print the DSN that came back, when it can be read.")
    ] = False,
    wait: Annotated[
        int, typer.Option(min=5, metavar="SECONDS", help="How long to wait for each step.")
    ] = 180,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Mail an address that does not exist, and follow its bounce.

    It says what SES did where AWS's documentation is silent. Costs one mail and one bounce. What it
    stored is deleted again; ledger and log remember it.
    """
    expected = (DeploymentError, LedgerUnavailableError, TryError)
    with plain_errors(*expected):
        check = LiveCheck(Deployment.find(stack, region), wait=timedelta(seconds=wait))
        report = check.run(sender, domain)
    if as_json:
        print_json(report)
    else:
        _show(report, keep=keep)
    if not report.ok:
        fail("The mail was not bounced: the steps say how far it came.")


class LiveCheck:
    """One mail, followed."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        wait: timedelta,
        clock: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._deployment = deployment
        self._wait = wait
        self._clock = clock
        self._sleep = sleep
        self._mark = secrets.token_hex(8)
        self._began = clock()
        self._ses = deployment.paced_ses(max_wait=SOMEBODY_WAITS)
        self._region = self._ses.meta.region_name
        self._stored: set[str] = set()
        """Ids of what was stored because of this."""
        self._report = Report(region=self._region, stack=deployment.stack)

    def run(self, sender: str | None, domain: str | None) -> Report:
        """
        Raises:
            TryError: nothing was sent.
            LedgerUnavailableError: the ledger did not answer.
        """
        source = sender or f"bouncer-try@{domain_of(self._deployment.parameters['BounceSender'])}"
        recipient = f"no-such-mailbox-{self._mark}@{domain or domain_of(source)}"
        before = self._sent_today()
        self._send(source, recipient)
        line = self._decided()
        if line is not None:
            self._follow(line)
        self._ask_about(source, before)
        self._clean_up()
        return self._report

    # --- the steps ---------------------------------------------------------------------------

    def _send(self, source: str, recipient: str) -> None:
        mail = EmailMessage(policy=SMTP)
        mail["From"], mail["To"] = source, recipient
        mail["Subject"] = f"ses-bouncer live check {self._mark}"
        mail[TRY_HEADER] = self._mark
        mail.set_content("A live check of ses-bouncer: this address does not exist.\n")
        self._began = self._clock()
        try:
            self._ses.send_raw_email(
                Source=source, Destinations=[recipient], RawMessage={"Data": mail.as_bytes()}
            )
        except ClientError as error:
            raise TryError(
                f"SES did not send from {source}: {error}; name a verified address with --from"
            ) from error
        self._step("sent", f"from {source} to {recipient}")

    def _decided(self) -> dict[str, Any] | None:
        line = self._until(lambda: self._log_line(self._mark))
        if line is None:
            self._step(
                "decided",
                "no log line tells of the mail: `bouncer doctor` checks rule and permissions",
            )
            return None
        self._report.message_id = line["ses_message_id"]
        (recipient, *_) = line["recipients"]
        observed = ", observed only (bouncer mode enforce goes live)"
        self._step(
            "decided",
            f"{recipient['outcome']}, {recipient['reason']}"
            + (observed if recipient.get("dry_run") else "")
            + (f", not told: {line['suppressed']}" if line.get("suppressed") else ""),
        )
        return line

    def _follow(self, line: dict[str, Any]) -> None:
        (recipient, *_) = line["recipients"]
        if recipient["outcome"] != "bounce":
            return
        entry = self._until(self._ended)
        if entry is None:
            self._step("ended", "the ledger has no end of it yet: bouncer status tells later")
            return
        self._report.ok = entry.state is BounceState.SENT
        self._step("ended", f"{entry.state}: {entry.bounce_id or entry.detail or entry.reason}")

    def _ended(self) -> LedgerEntry | None:
        table = self._deployment.output("BounceTable")
        ledger = DynamoLedger(self._deployment.client("dynamodb"), table, retention=timedelta(0))
        history = ledger.history(self._report.message_id)
        return next((each for each in history if each.state in _ENDS), None)

    # --- what AWS does not document ------------------------------------------------------------

    def _ask_about(self, source: str, before: float | None) -> None:
        if not self._report.ok:
            return
        identity = domain_of(self._deployment.parameters["BounceSender"])
        self._answer("does IAM accept ses:SendBounce on an identity?", f"yes, on {identity}'s")
        dsn = self._until(self._dsn)
        if dsn is None:
            self._answer(
                "which address does the DSN come from?",
                f"not seen: {source} does not receive in this stack's bucket",
            )
        else:
            self._report.dsn = dsn.as_string()
            self._step("returned", f"Subject: {dsn.get('Subject', '')}")
            signers = [_tag(each, "d") for each in dsn.get_all("DKIM-Signature", [])]
            for question, answer in (
                ("which address does the DSN come from?", str(dsn.get("From", ""))),
                ("who signs it (DKIM d=)?", ", ".join(signers) or "nobody"),
                ("is it marked Auto-Submitted?", str(dsn.get("Auto-Submitted", "no"))),
                ("does it carry our extension field?", _carries_marker(dsn)),
            ):
                self._answer(question, answer)
        after = self._sent_today()
        if before is not None and after is not None:
            counted = int(after - before)
            self._answer(
                "does a bounce count against the sending quota?",
                f"sent mails went up by {counted}: "
                + ("yes" if counted > 1 else "not within this time"),
            )

    def _dsn(self) -> Message | None:
        """The stored mail that returns ours, among those that came in since."""
        bucket = self._deployment.outputs.get("MailBucket")
        if not bucket:
            return None
        s3 = self._deployment.client("s3")
        for line in self._log_lines('"mail handled"')[-_DSN_CANDIDATES:]:
            message_id = line.get("ses_message_id", "")
            if message_id in ("", self._report.message_id):
                continue
            try:
                stored = s3.get_object(Bucket=bucket, Key=self._key(message_id))["Body"].read()
            except ClientError:
                continue
            if self._mark.encode() in stored:
                self._stored.add(message_id)
                return BytesParser(policy=compat32).parsebytes(stored)
        return None

    def _sent_today(self) -> float | None:
        try:
            quota = self._ses.get_send_quota()
        except (ClientError, BotoCoreError):
            return None
        return float(quota["SentLast24Hours"])

    # --- shared --------------------------------------------------------------------------------

    def _clean_up(self) -> None:
        bucket = self._deployment.outputs.get("MailBucket")
        if not bucket:
            return
        for message_id in {*self._stored, self._report.message_id} - {""}:
            self._deployment.client("s3").delete_object(Bucket=bucket, Key=self._key(message_id))
        self._step("cleaned up", "the stored mails are deleted")

    def _key(self, message_id: str) -> str:
        return stored_prefix(self._deployment.outputs.get("MailPrefix", "")) + message_id

    def _log_line(self, mark: str) -> dict[str, Any] | None:
        return next((each for each in self._log_lines(f'"{mark}"') if each.get("try")), None)

    def _log_lines(self, pattern: str) -> list[dict[str, Any]]:
        pages = (
            self._deployment.client("logs")
            .get_paginator("filter_log_events")
            .paginate(
                logGroupName=self._deployment.output("InboundLogGroup"),
                startTime=int((self._began - _CLOCKS).timestamp() * 1000),
                filterPattern=pattern,
            )
        )
        lines = []
        for page in pages:
            for event in page["events"]:
                try:
                    line = json.loads(event["message"])
                except ValueError:
                    continue
                if isinstance(line, dict) and line.get("message") == "mail handled":
                    lines.append(line)
        return lines

    def _until[Found](self, look: Callable[[], Found | None]) -> Found | None:
        end = self._clock() + self._wait
        while (found := look()) is None and self._clock() < end:
            self._sleep(_POLL_SECONDS)
        return found

    def _step(self, step: str, found: str) -> None:
        seconds = (self._clock() - self._began).total_seconds()
        self._report.steps.append(Step(step=step, seconds=round(seconds, 1), found=found))
        note(f"{seconds:5.1f} s  {step}: {found}")

    def _answer(self, question: str, answer: str) -> None:
        self._report.answers.append(Answer(question=question, answer=answer))


def _tag(signature: str, tag: str) -> str:
    pairs = (each.partition("=") for each in str(signature).split(";"))
    return next((value.strip() for name, _, value in pairs if name.strip() == tag), "?")


def _carries_marker(dsn: Message) -> str:
    return "yes" if "x-ses-bouncer:" in dsn.as_string().lower() else "no"


def _show(report: Report, *, keep: bool) -> None:
    rows = [(f"{each.seconds:.1f}", each.step, each.found) for each in report.steps]
    print_table("", ("seconds", "step", "found"), rows)
    if report.answers:
        answers = [(each.question, each.answer) for each in report.answers]
        print_table("", ("not documented", "here"), answers)
    if keep:
        say(report.dsn or "The DSN could not be read.")
