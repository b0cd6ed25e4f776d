"""Whatever an operator does first, nobody who writes to an existing mailbox is told that it is not
there, and no such mail stops."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from functions.inbound import app
from tests.fakes.bounces import NOBODY
from tests.integration.builders import (
    ALICE,
    MAILBOXES,
    Context,
    SesServer,
    put_mailbox,
    ses_event,
    stored,
)
from tests.integration.conftest import Services
from tests.integration.console.builders import file, mailbox

STEPS = ("import", "import breaks off", "empty", "observe", "enforce")


class Hour:
    """A stack as it is deployed first, and what its operator does to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, services: Services, boxes: Path) -> None:
        self._monkeypatch = monkeypatch
        self._dynamodb = services.dynamodb
        self._boxes = boxes
        self._mails = itertools.count()
        self._configure(**services.environment() | {"MODE": ""})

    def does(self, step: str) -> None:
        steps: dict[str, Callable[[], object]] = {
            "import": lambda: mailbox("import", self._boxes),
            "import breaks off": self._some_are_written,
            "empty": self._empty,
            "observe": lambda: self._configure(MODE="observe"),
            "enforce": lambda: self._configure(MODE="enforce"),
        }
        steps[step]()

    def mail(self, recipient: str) -> str:
        """How a mail to somebody ends, from a sender who has not written before."""
        number = next(self._mails)
        event = ses_event(
            recipient, message_id=f"msg{number}", sender=f"pat@sender{number}.example"
        )
        return app.handler(event, Context())["disposition"]

    def _configure(self, **variables: str) -> None:
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)
        app.application.cache_clear()

    def _some_are_written(self) -> None:
        """Domains' own entries are written last."""
        if not stored(self._dynamodb, MAILBOXES, address="@example.com"):
            put_mailbox(self._dynamodb, "postmaster@example.com")

    def _empty(self) -> None:
        """The domain first, as docs/mailboxes.md says."""
        for address in ("@example.com", ALICE, "postmaster@example.com"):
            if stored(self._dynamodb, MAILBOXES, address=address):
                mailbox("remove", address)


@pytest.fixture
def hour(
    monkeypatch: pytest.MonkeyPatch, services: Services, ses_server: SesServer, tmp_path: Path
) -> Hour:
    boxes = file(tmp_path, "boxes.csv", f"address\n{ALICE}\npostmaster@example.com\n")
    return Hour(monkeypatch, services, boxes)


@pytest.mark.parametrize("first", STEPS)
def test_in_whatever_order_no_sender_to_a_mailbox_is_told_anything(
    hour: Hour, ses_server: SesServer, first: str
) -> None:
    for rest in itertools.permutations([each for each in STEPS if each != first], 2):
        hour.does("observe")
        hour.does("empty")
        assert hour.mail(ALICE) == "CONTINUE"
        for step in (first, *rest):
            hour.does(step)
            assert hour.mail(ALICE) == "CONTINUE", (first, *rest)
    assert ses_server.calls == []


@pytest.mark.parametrize(
    ("steps", "disposition"),
    [
        (("import",), "CONTINUE"),
        (("enforce",), "CONTINUE"),
        (("import", "enforce"), "STOP_RULE_SET"),
        (("enforce", "import"), "STOP_RULE_SET"),
        (("enforce", "import breaks off"), "CONTINUE"),
        (("enforce", "import", "empty"), "CONTINUE"),
        (("enforce", "import", "observe"), "CONTINUE"),
    ],
)
def test_an_unknown_address_is_bounced_when_the_directory_is_filled_and_it_is_live(
    hour: Hour, ses_server: SesServer, steps: tuple[str, ...], disposition: str
) -> None:
    hour.does("observe")
    for step in steps:
        hour.does(step)
    assert hour.mail(NOBODY) == disposition
    assert bool(ses_server.calls) is (disposition != "CONTINUE")
