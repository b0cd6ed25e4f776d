"""The command itself: what it needs, and how it says so."""

from pathlib import Path

import msgspec
import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from typer.testing import CliRunner

from bouncer.delivery.ledger import BounceState, LedgerEntry
from bouncer_console.main import app
from tests.fakes.bounces import NOBODY
from tests.integration.builders import ses_event
from tests.integration.console.builders import (
    NEED_A_STACK,
    Stack,
    bouncer,
    error_of,
    file,
    printed_json,
    settle,
    text_of,
)


@pytest.mark.parametrize("command", NEED_A_STACK, ids=lambda command: " ".join(command[:2]))
def test_a_stack_that_is_not_there_is_named_with_what_to_do(
    stack: Stack, command: list[str]
) -> None:
    complaint = error_of(*command, "--stack", "another")
    assert "Stack with id another does not exist; name yours with --stack" in complaint


@pytest.mark.parametrize("command", NEED_A_STACK, ids=lambda command: " ".join(command[:2]))
def test_a_stack_of_another_version_is_told_to_be_deployed_again(
    stack: Stack, command: list[str]
) -> None:
    stack.outputs.clear()
    # The stack at a glance says it of each part, and shows the others.
    said = text_of(*command) if command == ["status"] else error_of(*command)
    assert "has no output" in said
    assert "deploy it again" in said


def test_the_stack_may_be_named_by_the_environment(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOUNCER_STACK", "another")
    assert "Stack with id another" in error_of("mailbox", "list")


COMMANDS = [
    ["explain"],
    ["preview"],
    ["replay"],
    ["status"],
    ["find"],
    ["report"],
    ["redrive"],
    ["send-bounce"],
    ["adopt"],
    *(["policy", name] for name in ("check", "schema", "push")),
    *(
        ["mailbox", name]
        for name in (
            *("list", "show", "add", "set", "disable", "remove"),
            *("import", "export", "recount"),
        )
    ),
    *(["rules", name] for name in ("activate", "sync")),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    text = text_of(*command, "--help")
    assert "Usage" in text
    assert len(text) > 100


def test_no_command_at_all_shows_what_there_is() -> None:
    result = CliRunner().invoke(app, [])
    for name in {command[0] for command in COMMANDS}:
        assert name in result.output


def test_an_error_is_one_line_however_long_it_is() -> None:
    name = f"{'long' * 50}.toml"
    (line,) = bouncer("policy", "check", name, code=1).stderr.splitlines()
    assert name in line


def test_a_note_is_one_line_however_long_it_is(tmp_path: Path) -> None:
    event = file(tmp_path, "event.json", ses_event(NOBODY))
    (note,) = bouncer("explain", event).stderr.splitlines()
    assert note.startswith("No mailboxes were named")
    assert note.endswith("(see --mailboxes, --stack, --table).")


def test_the_json_of_every_state_can_be_read_back(stack: Stack, dynamodb: DynamoDBClient) -> None:
    for state in BounceState:
        settle(dynamodb, state, message_id=f"msg-{state}")
        (entry,) = printed_json("status", f"msg-{state}")["ledger"]
        assert msgspec.convert(entry, LedgerEntry).state is state
