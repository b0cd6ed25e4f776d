"""The audit queue's worker: SES's notices of received mail in, what was missed handled.

It stands beside the receipt rule's handler because it is the same decision, by the same policy.
"""

import contextlib
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aws_lambda_powertools import Logger

from bouncer.audit import Audit
from bouncer.aws import wiring
from bouncer.aws.clients import Clients
from bouncer.aws.discretion import entry
from bouncer.aws.invocation import RESERVE, end_of, handed_back
from bouncer.aws.stack_key import key_of
from bouncer.aws.telemetry import Telemetry
from bouncer.message import InboundMessage, MalformedEventError, parse_notice
from bouncer.settings import AuditSettings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger(serialize_stacktrace=False)


class Application(NamedTuple):
    audit: Audit
    telemetry: Telemetry


@cache
def application() -> Application:
    """Wired once a cold start."""
    settings = AuditSettings.read(os.environ)
    aws = Clients()
    telemetry = wiring.telemetry(settings, logger, key_of(aws.dynamodb, settings.bounce_table))
    policy_file = Path(__file__).with_name("policy.toml")
    return Application(
        audit=wiring.audit(settings, aws, policy_file, telemetry), telemetry=telemetry
    )


with contextlib.suppress(Exception):  # at init; what fails here fails again, and is kept
    application()


@entry(logger)
def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
    """What is not settled comes back in `batchItemFailures`, and so, later, once more."""
    app = application()
    until = end_of(context) - RESERVE
    notices: dict[str, InboundMessage] = {}
    again: set[str] = set()
    try:
        for record in event["Records"]:
            try:
                mail = parse_notice(record["body"])
            except MalformedEventError as error:
                app.telemetry.warn("NoticeUnreadable", error)
                again.add(record["messageId"])  # until it is with the dead letters, for people
                continue
            if mail is not None:
                notices[record["messageId"]] = mail
        audited = app.audit.run(notices, until=until)
        for key, why in audited.failures.items():
            app.telemetry.warn("AuditFailed", why, ses_message_id=notices[key].message_id)
        for handled in audited.found:
            app.telemetry.handled(handled)
    finally:
        app.telemetry.flush()
    return handed_back(again | audited.again)
