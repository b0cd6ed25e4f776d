"""What is stored: encrypted, private, for as long as it is said, and not lost with the stack."""

from typing import Any

import pytest

from tests.unit.template import FUNCTIONS, QUEUES, environment, resources, template


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


def test_every_queue_refuses_plain_http() -> None:
    covered = set()
    for policy in resources("AWS::SQS::QueuePolicy").values():
        statements = _always(policy["PolicyDocument"]["Statement"])
        (denial,) = (each for each in statements if each["Effect"] == "Deny")
        assert (denial["Principal"], denial["Action"]) == ("*", "sqs:*")
        assert denial["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        over = denial["Resource"] if isinstance(denial["Resource"], list) else [denial["Resource"]]
        denied = {each["Fn::GetAtt"][0] for each in over}
        assert denied == {each["Ref"] for each in policy["Queues"]}
        covered |= denied
    assert covered == set(QUEUES)


def _always(statements: list[Any]) -> list[Any]:
    """As they are where no condition takes one away."""
    return [each["Fn::If"][1] if "Fn::If" in each else each for each in statements]


@pytest.mark.parametrize("name", ["MailboxTable", "BounceTable", "MailBucket"])
def test_what_is_precious_is_kept_when_the_stack_goes(name: str) -> None:
    """And a first deployment that fails leaves nothing behind."""
    kept = template()["Resources"][name]
    assert (kept["DeletionPolicy"], kept["UpdateReplacePolicy"]) == (
        "RetainExceptOnCreate",
        "Retain",
    )


def test_the_layer_goes_with_the_stack() -> None:
    """SAM keeps the versions of a layer unless it is told not to."""
    for layer in resources("AWS::Serverless::LayerVersion").values():
        assert layer["RetentionPolicy"] == "Delete"


@pytest.mark.parametrize("name", ["MailboxTable", "BounceTable"])
def test_a_table_can_be_recovered_to_any_second(name: str) -> None:
    table = template()["Resources"][name]
    recovery = table["Properties"]["PointInTimeRecoverySpecification"]
    assert recovery == {"PointInTimeRecoveryEnabled": True}
