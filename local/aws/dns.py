"""A DNS server for the domains that are verified here, as their owners would have set them up.

Each has its MX at SES and a DMARC record without a policy; nothing else exists. It answers on
loopback, so that `bouncer doctor` asks nobody outside of this machine.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from bouncer_console.mail import REGION

_TTL = 60

type Address = tuple[str, int]
type Records = Mapping[tuple[str, str], str]
"""Name and type to the record's data, as a zone file has it."""


def records_of(domains: Iterable[str]) -> Records:
    """The records of domains whose mail comes here."""
    names = [each.lower() for each in domains if "@" not in each]
    return {(name, "MX"): f"10 inbound-smtp.{REGION}.amazonaws.com." for name in names} | {
        (f"_dmarc.{name}", "TXT"): '"v=DMARC1; p=none"' for name in names
    }


class DnsServer(asyncio.DatagramProtocol):
    """Answers questions over UDP."""

    def __init__(self, records: Callable[[], Records]) -> None:
        """
        Args:
            records: all that there is, asked for every question.
        """
        self._records = records
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.DatagramTransport):
            self._transport = transport

    def datagram_received(self, data: bytes, address: Address) -> None:
        try:
            answer = self._answer(dns.message.from_wire(data))
        except (dns.exception.DNSException, ValueError):
            return  # no question that has an answer
        if self._transport is not None:
            self._transport.sendto(answer.to_wire(), address)

    def _answer(self, question: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.AA
        (asked,) = question.question
        name, kind = str(asked.name).rstrip(".").lower(), dns.rdatatype.to_text(asked.rdtype)
        records = self._records()
        text = records.get((name, kind))
        if text is not None:
            answer.answer.append(
                dns.rrset.from_text(asked.name, _TTL, dns.rdataclass.IN, asked.rdtype, text)
            )
        elif name not in {known for known, _ in records}:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer
