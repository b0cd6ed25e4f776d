"""What template.yaml says and what the code reads are the same facts."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from bouncer import timing
from bouncer.aws import slots
from bouncer.aws.telemetry import (
    BY_OUTCOME,
    BY_STATE,
    DOMAIN_UNKNOWN,
    FOUND,
    NAMESPACE,
    SENDER_NOT_TOLD,
)
from bouncer.delivery.bounce import WINDOW
from bouncer.delivery.fate import Incident
from bouncer.limiter import Pace
from bouncer.mailboxes import Mailbox
from bouncer.policy.file import validator_schema
from bouncer.receipt_rules import RULES_A_SET, rule_name
from bouncer.settings import (
    AuditSettings,
    InboundSettings,
    RulesSettings,
    SendSettings,
    UsageSettings,
)

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "template.yaml"

type Properties = dict[str, Any]


# --- Reading it ------------------------------------------------------------------------------


class _Constructor(SafeConstructor):
    """YAML with CloudFormation's short tags, spelled out as its JSON has them."""


def _tag(constructor: SafeConstructor, suffix: str, node: Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    value: Any
    if isinstance(node, ScalarNode):
        value = constructor.construct_scalar(node)
        if suffix == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, MappingNode):
        value = constructor.construct_mapping(node, deep=True)
    else:
        value = constructor.construct_sequence(node, deep=True)
    return {name: value}


_Constructor.add_multi_constructor("!", _tag)


@cache
def template() -> dict[str, Any]:
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    loaded: dict[str, Any] = yaml.load(TEMPLATE.read_text("utf-8"))
    return loaded


def resources(kind: str) -> dict[str, Properties]:
    """The properties of every resource of a type, by its logical id."""
    return {
        name: resource.get("Properties", {})
        for name, resource in template()["Resources"].items()
        if resource["Type"] == kind
    }


FUNCTIONS = resources("AWS::Serverless::Function")
QUEUES = resources("AWS::SQS::Queue")
PARAMETERS: dict[str, Properties] = template()["Parameters"]
MAPPING: Properties = FUNCTIONS["SendFunction"]["Events"]["Queued"]["Properties"]


def walk(value: Any) -> Iterator[Any]:
    """A value and everything in it."""
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from walk(each)


SHARED: dict[str, Any] = template()["Globals"]["Function"]["Environment"]["Variables"]


def own_environment(function: str) -> dict[str, Any]:
    own: dict[str, Any] = FUNCTIONS[function].get("Environment", {}).get("Variables", {})
    return own


def environment(function: str) -> dict[str, Any]:
    return SHARED | own_environment(function)


def branches(value: Any) -> Iterator[Any]:
    """What a value may be, whichever way its conditions come out."""
    if isinstance(value, dict) and set(value) == {"Fn::If"}:
        for branch in value["Fn::If"][1:]:
            yield from branches(branch)
    elif value != {"Ref": "AWS::NoValue"}:
        yield value


# --- The environment -------------------------------------------------------------------------

SETTINGS: dict[str, type[msgspec.Struct]] = {
    "InboundFunction": InboundSettings,
    "AuditFunction": AuditSettings,
    "SendFunction": SendSettings,
    "UsageFunction": UsageSettings,
    "RulesFunction": RulesSettings,
}
NOT_OURS = re.compile(r"POWERTOOLS_.*|AWS_ENDPOINT_URL")
FROM_LAMBDA = {"AWS_REGION"}
"""Lambda sets these itself: docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html"""


def test_every_function_has_its_settings() -> None:
    assert set(SETTINGS) == set(FUNCTIONS)


def read_by(function: str) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(SETTINGS[function])} - FROM_LAMBDA


@pytest.mark.parametrize("function", SETTINGS)
def test_a_functions_own_environment_is_what_its_settings_read(function: str) -> None:
    shared = {name for name in SHARED if not NOT_OURS.fullmatch(name)}
    assert set(own_environment(function)) == read_by(function) - shared


@pytest.mark.parametrize("name", [name for name in SHARED if not NOT_OURS.fullmatch(name)])
def test_what_every_function_is_told_is_read_by_several(name: str) -> None:
    assert sum(name in read_by(function) for function in SETTINGS) > 1


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_function_sets_what_lambda_sets_itself(function: str) -> None:
    assert not FROM_LAMBDA & set(environment(function))


@pytest.mark.parametrize(
    ("parameter", "field"),
    [
        ("SendIntervalSeconds", "send_interval_seconds"),
        ("WaitBudgetSeconds", "wait_budget_seconds"),
        ("WindowMarginSeconds", "window_margin_seconds"),
        ("LedgerRetentionDays", "ledger_retention_days"),
        ("LogAddresses", "log_addresses"),
    ],
)
def test_a_parameters_default_is_the_settings_own(parameter: str, field: str) -> None:
    (default,) = (f.default for f in msgspec.structs.fields(InboundSettings) if f.name == field)
    assert PARAMETERS[parameter]["Default"] == default


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_the_handler_that_stands_in_its_folder(function: str) -> None:
    properties = FUNCTIONS[function]
    module, name = properties["Handler"].split(".")
    assert f"def {name}(" in (ROOT / properties["CodeUri"] / f"{module}.py").read_text("utf-8")


# --- Times -----------------------------------------------------------------------------------

SEND_TIMEOUT: int = FUNCTIONS["SendFunction"]["Timeout"]
INBOUND_TIMEOUT: int = FUNCTIONS["InboundFunction"]["Timeout"]
BOUNCE_QUEUE = QUEUES["BounceQueue"]


def test_the_worker_knows_how_often_the_queue_tries() -> None:
    tries = int(environment("SendFunction")["BOUNCE_QUEUE_MAX_RECEIVES"])
    assert tries == BOUNCE_QUEUE["RedrivePolicy"]["maxReceiveCount"]


def test_a_message_stays_hidden_for_six_times_the_workers_timeout() -> None:
    """docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html."""
    assert BOUNCE_QUEUE["VisibilityTimeout"] >= 6 * SEND_TIMEOUT


def test_a_whole_batch_fits_into_the_workers_timeout() -> None:
    pace = Pace(interval=PARAMETERS["SendIntervalSeconds"]["Default"])
    reserve = timing.RESERVE + timing.CALL
    assert pace.span(MAPPING["BatchSize"]) + reserve <= SEND_TIMEOUT


def test_two_workers_windows_fit_into_a_timeout_one_after_the_other() -> None:
    """MaximumConcurrency lets the second one wait while the first one sends."""
    pace = Pace(interval=PARAMETERS["SendIntervalSeconds"]["Default"])
    reserve = timing.RESERVE + timing.CALL
    workers = MAPPING["ScalingConfig"]["MaximumConcurrency"]
    assert workers * pace.span(MAPPING["BatchSize"]) + reserve <= SEND_TIMEOUT


def test_the_windows_of_six_stacks_that_share_a_pace_fit_into_a_timeout() -> None:
    """So each worker's window is granted when it asks, in order of asking."""
    pace = Pace(interval=PARAMETERS["SendIntervalSeconds"]["Default"])
    workers = 6 * MAPPING["ScalingConfig"]["MaximumConcurrency"]
    ahead = (workers - 1) * pace.span(MAPPING["BatchSize"])
    left = SEND_TIMEOUT - timing.RESERVE - timing.CALL
    assert ahead + pace.latest_start(MAPPING["BatchSize"]) <= left


def test_one_call_of_each_worker_fits_into_a_timeout_even_at_the_slowest_pace() -> None:
    pace = Pace(interval=PARAMETERS["SendIntervalSeconds"]["MaxValue"])
    reserve = timing.RESERVE + timing.CALL
    workers = MAPPING["ScalingConfig"]["MaximumConcurrency"]
    assert workers * pace.span(1) + reserve <= SEND_TIMEOUT


def test_an_inbound_mail_is_answered_within_sess_thirty_seconds() -> None:
    assert INBOUND_TIMEOUT < timing.SES_WAITS == 30


def test_the_templates_times_are_those_that_the_code_counts_on() -> None:
    assert INBOUND_TIMEOUT == timing.INBOUND_TIMEOUT
    assert SEND_TIMEOUT == timing.SEND_TIMEOUT
    assert BOUNCE_QUEUE["VisibilityTimeout"] == timing.VISIBILITY
    assert PARAMETERS["WaitBudgetSeconds"]["MaxValue"] == timing.LONGEST_WAIT_BUDGET
    assert PARAMETERS["WindowMarginSeconds"]["MinValue"] == timing.LEAST_WINDOW_MARGIN


def test_the_longest_wait_for_a_slot_leaves_time_for_the_answer() -> None:
    reserve = timing.RESERVE + timing.CALL
    assert PARAMETERS["WaitBudgetSeconds"]["MaxValue"] + reserve < INBOUND_TIMEOUT


def test_lambda_takes_no_concurrency_below_two() -> None:
    """docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html: 2 to 1000."""
    assert MAPPING["ScalingConfig"]["MaximumConcurrency"] >= 2


def test_only_what_failed_goes_back_to_the_queue() -> None:
    assert MAPPING["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_the_queue_outlives_sess_window() -> None:
    """So that the worker can note what it gives up."""
    assert BOUNCE_QUEUE["MessageRetentionPeriod"] > WINDOW.total_seconds()


def test_the_ledger_outlives_the_queue() -> None:
    days = PARAMETERS["LedgerRetentionDays"]["MinValue"]
    assert days * 86_400 > BOUNCE_QUEUE["MessageRetentionPeriod"]


# --- Keeping ---------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", QUEUES)
def test_every_queue_is_encrypted(queue: str) -> None:
    properties = QUEUES[queue]
    assert properties.get("SqsManagedSseEnabled") is True or "KmsMasterKeyId" in properties


def test_every_dead_letter_queue_keeps_people_s_data_as_long_as_the_user_says() -> None:
    dead = {name: each for name, each in QUEUES.items() if "DeadLetter" in name}
    targets = {
        each["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
        for each in QUEUES.values()
        if "RedrivePolicy" in each
    }
    assert targets < set(dead)
    for each in dead.values():
        assert each["MessageRetentionPeriod"] == {"Ref": "DeadLetterRetentionSeconds"}


@pytest.mark.parametrize("table", resources("AWS::DynamoDB::Table"))
def test_every_table_is_encrypted(table: str) -> None:
    properties = resources("AWS::DynamoDB::Table")[table]
    assert properties["SSESpecification"] == {"SSEEnabled": True}


@pytest.mark.parametrize("bucket", resources("AWS::S3::Bucket"))
def test_every_bucket_is_private_and_encrypted(bucket: str) -> None:
    properties = resources("AWS::S3::Bucket")[bucket]
    assert len(properties["PublicAccessBlockConfiguration"]) == 4
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert "ServerSideEncryptionConfiguration" in properties["BucketEncryption"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_logs_to_a_group_with_a_retention(function: str) -> None:
    group = FUNCTIONS[function]["LoggingConfig"]["LogGroup"]["Ref"]
    properties = resources("AWS::Logs::LogGroup")[group]
    assert properties["RetentionInDays"] == {"Ref": "LogRetentionDays"}


def test_every_log_group_is_some_functions() -> None:
    used = {each["LoggingConfig"]["LogGroup"]["Ref"] for each in FUNCTIONS.values()}
    assert set(resources("AWS::Logs::LogGroup")) == used


def test_the_ledgers_expiry_is_the_tables_time_to_live() -> None:
    table = resources("AWS::DynamoDB::Table")["BounceTable"]
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert [key["AttributeName"] for key in table["KeySchema"]] == ["pk", "sk"]


def test_events_that_failed_end_in_the_same_queue_either_way() -> None:
    destination = FUNCTIONS["InboundFunction"]["EventInvokeConfig"]["DestinationConfig"]
    assert destination["OnFailure"]["Destination"] == {
        "Fn::GetAtt": ["EventDeadLetterQueue", "Arn"]
    }
    kept = environment("InboundFunction")["EVENT_DEAD_LETTER_QUEUE_URL"]
    assert kept == {"Ref": "EventDeadLetterQueue"}


# --- What the parameters say together --------------------------------------------------------


def evaluate(expression: Any, given: dict[str, Any]) -> Any:
    """What CloudFormation makes of a condition, with these parameters and the others' defaults."""
    if not isinstance(expression, dict):
        return expression
    ((function, argument),) = expression.items()
    if function == "Ref":
        return given.get(argument, PARAMETERS[argument].get("Default"))
    if function == "Condition":
        return evaluate(template()["Conditions"][argument], given)
    values = [evaluate(each, given) for each in argument]
    combine: dict[str, Callable[[], bool]] = {
        "Fn::Equals": lambda: values[0] == values[1],
        "Fn::Not": lambda: not values[0],
        "Fn::And": lambda: all(values),
        "Fn::Or": lambda: any(values),
        "Fn::EachMemberEquals": lambda: set(str(values[0]).split(",")) == {values[1]},
    }
    return combine[function]()


def deployable(given: dict[str, Any]) -> bool:
    """Whether the template's rules let a stack with these parameters be made."""
    return all(
        evaluate(assertion["Assert"], given)
        for rule in template()["Rules"].values()
        if evaluate(rule["RuleCondition"], given)
        for assertion in rule["Assertions"]
    )


OWN_TABLE = {"MailboxTableName": "users"}


@pytest.mark.parametrize(
    ("given", "managed"),
    [
        ({}, True),
        ({"StoreMail": "none"}, False),
        ({"Usage": "external"}, False),
        ({"Usage": "managed"}, True),
        ({"Usage": "managed", "StoreMail": "none"}, False),
        (OWN_TABLE, False),
        (OWN_TABLE | {"Usage": "managed"}, True),
        (OWN_TABLE | {"Usage": "managed", "StoreMail": "none"}, False),
    ],
    ids=str,
)
def test_usage_is_managed_where_the_mail_is_stored_and_the_table_is_ours_or_it_is_said(
    given: dict[str, str], managed: bool
) -> None:
    assert evaluate({"Condition": "ManageUsage"}, given) is managed


def test_what_manages_usage_is_all_of_it_made_on_one_condition() -> None:
    made = {
        name: resource.get("Condition")
        for name, resource in template()["Resources"].items()
        if name.startswith("Usage")
    }
    assert {"UsageFunction", "UsageRole", "UsageLogGroup"} <= made.keys()
    assert set(made.values()) == {"ManageUsage"}
    usage = environment("InboundFunction")["USAGE"]["Fn::If"]
    assert usage == ["ManageUsage", "managed", "external"]


RENAMED = {"MailboxAttributes": "address=email"}


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({}, True),
        ({"StoreMail": "none"}, True),
        (OWN_TABLE | RENAMED, True),
        (OWN_TABLE | {"Usage": "managed"}, True),
        ({"Usage": "managed", "StoreMail": "none"}, False),
        (OWN_TABLE | RENAMED | {"Usage": "managed"}, False),
        ({"StoreMail": "existing-bucket"}, False),
        ({"StoreMail": "existing-bucket", "MailBucketName": "bucket"}, True),
        ({"StoreMail": "own-bucket", "MailBucketName": "bucket"}, False),
        ({"StoreMail": "none", "MailBucketName": "bucket"}, False),
        ({"OtherBounceSenders": "a@example.net,b@example.net"}, False),
        ({"OtherBounceSenders": "a@example.net", "OtherBounceIdentityArns": "arn:x"}, True),
    ],
    ids=str,
)
def test_parameters_that_contradict_each_other_make_no_stack(
    given: dict[str, str], allowed: bool
) -> None:
    assert deployable(given) is allowed


def accepts(parameter: str, value: str) -> bool:
    return re.fullmatch(PARAMETERS[parameter]["AllowedPattern"], value) is not None


def test_the_attributes_that_may_be_renamed_are_a_mailboxs_fields() -> None:
    alternatives = re.findall(r"\(([a-z_|]+)\)=", PARAMETERS["MailboxAttributes"]["AllowedPattern"])
    assert [tuple(each.split("|")) for each in alternatives] == [Mailbox.__struct_fields__]


@pytest.mark.parametrize(
    ("pairs", "allowed"),
    [
        ("", True),
        ("address=email", True),
        ("address=email,quota_bytes=quota,used_bytes=used", True),
        (",".join(f"{field}=x-{field}" for field in Mailbox.__struct_fields__), True),
        ("quota=quota_bytes", False),
        ("address=email,quota=space", False),
        ("address", False),
        ("address=", False),
        ("address=email,", False),
        ("address=email quota_bytes=quota,", False),
    ],
)
def test_attributes_are_renamed_in_pairs_of_a_field_and_a_name(pairs: str, allowed: bool) -> None:
    assert accepts("MailboxAttributes", pairs) is allowed


@pytest.mark.parametrize(("length", "allowed"), [(1, True), (60, True), (61, False), (64, False)])
def test_a_rules_name_leaves_room_for_the_numbers_of_its_copies(length: int, allowed: bool) -> None:
    """docs.aws.amazon.com/ses/latest/APIReference/API_ReceiptRule.html: fewer than 65."""
    name = "r" * length
    assert accepts("ReceiptRuleName", name) is allowed
    assert not allowed or len(rule_name(name, RULES_A_SET)) <= 64


# --- Permissions -----------------------------------------------------------------------------


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


# --- Roles, to the item ------------------------------------------------------------------------


def statements_on(table: str) -> list[dict[str, Any]]:
    itself = ({"Fn::GetAtt": [table, "Arn"]}, {"Ref": table})
    holders = resources("AWS::IAM::Role") | resources("AWS::IAM::ManagedPolicy")
    return [
        each
        for holder in holders.values()
        for each in walk(holder)
        if isinstance(each, dict)
        and "Resource" in each
        and any(part in itself for part in walk(each["Resource"]))
    ]


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


def test_usage_writes_no_attribute_of_a_mailbox_but_its_own() -> None:
    found = [
        each
        for role in resources("AWS::IAM::Role").values()
        for each in walk(role)
        if isinstance(each, dict) and each.get("Sid") in ("CountMailInMailboxes", "GiveBack")
    ]
    assert len(found) == 3
    for each in found:
        allowed = each["Condition"]["ForAllValues:StringEquals"]["dynamodb:Attributes"]
        assert set(allowed) == {"address", "used_bytes", "messages_day", "messages_today"}


# --- Queues over TLS only ----------------------------------------------------------------------


def test_queues_of_bounces_and_events_refuse_plain_http() -> None:
    policy = resources("AWS::SQS::QueuePolicy")["QueuesOverTls"]
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    covered = {each["Ref"] for each in policy["Queues"]}
    assert covered == {each["Fn::GetAtt"][0] for each in statement["Resource"]}
    fed_by_a_service = {"AuditQueue", "UsageQueue", "UsageDeadLetterQueue"}
    assert covered == set(QUEUES) - fed_by_a_service


# --- Metrics ---------------------------------------------------------------------------------

ALARMS = resources("AWS::CloudWatch::Alarm")
OUR_ALARMS = [name for name, each in ALARMS.items() if each["Namespace"] == NAMESPACE]


RUNBOOK = (ROOT / "docs/operations.md").read_text("utf-8")


@cache
def emitted_metrics() -> frozenset[str]:
    """Every metric that the code counts: by name, or by a table of names."""
    names = {*BY_STATE.values(), *BY_OUTCOME.values(), *map(str, Incident)}
    names |= {DOMAIN_UNKNOWN, FOUND, SENDER_NOT_TOLD}
    for path in [*(ROOT / "layers/bouncer/bouncer").rglob("*.py"), *ROOT.glob("functions/*/*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="count" | "warn"),
                    args=[ast.Constant(value=str(name)), *_],
                ) if name[:1].isupper() and name != "Received":  # a header
                    names.add(name)
    return frozenset(names)


def test_every_metric_that_is_counted_has_a_row_in_the_runbook() -> None:
    assert [name for name in sorted(emitted_metrics()) if f"`{name}`" not in RUNBOOK] == []


def test_every_alarm_has_a_row_in_the_runbook_and_every_row_an_alarm() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|", RUNBOOK.partition("## Alarms")[2].partition("\n## ")[0], re.M
    )
    assert sorted(rows) == sorted(ALARMS)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_has_alarms_for_errors_throttles_and_near_time_outs(function: str) -> None:
    dimension = [{"Name": "FunctionName", "Value": {"Ref": function}}]
    watched = {e["MetricName"]: e for e in ALARMS.values() if e["Dimensions"] == dimension}
    assert {"Errors", "Throttles", "Duration"} <= set(watched)
    limit = FUNCTIONS[function]["Timeout"] * 1000
    assert watched["Duration"]["Statistic"] == "Maximum"
    assert 0.9 * limit <= watched["Duration"]["Threshold"] < limit


@pytest.mark.parametrize("queue", [name for name in QUEUES if "DeadLetter" in name])
def test_every_dead_letter_queue_has_an_alarm(queue: str) -> None:
    watched = [e for e in ALARMS.values() if queue in str(e["Dimensions"])]
    assert [e["MetricName"] for e in watched] == ["ApproximateNumberOfMessagesVisible"]


@pytest.mark.parametrize("name", ["MailboxTable", "BounceTable", "MailBucket"])
def test_what_is_precious_is_kept_when_the_stack_goes(name: str) -> None:
    """And a first deployment that fails leaves nothing behind."""
    kept = template()["Resources"][name]
    assert (kept["DeletionPolicy"], kept["UpdateReplacePolicy"]) == (
        "RetainExceptOnCreate",
        "Retain",
    )


@pytest.mark.parametrize("name", ["MailboxTable", "BounceTable"])
def test_a_table_can_be_recovered_to_any_second(name: str) -> None:
    table = template()["Resources"][name]
    recovery = table["Properties"]["PointInTimeRecoverySpecification"]
    assert recovery == {"PointInTimeRecoveryEnabled": True}


@pytest.mark.parametrize("alarm", OUR_ALARMS)
def test_an_alarm_of_ours_watches_a_metric_that_is_written(alarm: str) -> None:
    properties = ALARMS[alarm]
    assert properties["MetricName"] in emitted_metrics()
    service = environment("InboundFunction")["POWERTOOLS_SERVICE_NAME"]
    assert properties["Dimensions"] == [{"Name": "service", "Value": service}]


def test_dead_letters_age_and_given_up_bounces_have_alarms() -> None:
    watched = {
        (each["MetricName"], str(each["Dimensions"][0]["Value"])) for each in ALARMS.values()
    }
    visible = "ApproximateNumberOfMessagesVisible"
    for queue in ("BounceDeadLetterQueue", "EventDeadLetterQueue"):
        assert any(metric == visible and queue in of for metric, of in watched)
    assert any(
        metric == "ApproximateAgeOfOldestMessage" and "BounceQueue" in of for metric, of in watched
    )
    assert {"BounceExpired", "BounceRejected"} <= {metric for metric, _ in watched}


# --- People ----------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_every_parameter_says_what_it_is(parameter: str) -> None:
    assert len(PARAMETERS[parameter]["Description"]) > 20


def test_every_parameter_stands_in_a_group_of_the_console() -> None:
    groups = template()["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]
    assert sorted(grouped) == sorted(PARAMETERS)


def test_every_number_is_bounded() -> None:
    numbers = {name: each for name, each in PARAMETERS.items() if each["Type"] == "Number"}
    bounded = {
        name for name, each in numbers.items() if {"MinValue", "MaxValue"} <= each.keys()
    } | {name for name, each in numbers.items() if "AllowedValues" in each}
    assert bounded == set(numbers)


def test_there_is_no_default_where_a_wrong_guess_hurts() -> None:
    without = {name for name, each in PARAMETERS.items() if "Default" not in each}
    assert without == {"BounceSender", "ReceiptRuleSetName"}


def test_every_parameter_and_condition_is_used() -> None:
    text = TEMPLATE.read_text("utf-8").partition("\nConditions:")[2]
    refs = {each["Ref"] for each in walk(template()) if isinstance(each, dict) and "Ref" in each}
    refs |= set(re.findall(r"\$\{([A-Za-z]+)\}", text))
    assert set(PARAMETERS) <= refs
    for condition in template()["Conditions"]:
        assert len(re.findall(rf"\b{condition}\b", text)) > 1, condition


@pytest.mark.parametrize("output", template()["Outputs"])
def test_every_output_says_what_it_is(output: str) -> None:
    assert len(template()["Outputs"][output]["Description"]) > 10


def _asked_for(accept: Callable[[ast.Call], bool]) -> set[str]:
    """The constant first arguments of calls in the console's source."""
    found: set[str] = set()
    for path in (ROOT / "console" / "bouncer_console").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and accept(node):
                (argument,) = node.args[:1]
                assert isinstance(argument, ast.Constant)
                found.add(str(argument.value))
    return found


def _method(name: str, *owners: str) -> Callable[[ast.Call], bool]:
    def accept(call: ast.Call) -> bool:
        method = call.func
        if not isinstance(method, ast.Attribute) or method.attr != name:
            return False
        owner = method.value
        return not owners or (isinstance(owner, ast.Attribute) and owner.attr in owners)

    return accept


def test_every_output_that_the_console_asks_for_exists() -> None:
    asked = _asked_for(_method("output")) | _asked_for(_method("get", "outputs"))
    assert asked
    assert asked <= set(template()["Outputs"])


def test_every_parameter_that_the_console_asks_for_exists() -> None:
    asked = _asked_for(_method("get", "parameters"))
    assert asked
    assert asked <= set(PARAMETERS)


def test_appconfigs_validator_is_the_codes_own_schema() -> None:
    profile = resources("AWS::AppConfig::ConfigurationProfile")["PolicyProfile"]
    (validator,) = profile["Validators"]
    assert validator["Type"] == "JSON_SCHEMA"
    assert json.loads(validator["Content"]) == validator_schema(), "`make schema` writes it"


def test_appconfigs_validator_is_no_longer_than_it_may_be() -> None:
    """docs.aws.amazon.com/appconfig/2019-10-09/APIReference/API_Validator.html."""
    profile = resources("AWS::AppConfig::ConfigurationProfile")["PolicyProfile"]
    assert len(profile["Validators"][0]["Content"]) <= 32_768


def test_the_layer_fits_every_architecture_that_the_functions_may_have() -> None:
    layer = template()["Resources"]["BouncerLayer"]["Properties"]
    assert set(layer["CompatibleArchitectures"]) == set(PARAMETERS["Architecture"]["AllowedValues"])


def test_everything_that_is_built_gets_its_compiled_python() -> None:
    for name in (*FUNCTIONS, "BouncerLayer"):
        metadata = template()["Resources"][name]["Metadata"]
        assert metadata["BuildMethod"] == "makefile"
        folder = metadata.get("ContextPath", "layers/bouncer")
        assert f"build-{name}" in (ROOT / folder / "Makefile").read_text()
