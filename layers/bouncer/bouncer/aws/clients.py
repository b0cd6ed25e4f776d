"""The AWS clients and how patient each is; they are made when first needed.

SendBounce must never be retried by the SDK: a retry that nobody paced is a call too many.
Everything else is quick, so it is given up soon and tried again, as long as the deadline lets it.
"""

from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from bouncer import timing
from bouncer.aws.connections import renew
from bouncer.aws.deadline import watch

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
    return _watched(boto3.client("dynamodb", config=_QUICK))


def s3() -> "S3Client":
    return _watched(boto3.client("s3", config=_QUICK))


def sqs() -> "SQSClient":
    return _watched(boto3.client("sqs", config=_QUICK))


def appconfigdata() -> "AppConfigDataClient":
    return _watched(boto3.client("appconfigdata", config=_QUICK))


def ses() -> "SESClient":
    return boto3.client("ses", config=_UNPACED_RETRIES_OFF)


def ses_rules() -> "SESClient":
    """For receipt rules, whose calls may be retried at leisure."""
    return boto3.client("ses", config=Config(retries={"total_max_attempts": 8, "mode": "standard"}))


def _watched[T](client: T) -> T:
    renew(client)
    watch(client)
    return client
