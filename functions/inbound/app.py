"""The receipt rule's Lambda action: SES event in, disposition out."""

import contextlib
import os
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from aws_lambda_powertools import Logger

from bouncer.aws import wiring
from bouncer.aws.clients import Clients
from bouncer.aws.discretion import entry
from bouncer.aws.invocation import RESERVE, end_of
from bouncer.aws.queue import SqsKeeper
from bouncer.aws.stack_key import key_of
from bouncer.aws.stored_mail import S3StoredMail
from bouncer.aws.telemetry import Telemetry
from bouncer.inbound import Inbound
from bouncer.message import InboundMessage, InvocationType, MalformedEventError, parse_event
from bouncer.plan import Disposition
from bouncer.settings import InboundSettings
from bouncer.usage import UsageBusyError

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger(serialize_stacktrace=False)


class Application(NamedTuple):
    inbound: Inbound
    keeper: SqsKeeper
    telemetry: Telemetry
    refused: S3StoredMail | None


@cache
def application() -> Application:
    """Wired once a cold start."""
    settings = InboundSettings.read(os.environ)
    aws = Clients()
    telemetry = wiring.telemetry(settings, logger, key_of(aws.dynamodb, settings.bounce_table))
    policy_file = Path(__file__).with_name("policy.toml")
    return Application(
        inbound=wiring.inbound(
            settings, aws, policy_file, telemetry, settings.refused_mail_stops.disposition
        ),
        keeper=wiring.event_keeper(settings, aws),
        telemetry=telemetry,
        refused=wiring.refused_mail(settings, telemetry),
    )


# Init has a whole processor, an invocation the share that its memory buys. What fails here fails
# again when a mail is there, whose event is then kept as ever.
with contextlib.suppress(Exception):
    application()


@entry(logger)
def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, str]:
    """Whatever goes wrong, the mail goes on and the event is kept: nothing is lost."""
    app = application()
    end = end_of(context)
    invoked_as = InvocationType.REQUEST_RESPONSE.value
    try:
        mails = parse_event(event)
        invoked_as = mails[0].invocation_type
        dispositions = {_handle(app, mail, end - RESERVE) for mail in mails}
    except UsageBusyError as error:
        # A burst for one mailbox is no failure to be kept, alarmed of and replayed, mail by mail:
        # these go on, nothing says that they are done, and the audit counts them when it is over.
        app.telemetry.warn("UsageBusy", error)
        dispositions = {Disposition.CONTINUE}
    except Exception as error:
        logger.exception("mail not handled")
        if invoked_as == InvocationType.EVENT and not isinstance(error, MalformedEventError):
            # Lambda calls again, twice, and then puts the event where `keep` would.
            raise
        app.telemetry.count("EventKept", type(error).__name__)
        app.keeper.keep(
            event,
            error,
            request_id=context.aws_request_id,
            function_arn=context.invoked_function_arn,
            until=end,
        )
        dispositions = {Disposition.CONTINUE}
    finally:
        app.telemetry.flush()
    # SES sends one record; if it ever sends more, one mail that must go on decides for all.
    return {"disposition": dispositions.pop() if len(dispositions) == 1 else Disposition.CONTINUE}


def _handle(app: Application, mail: InboundMessage, until: datetime) -> Disposition:
    handled = app.inbound.handle(mail, owner=str(uuid4()), until=until)
    if app.refused is not None and handled.disposition is Disposition.STOP_RULE_SET:
        app.refused.mark_refused(mail.message_id, until)
    app.telemetry.handled(handled)
    return handled.disposition
