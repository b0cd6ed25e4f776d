"""The doctor's questions to the DNS, asked of a server of our own on loopback."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from bouncer_console.doctor.dns import DnsError, Resolver
from local.aws.dns import DnsServer, Records, records_of

MX = "10 inbound-smtp.us-east-1.amazonaws.com."


class Zone:
    """A running server, and what it answers."""

    def __init__(self) -> None:
        self.records: Records = {}
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Zone":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _serve(self) -> None:
        opening = self._loop.create_datagram_endpoint(
            lambda: DnsServer(lambda: self.records), local_addr=("127.0.0.1", 0)
        )
        transport, _ = self._loop.run_until_complete(opening)
        self.port = transport.get_extra_info("sockname")[1]
        self._ready.set()
        self._loop.run_forever()
        transport.close()
        self._loop.run_until_complete(asyncio.sleep(0))

    @property
    def resolver(self) -> Resolver:
        return Resolver(f"127.0.0.1:{self.port}")


@pytest.fixture
def zone() -> Iterator[Zone]:
    with Zone() as running:
        yield running


def test_mail_exchangers_come_by_preference(zone: Zone) -> None:
    zone.records = {("example.com", "MX"): MX}
    assert zone.resolver.mx("example.com") == ("inbound-smtp.us-east-1.amazonaws.com",)
    assert zone.resolver.mx("Example.COM") == ("inbound-smtp.us-east-1.amazonaws.com",)
    assert zone.resolver.mx("nowhere.example") == ()


@pytest.mark.parametrize(
    ("records", "domain", "policy"),
    [
        ({}, "bounce.example.com", None),
        ({"_dmarc.bounce.example.com": "v=DMARC1; p=none"}, "bounce.example.com", "none"),
        ({"_dmarc.example.com": "v=DMARC1; p=reject"}, "example.com", "reject"),
        ({"_dmarc.example.com": "v=DMARC1; p=reject"}, "bounce.example.com", "reject"),
        ({"_dmarc.example.com": "v=DMARC1; p=reject; sp=none"}, "bounce.example.com", "none"),
        ({"_dmarc.example.com": "v=DMARC1; p=none; sp=reject"}, "example.com", "none"),
        (
            {"_dmarc.example.com": "v=DMARC1;p=reject", "_dmarc.b.example.com": "v=DMARC1;p=none"},
            "b.example.com",
            "none",
        ),
        ({"_dmarc.example.co.uk": "v=DMARC1; p=reject"}, "b.example.co.uk", "reject"),
        ({"_dmarc.co.uk": "v=DMARC1; p=reject"}, "example.co.uk", None),
        ({"_dmarc.example.com": "some other text"}, "example.com", None),
    ],
)
def test_the_dmarc_policy_is_that_which_governs_the_domain(
    zone: Zone, records: dict[str, str], domain: str, policy: str | None
) -> None:
    """RFC 7489 §6.6.3: the domain's own record, else the organisational domain's."""
    zone.records = {(name, "TXT"): f'"{text}"' for name, text in records.items()}
    assert zone.resolver.dmarc(domain).get("p") == policy


def test_the_emulators_domains_are_as_their_owners_would_have_them(zone: Zone) -> None:
    zone.records = records_of(["example.com", "alice@example.org"])
    assert zone.resolver.mx("example.com") == ("inbound-smtp.us-east-1.amazonaws.com",)
    assert zone.resolver.dmarc("example.com")["p"] == "none"
    assert zone.resolver.mx("example.org") == ()


def test_a_server_that_does_not_answer_says_nothing_about_the_domain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Zone() as gone:
        resolver = gone.resolver
    monkeypatch.setattr(resolver._resolver, "lifetime", 0.3)
    with pytest.raises(DnsError, match=r"no answer about example\.com"):
        resolver.mx("example.com")


@pytest.mark.parametrize("server", ["nowhere.example", "127.0.0.1:port"])
def test_a_resolver_is_named_by_its_address(server: str) -> None:
    with pytest.raises(DnsError, match="no DNS resolver"):
        Resolver(server)
