"""`bouncer send-bounce`: SES's own command, but through window, ledger and limiter."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import botocore.session
import msgspec
import typer
from botocore.exceptions import ClientError
from botocore.utils import ArgumentGenerator
from botocore.validate import ParamValidator

from bouncer.aws import wiring
from bouncer.aws.clients import Clients
from bouncer.aws.ledger import DynamoLedger
from bouncer.delivery.bounce import (
    EXPLANATION_LIMIT,
    Bounce,
    BouncedRecipient,
    BounceError,
    BounceType,
    DsnAction,
    ExtensionField,
    MessageDsn,
    RecipientDsnFields,
)
from bouncer.delivery.ledger import BounceState, LedgerUnavailableError
from bouncer.delivery.queue import QueueUnavailableError
from bouncer.mailboxes import moment_of
from bouncer.settings import Settings, stored_prefix
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
)
from bouncer_console.output import (
    MOMENT,
    Json,
    fail,
    plain_errors,
    print_json,
    print_table,
)

REASON = "operator"
"""The reason code of a bounce that a person sent."""

_PATIENCE = timedelta(seconds=60)
_MODEL = botocore.session.get_session().get_service_model("ses").operation_model("SendBounce")
_INPUT: Any = _MODEL.input_shape


class ParameterError(ValueError):
    """A parameter is missing or wrong; the text says which and how to mend it."""


def send_bounce(
    original_message_id: Annotated[str | None, typer.Option(help="SES's id of the mail.")] = None,
    bounce_sender: Annotated[str | None, typer.Option(help="The bounce's From.")] = None,
    explanation: Annotated[str | None, typer.Option(help="Text for people.")] = None,
    message_dsn: Annotated[
        str | None, typer.Option(help="ReportingMta=…,ArrivalDate=… or JSON.")
    ] = None,
    bounced_recipient_info_list: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RECIPIENT",
            help="Recipient=…,BounceType=… or JSON (an object or a list); repeat.",
        ),
    ] = None,
    bounce_sender_arn: Annotated[
        str | None, typer.Option(help="For sending authorization.")
    ] = None,
    cli_input_json: Annotated[
        str | None, typer.Option(help="All parameters as JSON, or file://PATH.")
    ] = None,
    generate_cli_skeleton: Annotated[
        bool, typer.Option("--generate-cli-skeleton", help="Print a skeleton of that JSON.")
    ] = False,
    received_at: Annotated[
        datetime | None,
        typer.Option(help="When the mail came, if neither ledger nor bucket know.", **MOMENT),
    ] = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Bounce one received mail by hand.

    With the flags of `aws ses send-bounce`, but once, in its slot, and only inside SES's 24 hours.
    No guard is asked.
    """
    if generate_cli_skeleton:
        print_json(ArgumentGenerator().generate_skeleton(_INPUT))
        return
    expected = (
        DeploymentError,
        ParameterError,
        BounceError,
        LedgerUnavailableError,
        QueueUnavailableError,
    )
    with plain_errors(*expected):
        given = {
            "OriginalMessageId": original_message_id,
            "BounceSender": bounce_sender,
            "Explanation": explanation,
            "MessageDsn": _structure(message_dsn) if message_dsn else None,
            "BouncedRecipientInfoList": _structures(bounced_recipient_info_list or []) or None,
            "BounceSenderArn": bounce_sender_arn,
        }
        request: dict[str, Any] = _without_nulls(
            _input_json(cli_input_json) | _without_nulls(given)
        )
        _check(request)
        deployment = Deployment.find(stack, region)
        bounce = as_bounce(request, _received_at(deployment, request, received_at))
        bounce.check()
        fates = _deliver(deployment, bounce)
    if as_json:
        print_json(fates)
    else:
        columns = ("recipient", "state", "reason", "status", "bounce id", "why")
        rows = [(f.recipient, f.state, f.reason, f.status, f.bounce_id, f.why) for f in fates]
        print_table("", columns, rows)
    repeated = [fate.recipient for fate in fates if fate.repeated]
    if repeated:
        fail(f"{', '.join(repeated)}: settled before; `bouncer status` tells how")
    if refused := [fate for fate in fates if fate.state is BounceState.REJECTED]:
        fail(f"not sent: {refused[0].why}")


def as_bounce(request: dict[str, Any], received_at: datetime) -> Bounce:
    """A SendBounce request as the bounce that delivery handles."""
    text = request.get("Explanation", "")
    infos = request["BouncedRecipientInfoList"]
    return Bounce(
        message_id=request["OriginalMessageId"],
        received_at=received_at,
        bounce_sender=request["BounceSender"],
        bounce_sender_arn=request.get("BounceSenderArn"),
        message_dsn=_message_dsn(request.get("MessageDsn")),
        recipients=tuple(
            BouncedRecipient(
                recipient=info["Recipient"],
                reason=REASON,
                bounce_type=_maybe(BounceType, info.get("BounceType")),
                dsn_fields=_dsn_fields(info.get("RecipientDsnFields")),
                recipient_arn=info.get("RecipientArn"),
                explanation=text,
            )
            for info in infos
        ),
    )


def _message_dsn(given: dict[str, Any] | None) -> MessageDsn | None:
    if given is None:
        return None
    return MessageDsn(
        reporting_mta=given["ReportingMta"],
        arrival_date=_maybe(_moment, given.get("ArrivalDate")),
        extension_fields=_extensions(given),
    )


def _dsn_fields(given: dict[str, Any] | None) -> RecipientDsnFields | None:
    if given is None:
        return None
    return RecipientDsnFields(
        action=DsnAction(given["Action"]),
        status=given["Status"],
        final_recipient=given.get("FinalRecipient"),
        remote_mta=given.get("RemoteMta"),
        diagnostic_code=given.get("DiagnosticCode"),
        last_attempt_date=_maybe(_moment, given.get("LastAttemptDate")),
        extension_fields=_extensions(given),
    )


def _extensions(given: dict[str, Any]) -> tuple[ExtensionField, ...]:
    fields = given.get("ExtensionFields", [])
    return tuple(ExtensionField(each["Name"], each["Value"]) for each in fields)


def _maybe(make: Any, value: Any) -> Any:
    return None if value is None else make(value)


def _moment(value: str | float) -> datetime:
    """ISO 8601, or epoch seconds, as the AWS CLI takes a timestamp."""
    try:
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        return moment_of(value)
    except (ValueError, OverflowError, OSError) as error:
        raise ParameterError(f"{value!r} is not an ISO 8601 time") from error


def _check(request: dict[str, Any]) -> None:
    """By botocore's own model: members, types, enums."""
    unknown = request.keys() - _INPUT.members.keys()
    if unknown:
        raise ParameterError(f"SendBounce has no parameter {', '.join(sorted(unknown))}")
    report = ParamValidator().validate(_with_moments(request), _INPUT)
    if report.has_errors():
        raise ParameterError(report.generate_report())
    if len(request.get("Explanation", "")) > EXPLANATION_LIMIT:
        raise ParameterError(f"Explanation has over {EXPLANATION_LIMIT} characters: shorten it")
    if not request["BouncedRecipientInfoList"]:
        raise ParameterError("name at least one recipient: --bounced-recipient-info-list")
    for info in request["BouncedRecipientInfoList"]:
        _enum(BounceType, info.get("BounceType"))
        _enum(DsnAction, info.get("RecipientDsnFields", {}).get("Action"))


def _with_moments(value: Any) -> Any:
    """The same with its times read, wherever they stand."""
    if isinstance(value, list):
        return [_with_moments(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _moment(each) if name in _TIMES and each is not None else _with_moments(each)
        for name, each in value.items()
    }


_TIMES = frozenset({"ArrivalDate", "LastAttemptDate"})


def _enum(kind: Any, value: str | None) -> None:
    if value is not None and value not in set(kind):
        raise ParameterError(f"{value!r} is none of {', '.join(kind)}")


def _input_json(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if text.startswith("file://"):
        path = Path(text.removeprefix("file://"))
        try:
            text = path.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ParameterError(f"{path} is not UTF-8: save it as UTF-8") from error
    try:
        decoded = json.loads(text)
    except ValueError as error:
        raise ParameterError(f"--cli-input-json is not JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise ParameterError("--cli-input-json is not an object")
    return decoded


def _without_nulls(value: Any) -> Any:
    """A member that is null is one that is not given."""
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _structures(texts: list[str]) -> list[Any]:
    found: list[Any] = []
    for text in texts:
        value = _structure(text)
        found += value if isinstance(value, list) else [value]
    return found


def _structure(text: str) -> Any:
    """A structure as the AWS CLI takes it: JSON, or Name=value,Name={…},Name=[…]."""
    if text.lstrip()[:1] in "{[":
        try:
            return json.loads(text)
        except ValueError as error:
            raise ParameterError(f"{text!r} is not JSON: {error}") from error
    return {name: _shorthand(value) for name, value in _pairs(text)}


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = []
    for part in _split(text):
        name, equals, value = part.partition("=")
        if not equals:
            raise ParameterError(f"{part!r}: write Name=value, or give JSON")
        pairs.append((name.strip(), value.strip()))
    return pairs


def _shorthand(value: str) -> Any:
    if value.startswith("{") and value.endswith("}"):
        return {name: _shorthand(inner) for name, inner in _pairs(value[1:-1])}
    if value.startswith("[") and value.endswith("]"):
        return [_shorthand(inner) for inner in _split(value[1:-1])]
    return value.strip("\"'") if value[:1] in "\"'" else value


def _split(text: str) -> list[str]:
    """Cut at the commas that stand in no bracket and no quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
        elif character == "," and not depth:
            parts.append("")
            continue
        parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _received_at(
    deployment: Deployment, request: dict[str, Any], given: datetime | None
) -> datetime:
    """When SES took the mail: as told, as the ledger has it, or when it was stored."""
    if given is not None:
        return given
    message_id = request["OriginalMessageId"]
    dynamodb, table = deployment.client("dynamodb"), deployment.output("BounceTable")
    for entry in DynamoLedger(dynamodb, table, retention=timedelta(0)).history(message_id):
        if entry.received_at is not None:
            return entry.received_at
    bucket = deployment.outputs.get("MailBucket")
    if bucket:
        key = stored_prefix(deployment.output("MailPrefix")) + message_id
        try:
            stored = deployment.client("s3").head_object(Bucket=bucket, Key=key)
        except ClientError:
            pass
        else:
            moment: datetime = stored["LastModified"]
            return moment
    raise ParameterError(f"nobody knows when {message_id} was received: say it with --received-at")


def _deliver(deployment: Deployment, bounce: Bounce) -> list[Any]:
    if deployment.region:
        os.environ["AWS_DEFAULT_REGION"] = deployment.region
    interval = deployment.parameters.get("SendIntervalSeconds", "1")
    settings = msgspec.structs.replace(
        Settings.read(
            {
                "BOUNCE_TABLE": deployment.output("BounceTable"),
                "PACE_TABLE": deployment.output("PaceTable"),
                "BOUNCE_QUEUE_URL": deployment.output("BounceQueue"),
                "SEND_INTERVAL_SECONDS": interval,
            }
        ),
        wait_budget_seconds=_PATIENCE.total_seconds() / 2,
    )
    delivery = wiring.delivery(settings, Clients(), count=lambda _: None, repaired=lambda _: None)
    now = datetime.now(UTC)
    if now >= bounce.deadline(settings.terms.window_margin):
        raise BounceError(
            f"{bounce.message_id} was received over 24 hours ago: SES takes no bounce"
        )
    return delivery.send_or_queue(bounce, owner=str(uuid4()), until=now + _PATIENCE)
