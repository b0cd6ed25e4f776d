"""The request is what botocore would serialise, and what SES documents; nothing else gets out."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from typing import Any

import botocore.session
import msgspec
import pytest
from botocore.model import ListShape, OperationModel, Shape, StructureShape
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator

from bouncer.delivery.bounce import (
    EXPLANATION_LIMIT,
    STATUS,
    WINDOW,
    Bounce,
    BouncedRecipient,
    BounceError,
    BounceType,
    DsnAction,
    ExtensionField,
    MessageDsn,
    RecipientDsnFields,
    check_arn,
    check_extension,
    check_status,
    check_typed,
)
from bouncer.delivery.queue import decode, encode
from tests.unit.builders import ALICE, NOBODY, NOW, RECEIVED

ARN = "arn:aws:ses:us-east-1:123456789012:identity/example.com"
LINE_BREAKS = ["a\r\nb", "a\nb", "a\rb", "a\n"]


def typed(**fields: Any) -> BouncedRecipient:
    """A recipient that is bounced by type."""
    given = {"recipient": NOBODY, "reason": "rule", "bounce_type": BounceType.DOES_NOT_EXIST}
    return BouncedRecipient(**(given | fields))


def written(**fields: Any) -> BouncedRecipient:
    """A recipient whose DSN fields are written out."""
    given = {"action": DsnAction.FAILED, "status": "5.1.1"}
    return typed(bounce_type=None, dsn_fields=RecipientDsnFields(**(given | fields)))


def bounce(*recipients: BouncedRecipient, **fields: Any) -> Bounce:
    given: dict[str, Any] = {
        "message_id": "msg1",
        "received_at": RECEIVED,
        "bounce_sender": "daemon@example.com",
        "recipients": recipients or (typed(),),
    }
    return Bounce(**(given | fields))


def dsn(**fields: Any) -> MessageDsn:
    return MessageDsn(**({"reporting_mta": "dns; mx.example.com"} | fields))


# --- The wire --------------------------------------------------------------------------------


@cache
def send_bounce() -> OperationModel:
    return botocore.session.get_session().get_service_model("ses").operation_model("SendBounce")


def on_the_wire(request: Any) -> dict[str, str]:
    """What botocore puts into the call's body for these parameters."""
    shape = send_bounce().input_shape
    assert shape is not None
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()
    serialised = create_serializer("query").serialize_to_request(request, send_bounce())
    body: dict[str, str] = dict(serialised["body"])
    assert (body.pop("Action"), body.pop("Version")) == ("SendBounce", "2010-12-01")
    return body


FIRST = "BouncedRecipientInfoList.member.1"
FIELDS = f"{FIRST}.RecipientDsnFields"
SMALLEST = {
    "OriginalMessageId": "msg1",
    "BounceSender": "daemon@example.com",
    f"{FIRST}.Recipient": NOBODY,
    f"{FIRST}.BounceType": "DoesNotExist",
}
SMALLEST_WRITTEN = SMALLEST | {f"{FIELDS}.Action": "failed", f"{FIELDS}.Status": "5.1.1"}
del SMALLEST_WRITTEN[f"{FIRST}.BounceType"]

WIRE: list[tuple[str, Bounce, dict[str, str]]] = [
    ("the smallest", bounce(), SMALLEST),
    ("OriginalMessageId", bounce(message_id="other"), SMALLEST | {"OriginalMessageId": "other"}),
    (
        "BounceSender",
        bounce(bounce_sender="x@y.example"),
        SMALLEST | {"BounceSender": "x@y.example"},
    ),
    ("BounceSenderArn", bounce(bounce_sender_arn=ARN), SMALLEST | {"BounceSenderArn": ARN}),
    ("Explanation", bounce(typed(explanation="No.")), SMALLEST | {"Explanation": "No."}),
    (
        "MessageDsn.ReportingMta",
        bounce(message_dsn=dsn()),
        SMALLEST | {"MessageDsn.ReportingMta": "dns; mx.example.com"},
    ),
    (
        "MessageDsn.ArrivalDate",
        bounce(message_dsn=dsn(arrival_date=RECEIVED)),
        SMALLEST
        | {
            "MessageDsn.ReportingMta": "dns; mx.example.com",
            "MessageDsn.ArrivalDate": "2026-11-21T11:59:00Z",
        },
    ),
    (
        "MessageDsn.ExtensionFields",
        bounce(
            message_dsn=dsn(extension_fields=(ExtensionField("A", "b"), ExtensionField("C", "")))
        ),
        SMALLEST
        | {
            "MessageDsn.ReportingMta": "dns; mx.example.com",
            "MessageDsn.ExtensionFields.member.1.Name": "A",
            "MessageDsn.ExtensionFields.member.1.Value": "b",
            "MessageDsn.ExtensionFields.member.2.Name": "C",
            "MessageDsn.ExtensionFields.member.2.Value": "",
        },
    ),
    ("Recipient", bounce(typed(recipient=ALICE)), SMALLEST | {f"{FIRST}.Recipient": ALICE}),
    ("RecipientArn", bounce(typed(recipient_arn=ARN)), SMALLEST | {f"{FIRST}.RecipientArn": ARN}),
    *(
        (
            f"BounceType {each}",
            bounce(typed(bounce_type=each)),
            SMALLEST | {f"{FIRST}.BounceType": each.value},
        )
        for each in BounceType
    ),
    ("Action and Status", bounce(written()), SMALLEST_WRITTEN),
    (
        "Action delayed",
        bounce(written(action=DsnAction.DELAYED, status="4.2.2", diagnostic_code="smtp; 452 full")),
        SMALLEST_WRITTEN
        | {
            f"{FIELDS}.Action": "delayed",
            f"{FIELDS}.Status": "4.2.2",
            f"{FIELDS}.DiagnosticCode": "smtp; 452 full",
        },
    ),
    *(
        (
            f"Action {each}",
            bounce(written(action=each, status="2.0.0")),
            SMALLEST_WRITTEN | {f"{FIELDS}.Action": each.value, f"{FIELDS}.Status": "2.0.0"},
        )
        for each in (DsnAction.DELIVERED, DsnAction.RELAYED, DsnAction.EXPANDED)
    ),
    (
        "FinalRecipient",
        bounce(written(final_recipient="real@example.com")),
        SMALLEST_WRITTEN | {f"{FIELDS}.FinalRecipient": "real@example.com"},
    ),
    (
        "RemoteMta",
        bounce(written(remote_mta="dns; mx2.example.com")),
        SMALLEST_WRITTEN | {f"{FIELDS}.RemoteMta": "dns; mx2.example.com"},
    ),
    (
        "DiagnosticCode",
        bounce(written(diagnostic_code="smtp; 550 5.1.1 no such user")),
        SMALLEST_WRITTEN | {f"{FIELDS}.DiagnosticCode": "smtp; 550 5.1.1 no such user"},
    ),
    (
        "LastAttemptDate",
        bounce(written(last_attempt_date=NOW)),
        SMALLEST_WRITTEN | {f"{FIELDS}.LastAttemptDate": "2026-11-21T12:00:00Z"},
    ),
    (
        "ExtensionFields",
        bounce(written(extension_fields=(ExtensionField("X-Why", "because"),))),
        SMALLEST_WRITTEN
        | {
            f"{FIELDS}.ExtensionFields.member.1.Name": "X-Why",
            f"{FIELDS}.ExtensionFields.member.1.Value": "because",
        },
    ),
    (
        "two recipients",
        bounce(typed(), written()),
        SMALLEST
        | {
            "BouncedRecipientInfoList.member.2.Recipient": NOBODY,
            "BouncedRecipientInfoList.member.2.RecipientDsnFields.Action": "failed",
            "BouncedRecipientInfoList.member.2.RecipientDsnFields.Status": "5.1.1",
        },
    ),
]


@pytest.mark.parametrize(
    ("value", "expected"), [pytest.param(value, wire, id=name) for name, value, wire in WIRE]
)
def test_the_request_is_exactly_what_botocore_serialises(
    value: Bounce, expected: dict[str, str]
) -> None:
    assert on_the_wire(value.request()) == expected


def leaves(shape: Shape | None, path: str = "") -> Iterator[str]:
    """Every parameter that the model knows, as the wire names it."""
    if isinstance(shape, StructureShape):
        for name, member in shape.members.items():
            yield from leaves(member, f"{path}.{name}" if path else name)
    elif isinstance(shape, ListShape):
        yield from leaves(shape.member, f"{path}.member.1")
    else:
        yield path


def test_no_parameter_of_sendbounce_is_left_out() -> None:
    tested = {name for _, _, wire in WIRE for name in wire if ".member.2" not in name}
    assert tested == set(leaves(send_bounce().input_shape))


def enum_of(*path: str) -> list[str]:
    shape: Any = send_bounce().input_shape
    for name in path:
        shape = shape.member if name == "*" else shape.members[name]
    values: list[str] = shape.enum
    return values


def test_our_bounce_types_are_botocores() -> None:
    assert sorted(BounceType) == sorted(enum_of("BouncedRecipientInfoList", "*", "BounceType"))


def test_our_dsn_actions_are_botocores() -> None:
    path = ("BouncedRecipientInfoList", "*", "RecipientDsnFields", "Action")
    assert sorted(DsnAction) == sorted(enum_of(*path))


def test_every_bounce_type_has_a_status_that_failed_may_carry() -> None:
    assert STATUS.keys() == set(BounceType)
    for status in STATUS.values():
        check_status(status, DsnAction.FAILED)


# --- What never gets out ---------------------------------------------------------------------

BAD: list[tuple[str, Bounce, str]] = [
    ("no recipient", bounce(recipients=()), "at least one recipient"),
    (
        "both type and fields",
        bounce(msgspec.structs.replace(written(), bounce_type=BounceType.UNDEFINED)),
        "exactly one of bounce_type and recipient_dsn_fields",
    ),
    (
        "neither type nor fields",
        bounce(typed(bounce_type=None)),
        "exactly one of bounce_type and recipient_dsn_fields",
    ),
    ("a second recipient", bounce(typed(), written(status="x")), "'x' is not an enhanced status"),
    ("status", bounce(written(status="5.1")), "write class.subject.detail, as in 5.1.1"),
    ("status of another class", bounce(written(status="2.1.5")), "goes with 4.x.x or 5.x.x"),
    (
        "delayed without a reason",
        bounce(written(action=DsnAction.DELAYED, status="4.2.2")),
        "say why it waits, in diagnostic_code",
    ),
    (
        "delayed with an empty reason",
        bounce(written(action=DsnAction.DELAYED, status="4.2.2", diagnostic_code="")),
        "say why it waits, in diagnostic_code",
    ),
    (
        "typed final recipient",
        bounce(written(final_recipient="rfc822; x@example.com")),
        "without 'rfc822;'",
    ),
    (
        "final recipient of another type",
        bounce(written(final_recipient="X-Local;x@example.com")),
        "without 'rfc822;'",
    ),
    ("sender's ARN", bounce(bounce_sender_arn="example.com"), "bounce_sender_arn 'example.com'"),
    ("recipient's ARN", bounce(typed(recipient_arn="x")), "recipient_arn 'x' is no identity's ARN"),
    ("untyped remote MTA", bounce(written(remote_mta="mx.example.com")), "remote_mta 'mx.example"),
    ("empty remote MTA", bounce(written(remote_mta="")), "lacks its type"),
    ("untyped diagnostic code", bounce(written(diagnostic_code="550 no")), "lacks its type"),
    ("diagnostic code of a type", bounce(written(diagnostic_code="smtp; ")), "lacks its type"),
    (
        "untyped reporting MTA",
        bounce(message_dsn=dsn(reporting_mta="mx.example.com")),
        "reporting_mta 'mx.example.com' lacks its type: write it as in 'dns; mx.example.com'",
    ),
    ("non-ASCII recipient", bounce(typed(recipient="n\u00f6@example.com")), "recipient: "),
    ("non-ASCII sender", bounce(bounce_sender="d\u00e4mon@example.com"), "bounce_sender: "),
    ("non-ASCII explanation", bounce(typed(explanation="n\u00f6")), "explanation: "),
    ("non-ASCII diagnostic code", bounce(written(diagnostic_code="smtp; n\u00f6")), "diagnostic_"),
    *(
        (f"extension {part}: {name[:12]!r}", value, "extension field")
        for name, content in [
            ("", "x"),
            ("X" * 51, "x"),
            ("X Y", "x"),
            ("X:Y", "x"),
            ("X_Y", "x"),
            ("X\n", "x"),
            ("\u00c4", "x"),
            ("X-Long", "x" * 2049),
            ("X-Eight-Bit", "\u00fc"),
            ("X-Tab", "a\tb"),
            ("Status", "5.0.0"),
            ("ACTION", "failed"),
            ("Final-Recipient", "rfc822; x@example.com"),
        ]
        for part, value in [
            (
                "of the message",
                bounce(message_dsn=dsn(extension_fields=(ExtensionField(name, content),))),
            ),
            (
                "of the recipient",
                bounce(written(extension_fields=(ExtensionField(name, content),))),
            ),
        ]
    ),
    *(
        (f"{line!r} in {place}", value, "line break")
        for line in LINE_BREAKS
        for place, value in [
            ("recipient", bounce(typed(recipient=line))),
            ("bounce_sender", bounce(bounce_sender=line)),
            ("final_recipient", bounce(written(final_recipient=line))),
            ("remote_mta", bounce(written(remote_mta=f"dns; {line}"))),
            ("diagnostic_code", bounce(written(diagnostic_code=f"smtp; {line}"))),
            ("reporting_mta", bounce(message_dsn=dsn(reporting_mta=f"dns; {line}"))),
            (
                "X-Field of the message",
                bounce(message_dsn=dsn(extension_fields=(ExtensionField("X", line),))),
            ),
            (
                "X-Field of the recipient",
                bounce(written(extension_fields=(ExtensionField("X", line),))),
            ),
        ]
    ),
]


@pytest.mark.parametrize(
    ("value", "reason"), [pytest.param(value, reason, id=name) for name, value, reason in BAD]
)
def test_a_bad_value_never_becomes_a_request(value: Bounce, reason: str) -> None:
    with pytest.raises(BounceError) as caught:
        value.request()
    assert reason in str(caught.value)


@pytest.mark.parametrize("status", ["2.0.0", "4.2.2", "5.0.0", "5.1.10", "5.999.999", "4.7.26"])
def test_an_enhanced_status_code_has_a_class_a_subject_and_a_detail(status: str) -> None:
    action = DsnAction.DELIVERED if status.startswith("2") else DsnAction.FAILED
    check_status(status, action)


@pytest.mark.parametrize(
    "status",
    [
        "",
        "5",
        "5.1",
        "5.1.1.1",
        "1.1.1",
        "3.0.0",
        "05.1.1",
        "5.01.1",
        "5.1.01",
        "5.1000.1",
        "5.1.1 ",
        "5.1.1\n",
        "5-1-1",
        "a.b.c",
        "-5.1.1",
        "5.1.\u0661",
        "X.1.1",
    ],
)
def test_what_rfc_3463_does_not_allow_is_no_status(status: str) -> None:
    with pytest.raises(BounceError, match="is not an enhanced status code"):
        check_status(status)


@pytest.mark.parametrize(
    ("action", "classes"),
    [
        (DsnAction.FAILED, {"4", "5"}),
        (DsnAction.DELAYED, {"4"}),
        (DsnAction.DELIVERED, {"2"}),
        (DsnAction.RELAYED, {"2"}),
        (DsnAction.EXPANDED, {"2"}),
    ],
)
def test_an_action_goes_with_the_classes_that_rfc_3464_gives_it(
    action: DsnAction, classes: set[str]
) -> None:
    for digit in "245":
        if digit in classes:
            check_status(f"{digit}.1.1", action)
        else:
            with pytest.raises(BounceError, match=f"action '{action}' goes with"):
                check_status(f"{digit}.1.1", action)


@pytest.mark.parametrize("value", ["dns; mx.example.com", "dns;mx", "smtp; 550 a; b", "x-unix; /m"])
def test_a_typed_value_has_a_type_and_something_of_it(value: str) -> None:
    check_typed("diagnostic_code", value)


@pytest.mark.parametrize(
    "value", ["", "mx.example.com", "; mx", "dns;", "dns; ", "d ns; mx", "d\u00f6; x"]
)
def test_a_value_without_its_type_is_refused(value: str) -> None:
    with pytest.raises(BounceError):
        check_typed("reporting_mta", value)


@pytest.mark.parametrize(
    ("name", "value"), [("X", ""), ("X" * 50, "x"), ("X-a-1", "x" * 2048), ("9", "a: b; c")]
)
def test_an_extension_field_may_be_as_long_as_ses_documents(name: str, value: str) -> None:
    check_extension(name, value)


@pytest.mark.parametrize(
    "name",
    [
        "Original-Envelope-Id",
        "Reporting-MTA",
        "DSN-Gateway",
        "Received-From-MTA",
        "Arrival-Date",
        "Original-Recipient",
        "Final-Recipient",
        "Action",
        "Status",
        "Remote-MTA",
        "Diagnostic-Code",
        "Last-Attempt-Date",
        "Final-Log-ID",
        "Will-Retry-Until",
    ],
)
@pytest.mark.parametrize("spelt", [str, str.upper, str.lower])
def test_an_extension_field_is_none_that_rfc_3464_defines(
    name: str, spelt: Callable[[str], str]
) -> None:
    with pytest.raises(BounceError, match="is a DSN's own: choose another"):
        check_extension(spelt(name), "x")


@pytest.mark.parametrize("name", ["X-Status", "Status-Url", "Actions"])
def test_an_extension_field_may_be_named_like_one_that_rfc_3464_defines(name: str) -> None:
    check_extension(name, "x")


@pytest.mark.parametrize(
    "arn",
    [
        ARN,
        "arn:aws:ses:eu-central-1:123456789012:identity/pat@example.com",
        "arn:aws-us-gov:ses:us-gov-west-1:123456789012:identity/example.com",
        "arn:aws-cn:ses:cn-north-1:123456789012:identity/sub.example.com",
    ],
)
def test_an_identitys_arn_names_region_account_and_identity(arn: str) -> None:
    check_arn("recipient_arn", arn)


@pytest.mark.parametrize(
    "arn",
    [
        "",
        "example.com",
        "arn:aws:ses:us-east-1:1:identity/example.com",
        "arn:aws:ses::123456789012:identity/example.com",
        "arn:aws:ses:us-east-1:123456789012:identity/",
        "arn:aws:ses:us-east-1:123456789012:configuration-set/x",
        "arn:aws:sns:us-east-1:123456789012:identity/example.com",
        ARN + "\n",
        ARN + " x",
        " " + ARN,
    ],
)
def test_what_is_no_identitys_arn_says_how_to_write_one(arn: str) -> None:
    with pytest.raises(BounceError, match="is no identity's ARN: write it as in arn:aws:ses:"):
        check_arn("recipient_arn", arn)


@pytest.mark.parametrize(
    "final_recipient", ['"a;b"@example.com', "pat@example.com; pat", "a.b;c@example.com"]
)
def test_a_final_recipient_may_have_a_semicolon_that_ends_no_type(final_recipient: str) -> None:
    RecipientDsnFields(
        action=DsnAction.FAILED, status="5.1.1", final_recipient=final_recipient
    ).check()


def test_the_recipients_that_ses_would_refuse_are_named_with_their_faults() -> None:
    faulty = "f\u00f6@example.com"
    of_alice = msgspec.structs.replace(written(status="5.1"), recipient=ALICE)
    mixed = bounce(typed(), typed(recipient=faulty), of_alice)
    faults = mixed.faults()
    assert faults.keys() == {faulty, ALICE}
    assert faults[faulty].startswith("recipient: ")
    assert faults[ALICE].startswith("'5.1' is not an enhanced status code")


def test_what_is_wrong_with_the_whole_bounce_is_no_recipients_fault() -> None:
    assert bounce(bounce_sender_arn="x").faults() == {}
    assert bounce(typed(), written()).faults() == {}


# --- One text, some recipients, the window ---------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "explanation"),
    [
        ([], ""),
        ([""], ""),
        (["One."], "One."),
        (["One.\r\nMore."], "One.\r\nMore."),
        (["One.", "Two."], f"{NOBODY}: One.\r\n{NOBODY}: Two."),
        (["Same.", "Same."], f"{NOBODY}: Same."),
        (["One.\r\nMore.", "", f"No {NOBODY}."], f"{NOBODY}: One. More.\r\nNo {NOBODY}."),
        (["x" * EXPLANATION_LIMIT], "x" * EXPLANATION_LIMIT),
        (["x" * 280, "y" * 178], f"{NOBODY}: {'x' * 280}\r\n{NOBODY}: {'y' * 178}"),
        (["x" * 280, "y" * 179], f"{NOBODY}: {'x' * 280}"),
        (["x" * 500, "y"], f"{NOBODY}: {'x' * 477}..."),
    ],
)
def test_each_of_several_recipients_has_a_line_with_its_text_as_far_as_they_fit(
    texts: list[str], explanation: str
) -> None:
    value = bounce(*(typed(explanation=text) for text in texts))
    assert value.explanation == explanation


def test_a_bounce_may_be_reduced_to_some_of_its_recipients() -> None:
    both = bounce(typed(), typed(recipient=ALICE))
    assert [each.recipient for each in both.only({ALICE, "x@example.com"}).recipients] == [ALICE]
    assert both.only(set()).recipients == ()
    assert both.only({ALICE}).message_id == both.message_id


def test_the_deadline_is_the_end_of_the_window_less_the_margin() -> None:
    assert timedelta(hours=24) == WINDOW
    margin = timedelta(minutes=5)
    assert bounce().deadline(margin) == RECEIVED + timedelta(hours=23, minutes=55)


@pytest.mark.parametrize(
    "value", [value for _, value, _ in WIRE], ids=[name for name, _, _ in WIRE]
)
def test_a_bounce_that_waits_in_the_queue_makes_the_same_request_afterwards(value: Bounce) -> None:
    assert decode(encode(value, b"key")).request() == value.request()
