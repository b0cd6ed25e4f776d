"""Stored mail that was deleted gives its bytes back: EventBridge's "Object Deleted", queued.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
"""

import contextlib
import json
import os
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from aws_lambda_powertools import Logger

from bouncer.aws import wiring
from bouncer.aws.clients import Clients
from bouncer.aws.discretion import Discretion, entry
from bouncer.aws.invocation import RESERVE, end_of, handed_back
from bouncer.deadline import deadline
from bouncer.settings import UsageSettings, stored_prefix
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
    Discretion(settings.log_addresses).hold(logger)
    return Application(
        usage=wiring.usage(settings, Clients()), prefix=stored_prefix(settings.mail_prefix)
    )


with contextlib.suppress(Exception):  # at init; what fails here fails again, and is kept
    application()


@entry(logger)
def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
    """Safe to repeat: a mail is given back once. What failed comes back, and so, later, again.

    What was missed even so, `bouncer mailbox recount` finds.
    """
    app = application()
    mails: dict[str, str] = {}
    again: set[str] = set()
    for record in event["Records"]:
        try:
            key = _deleted_key(record["body"])
        except (ValueError, KeyError, TypeError, RecursionError):
            logger.exception("deletion unreadable")
            again.add(record["messageId"])  # until it is with the dead letters, for people
            continue
        if key.startswith(app.prefix):
            mails[record["messageId"]] = key.removeprefix(app.prefix)
    with deadline(end_of(context) - RESERVE):
        failed = app.usage.give_back(set(mails.values()))
    again |= {each for each, mail in mails.items() if mail in failed}
    logger.info("mail deleted", extra={"mails": len(mails), "failed": sorted(failed)})
    return handed_back(again)


def _deleted_key(body: str) -> str:
    key = json.loads(body)["detail"]["object"]["key"]
    if not isinstance(key, str):
        raise TypeError(f"no object's key: {type(key).__name__}")
    return key
