"""A stack's life: each parameter that can be switched, there and back; deleted, and made again.

Throughout, nobody who has a mailbox is told that he has none, and nothing precious is lost.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from local import stack
from local.demo import until
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
    "MailboxTableName": "below: the stack's own directory goes out of use",
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
    site = as_it_is(furnished)
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


def as_it_is(site: Site) -> Site:
    """With the outputs of now: a bucket that went out of use and came back is another."""
    return Site(aws=site.aws, outputs=stack.outputs(site.aws))


def test_after_all_that_it_bounces_as_before(furnished: Site) -> None:
    assert end_of(as_it_is(furnished), "nobody@example.com") == ("bounce", "sent")


def test_refused_mail_is_marked_and_ends_when_the_user_says(furnished: Site) -> None:
    site = furnished.switch(RefusedMailDays="7")
    s3, bucket = site.client("s3"), site.outputs["MailBucket"]
    refused, kept = site.mail("nobody@example.com"), site.mail("alice@example.com")
    assert [site.result(each) for each in (refused, kept)] == ["STOP_RULE_SET", "CONTINUE"]

    def tags(message_id: str) -> Any:
        return s3.get_object_tagging(Bucket=bucket, Key=f"mail/{message_id}")["TagSet"]

    assert tags(refused) == [{"Key": "ses-bouncer", "Value": "refused"}]
    assert tags(kept) == []
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert (rule["Status"], rule["Expiration"]) == ("Enabled", {"Days": 7})
    assert rule["Filter"]["And"]["Tags"] == tags(refused)
    site.switch(RefusedMailDays="0")
    with pytest.raises(s3.exceptions.ClientError, match="NoSuchLifecycleConfiguration"):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    unmarked = site.mail("nobody@example.com")
    assert (site.result(unmarked), tags(unmarked)) == ("STOP_RULE_SET", [])


# --- The stack's own directory out of use, and its end -------------------------------------------


def test_deleted_and_made_again_it_goes_on_with_what_it_kept(furnished: Site) -> None:
    """As docs/operations.md has it; the command is the doctor's own."""
    site = as_it_is(furnished)
    counted = site.mail("alice@example.com")
    assert site.decided(counted)["recipients"][0]["outcome"] == "accept"
    before, stored = precious(site), stored_mail(site)
    tables, bucket = before["names"], site.outputs["MailBucket"]
    delete_what_switches_left(site)
    cloudformation = site.client("cloudformation")
    cloudformation.delete_stack(StackName=stack.STACK)
    cloudformation.get_waiter("stack_delete_complete").wait(
        StackName=stack.STACK, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    assert set(tables) <= set(site.client("dynamodb").list_tables()["TableNames"])
    assert site.client("lambda").list_functions()["Functions"] == []
    proposed = adoption(site)

    # Without another word the new directory is empty: it observes, and knows of nobody.
    new = made_again(site)
    assert new.outputs["MailboxTable"] not in tables
    assert new.outputs["MailBucket"] != bucket
    assert end_of(new, "alice@example.com") == ("accept", "")
    live = new.switch(Mode="enforce")
    assert end_of(live, "alice@example.com") == ("accept", "")
    assert end_of(live, "nobody@example.com") == ("accept", "")
    assert adoption(live) == proposed

    site.client("s3").put_bucket_policy(Bucket=bucket, Policy=ses_may_put(bucket))
    adopted = made_again(site, **proposed)
    assert adopted.outputs["Usage"] == "managed"
    assert adopted.outputs["MailBucket"] == bucket
    assert run(adopted, "adopt", tables[1]).returncode == 0
    assert precious(adopted)["addresses"] == before["addresses"]
    assert end_of(adopted, "alice@example.com") == ("accept", "")
    assert end_of(adopted, "nobody@example.com") == ("bounce", "sent")
    assert stored < stored_mail(adopted)

    # Mail of before is given back to its mailbox when it is deleted.
    used = used_by_alice(adopted)
    key = f"mail/{counted}"
    size = site.client("s3").head_object(Bucket=bucket, Key=key)["ContentLength"]
    site.client("s3").delete_object(Bucket=bucket, Key=key)
    until(lambda: used_by_alice(adopted) == used - size or None, "nothing was given back")


def used_by_alice(site: Site) -> int:
    item = site.client("dynamodb").get_item(
        TableName=site.outputs["MailboxTable"],
        Key={"address": {"S": "alice@example.com"}},
        ConsistentRead=True,
    )["Item"]
    return int(item["used_bytes"]["N"])


def test_a_table_of_ones_own_there_and_back_loses_no_directory(furnished: Site) -> None:
    """The stack makes a new one on the way back, which is empty; the doctor names the old one."""
    with_own = furnished.switch(MailboxTableName="", Usage="auto")
    imported = run(with_own, "mailbox", "import", str(stack.MAILBOXES), "--new-domains")
    assert imported.returncode == 0
    assert end_of(with_own, "nobody@example.com") == ("bounce", "sent")
    before = precious(with_own)

    site = with_own
    site.client("dynamodb").create_table(
        TableName="users",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "address", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "address", "KeyType": "HASH"}],
    )
    there = site.switch(MailboxTableName="users")
    assert end_of(there, "alice@example.com") == ("accept", "")
    back = there.switch(MailboxTableName="")
    assert end_of(back, "alice@example.com") == ("accept", "")
    assert precious(back)["addresses"] == []
    assert before["names"][0] in kept_from_before(back)["found"]
    adopted = back.switch(MailboxTableName=before["names"][0], Usage="managed")
    assert precious(adopted) == before
    assert end_of(adopted, "alice@example.com") == ("accept", "")
    assert end_of(adopted, "nobody@example.com") == ("bounce", "sent")


def kept_from_before(site: Site) -> dict[str, Any]:
    checks = json.loads(run(site, "doctor", "--json").stdout)["checks"]
    found: dict[str, Any]
    (found,) = [each for each in checks if each["name"] == "kept-from-before"]
    assert found["state"] == "warning"
    return found


def adoption(site: Site) -> dict[str, str]:
    """The parameters of the command that the doctor proposes."""
    mend = kept_from_before(site)["mend"]
    command = mend.partition("sam deploy --parameter-overrides ")[2].partition(";")[0]
    return dict(each.split("=", 1) for each in command.split())


def made_again(site: Site, **parameters: str) -> Site:
    """By `sam deploy`."""
    outputs = stack.deploy(site.aws, stack.STATE / "build" / "template.yaml", **parameters)
    return Site(aws=site.aws, outputs=outputs)


def delete_what_switches_left(site: Site) -> None:
    """Buckets that went out of use; with more than one of them the doctor leaves the choice."""
    s3 = site.client("s3")
    for bucket in [each["Name"] for each in s3.list_buckets()["Buckets"]]:
        if "-mailbucket-" in bucket and bucket != site.outputs["MailBucket"]:
            for stored in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
                s3.delete_object(Bucket=bucket, Key=stored["Key"])
            s3.delete_bucket(Bucket=bucket)


def stored_mail(site: Site) -> set[str]:
    listed = site.client("s3").list_objects_v2(Bucket=site.outputs["MailBucket"])
    return {each["Key"] for each in listed["Contents"]}


def ses_may_put(bucket: str) -> str:
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "ses.amazonaws.com"},
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
