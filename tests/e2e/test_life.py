"""A stack's life: each parameter that can be switched, there and back.

Throughout, nobody who has a mailbox is told that he has none, and nothing precious is lost.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from local import stack
from local.deployment import deployed
from tests.e2e.conftest import Site
from tests.e2e.test_operation import run

SWITCHES: tuple[dict[str, str], ...] = (
    {"StoreMail": "none", "Usage": "external"},
    {"StoreMail": "existing-bucket", "MailBucketName": "my-mail"},
    {"MailPrefix": "inbox"},
    {"Usage": "external"},
    {"InvocationType": "Event", "StopScope": "rule"},
    {"SyncRulesSchedule": "rate(1 hour)"},
    {"Recipients": "example.com", "AfterRule": "first"},
    {"PolicySource": "appconfig"},
    {"Mode": "observe"},
    {
        "BounceSender": "mailer-daemon@new.example.com",
        "BounceIdentity": "example.com",
        "OtherBounceSenders": "mailer-daemon@example.com",
        "OtherBounceIdentityArns": "arn:aws:ses:us-east-1:000000000000:identity/example.com",
    },
    {
        "PaceTable": "pace",
        "SendIntervalSeconds": "2",
        "WaitBudgetSeconds": "5",
        "WindowMarginSeconds": "600",
        "RefusedMailDays": "7",
        "LogAddresses": "none",
        "LogRetentionDays": "90",
        "LedgerRetentionDays": "30",
        "DeadLetterRetentionSeconds": "86400",
        "AuditDelaySeconds": "60",
        "LateBounces": "all",
        "AlarmTopicArn": "arn:aws:sns:us-east-1:000000000000:alarms",
        "CloudWatchDashboard": "no",
        "TracingMode": "Active",
    },
)
"""What is switched together depends on nothing of each other."""

NOT_HERE = {
    # AWS makes a new, empty one on the way back; here it would have the old one's name.
    "MailboxTableName": "the stack's own directory goes out of use",
    "MailboxAttributes": "with MailboxTableName only; tests/e2e/test_variants.py",
    "MailboxDomains": "with MailboxTableName only; tests/e2e/test_variants.py",
    "ReceiptRuleSetName": "a name that the user has to make, and activate",
    "ReceiptRuleName": "no update changes it (docs/operations.md)",
    "CreateReceiptRule": "without our rule there is no mail to look at",
    "Architecture": "this machine has one",
    "AwsEndpointUrl": "for this machine only",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An AWS of its own: what is switched and deleted here disturbs nobody."""
    with deployed(outbox=tmp_path_factory.mktemp("outbox")) as (aws, outputs):
        yield Site(aws=aws, outputs=outputs)


def parameters_of(site: Site) -> dict[str, str]:
    found = site.client("cloudformation").describe_stacks(StackName=stack.STACK)["Stacks"][0]
    return {each["ParameterKey"]: each["ParameterValue"] for each in found["Parameters"]}


def precious(site: Site) -> dict[str, Any]:
    """Where the directory, the ledger and the mail are, and what the directory holds."""
    table = site.outputs["MailboxTable"]
    items = site.client("dynamodb").scan(TableName=table)["Items"]
    return {
        "names": [site.outputs[name] for name in ("MailboxTable", "BounceTable")],
        "addresses": sorted(each["address"]["S"] for each in items),
    }


def end_of(site: Site, recipient: str) -> tuple[str, str]:
    """How a mail to somebody ends: the decision's outcome, and the bounce's state."""
    decided = site.decided(site.mail(recipient))
    (one,) = decided["recipients"]
    return one["outcome"], one.get("state") or decided.get("suppressed") or ""


def test_every_parameter_is_switched_here_or_has_its_reason(site: Site) -> None:
    switched = {name for each in SWITCHES for name in each}
    assert switched | NOT_HERE.keys() == parameters_of(site).keys()
    assert switched & NOT_HERE.keys() == set()


@pytest.fixture(scope="module")
def furnished(site: Site) -> Site:
    """With what the switches name: a bucket, a table for the pace, a rule to come after."""
    s3, bucket = site.client("s3"), "my-mail"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_policy(Bucket=bucket, Policy=ses_may_put(bucket))
    site.client("dynamodb").create_table(
        TableName="pace",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in ("pk", "sk")],
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
    )
    first = {"Name": "first", "Enabled": False, "Actions": [{"StopAction": {"Scope": "RuleSet"}}]}
    site.client("ses").create_receipt_rule(RuleSetName=stack.RULE_SET, Rule=first)
    return site


@pytest.mark.parametrize("changed", SWITCHES, ids=lambda each: "-".join([*each][:2]))
def test_a_switch_goes_there_and_back_and_nobody_with_a_mailbox_is_bounced(
    furnished: Site, changed: dict[str, str]
) -> None:
    site = furnished
    began, kept = parameters_of(site), precious(site)
    there = site.switch(**changed)
    if "PolicySource" in changed:  # before that, mail goes on undecided
        assert run(there, "policy", "push").returncode == 0
        time.sleep(1)
    assert end_of(there, "alice@example.com") == ("accept", "")
    assert precious(there) == kept
    if "PolicySource" in changed:  # or its profile would stay
        assert run(there, "policy", "purge", "--yes").returncode == 0
    back = there.switch(**{name: began[name] for name in changed})
    assert end_of(back, "alice@example.com") == ("accept", "")
    assert precious(back) == kept
    assert parameters_of(back) == began


def test_after_all_that_it_bounces_as_before(furnished: Site) -> None:
    now = Site(aws=furnished.aws, outputs=stack.outputs(furnished.aws))
    assert end_of(now, "nobody@example.com") == ("bounce", "sent")


def ses_may_put(bucket: str) -> str:
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "ses.amazonaws.com"},
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
