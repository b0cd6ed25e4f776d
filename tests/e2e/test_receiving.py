"""AWS on this machine as SES documents receiving: matching, actions, dispositions, SMTP."""

import smtplib
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.aws.rules import matches
from tests.e2e.conftest import Site

RULE = "ses-bouncer"


@pytest.mark.parametrize(
    ("condition", "recipient", "expected"),
    [
        ("user@example.com", "user@example.com", True),
        ("user@example.com", "USER@Example.com", True),
        ("user@example.com", "user+label@example.com", True),
        ("user@example.com", "other@example.com", False),
        ("user+a@example.com", "user+b@example.com", False),
        ("example.com", "anyone@example.com", True),
        ("example.com", "anyone@sub.example.com", False),
        (".example.com", "anyone@sub.example.com", True),
        (".example.com", "anyone@deep.sub.example.com", True),
        (".example.com", "anyone@example.com", False),
    ],
)
def test_recipients_match_as_ses_matches_them(
    condition: str, recipient: str, expected: bool
) -> None:
    assert matches(condition, recipient) is expected


@pytest.fixture
def extra_rule(site: Site) -> Iterator[Any]:
    """Puts a rule with given actions behind the bouncer's, for one test."""
    ses = site.client("ses")
    names: list[str] = []

    def make(actions: list[dict[str, Any]], after: str = RULE, **more: Any) -> str:
        name = f"extra-{uuid.uuid4().hex[:8]}"
        rule = {"Name": name, "Enabled": True, "Actions": actions, **more}
        ses.create_receipt_rule(RuleSetName="local", After=after, Rule=rule)
        names.append(name)
        return name

    yield make
    for name in names:
        ses.delete_receipt_rule(RuleSetName="local", RuleName=name)


def _steps(site: Site, message_id: str) -> list[tuple[str, str]]:
    return [(each["rule"], each["result"]) for each in site.trace(message_id)["steps"]]


def test_a_bounced_mail_stops_before_later_rules_and_an_accepted_one_does_not(
    site: Site, extra_rule: Any
) -> None:
    later = extra_rule([{"AddHeaderAction": {"HeaderName": "X-Later", "HeaderValue": "yes"}}])
    bounced = site.trace(site.mail("nobody@example.com"))
    accepted = site.trace(site.mail("alice@example.com"))
    assert later not in {step["rule"] for step in bounced["steps"]}
    assert accepted["steps"][-1]["rule"] == later
    assert accepted["steps"][-1]["result"] == "X-Later: yes"


def test_a_stop_action_ends_the_set_and_ses_own_bounce_action_writes_a_dsn(
    site: Site, extra_rule: Any
) -> None:
    bounce = {
        "BounceAction": {
            "SmtpReplyCode": "550",
            "StatusCode": "5.1.1",
            "Message": "No such user",
            "Sender": "postmaster@example.com",
        }
    }
    first = extra_rule([bounce, {"StopAction": {"Scope": "RuleSet"}}])
    second = extra_rule([{"AddHeaderAction": {"HeaderName": "X", "HeaderValue": "y"}}], first)
    message_id = site.mail("alice@example.com")
    assert _steps(site, message_id)[-2:] == [(first, "bounced"), (first, "STOP_RULE_SET")]
    assert second not in dict(_steps(site, message_id))
    dsn = (site.aws.outbox / f"rule-{message_id[:8]}.eml").read_text()
    assert "smtp; 550 No such user" in dsn


def test_two_rules_that_overlap_bounce_once(site: Site, extra_rule: Any) -> None:
    """Each rule's event names its own recipients; who is named twice is bounced once."""
    ses = site.client("ses")
    rules = ses.describe_receipt_rule(RuleSetName="local", RuleName=RULE)["Rule"]
    invoke = next(a for a in rules["Actions"] if "LambdaAction" in a)
    event_mode = {"LambdaAction": {**invoke["LambdaAction"], "InvocationType": "Event"}}
    # The copies may invoke too: see the template.
    copy = f"{RULE}-777"
    ses.create_receipt_rule(
        RuleSetName="local",
        Rule={
            "Name": copy,
            "Enabled": True,
            "Recipients": ["one@example.com", "two@example.com"],
            "Actions": [event_mode],
        },
    )
    try:
        message_id = site.mail("one@example.com", "two@example.com", "three@example.com")
        site.trace(message_id)
        told = _told(site, message_id, 3)
    finally:
        ses.delete_receipt_rule(RuleSetName="local", RuleName=copy)
    assert sorted(told) == ["one@example.com", "three@example.com", "two@example.com"]


def _told(site: Site, message_id: str, expected: int) -> list[str]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        told = [
            info["Recipient"]
            for call in site.bounces(message_id)
            for info in call["request"]["BouncedRecipientInfoList"]
        ]
        if len(told) >= expected:
            time.sleep(1.5)  # a second bounce would be another slot later
            return [
                info["Recipient"]
                for call in site.bounces(message_id)
                for info in call["request"]["BouncedRecipientInfoList"]
            ]
        time.sleep(0.2)
    raise AssertionError(f"only {told} were told")


def test_mail_for_nobody_here_is_refused_at_rcpt_to(site: Site) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        site.mail("someone@elsewhere.example")
    ((code, text),) = refused.value.recipients.values()
    assert code == 550
    assert text.startswith(b"5.1.1")


def test_mail_over_40_megabytes_is_refused(site: Site) -> None:
    with smtplib.SMTP("127.0.0.1", site.aws.smtp_port, timeout=30) as client:
        client.ehlo()
        assert client.esmtp_features["size"] == str(40 * 2**20)
        code, _ = client.mail("pat@sender.example", ["SIZE=41943041"])
    assert code == 552


def test_a_rule_that_ses_could_not_run_is_not_made(site: Site) -> None:
    ses = site.client("ses")
    for action, error in (
        ({"LambdaAction": {"FunctionArn": site.outputs["InboundFunction"]}}, "InvalidLambda"),
        ({"S3Action": {"BucketName": site.outputs["MailBucket"]}}, "InvalidS3Configuration"),
    ):
        with pytest.raises(ClientError, match=error):
            ses.create_receipt_rule(
                RuleSetName="local", Rule={"Name": "no-grant", "Enabled": True, "Actions": [action]}
            )


def test_a_disabled_rule_is_for_nobody(site: Site, extra_rule: Any) -> None:
    name = extra_rule([{"AddHeaderAction": {"HeaderName": "X", "HeaderValue": "y"}}], Enabled=False)
    assert name not in dict(_steps(site, site.mail("alice@example.com")))
