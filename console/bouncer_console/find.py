"""`bouncer find`: the mails of a sender, a recipient, a Message-ID or a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer

from bouncer.backend import BackendUnavailableError
from bouncer.text import in_units
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
)
from bouncer_console.facts.insights import Cost, InsightsError
from bouncer_console.facts.mails import MailFacts
from bouncer_console.facts.search import Wanted
from bouncer_console.facts.source import FactsError, MailLog
from bouncer_console.facts.words import what, why
from bouncer_console.output import (
    Json,
    note,
    plain_errors,
    print_json,
    print_table,
    progress,
    roomy,
    say,
)
from bouncer_console.period import A_DAY, BACK

_RECIPIENTS_SHOWN = 5


def find(
    who: Annotated[
        str | None,
        typer.Argument(
            help="An address, as sender or recipient; a Message-ID; SES's id; or a host's IP."
        ),
    ] = None,
    recipient: Annotated[
        str | None, typer.Option(help="To this address; or to a domain, as @example.com.")
    ] = None,
    sender: Annotated[
        str | None,
        typer.Option(help="From this envelope sender; or a domain; or <>, the null sender."),
    ] = None,
    message_id: Annotated[
        str | None, typer.Option(help="With this Message-ID, as the sender's software wrote it.")
    ] = None,
    since: Annotated[
        datetime, typer.Option(help="Handled since then, or so long ago.", **BACK)
    ] = A_DAY,
    until: Annotated[
        datetime | None, typer.Option(help="Handled before then, or so long ago.", **BACK)
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, metavar="NUMBER", help="Show so many mails, the newest.")
    ] = 50,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Find mails by sender, recipient, Message-ID or time.

    Accepted mail, too. Each comes with its id, which `bouncer status` takes, and what became of it
    for each recipient. This reads the log, which is kept for LogRetentionDays; it costs $0.005 a GB
    of log in the time that is searched, and a million mails have 0.7 GB.
    """
    wanted = Wanted(
        anywhere=who or "",
        recipient=recipient or "",
        sender=sender or "",
        message_id_header=message_id or "",
    )
    end = until or datetime.now(UTC)
    with plain_errors(DeploymentError, InsightsError, FactsError, BackendUnavailableError):
        log = MailLog.of(Deployment.find(stack, region))
        with reading() as on_read:
            found = log.find(wanted, since, end, at_most=limit + 1, on_read=on_read)
        mails = log.as_of_now(found[:limit])
    if as_json:
        print_json(mails)
    elif mails and not roomy():
        for each in mails:
            _say(each)
    elif mails:
        rows = (row for each in mails for row in _rows(each))
        print_table("", _COLUMNS, rows, whole=("received", "id"))
    else:
        say("No mail is found.")
        note(
            "A mail is there some seconds after it was handled. "
            f"Looked for since {since:%Y-%m-%d %H:%M} UTC: --since 7d looks further back."
        )
    if len(found) > limit:
        note(f"There are more, and older ones: --limit {limit * 10}, or a shorter time.")
    note(in_words(log.cost))


_COLUMNS = ("received", "id", "sender", "recipient", "what", "why")


def _say(mail: MailFacts) -> None:
    """A mail in lines of its own, for a narrow screen."""
    say(f"{mail.when:%Y-%m-%d %H:%M:%S}  {mail.message_id}", "bold")
    for each in mail.recipients[:_RECIPIENTS_SHOWN]:
        say(f"  {cut(mail.sender)} > {cut(each.recipient)}")
        say(f"  {what(mail, each)}: {cut(why(mail, each))}")
    if more := mail.recipients[_RECIPIENTS_SHOWN:]:
        say(f"  and {len(more)} more")


def _rows(mail: MailFacts) -> Iterator[tuple[object, ...]]:
    received = f"{mail.when:%Y-%m-%d %H:%M:%S}"
    head = (received, mail.message_id, cut(mail.sender))
    for each in mail.recipients[:_RECIPIENTS_SHOWN]:
        yield (*head, cut(each.recipient), what(mail, each), cut(why(mail, each)))
        head = ("", "", "")
    if more := mail.recipients[_RECIPIENTS_SHOWN:]:
        yield (*head, f"and {len(more)} more", "", "")


def cut(text: str, length: int = 120) -> str:
    """A text that leaves room for others in a table."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


@contextmanager
def reading() -> Iterator[Callable[[float], None]]:
    """Progress of reading the log; yields what is told the share that was read."""
    done = 0
    with progress("reading the log, percent", 100) as advance:

        def on_read(share: float) -> None:
            nonlocal done
            percent = int(share * 100)
            advance(percent - done)
            done = percent

        yield on_read


def in_words(cost: Cost) -> str:
    """What was asked of the log, and what it costs."""
    cut_short = "; of one second there are more lines than can be read" if cost.cut else ""
    price = "under $0.0001" if cost.dollars < 0.0001 else f"${cost.dollars:.4f}"
    return f"{in_units(int(cost.bytes_scanned))} of log were looked through: {price}{cut_short}"
