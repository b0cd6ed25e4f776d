"""The template's parameters: each way to deploy it works, on a stack of its own."""

import json
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import stack
from local.demo import until
from local.deployment import deployed
from tests.e2e.conftest import Site
from tests.e2e.test_operation import bouncer, run


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A second AWS, so that changing the stack disturbs nobody."""
    with deployed(outbox=tmp_path_factory.mktemp("outbox")) as (aws, outputs):
        yield Site(aws=aws, outputs=outputs)


def _deploy(site: Site, **parameters: str) -> Site:
    """By `sam deploy`."""
    outputs = stack.deploy(site.aws, stack.STATE / "build" / "template.yaml", **parameters)
    return Site(aws=site.aws, outputs=outputs)


def test_a_mailbox_table_of_the_users_own_with_other_names(other: Site) -> None:
    """Read only, under the user's attribute names; usage is his."""
    dynamodb = other.client("dynamodb")
    dynamodb.create_table(
        TableName="users",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "email", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "email", "KeyType": "HASH"}],
    )
    full = {"email": "zoe@example.com", "quota": 100, "used": 100}
    item = {k: {"S": v} if isinstance(v, str) else {"N": str(v)} for k, v in full.items()}
    dynamodb.put_item(TableName="users", Item=item)
    dynamodb.put_item(TableName="users", Item={"email": {"S": "yan@example.com"}})
    site = _deploy(
        other,
        MailboxTableName="users",
        MailboxAttributes="address=email,quota_bytes=quota,used_bytes=used",
        MailboxDomains="example.com",
    )
    assert site.decided(site.mail("zoe@example.com"))["recipients"][0]["reason"] == "over-quota"
    assert site.decided(site.mail("yan+x@example.com"))["recipients"][0]["reason"] == "accept"
    unknown = site.decided(site.mail("alice@example.com"))["recipients"][0]
    assert unknown["reason"] == "unknown-recipient"
    stored = dynamodb.get_item(TableName="users", Key={"email": {"S": "yan@example.com"}})
    assert stored["Item"] == {"email": {"S": "yan@example.com"}}


def test_without_stored_mail_size_rules_do_not_hold_and_the_rest_does(other: Site) -> None:
    site = other.switch(
        StoreMail="none",
        InvocationType="Event",
        MailboxTableName="",
        MailboxAttributes="",
        MailboxDomains="",
    )
    imported = run(site, "mailbox", "import", str(stack.MAILBOXES), "--new-domains")
    assert imported.returncode == 0
    message_id = site.mail("nobody@example.com")
    steps = site.trace(message_id)["steps"]
    assert [(step["action"], step["result"]) for step in steps] == [("LambdaAction", "invoked")]
    assert site.decided(message_id)["recipients"][0]["state"] == "sent"
    large = site.mail("small@example.com", body="x\n" * 4000)
    assert site.decided(large)["recipients"][0]["reason"] == "accept"

    # Its audit hears of mail from the Lambda action's own topic.
    site.aws.weather("refusals:2")
    try:
        ids = [site.mail(f"nobody{n}@example.com", sender=f"pat@r{n}.example") for n in range(8)]
        results = [site.result(each) for each in ids]
    finally:
        site.aws.weather("clear")
    assert any("TooManyRequests" in each for each in results)
    for each in ids:
        _until_told(site, each)


def _until_told(site: Site, message_id: str) -> None:
    until(lambda: site.bounces(message_id) or None, f"nobody was told of {message_id}", 180)


def test_the_users_own_bucket_and_recipients(other: Site) -> None:
    s3 = other.client("s3")
    s3.create_bucket(Bucket="my-mail")
    s3.put_bucket_policy(
        Bucket="my-mail",
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"Service": "ses.amazonaws.com"},
                        "Action": "s3:PutObject",
                        "Resource": "arn:aws:s3:::my-mail/*",
                    }
                ],
            }
        ),
    )
    site = other.switch(
        StoreMail="existing-bucket",
        MailBucketName="my-mail",
        MailPrefix="in/",
        Recipients="shop.example.com",
        InvocationType="RequestResponse",
    )
    message_id = site.mail("whatever@shop.example.com")
    assert site.trace(message_id)["steps"][0]["result"] == f"s3://my-mail/in/{message_id}"
    rule = site.client("ses").describe_receipt_rule(RuleSetName="local", RuleName="ses-bouncer")
    assert rule["Rule"]["Recipients"] == ["shop.example.com"]


def test_rules_in_step_on_a_schedule_traces_and_alarms_with_a_topic(other: Site) -> None:
    topic = other.client("sns").create_topic(Name="alarms")["TopicArn"]
    site = other.switch(
        SyncRulesSchedule="rate(1 hour)",
        TracingMode="Active",
        AlarmTopicArn=topic,
        LogAddresses="hash",
        StoreMail="own-bucket",
        MailBucketName="",
        Recipients="",
    )
    answer = site.client("lambda").invoke(FunctionName=site.physical_id("RulesFunction"))
    assert "FunctionError" not in answer, answer["Payload"].read()
    rule = site.client("ses").describe_receipt_rule(RuleSetName="local", RuleName="ses-bouncer")
    assert "alice@example.com" in rule["Rule"]["Recipients"]
    assert "shop.example.com" in rule["Rule"]["Recipients"]

    message_id = site.mail("alice@example.com")
    line = site.decided(message_id)
    assert "@" not in json.dumps([line["sender"], line["recipients"]])
    alarms = site.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert {action for alarm in alarms for action in alarm["AlarmActions"]} == {topic}
    assert len(alarms) >= 25


def test_a_policy_in_appconfig_is_changed_without_a_deployment(other: Site) -> None:
    site = other.switch(
        PolicySource="appconfig",
        SyncRulesSchedule="",
        TracingMode="PassThrough",
        LogAddresses="full",
        Recipients="shop.example.com,example.com",
    )
    before = site.mail("nobody@example.com")
    assert site.result(before) == "CONTINUE"  # no policy yet: the event is kept

    pushed = run(site, "policy", "push", str(stack.ROOT / "functions/inbound/policy.toml"))
    assert pushed.returncode == 0, pushed.stderr
    time.sleep(1)
    message_id = site.mail("nobody@example.com")
    assert site.decided(message_id)["recipients"][0]["reason"] == "unknown-recipient"

    (letter,) = [
        each
        for each in bouncer(site, "redrive", "--run")["letters"]
        if each["message_id"] == before
    ]
    assert letter["result"] == "queued"  # the audit decides it, as unknown
    until(lambda: site.bounces(before) or None, "the kept event's bounce did not come")


def test_a_bad_policy_is_refused_before_it_is_pushed(other: Site, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('version = 1\n[[rules]]\nname = "x"\naction = "bounce"\n')
    refused = run(other, "policy", "push", str(file))
    assert refused.returncode == 1
    assert "say what it bounces as" in refused.stderr


def test_rules_sync_lets_ses_refuse_unknown_addresses(other: Site) -> None:
    """550 5.1.1 in the dialogue, no SendBounce; after adding and syncing it is accepted."""
    site = other.switch(StopScope="rule", SyncRulesSchedule="")
    ses = site.client("ses")
    before = ses.describe_receipt_rule(RuleSetName="local", RuleName="ses-bouncer")["Rule"]
    calls = len(site.aws.listing("bounces"))
    try:
        report = bouncer(site, "rules", "sync", "--yes")
        assert any("shop.example.com" in hint for hint in report["hints"])
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            site.mail("late@example.com")
        assert refused.value.recipients["late@example.com"][0] == 550
        assert run(site, "mailbox", "add", "late@example.com").returncode == 0
        (change,) = bouncer(site, "rules", "sync", "--yes")["changes"]
        assert change["added"] == ["late@example.com"]
        assert site.result(site.mail("late+tag@example.com")) == "CONTINUE"
        assert bouncer(site, "rules", "sync", "--dry-run")["changes"] == []
    finally:
        rule = {k: v for k, v in before.items() if k != "Recipients"}
        ses.update_receipt_rule(RuleSetName="local", Rule=rule)
    assert len(site.aws.listing("bounces")) == calls


def test_two_rules_and_one_mail_whose_recipients_differ(other: Site) -> None:
    """What this rule refuses stops here; whom the other rule is for gets the mail all the same."""
    site = other.switch(StopScope="auto", Recipients="example.com", SyncRulesSchedule="")
    ses = site.client("ses")
    later = {"AddHeaderAction": {"HeaderName": "X-Delivered", "HeaderValue": "yes"}}
    ses.create_receipt_rule(
        RuleSetName="local",
        After="ses-bouncer",
        Rule={
            "Name": "shop",
            "Enabled": True,
            "Recipients": ["shop.example.com"],
            "Actions": [later],
        },
    )
    try:
        message_id = site.mail("nobody@example.com", "whatever@shop.example.com")
        steps = site.trace(message_id)["steps"]
    finally:
        ses.delete_receipt_rule(RuleSetName="local", RuleName="shop")
    assert [(step["rule"], step["result"]) for step in steps[1:]] == [
        ("ses-bouncer", "STOP_RULE"),
        ("shop", "X-Delivered: yes"),
    ]
    assert steps[-1]["recipients"] == ["whatever@shop.example.com"]
    (call,) = site.bounces(message_id)
    told = [each["Recipient"] for each in call["request"]["BouncedRecipientInfoList"]]
    assert told == ["nobody@example.com"]


def test_rules_sync_beyond_500_addresses_a_rule(other: Site, tmp_path: Path) -> None:
    """A mail to people in two of the copies: the one who is full is bounced, the other gets it."""
    site = other.switch(StopScope="rule", Recipients="", SyncRulesSchedule="")
    many = tmp_path / "many.csv"
    many.write_text("address\n" + "".join(f"user{n:04d}@example.com\n" for n in range(1100)))
    assert run(site, "mailbox", "import", str(many)).returncode == 0
    ses = site.client("ses")
    before = ses.describe_receipt_rule(RuleSetName="local", RuleName="ses-bouncer")["Rule"]
    delivers = {"AddHeaderAction": {"HeaderName": "X-Delivered", "HeaderValue": "yes"}}
    rule = {**before, "Actions": [*before["Actions"], delivers]}
    ses.update_receipt_rule(RuleSetName="local", Rule=rule)
    rules: dict[str, list[str]] = {}
    try:
        bouncer(site, "rules", "sync", "--yes")
        rules = {
            each["Name"]: each["Recipients"]
            for each in ses.describe_receipt_rule_set(RuleSetName="local")["Rules"]
        }
        assert list(rules) == ["ses-bouncer", "ses-bouncer-002", "ses-bouncer-003"]
        assert all(0 < len(each) <= 500 for each in rules.values())
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            site.mail("user9999@example.com")
        full = next(name for name, its in rules.items() if "full@example.com" in its)
        elsewhere = next(name for name in reversed(rules) if name != full)
        somebody = next(each for each in rules[elsewhere] if each.startswith("user"))
        message_id = site.mail("full@example.com", somebody)
        steps = site.trace(message_id)["steps"]
        assert bouncer(site, "rules", "sync", "--dry-run")["changes"] == []
    finally:
        for name in [each for each in rules if each != "ses-bouncer"]:
            ses.delete_receipt_rule(RuleSetName="local", RuleName=name)
        whole = {k: v for k, v in before.items() if k != "Recipients"}
        ses.update_receipt_rule(RuleSetName="local", Rule=whole)
    ends = {step["rule"]: step["result"] for step in steps}
    assert ends == {full: "STOP_RULE", elsewhere: "X-Delivered: yes"}
    (call,) = site.bounces(message_id)
    told = [each["Recipient"] for each in call["request"]["BouncedRecipientInfoList"]]
    assert told == ["full@example.com"]
