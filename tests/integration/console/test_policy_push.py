"""`bouncer policy push`."""

import json
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest

from bouncer.policy.file import validator_schema
from tests.integration.builders import (
    no_response,
)
from tests.integration.console.builders import (
    LATIN_1,
    Stack,
    bouncer,
    error_of,
    file,
    text_of,
)


def test_a_policy_is_stored_and_deployed(
    stack: Stack, deployed_policies: list[dict[str, Any]]
) -> None:
    assert "is version 1 of the policy of ses-bouncer" in text_of("policy", "push")
    (started,) = deployed_policies
    assert started["environment"] == "live-env"
    assert started["ConfigurationVersion"] == "1"
    assert started["DeploymentStrategyId"] == "at-once"
    stored = boto3.client("appconfig").get_hosted_configuration_version(
        ApplicationId=stack.outputs["PolicyApplication"],
        ConfigurationProfileId=stack.outputs["PolicyProfile"],
        VersionNumber=1,
    )
    content = json.loads(stored["Content"].read())
    assert stored["ContentType"] == "application/json"
    jsonschema.Draft4Validator(validator_schema()).validate(content)
    names = [rule["name"] for rule in content["rules"]]
    assert names[:3] == ["postmaster-and-abuse", "virus", "spam"]


@pytest.mark.parametrize(
    ("content", "complaint"), [("version = 7", "version"), (LATIN_1, "is not UTF-8")]
)
def test_a_bad_policy_is_not_pushed(
    tmp_path: Path,
    stack: Stack,
    deployed_policies: list[dict[str, Any]],
    content: str | bytes,
    complaint: str,
) -> None:
    path = file(tmp_path, "policy.toml", content)
    told = error_of("policy", "push", path)
    assert str(path) in told
    assert complaint in told
    assert deployed_policies == []


def test_a_stack_whose_policy_is_a_file_takes_no_push(stack: Stack) -> None:
    assert "has no output PolicyApplication" in error_of("policy", "push")


def test_a_push_during_another_deployment_says_when_to_come_again(
    stack: Stack, deployed_policies: list[dict[str, Any]]
) -> None:
    def conflict(**_: Any) -> Any:
        error = {"Error": {"Code": "ConflictException", "Message": "already in progress"}}
        return no_response(409), {"ResponseMetadata": {"HTTPStatusCode": 409}, **error}

    stack.hooks.insert(0, ("appconfig", "before-call.appconfig.StartDeployment", conflict))
    told = error_of("policy", "push")
    assert "version 1 is stored" in told
    assert "push again in a minute" in told
    assert deployed_policies == []


def test_a_purge_deletes_every_version_after_a_question(
    stack: Stack, deployed_policies: list[dict[str, Any]]
) -> None:
    """A profile with versions keeps the stack from being deleted."""
    appconfig = boto3.client("appconfig")
    names = {
        "ApplicationId": stack.outputs["PolicyApplication"],
        "ConfigurationProfileId": stack.outputs["PolicyProfile"],
    }
    left = {1, 2}

    def listed(**_: Any) -> Any:
        items = [{"VersionNumber": each} for each in sorted(left)]
        return no_response(200), {"ResponseMetadata": {}, "Items": items}

    stack.hooks.append(
        ("appconfig", "before-call.appconfig.ListHostedConfigurationVersions", listed)
    )
    for _ in left:
        text_of("policy", "push")
    bouncer("policy", "purge", typed="n\n", code=1)
    appconfig.get_hosted_configuration_version(VersionNumber=1, **names)
    assert "2 versions of the policy of ses-bouncer are deleted" in text_of(
        "policy", "purge", "--yes"
    )
    for version in left:
        with pytest.raises(appconfig.exceptions.ResourceNotFoundException):
            appconfig.get_hosted_configuration_version(VersionNumber=version, **names)
    left.clear()
    assert "0 versions" in text_of("policy", "purge")


OTHER_SENDER = """version = 1
send_bounce.bounce_sender = "robot@bounce.example.org"
[[rules]]
name = "accept"
action = "accept"
"""


def test_a_bounce_sender_that_the_stack_may_not_use_is_said_and_never_deployed(
    stack: Stack, deployed_policies: list[dict[str, Any]], tmp_path: Path
) -> None:
    stack.parameters["BounceSender"] = "mailer-daemon@example.com"
    policy = file(tmp_path, "other.toml", OTHER_SENDER)
    assert "is a good policy" in text_of("policy", "check", policy)
    for command in (("check", policy, "--stack", "ses-bouncer"), ("push", policy)):
        error = error_of("policy", *command)
        assert "bounce_sender 'robot@bounce.example.org'" in error
        assert "OtherBounceSenders" in error
    assert deployed_policies == []
    stack.parameters["OtherBounceSenders"] = "a@example.net,robot@bounce.example.org"
    assert "is a good policy" in text_of("policy", "check", policy, "--stack", "ses-bouncer")
    assert "is version 1" in text_of("policy", "push", policy)
