"""Each role may do what its function does, and nothing else."""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from bouncer.aws import slots
from bouncer.mailboxes import Mailbox
from tests.unit.template import (
    FUNCTIONS,
    PARAMETERS,
    TEMPLATE,
    Properties,
    branches,
    environment,
    resources,
    statements_on,
    template,
    walk,
)


def _statements() -> Iterator[tuple[str, Properties]]:
    """Every statement of every role and bucket policy, with where it stands."""
    documents = [
        (f"{role}.{policy['PolicyName']}", policy["PolicyDocument"])
        for role, properties in resources("AWS::IAM::Role").items()
        for policy in properties["Policies"]
    ]
    documents += [
        (name, properties["PolicyDocument"])
        for kind in ("AWS::IAM::ManagedPolicy", "AWS::S3::BucketPolicy")
        for name, properties in resources(kind).items()
    ]
    for place, document in documents:
        for statement in document["Statement"]:
            for each in branches(statement):
                yield place, each


STATEMENTS = list(_statements())
each_statement = pytest.mark.parametrize(
    "statement",
    [statement for _, statement in STATEMENTS],
    ids=[f"{place}.{statement.get('Sid')}" for place, statement in STATEMENTS],
)


@each_statement
def test_every_statement_has_a_name_that_says_what_it_is_for(statement: Properties) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z0-9]{5,}", statement["Sid"])


def test_no_role_has_two_statements_of_one_name() -> None:
    names = [(place, statement["Sid"]) for place, statement in STATEMENTS]
    assert len(names) == len(set(names))


@each_statement
def test_no_statement_allows_any_action(statement: Properties) -> None:
    actions = statement["Action"]
    actions = [actions] if isinstance(actions, str) else actions
    assert all("*" not in action for action in actions)


ANY_RESOURCE = [
    statement for _, statement in STATEMENTS if "*" in list(walk(statement["Resource"]))
]


def test_any_resource_is_allowed_only_where_aws_knows_no_resources() -> None:
    services = {action.partition(":")[0] for each in ANY_RESOURCE for action in each["Action"]}
    assert services == {"xray", "ses"}
    ses = {
        action for each in ANY_RESOURCE for action in each["Action"] if action.startswith("ses:")
    }
    assert "ses:SendBounce" not in ses
    assert all("ReceiptRule" in action for action in ses)


@pytest.mark.parametrize("sid", sorted({each["Sid"] for each in ANY_RESOURCE}))
def test_any_resource_has_its_reason_beside_it(sid: str) -> None:
    lines = re.findall(rf"- Sid: {sid}\b.*", TEMPLATE.read_text("utf-8"))
    assert lines
    assert all("# " in line and "no resources" in line for line in lines)


def test_bounces_may_be_sent_as_the_bounce_sender_only() -> None:
    senders = [
        statement["Condition"]
        for _, statement in STATEMENTS
        if "ses:SendBounce" in (statement["Action"], *statement["Action"])
    ]
    assert senders == [
        {"StringEquals": {"ses:FromAddress": {"Ref": "BounceSender"}}},
        {"StringEquals": {"ses:FromAddress": {"Ref": "OtherBounceSenders"}}},
    ]


def roles_with(policy: str) -> set[str]:
    """The roles that a shared policy is attached to, if its condition holds."""
    return {
        role
        for role, properties in resources("AWS::IAM::Role").items()
        if {"Ref": policy}
        in [arn for each in properties.get("ManagedPolicyArns", []) for arn in branches(each)]
    }


def test_only_the_functions_that_send_may_bounce() -> None:
    assert roles_with("BouncePolicy") == {"InboundRole", "AuditRole", "SendRole"}


def test_every_function_writes_traces_where_they_are_asked_for() -> None:
    assert roles_with("TracePolicy") == set(resources("AWS::IAM::Role"))
    assert template()["Resources"]["TracePolicy"]["Condition"] == "TraceInvocations"


def test_every_shared_policy_is_shared() -> None:
    for policy in resources("AWS::IAM::ManagedPolicy"):
        assert len(roles_with(policy)) > 1


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_has_a_role_of_its_own(function: str) -> None:
    (role, _) = FUNCTIONS[function]["Role"]["Fn::GetAtt"]
    users = [name for name, each in FUNCTIONS.items() if each["Role"]["Fn::GetAtt"][0] == role]
    assert users == [function]


def _source_arns() -> Iterator[Any]:
    for properties in resources("AWS::Lambda::Permission").values():
        yield properties["SourceArn"]
    for _, statement in STATEMENTS:
        condition = statement.get("Condition", {})
        arns = condition.get("ArnLike", {}).get("aws:SourceArn", [])
        yield from arns


@pytest.mark.parametrize("arn", list(_source_arns()), ids=lambda arn: str(arn)[-40:])
def test_a_source_arn_is_built_from_names(arn: Any) -> None:
    """A Ref of the rule would be circular: SES tests its grants when the rule is made."""
    (text,) = arn.values()
    used = set(re.findall(r"\$\{([^}]+)\}", text))
    assert used <= set(PARAMETERS) | {"AWS::Partition", "AWS::Region", "AWS::AccountId"}
    assert {"ReceiptRuleSetName", "ReceiptRuleName"} <= used


@pytest.mark.parametrize("permission", resources("AWS::Lambda::Permission"))
def test_only_ses_of_this_account_may_invoke(permission: str) -> None:
    properties = resources("AWS::Lambda::Permission")[permission]
    assert properties["Principal"] == "ses.amazonaws.com"
    assert properties["SourceAccount"] == {"Ref": "AWS::AccountId"}


def test_the_receipt_rule_waits_for_what_ses_tests_when_it_is_made() -> None:
    rule = template()["Resources"]["ReceiptRule"]
    assert set(rule["DependsOn"]) >= {"SesMayInvoke", "MailTopicPolicy"}
    assert {"Ref": "MailBucketPolicy"} in list(walk(rule["Metadata"]))


def test_the_receipt_rule_stores_the_mail_before_it_invokes_the_function() -> None:
    rule = resources("AWS::SES::ReceiptRule")["ReceiptRule"]["Rule"]
    assert (rule["Enabled"], rule["ScanEnabled"]) == (True, True)
    actions = [name for action in rule["Actions"] for each in branches(action) for name in each]
    assert actions == ["S3Action", "LambdaAction"]


def test_every_statement_on_the_bounce_table_names_the_kinds_of_items_that_it_is_for() -> None:
    found = statements_on("BounceTable")
    assert len(found) >= 8
    for each in found:
        keys = each["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
        assert keys
        assert "*" not in keys


def test_who_reads_the_whole_directory_has_to_name_what_he_reads() -> None:
    """Whole items of a user's own table may hold what is none of ours."""
    (only,) = [
        each
        for role in resources("AWS::IAM::Role").values()
        for each in walk(role)
        if isinstance(each, dict) and each.get("Action") == "dynamodb:Scan"
    ]
    assert only["Condition"] == {"StringEqualsIfExists": {"dynamodb:Select": "SPECIFIC_ATTRIBUTES"}}


def test_who_takes_turns_in_another_stacks_table_touches_its_limiter_and_nothing_else() -> None:
    named = {"Fn::If": ["KeepPace", {"Ref": "BounceTable"}, {"Ref": "PaceTable"}]}
    found = [each for each in statements_on("BounceTable") if named in [*walk(each["Resource"])]]
    assert {each["Sid"] for each in found} == {"TakeTurns"}
    assert len(found) == 2  # who bounces, and who changes receipt rules
    for each in found:
        assert each["Action"] == "dynamodb:UpdateItem"
        keys = each["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
        assert keys == [slots.SLOTS_ITEM["pk"]["S"]]
    others = [each for each in statements_on("BounceTable") if each not in found]
    assert not [each for each in others if slots.SLOTS_ITEM["pk"]["S"] in str(each["Condition"])]
    assert environment("SendFunction")["PACE_TABLE"] == named
    assert template()["Outputs"]["PaceTable"]["Value"] == named


def test_what_may_be_read_of_a_mailbox_is_its_fields() -> None:
    (policy,) = [
        each
        for each in walk(resources("AWS::IAM::ManagedPolicy")["DecidingPolicy"])
        if isinstance(each, dict) and each.get("Sid") == "LookMailboxesUp"
    ]
    (name, kept, _) = policy["Condition"]["Fn::If"]
    assert name == "FieldsKeepTheirNames"
    allowed = kept["ForAllValues:StringEquals"]["dynamodb:Attributes"]
    assert sorted(allowed) == sorted(each.name for each in msgspec.structs.fields(Mailbox))


@pytest.mark.parametrize("policy", resources("AWS::IAM::ManagedPolicy"))
def test_a_shared_policy_is_no_longer_than_iam_takes(policy: str) -> None:
    """6,144 characters, white space aside."""
    document = resources("AWS::IAM::ManagedPolicy")[policy]["PolicyDocument"]
    assert len(json.dumps(document, separators=(",", ":"))) < 6144
