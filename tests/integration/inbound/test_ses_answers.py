"""What each answer of SES to SendBounce leads to."""

import pytest

from bouncer.aws import clients
from tests.fakes.bounces import NOBODY
from tests.integration.builders import entry_of, recipients_of
from tests.integration.inbound.site import TO_THE_MAILBOX, AppConfig, Site


@pytest.mark.parametrize(
    ("answers", "calls", "event"),
    [
        ([(400, "Throttling", "slow down")], 2, "SendBounceThrottled"),
        ([(503, "ServiceUnavailable", "later")], 2, "SendBounceFailed"),
        ([(500, "InternalFailure", "oops"), (400, "Throttling", "slow")], 3, "SendBounceFailed"),
    ],
)
def test_what_passes_is_tried_again_within_the_invocation(
    site: Site, answers: list[tuple[int, str, str]], calls: int, event: str
) -> None:
    site.ses.answers = answers
    assert site.mail(NOBODY) == "STOP_RULE_SET"
    assert len(site.ses.calls) == calls
    assert site.state() == "sent"
    assert site.printed.counts[event] == 1


@pytest.mark.parametrize("code", ["ServiceUnavailable", "InternalFailure"])
def test_what_does_not_pass_in_time_is_queued(site: Site, code: str) -> None:
    site.ses.answers = [(503, code, "later")] * 10
    assert site.mail(NOBODY) == "STOP_RULE_SET"
    assert site.state() == "queued"
    assert [each["bounce"]["message_id"] for each in site.queued] == ["msg1"]


def test_a_connection_that_breaks_in_the_call_is_tried_again_once_and_then_given_up(
    site: Site,
) -> None:
    """Each call may have sent the bounce; as nobody knows, the mail goes on."""
    site.ses.hang_up = True
    assert site.mail(NOBODY) == "CONTINUE"
    assert len(site.ses.calls) == 2
    assert site.state() == "rejected"
    entry = entry_of(site.dynamodb, "msg1", NOBODY)
    assert (entry["error_code"], entry["lost_answers"]) == ("AnswerLost", "2")
    assert site.queued == []
    assert site.printed.counts["SendBounceAnswerLost"] == 2


def test_a_recipient_that_ses_would_refuse_does_not_cost_the_others_their_bounce(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender will not hear of that one, so the mail goes on."""
    monkeypatch.setattr(clients, "appconfigdata", AppConfig.that_serves(TO_THE_MAILBOX))
    site.configure(POLICY_APPLICATION="app", POLICY_ENVIRONMENT="live", POLICY_PROFILE="policy")
    assert site.mail(NOBODY, "a;b@example.com") == "CONTINUE"
    (call,) = site.ses.calls
    assert recipients_of(call) == [NOBODY]
    assert (site.state(), site.state("a;b@example.com")) == ("sent", "rejected")
    entry = entry_of(site.dynamodb, "msg1", "a;b@example.com")
    assert entry["error_code"] == "InvalidBounce"
    assert entry["detail"].startswith("final_recipient is the bare address")
    assert site.printed.counts == {"BounceSent:told": 1, "BounceRejected:told": 1}


def test_where_ses_would_refuse_every_recipient_it_is_not_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "appconfigdata", AppConfig.that_serves(TO_THE_MAILBOX))
    site.configure(POLICY_APPLICATION="app", POLICY_ENVIRONMENT="live", POLICY_PROFILE="policy")
    assert site.mail("a;b@example.com") == "CONTINUE"
    assert site.ses.calls == []
    assert site.state("a;b@example.com") == "rejected"


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "MessageRejected"), (400, "InvalidParameterValue"), (403, "AccessDenied")],
)
def test_what_ses_refuses_is_final_logged_and_counted_and_the_mail_goes_on(
    site: Site, status: int, code: str
) -> None:
    """Its sender will never know, so the mail must not vanish."""
    site.ses.answers = [(status, code, "because of this")]
    assert site.mail(NOBODY) == "CONTINUE"
    assert len(site.ses.calls) == 1
    assert site.queued == []
    assert site.state() == "rejected"
    entry = entry_of(site.dynamodb, "msg1", NOBODY)
    assert (entry["error_code"], entry["detail"]) == (code, "because of this")
    line = site.printed.line("mail handled")
    recipient = line["recipients"][0]
    assert (recipient["error_code"], recipient["detail"]) == (code, "because of this")
    assert site.printed.counts["BounceRejected:unknown-recipient"] == 1
