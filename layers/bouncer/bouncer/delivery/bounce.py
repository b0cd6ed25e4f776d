"""The bounce as a value: what SendBounce is asked to send, checked before it is sent.

https://docs.aws.amazon.com/ses/latest/APIReference/API_SendBounce.html; botocore checks
only presence and types, so every other documented rule is held here.
"""

import re
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

import msgspec

from bouncer.address import split
from bouncer.text import TextError, check_line, check_lines, joined_lines

if TYPE_CHECKING:
    from mypy_boto3_ses.type_defs import SendBounceRequestTypeDef

WINDOW = timedelta(hours=24)
"""SendBounce works on mail received less than this ago."""

EXPLANATION_LIMIT = 500
"""SES does not document a limit; this is Mail Manager's for the same text, so it is safe."""


# What a queue message may hold, so that one that nobody of ours has written is told as such: a
# time without its zone compares with no other, and DynamoDB's keys have 1024 bytes.
type Moment = Annotated[datetime, msgspec.Meta(tz=True)]
type MessageId = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
ADDRESS_LIMIT = 320
type Address = Annotated[str, msgspec.Meta(min_length=1, max_length=ADDRESS_LIMIT)]


class BounceType(StrEnum):
    """The six outcomes that SES knows by name (BouncedRecipientInfo.BounceType)."""

    DOES_NOT_EXIST = "DoesNotExist"
    MESSAGE_TOO_LARGE = "MessageTooLarge"
    EXCEEDED_QUOTA = "ExceededQuota"
    CONTENT_REJECTED = "ContentRejected"
    UNDEFINED = "Undefined"
    TEMPORARY_FAILURE = "TemporaryFailure"


STATUS: dict[BounceType, str] = {
    BounceType.DOES_NOT_EXIST: "5.1.1",
    BounceType.MESSAGE_TOO_LARGE: "5.3.4",
    BounceType.EXCEEDED_QUOTA: "5.2.2",
    BounceType.CONTENT_REJECTED: "5.6.1",
    BounceType.UNDEFINED: "5.0.0",
    BounceType.TEMPORARY_FAILURE: "4.0.0",
}
"""The enhanced status code (RFC 3463) that SES's own bounce templates give each type."""


class DsnAction(StrEnum):
    """RFC 3464 §2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


class BounceError(ValueError):
    """A bounce that SES would refuse, or that would break a DSN; the text says why."""


# RFC 3463 §2: class "." subject "." detail, without leading zeros.
_STATUS = re.compile(r"[245]\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})")
_STATUS_CLASSES = {
    DsnAction.FAILED: "45",  # RFC 3464 §2.3.3: also a temporary error that was given up
    DsnAction.DELAYED: "4",
    DsnAction.DELIVERED: "2",
    DsnAction.RELAYED: "2",
    DsnAction.EXPANDED: "2",
}
_TYPED = re.compile(r"[A-Za-z0-9-]+; ?\S.*")
_ARN = re.compile(r"arn:[a-z-]+:ses:[a-z0-9-]+:[0-9]{12}:identity/[!-~]+")
_EXTENSION_NAME = re.compile(r"[A-Za-z0-9-]{1,50}")
EXTENSION_VALUE_LIMIT = 2048
# RFC 3464 §2.2 and §2.3: a second one of these would contradict the first.
_STANDARD_FIELDS = frozenset(
    {
        "original-envelope-id", "reporting-mta", "dsn-gateway", "received-from-mta",
        "arrival-date", "original-recipient", "final-recipient", "action", "status",
        "remote-mta", "diagnostic-code", "last-attempt-date", "final-log-id", "will-retry-until",
    }
)  # fmt: skip


def check_status(status: str, action: DsnAction = DsnAction.FAILED) -> None:
    if not _STATUS.fullmatch(status):
        raise BounceError(
            f"{status!r} is not an enhanced status code: write class.subject.detail, as in 5.1.1"
        )
    if status[0] not in _STATUS_CLASSES[action]:
        allowed = " or ".join(f"{digit}.x.x" for digit in _STATUS_CLASSES[action])
        raise BounceError(f"action {action.value!r} goes with {allowed}, not {status}")


def check_typed(field: str, value: str) -> None:
    """MTA names (RFC 3464 §2.2.2) and diagnostic codes (§2.3.6) begin with their type."""
    _check_line(field, value)
    if not _TYPED.fullmatch(value):
        example = "smtp; 550 5.1.1 no such user" if "diagnostic" in field else "dns; mx.example.com"
        raise BounceError(f"{field} {value!r} lacks its type: write it as in {example!r}")


def check_extension(name: str, value: str) -> None:
    if not _EXTENSION_NAME.fullmatch(name):
        raise BounceError(f"extension field name {name!r}: use 1 to 50 letters, digits and hyphens")
    if name.lower() in _STANDARD_FIELDS:
        raise BounceError(f"extension field name {name!r} is a DSN's own: choose another, as X-…")
    if len(value) > EXTENSION_VALUE_LIMIT:
        raise BounceError(
            f"extension field {name!r}: its value has {len(value)} characters, "
            f"at most {EXTENSION_VALUE_LIMIT} are allowed"
        )
    _check_line(f"extension field {name!r}", value)


def check_arn(field: str, value: str) -> None:
    if not _ARN.fullmatch(value):
        raise BounceError(
            f"{field} {value!r} is no identity's ARN: write it as in "
            "arn:aws:ses:us-east-1:123456789012:identity/example.com"
        )


def _check_line(field: str, value: str) -> None:
    try:
        check_line(value)
    except TextError as error:
        raise BounceError(f"{field}: {error}") from error


class ExtensionField(msgspec.Struct, frozen=True):
    name: str
    value: str

    def request(self) -> dict[str, str]:
        return {"Name": self.name, "Value": self.value}


class RecipientDsnFields(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The per-recipient fields of the DSN (RFC 3464 §2.3), written out instead of a type."""

    action: DsnAction
    status: str
    final_recipient: str | None = None
    remote_mta: str | None = None
    diagnostic_code: str | None = None
    last_attempt_date: Moment | None = None
    extension_fields: tuple[ExtensionField, ...] = ()

    def check(self) -> None:
        check_status(self.status, self.action)
        if self.action is DsnAction.DELAYED and not self.diagnostic_code:
            raise BounceError(
                "action 'delayed' promises that delivery is tried again: "
                "say why it waits, in diagnostic_code"
            )
        if self.final_recipient is not None:
            _check_line("final_recipient", self.final_recipient)
            if _TYPED.match(self.final_recipient):
                raise BounceError("final_recipient is the bare address, without 'rfc822;'")
        if self.remote_mta is not None:
            check_typed("remote_mta", self.remote_mta)
        if self.diagnostic_code is not None:
            check_typed("diagnostic_code", self.diagnostic_code)
        for field in self.extension_fields:
            check_extension(field.name, field.value)

    def request(self) -> dict[str, Any]:
        return _without_none(
            FinalRecipient=self.final_recipient,
            Action=self.action.value,
            RemoteMta=self.remote_mta,
            Status=self.status,
            DiagnosticCode=self.diagnostic_code,
            LastAttemptDate=self.last_attempt_date,
            ExtensionFields=[field.request() for field in self.extension_fields] or None,
        )


class BouncedRecipient(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One recipient of the original mail, and why it was not delivered there."""

    recipient: Address
    reason: str
    bounce_type: BounceType | None = None
    dsn_fields: RecipientDsnFields | None = None
    recipient_arn: str | None = None
    explanation: str = ""

    @property
    def status(self) -> str:
        if self.dsn_fields is not None:
            return self.dsn_fields.status
        return STATUS[self.bounce_type] if self.bounce_type is not None else ""

    def check(self) -> None:
        # SES documents that one of the two must be there, and nothing about both.
        if (self.bounce_type is None) == (self.dsn_fields is None):
            raise BounceError("give exactly one of bounce_type and recipient_dsn_fields")
        _check_line("recipient", self.recipient)
        if not all(split(self.recipient)):
            raise BounceError(f"recipient {self.recipient!r} lacks its domain")
        if self.recipient_arn is not None:
            check_arn("recipient_arn", self.recipient_arn)
        if self.dsn_fields is not None:
            self.dsn_fields.check()

    def request(self) -> dict[str, Any]:
        return _without_none(
            Recipient=self.recipient,
            RecipientArn=self.recipient_arn,
            BounceType=self.bounce_type.value if self.bounce_type else None,
            RecipientDsnFields=self.dsn_fields.request() if self.dsn_fields else None,
        )


class MessageDsn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The per-message fields of the DSN (RFC 3464 §2.2)."""

    reporting_mta: str
    arrival_date: Moment | None = None
    extension_fields: tuple[ExtensionField, ...] = ()

    def check(self) -> None:
        check_typed("reporting_mta", self.reporting_mta)
        for field in self.extension_fields:
            check_extension(field.name, field.value)

    def request(self) -> dict[str, Any]:
        return _without_none(
            ReportingMta=self.reporting_mta,
            ArrivalDate=self.arrival_date,
            ExtensionFields=[field.request() for field in self.extension_fields] or None,
        )


class Bounce(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that one SendBounce call needs; complete, so that it can wait in a queue."""

    message_id: MessageId
    received_at: Moment
    bounce_sender: str
    recipients: Annotated[tuple[BouncedRecipient, ...], msgspec.Meta(min_length=1)]
    bounce_sender_arn: str | None = None
    message_dsn: MessageDsn | None = None
    reverse_path: Annotated[str, msgspec.Meta(max_length=ADDRESS_LIMIT)] = ""
    """Whom SES will tell, for people: the call does not say."""

    def deadline(self, margin: timedelta) -> datetime:
        """The last moment at which a call may start: SES's window less `margin`."""
        return self.received_at + WINDOW - margin

    def only(self, recipients: set[str]) -> Self:
        """The same bounce for some of its recipients."""
        kept = tuple(each for each in self.recipients if each.recipient in recipients)
        return msgspec.structs.replace(self, recipients=kept)

    def faults(self) -> dict[str, str]:
        """The recipients that SES would refuse, with the reason: one must not cost the others'."""
        found = {}
        for each in self.recipients:
            try:
                each.check()
            except BounceError as error:
                found[each.recipient] = str(error)
        return found

    @property
    def explanation(self) -> str:
        """SendBounce has one text a call.

        Of several recipients, each has a line with its address and its own text, as far as
        they fit; the DSN's fields say the rest.
        """
        told = [each for each in self.recipients if each.explanation]
        if len(told) == 1 and len(self.recipients) == 1:
            return told[0].explanation
        return joined_lines(dict.fromkeys(map(_line_of, told)), EXPLANATION_LIMIT)

    def check(self) -> None:
        """Hold the bounce against every documented rule of SendBounce.

        Raises:
            BounceError: SES would refuse the call, or the DSN would be malformed.
        """
        if not self.recipients:
            raise BounceError("a bounce needs at least one recipient")
        _check_line("bounce_sender", self.bounce_sender)
        if self.bounce_sender_arn is not None:
            check_arn("bounce_sender_arn", self.bounce_sender_arn)
        try:
            check_lines(self.explanation)
        except TextError as error:
            raise BounceError(f"explanation: {error}") from error
        if self.message_dsn is not None:
            self.message_dsn.check()
        for recipient in self.recipients:
            recipient.check()

    def request(self) -> "SendBounceRequestTypeDef":
        """The call's parameters as boto3 names them.

        Raises:
            BounceError: see `check`; a bad value never reaches the wire.
        """
        self.check()
        parameters = _without_none(
            OriginalMessageId=self.message_id,
            BounceSender=self.bounce_sender,
            Explanation=self.explanation or None,
            MessageDsn=self.message_dsn.request() if self.message_dsn else None,
            BouncedRecipientInfoList=[each.request() for each in self.recipients],
            BounceSenderArn=self.bounce_sender_arn,
        )
        return cast("SendBounceRequestTypeDef", parameters)


def _line_of(recipient: BouncedRecipient) -> str:
    """A recipient's text in one line that says whose it is."""
    text = " ".join(recipient.explanation.split())
    return text if recipient.recipient in text else f"{recipient.recipient}: {text}"


def _without_none(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
