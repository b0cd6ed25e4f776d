"""The command at the project's root, and a stack for it."""

from collections.abc import Callable
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_s3 import S3Client

from bouncer_console import deployment
from tests.integration.console.builders import (
    ROOT,
    Stack,
    _do_not_wait,
)


@pytest.fixture(autouse=True)
def _at_the_projects_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a person types the command: the default policy is found from there."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def stack(
    monkeypatch: pytest.MonkeyPatch,
    dynamodb: DynamoDBClient,
    s3: S3Client,
    queue: Callable[[str], str],
) -> Stack:
    site = Stack(queue("dead-letters"), queue("events"), queue("bounces"))
    site.hooks.append(("sqs", "before-parameter-build.sqs.ReceiveMessage", _do_not_wait))
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
