"""How often AWS is asked for one mail, by what becomes of it; the README's costs stand on this."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain

import pytest

from functions.inbound import app
from tests.fakes.bounces import NOBODY
from tests.integration.builders import (
    ALICE,
    BUCKET,
    Context,
    SesServer,
    know_domain,
    put_mail,
    put_mailbox,
    requests_of,
    reserve_until,
    ses_event,
)
from tests.integration.conftest import Printed, Services
from tests.unit.builders import received

type Calls = Callable[..., Counter[str]]

READ = {"BatchGetItem": 1}
CLIENT = received("192.0.2.1")
SEEN = [(CLIENT.name, CLIENT.value)]
"""SES's own header, by which the network is counted: every received mail has it."""


@pytest.fixture
def calls(
    monkeypatch: pytest.MonkeyPatch, services: Services, ses_server: SesServer, printed: Printed
) -> Calls:
    """Hand one mail to a fresh function: what AWS was asked for, by operation."""
    know_domain(services.dynamodb)
    put_mailbox(services.dynamodb, quota_bytes=10**9)
    put_mail(services.s3, "msg1")
    environment = services.environment() | {"MAIL_BUCKET": ""}

    def asked(recipient: str, sender: str = "pat@sender.example", **more: str) -> Counter[str]:
        for name, value in (environment | more).items():
            monkeypatch.setenv(name, value)
        app.application.cache_clear()
        seen = [requests_of(each) for each in services]
        event = ses_event(recipient, sender=sender, headers=SEEN)
        app.handler(event, Context())
        return Counter(chain.from_iterable(seen)) + Counter({"SendBounce": len(ses_server.calls)})

    return asked


def test_an_accepted_mail_is_a_read_and_its_record(calls: Calls) -> None:
    assert calls(ALICE) == READ | {"UpdateItem": 1}


def test_with_usage_also_a_look_at_the_size_and_one_transaction(calls: Calls) -> None:
    assert calls(ALICE, MAIL_BUCKET=BUCKET, USAGE="managed") == READ | {
        "HeadObject": 1,
        "TransactWriteItems": 1,
        "UpdateItem": 1,
    }


def test_a_bounced_mail_is_a_read_and_six_writes(calls: Calls) -> None:
    """Two budgets, claim, slot, end, record."""
    assert calls(NOBODY) == READ | {"UpdateItem": 6, "SendBounce": 1}


def test_stored_mail_to_nobody_is_not_looked_at(calls: Calls) -> None:
    bounced = calls(NOBODY, MAIL_BUCKET=BUCKET, USAGE="managed")
    assert bounced == READ | {"UpdateItem": 6, "SendBounce": 1}


def test_a_mail_of_nobody_who_is_told_is_a_read_and_two_writes(calls: Calls) -> None:
    """The ledger, record."""
    assert calls(NOBODY, sender="<>") == READ | {"UpdateItem": 2}


def test_a_queued_bounce_is_known_from_one_failed_request_more(
    calls: Calls, services: Services
) -> None:
    reserve_until(services.dynamodb, datetime.now(UTC).timestamp() + 60)
    found = calls(NOBODY)
    assert found["SendBounce"] == 0
    assert found["BatchGetItem"] == 1
    assert found["SendMessage"] == 1
    # As a bounced mail's, and the stack's key, which signs what is queued.
    assert found["UpdateItem"] == 7
