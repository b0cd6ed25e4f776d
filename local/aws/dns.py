"""A DNS server for the domains that are verified here, as their owners would have set them up.

Each has its MX at SES and a DMARC record without a policy; nothing else exists. It answers on
loopback, so that `bouncer doctor` asks nobody outside of this machine.
"""

import asyncio
from collections.abc import Callable, Iterable

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


class DnsServer(asyncio.DatagramProtocol):
    """Answers MX and TXT questions over UDP."""

    def __init__(self, domains: Callable[[], Iterable[str]]) -> None:
        """
        Args:
            domains: the domains that there are, asked for every question.
        """
        self._domains = domains
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.DatagramTransport):
            self._transport = transport

    def datagram_received(self, data: bytes, address: Address) -> None:
        try:
            question = dns.message.from_wire(data)
            answer = self._answer(question)
        except (dns.exception.DNSException, ValueError):
            return  # no question that has an answer
        if self._transport is not None:
            self._transport.sendto(answer.to_wire(), address)

    def _answer(self, question: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.AA
        (asked,) = question.question
        name, kind = str(asked.name).rstrip(".").lower(), asked.rdtype
        domains = {each.lower() for each in self._domains() if "@" not in each}
        texts = {
            (domain, dns.rdatatype.MX): f"10 inbound-smtp.{REGION}.amazonaws.com."
            for domain in domains
        } | {(f"_dmarc.{domain}", dns.rdatatype.TXT): '"v=DMARC1; p=none"' for domain in domains}
        text = texts.get((name, kind))
        if text is not None:
            answer.answer.append(
                dns.rrset.from_text(asked.name, _TTL, dns.rdataclass.IN, kind, text)
            )
        elif name not in {known for known, _ in texts}:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer
