"""The function behind the audit's queue, whole: notices in, what has to come again out."""

import json
from typing import Any

import pytest

from functions.inbound import app, audit
from tests.fakes.bounces import NOBODY
from tests.integration.builders import (
    ALICE,
    BOUNCES,
    Answer,
    Context,
    SesServer,
    entry_of,
    fail,
    know_domain,
    mailbox_of,
    put_mail,
    put_mailbox,
    recipients_of,
    ses_event,
    stored,
)
from tests.integration.conftest import Printed, Services


class Site:
    """Both functions of the decision, as deployed."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        services: Services,
        ses: SesServer,
        printed: Printed,
    ) -> None:
        self.dynamodb, self.s3, _ = services
        self.ses = ses
        self.printed = printed
        services.start(monkeypatch, app, audit, USAGE="managed")

    def audit(self, *bodies: str) -> list[str]:
        """The places in the batch that come back to the queue."""
        records = [{"messageId": str(n), "body": body} for n, body in enumerate(bodies)]
        context: Any = Context(function_name="ses-bouncer-audit")
        answer = audit.handler({"Records": records}, context)
        assert set(answer) == {"batchItemFailures"}
        return [each["itemIdentifier"] for each in answer["batchItemFailures"]]

    def told(self) -> list[list[str]]:
        return [recipients_of(call) for call in self.ses.calls]


@pytest.fixture
def site(
    monkeypatch: pytest.MonkeyPatch, services: Services, ses_server: SesServer, printed: Printed
) -> Site:
    know_domain(services.dynamodb)
    return Site(monkeypatch, services, ses_server, printed)


def notice(*recipients: str, **fields: Any) -> str:
    """What SES tells the topic of a mail."""
    ses = ses_event(*recipients, **fields)["Records"][0]["ses"]
    return json.dumps({"notificationType": "Received", **ses})


def test_a_mail_that_nobody_handled_is_handled_and_counted_as_found(site: Site) -> None:
    assert site.audit(notice(NOBODY)) == []
    assert site.told() == [[NOBODY]]
    assert entry_of(site.dynamodb, "msg1", NOBODY)["state"] == "sent"
    record = stored(site.dynamodb, BOUNCES, pk="message#msg1", sk="mail")
    assert record["found_undecided"] == "True"
    assert site.printed.counts["MailFoundUndecided"] == 1


def test_a_mail_that_was_handled_is_left_alone(site: Site) -> None:
    context: Any = Context()
    app.handler(ses_event(NOBODY), context)
    assert site.audit(notice(NOBODY), notice(NOBODY)) == []
    assert site.told() == [[NOBODY]]


def test_a_notice_that_nobody_can_read_comes_back_alone(site: Site) -> None:
    unreadable = json.dumps({"notificationType": "Received", "mail": {}})
    assert site.audit(unreadable, notice(NOBODY), "Successfully validated SNS topic") == ["0"]
    assert site.told() == [[NOBODY]]
    assert site.printed.counts["NoticeUnreadable"] == 1


def test_when_nobody_can_say_what_was_handled_every_notice_comes_back(site: Site) -> None:
    fail(site.dynamodb, "BatchGetItem", Answer(code="ValidationException"))
    assert site.audit(notice(NOBODY), notice(ALICE, message_id="msg2")) == ["0", "1"]
    assert site.told() == []
    assert site.printed.counts["AuditFailed"] == 2


def test_a_mail_that_a_full_mailbox_got_undecided_counts_beyond_its_quota(site: Site) -> None:
    """Its sender is not told: somebody has the mail."""
    put_mailbox(site.dynamodb, quota_bytes=100, used_bytes=90)
    put_mail(site.s3, "msg1", bytes(50))
    assert site.audit(notice(ALICE)) == []
    assert site.told() == []
    assert mailbox_of(site.dynamodb)["used_bytes"] == "140"
    record = stored(site.dynamodb, BOUNCES, pk="message#msg1", sk="mail")
    assert "found-undecided" in record["recipients"]
