"""SES's SendBounce, as its documentation has it: checks, throttling, errors, and the DSN.

https://docs.aws.amazon.com/ses/latest/APIReference/API_SendBounce.html
"""

import re
import smtplib
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.session
import msgspec
from botocore.model import ListShape, Shape, StringShape, StructureShape
from botocore.utils import parse_timestamp

from bouncer_console.dsn import build_dsn
from bouncer_console.mail import ReceivedMail

WINDOW = timedelta(hours=24)
_EXTENSION_NAME = re.compile(r"[A-Za-z0-9-]{1,50}")
_EXTENSION_VALUE_LIMIT = 2048

_MODEL = botocore.session.get_session().get_service_model("ses")
_INPUT: Any = _MODEL.operation_model("SendBounce").input_shape


class SesError(Exception):
    """An answer in AWS's error shape."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class Call(msgspec.Struct, kw_only=True):
    """One SendBounce call as it arrived; what `GET /_local/bounces` lists."""

    arrived: float
    request: dict[str, Any]
    process: int | None = None
    """The function's process that called, where it is known."""
    error: str | None = None
    message_id: str | None = None
    dsn: str | None = None


class SendBounce:
    """Answers the calls, remembers them, and writes what would be mailed."""

    def __init__(
        self,
        *,
        outbox: Path,
        find_mail: Callable[[str], ReceivedMail | None],
        verified: Callable[[], Iterable[str]],
        interval: float = 1.0,
        relay: tuple[str, int] | None = None,
        bounced: Callable[[str, bytes], None] = lambda _path, _dsn: None,
    ) -> None:
        """
        Args:
            outbox: the folder that each DSN is written to, as .eml.
            find_mail: a received mail by its id.
            verified: the identities that may send.
            interval: calls closer together than this, in seconds, are throttled.
            relay: an SMTP server that DSNs are sent to as well.
            bounced: told of each DSN and whom it goes to.
        """
        self.calls: list[Call] = []
        self._outbox = outbox
        self._find_mail = find_mail
        self._verified = verified
        self._interval = interval
        self._relay = relay
        self._bounced = bounced
        self._last_allowed = -interval

    def __call__(
        self, parameters: Mapping[str, str], arrived: float, process: int | None = None
    ) -> str:
        """Answer one call.

        Args:
            parameters: of the Query protocol, flat.
            arrived: when it came, in epoch seconds.
            process: who called.

        Returns:
            The bounce's message id.

        Raises:
            SesError: what the caller is to be told instead.
        """
        request = unflatten(_INPUT, parameters)
        call = Call(arrived=arrived, request=request, process=process)
        self.calls.append(call)
        try:
            self._throttle()
            _validate(request)
            mail = self._original(request)
        except SesError as error:
            call.error = error.code
            raise
        call.message_id = f"{uuid.uuid4()}-{int(arrived)}"
        name = f"{len(self.calls):04d}-{call.message_id[:8]}.eml"
        call.dsn = str(self._write(request, mail, call.message_id, name))
        return call.message_id

    def of_rule(self, mail: ReceivedMail, action: Mapping[str, Any], recipients: list[str]) -> None:
        """SES's own Bounce action in a receipt rule: one code and one text for everybody."""
        fields = {
            "Action": "failed",
            "Status": action.get("StatusCode", "5.0.0"),
            "DiagnosticCode": f"smtp; {action['SmtpReplyCode']} {action['Message']}",
        }
        request = {
            "BounceSender": action["Sender"],
            "Explanation": action["Message"],
            "BouncedRecipientInfoList": [
                {"Recipient": each, "RecipientDsnFields": fields} for each in recipients
            ],
        }
        if mail.mail_from:
            self._write(request, mail, mail.message_id, f"rule-{mail.message_id[:8]}.eml")

    def _throttle(self) -> None:
        now = time.monotonic()
        if now - self._last_allowed < self._interval:
            raise SesError("Throttling", "Rate exceeded")  # of calls of this class, by others
        self._last_allowed = now

    def _original(self, request: Mapping[str, Any]) -> ReceivedMail:
        message_id, sender = request["OriginalMessageId"], request["BounceSender"]
        # Recorded: for a made-up id and an unverified sender, this answer.
        refused = f"Failed to generate a bounce for {message_id}."
        if identity_of(sender, self._verified()) is None:
            raise SesError(
                "MessageRejected", f"{refused} The following identities are not verified: {sender}"
            )
        mail = self._find_mail(message_id)
        if mail is None or datetime.now(UTC) - mail.received_at >= WINDOW:
            raise SesError(  # unverified: what stands after the first sentence
                "MessageRejected", f"{refused} No such message was received in the last 24 hours."
            )
        received_for = {each.lower() for each in mail.recipients}
        for each in request["BouncedRecipientInfoList"]:
            final = each.get("RecipientDsnFields", {}).get("FinalRecipient", "")
            if not {each["Recipient"].lower(), final.lower()} & received_for:
                raise SesError(  # unverified
                    "MessageRejected",
                    f"{refused} {each['Recipient']} is not a recipient of the message.",
                )
        if not mail.mail_from:  # unverified
            raise SesError("MessageRejected", f"{refused} It has no sender to bounce to.")
        return mail

    def _write(
        self, request: Mapping[str, Any], mail: ReceivedMail, bounce_id: str, name: str
    ) -> Path:
        dsn = build_dsn(
            request,
            reverse_path=mail.mail_from,
            original=mail.fields(),
            bounce_id=bounce_id,
            now=datetime.now(UTC),
        )
        self._outbox.mkdir(parents=True, exist_ok=True)
        path = self._outbox / name
        path.write_bytes(dsn)
        if self._relay:
            with smtplib.SMTP(*self._relay, timeout=10) as client:
                client.sendmail("<>", [mail.mail_from], dsn)
        self._bounced(mail.mail_from, dsn)
        return path


def identity_of(sender: str, verified: Iterable[str]) -> str | None:
    """The verified identity that covers an address: itself, or its domain."""
    identities = {each.lower() for each in verified}
    address = sender.lower()
    for identity in (address, address.rpartition("@")[2]):
        if identity in identities:
            return identity
    return None


def unflatten(shape: Shape, parameters: Mapping[str, str], prefix: str = "") -> Any:
    """Query-protocol parameters as the nested members that boto3 names."""
    match shape:
        case StructureShape():
            members = {}
            for name, member in shape.members.items():
                key = f"{prefix}.{name}" if prefix else name
                if any(each == key or each.startswith(f"{key}.") for each in parameters):
                    members[name] = unflatten(member, parameters, key)
            return members
        case ListShape():
            entries: list[Any] = []
            while any(
                each == (key := f"{prefix}.member.{len(entries) + 1}") or each.startswith(f"{key}.")
                for each in parameters
            ):
                entries.append(unflatten(shape.member, parameters, key))
            return entries
    value = parameters[prefix]
    return parse_timestamp(value) if shape.type_name == "timestamp" else value


def _validate(request: dict[str, Any]) -> None:
    """Required members, enums and the documented limits; botocore has checked only types."""
    _required(_INPUT, request, "")
    if not request["BouncedRecipientInfoList"]:
        raise _invalid("bouncedRecipientInfoList", "Member must have length greater than 0")
    _extensions(request.get("MessageDsn", {}))
    for each in request["BouncedRecipientInfoList"]:
        if "BounceType" not in each and "RecipientDsnFields" not in each:
            raise SesError(
                "InvalidParameterValue", "Either BounceType or RecipientDsnFields is required."
            )
        _extensions(each.get("RecipientDsnFields", {}))


def _required(shape: Shape, value: Any, place: str) -> None:
    if isinstance(shape, ListShape):
        for index, entry in enumerate(value, 1):
            _required(shape.member, entry, f"{place}.{index}.member")
    elif isinstance(shape, StructureShape):
        for name in shape.required_members:
            if name not in value:
                raise _invalid(f"{place}.{name}".lstrip("."), "Member must not be null")
        for name, entry in value.items():
            _required(shape.members[name], entry, f"{place}.{name}".lstrip("."))
    elif isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        raise _invalid(place, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")


def _extensions(fields: Mapping[str, Any]) -> None:
    for field in fields.get("ExtensionFields", []):
        if not _EXTENSION_NAME.fullmatch(field["Name"]):
            raise SesError("InvalidParameterValue", f"Invalid header name: {field['Name']}")
        value = field["Value"]
        if len(value) > _EXTENSION_VALUE_LIMIT or "\r" in value or "\n" in value:
            raise SesError("InvalidParameterValue", f"Invalid value of header {field['Name']}")


def _invalid(place: str, constraint: str) -> SesError:
    return SesError(
        "ValidationError",
        f"1 validation error detected: Value at '{place}' failed to satisfy constraint: "
        f"{constraint}",
    )
