"""Addresses that are not wanted in what is printed are not in it, whatever fails."""

from collections.abc import Callable

import pytest

from tests.fakes.bounces import NOBODY
from tests.integration.builders import ALICE, put_mail, put_mailbox
from tests.integration.inbound.site import (
    Site,
    break_directory,
    break_ledger_and_budgets,
    break_queue,
)

SECRETS = ("nobody", "alice", "pat@", "sender.example", "example.com")


@pytest.mark.parametrize("addresses", ["hash", "none"])
@pytest.mark.parametrize(
    "trouble",
    [
        lambda site: None,
        lambda site: setattr(
            site.ses, "answers", [(400, "MessageRejected", f"{NOBODY} is not verified")]
        ),
        lambda site: setattr(site.ses, "answers", [(503, "ServiceUnavailable", NOBODY)] * 5),
        lambda site: put_mailbox(site.dynamodb, status="sleeping"),
        break_directory,
        break_ledger_and_budgets,
        break_queue,
    ],
    ids=["none", "rejected", "unavailable", "bad item", "directory", "ledger", "queue"],
)
def test_where_addresses_are_not_wanted_none_is_printed(
    site: Site, addresses: str, trouble: Callable[[Site], None]
) -> None:
    site.configure(LOG_ADDRESSES=addresses)
    put_mail(site.s3, "msg1")
    trouble(site)
    site.mail(NOBODY, ALICE)
    for secret in SECRETS:
        assert secret not in site.printed.text.lower(), secret
    assert "msg1" in site.printed.text or "mail not handled" in site.printed.text
