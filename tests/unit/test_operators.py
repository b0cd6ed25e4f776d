"""`bouncer permissions`: every command has its policy, and every policy is one that IAM takes."""

import json
import re

import pytest

from bouncer_console.deployment import Deployment
from bouncer_console.permissions import PERMISSIONS, Arns, matching, policy_document
from local import commands

DEPLOYED = Deployment(
    stack="ses-bouncer",
    region="eu-west-1",
    outputs={
        "InboundFunction": "arn:aws:lambda:eu-west-1:111122223333:function:inbound",
        "BounceQueue": "https://sqs.eu-west-1.amazonaws.com/111122223333/bounces",
        "BounceDeadLetterQueue": "https://sqs.eu-west-1.amazonaws.com/111122223333/dead",
        "EventDeadLetterQueue": "https://sqs.eu-west-1.amazonaws.com/111122223333/events",
        "MailTopic": "arn:aws:sns:eu-west-1:111122223333:mails",
        "MailBucket": "mails",
        "MailPrefix": "inbox",
        "MailboxTable": "boxes",
        "BounceTable": "bounces",
        "PaceTable": "bounces-of-another-stack",
        "InboundLogGroup": "/aws/lambda/ses-bouncer-inbound",
        "SendLogGroup": "/aws/lambda/ses-bouncer-send",
    },
    parameters={},
)
ARNS = Arns("ses-bouncer", DEPLOYED)
GUESSED = Arns("ses-bouncer", None)

# Its documentation, "IAM and AWS STS quotas": a managed policy, without white space.
_LONGEST = 6144


def test_every_command_that_asks_aws_has_its_permissions() -> None:
    leaves = {
        name.removeprefix("bouncer ")
        for name, command, _ in commands.commands()
        if not hasattr(command, "commands") or getattr(command, "invoke_without_command", False)
    }
    assert leaves - {"policy schema"} == PERMISSIONS.keys()


@pytest.mark.parametrize("arns", [ARNS, GUESSED], ids=["deployed", "not yet"])
def test_a_policy_for_everything_is_one_that_iam_takes(arns: Arns) -> None:
    document = policy_document(matching([]), arns)
    assert len(json.dumps(document, separators=(",", ":"))) <= _LONGEST
    for statement in document["Statement"]:
        assert all(re.fullmatch("[a-z0-9]+:[A-Z][A-Za-z0-9]+", a) for a in statement["Action"])
        assert statement["Resource"]
        assert all(each == "*" or each.count(":") >= 5 for each in statement["Resource"])


def test_a_deployed_stacks_things_are_named() -> None:
    resources = {
        each
        for statement in policy_document(matching(["status", "send-bounce"]), ARNS)["Statement"]
        for each in statement["Resource"]
    }
    assert {
        "arn:aws:cloudformation:eu-west-1:111122223333:stack/ses-bouncer/*",
        "arn:aws:dynamodb:eu-west-1:111122223333:table/bounces",
        "arn:aws:dynamodb:eu-west-1:111122223333:table/bounces-of-another-stack",
        "arn:aws:s3:::mails",
        "arn:aws:s3:::mails/inbox/*",
        "arn:aws:sqs:eu-west-1:111122223333:bounces",
        "arn:aws:sqs:eu-west-1:111122223333:dead",
    } <= resources


@pytest.mark.parametrize("commands", [["adopt"], ["adopt", "send-bounce"]])
def test_who_adopts_a_ledger_may_put_nothing_but_what_is_known_of_mails(
    commands: list[str],
) -> None:
    """The limiter, budgets and the key are in the same table."""
    (put,) = [
        each
        for each in policy_document(commands, ARNS)["Statement"]
        if "dynamodb:PutItem" in each["Action"]
    ]
    assert put["Action"] == ["dynamodb:PutItem"]
    assert put["Condition"] == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["message#*"]}}


def test_what_a_stack_does_not_have_is_left_out() -> None:
    pushed = policy_document(["policy push"], ARNS)["Statement"]
    assert [each["Action"] for each in pushed] == [["cloudformation:DescribeStacks"]]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["queue"], ["queue"]),
        (["rules filter"], ["rules filter add", "rules filter list", "rules filter remove"]),
        (["status", "status"], ["status"]),
        ([], list(PERMISSIONS)),
    ],
)
def test_a_group_is_all_of_its_commands_and_a_command_itself(
    wanted: list[str], found: list[str]
) -> None:
    assert matching(wanted) == found


def test_a_command_that_there_is_not_is_named() -> None:
    with pytest.raises(LookupError, match="staus"):
        matching(["staus"])
