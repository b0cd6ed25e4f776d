"""What the DNS says of a domain: its mail exchangers, and the DMARC policy that governs it."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

import dns.exception
import dns.resolver
from publicsuffixlist import PublicSuffixList

_SECONDS = 5.0


class DnsError(Exception):
    """The DNS gave no answer; that says nothing about the domain."""


class Dns(Protocol):
    def mx(self, domain: str) -> tuple[str, ...]:
        """The mail exchangers' names, the preferred first; empty when it has none.

        Raises:
            DnsError: nobody answered.
        """
        ...

    def dmarc(self, domain: str) -> Mapping[str, str]:
        """The tags of the DMARC record that governs mail from a domain; empty when none does.

        The tag `p` is the policy that holds for just this domain: the organisational
        domain's `sp` where its record is the one that governs (RFC 7489 §6.6.3).

        Raises:
            DnsError: nobody answered.
        """
        ...


class Resolver:
    """A Dns, by the system's resolvers or by one that is named."""

    def __init__(self, server: str | None = None) -> None:
        """
        Args:
            server: `ADDRESS` or `ADDRESS:PORT` of the resolver to ask.

        Raises:
            DnsError: the server is no address, or this machine has no resolver.
        """
        try:
            self._resolver = dns.resolver.Resolver(configure=server is None)
            if server is not None:
                address, _, port = server.partition(":")
                self._resolver.nameservers = [address]
                self._resolver.port = int(port or 53)
        except (dns.exception.DNSException, ValueError) as error:
            raise DnsError(f"no DNS resolver: {error}") from error
        self._resolver.lifetime = _SECONDS

    def mx(self, domain: str) -> tuple[str, ...]:
        answer = self._ask(domain, "MX")
        exchangers = sorted((each.preference, str(each.exchange)) for each in answer)
        return tuple(name.rstrip(".").lower() for _, name in exchangers)

    def dmarc(self, domain: str) -> Mapping[str, str]:
        own = self._dmarc_record(domain)
        if own:
            return own
        parent = _suffixes().privatesuffix(domain)
        if parent is None or parent == domain:
            return {}
        inherited = self._dmarc_record(parent)
        if not inherited:
            return {}
        return {**inherited, "p": inherited.get("sp", inherited.get("p", "none"))}

    def _dmarc_record(self, domain: str) -> dict[str, str]:
        for each in self._ask(f"_dmarc.{domain}", "TXT"):
            text = b"".join(each.strings).decode("ascii", "replace")
            tags = dict(_tag(part) for part in text.split(";") if part.strip())
            if tags.get("v", "").upper() == "DMARC1":
                return tags
        return {}

    def _ask(self, name: str, kind: str) -> list[Any]:
        try:
            return list(self._resolver.resolve(name, kind))
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except dns.exception.DNSException as error:
            raise DnsError(f"no answer about {name} ({kind}): {error}") from error


def _tag(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name.strip().lower(), value.strip()


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()
