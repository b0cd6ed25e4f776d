"""What many mails add up to: who is refused, what is held back, what observe mode would have done.

Pure: lists of MailFacts in, numbers out. People are counted by whatever the log names them by.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

import msgspec

from bouncer.budget import network_of
from bouncer_console.facts.mails import BUDGETS, MailFacts, RecipientFacts


class Case(NamedTuple):
    """One recipient of one mail."""

    mail: MailFacts
    to: RecipientFacts


_WIDTHS = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 86_400, 7 * 86_400)
_COLUMNS = 100


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One name's part of what is counted."""

    name: str
    recipients: int
    mails: int
    latest: str
    """SES's id of the mail of it that came last."""


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """Who or what occurs most."""

    top: tuple[Share, ...]
    names: int
    """Different names in all."""
    recipients: int
    """Counted in all, with those that have no name."""
    unnamed: int
    """Counted whose name the log does not have."""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers over time."""

    name: str
    counts: tuple[int, ...]


class OverTime(msgspec.Struct, frozen=True, kw_only=True):
    """Several series over the same stretches of time."""

    starts: tuple[datetime, ...]
    width: timedelta
    series: tuple[Series, ...]


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What one guard, or budget, kept from being sent."""

    reason: str
    budget: bool
    recipients: int
    mails: int
    alone: int
    """Mails whose sender would have been told without it: nothing else objected."""
    examples: tuple[MailFacts, ...]
    """Of those, the latest."""


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What observe mode, and rules on trial, would have done."""

    mails: int
    """Handled in observe mode, as far as somebody was refused."""
    would_bounce: int
    """Recipients of whom the sender would have been told."""
    would_tell: int
    """Different senders."""
    would_drop: int
    reasons: Ranking
    recipients: Ranking
    senders: Ranking
    trials: Ranking
    """Rules with `dry_run`, and whom they would have refused or dropped."""
    examples: tuple[MailFacts, ...]


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a time."""

    since: datetime
    until: datetime
    mails: int
    """Decided, whatever became of them."""
    refused_mails: int
    """Those of which somebody was refused."""
    observed: Observed
    reasons: Ranking
    """Rules by which recipients were refused or dropped."""
    ends: Ranking
    """What became of bounces, in the log's eyes."""
    errors: Ranking
    """Why SES, or we, refused a bounce for good."""
    held: tuple[Held, ...]
    recipients: Ranking
    """Refused, as are all below."""
    senders: Ranking
    domains: Ranking
    """The senders'."""
    hosts: Ranking
    """That SES had the mails from."""
    networks: Ranking
    """Of those hosts: a /24 or a /48."""
    over_time: OverTime


def totals(
    mails: Sequence[MailFacts],
    since: datetime,
    until: datetime,
    *,
    number: int | None = None,
    top: int = 20,
) -> Totals:
    """
    Args:
        mails: at least those of which somebody was refused.
        number: how many mails there were in all, where `mails` are not all.
        top: the length of each ranking.
    """
    cases = [Case(mail, each) for mail in mails for each in mail.recipients]
    refused = [case for case in cases if case.to.outcome == "bounce"]
    turned_away = [case for case in cases if case.to.outcome in ("bounce", "drop")]
    bounces = [case for case in refused if case.to.state and not case.mail.observed]
    return Totals(
        since=since,
        until=until,
        mails=len(mails) if number is None else number,
        refused_mails=len({mail.message_id for mail, _ in turned_away}),
        observed=_observed(mails, top),
        reasons=ranking(turned_away, lambda case: case.to.reason, top),
        ends=ranking(bounces, lambda case: case.to.state, top),
        errors=ranking(
            (case for case in bounces if case.to.error_code),
            lambda case: case.to.error_code,
            top,
        ),
        held=held_back(mails, top),
        recipients=ranking(refused, lambda case: case.to.recipient, top),
        senders=ranking(refused, lambda case: case.mail.sender, top),
        domains=ranking(refused, lambda case: case.mail.sender_domain, top),
        hosts=ranking(refused, lambda case: case.mail.client, top),
        networks=ranking(refused, lambda case: network(case.mail.client), top),
        over_time=over_time(turned_away, since, until, kind),
    )


def ranking(cases: Iterable[Case], name: Callable[[Case], str], top: int) -> Ranking:
    """The names that most recipients have, each with its mails; the empty name is none."""
    recipients: Counter[str] = Counter()
    mails: dict[str, set[str]] = {}
    latest: dict[str, MailFacts] = {}
    for case in cases:
        mail, called = case.mail, name(case)
        recipients[called] += 1
        if not called:
            continue
        mails.setdefault(called, set()).add(mail.message_id)
        if called not in latest or mail.at > latest[called].at:
            latest[called] = mail
    unnamed = recipients.pop("", 0)
    ranked = sorted(recipients, key=lambda called: (-recipients[called], called))
    return Ranking(
        top=tuple(
            Share(
                name=each,
                recipients=recipients[each],
                mails=len(mails[each]),
                latest=latest[each].message_id,
            )
            for each in ranked[:top]
        ),
        names=len(recipients),
        recipients=recipients.total() + unnamed,
        unnamed=unnamed,
    )


def lists(sums: Totals) -> list[tuple[str, str, Ranking]]:
    """The rankings of what was refused: title, what a name is, ranking."""
    return [
        ("Refused and dropped, by rule", "Rule", sums.reasons),
        ("What became of the bounces", "State", sums.ends),
        ("Errors of bounces", "Error", sums.errors),
        ("Refused recipients", "Recipient", sums.recipients),
        ("Senders of refused mail", "Sender", sums.senders),
        ("Domains of those senders", "Domain", sums.domains),
        ("Hosts that refused mail came from", "Host", sums.hosts),
        ("Networks of those hosts", "Network", sums.networks),
    ]


def held_back(mails: Iterable[MailFacts], top: int) -> tuple[Held, ...]:
    """What each guard and budget kept from being sent, the most first."""
    by_reason: dict[str, list[MailFacts]] = {}
    for mail in mails:
        if mail.held_back:
            by_reason.setdefault(mail.suppressed, []).append(mail)
    found = [
        Held(
            reason=reason,
            budget=reason in BUDGETS,
            recipients=sum(len(each.held_back) for each in its),
            mails=len(its),
            alone=sum(bool(each.only_objection) for each in its),
            examples=tuple(
                sorted((each for each in its if each.only_objection), key=_newest)[:top]
            ),
        )
        for reason, its in by_reason.items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.recipients, each.reason)))


def _newest(mail: MailFacts) -> float:
    return -mail.at.timestamp()


def _observed(mails: Sequence[MailFacts], top: int) -> Observed:
    would = [Case(mail, each) for mail in mails for each in mail.would_bounce]
    trials = [Case(mail, each) for mail in mails for each in mail.on_trial]
    return Observed(
        mails=sum(mail.observed for mail in mails),
        would_bounce=len(would),
        would_tell=len({mail.sender for mail, _ in would} - {""}),
        would_drop=sum(len(mail.would_drop) for mail in mails),
        reasons=ranking(would, lambda case: case.to.reason, top),
        recipients=ranking(would, lambda case: case.to.recipient, top),
        senders=ranking(would, lambda case: case.mail.sender, top),
        trials=ranking(trials, lambda case: case.to.reason, top),
        examples=tuple(sorted((m for m in mails if m.would_bounce), key=_newest)[:top]),
    )


@lru_cache(maxsize=65_536)
def network(client: str) -> str:
    """The network of a client's address; "" for a hash, which tells none."""
    try:
        return network_of(ip_address(client))
    except ValueError:
        return ""


def kind(case: Case) -> str:
    """What became of a refused recipient, in the words of the plots."""
    mail, each = case
    if each.outcome == "drop":
        return "would be dropped" if mail.observed else "dropped"
    if each in mail.would_bounce:
        return "would be bounced"
    if each.dry_run and not each.state:
        return "on trial"
    if mail.suppressed in BUDGETS:
        return "held back by a budget"
    if mail.suppressed or each.state == "suppressed":
        return "held back by a guard"
    return {
        "sent": "bounced",
        "queued": "waits",
        "claimed": "waits",
        "expired": "given up",
        "rejected": "refused by SES",
        "dead-lettered": "dead letter",
    }.get(each.state, "withheld")


def over_time(
    cases: Iterable[Case],
    since: datetime,
    until: datetime,
    name: Callable[[Case], str],
    *,
    top: int = 8,
) -> OverTime:
    """Recipients over time, by the names that most of them have; the rest as `others`."""
    width = width_of(since, until)
    first = int(since.timestamp() // width)
    columns = max(int(-(-until.timestamp() // width)) - first, 1)
    found: dict[str, list[int]] = {}
    for case in cases:
        at = int(case.mail.when.timestamp() // width) - first
        column = min(max(at, 0), columns - 1)  # a mail may have come before it was decided
        found.setdefault(name(case) or "unknown", [0] * columns)[column] += 1
    ranked = sorted(found, key=lambda called: (-sum(found[called]), called))
    series = [Series(name=each, counts=tuple(found[each])) for each in ranked[:top]]
    if rest := ranked[top:]:
        counts = tuple(sum(column) for column in zip(*(found[each] for each in rest), strict=True))
        series.append(Series(name="others", counts=counts))
    return OverTime(
        starts=tuple(_starts(first, columns, width)),
        width=timedelta(seconds=width),
        series=tuple(series),
    )


def width_of(since: datetime, until: datetime) -> int:
    """Seconds of a column, so that a plot has no more than a hundred."""
    wanted = (until - since).total_seconds() / _COLUMNS
    return next((each for each in _WIDTHS if each >= wanted), _WIDTHS[-1])


def _starts(first: int, columns: int, width: int) -> Iterator[datetime]:
    for each in range(first, first + columns):
        yield datetime.fromtimestamp(each * width, UTC)
