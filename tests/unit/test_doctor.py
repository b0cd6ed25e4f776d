"""The doctor's checks: right for a healthy account, and clear about a sick one."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bouncer.mailboxes import Mailbox
from bouncer_console.deployment import Deployment
from bouncer_console.doctor.account import (
    Account,
    Function,
    Neighbour,
    Queue,
    Rule,
    Sending,
    StoredSample,
    Unread,
)
from bouncer_console.doctor.checks import CHECKS, examine
from bouncer_console.doctor.finding import Finding, Health
from bouncer_console.doctor.grants import allows
from bouncer_console.policy_in_force import InForce
from tests.unit.builders import SHIPPED_POLICY

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SENDER = "mailer-daemon@example.com"
ARN = "arn:aws:lambda:eu-west-1:111122223333:function:inbound"
MX = ("inbound-smtp.eu-west-1.amazonaws.com",)


def rule(name: str = "ses-bouncer", *recipients: str, enabled: bool = True, **first: Any) -> Rule:
    """A rule; our own stores the mail and then decides."""
    ours = (
        {"S3Action": {"BucketName": "mails", "ObjectKeyPrefix": "mail/"}},
        {"LambdaAction": {"FunctionArn": ARN, "InvocationType": "RequestResponse"}},
    )
    actions = (first,) if first else ours if name.startswith("ses-bouncer") else ()
    return Rule(name=name, enabled=enabled, recipients=recipients, actions=actions)


def deployment(**changed: str) -> Deployment:
    outputs = {
        "ReceiptRuleSet": "mail",
        "ReceiptRule": "ses-bouncer",
        "InboundFunction": ARN,
        "MailBucket": "mails",
        "MailPrefix": "mail/",
        "BounceTable": "bounces",
        "PaceTable": "bounces",
    }
    return Deployment(
        stack="ses-bouncer",
        region="eu-west-1",
        outputs={**outputs, **{k: v for k, v in changed.items() if k in outputs}},
        parameters={"Mode": "enforce", **{k: v for k, v in changed.items() if k not in outputs}},
    )


def function(**changed: Any) -> dict[str, Function]:
    healthy = Function(name="inbound", architecture="arm64", layer_architectures=("arm64",))
    return {"InboundFunction": msgspec.structs.replace(healthy, **changed)}


def sending(**changed: Any) -> Sending:
    healthy = Sending(
        production=True, enabled=True, enforcement="HEALTHY", daily_quota=50_000, sent_today=10
    )
    return msgspec.structs.replace(healthy, **changed)


def neighbour(**changed: Any) -> Neighbour:
    same = Neighbour(stack="other-bouncer", pace_table="bounces", interval=1.0)
    return msgspec.structs.replace(same, **changed)


SHIPPED = InForce(text=SHIPPED_POLICY.read_text("utf-8"), source="policy.toml")


BOXES = (
    Mailbox(address="alice@example.com"),
    Mailbox(address="postmaster@example.com"),
    Mailbox(address="@example.com", catch_all=False),
)


def policy(*lines: str) -> InForce:
    """With one rule, and these lines before it."""
    rule = '[[rules]]\nname = "accept"\naction = "accept"\n'
    return InForce(text="\n".join(["version = 1", *lines, rule]), source="policy.toml")


HEALTHY = Account(
    now=NOW,
    region="eu-west-1",
    command_version="1.2.3",
    bounce_sender=SENDER,
    rule_set="mail",
    deployment=deployment(),
    stack_status="UPDATE_COMPLETE",
    stack_version="1.2.3",
    sending=sending(),
    after_rule="",
    recipients=(),
    identities={"example.com": "Success"},
    receiving={},
    active_rule_set="mail",
    rules=(rule(),),
    functions=function(),
    may_invoke=True,
    may_store=True,
    may_publish=True,
    concurrency_left=900,
    queues={
        "BounceQueue": Queue(messages=3, oldest_seconds=9),
        "EventDeadLetterQueue": Queue(messages=0),
    },
    next_slot=None,
    neighbours=(),
    clock_ahead=0.4,
    would_refuse=7.0,
    alarms={"ses-bouncer-BouncesRejected": "OK"},
    silent_alarms=(),
    directory=BOXES,
    policy=SHIPPED,
    mx={"example.com": MX},
    dmarc={},
    sample=StoredSample(looked_at=20, without_record=()),
)

SICK: list[tuple[str, Health, dict[str, Any]]] = [
    ("region", Health.UNKNOWN, {"active_rule_set": Unread("InvalidAction")}),
    ("identity", Health.WRONG, {"identities": {}}),
    ("identity", Health.WRONG, {"identities": {"example.com": "Pending"}}),
    ("identity", Health.WARNING, {"bounce_sender": "m@bounce.example.com"}),
    ("sandbox", Health.WARNING, {"sending": sending(production=False)}),
    ("sending", Health.WRONG, {"sending": sending(enabled=False)}),
    ("sending", Health.WARNING, {"sending": sending(enforcement="PROBATION")}),
    ("sending", Health.WARNING, {"sending": sending(sent_today=49_000)}),
    ("bounce-sender-dmarc", Health.WARNING, {"dmarc": {"p": "reject"}}),
    ("bounce-sender-dmarc", Health.WARNING, {"dmarc": {"p": "Quarantine"}}),
    ("mx", Health.WARNING, {"mx": {"example.com": ("mx.elsewhere.example",)}}),
    ("mx", Health.WARNING, {"mx": {"example.com": (*MX, "mx.elsewhere.example")}}),
    ("mx", Health.UNKNOWN, {"mx": {"example.com": Unread("timeout")}}),
    ("kept-from-before", Health.WARNING, {"kept": ("ses-bouncer-MailboxTable-1A2B",)}),
    ("stack", Health.WRONG, {"stack_status": "ROLLBACK_COMPLETE"}),
    ("stack", Health.WARNING, {"stack_status": "UPDATE_IN_PROGRESS"}),
    ("versions", Health.WARNING, {"stack_version": "1.0.0"}),
    ("architecture", Health.WRONG, {"functions": function(architecture="x86_64")}),
    ("errors", Health.WARNING, {"functions": function(errors=2.0)}),
    ("throttles", Health.WARNING, {"functions": function(throttles=2.0)}),
    ("throttles", Health.WRONG, {"functions": function(reserved=0)}),
    ("concurrency", Health.WARNING, {"concurrency_left": 10}),
    ("rule-set", Health.WARNING, {"active_rule_set": "other"}),
    ("rule-set", Health.WARNING, {"active_rule_set": None}),
    ("rule-set", Health.WRONG, {"rules": Unread("RuleSetDoesNotExist")}),
    ("after-rule", Health.WRONG, {"after_rule": "missing"}),
    (
        "after-rule",
        Health.WRONG,
        {"after_rule": "second", "rules": (rule("first", StopAction={}), rule("second"), rule())},
    ),
    ("recipients-verified", Health.WRONG, {"recipients": ("shop.example.org",)}),
    (
        "recipients-verified",
        Health.WRONG,
        {"recipients": ("a@example.org",), "receiving": {"example.org": "Pending"}},
    ),
    ("rule", Health.WRONG, {"rules": (rule("other"),)}),
    ("rule", Health.WRONG, {"rules": (rule(enabled=False),)}),
    ("rule-actions", Health.WRONG, {"rules": (rule(StopAction={"Scope": "RuleSet"}),)}),
    ("rule-actions", Health.WRONG, {"rules": (rule(LambdaAction={"FunctionArn": ARN}),)}),
    ("rule-order", Health.WRONG, {"rules": (rule("first", StopAction={}), rule())}),
    (
        "rule-order",
        Health.WRONG,
        {"rules": (rule("first", "example.com", BounceAction={}), rule())},
    ),
    ("rule-order", Health.WARNING, {"rules": (rule("first", "bob@example.com"), rule())}),
    ("rule-recipients", Health.WRONG, {"rules": (rule("ses-bouncer", "bob@example.com"),)}),
    ("rule-recipients", Health.WRONG, {"rules": (rule("ses-bouncer", ".example.com"),)}),
    (
        "rule-stops-mail",
        Health.WARNING,
        {"rules": (rule("ses-bouncer", "example.com"), rule("store"))},
    ),
    ("prefix", Health.WRONG, {"deployment": deployment(MailPrefix="other/")}),
    ("prefix", Health.WRONG, {"deployment": deployment(MailBucket="other")}),
    ("function-permission", Health.WRONG, {"may_invoke": False}),
    ("bucket-permission", Health.WRONG, {"may_store": False}),
    ("topic-permission", Health.WRONG, {"may_publish": False}),
    ("policy", Health.WRONG, {"policy": policy("nonsense = 1")}),
    (
        "policy",
        Health.WRONG,
        {"policy": policy('[send_bounce]\nbounce_sender = "x@other.example"')},
    ),
    ("policy", Health.WARNING, {"policy": policy('mode = "observe"')}),
    ("policy", Health.UNKNOWN, {"policy": Unread("AccessDenied")}),
    (
        "policy",
        Health.WRONG,
        {
            "policy": Unread("ResourceNotFoundException"),
            "deployment": deployment(PolicySource="appconfig"),
        },
    ),
    ("mode", Health.WARNING, {"deployment": deployment(Mode="observe")}),
    (
        "queue",
        Health.WARNING,
        {"queues": {"BounceQueue": Queue(messages=9, oldest_seconds=30_000)}},
    ),
    ("queue", Health.WARNING, {"queues": {"BounceQueue": Queue(messages=30_000)}}),
    ("dead-letters", Health.WARNING, {"queues": {"EventDeadLetterQueue": Queue(messages=1)}}),
    ("limiter", Health.WARNING, {"next_slot": NOW.timestamp() + 3600}),
    ("pace", Health.WRONG, {"next_slot": Unread("ResourceNotFoundException")}),
    ("pace", Health.WARNING, {"neighbours": (neighbour(pace_table="its-own"),)}),
    ("pace", Health.WARNING, {"neighbours": (neighbour(interval=2.0),)}),
    ("clock", Health.WARNING, {"clock_ahead": -40.0}),
    ("alarms", Health.WARNING, {"alarms": {"a": "ALARM"}}),
    ("alarms", Health.WARNING, {"alarms": {}}),
    ("alarms", Health.WARNING, {"silent_alarms": ("ses-bouncer-BouncesRejected",)}),
    ("directory", Health.WRONG, {"directory": ()}),
    ("directory-domains", Health.WARNING, {"rules": (rule("ses-bouncer", "shop.example.com"),)}),
    ("directory-domains", Health.WARNING, {"directory": BOXES[:2]}),
    (
        "directory-postmaster",
        Health.WARNING,
        {"directory": (Mailbox(address="alice@example.com"),)},
    ),
    ("directory-entries", Health.WARNING, {"directory": (Mailbox(address="Alice@example.com"),)}),
    ("directory-entries", Health.WARNING, {"directory": (Mailbox(address="alice"),)}),
    (
        "directory-entries",
        Health.WARNING,
        {"directory": (Mailbox(address="a@example.com", alias_for="a@example.com"),)},
    ),
    ("directory-entries", Health.WARNING, {"unreadable": ("alice@example.com",)}),
    ("records", Health.WARNING, {"sample": StoredSample(looked_at=20, without_record=("id1",))}),
    (
        "records",
        Health.WARNING,
        {"sample": StoredSample(looked_at=0, without_record=(), outside_prefix=3)},
    ),
]


def findings(account: Account) -> dict[str, Finding]:
    return {each.name: each for each in examine(account)}


def changed(**fields: Any) -> Account:
    return msgspec.structs.replace(HEALTHY, **fields)


@pytest.mark.parametrize("name", CHECKS)
def test_a_healthy_account_is_right_in_everything(name: str) -> None:
    found = findings(HEALTHY)[name]
    assert (found.state, found.mend) == (Health.RIGHT, "")
    assert found.found


@pytest.mark.parametrize(("name", "state", "fields"), SICK)
def test_what_is_wrong_is_said_with_its_mend(
    name: str, state: Health, fields: dict[str, Any]
) -> None:
    found = findings(changed(**fields))[name]
    assert found.state is state, found
    assert found.found
    assert bool(found.mend) or state is Health.UNKNOWN


def test_every_check_can_fail() -> None:
    assert {name for name, _, _ in SICK} == set(CHECKS)


def test_a_table_of_ones_own_speaks_for_the_domains_that_the_stack_names() -> None:
    own = changed(directory=BOXES[:2], deployment=deployment(MailboxDomains="example.com"))
    assert findings(own)["directory-domains"].state is Health.RIGHT


def test_before_going_live_the_doctor_says_how_many_would_be_refused() -> None:
    observing = {"deployment": deployment(Mode="observe")}
    assert "7 recipients refused" in findings(changed(**observing))["mode"].found
    unknown = findings(changed(**observing, would_refuse=Unread("AccessDenied")))["mode"]
    assert "refused" not in unknown.found


DIRECTORY, LEDGER, MAIL = (
    f"ses-bouncer-{n}" for n in ("MailboxTable-1", "BounceTable-1", "mailbucket-1")
)


@pytest.mark.parametrize(
    ("fields", "proposed"),
    [
        (
            {"kept": (DIRECTORY, LEDGER, MAIL)},
            f"MailboxTableName={DIRECTORY} Usage=managed "
            f"StoreMail=existing-bucket MailBucketName={MAIL}",
        ),
        ({"kept": (DIRECTORY,)}, f"MailboxTableName={DIRECTORY} Usage=managed"),
        ({"kept": (DIRECTORY,), "deployment": Unread("none")}, f"MailboxTableName={DIRECTORY}"),
        ({"kept": (DIRECTORY, "ses-bouncer-MailboxTable-2")}, None),
        ({"kept": (DIRECTORY, MAIL, "ses-bouncer-mailbucket-2")}, None),
        ({"kept": (DIRECTORY,), "deployment": deployment(MailboxTableName="other")}, None),
        ({"kept": (LEDGER, MAIL)}, None),
    ],
)
def test_what_an_earlier_stack_left_is_adopted_by_the_command_that_is_proposed(
    fields: dict[str, Any], proposed: str | None
) -> None:
    """Only where nobody has to choose: an empty table that is taken for the full one is no help."""
    mend = findings(changed(**fields))["kept-from-before"].mend
    assert "docs/operations.md" in mend
    assert ("--parameter-overrides" in mend) is (proposed is not None)
    assert (proposed or "") in mend


@pytest.mark.parametrize(
    "fields",
    [
        {"kept": (LEDGER,)},
        {"kept": (DIRECTORY, LEDGER, MAIL)},
        {"kept": (LEDGER, MAIL), "deployment": deployment(MailboxTableName="other")},
    ],
)
def test_an_old_ledger_is_adopted_before_it_is_deleted(fields: dict[str, Any]) -> None:
    """What the stored mail counts for stands nowhere else."""
    mend = findings(changed(**fields))["kept-from-before"].mend
    assert f"bouncer adopt {LEDGER}, then delete it" in mend
    assert ("sam deploy" in mend) is (DIRECTORY in fields["kept"])


def test_there_are_twenty_checks_or_more() -> None:
    assert len(CHECKS) >= 20


ALWAYS = {"now", "region", "command_version", "mx", "unreadable", "after_rule", "recipients"}
OPTIONAL = sorted(set(Account.__struct_fields__) - ALWAYS)


@given(st.sets(st.sampled_from(OPTIONAL)))
def test_whatever_cannot_be_read_costs_only_its_own_answers(unread: set[str]) -> None:
    """A missing permission never ends the examination, and never looks like a right answer."""
    account = changed(**dict.fromkeys(unread, Unread("AccessDenied")))
    for name, found in findings(account).items():
        assert found.state in (Health.RIGHT, Health.UNKNOWN) or name == "rule-set", found
        assert found.found


@pytest.mark.parametrize(
    ("recipient", "identity"),
    [
        ("bob@shop.example.com", "example.com"),
        (".example.com", "example.com"),
        ("Shop.Example.com", "shop.example.com"),
    ],
)
def test_a_recipient_is_verified_with_its_domain_or_a_parent(recipient: str, identity: str) -> None:
    account = changed(recipients=(recipient,), receiving={identity: "Success"})
    assert findings(account)["recipients-verified"].state is Health.RIGHT


def test_a_rule_after_one_that_stops_other_mail_is_right() -> None:
    first = rule("first", "other.example", StopAction={})
    account = changed(
        after_rule="first", recipients=("example.com",), rules=(first, rule("ses-bouncer"))
    )
    assert findings(account)["after-rule"].state is Health.RIGHT


@pytest.mark.parametrize(
    ("other", "covered"),
    [
        ("alice@example.com", True),
        ("ALICE@EXAMPLE.COM", True),
        ("example.com", True),
        (".example.com", False),
        ("shop.example.com", False),
    ],
)
def test_a_rule_before_ours_matters_where_it_takes_the_same_mail(other: str, covered: bool) -> None:
    rules = (rule("first", other, StopAction={}), rule("ses-bouncer", "alice@example.com"))
    found = findings(changed(rules=rules))["rule-order"]
    assert (found.state is Health.WRONG) is covered


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ({}, True),
        ({"Effect": "Deny"}, False),
        ({"Principal": {"Service": "sns.amazonaws.com"}}, False),
        ({"Principal": "*"}, True),
        ({"Action": ["s3:GetObject", "s3:PutObject"]}, True),
        ({"Action": "s3:GetObject"}, False),
        ({"Action": "s3:*"}, True),
        (
            {
                "Condition": {
                    "ArnLike": {"aws:SourceArn": "arn:x:receipt-rule-set/mail:receipt-rule/ours"}
                }
            },
            True,
        ),
        (
            {
                "Condition": {
                    "ArnLike": {"AWS:SourceArn": ["arn:x:receipt-rule-set/mail:receipt-rule/*"]}
                }
            },
            True,
        ),
        (
            {
                "Condition": {
                    "StringEquals": {
                        "aws:SourceArn": "arn:x:receipt-rule-set/other:receipt-rule/ours"
                    }
                }
            },
            False,
        ),
        ({"Condition": {"StringEquals": {"aws:SourceAccount": "1"}}}, True),
    ],
)
def test_a_resource_policy_lets_ses_in_or_not(statement: dict[str, Any], allowed: bool) -> None:
    plain = {
        "Effect": "Allow",
        "Principal": {"Service": "ses.amazonaws.com"},
        "Action": "s3:PutObject",
    }
    policy = msgspec.json.encode({"Statement": [{**plain, **statement}]}).decode()
    assert allows(policy, "s3:PutObject", ":receipt-rule-set/mail:receipt-rule/ours") is allowed
