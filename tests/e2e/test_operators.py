"""What docs/permissions.md allows an operator is what his command asks for, and enough.

Each command is run by a user of its own, who may do what `bouncer permissions` prints for it and
nothing else; AWS on this machine asks IAM about every request, and tells what it asked.
"""

import contextlib
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from bouncer.aws.slots import SLOTS_ITEM
from bouncer.aws.stack_key import stack_key
from bouncer.delivery.bounce import Bounce, BouncedRecipient, BounceType
from bouncer.delivery.queue import encode
from bouncer_console.deployment import Deployment
from bouncer_console.mail import REGION
from bouncer_console.permissions import PERMISSIONS, Arns, policy_document
from bouncer_console.web.pages import PAGES
from local.aws.gate import Credentials
from local.deployment import deployed
from local.stack import EVENTS, ROOT, RULE_SET, STACK
from local.web import page
from tests.e2e.conftest import Site


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """A user who may run one command."""

    site: Site
    name: str
    user: str
    folder: Path

    def run(self, *arguments: str, status: int = 0) -> str:
        """His command with these arguments; what it wrote on stdout."""
        environment = self.site.aws.environment()
        program = f"{environment['PATH'].split(os.pathsep)[0]}/bouncer"
        done = subprocess.run(
            [program, *self.name.split(), *arguments],
            cwd=ROOT,
            env=environment,
            input="y\n",
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An AWS of its own: what is changed here disturbs nobody."""
    with deployed(outbox=tmp_path_factory.mktemp("outbox")) as (aws, outputs):
        yield Site(aws=aws, outputs=outputs)


@pytest.fixture(scope="module")
def switched(site: Site) -> Site:
    """The same stack with a policy in AppConfig, rules to sync, and a log that names nobody."""
    return site.switch(StopScope="rule", PolicySource="appconfig", LogAddresses="none")


def operator(site: Site, command: str, folder: Path) -> Operator:
    iam, name = site.client("iam"), f"{command.replace(' ', '-')}-{secrets.token_hex(4)}"
    stack = Deployment(stack=STACK, region=REGION, outputs=site.outputs, parameters={})
    document = json.dumps(policy_document([command], Arns(STACK, stack)))
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="may", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    credentials = Credentials(
        access_key_id=key["AccessKeyId"], secret_access_key=key["SecretAccessKey"]
    )
    aws = msgspec.structs.replace(site.aws, credentials=credentials)
    return Operator(
        site=Site(aws=aws, outputs=site.outputs), name=command, user=name, folder=folder
    )


# --- What each of them does --------------------------------------------------------------------


def _mode(him: Operator) -> None:
    him.run("observe")
    him.run("enforce")


def _status(him: Operator, root: Site) -> None:
    him.run()
    root.client("sqs").send_message(
        QueueUrl=root.outputs["BounceDeadLetterQueue"], MessageBody="of no use"
    )
    him.run("never-existed", status=1)
    with _bounces_wait(root):
        message_id = _waiting(root)
        him.run(message_id)


def _redrive(him: Operator, root: Site) -> None:
    sqs = root.client("sqs")
    event = json.loads((EVENTS / "unknown-recipient.json").read_text())
    mail = event["Records"][0]["ses"]["mail"]
    mail["timestamp"] = datetime.now(UTC).isoformat()
    letters = {
        "EventDeadLetterQueue": json.dumps({"requestPayload": event}),
        "BounceDeadLetterQueue": _queued(root),
    }
    for queue, body in letters.items():
        sqs.send_message(QueueUrl=root.outputs[queue], MessageBody=body)
    him.run()
    tried = json.loads(him.run("--run", "--json"))["letters"]
    assert {each["kind"] for each in tried if each["result"]} == {"event", "bounce"}, tried


def _send_bounce(him: Operator, root: Site) -> None:
    message_id = root.mail("alice@example.com")
    root.trace(message_id)
    arguments = [
        *("--original-message-id", message_id),
        *("--bounce-sender", "mailer-daemon@example.com", "--explanation", "She has left."),
        "--bounced-recipient-info-list",
        "Recipient=alice@example.com,RecipientDsnFields={Action=failed,Status=5.1.6}",
    ]
    him.run(*arguments)
    with _bounces_wait(root):
        him.run(*[each.replace("alice@", "bob@") for each in arguments])


def _web(him: Operator) -> None:
    with page(him.site.aws) as address, httpx.Client(trust_env=False, timeout=60) as browser:
        base = address.partition("?")[0]
        assert browser.get(address).status_code == 303
        for each in PAGES:
            text = browser.get(base.rstrip("/") + each.path, follow_redirects=True).text
            assert "AccessDenied" not in text, each.path


def _drop(him: Operator, root: Site) -> None:
    with _bounces_wait(root):
        _waiting(root, sender="eve@evil.example")
        him.run("--domain", "evil.example", "--run")


def _import(him: Operator) -> None:
    file = him.folder / "some.csv"
    file.write_text("address,quota_bytes\nnew@example.com,1000\nbob@example.com,1000\n")
    him.run(str(file))


def _recount(him: Operator, root: Site) -> None:
    message_id = root.mail("alice@example.com")
    root.trace(message_id)
    dynamodb, key = root.client("dynamodb"), {"address": {"S": "alice@example.com"}}
    dynamodb.update_item(
        TableName=root.outputs["MailboxTable"],
        Key=key,
        UpdateExpression="SET used_bytes = :n",
        ExpressionAttributeValues={":n": {"N": "7"}},
    )
    him.run("--apply")


def _adopt(him: Operator, root: Site) -> None:
    dynamodb, old = root.client("dynamodb"), f"{STACK}-BounceTable-OLD"
    described = dynamodb.describe_table(TableName=root.outputs["BounceTable"])["Table"]
    dynamodb.create_table(
        TableName=old,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=described["AttributeDefinitions"],
        KeySchema=described["KeySchema"],
    )
    dynamodb.put_item(TableName=old, Item={"pk": {"S": "message#old"}, "sk": {"S": "mail"}})
    him.run(old)
    dynamodb.delete_table(TableName=old)


def _activate(him: Operator, root: Site) -> None:
    root.client("ses").create_receipt_rule_set(RuleSetName="other")
    him.run("other", "--replace")
    him.run(RULE_SET, "--replace")


SCENES: dict[str, Callable[[Operator, Site], object]] = {
    "explain": lambda him, _: him.run(str(EVENTS / "too-large.json"), "--stack", STACK),
    "preview": lambda him, _: him.run(str(EVENTS / "unknown-recipient.json"), "--stack", STACK),
    "replay": lambda him, _: him.run(str(EVENTS), "--stack", STACK),
    "doctor": lambda him, _: him.run(),
    "mode": lambda him, _: _mode(him),
    "try": lambda him, _: him.run("--from", "alice@example.com", "--wait", "60"),
    "status": _status,
    "find": lambda him, _: him.run("alice@example.com"),
    "report": lambda him, _: him.run("--hash-addresses"),
    "redrive": _redrive,
    "send-bounce": _send_bounce,
    "web": lambda him, _: _web(him),
    "permissions": lambda him, _: him.run("status"),
    "queue": lambda him, _: him.run(),
    "queue drop": _drop,
    "policy check": lambda him, _: him.run("--stack", STACK),
    "mailbox list": lambda him, _: him.run(),
    "mailbox show": lambda him, _: him.run("alice@example.com"),
    "mailbox check": lambda him, _: him.run(),
    "mailbox add": lambda him, _: him.run("kim@new.example.com", "--domain"),
    "mailbox set": lambda him, _: him.run("bob@example.com", "--quota", "1 MB"),
    "mailbox disable": lambda him, _: him.run("bob@example.com"),
    "mailbox enable": lambda him, _: him.run("bob@example.com"),
    "mailbox remove": lambda him, _: him.run("kim@new.example.com"),
    "mailbox import": lambda him, _: _import(him),
    "mailbox export": lambda him, _: him.run(),
    "mailbox recount": _recount,
    "adopt": _adopt,
    "rules activate": _activate,
    "rules filter add": lambda him, _: him.run("192.0.2.77"),
    "rules filter list": lambda him, _: him.run(),
    "rules filter remove": lambda him, _: him.run("192.0.2.77"),
}

SWITCHED: dict[str, Callable[[Operator, Site], object]] = {
    "find": lambda him, _: him.run("pat@sender.example"),
    "policy push": lambda him, _: him.run(),
    "policy purge": lambda him, _: him.run("--yes"),
    "rules sync": lambda him, _: him.run("--yes"),
}

# A policy in AppConfig; the records of mails that are half an hour old.
_DOCTOR = {
    "appconfig:GetLatestConfiguration",
    "appconfig:StartConfigurationSession",
    "dynamodb:Query",
}
NOT_ASKED_FOR_HERE = {
    "status": {"s3:ListBucket"},  # S3's own question: is it not there, or not for him?
    # An interrupted query, a log with hashes, a mail whose bounce is under way.
    "find": {"logs:StopQuery", "dynamodb:GetItem", "dynamodb:Query"},
    "report": {"logs:StopQuery"},
    "doctor": _DOCTOR,
    "mode": _DOCTOR,
    # More than 500 addresses, and fewer again.
    "rules sync": {"ses:CreateReceiptRule", "ses:DeleteReceiptRule"},
}
"""What a command asks for in a case that does not come up here."""
ONLY_LOOKED_AT = {"web"}
"""Whose changes are those of other commands."""


@pytest.mark.parametrize("command", SCENES)
def test_a_command_needs_what_is_listed_for_it_and_no_more(
    site: Site, command: str, tmp_path: Path
) -> None:
    him = operator(site, command, tmp_path)
    SCENES[command](him, site)
    _compare(site, him, whole=command not in SWITCHED.keys() | ONLY_LOOKED_AT)


@pytest.mark.parametrize("command", SWITCHED)
def test_so_does_a_command_that_needs_another_stack(
    switched: Site, command: str, tmp_path: Path
) -> None:
    him = operator(switched, command, tmp_path)
    SWITCHED[command](him, switched)
    _compare(switched, him, whole=True)


def test_every_command_is_tried() -> None:
    assert SCENES.keys() | SWITCHED.keys() == PERMISSIONS.keys()


def _compare(site: Site, him: Operator, *, whole: bool) -> None:
    """
    Args:
        whole: whether he did all that his command can do.
    """
    asked = [each for each in site.aws.listing("permissions") if each["caller"] == him.user]
    denied = {(each["action"], each["resource"]) for each in asked if not each["allowed"]}
    assert denied == set()
    listed = {
        action
        for may in PERMISSIONS[him.name]
        if not may.by_cloudformation
        for action in may.actions
    }
    if whole:
        missing = listed - {each["action"] for each in asked}
        assert missing == NOT_ASKED_FOR_HERE.get(him.name, set())


# --- What stands in the stack meanwhile --------------------------------------------------------


@contextlib.contextmanager
def _bounces_wait(site: Site) -> Iterator[None]:
    """No slot is near, and no worker is there."""
    lambda_, dynamodb = site.client("lambda"), site.client("dynamodb")
    (worker,) = lambda_.list_event_source_mappings(FunctionName=site.physical_id("SendFunction"))[
        "EventSourceMappings"
    ]

    def next_slot(when: float) -> None:
        item: Any = SLOTS_ITEM | {"next_slot": {"N": f"{when:.3f}"}}
        dynamodb.put_item(TableName=site.outputs["PaceTable"], Item=item)

    lambda_.update_event_source_mapping(UUID=worker["UUID"], Enabled=False)
    next_slot(time.time() + 600)
    try:
        yield
    finally:
        next_slot(time.time())
        lambda_.update_event_source_mapping(UUID=worker["UUID"], Enabled=True)


def _waiting(site: Site, sender: str = "pat@sender.example") -> str:
    """The id of a mail whose bounce is in the queue."""
    message_id = site.mail("nobody@example.com", sender=sender)
    site.trace(message_id)
    return message_id


def _queued(site: Site) -> str:
    message_id = site.mail("alice@example.com")
    site.trace(message_id)
    recipient = BouncedRecipient(
        recipient="alice@example.com", reason="test", bounce_type=BounceType.EXCEEDED_QUOTA
    )
    bounce = Bounce(
        message_id=message_id,
        received_at=datetime.now(UTC),
        bounce_sender="mailer-daemon@example.com",
        recipients=(recipient,),
    )
    return encode(bounce, stack_key(site.client("dynamodb"), site.outputs["BounceTable"]))
