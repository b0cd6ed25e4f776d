"""An attack: who is refused, who writes, what is held back; and what helps, beside each."""

import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_network
from typing import Any

import msgspec
from starlette.responses import Response

from bouncer.policy.load import load
from bouncer.receipt_rules import SyncError
from bouncer_console import plots
from bouncer_console.deployment import SOMEBODY_WAITS
from bouncer_console.facts.insights import Cost
from bouncer_console.facts.mails import MailFacts
from bouncer_console.facts.source import MailLog
from bouncer_console.facts.totals import (
    Case,
    OverTime,
    Share,
    Totals,
    lists,
    network,
    over_time,
    totals,
)
from bouncer_console.ip_filters import LIMIT, FilterError, IpFilters, Policy
from bouncer_console.rules import plan_sync
from bouncer_console.web.pages.mail import reading
from bouncer_console.web.pages.policy import in_appconfig, in_force
from bouncer_console.web.site import Ask, Page, Standing, get, post
from bouncer_console.web.text import Url, link

PERIODS = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7)}
LINES = 100_000
"""Of refused mail that are read at the most; some 150 MB in memory."""
_TOP = 15
_NAME = 320
_CHANGES = 10
"""Of rules that are made while a browser waits."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the log told, added up, with its plots."""

    sums: Totals
    cost: Cost
    plots: list[tuple[Any, str]]
    cut: bool


def show(ask: Ask) -> Response:
    period = ask.query.get("since", "24h")
    length = PERIODS.get(period, PERIODS["24h"])
    deployment = ask.deployment
    job = ask.job(
        ("attack", deployment.stack, length),
        lambda says: _seen(deployment, length, says),
        wait=1.5,
    )
    mail_of = partial(_mail, "id")
    return ask.show(
        "attack.html",
        asking=None if job.done else job,
        seen=job.answer() if job.done else None,
        period=period if period in PERIODS else "24h",
        periods=list(PERIODS),
        lists=lists,
        find={
            "Recipient": partial(_found, "recipient", period),
            "Sender": partial(_found, "sender", period),
            "Domain": lambda name: _found("sender", period, f"@{name}"),
            "Host": partial(_found, "who", period),
        },
        mends={
            kind: partial(_mend, kind)
            for kind in ("Recipient", "Sender", "Domain", "Host", "Network")
        },
        mail=mail_of,
        first_rule=lambda mail: mail.refused[0].reason if mail.refused else "",
        also_objecting=_also_objecting,
    )


def _also_objecting(mail: MailFacts) -> str:
    return ", ".join(each for each in mail.objections if each != mail.suppressed)


def _mail(name: str, value: str) -> Url:
    return link("/mail", **{name: value})


def _found(name: str, since: str, value: str) -> Url:
    return link("/mail", **{name: value}, since=since)


def _mend(kind: str, share: Share) -> Url:
    return link("/attack/mend", kind=kind, name=share.name)


def _seen(deployment: Standing, length: timedelta, says: Callable[[str], None]) -> Seen:
    until = datetime.now(UTC)
    since = until - length
    log = MailLog.of(deployment)
    number = log.count(since, until)
    mails = log.between(since, until, refused_only=True, at_most=LINES, on_read=reading(says))
    says(f"{len(mails):,} mails are added up")
    sums = totals(mails, since, until, number=number, top=_TOP)
    return Seen(
        sums=sums,
        cost=log.cost,
        plots=_plots(mails, sums) if sums.over_time.series else [],
        cut=len(mails) >= LINES,
    )


def _plots(mails: list[MailFacts], sums: Totals) -> list[tuple[Any, str]]:
    refused = [Case(mail, each) for mail in mails for each in mail.refused]

    def by(name: Callable[[Case], str]) -> OverTime:
        return over_time(refused, sums.since, sums.until, name, top=7)

    drawn = [
        (sums.over_time, "by what became of it"),
        (by(lambda case: case.mail.sender_domain), "by the sender's domain"),
        (by(lambda case: network(case.mail.client)), "by the network that it came from"),
    ]
    return [
        (
            plots.columns(over, title=f"Refused recipients {by_what}", size=plots.HALF),
            f"{by_what.capitalize()}. Times are UTC.",
        )
        for over, by_what in drawn
    ]


# --- What helps -------------------------------------------------------------------------------


def mend(ask: Ask) -> Response:
    kind, name = ask.query.get("kind", ""), ask.query.get("name", "")[:_NAME]
    rule = _rule(kind, name)
    draft = None
    if rule:
        draft = _first_rule(in_force(ask).text, rule)
        draft = link("/policy/compare", draft=ask.site.keep(draft)) if draft else None
    return ask.show(
        "mend.html",
        kind=kind,
        name=name,
        rule=rule,
        draft=draft,
        network=_network(kind, name),
        appconfig=in_appconfig(ask.deployment),
    )


def _rule(kind: str, name: str) -> str:
    """A rule that drops what this sender, or domain, sends; "" where none helps."""
    if kind not in ("Sender", "Domain") or not name or any(each in name for each in "*?"):
        return ""
    pattern = name if kind == "Sender" else f"@{name}"
    value = msgspec.json.encode(pattern).decode()  # a TOML string as well
    rule = f'[[rules]]\nname = "denied-sender"\nwhen.sender = {value}\naction = "drop"\n'
    try:
        load(f'version = 1\n{rule}[[rules]]\nname = "accept"\naction = "accept"\n', "the rule")
    except ValueError:
        return ""  # a hash, or an address that no pattern takes
    return rule


def _first_rule(policy: str, rule: str) -> str:
    """The policy with the rule before all others; "" where it has none to put it before."""
    lines = policy.splitlines(keepends=True)
    at = next((n for n, each in enumerate(lines) if each.strip() == "[[rules]]"), None)
    return "" if at is None else "".join((*lines[:at], rule, "\n", *lines[at:]))


def _network(kind: str, name: str) -> str:
    """The address or network that an IP filter may be for; "" for a hash."""
    if kind not in ("Host", "Network"):
        return ""
    try:
        network = ip_network(name, strict=False)
    except ValueError:
        return ""
    return name if kind == "Host" else str(network)


def _ip_filters(ask: Ask) -> IpFilters:
    return IpFilters(ask.deployment.paced_ses(max_wait=SOMEBODY_WAITS))


def block(ask: Ask) -> Response:
    """Have SES refuse an address or a network itself, after a question."""
    address = _network("Host", ask.form.get("address", "")[:_NAME])
    if not address:
        ask.fail("That is no address and no network.")
    if not ask.sure:
        number = ip_network(address, strict=False).num_addresses
        whose = f", {number:,} addresses" if number > 1 else ""
        return ask.question(
            f"Block {address}{whose}?",
            yes="Block it",
            post="/attack/block",
            fields={"address": address},
            no="/attack/filters",
            detail=f"bouncer rules filter add {address}\n\nSES refuses it in the SMTP dialogue, "
            "for the whole account in this Region: no mail, no bounce, no trace here.",
        )
    try:
        made, new = _ip_filters(ask).add(address, Policy.BLOCK)
    except FilterError as error:
        ask.fail(str(error))
    said = "is blocked now" if new else "was blocked already"
    return ask.done(f"{made.cidr} {said}.", "/attack/filters")


def filters(ask: Ask) -> Response:
    """Every IP filter there is."""
    found = _ip_filters(ask).all()
    found.sort(key=lambda each: (each.policy, each.cidr))
    return ask.show("filters.html", filters=found, limit=LIMIT)


def unblock(ask: Ask) -> Response:
    """Take an IP filter away, after a question."""
    name = ask.form.get("name", "")[:_NAME]
    if not ask.sure:
        return ask.question(
            f"Remove the IP filter {name}?",
            yes="Remove it",
            post="/attack/unblock",
            fields={"name": name},
            no="/attack/filters",
            detail=f"bouncer rules filter remove {shlex.quote(name)}",
        )
    try:
        gone = _ip_filters(ask).remove(name)
    except FilterError as error:
        ask.fail(str(error))
    return ask.done(f"The filter for {gone.cidr} is gone.", "/attack/filters")


def sync(ask: Ask) -> Response:
    """Name the directory's addresses in the receipt rules, after a question that says how many."""
    deployment = ask.deployment
    try:
        plan = plan_sync(deployment)
        if not plan.changes:
            return ask.done("The rules are in step with the directory.", "/attack")
        if plan.refused:
            ask.fail(plan.refused)
        if len(plan.changes) > _CHANGES:
            ask.fail(
                f"{len(plan.changes)} rules would change, and SES takes one change a second.",
                "In a terminal it can be seen, and interrupted: bouncer rules sync",
            )
        if not ask.sure:
            names = "\n".join(
                f"{each.name}: {len(each.added)} added, {len(each.removed)} removed"
                for each in plan.changes[:_TOP]
            )
            return ask.question(
                f"Change {len(plan.changes)} rules of {plan.rule_set}?",
                yes="Change them",
                post="/attack/sync",
                fields={},
                no="/attack",
                detail="\n".join(("bouncer rules sync", "", names, *plan.hints)),
            )
        plan.rules.apply(plan.changes, lambda: None)
    except SyncError as error:
        ask.fail(str(error), "What was done stays: `bouncer rules sync` goes on.")
    said = f"{plan.recipients:,} recipients are named in the rules of {plan.rule_set} now."
    return ask.done(said, "/attack")


PAGE = Page(
    path="/attack",
    title="Attack",
    views=[
        get("", show),
        get("/mend", mend),
        get("/filters", filters),
        post("/block", block),
        post("/unblock", unblock),
        post("/sync", sync),
    ],
)
