"""`bouncer permissions`: what IAM has to allow whoever runs a command.

The tests run each command as a user who may do this and nothing else, and compare what AWS was
asked for with what is listed here.
"""

import contextlib
import string
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import msgspec
import typer

from bouncer.aws.telemetry import NAMESPACE
from bouncer.settings import stored_prefix
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
)
from bouncer_console.output import fail, note, plain_errors, print_json


class May(msgspec.Struct, frozen=True, kw_only=True):
    """Some actions on one kind of thing."""

    actions: tuple[str, ...]
    on: str
    """A kind of thing, mostly an output of the stack; `*` where IAM knows no resources."""
    namespace: str = ""
    """Of CloudWatch's metrics, that it is confined to."""
    keys: str = ""
    """Of a table's items, what their keys have to be like."""
    by_cloudformation: bool = False
    """CloudFormation asks for it in the caller's name; the command itself does not."""


def _may(
    on: str,
    *actions: str,
    namespace: str = "",
    keys: str = "",
    by_cloudformation: bool = False,
) -> May:
    return May(
        actions=actions,
        on=on,
        namespace=namespace,
        keys=keys,
        by_cloudformation=by_cloudformation,
    )


def _all_of(*mays: May) -> tuple[May, ...]:
    """The same, each kind of thing once."""
    found: dict[May, set[str]] = {}
    for each in mays:
        key = msgspec.structs.replace(each, actions=())
        found.setdefault(key, set()).update(each.actions)
    return tuple(
        msgspec.structs.replace(key, actions=tuple(sorted(actions)))
        for key, actions in found.items()
    )


_FIND = _may("stack", "cloudformation:DescribeStacks")
_POLICY = (  # the one in force: in the function's code, or in AppConfig
    _may("InboundFunction", "lambda:GetFunction"),
    _may("policy", "appconfig:GetLatestConfiguration", "appconfig:StartConfigurationSession"),
)

_DOCTOR = (
    _may(
        "*",
        "cloudformation:DescribeStacks",  # the Region's other stacks: do they share the pace?
        "cloudwatch:DescribeAlarms",
        "cloudwatch:GetMetricStatistics",
        "dynamodb:ListTables",
        "lambda:GetAccountSettings",
        "s3:ListAllMyBuckets",
        "ses:DescribeActiveReceiptRuleSet",
        "ses:DescribeReceiptRuleSet",
        "ses:GetAccount",
        "ses:GetIdentityVerificationAttributes",
    ),
    _may("stack", "cloudformation:ListStackResources"),
    _may(
        "functions",
        "lambda:GetFunctionConcurrency",
        "lambda:GetFunctionConfiguration",
        "lambda:GetPolicy",
    ),
    _may("layers", "lambda:GetLayerVersion"),
    *_POLICY,
    _may("queues", "sqs:GetQueueAttributes"),
    _may("MailTopic", "sns:GetTopicAttributes"),
    _may("MailBucket", "s3:GetBucketPolicy", "s3:ListBucket"),
    _may("MailboxTable", "dynamodb:Scan"),
    _may("BounceTable", "dynamodb:Query"),
    _may("PaceTable", "dynamodb:GetItem"),
)
_SWITCH = _may("stack", "cloudformation:UpdateStack")
_BY_CLOUDFORMATION = (
    _may("transform", "cloudformation:CreateChangeSet", by_cloudformation=True),
    _may(
        "functions",
        "lambda:GetFunction",
        "lambda:ListTags",
        "lambda:UpdateFunctionConfiguration",
        by_cloudformation=True,
    ),
    _may("roles", "iam:GetRole", "iam:PassRole", by_cloudformation=True),
)

_GLANCE = (
    _FIND,
    _may("stack", "cloudformation:ListStackResources"),
    _may("*", "cloudwatch:DescribeAlarms", "cloudwatch:GetMetricData"),
    _may("queues", "sqs:GetQueueAttributes"),
    _may("PaceTable", "dynamodb:GetItem"),
)
_QUEUE = (_FIND, _may("BounceTable", "dynamodb:Scan"), _may("PaceTable", "dynamodb:GetItem"))
_LOOK_AT_DEAD_LETTERS = _may("dead letters", "sqs:ChangeMessageVisibility", "sqs:ReceiveMessage")
_STATUS = (
    *_GLANCE,
    _may("BounceTable", "dynamodb:BatchGetItem", "dynamodb:Query", "dynamodb:Scan"),
    _LOOK_AT_DEAD_LETTERS,
    _may("mail", "s3:GetObject"),
    _may("MailBucket", "s3:ListBucket"),  # or S3 says "forbidden" of what is not there
)
_LOG = (
    _FIND,
    _may("logs", "logs:StartQuery"),
    _may("*", "logs:GetQueryResults", "logs:StopQuery"),
    _may("BounceTable", "dynamodb:GetItem"),  # the key of a log with hashes
)
_FIND_MAIL = (
    *_LOG,
    # Where the log names nobody, records and headers do; where it saw a bounce begun, the ledger.
    _may("BounceTable", "dynamodb:BatchGetItem", "dynamodb:Query"),
    _may("mail", "s3:GetObject"),
)
_REDRIVE = (
    _FIND,
    _LOOK_AT_DEAD_LETTERS,
    _may("dead letters", "sqs:DeleteMessage"),
    _may("given back", "sqs:SendMessage"),
)
_DROP = (
    *_QUEUE,
    _may("BounceTable", "dynamodb:UpdateItem"),
    _may("*", "cloudwatch:PutMetricData", namespace=NAMESPACE),
)
_EXPLAIN = (_FIND, _may("MailboxTable", "dynamodb:BatchGetItem"))
_LIST = (_FIND, _may("MailboxTable", "dynamodb:Scan"))
_CHANGE = (_FIND, _may("MailboxTable", "dynamodb:BatchGetItem", "dynamodb:UpdateItem"))
_FILTER = _may("*", "ses:ListReceiptFilters")
_BLOCK = _may("*", "ses:CreateReceiptFilter")
_UNBLOCK = _may("*", "ses:DeleteReceiptFilter")
_SYNC = (
    _FIND,
    _may("MailboxTable", "dynamodb:Scan"),
    _may("PaceTable", "dynamodb:UpdateItem"),
    _may(
        "*",
        "ses:CreateReceiptRule",
        "ses:DeleteReceiptRule",
        "ses:DescribeActiveReceiptRuleSet",
        "ses:DescribeReceiptRuleSet",
        "ses:UpdateReceiptRule",
    ),
)
_PUSH = (
    _FIND,
    _may("policy", "appconfig:CreateHostedConfigurationVersion", "appconfig:StartDeployment"),
)

_BY_COMMAND: dict[str, tuple[May, ...]] = {
    "explain": _EXPLAIN,
    "preview": _EXPLAIN,
    "replay": _EXPLAIN,
    "doctor": _DOCTOR,
    "mode": (*_DOCTOR, _SWITCH, *_BY_CLOUDFORMATION),
    "try": (
        _FIND,
        _may("identities", "ses:SendRawEmail"),
        _may("*", "ses:GetSendQuota"),
        _may("PaceTable", "dynamodb:UpdateItem"),
        _may("logs", "logs:FilterLogEvents"),
        _may("BounceTable", "dynamodb:Query"),
        _may("mail", "s3:DeleteObject", "s3:GetObject"),
    ),
    "status": _STATUS,
    "find": _FIND_MAIL,
    "report": _LOG,
    "redrive": _REDRIVE,
    "send-bounce": (
        _FIND,
        _may("identities", "ses:SendBounce"),
        _may("BounceTable", "dynamodb:Query", "dynamodb:UpdateItem"),
        _may("PaceTable", "dynamodb:UpdateItem"),
        _may("mail", "s3:GetObject"),
        _may("BounceQueue", "sqs:GetQueueAttributes", "sqs:SendMessage"),
    ),
    "web": (
        *_STATUS,
        *_FIND_MAIL,
        *_REDRIVE,
        *_DROP,
        *_EXPLAIN,
        *_LIST,
        *_CHANGE,
        _may("MailboxTable", "dynamodb:DeleteItem", "dynamodb:DescribeTable", "dynamodb:PutItem"),
        *_POLICY,
        *_SYNC,
        *_PUSH,
        _FILTER,
        _BLOCK,
        _UNBLOCK,
    ),
    "permissions": (_FIND,),
    "queue": _QUEUE,
    "queue drop": _DROP,
    "policy check": (_FIND,),
    "policy push": _PUSH,
    "policy purge": (
        _FIND,
        _may(
            "policy",
            "appconfig:DeleteHostedConfigurationVersion",
            "appconfig:ListHostedConfigurationVersions",
        ),
    ),
    "mailbox list": _LIST,
    "mailbox show": _EXPLAIN,
    "mailbox check": (_FIND, _may("MailboxTable", "dynamodb:BatchGetItem", "dynamodb:Scan")),
    "mailbox add": (_FIND, _may("MailboxTable", "dynamodb:BatchGetItem", "dynamodb:PutItem")),
    "mailbox set": _CHANGE,
    "mailbox disable": _CHANGE,
    "mailbox enable": _CHANGE,
    "mailbox remove": (_FIND, _may("MailboxTable", "dynamodb:DeleteItem")),
    "mailbox import": (
        _FIND,
        _may(
            "MailboxTable",
            "dynamodb:BatchGetItem",
            "dynamodb:BatchWriteItem",
            "dynamodb:UpdateItem",
        ),
    ),
    "mailbox export": _LIST,
    "mailbox recount": (
        _FIND,
        _may("MailBucket", "s3:ListBucket"),
        _may("BounceTable", "dynamodb:Scan", "dynamodb:UpdateItem"),
        _may("MailboxTable", "dynamodb:Scan", "dynamodb:UpdateItem"),
    ),
    "adopt": (
        _FIND,
        _may("old BounceTable", "dynamodb:Scan"),
        _may("BounceTable", "dynamodb:PutItem", keys="message#*"),
    ),
    "rules activate": (
        _may("*", "ses:DescribeActiveReceiptRuleSet", "ses:SetActiveReceiptRuleSet"),
    ),
    "rules sync": _SYNC,
    "rules filter add": (_FILTER, _BLOCK),
    "rules filter list": (_FILTER,),
    "rules filter remove": (_FILTER, _UNBLOCK),
}
PERMISSIONS = {name: _all_of(*needed) for name, needed in _BY_COMMAND.items()}
"""By command; `policy schema` asks nobody."""


_SHAPES: dict[str, tuple[str, ...]] = {
    "*": ("*",),
    "BounceQueue": ("arn:{partition}:sqs:{region}:{account}:{BounceQueue}",),
    "given back": (
        "arn:{partition}:sqs:{region}:{account}:{BounceQueue}",
        "arn:{partition}:sqs:{region}:{account}:{AuditQueue}",
        "arn:{partition}:sqs:{region}:{account}:{UsageQueue}",
    ),
    "BounceTable": ("arn:{partition}:dynamodb:{region}:{account}:table/{BounceTable}",),
    "old BounceTable": ("arn:{partition}:dynamodb:{region}:{account}:table/{stack}-BounceTable-*",),
    "InboundFunction": ("arn:{partition}:lambda:{region}:{account}:function:{InboundFunction}",),
    "MailBucket": ("arn:{partition}:s3:::{MailBucket}",),
    "MailTopic": ("arn:{partition}:sns:{region}:{account}:{MailTopic}",),
    "MailboxTable": ("arn:{partition}:dynamodb:{region}:{account}:table/{MailboxTable}",),
    "PaceTable": ("arn:{partition}:dynamodb:{region}:{account}:table/{PaceTable}",),
    "dead letters": (
        "arn:{partition}:sqs:{region}:{account}:{BounceDeadLetterQueue}",
        "arn:{partition}:sqs:{region}:{account}:{EventDeadLetterQueue}",
        "arn:{partition}:sqs:{region}:{account}:{AuditDeadLetterQueue}",
        "arn:{partition}:sqs:{region}:{account}:{UsageDeadLetterQueue}",
    ),
    "functions": ("arn:{partition}:lambda:{region}:{account}:function:{stack}-*",),
    "identities": ("arn:{partition}:ses:{region}:{account}:identity/*",),
    "layers": ("arn:{partition}:lambda:{region}:{account}:layer:*:*",),
    "logs": (
        "arn:{partition}:logs:{region}:{account}:log-group:{InboundLogGroup}",
        "arn:{partition}:logs:{region}:{account}:log-group:{InboundLogGroup}:*",
        "arn:{partition}:logs:{region}:{account}:log-group:{SendLogGroup}",
        "arn:{partition}:logs:{region}:{account}:log-group:{SendLogGroup}:*",
    ),
    "mail": ("arn:{partition}:s3:::{MailBucket}/{MailPrefix}*",),
    "policy": (
        "arn:{partition}:appconfig:{region}:{account}:application/{PolicyApplication}",
        "arn:{partition}:appconfig:{region}:{account}:application/{PolicyApplication}/*",
        "arn:{partition}:appconfig:{region}:{account}:deploymentstrategy/{PolicyStrategy}",
    ),
    "queues": ("arn:{partition}:sqs:{region}:{account}:{stack}-*",),
    "roles": ("arn:{partition}:iam::{account}:role/{stack}-*",),
    "stack": ("arn:{partition}:cloudformation:{region}:{account}:stack/{stack}/*",),
    "transform": ("arn:{partition}:cloudformation:{region}:aws:transform/Serverless-2016-10-31",),
}
"""What a statement is on: ARNs, with the stack's outputs in them."""


class Arns:
    """Where a stack's things are; before the first deployment, patterns of their names."""

    def __init__(self, stack: str, deployment: Deployment | None) -> None:
        if deployment is None:
            self._names = _guessed(stack)
        else:
            self._names = {"stack": stack} | _deployed(deployment)

    def of(self, on: str) -> list[str]:
        """The ARNs of one kind of thing; none where the stack has no such thing."""
        found = []
        for shape in _SHAPES[on]:
            with contextlib.suppress(KeyError):
                found.append(shape.format_map(self._names))
        return found


def _deployed(deployment: Deployment) -> dict[str, str]:
    """The names of what is deployed, by output; without the account, an address or an ARN."""
    function = deployment.output("InboundFunction")
    _, partition, _, region, account, *_ = function.split(":")
    names = {
        output: value.rpartition("/")[2] if output.endswith("Queue") else value.rpartition(":")[2]
        for output, value in deployment.outputs.items()
    }
    if "MailPrefix" in names:
        names["MailPrefix"] = stored_prefix(names["MailPrefix"])
    return names | {"partition": partition, "region": region, "account": account}


def _guessed(stack: str) -> dict[str, str]:
    """As CloudFormation will name them."""
    fields = {
        field
        for shapes in _SHAPES.values()
        for shape in shapes
        for _, field, _, _ in string.Formatter().parse(shape)
        if field
    }
    return {field: f"{stack}-{field}-*" for field in fields} | {
        "stack": stack,
        "partition": "aws",
        "region": "*",
        "account": "*",
        "InboundLogGroup": f"/aws/lambda/{stack}-inbound",
        "SendLogGroup": f"/aws/lambda/{stack}-send",
        "MailBucket": f"{stack}-mailbucket-*".lower(),
        "MailPrefix": "",
        "PaceTable": f"{stack}-BounceTable-*",
        "PolicyApplication": "*",
        "PolicyStrategy": "*",
    }


def statements(commands: Sequence[str], arns: Arns) -> Iterator[dict[str, Any]]:
    """IAM's statements for these commands, one a kind of thing and condition."""
    actions: dict[tuple[str, str, str], set[str]] = {}
    for each in (may for command in commands for may in PERMISSIONS[command]):
        actions.setdefault((each.on, each.namespace, each.keys), set()).update(each.actions)
    for (on, namespace, keys), allowed in actions.items():
        if resources := arns.of(on):
            statement: dict[str, Any] = {
                "Effect": "Allow",
                "Action": sorted(allowed),
                "Resource": resources,
            }
            if namespace:
                statement["Condition"] = {"StringEquals": {"cloudwatch:namespace": namespace}}
            if keys:
                statement["Condition"] = {
                    "ForAllValues:StringLike": {"dynamodb:LeadingKeys": [keys]}
                }
            yield statement


def policy_document(commands: Sequence[str], arns: Arns) -> dict[str, Any]:
    """An IAM policy, as its API takes it."""
    return {"Version": "2012-10-17", "Statement": list(statements(commands, arns))}


def matching(wanted: Sequence[str]) -> list[str]:
    """The commands that are meant; the name of a group means all of it, no name every command.

    Raises:
        LookupError: one that is none.
    """
    if not wanted:
        return list(PERMISSIONS)
    found: list[str] = []
    for name in wanted:
        group = [each for each in PERMISSIONS if each.startswith(f"{name} ")]
        these = [name] if name in PERMISSIONS else group
        if not these:
            raise LookupError(name)
        found += these
    return list(dict.fromkeys(found))


def permissions(
    commands: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND]...",
            help='Such as status, "mailbox import", or mailbox for all of them; else every one.',
        ),
    ] = None,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
) -> None:
    """Print the IAM policy that whoever runs a command needs.

    With the deployed stack's ARNs; before a deployment, with patterns that its names will match.
    docs/permissions.md has the list.
    """
    try:
        wanted = matching(commands or [])
    except LookupError as error:
        fail(f"There is no command {error.args[0]}: bouncer --help lists them")
    deployment = None
    with plain_errors():
        try:
            deployment = Deployment.find(stack, region)
        except DeploymentError as error:
            note(f"The names are guessed: {error}")
    print_json(policy_document(wanted, Arns(stack, deployment)))
