"""`bouncer report`."""

import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bouncer.settings import LogAddresses
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
)
from bouncer_console.facts.insights import InsightsError
from bouncer_console.facts.mails import MailFacts
from bouncer_console.facts.pseudonymous import pseudonymous
from bouncer_console.facts.source import MailLog
from bouncer_console.facts.totals import Held, Ranking, Totals, lists, totals
from bouncer_console.find import cut, in_words, reading
from bouncer_console.output import (
    Json,
    fail,
    note,
    plain_errors,
    print_json,
    print_table,
    say,
    written,
)
from bouncer_console.output import report as done
from bouncer_console.period import A_DAY, BACK

LINES = 200_000
"""Of the log that are read at the most: some 150 MB in memory."""


def report(
    since: Annotated[
        datetime, typer.Option(help="What was handled since then, or so long ago.", **BACK)
    ] = A_DAY,
    until: Annotated[
        datetime | None, typer.Option(help="What was handled before then.", **BACK)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write one HTML file instead, for a colleague.")
    ] = None,
    hash_addresses: Annotated[
        bool, typer.Option("--hash-addresses", help="Name nobody: hashes for people and hosts.")
    ] = False,
    top: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="NUMBER", help="The length of each list.")
    ] = 20,
    most: Annotated[
        int, typer.Option(min=1, metavar="NUMBER", help="Read so many lines, the newest.")
    ] = LINES,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Sum up a time: what was refused, held back, and why.

    It begins with what observe mode would have bounced: read that before you go live. It reads the
    log of that time twice, at $0.005 a GB.
    """
    end = until or datetime.now(UTC)
    if since >= end:
        fail("--since has to be before --until", 2)
    with plain_errors(DeploymentError, InsightsError):
        deployment = Deployment.find(stack, region)
        log = MailLog.of(deployment)
        number = log.count(since, end)
        with reading() as on_read:
            mails = log.between(since, end, refused_only=True, at_most=most, on_read=on_read)
        if hash_addresses and log.addresses is not LogAddresses.HASH:
            key = log.key() or secrets.token_bytes(32)
            mails = [pseudonymous(each, key) for each in mails]
        sums = totals(mails, since, end, number=number, top=top)
        if html is not None:
            # Jinja and matplotlib take a second to load; nobody else waits for them.
            from bouncer_console.report.page import page  # noqa: PLC0415

            mode = deployment.parameters.get("Mode", "")
            hashed = hash_addresses or log.addresses is LogAddresses.HASH
            with written(html) as out:
                out.write(page(sums, stack=stack, mode=mode, hashed=hashed))
    if html is not None:
        done(f"{html} is written.", as_json, file=str(html), bytes=html.stat().st_size)
    elif as_json:
        print_json(sums)
    else:
        _show(sums)
    if len(mails) >= most:
        note(f"Only the newest {most:,} lines were read: --most, or a shorter time.")
    note(in_words(log.cost))


def _show(sums: Totals) -> None:
    _show_observed(sums)
    say(
        f"\n{sums.mails:,} mails were decided from {sums.since:%Y-%m-%d %H:%M} to "
        f"{sums.until:%Y-%m-%d %H:%M} UTC; of {sums.refused_mails:,} somebody was refused.",
        "bold",
    )
    for title, _, ranking in lists(sums):
        _show_ranking(title, ranking)
    if sums.held:
        rows = [
            (each.reason, held_by(each), each.recipients, each.mails, each.alone)
            for each in sums.held
        ]
        columns = ("reason", "by", "recipients", "mails", "nothing else objected")
        print_table("Held back", columns, rows)
        examples = list(_examples(sums.held))
        if examples:
            title = "Who would have been told without that one guard or budget, the latest"
            columns = ("received", "id", "sender", "recipients", "reason")
            print_table(title, columns, examples, whole=("received", "id"))


def held_by(held: Held) -> str:
    return "budget" if held.budget else "guard"


def _examples(held: Sequence[Held]) -> Iterator[tuple[object, ...]]:
    for each in held:
        for mail in each.examples[:3]:
            yield _row(mail, each.reason)


def _row(mail: MailFacts, last: str) -> tuple[object, ...]:
    names = [cut(each.recipient or "?", 60) for each in mail.refused[:3]]
    more = [f"and {len(mail.refused) - 3} more"] if len(mail.refused) > 3 else []
    return (
        f"{mail.when:%Y-%m-%d %H:%M:%S}",
        mail.message_id,
        cut(mail.sender),
        "\n".join(names + more),
        last,
    )


def _show_observed(sums: Totals) -> None:
    seen = sums.observed
    say("What would have been bounced in observe mode", "bold")
    if not seen.mails and not seen.trials.recipients:
        say("Nothing was refused in observe mode, nor by a rule on trial.")
        return
    if seen.mails:
        say(
            f"{seen.would_bounce:,} recipients, of whom {seen.would_tell:,} senders would have "
            f"been told; and mail of {seen.would_drop:,} recipients would have been dropped."
        )
    for title, ranking in (
        ("By rule", seen.reasons),
        ("Recipients", seen.recipients),
        ("Senders who would have been told", seen.senders),
        ("By rules on trial", seen.trials),
    ):
        _show_ranking(title, ranking)
    if seen.examples:
        print_table(
            "The latest",
            ("received", "id", "sender", "recipients", "rule"),
            [_row(mail, mail.would_bounce[0].reason) for mail in seen.examples],
            whole=("received", "id"),
        )


def _show_ranking(title: str, ranking: Ranking) -> None:
    if not ranking.top:
        return
    rows = [(cut(e.name), f"{e.recipients:,}", f"{e.mails:,}", e.latest) for e in ranking.top]
    if (others := ranking.names - len(ranking.top)) > 0:
        shown = sum(each.recipients for each in ranking.top)
        left = ranking.recipients - ranking.unnamed - shown
        rows.append((f"{others:,} other{'s' if others > 1 else ''}", f"{left:,}", "", ""))
    if ranking.unnamed:
        rows.append(("not in the log", f"{ranking.unnamed:,}", "", ""))
    print_table(title, ("", "recipients", "mails", "latest"), rows, whole=("latest",))
