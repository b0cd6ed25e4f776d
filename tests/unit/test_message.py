"""An SES event is read for what the bouncer needs, and a malformed one names the place."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from bouncer.headers import Header
from bouncer.message import (
    InboundMessage,
    InvocationType,
    MalformedEventError,
    Verdicts,
    parse_event,
    parse_notice,
)
from bouncer.plan import Disposition
from bouncer.proof import is_proven, prove
from tests.unit.builders import NOBODY, SENDER, event, mail, plan, policy, rule


def read(**parts: Any) -> InboundMessage:
    (message,) = parse_event(event(**parts))
    return message


def test_everything_that_ses_documents_is_read() -> None:
    (message,) = parse_event(
        {
            "Records": [
                {
                    "eventSource": "aws:ses",
                    "eventVersion": "1.0",
                    "ses": {
                        "mail": {
                            "timestamp": "2026-11-21T11:59:00.123Z",
                            "source": SENDER,
                            "messageId": "d6iitobk75ur44p8kdnnp7g2n800",
                            "destination": ["someone-else@example.net"],
                            "headersTruncated": True,
                            "headers": [
                                {"name": "Return-Path", "value": f"<{SENDER}>"},
                                {"name": "Subject", "value": "Hello"},
                            ],
                            "commonHeaders": {"returnPath": SENDER, "from": [SENDER]},
                        },
                        "receipt": {
                            "timestamp": "2026-11-21T11:59:00.123Z",
                            "processingTimeMillis": "222",
                            "recipients": [NOBODY, "alice@example.com"],
                            "spamVerdict": {"status": "GRAY"},
                            "virusVerdict": {"status": "DISABLED"},
                            "spfVerdict": {"status": "PASS"},
                            "dkimVerdict": {"status": "PROCESSING_FAILED"},
                            "dmarcVerdict": {"status": "FAIL"},
                            "dmarcPolicy": "reject",
                            "action": {
                                "type": "Lambda",
                                "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:f",
                                "invocationType": "RequestResponse",
                            },
                        },
                    },
                }
            ]
        }
    )
    assert message == InboundMessage(
        message_id="d6iitobk75ur44p8kdnnp7g2n800",
        received_at=datetime(2026, 11, 21, 11, 59, 0, 123_000, tzinfo=UTC),
        source=SENDER,
        return_path=SENDER,
        recipients=(NOBODY, "alice@example.com"),
        headers=(Header("Return-Path", f"<{SENDER}>"), Header("Subject", "Hello")),
        headers_truncated=True,
        verdicts=Verdicts(
            spam="GRAY", virus="DISABLED", spf="PASS", dkim="PROCESSING_FAILED", dmarc="FAIL"
        ),
        dmarc_policy="reject",
        invocation_type="RequestResponse",
    )


def test_what_may_be_absent_is_absent_and_never_proof_of_anything() -> None:
    assert read() == InboundMessage(
        message_id="msg1",
        received_at=datetime(2026, 11, 21, 11, 59, tzinfo=UTC),
        source=SENDER,
        recipients=(NOBODY,),
        headers_truncated=True,
        verdicts=Verdicts(spam="", virus="", spf="", dkim="", dmarc=""),
        invocation_type="Event",
    )
    assert InvocationType("Event") is InvocationType.EVENT


def test_the_recipients_are_those_of_the_envelope_and_not_of_the_headers() -> None:
    message = read(
        mail={
            "destination": ["header@example.com"],
            "commonHeaders": {"to": ["header@example.com"]},
            "headers": [{"name": "To", "value": "header@example.com"}],
        }
    )
    assert message.recipients == (NOBODY,)


def test_a_recipient_named_twice_is_decided_on_once() -> None:
    message = read(receipt={"recipients": ["b@example.com", "a@example.com", "b@example.com"]})
    assert message.recipients == ("b@example.com", "a@example.com")


def test_each_record_is_a_mail_of_its_own() -> None:
    two = event()["Records"] + event(mail={"messageId": "msg2"})["Records"]
    assert [each.message_id for each in parse_event({"Records": two})] == ["msg1", "msg2"]


@pytest.mark.parametrize(
    "stamp",
    [
        "2026-11-21T11:59:00Z",
        "2026-11-21T11:59:00.000Z",
        "2026-11-21T13:59:00+02:00",
        "2026-11-21T11:59:00",
        "2026-11-21 11:59:00Z",
    ],
)
def test_the_time_is_read_as_utc(stamp: str) -> None:
    received_at = read(mail={"timestamp": stamp}).received_at
    assert received_at == datetime(2026, 11, 21, 11, 59, tzinfo=UTC)
    assert received_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        pytest.param(None, "got `null`", id="null"),
        pytest.param([], "got `array`", id="a list"),
        pytest.param({}, "`Records`", id="empty object"),
        pytest.param({"Records": []}, "`$.Records` is empty", id="no records"),
        pytest.param({"Records": [{}]}, "`ses` - at `$.Records[0]`", id="SNS or another source"),
        pytest.param({"Records": [{"ses": {}}]}, "`mail` - at `$.Records[0].ses`", id="no mail"),
        pytest.param(
            {"Records": [*event()["Records"], {"ses": None}]},
            "at `$.Records[1].ses`",
            id="the second record",
        ),
        pytest.param(event(mail={"messageId": ""}), "`mail.messageId` is none", id="empty id"),
        pytest.param(event(mail={"messageId": 7}), "at `$.Records[0].ses.mail.messageId`", id="id"),
        pytest.param(
            event(mail={"timestamp": "yesterday"}),
            "at `$.Records[0].ses.mail.timestamp`",
            id="no time",
        ),
        pytest.param(
            event(mail={"timestamp": 1_763_000_000}),
            "at `$.Records[0].ses.mail.timestamp`",
            id="an epoch number",
        ),
        pytest.param(
            event(mail={"timestamp": "1969-12-31T23:59:59Z"}),
            "`mail.timestamp` is 1969-12-31",
            id="before all samples",
        ),
        pytest.param(
            event(mail={"timestamp": "0001-01-01T00:00:00+14:00"}),
            "`mail.timestamp` is 0001-01-01",
            id="the first day",
        ),
        pytest.param(
            event(mail={"timestamp": "9000-01-01T00:00:00Z"}),
            "`mail.timestamp` is 9000-01-01",
            id="far ahead",
        ),
        pytest.param(
            event(mail={"timestamp": "9999-12-31T23:59:59-12:00"}),
            "`mail.timestamp` is 9999-12-31",
            id="the last day",
        ),
        pytest.param(
            event(mail={"commonHeaders": {"returnPath": 7}}),
            "at `$.Records[0].ses.mail.commonHeaders.returnPath`",
            id="return path",
        ),
        pytest.param(
            event(mail={"headers": [{"name": "A", "value": "b"}, {"name": 1, "value": "b"}]}),
            "at `$.Records[0].ses.mail.headers[1].name`",
            id="header name",
        ),
        pytest.param(
            event(receipt={"recipients": NOBODY}),
            "at `$.Records[0].ses.receipt.recipients`",
            id="recipients as text",
        ),
        pytest.param(
            event(receipt={"recipients": [NOBODY, None]}),
            "at `$.Records[0].ses.receipt.recipients[1]`",
            id="recipient null",
        ),
        pytest.param(
            event(receipt={"spfVerdict": "PASS"}),
            "at `$.Records[0].ses.receipt.spfVerdict`",
            id="verdict as text",
        ),
    ],
)
def test_a_malformed_event_names_the_place(broken: Any, place: str) -> None:
    with pytest.raises(MalformedEventError) as caught:
        parse_event(broken)
    assert str(caught.value).startswith("not an SES receipt event: ")
    assert place in str(caught.value)


@pytest.mark.parametrize("missing", ["messageId", "timestamp"])
def test_a_mail_without_what_sendbounce_needs_is_malformed(missing: str) -> None:
    broken = event()
    del broken["Records"][0]["ses"]["mail"][missing]
    with pytest.raises(MalformedEventError, match=missing):
        parse_event(broken)


def test_an_event_without_its_receipt_is_malformed() -> None:
    broken = event()
    del broken["Records"][0]["ses"]["receipt"]
    with pytest.raises(MalformedEventError, match="receipt"):
        parse_event(broken)


@pytest.mark.parametrize(
    ("source", "headers"),
    [
        pytest.param(None, [], id="null"),
        pytest.param("", [], id="empty"),
        pytest.param("<>", [], id="angle brackets"),
        pytest.param(" <> ", [], id="with spaces"),
        pytest.param("< >", [], id="space in brackets"),
        pytest.param(" ", [], id="white space"),
        pytest.param("MAILER-DAEMON@x.example", [("Return-Path", "<>")], id="Return-Path"),
        pytest.param("pat@x.example", [("return-path", " <> ")], id="return-path"),
        pytest.param("pat@x.example", [("Return-Path", "< >")], id="space in its brackets"),
        pytest.param("pat@x.example", [("Return-Path", "")], id="empty Return-Path"),
        pytest.param(
            "pat@x.example",
            [("Return-Path", "<pat@x.example>"), ("RETURN-PATH", "<>")],
            id="second",
        ),
    ],
)
def test_every_spelling_of_the_null_sender_is_the_null_sender(
    source: str | None, headers: list[tuple[str, str]]
) -> None:
    named = [{"name": name, "value": value} for name, value in headers]
    assert read(mail={"source": source, "headers": named}).reverse_path is None


@pytest.mark.parametrize("return_path", ["", "<>", "< >", " <> ", " "])
def test_the_null_sender_may_stand_in_the_common_headers_only(return_path: str) -> None:
    message = read(mail={"commonHeaders": {"returnPath": return_path}})
    assert message.return_path == return_path
    assert message.reverse_path is None


@pytest.mark.parametrize(
    "common", [{}, {"returnPath": None}, {"returnPath": SENDER}, {"returnPath": "other@x.example"}]
)
def test_a_return_path_that_names_somebody_leaves_the_envelope_as_it_is(
    common: dict[str, str | None],
) -> None:
    assert read(mail={"commonHeaders": common}).reverse_path == SENDER


def test_a_mail_without_a_source_has_the_null_sender() -> None:
    absent = event()
    del absent["Records"][0]["ses"]["mail"]["source"]
    assert parse_event(absent)[0].reverse_path is None


@pytest.mark.parametrize(
    "source", ["pat@sender.example", " pat@sender.example ", "<pat@sender.example>"]
)
def test_the_reverse_path_is_the_bare_address_of_the_envelope(source: str) -> None:
    message = mail("From: other@elsewhere.example", "Return-Path: <pat@sender.example>")
    assert message.reverse_path == SENDER
    assert mail(source=source).reverse_path == SENDER


@pytest.mark.parametrize("source", ["<pat@sender.example", "pat@sender.example>"])
def test_half_a_pair_of_brackets_belongs_to_the_address(source: str) -> None:
    assert mail(source=source).reverse_path == source


def test_header_names_have_no_case_and_every_occurrence_is_found_in_order() -> None:
    message = mail("X-Loop: one", "Subject: x", "x-loop: two", "X-LOOP: three", "X-Loops: no")
    assert message.header("x-LOOP") == ["one", "two", "three"]
    assert message.header("X-Absent") == []


# --- What an event may lack -------------------------------------------------------------------

MAY_BE_NULL = {
    "mail": ["source", "headers", "headersTruncated", "commonHeaders"],
    "receipt": [
        "spamVerdict",
        "virusVerdict",
        "spfVerdict",
        "dkimVerdict",
        "dmarcVerdict",
        "dmarcPolicy",
        "action",
    ],
}


@pytest.mark.parametrize(
    ("part", "member"), [(part, member) for part, names in MAY_BE_NULL.items() for member in names]
)
def test_a_member_that_is_null_reads_as_absent(part: str, member: str) -> None:
    absent = read(mail={"source": SENDER})
    if member == "source":
        absent = msgspec.structs.replace(absent, source="")
    assert read(**{part: {member: None}}) == absent


@pytest.mark.parametrize("name", ["spam", "virus", "spf", "dkim", "dmarc"])
@pytest.mark.parametrize("verdict", [{}, {"status": None}], ids=["no status", "null"])
def test_a_verdict_without_a_status_is_proof_of_nothing(name: str, verdict: object) -> None:
    assert getattr(read(receipt={f"{name}Verdict": verdict}).verdicts, name) == ""


@pytest.mark.parametrize("action", [{}, {"invocationType": None}], ids=["empty", "null"])
def test_an_action_that_does_not_say_how_it_calls_waits_for_no_answer(action: object) -> None:
    assert read(receipt={"action": action}).invocation_type == InvocationType.EVENT


@pytest.mark.parametrize("member", ["returnPath", "subject", "messageId", "date"])
def test_a_common_header_that_is_null_reads_as_absent(member: str) -> None:
    message = read(mail={"commonHeaders": {member: None}})
    assert (message.common, message.return_path, message.reverse_path) == ((), None, SENDER)


@pytest.mark.parametrize(
    "lame",
    [
        None,
        {},
        {"name": "Auto-Submitted"},
        {"value": "auto-replied"},
        {"name": None, "value": "x"},
        {"name": "Return-Path", "value": None},
    ],
    ids=["null", "empty", "no value", "no name", "null name", "null value"],
)
def test_a_header_without_name_or_value_is_none_and_the_others_count(lame: object) -> None:
    headers = [{"name": "Subject", "value": "x"}, lame, {"name": "List-Id", "value": "y"}]
    message = read(mail={"headers": headers})
    assert message.headers == (Header("Subject", "x"), Header("List-Id", "y"))
    assert message.reverse_path == SENDER


@pytest.mark.parametrize(
    ("flag", "cut"),
    [
        (False, False),
        ("false", False),
        (" FALSE ", False),
        ("", False),
        (0, False),
        (True, True),
        ("true", True),
        ("yes", True),
        (1, True),
        ({}, True),
    ],
)
def test_headers_that_are_not_clearly_whole_are_cut(flag: object, cut: bool) -> None:
    message = read(mail={"headers": [], "headersTruncated": flag})
    assert (message.headers_truncated, message.headers_whole) == (cut, not cut)


def test_an_event_without_headers_is_cut_and_one_with_none_in_its_list_is_whole() -> None:
    assert not read().headers_whole
    assert not read(mail={"headers": None, "headersTruncated": False}).headers_whole
    assert read(mail={"headers": []}).headers_whole


@pytest.mark.parametrize(
    "given", [{"policy": "reject"}, ["reject"], 7, True], ids=["object", "list", "number", "flag"]
)
def test_a_dmarc_policy_that_is_no_word_asks_for_nothing_that_is_known(given: object) -> None:
    message = read(receipt={"dmarcPolicy": given, "spfVerdict": {"status": "PASS"}})
    assert message.dmarc_policy == ""
    failed = msgspec.structs.replace(message, verdicts=Verdicts(spf="PASS", dmarc="FAIL"))
    assert not is_proven(prove(failed))


@pytest.mark.parametrize(
    "broken",
    [
        event(mail={"source": "\ud800@sender.example"}),
        event(mail={"headers": [{"name": "Subject", "value": "x\ud83d"}]}),
        event(mail={"headers": [{"name": "\ud83d", "value": "x"}]}),
        event(mail={"commonHeaders": {"to": ["\ud800"]}}),
        event(mail={"\ud800": "unknown member"}),
        event(receipt={"recipients": ["\ud800@example.com"]}),
        event(receipt={"spfVerdict": {"status": "\ud800"}}),
    ],
    ids=["source", "value", "name", "not read", "member", "recipient", "status"],
)
def test_half_of_a_surrogate_pair_leaves_no_mail_undecided(broken: Any) -> None:
    (message,) = parse_event(broken)
    assert msgspec.json.encode(message)
    its = broken["Records"][0]["ses"]
    assert parse_notice(json.dumps({"notificationType": "Received", **its})) == message


def test_two_halves_are_the_character_that_they_make() -> None:
    (message,) = parse_event(
        event(mail={"headers": [{"name": "A", "value": "\ud83d\ude00\ud800"}]})
    )
    assert message.header("A") == ["\U0001f600\ufffd"]


@pytest.mark.parametrize("message_id", ["", " ", "a b", "\ud800", "\0", "x" * 201, "\u00fc"])
def test_a_message_id_that_no_key_may_be_is_malformed(message_id: str) -> None:
    with pytest.raises(MalformedEventError, match="messageId"):
        parse_event(event(mail={"messageId": message_id}))


@pytest.mark.parametrize(
    ("recipients", "kept"),
    [
        (("Bob@example.com", "bob@EXAMPLE.com"), ("Bob@example.com",)),
        (("a@example.com", "B@example.com", "A@example.com"), ("a@example.com", "B@example.com")),
        (("bob@EX\u00c4MPLE.com", "bob@ex\u00e4mple.com"), ("bob@EX\u00c4MPLE.com",)),
    ],
    ids=["local part and domain", "order stays", "not ASCII"],
)
def test_recipients_that_differ_only_in_case_are_one_as_first_written(
    recipients: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    assert read(receipt={"recipients": recipients}).recipients == kept


@pytest.mark.parametrize("bare", ["postmaster", "nobody", "nobody@", "@example.com", "", "@"])
def test_a_recipient_without_its_address_is_never_in_a_bounce(bare: str) -> None:
    all_bounce = policy(rule('action = "bounce"\nbounce_type = "Undefined"\nwhen.spf = "PASS"'))
    alone = plan(all_bounce, mail(recipients=[bare]))
    assert (alone.to_send, alone.disposition) == (None, Disposition.CONTINUE)
    beside = plan(all_bounce, mail(recipients=[bare, NOBODY]))
    assert beside.to_send is not None
    assert [each.recipient for each in beside.to_send.recipients] == [NOBODY]
