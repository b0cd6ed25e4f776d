"""The bare handler: boto3, an SES and a DynamoDB client, the calls that ours makes, no thought.

What ours is measured beside. It is written as a tutorial would have it: clients at import, one
call after the other, and nothing decided, proven, paced or logged.
"""

import json
import os
import time
from typing import Any

import boto3

dynamodb: Any = boto3.client("dynamodb")
ses: Any = boto3.client("ses")
s3: Any = boto3.client("s3") if os.environ["MAIL_BUCKET"] else None

BOUNCES, MAILBOXES = os.environ["BOUNCE_TABLE"], os.environ["MAILBOX_TABLE"]


def handler(event: Any, _context: object) -> dict[str, str]:
    mail = event["Records"][0]["ses"]["mail"]
    (recipient,) = event["Records"][0]["ses"]["receipt"]["recipients"]
    message = {"S": "message#" + mail["messageId"]}
    domain = "@" + recipient.partition("@")[2]
    keys = [{"address": {"S": each}} for each in (recipient, domain)]
    answer = dynamodb.batch_get_item(RequestItems={MAILBOXES: {"Keys": keys}})
    found = {item["address"]["S"] for item in answer["Responses"][MAILBOXES]}
    if recipient in found:
        if s3 is not None:
            count(recipient, message, mail["messageId"])
        outcome = "accept"
    else:
        bounce(recipient, message, mail)
        outcome = "bounce"
    update({"pk": message, "sk": {"S": "mail"}}, outcome=outcome)
    print(json.dumps({"mail": mail["messageId"], "outcome": outcome}))
    return {"disposition": "CONTINUE" if outcome == "accept" else "STOP_RULE"}


def count(recipient: str, message: Any, message_id: str) -> None:
    size = s3.head_object(Bucket=os.environ["MAIL_BUCKET"], Key=message_id)["ContentLength"]
    dynamodb.transact_write_items(
        TransactItems=[
            {
                "Put": {
                    "TableName": BOUNCES,
                    "Item": {"pk": message, "sk": {"S": "usage#" + recipient}},
                    "ConditionExpression": "attribute_not_exists(pk)",
                }
            },
            {
                "Update": {
                    "TableName": MAILBOXES,
                    "Key": {"address": {"S": recipient}},
                    "UpdateExpression": "ADD used_bytes :size",
                    "ExpressionAttributeValues": {":size": {"N": str(size)}},
                }
            },
        ]
    )


def bounce(recipient: str, message: Any, mail: Any) -> None:
    for write in range(WRITES_BEFORE_THE_CALL):
        update({"pk": message, "sk": {"S": f"write#{write}"}}, at=str(time.time()))
    answer = ses.send_bounce(
        OriginalMessageId=mail["messageId"],
        BounceSender=os.environ["BOUNCE_SENDER"],
        BouncedRecipientInfoList=[{"Recipient": recipient, "BounceType": "DoesNotExist"}],
    )
    update({"pk": message, "sk": {"S": "recipient#" + recipient}}, sent=answer["MessageId"])


WRITES_BEFORE_THE_CALL = 4
"""Two budgets, the claim, the slot."""


def update(key: Any, **facts: str) -> None:
    dynamodb.update_item(
        TableName=BOUNCES,
        Key=key,
        UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in facts),
        ExpressionAttributeValues={f":{name}": {"S": value} for name, value in facts.items()},
        ReturnValues="ALL_NEW",
    )
