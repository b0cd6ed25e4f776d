"""How many bounces others may cause, counted by recipient told: a flood must neither make us its
amplifier nor use up the slots of everybody else.

Told are counted for the sender's address without its tags, for its registrable domain, and for
the network that the mail came from. Large mail hosts are thousands of strangers behind one
domain and one network: each of their senders counts alone, and the host has a share of its own.
"""

import hashlib
import re
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, Protocol

import msgspec

from bouncer.address import domain_of, split
from bouncer.backend import BackendUnavailableError
from bouncer.guards import OtherReason
from bouncer.message import InboundMessage
from bouncer.policy.file import BudgetSection
from bouncer.proof import own_base_address

SLICES = 6
"""A period is counted in so many slices; the sum is over one more, so that it slides."""
SHARE_SLICE = 1800
"""Seconds of a slice by which a domain's place in the queue is known; two of them are summed."""
SHARE_FROM = 300.0
"""Seconds that the queue needs to drain, from which on places in it are shared out."""
_CELLS = 16
"""The senders of one domain are counted in so many cells, so that one write counts both: two
senders of a domain may have to share a cell's budget."""

_RECEIVED_LIMIT = 20_000
"""Characters of a Received field that are looked at. SES's own has some 300, and whatever a client
calls itself."""
UNCLEAR = "unclear"
"""The network of all those whose Received field names several clients: each has forged one."""


class Counter(msgspec.Struct, frozen=True, kw_only=True):
    """One item of counts, written once a bounced mail."""

    name: str
    limits: tuple[tuple[str, int, OtherReason], ...]
    """What is counted in it: the count's name, how many it may be in a period, and the reason
    code when it is more."""
    shares: bool = False
    """Whether it tells of the place in the queue."""


class Budget(Protocol):
    def charge(
        self, mail: InboundMessage, told: int, limits: BudgetSection, *, until: datetime
    ) -> OtherReason | None:
        """Count recipients that the sender is told of; the limit that is reached, or None.

        What is refused is not counted.

        Args:
            told: how many recipients the bounce is about.
            until: when the caller's time ends at the latest.

        Raises:
            BudgetUnavailableError: nobody knows whether more is allowed.
        """
        ...


class BudgetUnavailableError(BackendUnavailableError):
    """The counters did not answer."""


def counters(mail: InboundMessage, limits: BudgetSection) -> tuple[Counter, ...]:
    """What a bounce to the mail's sender counts for: two items at the most."""
    sender = _account(own_base_address(mail.reverse_path or ""))
    domain = registrable_domain(domain_of(sender))
    per_sender = OtherReason.SENDER_BUDGET
    if domain in limits.mail_hosts:
        return (
            Counter(
                name=f"sender#{sender}",
                limits=(("t", limits.per_sender, per_sender),),
                shares=True,
            ),
            Counter(
                name=f"domain#{domain}",
                limits=(("t", limits.per_mail_host, OtherReason.SENDER_DOMAIN_BUDGET),),
            ),
        )
    cell = hashlib.blake2b(sender.encode(), digest_size=2).digest()[0] % _CELLS
    own = Counter(
        name=f"domain#{domain}",
        limits=(
            (f"c{cell}x", limits.per_sender, per_sender),
            ("t", limits.per_sender_domain, OtherReason.SENDER_DOMAIN_BUDGET),
        ),
        shares=True,
    )
    network = client_network(mail)
    if network is None:
        return (own,)
    allowed = (("t", limits.per_client_network, OtherReason.CLIENT_BUDGET),)
    return own, Counter(name=f"network#{network}", limits=allowed)


def _account(address: str) -> str:
    """Whose an address is at a host that gives one account as many as it likes.

    Google reads no dots and is one host under two names; Yahoo's disposable addresses have one
    base before a hyphen, which no name there may have; Fastmail takes whatever is written before
    an account's name as a subdomain.
    """
    local, domain = split(address)
    if domain in ("gmail.com", "googlemail.com"):
        return f"{local.replace('.', '')}@gmail.com"
    if domain.startswith("yahoo.") or domain == "ymail.com":
        return f"{local.partition('-')[0] or local}@{domain}"
    if (found := _SUBDOMAIN.fullmatch(domain)) is not None:
        return f"{found['account']}@{found['host']}"
    return address


_SUBDOMAIN = re.compile(r"(?:.+\.)?(?P<account>[^.]+)\.(?P<host>fastmail\.[a-z]+)")


def registrable_domain(domain: str) -> str:
    """The domain that somebody registered (publicsuffix.org, its ICANN part), else the whole.

    A name below a provider's suffix, such as one of a dynamic DNS service, is to be had for
    nothing and by the hundred, so only registries' suffixes count.
    """
    found = _suffixes_below(domain.rpartition(".")[2]).privatesuffix(domain)
    return str(found) if found else domain


@lru_cache(maxsize=64)
def _suffixes_below(top: str) -> Any:
    """The registries' suffixes of one top-level domain.

    To read all of them takes 0.1 s, half a cold start; one domain's take a thousandth.
    """
    from publicsuffixlist import PSLFILE, PublicSuffixList  # noqa: PLC0415  (only a bounce pays)

    names = {top}
    with suppress(UnicodeError):
        names.add(top.encode("ascii").decode("idna"))  # the list has them as they are read
    ending = "|".join(map(re.escape, names))
    registries, _, _ = Path(PSLFILE).read_text("utf-8").partition("===END ICANN DOMAINS===")
    lines = re.findall(rf"^(?:[^\s/]*\.)?(?:{ending})$", registries, re.MULTILINE)
    return PublicSuffixList(lines)


# The client's name for itself comes before and a recipient after; either may look like this.
_CLIENT = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f:.]{3,45})\]\)?\s+by\s+inbound-smtp\.")


def client_address(mail: InboundMessage) -> IPv4Address | IPv6Address | None:
    """The host that the mail came to SES from, by SES's own Received field, the topmost.

    None when it cannot be read, or when the field names several.
    """
    found = _clients(mail)
    return found[0] if len(found) == 1 else None


def _clients(mail: InboundMessage) -> list[IPv4Address | IPv6Address]:
    received = next((h.value for h in mail.headers if h.name.lower() == "received"), "")
    found: dict[IPv4Address | IPv6Address, None] = {}
    for each in _CLIENT.findall(received[:_RECEIVED_LIMIT]):
        with suppress(ValueError):
            client = ip_address(each)
            found[getattr(client, "ipv4_mapped", None) or client] = None
    return list(found)


def client_network(mail: InboundMessage) -> str | None:
    """The /24 or /48 of that host, or UNCLEAR.

    None when there is none that can be read: then nothing is counted for it.
    """
    found = _clients(mail)
    return network_of(found[0]) if len(found) == 1 else UNCLEAR if found else None


def network_of(client: IPv4Address | IPv6Address) -> str:
    """What one customer of a provider has, at the least: a /24 or a /48."""
    return str(ip_network(f"{client}/{24 if client.version == 4 else 48}", strict=False))


def slice_of(now: datetime, seconds: float) -> int:
    """The number of the slice of time that `now` lies in."""
    return int(now.timestamp() // seconds)
