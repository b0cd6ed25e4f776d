"""The AWS clients and how patient each is.

SendBounce must never be retried by the SDK: a retry that nobody paced is a call too many.
Everything else is quick, so it is given up soon and tried again, as long as the deadline lets it.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import botocore.session
from botocore.config import Config

from bouncer import timing
from bouncer.aws.connections import renew
from bouncer.aws.deadline import watch
from bouncer.aws.models import Models

if TYPE_CHECKING:
    from mypy_boto3_appconfigdata import AppConfigDataClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_ses import SESClient
    from mypy_boto3_sqs import SQSClient

_QUICK = Config(
    connect_timeout=timing.CONNECT,
    read_timeout=timing.READ,
    retries={"total_max_attempts": timing.ATTEMPTS, "mode": "standard"},
    tcp_keepalive=True,
)
_UNPACED_RETRIES_OFF = Config(
    connect_timeout=timing.SES_CONNECT,
    read_timeout=timing.SES_READ,
    retries={"total_max_attempts": 1, "mode": "standard"},
    tcp_keepalive=True,
)


def dynamodb() -> "DynamoDBClient":
    client: DynamoDBClient = _watched(_client("dynamodb", _QUICK))
    return client


def s3() -> "S3Client":
    client: S3Client = _watched(_client("s3", _QUICK))
    return client


def sqs() -> "SQSClient":
    client: SQSClient = _watched(_client("sqs", _QUICK))
    return client


def appconfigdata() -> "AppConfigDataClient":
    client: AppConfigDataClient = _watched(_client("appconfigdata", _QUICK))
    return client


def ses() -> "SESClient":
    client: SESClient = _client("ses", _UNPACED_RETRIES_OFF)
    return client


def ses_rules() -> "SESClient":
    """For receipt rules, whose calls may be retried at leisure."""
    retries = Config(retries={"total_max_attempts": 8, "mode": "standard"})
    client: SESClient = _client("ses", retries)
    return client


def lazily[Made](make: Callable[[], Made]) -> Made:
    """What stands for a client, or for what needs one: it is made when something is asked of it.

    Most mails need neither SES nor SQS nor S3, and a client takes a tenth of a cold start.
    """
    return cast("Made", _Lazy(make))


class _Lazy:
    def __init__(self, make: Callable[[], object]) -> None:
        self._made = cache(make)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made(), name)


class Clients:
    """One client a service, for all that a function is made of."""

    def __init__(self) -> None:
        self.dynamodb = dynamodb()  # every mail needs it
        self.sqs = lazily(sqs)


def _client(service: str, config: Config) -> Any:
    return _session().create_client(service, config=config)


@cache
def _session() -> botocore.session.Session:
    """What boto3 makes its clients with, without its resources and its transfer manager."""
    session = botocore.session.get_session()
    session.register_component("data_loader", Models())
    return session


def _watched(client: Any) -> Any:
    renew(client)
    watch(client)
    return client
