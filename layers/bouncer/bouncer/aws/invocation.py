"""One invocation of a function: when its time ends, and how a queue's batch is answered."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from bouncer import timing
from bouncer.deadline import utc_now

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

RESERVE = timedelta(seconds=timing.RESERVE)


def end_of(context: "LambdaContext") -> datetime:
    """When Lambda stops the function."""
    return utc_now() + timedelta(milliseconds=context.get_remaining_time_in_millis())


def handed_back(sqs_message_ids: Iterable[str]) -> dict[str, Any]:
    """The answer to a batch of SQS: these messages come again, and all others are done.

    docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
    """
    return {"batchItemFailures": [{"itemIdentifier": each} for each in sorted(sqs_message_ids)]}
