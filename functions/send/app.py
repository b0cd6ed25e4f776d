"""The queue's worker: bounces that had to wait, sent in their slots."""

import contextlib
import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from aws_lambda_powertools import Logger

from bouncer.aws import wiring
from bouncer.aws.clients import Clients
from bouncer.aws.deadline import FAILURES
from bouncer.aws.discretion import entry
from bouncer.aws.invocation import RESERVE, end_of, handed_back
from bouncer.aws.queue import SqsKeeper
from bouncer.aws.stack_key import key_of
from bouncer.aws.telemetry import Telemetry
from bouncer.delivery.bounce import Bounce
from bouncer.delivery.delivery import Delivery
from bouncer.delivery.fate import Incident
from bouncer.delivery.queue import PoisonError, verify
from bouncer.settings import SendSettings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger(serialize_stacktrace=False)


class Application(NamedTuple):
    delivery: Delivery
    dead_letters: SqsKeeper
    telemetry: Telemetry
    key: Callable[[], bytes]
    max_receives: int


@cache
def application() -> Application:
    """Wired once a cold start."""
    settings = SendSettings.read(os.environ)
    aws = Clients()
    key = key_of(aws.dynamodb, settings.bounce_table)
    telemetry = wiring.telemetry(settings, logger, key)
    return Application(
        delivery=wiring.observed_delivery(settings, aws, telemetry),
        dead_letters=wiring.bounce_dead_letters(settings, aws),
        telemetry=telemetry,
        key=key,
        max_receives=settings.bounce_queue_max_receives,
    )


with contextlib.suppress(Exception):  # at init; what fails here fails again, and is kept
    application()


@entry(logger)
def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
    """What is not done comes back in `batchItemFailures`, and with it to the queue."""
    app = application()
    until = end_of(context) - RESERVE
    batch: dict[str, Bounce] = {}
    again: set[str] = set()
    try:
        try:
            key = app.key()
        except FAILURES:  # nor would the ledger answer, which is in the same table
            app.telemetry.incident(Incident.LEDGER_LAGS)
            return handed_back(record["messageId"] for record in event["Records"])
        for record in event["Records"]:
            try:
                batch[record["messageId"]] = verify(record["body"], key)
            except PoisonError as error:
                again |= _set_aside(app, record, error)
        fates, unsent = app.delivery.send_batch(batch, owner=str(uuid4()), until=until)
        for record in event["Records"]:
            tries = int(record["attributes"]["ApproximateReceiveCount"])
            if record["messageId"] in unsent and tries >= app.max_receives:
                fates += app.delivery.dead_letter(batch[record["messageId"]], until=until)
        app.telemetry.sent(fates)
    finally:
        app.telemetry.flush()
    return handed_back(again | unsent)


def _set_aside(app: Application, record: dict[str, Any], error: PoisonError) -> set[str]:
    """Put a message that nobody can read with the dead letters, now: no retry will mend it."""
    app.telemetry.unreadable(record["messageId"], error)
    try:
        app.dead_letters.keep_body(record["body"])
    except Exception:
        logger.exception("dead letter not kept")
        return {record["messageId"]}  # the queue's redrive policy will move it instead
    return set()
