"""The first hour on an account: the doctor, going live, and one mail that is followed."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from local.stack import ROOT, RULE_SET
from tests.e2e.conftest import Site

RULE = "ses-bouncer"

EXPECTED_WARNINGS = {"alarms", "directory-postmaster", "versions"}
"""Of a stack as the tests deploy it; AWS on this machine tells no stack's description."""
LEFT_BY_OTHER_TESTS = {"dead-letters", "errors"}
"""Of the same deployment."""


def command(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = site.aws.environment()
    program = f"{environment['PATH'].split(os.pathsep)[0]}/bouncer"
    return subprocess.run(
        [program, *arguments, "--stack", "ses-bouncer"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def examined(site: Site) -> dict[str, dict[str, str]]:
    """The doctor's findings by name."""
    checks = json.loads(command(site, "doctor", "--json").stdout)["checks"]
    return {each["name"]: each for each in checks}


@contextmanager
def changed_rule(site: Site, **changes: Any) -> Iterator[None]:
    ses = site.client("ses")
    rule = ses.describe_receipt_rule(RuleSetName=RULE_SET, RuleName=RULE)["Rule"]
    ses.update_receipt_rule(RuleSetName=RULE_SET, Rule=rule | changes)
    try:
        yield
    finally:
        ses.update_receipt_rule(RuleSetName=RULE_SET, Rule=rule)


@contextmanager
def rule_before(site: Site) -> Iterator[None]:
    ses = site.client("ses")
    stops = {"Name": "first", "Enabled": True, "Actions": [{"StopAction": {"Scope": "RuleSet"}}]}
    ses.create_receipt_rule(RuleSetName=RULE_SET, Rule=stops)
    try:
        yield
    finally:
        ses.delete_receipt_rule(RuleSetName=RULE_SET, RuleName="first")


@contextmanager
def other_set_active(site: Site) -> Iterator[None]:
    ses = site.client("ses")
    ses.create_receipt_rule_set(RuleSetName="other")
    ses.set_active_receipt_rule_set(RuleSetName="other")
    try:
        yield
    finally:
        ses.set_active_receipt_rule_set(RuleSetName=RULE_SET)
        ses.delete_receipt_rule_set(RuleSetName="other")


@contextmanager
def unverified(site: Site) -> Iterator[None]:
    ses = site.client("ses")
    ses.delete_identity(Identity="example.com")
    try:
        yield
    finally:
        ses.verify_domain_identity(Domain="example.com")


@contextmanager
def without_bucket_policy(site: Site) -> Iterator[None]:
    s3, bucket = site.client("s3"), site.outputs["MailBucket"]
    policy = s3.get_bucket_policy(Bucket=bucket)["Policy"]
    s3.delete_bucket_policy(Bucket=bucket)
    s3.put_bucket_policy(
        Bucket=bucket,
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:DeleteBucket",
                    "Resource": f"arn:aws:s3:::{bucket}",
                },
            }
        ),
    )
    try:
        yield
    finally:
        s3.put_bucket_policy(Bucket=bucket, Policy=policy)


@pytest.fixture(scope="module")
def observing(site: Site) -> Iterator[Site]:
    """The stack as a first deployment leaves it; afterwards it is live again."""
    assert command(site, "mode", "observe").returncode == 0
    yield site
    live = command(site, "mode", "enforce")
    assert live.returncode == 0, live.stderr


def test_a_fresh_stack_is_healthy(site: Site) -> None:
    found = examined(site)
    wrong = {name: each for name, each in found.items() if each["state"] == "wrong"}
    unknown = {name: each for name, each in found.items() if each["state"] == "unknown"}
    assert (wrong, unknown) == ({}, {})
    warnings = {name for name, each in found.items() if each["state"] == "warning"}
    assert warnings - LEFT_BY_OTHER_TESTS == EXPECTED_WARNINGS, found
    assert len(found) >= 20


def test_another_active_rule_set_is_a_warning(site: Site) -> None:
    with other_set_active(site):
        found = examined(site)["rule-set"]
    assert found["state"] == "warning"
    assert "bouncer rules activate" in found["mend"]


def test_a_live_check_follows_a_mail_to_its_bounce(site: Site) -> None:
    done = command(site, "try", "--from", "alice@example.com", "--wait", "60", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert [step["step"] for step in report["steps"]] == [
        "sent",
        "decided",
        "ended",
        "returned",
        "cleaned up",
    ]
    assert report["steps"][1]["found"] == "bounce, unknown-recipient"
    answers = {each["question"]: each["answer"] for each in report["answers"]}
    assert "mailer-daemon@example.com" in answers["which address does the DSN come from?"]
    key = f"mail/{report['message_id']}"
    listed = site.client("s3").list_objects_v2(Bucket=site.outputs["MailBucket"], Prefix=key)
    assert listed["KeyCount"] == 0, "what the check stored is deleted again"


def test_a_live_check_shows_the_dsn_that_came_back(site: Site) -> None:
    done = command(site, "try", "--from", "alice@example.com", "--wait", "60", "--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "Action: failed" in lines
    assert any(line.startswith("Final-Recipient:") for line in lines), done.stdout


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (lambda site: changed_rule(site, Enabled=False), "rule"),
        (lambda site: changed_rule(site, Recipients=["nobody@example.com"]), "rule-recipients"),
        (rule_before, "rule-order"),
        (unverified, "identity"),
        (without_bucket_policy, "bucket-permission"),
    ],
    ids=["rule off", "rule narrowed", "rule before", "unverified", "bucket policy"],
)
def test_what_is_broken_on_purpose_is_found_with_its_mend_and_nothing_goes_live(
    observing: Site, broken: Callable[[Site], Any], check: str
) -> None:
    site = observing
    with broken(site):
        refused = command(site, "mode", "enforce", "--json")
    assert refused.returncode == 1
    assert f"--despite {check}" in refused.stderr
    wrong = {each["name"]: each for each in json.loads(refused.stdout)["checks"]}
    assert wrong[check]["mend"], wrong


def test_while_it_observes_nobody_is_bounced_and_no_mail_stops(observing: Site) -> None:
    message_id = observing.mail("nobody@example.com")
    steps = {step["action"]: step["result"] for step in observing.trace(message_id)["steps"]}
    assert steps["LambdaAction"] == "CONTINUE"
    sent = [each["request"]["OriginalMessageId"] for each in observing.aws.listing("bounces")]
    assert message_id not in sent
