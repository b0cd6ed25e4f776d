"""Reads an account once: AWS by the operator's own credentials, and DNS."""

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from bouncer.address import domain_of
from bouncer.aws.telemetry import NAMESPACE
from bouncer.deadline import utc_now
from bouncer.mailboxes import Mailbox, as_imported
from bouncer.policy.conditions import PolicyError
from bouncer.policy.load import load
from bouncer.settings import stored_prefix
from bouncer_console.deployment import Deployment, DeploymentError, client
from bouncer_console.doctor.account import (
    DIRECTORY_LIMIT,
    Account,
    Function,
    Neighbour,
    Queue,
    Rule,
    Sending,
    StoredSample,
    Unread,
    domain_named,
    own_domains,
    with_parents,
)
from bouncer_console.doctor.dns import Dns, DnsError
from bouncer_console.doctor.grants import allows
from bouncer_console.glance import COUNTS
from bouncer_console.policy_in_force import InForce, policy_in_force

_LOOK_BACK = timedelta(hours=24)
_IDENTITIES_A_REQUEST = 100
_SAMPLE = 20
"""Stored mails of which the records are looked up."""
_SETTLED = timedelta(minutes=30)
"""A stored mail older than this has been handled, or was missed."""
_FUNCTIONS = (
    "InboundFunction",
    "SendFunction",
    "AuditFunction",
    "UsageFunction",
    "RulesFunction",
)
_VERSION = re.compile(r"ses-bouncer (\S+):")
"""How the template's description begins."""
_NOT_DEPLOYED = "no stack is deployed yet"


class Reader:
    """Reads an account."""

    def __init__(
        self,
        *,
        stack: str,
        region: str | None,
        dns: Dns,
        command_version: str,
        bounce_sender: str | None = None,
        rule_set: str | None = None,
        after_rule: str | None = None,
        recipients: Sequence[str] = (),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """
        Args:
            bounce_sender, rule_set, after_rule, recipients: as they will be deployed; the
                stack's own where it exists and they are not given.
        """
        self._stack = stack
        self._region = region
        self._dns = dns
        self._command_version = command_version
        self._bounce_sender = bounce_sender
        self._rule_set = rule_set
        self._after_rule = after_rule
        self._recipients = tuple(recipients)
        self._clock = clock

    def read(self, advance: Callable[[str], None] = lambda _: None) -> Account:
        """
        Args:
            advance: told what is read next.
        """
        advance("the stack")
        deployment = _tried(lambda: Deployment.find(self._stack, self._region))
        found = deployment if isinstance(deployment, Deployment) else None
        if isinstance(deployment, Unread) and "does not exist" in deployment.why:
            deployment = Unread(_NOT_DEPLOYED)
        sender = self._told("BounceSender", self._bounce_sender, "--bounce-sender", found)
        rule_set = self._told("ReceiptRuleSetName", self._rule_set, "--rule-set", found)
        advance("SES")
        active, rules = self._rules(rule_set)
        given = {} if found is None else found.parameters
        recipients = self._recipients or tuple(
            each for each in given.get("Recipients", "").split(",") if each
        )
        account = Account(
            now=self._clock(),
            region=self._client("ses").meta.region_name,
            command_version=self._command_version,
            bounce_sender=sender,
            rule_set=rule_set,
            deployment=deployment,
            stack_status=_tried(self._stack_status),
            stack_version=_tried(self._stack_version),
            sending=_tried(self._sending),
            after_rule=self._after_rule or given.get("AfterRule", ""),
            recipients=recipients,
            identities=_with(sender, self._identities),
            receiving=_tried(lambda: self._receiving(recipients)),
            active_rule_set=active,
            rules=rules,
            functions=_needs(found, self._functions),
            may_invoke=_needs(found, self._may_invoke),
            may_store=_needs(found, self._may_store),
            may_publish=_needs(found, lambda d: self._may_publish(d, rules)),
            concurrency_left=_tried(self._concurrency_left),
            queues=_needs(found, self._queues),
            next_slot=_needs(found, self._next_slot),
            neighbours=_needs(found, self._neighbours),
            clock_ahead=_tried(self._clock_ahead),
            would_refuse=_needs(
                found, lambda _: self._sum(NAMESPACE, COUNTS["observed"], service=self._stack)
            ),
            alarms=_tried(self._alarms),
            silent_alarms=_tried(self._silent_alarms),
            directory=Unread("not read yet"),
        )
        advance("the policy")
        account = msgspec.structs.replace(account, policy=_needs(found, _policy))
        advance("the directory")
        account = self._with_directory(account, found)
        advance("stored mail")
        account = msgspec.structs.replace(
            account, sample=_needs(found, self._sample), kept=_tried(lambda: self._kept(found))
        )
        advance("DNS")
        return msgspec.structs.replace(
            account,
            mx={domain: self._mx(domain) for domain in sorted(own_domains(account))[:20]},
            dmarc=_with(sender, lambda address: self._dns.dmarc(domain_of(address))),
        )

    # --- AWS ---------------------------------------------------------------------------------

    def _client(self, service: str) -> Any:
        return client(service, self._region)

    def _told(
        self, parameter: str, given: str | None, option: str, found: Deployment | None
    ) -> str | Unread:
        value = (found.parameters.get(parameter) if found else None) or given
        return value or Unread(f"no stack {self._stack} is deployed; name it with {option}")

    def _stack_status(self) -> str:
        stacks = self._client("cloudformation").describe_stacks(StackName=self._stack)
        return str(stacks["Stacks"][0]["StackStatus"])

    def _stack_version(self) -> str:
        stacks = self._client("cloudformation").describe_stacks(StackName=self._stack)
        found = _VERSION.match(stacks["Stacks"][0].get("Description", ""))
        return found[1] if found else ""

    def _sending(self) -> Sending:
        account = self._client("sesv2").get_account()
        quota = account.get("SendQuota", {})
        return Sending(
            production=bool(account.get("ProductionAccessEnabled")),
            enabled=bool(account.get("SendingEnabled")),
            enforcement=str(account.get("EnforcementStatus", "")),
            daily_quota=float(quota.get("Max24HourSend", 0)),
            sent_today=float(quota.get("SentLast24Hours", 0)),
        )

    def _identities(self, sender: str) -> dict[str, str]:
        return self._verification([sender, *with_parents(domain_of(sender))])

    def _receiving(self, recipients: Iterable[str]) -> dict[str, str]:
        domains = {name for each in recipients for name in with_parents(domain_named(each))}
        return self._verification(sorted(domains))

    def _verification(self, identities: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for some in itertools.batched(identities, _IDENTITIES_A_REQUEST, strict=False):
            answer = self._client("ses").get_identity_verification_attributes(Identities=[*some])
            found |= {
                name: each["VerificationStatus"]
                for name, each in answer["VerificationAttributes"].items()
            }
        return found

    def _rules(
        self, rule_set: str | Unread
    ) -> tuple[str | Unread | None, tuple[Rule, ...] | Unread]:
        ses = self._client("ses")

        def active() -> str | None:
            name: str | None = (
                ses.describe_active_receipt_rule_set().get("Metadata", {}).get("Name")
            )
            return name

        def rules(name: str) -> tuple[Rule, ...]:
            return tuple(
                Rule(
                    name=each["Name"],
                    enabled=bool(each.get("Enabled")),
                    recipients=tuple(each.get("Recipients", ())),
                    actions=tuple(each.get("Actions", ())),
                )
                for each in ses.describe_receipt_rule_set(RuleSetName=name)["Rules"]
            )

        return _tried(active), _with(rule_set, rules)

    def _functions(self, deployment: Deployment) -> dict[str, Function]:
        names = self._physical(deployment, _FUNCTIONS)
        lambda_ = self._client("lambda")
        found = {}
        for logical, name in names.items():
            configuration = lambda_.get_function_configuration(FunctionName=name)
            reserved = lambda_.get_function_concurrency(FunctionName=name)
            layers = [
                lambda_.get_layer_version_by_arn(Arn=each["Arn"])
                for each in configuration.get("Layers", [])
            ]
            found[logical] = Function(
                name=name,
                architecture=configuration.get("Architectures", ["x86_64"])[0],
                layer_architectures=tuple(
                    kind for each in layers for kind in each.get("CompatibleArchitectures", [])
                ),
                errors=self._sum("AWS/Lambda", "Errors", FunctionName=name),
                throttles=self._sum("AWS/Lambda", "Throttles", FunctionName=name),
                reserved=reserved.get("ReservedConcurrentExecutions"),
            )
        return found

    def _physical(self, deployment: Deployment, logical: Iterable[str]) -> dict[str, str]:
        pages = (
            self._client("cloudformation")
            .get_paginator("list_stack_resources")
            .paginate(StackName=deployment.stack)
        )
        wanted = set(logical)
        return {
            each["LogicalResourceId"]: each["PhysicalResourceId"]
            for page in pages
            for each in page["StackResourceSummaries"]
            if each["LogicalResourceId"] in wanted and each.get("PhysicalResourceId")
        }

    def _sum(self, namespace: str, metric: str, **dimensions: str) -> float:
        answer = self._client("cloudwatch").get_metric_statistics(
            Namespace=namespace,
            MetricName=metric,
            Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
            StartTime=self._clock() - _LOOK_BACK,
            EndTime=self._clock(),
            Period=3600,
            Statistics=["Sum"],
        )
        return float(sum(each["Sum"] for each in answer["Datapoints"]))

    def _oldest(self, queue_name: str) -> float | None:
        answer = self._client("cloudwatch").get_metric_statistics(
            Namespace="AWS/SQS",
            MetricName="ApproximateAgeOfOldestMessage",
            Dimensions=[{"Name": "QueueName", "Value": queue_name}],
            StartTime=self._clock() - timedelta(minutes=30),
            EndTime=self._clock(),
            Period=300,
            Statistics=["Maximum"],
        )
        ages = [each["Maximum"] for each in answer["Datapoints"]]
        return float(max(ages)) if ages else None

    def _may_invoke(self, deployment: Deployment) -> bool:
        answer = self._client("lambda").get_policy(
            FunctionName=deployment.output("InboundFunction")
        )
        return allows(answer["Policy"], "lambda:InvokeFunction", _rule_arn_end(deployment))

    def _may_store(self, deployment: Deployment) -> bool:
        bucket = deployment.outputs.get("MailBucket")
        if not bucket:
            return True
        answer = self._client("s3").get_bucket_policy(Bucket=bucket)
        return allows(answer["Policy"], "s3:PutObject", _rule_arn_end(deployment))

    def _may_publish(self, deployment: Deployment, rules: tuple[Rule, ...] | Unread) -> bool:
        ours = [] if isinstance(rules, Unread) else rules
        base = deployment.outputs.get("ReceiptRule")
        topics = {
            action["TopicArn"]
            for rule in ours
            if rule.name == base
            for holder in rule.actions
            for action in holder.values()
            if action.get("TopicArn")
        }
        sns = self._client("sns")
        policies = [sns.get_topic_attributes(TopicArn=each)["Attributes"] for each in topics]
        return all(
            allows(each.get("Policy", "{}"), "sns:Publish", _rule_arn_end(deployment))
            for each in policies
        )

    def _concurrency_left(self) -> int:
        limits = self._client("lambda").get_account_settings()["AccountLimit"]
        return int(limits["UnreservedConcurrentExecutions"])

    def _queues(self, deployment: Deployment) -> dict[str, Queue]:
        sqs = self._client("sqs")
        found = {}
        for output, url in deployment.outputs.items():
            if not output.endswith("Queue"):
                continue
            attributes = sqs.get_queue_attributes(
                QueueUrl=url,
                AttributeNames=[
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesNotVisible",
                ],
            )["Attributes"]
            found[output] = Queue(
                messages=sum(int(count) for count in attributes.values()),
                oldest_seconds=self._oldest(url.rpartition("/")[2]),
            )
        return found

    def _next_slot(self, deployment: Deployment) -> float | None:
        item = (
            self._client("dynamodb")
            .get_item(
                TableName=deployment.output("PaceTable"),
                Key={"pk": {"S": "limiter"}, "sk": {"S": "send-bounce"}},
            )
            .get("Item", {})
        )
        return float(item["next_slot"]["N"]) if "next_slot" in item else None

    def _neighbours(self, deployment: Deployment) -> tuple[Neighbour, ...]:
        pages = self._client("cloudformation").get_paginator("describe_stacks").paginate()
        found = []
        for each in (each for page in pages for each in page["Stacks"]):
            outputs = {o["OutputKey"]: o["OutputValue"] for o in each.get("Outputs", [])}
            given = {p["ParameterKey"]: p["ParameterValue"] for p in each.get("Parameters", [])}
            # Nobody else's stack has all three.
            if each["StackName"] == deployment.stack or not (
                {"BounceTable", "PaceTable"} <= outputs.keys() and "SendIntervalSeconds" in given
            ):
                continue
            found.append(
                Neighbour(
                    stack=each["StackName"],
                    pace_table=outputs["PaceTable"],
                    interval=float(given["SendIntervalSeconds"]),
                )
            )
        return tuple(found)

    def _clock_ahead(self) -> float:
        answer = self._client("dynamodb").list_tables(Limit=1)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return (self._clock() - parsedate_to_datetime(date)).total_seconds() if date else 0.0

    def _alarms(self) -> dict[str, str]:
        return {each["AlarmName"]: each["StateValue"] for each in self._described_alarms()}

    def _silent_alarms(self) -> tuple[str, ...]:
        return tuple(
            each["AlarmName"] for each in self._described_alarms() if not each.get("AlarmActions")
        )

    def _described_alarms(self) -> list[dict[str, Any]]:
        pages = (
            self._client("cloudwatch")
            .get_paginator("describe_alarms")
            .paginate(AlarmNamePrefix=f"{self._stack}-", AlarmTypes=["MetricAlarm"])
        )
        return [each for page in pages for each in page["MetricAlarms"]]

    def _with_directory(self, account: Account, found: Deployment | None) -> Account:
        unreadable: list[str] = []

        def entries(deployment: Deployment) -> tuple[Mailbox, ...]:
            if (of_the_policy := _mailboxes_of(account.policy)) is not None:
                return of_the_policy
            table = deployment.mailbox_table()
            boxes = tuple(itertools.islice(table.scan(), DIRECTORY_LIMIT))
            unreadable.extend(box.address for box in boxes if table.unreadable(box.address))
            return boxes

        directory = _needs(found, entries)
        return msgspec.structs.replace(account, directory=directory, unreadable=tuple(unreadable))

    def _sample(self, deployment: Deployment) -> StoredSample | Unread:
        """The newest of the first thousand stored mails, and whether any record tells of them."""
        bucket = deployment.outputs.get("MailBucket")
        if not bucket:
            return Unread("mail is not stored (StoreMail=none)")
        prefix = stored_prefix(deployment.outputs.get("MailPrefix", ""))
        listed = self._client("s3").list_objects_v2(Bucket=bucket, MaxKeys=1000)
        ours, others = [], 0
        for each in listed.get("Contents", []):
            name = each["Key"].removeprefix(prefix)
            if not each["Key"].startswith(prefix) or "/" in name:
                others += each["Key"].rpartition("/")[2] != "AMAZON_SES_SETUP_NOTIFICATION"
            elif name != "AMAZON_SES_SETUP_NOTIFICATION":
                ours.append((each["LastModified"], name))
        settled = sorted((when, name) for when, name in ours if self._clock() - when > _SETTLED)
        names = [name for _, name in settled[-_SAMPLE:]]
        dynamodb, table = self._client("dynamodb"), deployment.output("BounceTable")
        without = tuple(
            name
            for name in names
            if not dynamodb.query(
                TableName=table,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": f"message#{name}"}},
                Limit=1,
            )["Items"]
        )
        return StoredSample(looked_at=len(names), without_record=without, outside_prefix=others)

    def _kept(self, found: Deployment | None) -> tuple[str, ...]:
        """What an earlier stack of this name left behind, as CloudFormation names things."""
        used = set(found.outputs.values()) if found else set()
        tables = self._client("dynamodb").get_paginator("list_tables").paginate()
        s3 = self._client("s3")
        # Else it lists those of every Region, where a stack of this name may be in use.
        buckets = s3.get_paginator("list_buckets").paginate(BucketRegion=s3.meta.region_name)
        names = [name for page in tables for name in page["TableNames"]]
        names += [each["Name"] for page in buckets for each in page["Buckets"]]
        starts = tuple(
            f"{self._stack}-{kind}-".lower()
            for kind in ("MailboxTable", "BounceTable", "MailBucket")
        )
        return tuple(n for n in names if n.lower().startswith(starts) and n not in used)

    def _mx(self, domain: str) -> tuple[str, ...] | Unread:
        return _tried(lambda: self._dns.mx(domain))


def _mailboxes_of(policy: InForce | Unread) -> tuple[Mailbox, ...] | None:
    """The policy's own list, which stands in the table's place."""
    try:
        listed = None if isinstance(policy, Unread) else load(policy.text).mailboxes
    except PolicyError:
        return None
    return None if listed is None else tuple(as_imported(listed).values())


def _policy(deployment: Deployment) -> InForce | Unread:
    policy = policy_in_force(deployment)
    return policy if policy.sure else Unread(policy.source)


def _rule_arn_end(deployment: Deployment) -> str:
    rule_set, rule = deployment.output("ReceiptRuleSet"), deployment.output("ReceiptRule")
    return f":receipt-rule-set/{rule_set}:receipt-rule/{rule}"


def _tried[Read](read: Callable[[], Read]) -> Read | Unread:
    try:
        return read()
    except (ClientError, BotoCoreError, DeploymentError, DnsError, OSError) as error:
        return Unread(str(error))


def _with[Known, Read](known: Known | Unread, read: Callable[[Known], Read]) -> Read | Unread:
    """What is read by something that may itself be unread."""
    if isinstance(known, Unread):
        return known
    return _tried(lambda: read(known))


def _needs[Read](
    deployment: Deployment | None, read: Callable[[Deployment], Read | Unread]
) -> Read | Unread:
    if deployment is None:
        return Unread(_NOT_DEPLOYED)
    return _tried(lambda: read(deployment))
