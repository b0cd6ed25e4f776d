"""What README and docs tell a reader to type is typed here, page by page, and works.

In a folder like a checkout, against an AWS on this machine that has what the README asks for
before it begins.
"""

import json
import shutil
import smtplib
import subprocess
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from local.stack import DOMAINS, MAILBOXES, Aws, outputs, running
from tests.e2e.conftest import Site
from tests.pages import ROOT, Block, all_blocks

# What has been done for the tests: this environment, and what `built` is.
_DONE = {"make setup", "make build"}
# A minute with a terminal in front of it; CI has a step for it, and its stories are test_stories.
_SHOWS = {"make demo"}
# Until Ctrl-C; other tests start them.
_STAYS = {"bouncer status --watch", "bouncer web"}

_COMMANDS = all_blocks("sh")


class Reader:
    """Somebody in a checkout, with a shell."""

    def __init__(self, folder: Path, aws: Aws) -> None:
        self.folder = folder
        self.aws = aws
        self._environment = aws.environment() | {"COLUMNS": "200", "TERM": "dumb"}

    def type(self, text: str, answer: str = "") -> "subprocess.CompletedProcess[str]":
        left_out = _DONE | _SHOWS | _STAYS
        lines = [
            line for line in text.splitlines() if line.partition("#")[0].strip() not in left_out
        ]
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
            cwd=self.folder,
            env=self._environment,
            input=answer,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )

    def mail(self, recipient: str) -> str:
        """The id that SES gives it, once the rules are through with it."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "pat@sender.example", recipient, "Hi"
        with smtplib.SMTP("127.0.0.1", self.aws.smtp_port, timeout=60) as client:
            client.ehlo("mx.sender.example")
            client.mail("pat@sender.example")
            client.rcpt(recipient)
            message_id = client.data(message.as_bytes())[1].decode().split()[-1]
        Site(aws=self.aws, outputs={}).trace(message_id)
        return message_id


@pytest.fixture(scope="module")
def reader(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if path.name not in (".aws-sam", ".local", ".git"):
            (folder / path.name).symlink_to(path)
    (folder / ".aws-sam").mkdir()
    shutil.copytree(built, folder / ".aws-sam" / "build")
    shutil.copy(MAILBOXES, folder / "mailboxes.csv")
    with running(outbox=tmp_path_factory.mktemp("outbox")) as aws:
        ses = aws.client("ses")
        for domain in (*DOMAINS, "bounce.example.com"):
            ses.verify_domain_identity(Domain=domain)
        ses.create_receipt_rule_set(RuleSetName="mail")
        yield Reader(folder, aws)


def _of(page: str) -> list[Block]:
    return [block for block in _COMMANDS if block.page == page]


def test_every_command_stands_on_a_page_that_is_typed_here() -> None:
    assert {block.page for block in _COMMANDS} == {
        "README.md",
        "local-aws.md",
        "mailboxes.md",
        "operations.md",
        "permissions.md",
        "upgrading.md",
        "web.md",
    }


def test_the_readme_leads_to_a_live_stack(reader: Reader) -> None:
    """Every command of it, in its order."""
    for block in _of("README.md"):
        done = reader.type(block.text, answer="y\n")
        assert done.returncode == 0, f"{block}: {done.stdout}"
    mode = reader.type("bouncer mode")
    assert "enforce" in mode.stdout, mode.stdout


def test_an_upgrade_is_deployed_as_the_first_version_was() -> None:
    (upgrading,) = _of("upgrading.md")
    assert upgrading.text in "".join(block.text for block in _of("README.md"))


def test_aws_on_this_machine_helps_itself(reader: Reader) -> None:
    for block in _of("local-aws.md"):
        done = reader.type(block.text)
        assert done.returncode == 0, done.stdout


def test_the_page_of_mailboxes_fills_a_directory(reader: Reader) -> None:
    dynamodb, table = reader.aws.client("dynamodb"), outputs(reader.aws)["MailboxTable"]
    for item in dynamodb.scan(TableName=table)["Items"]:
        dynamodb.delete_item(TableName=table, Key={"address": item["address"]})
    assert reader.type("bouncer mailbox add @example.com --no-catch-all --domain").returncode == 0
    assert reader.type("bouncer mailbox add bob@example.com").returncode == 0
    filling, syncing = _of("mailboxes.md")
    done = reader.type(filling.text)
    assert done.returncode == 0, done.stdout
    assert (reader.folder / "backup.csv").read_text().count("alice@example.com") == 1
    # The stack stops refused mail for every rule, as the page says; the command says how to go on.
    refused = reader.type(syncing.text)
    assert (refused.returncode, "StopScope=rule" in refused.stdout) == (1, True), refused.stdout


def test_the_page_of_operation_finds_redrives_and_bounces(reader: Reader) -> None:
    assert reader.type("bouncer mailbox add x@example.com").returncode == 0
    message_id = reader.mail("x@example.com")
    for block in _of("operations.md"):
        text = block.text.replace("MESSAGE_ID", message_id).replace("-id ID", f"-id {message_id}")
        done = reader.type(text, answer="y\n")
        assert done.returncode == 0, f"{block}: {done.stdout}"
    told = reader.aws.listing("bounces")[-1]["request"]["BouncedRecipientInfoList"]
    assert [each["Recipient"] for each in told] == ["x@example.com"]


def test_the_page_of_permissions_prints_policies(reader: Reader) -> None:
    for block in _of("permissions.md"):
        done = reader.type(block.text)
        assert done.returncode == 0, done.stdout
    policy = json.loads((reader.folder / "reader.json").read_text())
    named = [each for statement in policy["Statement"] for each in statement["Resource"]]
    assert any(outputs(reader.aws)["BounceTable"] in each for each in named)


def test_what_stays_until_it_is_ended_is_all_that_the_page_s_page_starts() -> None:
    assert {line for block in _of("web.md") for line in block.text.splitlines()} <= _STAYS
