"""A backend fails: the mail goes on, and its event is kept."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from bouncer.mailboxes import DirectoryUnavailableError
from tests.fakes.bounces import NOBODY
from tests.integration.builders import Answer, fail, ses_event
from tests.integration.inbound.site import BREAKS, Site, break_directory

RETRIED = "Event"
ANSWERED = "RequestResponse"


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"Records": []},
        {"Records": [{"s3": {}}]},
        {"Records": [{"ses": {"mail": {"messageId": "msg1"}}}]},
        [],
        None,
    ],
    ids=str,
)
def test_what_is_no_event_is_kept_and_goes_on(site: Site, event: Any) -> None:
    assert site.handle(event) == "CONTINUE"
    (record,) = site.kept
    assert record["requestPayload"] == event
    assert record["responsePayload"]["errorType"] == "MalformedEventError"
    assert site.printed.counts == {"EventKept:MalformedEventError": 1}


def test_a_malformed_event_is_kept_in_the_other_invocation_type_too(site: Site) -> None:
    """No retry would mend it."""
    event = ses_event(invocation_type=RETRIED)
    del event["Records"][0]["ses"]["mail"]["timestamp"]
    assert site.handle(event) == "CONTINUE"
    assert len(site.kept) == 1


@pytest.mark.parametrize("broken", BREAKS)
def test_an_unexpected_failure_lets_the_mail_go_on_and_keeps_the_event(
    site: Site, broken: str
) -> None:
    BREAKS[broken](site)
    event = ses_event(invocation_type=ANSWERED)
    assert site.handle(event) == "CONTINUE"
    (record,) = site.kept
    assert record["requestPayload"] == event
    assert record["requestContext"]["requestId"] == "request-1"
    assert site.ses.calls == []


@pytest.mark.parametrize("broken", BREAKS)
def test_an_unexpected_failure_is_raised_where_lambda_tries_again(site: Site, broken: str) -> None:
    """And puts the event into the same queue in the end."""
    BREAKS[broken](site)
    with pytest.raises(Exception, match=r"InternalServerError|Could not connect"):
        site.handle(ses_event(invocation_type=RETRIED))
    assert site.kept == []


def test_after_a_failure_the_next_try_decides_the_same(site: Site) -> None:
    break_directory(site)
    event = ses_event(invocation_type=RETRIED)
    with pytest.raises(DirectoryUnavailableError):
        site.handle(event)
    assert site.handle(event) == "STOP_RULE_SET"
    assert len(site.ses.calls) == 1


@pytest.mark.parametrize("event", [{}, ses_event()], ids=["malformed", "good"])
def test_when_even_the_keeper_fails_the_invocation_fails(site: Site, event: Any) -> None:
    """So that its caller has it still, instead of an answer that says all is well."""
    break_directory(site)
    fail(site.sqs, "SendMessage", Answer(code="AccessDenied", status=403))
    with pytest.raises(ClientError, match="AccessDenied"):
        site.handle(event)
    assert site.printed.line("mail not handled")["level"] == "ERROR"


def test_a_limiter_that_fails_costs_no_bounce(site: Site) -> None:
    site.mail(NOBODY, message_id="warm-up")

    def only_the_limiter(params: dict[str, Any], **_: Any) -> None:
        if params["Key"]["pk"] == {"S": "limiter"}:
            fail(site.dynamodb, "UpdateItem", Answer(code="InternalServerError", status=500))

    events: Any = site.dynamodb.meta.events
    events.register("before-parameter-build.dynamodb.UpdateItem", only_the_limiter)
    assert site.mail(NOBODY) == "STOP_RULE_SET"
    assert [each["bounce"]["message_id"] for each in site.queued] == ["msg1"]
    assert site.printed.counts["LimiterUnavailable"] == 1


def test_a_ledger_that_fails_after_the_call_is_counted_and_the_mail_stops(site: Site) -> None:
    def only_the_end(params: dict[str, Any], **_: Any) -> None:
        if params["ExpressionAttributeValues"].get(":new_state") == {"S": "sent"}:
            fail(site.dynamodb, "UpdateItem", Answer(code="InternalServerError", status=500))

    events: Any = site.dynamodb.meta.events
    events.register("before-parameter-build.dynamodb.UpdateItem", only_the_end)
    assert site.mail(NOBODY) == "STOP_RULE_SET"
    assert len(site.ses.calls) == 1
    assert site.kept == []
    assert site.printed.counts["LedgerWriteFailed"] == 1
