"""The function that the receipt rule calls, whole: event in, disposition out, nothing lost."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from bouncer.aws import clients
from bouncer.aws import usage as aws_usage
from bouncer.inbound import LateBounces
from bouncer.mailboxes import DirectoryUnavailableError
from bouncer.message import parse_event
from bouncer.settings import SettingsError
from functions.inbound import app
from tests.integration.builders import (
    ALICE,
    BOUNCE_SENDER,
    BOUNCES,
    BUCKET,
    MAILBOXES,
    NOBODY,
    PREFIX,
    Answer,
    Context,
    SesServer,
    bodies,
    entry_of,
    fail,
    know_domain,
    mailbox_of,
    put_mail,
    put_mailbox,
    recipients_of,
    requests_of,
    ses_event,
    stored,
)
from tests.integration.conftest import Printed, Services


class Site:
    """The deployed function, as these tests see it."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        services: Services,
        ses: SesServer,
        printed: Printed,
    ) -> None:
        self.dynamodb, self.s3, self.sqs = services
        self.ses = ses
        self.printed = printed
        self.bounce_queue = services.queue("bounces")
        self.event_queue = services.queue("events")
        self._monkeypatch = monkeypatch
        self.delays: list[int] = []
        """Of what was put into a queue; it is there at once all the same."""
        events: Any = self.sqs.meta.events
        events.register("before-parameter-build.sqs.SendMessage", self._without_delay)
        self.configure(
            BOUNCE_TABLE=BOUNCES,
            PACE_TABLE=BOUNCES,
            BOUNCE_QUEUE_URL=self.bounce_queue,
            BOUNCE_SENDER=BOUNCE_SENDER,
            MODE="enforce",
            REFUSED_MAIL_STOPS="rule-set",
            EVENT_DEAD_LETTER_QUEUE_URL=self.event_queue,
            MAILBOX_TABLE=MAILBOXES,
            MAIL_BUCKET=BUCKET,
            MAIL_PREFIX=PREFIX,
        )

    def configure(self, **variables: str) -> None:
        """A cold start with these variables, beside those that are set."""
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)
        app.application.cache_clear()

    def handle(self, event: Any, **context: Any) -> str:
        answer: dict[str, str] = app.handler(event, Context(**context))  # type: ignore[arg-type]
        assert set(answer) == {"disposition"}
        return answer["disposition"]

    def mail(self, *recipients: str, **fields: Any) -> str:
        return self.handle(ses_event(*recipients, **fields))

    def _without_delay(self, params: dict[str, Any], **_: Any) -> None:
        self.delays.append(params.pop("DelaySeconds", 0))

    def limiter_is_busy_for(self, seconds: float) -> None:
        next_slot = datetime.now(UTC).timestamp() + seconds
        self.dynamodb.put_item(
            TableName=BOUNCES,
            Item={
                "pk": {"S": "limiter"},
                "sk": {"S": "send-bounce"},
                "next_slot": {"N": f"{next_slot:.6f}"},
            },
        )

    def state(self, recipient: str = NOBODY, message_id: str = "msg1") -> str | None:
        return entry_of(self.dynamodb, message_id, recipient).get("state")

    @property
    def queued(self) -> list[Any]:
        return bodies(self.sqs, self.bounce_queue)

    @property
    def kept(self) -> list[Any]:
        return bodies(self.sqs, self.event_queue)


@pytest.fixture
def site(
    monkeypatch: pytest.MonkeyPatch, services: Services, ses_server: SesServer, printed: Printed
) -> Site:
    know_domain(services.dynamodb)
    return Site(monkeypatch, services, ses_server, printed)


# --- Outcomes --------------------------------------------------------------------------------


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """A mailbox, a mail to it, and what SendBounce is asked for."""

    name: str
    mailbox: dict[str, Any] | None = None
    recipient: str = ALICE
    size: int = 1000
    bounce: tuple[str, str] | None = None
    """The bounce's name of the parameter that says what it is, and its value."""
    reason: str = "accept"


_TYPE = "BounceType"
_STATUS = "RecipientDsnFields.Status"
STORIES = [
    Story(
        name="unknown", recipient=NOBODY, bounce=(_TYPE, "DoesNotExist"), reason="unknown-recipient"
    ),
    Story(
        name="over quota",
        mailbox={"quota_bytes": 100, "used_bytes": 100},
        bounce=(_TYPE, "ExceededQuota"),
        reason="over-quota",
    ),
    Story(
        name="no room for this mail",
        mailbox={"quota_bytes": 1000, "used_bytes": 100},
        bounce=(_TYPE, "ExceededQuota"),
        reason="over-quota",
    ),
    Story(
        name="too large for the mailbox",
        mailbox={"size_limit_bytes": 999},
        bounce=(_TYPE, "MessageTooLarge"),
        reason="too-large",
    ),
    Story(
        name="disabled",
        mailbox={"status": "disabled"},
        bounce=(_STATUS, "5.2.1"),
        reason="mailbox-disabled",
    ),
    Story(
        name="moved",
        mailbox={"moved_to": "alice@new.example"},
        bounce=(_STATUS, "5.1.6"),
        reason="mailbox-moved",
    ),
    Story(name="known", mailbox={}),
    Story(name="room left", mailbox={"quota_bytes": 2000, "used_bytes": 100}),
    Story(name="just small enough", mailbox={"size_limit_bytes": 1000}),
    Story(name="tagged", mailbox={}, recipient="alice+news@example.com"),
    Story(name="in another case", mailbox={}, recipient="Alice@Example.COM"),
    Story(
        name="disabled until yesterday",
        mailbox={"status": "disabled", "status_until": "2020-01-01T00:00:00Z"},
    ),
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_how_a_mail_comes_out(site: Site, story: Story) -> None:
    if story.mailbox is not None:
        put_mailbox(site.dynamodb, **story.mailbox)
    put_mail(site.s3, "msg1", bytes(story.size))
    disposition = site.mail(story.recipient)
    line = site.printed.line("mail handled")
    assert line["recipients"][0]["reason"] == story.reason
    if story.bounce is None:
        assert (disposition, site.ses.calls) == ("CONTINUE", [])
        return
    (call,) = site.ses.calls
    name, value = story.bounce
    assert call.parameters[f"BouncedRecipientInfoList.member.1.{name}"] == value
    assert call.parameters["OriginalMessageId"] == "msg1"
    assert call.parameters["BounceSender"] == BOUNCE_SENDER
    assert disposition == "STOP_RULE_SET"
    assert site.state(story.recipient) == "sent"
    assert site.printed.counts[f"BounceSent:{story.reason}"] == 1


def test_of_several_recipients_the_refused_ones_share_a_bounce_and_the_mail_goes_on(
    site: Site,
) -> None:
    put_mailbox(site.dynamodb)
    put_mailbox(site.dynamodb, "full@example.com", quota_bytes=1, used_bytes=1)
    assert site.mail(NOBODY, "full@example.com", ALICE) == "CONTINUE"
    (call,) = site.ses.calls
    assert recipients_of(call) == [NOBODY, "full@example.com"]
    assert (site.state(NOBODY), site.state("full@example.com"), site.state(ALICE)) == (
        "sent",
        "sent",
        None,
    )


def test_the_sender_reads_why_in_the_policys_words(site: Site) -> None:
    site.mail(NOBODY)
    (call,) = site.ses.calls
    assert call.parameters["Explanation"].startswith(f"There is no mailbox {NOBODY} here.")


@pytest.mark.parametrize("verdict", ["spam", "virus"])
def test_what_is_foul_is_dropped_without_a_word(site: Site, verdict: str) -> None:
    assert site.mail(NOBODY, **{verdict: "FAIL"}) == "STOP_RULE_SET"
    assert site.ses.calls == []
    assert site.printed.counts == {f"RecipientDropped:{verdict}": 1}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"sender": ""}, "null-sender"),
        ({"sender": "<>"}, "null-sender"),
        ({"sender": NOBODY}, "own-address"),
        ({"sender": BOUNCE_SENDER}, "own-address"),
        ({"sender": "other@example.com", "spf": "GRAY", "dmarc": "GRAY"}, "own-domain"),
        ({"spf": "FAIL", "dkim": "GRAY", "dmarc": "GRAY"}, "spf-failed"),
        ({"spf": "GRAY", "dkim": "GRAY", "dmarc": "GRAY"}, "unproven-sender"),
        ({"headers": [("List-Id", "<x>")]}, "list-mail"),
        ({"headers": [("Auto-Submitted", "auto-replied")]}, "auto-submitted"),
        ({"headers_truncated": True}, "headers-truncated"),
    ],
)
def test_whom_nobody_may_answer_is_not_answered(
    site: Site, fields: dict[str, Any], reason: str
) -> None:
    assert site.mail(NOBODY, **fields) == "STOP_RULE_SET"
    assert site.ses.calls == []
    assert site.state() == "suppressed"
    assert site.printed.line("mail handled")["suppressed"] == reason
    assert site.printed.counts[f"BounceSuppressed:{reason}"] == 1


def test_a_bounce_sender_is_never_told_of_and_the_ledger_and_the_record_say_so(
    site: Site,
) -> None:
    """Somebody, often a robot, answered a bounce: who else stands in the mail is told of."""
    assert site.mail(BOUNCE_SENDER, NOBODY) == "STOP_RULE_SET"
    (call,) = site.ses.calls
    assert recipients_of(call) == [NOBODY]
    assert (site.state(BOUNCE_SENDER), site.state(NOBODY)) == ("suppressed", "sent")
    assert site.printed.counts["BounceSuppressed:bounce-sender-recipient"] == 1
    line = site.printed.line("mail handled")
    assert {each["state"] for each in line["recipients"]} == {"suppressed", "sent"}
    record = stored(site.dynamodb, BOUNCES, pk="message#msg1", sk="mail")
    assert BOUNCE_SENDER in record["recipients"]
    assert NOBODY in record["recipients"]


def test_a_mail_to_the_bounce_sender_alone_ends_in_silence(site: Site) -> None:
    assert site.mail(BOUNCE_SENDER) == "STOP_RULE_SET"
    assert site.ses.calls == []
    assert site.state(BOUNCE_SENDER) == "suppressed"
    assert site.printed.line("mail handled")["suppressed"] == "bounce-sender-recipient"


def test_truncated_headers_are_read_again_from_the_stored_mail(site: Site) -> None:
    put_mail(site.s3, "msg1", b"From: pat@sender.example\r\nPrecedence: bulk\r\n\r\n")
    site.mail(NOBODY, headers_truncated=True)
    assert site.printed.line("mail handled")["suppressed"] == "list-mail"


def test_truncated_headers_that_say_nothing_stop_no_bounce(site: Site) -> None:
    put_mail(site.s3, "msg1", b"From: pat@sender.example\r\n\r\n")
    site.mail(NOBODY, headers_truncated=True)
    assert site.state() == "sent"


@pytest.mark.parametrize(("age", "state"), [(23.9, "sent"), (24.0, "expired"), (100.0, "expired")])
def test_after_the_window_nothing_is_sent(site: Site, age: float, state: str) -> None:
    site.configure(WINDOW_MARGIN_SECONDS="60")
    received_at = datetime.now(UTC) - timedelta(hours=age)
    goes = "STOP_RULE_SET" if state == "sent" else "CONTINUE"
    assert site.mail(NOBODY, received_at=received_at) == goes
    assert site.state() == state
    assert len(site.ses.calls) == (state == "sent")


def test_who_has_spent_his_budget_is_not_told_and_keeps_his_mail(site: Site) -> None:
    """The shipped policy allows a sender 100 recipients a day."""
    for number in range(2):
        recipients = [f"nobody{number}-{each}@example.com" for each in range(50)]
        assert site.mail(*recipients, message_id=f"msg{number}") == "STOP_RULE_SET"
    sent = len(site.ses.calls)
    assert site.mail(NOBODY, message_id="one-more") == "CONTINUE"
    assert len(site.ses.calls) == sent
    assert site.printed.lines[-1]["suppressed"] == "sender-budget"
    assert site.printed.counts["SenderNotTold:sender-budget"] == 1


def test_in_a_backlog_the_bounce_is_queued_and_the_mail_still_stops(site: Site) -> None:
    site.limiter_is_busy_for(60)
    assert site.mail(NOBODY) == "STOP_RULE_SET"
    (message,) = site.queued
    assert message["bounce"]["message_id"] == "msg1"
    assert site.state() == "queued"
    assert site.delays == [2]
    assert site.ses.calls == []
    assert site.printed.counts["BounceQueued:unknown-recipient"] == 1


def test_a_container_that_knows_the_backlog_leaves_ledger_and_limiter_alone(site: Site) -> None:
    site.limiter_is_busy_for(60)
    site.mail(NOBODY, message_id="msg1")
    seen = requests_of(site.dynamodb)
    site.mail(NOBODY, message_id="msg2")
    # The directory, the domain's budget (nobody knows the network), the note that it was queued,
    # and the mail's record.
    assert seen == ["BatchGetItem", "UpdateItem", "UpdateItem", "UpdateItem"]
    assert len(site.queued) == 2


def test_a_mail_that_is_delivered_twice_is_bounced_once(site: Site) -> None:
    assert [site.mail(NOBODY) for _ in range(3)] == ["STOP_RULE_SET"] * 3
    assert len(site.ses.calls) == 1
    assert site.printed.counts["BounceRepeatPrevented"] == 2
    assert site.printed.counts["BounceSent:unknown-recipient"] == 1


def test_overlapping_rules_bounce_each_recipient_once(site: Site) -> None:
    site.mail("a@example.com", "b@example.com")
    site.mail("b@example.com", "c@example.com")
    assert [recipients_of(call) for call in site.ses.calls] == [
        ["a@example.com", "b@example.com"],
        ["c@example.com"],
    ]


def test_an_accepted_mail_costs_one_read_and_its_record(site: Site) -> None:
    put_mailbox(site.dynamodb)
    put_mail(site.s3, "msg1")
    seen = requests_of(site.dynamodb)
    site.mail(ALICE)
    assert seen == ["BatchGetItem", "UpdateItem"]


def test_without_stored_mail_no_size_is_asked_for(site: Site) -> None:
    site.configure(MAIL_BUCKET="")
    put_mailbox(site.dynamodb, size_limit_bytes=1)
    seen = requests_of(site.s3)
    assert site.mail(ALICE) == "CONTINUE"
    assert seen == []


def test_a_size_that_cannot_be_had_lets_the_mail_go_on_and_is_noted(site: Site) -> None:
    put_mailbox(site.dynamodb, size_limit_bytes=1)
    assert site.mail(ALICE) == "CONTINUE"
    assert site.printed.counts["StoredMailUnavailable"] == 1


def test_a_bad_directory_item_lets_the_mail_go_on_and_is_noted(site: Site) -> None:
    put_mailbox(site.dynamodb, status="sleeping")
    put_mail(site.s3, "msg1")
    assert site.mail(ALICE) == "CONTINUE"
    assert site.printed.line("MailboxItemInvalid")["mailbox"] == ALICE
    assert site.printed.counts["MailboxItemInvalid"] == 1


def test_the_table_may_be_the_users_own(site: Site) -> None:
    site.configure(MAILBOX_ATTRIBUTES="quota_bytes=space,used_bytes=taken")
    put_mailbox(site.dynamodb, space=10, taken=10)
    site.mail(ALICE)
    assert site.printed.line("mail handled")["recipients"][0]["reason"] == "over-quota"


def test_a_wrong_slot_in_the_limiter_is_repaired_and_noted(site: Site) -> None:
    site.limiter_is_busy_for(3600)
    site.mail(NOBODY)
    assert site.state() == "sent"
    assert "3600 s ahead" in site.printed.line("SlotRepaired")["detail"]


# --- Managed usage ---------------------------------------------------------------------------


@pytest.fixture
def managed(site: Site) -> Site:
    site.configure(USAGE="managed")
    put_mail(site.s3, "msg1", bytes(400))
    put_mail(site.s3, "msg2", bytes(400))
    put_mailbox(site.dynamodb, quota_bytes=1000)
    return site


def test_an_accepted_mail_is_counted_once(managed: Site) -> None:
    assert [managed.mail(ALICE) for _ in range(2)] == ["CONTINUE"] * 2
    assert mailbox_of(managed.dynamodb)["used_bytes"] == "400"


def test_counting_costs_one_transaction_a_recipient_more(managed: Site) -> None:
    put_mailbox(managed.dynamodb, "bob@example.com")
    seen = requests_of(managed.dynamodb)
    managed.mail(ALICE, "bob@example.com")
    assert seen == ["BatchGetItem", "TransactWriteItems", "TransactWriteItems", "UpdateItem"]


def test_a_refused_mail_is_not_counted(managed: Site) -> None:
    put_mailbox(managed.dynamodb, quota_bytes=300)
    assert managed.mail(ALICE) == "STOP_RULE_SET"
    assert "used_bytes" not in mailbox_of(managed.dynamodb)
    assert len(managed.ses.calls) == 1


def test_a_mailbox_that_fills_up_meanwhile_bounces(managed: Site) -> None:
    """Another mail came between the look-up and the charge."""

    def meanwhile(**_: Any) -> None:
        put_mailbox(managed.dynamodb, quota_bytes=1000, used_bytes=900)

    managed.dynamodb.meta.events.register("after-call.dynamodb.BatchGetItem", meanwhile)
    assert managed.mail(ALICE) == "STOP_RULE_SET"
    assert managed.printed.line("mail handled")["recipients"][0]["reason"] == "over-quota"
    assert mailbox_of(managed.dynamodb)["used_bytes"] == "900"
    assert managed.state(ALICE) == "sent"


def test_whose_turn_does_not_come_goes_on_and_is_left_to_the_audit(
    managed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No dead letter and no alarm for each mail of a burst."""
    monkeypatch.setattr(aws_usage.DynamoUsage, "_pause", lambda *_: None)
    reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
    busy = Answer(code="TransactionCanceledException", more={"CancellationReasons": reasons})
    fail(managed.dynamodb, "TransactWriteItems", *[busy] * 100)
    assert managed.mail(ALICE) == "CONTINUE"
    assert managed.kept == []
    assert managed.printed.counts["UsageBusy"] == 1
    assert stored(managed.dynamodb, BOUNCES, pk="message#msg1", sk="mail") == {}
    assert "used_bytes" not in mailbox_of(managed.dynamodb)


@pytest.mark.parametrize(
    ("mailbox", "counted"),
    [
        ({"quota_bytes": 300}, "400"),
        ({"quota_bytes": 1000, "used_bytes": 1000}, "1400"),
        ({"quota_bytes": 300, "status": "disabled"}, None),
    ],
    ids=["too small", "full", "disabled"],
)
def test_what_went_on_undecided_to_a_full_mailbox_is_counted_beyond_its_quota(
    managed: Site, mailbox: dict[str, Any], counted: str | None
) -> None:
    put_mailbox(managed.dynamodb, **mailbox)
    (mail,) = parse_event(ses_event(ALICE))
    until = datetime.now(UTC) + timedelta(seconds=50)
    for owner in ("first", "again"):
        handled = app.application().inbound.handle(
            mail, owner=owner, until=until, late=LateBounces.UNKNOWN
        )
        assert handled.withheld == {ALICE}
    assert mailbox_of(managed.dynamodb).get("used_bytes") == counted
    assert managed.ses.calls == []


def test_the_mail_that_passes_the_mark_is_noted(managed: Site) -> None:
    put_mailbox(managed.dynamodb, quota_bytes=1000, used_bytes=500)
    managed.mail(ALICE, message_id="msg1")
    assert managed.printed.counts["MailboxNearFull"] == 1
    line = managed.printed.line("mailbox near full")
    assert (line["mailbox"], line["used_bytes"], line["quota_bytes"]) == (ALICE, 900, 1000)


def test_a_mail_is_counted_in_the_mailbox_that_an_alias_leads_to(managed: Site) -> None:
    put_mailbox(managed.dynamodb, "sales@example.com", alias_for=ALICE)
    managed.mail("sales@example.com")
    assert mailbox_of(managed.dynamodb)["used_bytes"] == "400"
    assert "used_bytes" not in mailbox_of(managed.dynamodb, "sales@example.com")


def test_usage_that_somebody_else_keeps_is_only_read(site: Site) -> None:
    put_mailbox(site.dynamodb, quota_bytes=1000)
    put_mail(site.s3, "msg1")
    site.mail(ALICE)
    assert "used_bytes" not in mailbox_of(site.dynamodb)


# --- What SES answers ------------------------------------------------------------------------


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
    monkeypatch.setattr(clients, "appconfigdata", _AppConfig.that_serves(TO_THE_MAILBOX))
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
    monkeypatch.setattr(clients, "appconfigdata", _AppConfig.that_serves(TO_THE_MAILBOX))
    site.configure(POLICY_APPLICATION="app", POLICY_ENVIRONMENT="live", POLICY_PROFILE="policy")
    assert site.mail("a;b@example.com") == "CONTINUE"
    assert site.ses.calls == []
    assert site.state("a;b@example.com") == "rejected"


def test_what_was_refused_is_tried_again_with_the_next_delivery_of_the_mail(site: Site) -> None:
    site.ses.answers = [(400, "MessageRejected", "not verified")]
    site.mail(NOBODY)
    assert site.mail(NOBODY) == "STOP_RULE_SET"
    assert site.state() == "sent"


def test_what_waits_in_the_queue_is_left_to_it_by_the_next_delivery_of_the_mail(
    site: Site,
) -> None:
    site.limiter_is_busy_for(60)
    site.mail(NOBODY)
    site.mail(NOBODY, headers=[("List-Id", "<x>")])
    assert site.state() == "queued"


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


# --- Nothing is lost -------------------------------------------------------------------------

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


def break_directory(site: Site) -> None:
    fail(site.dynamodb, "BatchGetItem", Answer(code="InternalServerError", status=500))


def break_ledger_and_budgets(site: Site) -> None:
    fail(site.dynamodb, "UpdateItem", *[Answer(code="InternalServerError", status=500)] * 10)


def break_queue(site: Site) -> None:
    site.limiter_is_busy_for(60)
    fail(site.sqs, "SendMessage", EndpointConnectionError(endpoint_url="https://sqs"))


BREAKS = {
    "directory": break_directory,
    "ledger and budgets": break_ledger_and_budgets,
    "queue": break_queue,
}


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


def test_an_invocation_that_is_nearly_over_queues(site: Site) -> None:
    assert site.handle(ses_event(), seconds_left=10) == "STOP_RULE_SET"
    assert len(site.queued) == 1
    assert site.ses.calls == []


# --- More than one record --------------------------------------------------------------------


def both(first: Any, second: Any) -> dict[str, Any]:
    return {"Records": [*first["Records"], *second["Records"]]}


def test_of_two_mails_the_one_that_must_go_on_decides(site: Site) -> None:
    put_mailbox(site.dynamodb)
    put_mail(site.s3, "msg2")
    refused = ses_event(NOBODY, message_id="msg1")
    accepted = ses_event(ALICE, message_id="msg2")
    assert site.handle(both(refused, accepted)) == "CONTINUE"
    assert site.state() == "sent"


def test_two_refused_mails_stop(site: Site) -> None:
    first, second = ses_event(message_id="msg1"), ses_event(message_id="msg2")
    assert site.handle(both(first, second)) == "STOP_RULE_SET"
    assert len(site.ses.calls) == 2


# --- Wiring ----------------------------------------------------------------------------------


def test_without_its_environment_the_function_says_what_is_missing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOUNCE_SENDER")
    app.application.cache_clear()
    with pytest.raises(SettingsError, match="BOUNCE_SENDER"):
        site.mail(NOBODY)


def test_the_parts_are_put_together_once_a_container(site: Site) -> None:
    site.mail(NOBODY, message_id="msg1")
    first = app.application()
    site.mail(NOBODY, message_id="msg2")
    assert app.application() is first


DROP_EVERYTHING = {"version": 1, "rules": [{"name": "nothing-today", "action": "drop"}]}
TO_THE_MAILBOX = {
    "version": 1,
    "rules": [
        {
            "name": "told",
            "action": "bounce",
            "recipient_dsn_fields": {"status": "5.1.1", "final_recipient": "{recipient}"},
        }
    ],
}


class _AppConfig:
    """A stand-in for AppConfig's client, with one policy."""

    def __init__(self, policy: dict[str, Any] = DROP_EVERYTHING) -> None:
        self._policy = policy

    @classmethod
    def that_serves(cls, policy: dict[str, Any]) -> Callable[[], "_AppConfig"]:
        return lambda: cls(policy)

    def start_configuration_session(self, **_: str) -> dict[str, Any]:
        return {"InitialConfigurationToken": "token"}

    def get_latest_configuration(self, **_: str) -> dict[str, Any]:
        return {"Configuration": self, "NextPollConfigurationToken": "token"}

    def read(self) -> bytes:
        return json.dumps(self._policy).encode()


def test_the_policy_may_come_from_appconfig(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "appconfigdata", _AppConfig)
    site.configure(POLICY_APPLICATION="app", POLICY_ENVIRONMENT="live", POLICY_PROFILE="policy")
    assert site.mail(NOBODY) == "STOP_RULE_SET"
    assert site.printed.counts == {"RecipientDropped:nothing-today": 1}


# --- Addresses in what is printed ------------------------------------------------------------

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


def test_a_mail_that_is_suppressed_leaves_a_line_in_the_ledger(site: Site) -> None:
    site.mail(NOBODY, sender="")
    entry = stored(site.dynamodb, BOUNCES, pk="message#msg1", sk=f"recipient#{NOBODY}")
    assert (entry["state"], entry["reason"]) == ("suppressed", "null-sender")


# --- How long refused mail is kept -----------------------------------------------------------


def tags(site: Site, message_id: str = "msg1") -> list[Any]:
    found: Any = site.s3.get_object_tagging(Bucket=BUCKET, Key=PREFIX + message_id)["TagSet"]
    return list(found)


@pytest.mark.parametrize(
    ("scope", "recipients", "verdicts", "tagged"),
    [
        ("rule-set", [NOBODY], {}, True),
        ("rule-set", [NOBODY], {"virus": "FAIL"}, True),
        ("rule-set", [NOBODY, "postmaster@example.com"], {}, False),
        ("rule", [NOBODY], {}, False),
    ],
)
def test_only_a_mail_that_nobody_gets_is_marked_as_refused(
    site: Site, scope: str, recipients: list[str], verdicts: dict[str, str], tagged: bool
) -> None:
    site.configure(MARK_REFUSED_MAIL="true", REFUSED_MAIL_STOPS=scope)
    put_mail(site.s3, "msg1")
    site.mail(*recipients, **verdicts)
    assert tags(site) == ([{"Key": "ses-bouncer", "Value": "refused"}] if tagged else [])


def test_refused_mail_stays_unless_it_is_to_expire(site: Site) -> None:
    put_mail(site.s3, "msg1")
    site.mail(NOBODY)
    assert tags(site) == []


def test_a_mail_that_could_not_be_marked_is_refused_all_the_same(site: Site) -> None:
    site.configure(MARK_REFUSED_MAIL="true")
    put_mail(site.s3, "msg1")
    fail(site.s3, "PutObjectTagging", Answer(code="AccessDenied", status=403))
    assert site.mail(NOBODY) == "STOP_RULE_SET"
    assert site.printed.counts["RefusedMailNotMarked"] == 1
