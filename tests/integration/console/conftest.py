"""The command at the project's root, and a stack for it."""

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_s3 import S3Client

from bouncer_console import deployment
from tests.integration.builders import no_response
from tests.integration.console.builders import (
    ROOT,
    Stack,
    _do_not_wait,
)


@pytest.fixture(autouse=True)
def _at_the_projects_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a person types the command: the default policy is found from there."""
    monkeypatch.chdir(ROOT)


def _no_filters(**_: Any) -> Any:
    """moto knows none of SES's IP filters."""
    return no_response(200), {"Filters": []}


@pytest.fixture
def stack(
    monkeypatch: pytest.MonkeyPatch,
    dynamodb: DynamoDBClient,
    s3: S3Client,
    queue: Callable[[str], str],
) -> Stack:
    site = Stack(queue)
    site.hooks.append(("sqs", "before-parameter-build.sqs.ReceiveMessage", _do_not_wait))
    site.hooks.append(("ses", "before-call.ses.ListReceiptFilters", _no_filters))
    real = deployment.client

    def client(service: str, region: str | None, *config: Any) -> Any:
        if service == "cloudformation":
            return site
        if service == "lambda":
            return site.lambda_
        if service == "logs":
            return site.logs
        made = real(service, region, *config)
        for wanted, event, handler in site.hooks:
            if wanted == service:
                made.meta.events.register(event, handler)
        return made

    monkeypatch.setattr(deployment, "client", client)
    return site


@pytest.fixture
def deployed_policies(stack: Stack) -> list[dict[str, Any]]:
    """What AppConfig was told to deploy; moto keeps versions and knows no deployments."""
    appconfig = boto3.client("appconfig")
    application = appconfig.create_application(Name="app")["Id"]
    profile = appconfig.create_configuration_profile(
        ApplicationId=application, Name="policy", LocationUri="hosted"
    )["Id"]
    stack.outputs |= {
        "PolicyApplication": application,
        "PolicyEnvironment": "live-env",
        "PolicyProfile": profile,
        "PolicyStrategy": "at-once",
    }
    started: list[dict[str, Any]] = []

    def start(params: dict[str, Any], **_: Any) -> Any:
        path = params["url_path"].strip("/").split("/")
        started.append(
            {"application": path[1], "environment": path[3], **json.loads(params["body"])}
        )
        return no_response(201), {"ResponseMetadata": {}}

    stack.hooks.append(("appconfig", "before-call.appconfig.StartDeployment", start))
    return started
