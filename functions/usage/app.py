"""Stored mail that was deleted gives its bytes back: EventBridge's "Object Deleted" in.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
"""

import os
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from aws_lambda_powertools import Logger

from bouncer.aws import wiring
from bouncer.settings import UsageSettings
from bouncer.usage import Usage

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger(serialize_stacktrace=False)


class Application(NamedTuple):
    usage: Usage
    prefix: str


@cache
def application() -> Application:
    """Wired once a cold start."""
    settings = UsageSettings.read(os.environ)
    return Application(usage=wiring.usage(settings), prefix=settings.mail_prefix)


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: "LambdaContext") -> None:
    """Safe to repeat: a mail is given back once. A failure raises, and Lambda tries again, twice.

    What was missed even so, `bouncer mailbox recount` finds.
    """
    app = application()
    key: str = event["detail"]["object"]["key"]
    if not key.startswith(app.prefix):
        return
    message_id = key.removeprefix(app.prefix)
    mailboxes = app.usage.give_back(message_id)
    logger.info("mail deleted", extra={"ses_message_id": message_id, "mailboxes": mailboxes})
