"""`make demo` and `make local`: the whole thing on this machine, from nothing.

`python -m local.demo` runs every story and ends; `python -m local.demo --stay` waits for your
mails until Ctrl-C.
"""

import json
import os
import smtplib
import time
from collections.abc import Callable, Iterator
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from bouncer_console.mail import REGION
from bouncer_console.mailbox.files import read_mailboxes
from bouncer_console.output import screen
from local import docker, stack, web
from local.deployment import deployed
from local.stack import MAILBOXES, Aws, StackError
from local.stories import MALFORMED, STORIES, Expected, Story


class Row(msgspec.Struct, kw_only=True):
    """One line of the table: a recipient of a story, and whether it came out as told."""

    mail: str
    recipient: str
    decision: str
    reason: str
    bounce_type: str
    dsn: str
    seconds: float
    problems: list[str]


def run_stories(aws: Aws, outputs: dict[str, str]) -> list[Row]:
    """Mail every story over SMTP, and compare what came of it with what is told."""
    rows: list[Row] = []
    for story in STORIES:
        with screen.status(f"mail: {story.name} …"):
            rows += mail_story(aws, outputs, story)
    with screen.status("event: malformed …"):
        rows.append(malformed_story(aws, outputs))
    return rows


def mail_story(aws: Aws, outputs: dict[str, str], story: Story) -> list[Row]:
    """Mail one story, and compare."""
    started = time.monotonic()
    before = len(aws.listing("bounces"))
    with smtplib.SMTP("127.0.0.1", aws.smtp_port, timeout=30) as client:
        client.ehlo("mx.sender.example")
        client.mail(story.mail_from)
        for recipient in story.recipients:
            client.rcpt(recipient)
        code, answer = client.data(story.mail)
    if code != 250:
        raise StackError(f"{story.name}: SMTP answered {code} {answer.decode()}")
    message_id = answer.decode().split()[-1]
    trace = until(lambda: trace_of(aws, message_id), f"{story.name}: the receipt rule did not end")
    decided = until(
        lambda: log_line(aws, outputs, message_id), f"{story.name}: no decision in the log"
    )
    seconds = time.monotonic() - started
    calls = [each for each in aws.listing("bounces")[before:] if each["dsn"]]
    dsn = calls[0]["dsn"] if calls else ""
    by_recipient = {each["recipient"]: each for each in decided["recipients"]}
    rows = [
        _row(story, each, by_recipient.get(each.recipient, {}), dsn, seconds)
        for each in story.expected
    ]
    rows[0].problems += _mail_problems(story, decided, trace, calls)
    return rows


def _row(
    story: Story, expected: Expected, decided: dict[str, Any], dsn: str, seconds: float
) -> Row:
    problems = [
        f"{name} is {decided.get(name)}, not {getattr(expected, name)}"
        for name in ("outcome", "reason")
        if decided.get(name) != getattr(expected, name)
    ]
    bounced = expected in story.bounced
    if bounced:
        problems += _dsn_problems(Path(dsn), story, expected) if dsn else ["no DSN"]
    state = decided.get("state", "")
    decision = f"{expected.outcome}, {state}" if state else expected.outcome
    return Row(
        mail=story.name,
        recipient=expected.recipient,
        decision=decision,
        reason=story.suppressed or expected.reason,
        bounce_type=(expected.bounce_type or expected.status or "") if bounced else "",
        dsn=Path(dsn).name if bounced and dsn else "",
        seconds=seconds,
        problems=problems,
    )


def _mail_problems(
    story: Story, decided: dict[str, Any], trace: dict[str, Any], calls: list[dict[str, Any]]
) -> list[str]:
    problems = []
    if len(calls) != bool(story.bounced):
        problems.append(f"{len(calls)} bounces instead of {int(bool(story.bounced))}")
    if decided.get("suppressed") != story.suppressed:
        problems.append(f"suppressed is {decided.get('suppressed')}, not {story.suppressed}")
    if trace["steps"][-1]["result"] != story.disposition:
        problems.append(f"disposition {trace['steps'][-1]['result']}, not {story.disposition}")
    return problems


def _dsn_problems(path: Path, story: Story, expected: Expected) -> list[str]:
    """Whether a mail client would find the recipient's block, with its status, in the DSN."""
    report = BytesParser().parsebytes(path.read_bytes())
    blocks = delivery_status(report)
    found = {str(block["Final-Recipient"]).partition(";")[2].strip(): block for block in blocks}
    if found.keys() != {each.recipient for each in story.bounced}:
        return [f"the DSN is about {', '.join(found)}"]
    if found[expected.recipient]["Status"] != expected.status:
        return [f"the DSN says {found[expected.recipient]['Status']}, not {expected.status}"]
    if report["To"] != story.mail_from:
        return [f"the DSN goes to {report['To']}"]
    return []


def delivery_status(report: Message) -> list[Message]:
    """The per-recipient blocks of a DSN (RFC 3464 §2.3)."""
    return [
        block
        for part in report.walk()
        if part.get_content_type() == "message/delivery-status"
        for block in part.walk()
        if block["Final-Recipient"]
    ]


def malformed_story(aws: Aws, outputs: dict[str, str]) -> Row:
    """An event that is no SES event: the mail goes on, and the event is kept."""
    started = time.monotonic()
    answer = aws.client("lambda").invoke(
        FunctionName=outputs["InboundFunction"], Payload=MALFORMED.read_bytes()
    )
    disposition = json.loads(answer["Payload"].read())["disposition"]
    problems = []
    if disposition != "CONTINUE":
        problems.append(f"disposition {disposition}, not CONTINUE")
    event = json.loads(MALFORMED.read_text())
    if not any(record["requestPayload"] == event for record in kept_events(aws, outputs)):
        problems.append("the event was not kept")
    return Row(
        mail=MALFORMED.stem,
        recipient="",
        decision="event kept",
        reason="MalformedEventError",
        bounce_type="",
        dsn="",
        seconds=time.monotonic() - started,
        problems=problems,
    )


def trace_of(aws: Aws, message_id: str) -> dict[str, Any] | None:
    """What the rules did with a mail, when they are done with it."""
    traces = [each for each in aws.listing("mails") if each["message_id"] == message_id]
    return traces[0] if traces and traces[0]["done"] else None


def log_line(aws: Aws, outputs: dict[str, str], message_id: str) -> dict[str, Any] | None:
    """The function's own line about the mail, from CloudWatch Logs."""
    pages = aws.client("logs").get_paginator("filter_log_events")
    for page in pages.paginate(logGroupName=outputs["InboundLogGroup"], filterPattern=message_id):
        for event in page["events"]:
            if message_id in event["message"] and '"mail handled"' in event["message"]:
                line: dict[str, Any] = json.loads(event["message"])
                return line
    return None


def kept_events(aws: Aws, outputs: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The records of the events that nobody could handle.

    They stay in the queue: it shows them again after its visibility timeout.
    """
    sqs, queue = aws.client("sqs"), outputs["EventDeadLetterQueue"]
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            yield json.loads(message["Body"])


def until[Found](look: Callable[[], Found | None], otherwise: str, seconds: float = 60) -> Found:
    """Look again and again until there is something.

    Raises:
        StackError: with `otherwise`, when nothing came in so many seconds.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.1)
    raise StackError(otherwise)


def print_rows(rows: list[Row]) -> None:
    table = Table(header_style="bold", title="What became of each mail", title_justify="left")
    for column in ("", "mail", "recipient", "decision", "reason", "BounceType", "DSN file"):
        table.add_column(column, overflow="fold")
    table.add_column("seconds", justify="right")
    for row in rows:
        mark = Text("✗", "red") if row.problems else Text("✓", "green")
        cells = (row.mail, row.recipient, row.decision, row.reason, row.bounce_type, row.dsn)
        table.add_row(mark, *cells, f"{row.seconds:.1f}")
    screen.print(table)
    for row in rows:
        for problem in row.problems:
            screen.print(Text(f"✗ {row.mail} {row.recipient}: {problem}", "red"))


def _print_hints(aws: Aws, page: str) -> None:
    screen.print(
        f"""
[bold]It is up.[/]  Ctrl-C stops it all, and nothing of it survives.

  the page  {page}   (the address lets you in: keep it to yourself)
  SMTP      127.0.0.1:{aws.smtp_port}   for mail to example.com, shop.example.com, new.example.com
  AWS       {aws.endpoint}
  DSNs      {aws.outbox.relative_to(stack.ROOT)}/
  bounces   {aws.endpoint}/_local/bounces   (user and password: the keys below)
  mails     {aws.endpoint}/_local/mails

Mailboxes: {", ".join(each.address for each in read_mailboxes(MAILBOXES))}

The key is this run's ({docker.CREDENTIALS_FILE.relative_to(stack.ROOT)}). In another terminal:

  export AWS_ENDPOINT_URL={aws.endpoint} AWS_DEFAULT_REGION={REGION}
  export AWS_ACCESS_KEY_ID={aws.credentials.access_key_id}
  export AWS_SECRET_ACCESS_KEY={aws.credentials.secret_access_key}
  export BOUNCER_DNS_SERVER=127.0.0.1:{aws.port}

Then try there:
  curl smtp://127.0.0.1:{aws.smtp_port} --mail-from you@sender.example \\
       --mail-rcpt nobody@example.com --upload-file events/unknown-recipient.eml
  swaks --server 127.0.0.1:{aws.smtp_port} --from you@sender.example --to full@example.com
  swaks --server 127.0.0.1:{aws.smtp_port} --from you@sender.example --to nobody@example.com \\
        --header 'X-Local-SPF: FAIL'
  .venv/bin/bouncer find you@sender.example
  .venv/bin/bouncer status
  make invoke EVENT=events/unknown-recipient.json
""",
        soft_wrap=True,
        markup=True,
    )


def main(
    stay: Annotated[bool, typer.Option("--stay", help="Stay up and wait for mail.")] = False,
    port: Annotated[int, typer.Option(help="With --stay: where AWS listens.")] = 4566,
    smtp_port: Annotated[int, typer.Option(help="With --stay: where SMTP listens.")] = 2525,
    weather: Annotated[
        str, typer.Option(help="With --stay: what goes wrong, NAME or NAME:SEED.")
    ] = "clear",
) -> None:
    """Deploy the application to AWS on this machine, and send it mail."""
    stack.end_on_signals()
    parent = os.getppid()
    started = time.monotonic()
    try:
        with deployed(
            port=port if stay else None,
            smtp_port=smtp_port if stay else None,
            credentials=docker.CREDENTIALS_FILE if stay else None,
        ) as (aws, outputs):
            if stay:
                docker.write_files(aws)
                aws.weather(weather)
                with web.page(aws) as address:
                    _print_hints(aws, address)
                    while os.getppid() == parent:  # until a signal, or until its starter is gone
                        time.sleep(0.5)
                return
            rows = run_stories(aws, outputs)
    except StackError as error:
        screen.print(Text(str(error), "red"))
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        screen.print("stopped")
        raise typer.Exit(0 if stay else 130) from None
    print_rows(rows)
    wrong = [row for row in rows if row.problems]
    summary = f"{len(rows) - len(wrong)} of {len(rows)} came out as told"
    screen.print(f"{summary}, in {time.monotonic() - started:.0f} s; DSNs are in .local/outbox/")
    if wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
