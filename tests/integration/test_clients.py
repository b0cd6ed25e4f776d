"""The clients: what they are made from, and that none is made for nothing."""

from typing import Any

import boto3
import botocore.loaders
import pytest

from bouncer.aws import clients
from bouncer.aws.models import SERVICES, Models
from bouncer.settings import SettingsError
from functions.inbound import app
from tests.fakes.bounces import NOBODY
from tests.integration.builders import (
    ALICE,
    Context,
    SesServer,
    know_domain,
    put_mailbox,
    ses_event,
)
from tests.integration.conftest import Printed, Services


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("kind", ["service-2", "endpoint-rule-set-1", "paginators-1"])
def test_a_model_is_what_botocore_reads(service: str, kind: str) -> None:
    theirs = botocore.loaders.Loader()  # one of its own: clients change what they are given
    assert Models().load_service_model(service, kind) == theirs.load_service_model(service, kind)


def test_the_services_are_those_that_have_a_client() -> None:
    makers = (clients.appconfigdata, clients.dynamodb, clients.s3, clients.ses, clients.sqs)
    made: list[Any] = [make() for make in makers]
    assert tuple(each.meta.service_model.service_name for each in made) == SERVICES


def test_a_client_is_boto3s() -> None:
    ours: Any = clients.ses()
    theirs: Any = boto3.client("ses")
    assert type(ours).__mro__[1:] == type(theirs).__mro__[1:]
    assert ours.meta.service_model.operation_names == theirs.meta.service_model.operation_names
    assert ours.meta.endpoint_url == theirs.meta.endpoint_url


def test_what_is_lazy_is_made_once_and_when_it_is_asked_for_something() -> None:
    made: list[str] = []

    def make() -> str:
        made.append("made")
        return "text"

    lazy = clients.lazily(make)
    assert made == []
    assert (lazy.upper(), lazy.title()) == ("TEXT", "Text")
    assert made == ["made"]


def test_what_could_not_be_made_is_tried_again() -> None:
    answers: list[str] = []

    def make() -> str:
        answers.append("text")
        if len(answers) == 1:
            raise ValueError("not yet")
        return answers[-1]

    lazy = clients.lazily(make)
    with pytest.raises(ValueError, match="not yet"):
        lazy.upper()
    assert lazy.upper() == "TEXT"


@pytest.fixture
def made(
    monkeypatch: pytest.MonkeyPatch, services: Services, ses_server: SesServer, printed: Printed
) -> list[str]:
    """Which clients have been made since the cold start that is to come, in order."""
    names: list[str] = []
    for name in SERVICES:
        maker = getattr(clients, name)

        def noted(name: str = name, maker: Any = maker) -> Any:
            names.append(name)
            return maker()

        monkeypatch.setattr(clients, name, noted)
    know_domain(services.dynamodb)
    put_mailbox(services.dynamodb)
    services.start(monkeypatch, app)
    return names


def test_init_makes_what_every_delivered_mail_needs(made: list[str]) -> None:
    app.application()
    assert made == ["dynamodb", "s3"]


def test_without_stored_mail_it_is_one_client(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_BUCKET", "")
    app.handler(ses_event(ALICE), Context())
    assert made == ["dynamodb"]


def test_a_bounced_mail_needs_ses_and_no_queue(made: list[str]) -> None:
    app.handler(ses_event(NOBODY), Context())
    assert made == ["dynamodb", "s3", "ses"]


def test_a_failing_init_says_nothing_until_there_is_a_mail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BOUNCE_TABLE", raising=False)
    app.application.cache_clear()
    with pytest.raises(SettingsError, match="missing required field"):
        app.handler(ses_event(ALICE), Context())
