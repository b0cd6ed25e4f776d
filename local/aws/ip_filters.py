"""SES's receipt IP filters: who may speak to the SMTP server at all.

https://docs.aws.amazon.com/ses/latest/dg/receiving-email-ip-filtering-console-walkthrough.html

Not documented, and chosen here: what a blocked client is told (550 5.7.1 at RCPT TO), that the
most specific network wins, that of two filters for the same one the block wins, that an address
with bits beyond its prefix stands for its network (AWS's own example is 10.0.0.1/24), and whether
IPv6 is taken (it is).
"""

import ipaddress
import re
import threading
from enum import StrEnum

import msgspec

from local.aws.send_bounce import SesError

LIMIT = 100
"""Filters an account and Region."""

# botocore's model: letters, digits, underscores and dashes; 64 characters; its ends are no sign.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Policy(StrEnum):
    BLOCK = "Block"
    ALLOW = "Allow"


class IpFilter(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    policy: Policy
    cidr: str
    """As it was given."""
    network: Network


class IpFilters:
    """Those of the account; the SMTP server's thread asks, the HTTP server's writes."""

    def __init__(self) -> None:
        self._filters: dict[str, IpFilter] = {}
        self._lock = threading.Lock()

    def create(self, name: str, policy: str, cidr: str) -> None:
        """
        Raises:
            SesError: as SES refuses it.
        """
        if not _NAME.fullmatch(name):
            raise SesError("InvalidParameterValue", f"Not a valid filter name: {name}")
        if policy not in [*Policy]:
            raise SesError("ValidationError", f"Not a valid policy: {policy}")
        try:
            network = ipaddress.ip_network(cidr, strict=False)
        except ValueError as error:
            raise SesError("InvalidParameterValue", f"Invalid CIDR notation: {cidr}") from error
        with self._lock:
            if name in self._filters:
                raise SesError("AlreadyExists", f"Receipt filter already exists: {name}")
            if len(self._filters) >= LIMIT:
                raise SesError("LimitExceeded", f"No more than {LIMIT} receipt filters are allowed")
            self._filters[name] = IpFilter(
                name=name, policy=Policy(policy), cidr=cidr, network=network
            )

    def delete(self, name: str) -> None:
        """A filter that is not there is deleted too: the operation has no error for it."""
        with self._lock:
            self._filters.pop(name, None)

    def all(self) -> list[IpFilter]:
        with self._lock:
            return sorted(self._filters.values(), key=lambda each: each.name)

    def blocks(self, client: str) -> bool:
        """Whether the most specific filter for an address blocks it; without one, nothing does."""
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        fitting = [each for each in self.all() if address in each.network]
        if not fitting:
            return False
        nearest = max(each.network.prefixlen for each in fitting)
        return any(
            each.policy is Policy.BLOCK for each in fitting if each.network.prefixlen == nearest
        )
