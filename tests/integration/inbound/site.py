"""The function that the receipt rule calls, deployed into the test process."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from functions.inbound import app
from tests.fakes.bounces import NOBODY
from tests.integration.builders import (
    Answer,
    Context,
    SesServer,
    bodies,
    entry_of,
    fail,
    reserve_until,
    ses_event,
)
from tests.integration.conftest import Printed, Services


class Site:
    """The deployed function, as these tests see it."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        services: Services,
        ses: SesServer,
        printed: Printed,
    ) -> None:
        self.dynamodb, self.s3, self.sqs = services
        self.ses = ses
        self.printed = printed
        self.bounce_queue = services.queue("bounces")
        self.event_queue = services.queue("events")
        self._monkeypatch = monkeypatch
        self.delays: list[int] = []
        """Of what was put into a queue; it is there at once all the same."""
        events: Any = self.sqs.meta.events
        events.register("before-parameter-build.sqs.SendMessage", self._without_delay)
        self.configure(**services.environment())

    def configure(self, **variables: str) -> None:
        """A cold start with these variables, beside those that are set."""
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)
        app.application.cache_clear()

    def handle(self, event: Any, **context: Any) -> str:
        answer: dict[str, str] = app.handler(event, Context(**context))
        assert set(answer) == {"disposition"}
        return answer["disposition"]

    def mail(self, *recipients: str, **fields: Any) -> str:
        return self.handle(ses_event(*recipients, **fields))

    def _without_delay(self, params: dict[str, Any], **_: Any) -> None:
        self.delays.append(params.pop("DelaySeconds", 0))

    def limiter_is_busy_for(self, seconds: float) -> None:
        reserve_until(self.dynamodb, datetime.now(UTC).timestamp() + seconds)

    def state(self, recipient: str = NOBODY, message_id: str = "msg1") -> str | None:
        return entry_of(self.dynamodb, message_id, recipient).get("state")

    @property
    def queued(self) -> list[Any]:
        return bodies(self.sqs, self.bounce_queue)

    @property
    def kept(self) -> list[Any]:
        return bodies(self.sqs, self.event_queue)


def break_directory(site: Site) -> None:
    fail(site.dynamodb, "BatchGetItem", Answer(code="InternalServerError", status=500))


def break_ledger_and_budgets(site: Site) -> None:
    fail(site.dynamodb, "UpdateItem", *[Answer(code="InternalServerError", status=500)] * 10)


def break_queue(site: Site) -> None:
    site.limiter_is_busy_for(60)
    fail(site.sqs, "SendMessage", EndpointConnectionError(endpoint_url="https://sqs"))


BREAKS = {
    "directory": break_directory,
    "ledger and budgets": break_ledger_and_budgets,
    "queue": break_queue,
}
DROP_EVERYTHING = {"version": 1, "rules": [{"name": "nothing-today", "action": "drop"}]}
TO_THE_MAILBOX = {
    "version": 1,
    "rules": [
        {
            "name": "told",
            "action": "bounce",
            "recipient_dsn_fields": {"status": "5.1.1", "final_recipient": "{recipient}"},
        }
    ],
}


class AppConfig:
    """A stand-in for AppConfig's client, with one policy."""

    def __init__(self, policy: dict[str, Any] = DROP_EVERYTHING) -> None:
        self._policy = policy

    @classmethod
    def that_serves(cls, policy: dict[str, Any]) -> Callable[[], "AppConfig"]:
        return lambda: cls(policy)

    def start_configuration_session(self, **_: str) -> dict[str, Any]:
        return {"InitialConfigurationToken": "token"}

    def get_latest_configuration(self, **_: str) -> dict[str, Any]:
        return {"Configuration": self, "NextPollConfigurationToken": "token"}

    def read(self) -> bytes:
        return json.dumps(self._policy).encode()
