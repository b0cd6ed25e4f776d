"""A random key of this stack's own, made at first use and kept in BounceTable.

Who reads the log or the metrics can't read it; the functions' roles can. CloudFormation can make
such a value only in Secrets Manager, for $0.40 a month (docs/decisions.md).
"""

import secrets
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ITEM = {"pk": {"S": "key"}, "sk": {"S": "log"}}


def key_of(client: "DynamoDBClient", table: str) -> Callable[[], bytes]:
    """The key, asked for when it is first needed; a table that did not answer is asked again."""
    return cache(lambda: stack_key(client, table))


def stack_key(client: "DynamoDBClient", table: str) -> bytes:
    """The key: whoever comes first makes it, everybody else gets the same.

    Raises:
        botocore.exceptions.ClientError, BotoCoreError: the table did not answer.
    """
    answer = client.update_item(
        TableName=table,
        Key=ITEM,
        UpdateExpression="SET secret = if_not_exists(secret, :new)",
        ExpressionAttributeValues={":new": {"B": secrets.token_bytes(32)}},
        ReturnValues="ALL_NEW",
    )
    return bytes(answer["Attributes"]["secret"]["B"])


def read_key(client: "DynamoDBClient", table: str) -> bytes | None:
    """The key if there is one and the caller may read it, as an operator's console does."""
    try:
        item = client.get_item(TableName=table, Key=ITEM).get("Item")
    except ClientError:
        return None
    return None if item is None else bytes(item["secret"]["B"])
