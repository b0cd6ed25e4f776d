"""A mail: found by whom people know of, with all that is known of it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from starlette.responses import Response

from bouncer.address import normalise
from bouncer.aws.ledger import DynamoLedger
from bouncer.aws.mail_records import DynamoMailRecords
from bouncer.aws.stored_mail import S3StoredMail
from bouncer.delivery.bounce import WINDOW
from bouncer.delivery.ledger import BounceState, LedgerEntry
from bouncer.headers import Header
from bouncer.mail_record import MailRecord
from bouncer.policy.load import load
from bouncer.settings import stored_prefix
from bouncer_console.as_received import as_received
from bouncer_console.explain.explained import Explained
from bouncer_console.facts.insights import Cost
from bouncer_console.facts.mails import MailFacts
from bouncer_console.facts.search import Wanted
from bouncer_console.facts.source import MailLog
from bouncer_console.facts.words import look, what, why
from bouncer_console.period import moment_before
from bouncer_console.web.pages.policy import (
    directory_of,
    identity_of,
    in_force,
    in_words,
    planner_of,
    pretty,
)
from bouncer_console.web.site import Ask, Page, Standing, get
from bouncer_console.web.text import Url, link

SHOWN = 50
_HEADERS = 200
_ID_LIMIT = 200
_CLOCKS = timedelta(minutes=2)
_FIELDS = ("who", "recipient", "sender", "message_id", "since", "until")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in the log."""

    mails: list[MailFacts]
    more: bool
    cost: Cost


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one mail."""

    facts: MailFacts | None
    """None where the log has nothing of it."""
    record: MailRecord | None
    ledger: list[LedgerEntry]
    headers: tuple[Header, ...] | None
    """The stored mail's; None where they can't be had."""
    cost: Cost


def show(ask: Ask) -> Response:
    message_id = ask.query.get("id", "").strip()[:_ID_LIMIT]
    return _one(ask, message_id) if message_id else _search(ask)


def _search(ask: Ask) -> Response:
    given = {name: ask.query.get(name, "").strip()[:320] for name in _FIELDS}
    asked = "since" in ask.query
    found, job = None, None
    if asked:
        wanted = Wanted(
            anywhere=given["who"],
            recipient=given["recipient"],
            sender=given["sender"],
            message_id_header=given["message_id"],
        )
        now = datetime.now(UTC)
        since = _moment(ask, given["since"] or "24h", now)
        until = _moment(ask, given["until"], now) if given["until"] else now
        if since >= until:
            ask.fail("Until has to be after since.", "Both are looked back from now, or are UTC.")
        deployment = ask.deployment
        job = ask.job(
            ("find", deployment.stack, tuple(given.values())),
            lambda says: _find(deployment, wanted, since, until, says),
            fresh=15,
            wait=1.5,
        )
        found = job.answer() if job.done else None
    return ask.show(
        "mail-search.html",
        asking=job if job is not None and not job.done else None,
        given=given | {"since": given["since"] or "24h"},
        found=found,
        older=_older(given, since, found) if found and found.more else None,
        what=what,
        why=why,
        look=look,
    )


def _older(given: Mapping[str, str], since: datetime, found: "Found") -> Url:
    """The mails before those that are shown; the second of the last is shown once more."""
    until = found.mails[-1].at + timedelta(seconds=1)
    times = {"since": f"{since:%Y-%m-%dT%H:%M:%SZ}", "until": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
    return link("/mail", **{**given, **times})


def _moment(ask: Ask, text: str, now: datetime) -> datetime:
    try:
        return moment_before(text, now)
    except ValueError as error:
        ask.fail(str(error))


def _find(
    deployment: Standing,
    wanted: Wanted,
    since: datetime,
    until: datetime,
    says: Callable[[str], None],
) -> Found:
    log = MailLog.of(deployment)
    found = log.find(wanted, since, until, at_most=SHOWN + 1, on_read=reading(says))
    return Found(mails=log.as_of_now(found[:SHOWN]), more=len(found) > SHOWN, cost=log.cost)


def reading(says: Callable[[str], None]) -> Callable[[float], None]:
    """Progress of the log's reader, in words."""
    return lambda share: says(f"{share:.0%} of the time is read")


def _one(ask: Ask, message_id: str) -> Response:
    deployment = ask.deployment
    job = ask.job(
        ("mail", deployment.stack, message_id),
        lambda _says: _known(deployment, message_id),
        fresh=5,
        wait=2,
    )
    if not job.done:
        return ask.wait(job)
    known = job.answer()
    if not (known.facts or known.record or known.ledger or known.headers):
        ask.fail(
            f"Nobody knows a mail {message_id}.",
            "Find it by an address or a time. What is known is kept for a while only.",
            404,
        )
    explained = _explained(ask, message_id, known) if "explain" in ask.query else None
    local = ask.site.local
    return ask.show(
        "mail.html",
        message_id=message_id,
        known=known,
        rows=[
            (each, what(known.facts, each), why(known.facts, each))
            for each in known.facts.recipients
        ]
        if known.facts
        else [],
        headers=(known.headers or ())[:_HEADERS],
        look=look,
        explained=in_words(explained) if explained else None,
        differs=differs(known, explained, load(in_force(ask).text, "the policy").digest)
        if explained
        else [],
        sent=[each.recipient for each in known.ledger if each.state is BounceState.SENT],
        trace=local.steps(message_id) if local is not None else None,
        bounces=[(each, pretty(each.request)) for each in local.bounces(message_id)]
        if local is not None
        else [],
        window_ends=_received(known) + WINDOW if _received(known) else None,
        again=link("/mail", id=message_id, explain="yes"),
    )


def _received(known: Known) -> Any:
    if known.record is not None:
        return known.record.received_at
    return known.facts.when if known.facts else None


def _known(deployment: Standing, message_id: str) -> Known:
    table, dynamodb = deployment.output("BounceTable"), deployment.client("dynamodb")
    never: Any = None  # it only reads
    record = DynamoMailRecords(dynamodb, table, retention=never).of([message_id]).get(message_id)
    ledger = DynamoLedger(dynamodb, table, retention=never).history(message_id)
    times = [each.received_at for each in ledger if each.received_at is not None]
    at = record.received_at if record else min(times, default=None)
    now = datetime.now(UTC)
    # Whoever knows when it came reads a day of the log, in which all happens that ever will.
    since = at - _CLOCKS if at else now - timedelta(days=3)
    until = min(at + WINDOW + _CLOCKS, now) if at else now
    log = MailLog.of(deployment)
    facts = log.one(message_id, since, until)
    return Known(
        facts=facts,
        record=record,
        ledger=ledger,
        headers=stored_headers(deployment, message_id),
        cost=log.cost,
    )


def stored_headers(deployment: Standing, message_id: str) -> tuple[Header, ...] | None:
    bucket = deployment.outputs.get("MailBucket")
    if not bucket or "/" in message_id:
        return None
    prefix = stored_prefix(deployment.outputs.get("MailPrefix", ""))
    return S3StoredMail(deployment.client("s3"), bucket, prefix).headers(message_id)


def _explained(ask: Ask, message_id: str, known: Known) -> Explained:
    """The mail decided once more, by the present policy and directory; nothing is done."""
    if known.headers is None:
        ask.fail("No copy of the mail is stored, so nobody can explain it again.")
    recipients: Sequence[str] = ()
    if known.record is not None:
        recipients = sorted(each.recipient for each in known.record.recipients)
    elif known.ledger:
        recipients = [each.recipient for each in known.ledger]
    if not recipients:
        ask.fail("Nobody knows any more to whom it was.")
    received = _received(known) or datetime.now(UTC)
    mail = as_received(message_id, known.headers, recipients, received)
    bucket, prefix = (
        ask.deployment.output("MailBucket"),
        ask.deployment.outputs.get("MailPrefix", ""),
    )
    stored = S3StoredMail(ask.deployment.client("s3"), bucket, stored_prefix(prefix))
    policy = load(in_force(ask).text, "the policy")
    # As of then: a day later the window is closed, whatever the policy says.
    planner = planner_of(ask.deployment, policy, directory_of(ask.deployment), stored, now=received)
    planned = planner.plan(mail)
    size = planner.size(planned)
    return Explained(
        planned=planned,
        identity=identity_of(ask.deployment),
        size=size,
        size_missed=size is None,
    )


def differs(known: Known, explained: Explained, policy: str) -> list[str]:
    """In what the bounce that would be made now is another than what was sent, as far as is known.

    Args:
        policy: the digest of the one that it was made by.
    """
    found = []
    if known.facts is None or not known.facts.policy:
        found.append("Nobody knows any more by which policy it was decided.")
    elif known.facts.policy != policy:
        found.append("The policy has changed since.")
    bounce = explained.plan.to_send
    now = {normalise(each.recipient): each for each in bounce.recipients} if bounce else {}
    for entry in known.ledger:
        if entry.state is not BounceState.SENT:
            continue
        made = now.get(normalise(entry.recipient))
        if made is None:
            found.append(f"{entry.recipient} would not be in it.")
        elif (made.reason, made.status) != (entry.reason, entry.status):
            was, becomes = f"{entry.reason}, {entry.status}", f"{made.reason}, {made.status}"
            found.append(f"Of {entry.recipient} it said {was}; now it would say {becomes}.")
    return found


PAGE = Page(path="/mail", title="A mail", views=[get("", show)])
