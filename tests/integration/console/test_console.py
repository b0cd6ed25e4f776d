"""`bouncer`, command by command: what it prints, what it does, and how it says no."""

import json
import re
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_string
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import msgspec
import pytest
from botocore.exceptions import ClientError
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_s3 import S3Client
from mypy_boto3_ses import SESClient
from mypy_boto3_sqs import SQSClient
from typer.testing import CliRunner, Result

from bouncer.aws import receipt_rules
from bouncer.aws.ledger import DynamoLedger
from bouncer.aws.usage import DynamoUsage
from bouncer.delivery.bounce import STATUS, BounceType
from bouncer.delivery.ledger import BounceState, LedgerEntry
from bouncer.delivery.queue import encode
from bouncer.mailboxes import Mailbox
from bouncer.policy.file import validator_schema
from bouncer_console import deployment
from bouncer_console.main import app
from local.stories import STORIES, Story
from tests.integration.builders import (
    ALICE,
    BOUNCE_SENDER,
    BOUNCES,
    BUCKET,
    MAILBOXES,
    NOBODY,
    PREFIX,
    SesServer,
    bodies,
    bounce,
    create_mailbox_table,
    entry_of,
    item,
    mailbox_of,
    no_response,
    put_mail,
    put_mailbox,
    ses_event,
    stored,
)
from tests.integration.conftest import Services

ROOT = Path(__file__).resolve().parents[2]
EVENTS = ROOT / "events"
SHIPPED = ROOT / "functions" / "inbound" / "policy.toml"
STACK = "ses-bouncer"


@pytest.fixture(autouse=True)
def _at_the_projects_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a person types the command: the default policy is found from there."""
    monkeypatch.chdir(ROOT)


def bouncer(*arguments: str | Path, code: int = 0, typed: str | None = None) -> Result:
    """Run the command; it has to end with this exit status, and never with a traceback."""
    result = CliRunner().invoke(app, [str(each) for each in arguments], input=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def printed_json(*arguments: str | Path, code: int = 0) -> Any:
    """What the command prints with --json: one value and nothing else."""
    return json.loads(bouncer(*arguments, "--json", code=code).stdout)


def error_of(*arguments: str | Path, code: int = 1, typed: str | None = None) -> str:
    """The command's complaint on stderr, unwrapped."""
    result = bouncer(*arguments, code=code, typed=typed)
    assert "Traceback" not in result.stderr
    return " ".join(result.stderr.split())


def text_of(*arguments: str | Path) -> str:
    return " ".join(bouncer(*arguments).stdout.split())


def file(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


POLICY = """
version = 1
[[rules]]
name = "unknown-recipient"
when.mailbox = "unknown"
action = "bounce"
bounce_type = "DoesNotExist"
[[rules]]
name = "accept"
action = "accept"
"""
LATIN_1 = POLICY.encode() + "# café\n".encode("latin-1")
DROPS = POLICY.replace('"bounce"\nbounce_type = "DoesNotExist"', '"drop"')


# --- explain, preview, replay ----------------------------------------------------------------


def test_explain_prints_one_object_of_the_documented_shape() -> None:
    explained = printed_json("explain", EVENTS / "several-recipients.json")
    assert explained == {
        "message_id": explained["message_id"],
        "disposition": "CONTINUE",
        "suppressed": None,
        "recipients": [
            {
                "recipient": "nobody@example.com",
                "outcome": "bounce",
                "reason": "unknown-recipient",
                "bounce_type": "DoesNotExist",
                "status": "5.1.1",
                "dry_run": False,
            },
            {
                "recipient": "full@example.com",
                "outcome": "bounce",
                "reason": "over-quota",
                "bounce_type": "ExceededQuota",
                "status": "5.2.2",
                "dry_run": False,
            },
            {
                "recipient": "alice@example.com",
                "outcome": "accept",
                "reason": "accept",
                "bounce_type": None,
                "status": None,
                "dry_run": False,
            },
        ],
        "send_bounce": explained["send_bounce"],
    }
    assert explained["send_bounce"]["OriginalMessageId"] == explained["message_id"]
    assert [
        (each["Recipient"], each["BounceType"])
        for each in explained["send_bounce"]["BouncedRecipientInfoList"]
    ] == [("nobody@example.com", "DoesNotExist"), ("full@example.com", "ExceededQuota")]


def test_explain_prints_a_list_for_an_event_of_several_records(tmp_path: Path) -> None:
    events = [ses_event(ALICE, message_id="msg1"), ses_event(NOBODY, message_id="msg2")]
    event = {"Records": [record for each in events for record in each["Records"]]}
    explained = printed_json("explain", file(tmp_path, "event.json", event))
    assert [(each["message_id"], each["recipients"][0]["recipient"]) for each in explained] == [
        ("msg1", ALICE),
        ("msg2", NOBODY),
    ]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_explain_says_of_every_story_how_it_comes_out(story: Story) -> None:
    explained = printed_json("explain", EVENTS / f"{story.name}.json")
    assert (explained["disposition"], explained["suppressed"]) == (
        story.disposition,
        story.suppressed,
    )
    assert [
        (each["recipient"], each["outcome"], each["reason"], each["bounce_type"])
        for each in explained["recipients"]
    ] == [(each.recipient, each.outcome, each.reason, each.bounce_type) for each in story.expected]
    assert (explained["send_bounce"] is not None) == bool(story.bounced)


def test_explain_reads_a_mail_as_ses_would_deliver_it() -> None:
    explained = printed_json(
        "explain",
        EVENTS / "accepted.eml",
        "--mail-from",
        "pat@sender.example",
        "--rcpt-to",
        ALICE,
        "--rcpt-to",
        NOBODY,
    )
    assert [(each["recipient"], each["outcome"]) for each in explained["recipients"]] == [
        (ALICE, "accept"),
        (NOBODY, "bounce"),
    ]


@pytest.fixture
def shouted(tmp_path: Path) -> Path:
    """A mail whose file name is in capitals, as other systems write it."""
    return file(tmp_path, "MAIL.EML", (EVENTS / "accepted.eml").read_bytes())


def test_a_mails_suffix_may_be_in_any_case(shouted: Path) -> None:
    explained = printed_json("explain", shouted, "--rcpt-to", NOBODY)
    assert explained["recipients"][0]["recipient"] == NOBODY
    assert printed_json("replay", shouted.parent)["mails"] == 1


def test_the_size_of_a_mail_is_its_files_whatever_the_suffixs_case(shouted: Path) -> None:
    boxes = file(shouted.parent, "mailboxes.csv", f"address,size_limit_bytes\n{ALICE},1\n")
    result = bouncer("explain", shouted, "--rcpt-to", ALICE, "--mailboxes", boxes, "--json")
    assert json.loads(result.stdout)["recipients"][0]["reason"] == "too-large"
    assert "The size is not in an event" not in result.stderr


@pytest.mark.parametrize("command", ["explain", "preview"])
def test_a_mail_that_names_nobody_needs_a_recipient(tmp_path: Path, command: str) -> None:
    path = file(tmp_path, "mail.eml", "From: pat@sender.example\r\nSubject: Hello\r\n\r\nBody")
    complaint = error_of(command, path)
    assert "mail.eml names nobody in To or Cc: say who with --rcpt-to" in complaint
    bouncer(command, path, "--rcpt-to", NOBODY)


@pytest.mark.parametrize("mail_from", ["<>", ""])
def test_explain_knows_the_null_sender_of_a_mail(mail_from: str) -> None:
    explained = printed_json(
        "explain", EVENTS / "unknown-recipient.eml", "--mail-from", mail_from, "--rcpt-to", NOBODY
    )
    assert (explained["suppressed"], explained["send_bounce"]) == ("null-sender", None)


def test_explain_shows_a_person_which_rule_decided_and_why_the_others_did_not() -> None:
    text = text_of("explain", EVENTS / "over-quota.json")
    for part in ("over-quota", "when.mailbox", "ExceededQuota", "SendBounce", "STOP_RULE_SET"):
        assert part in text


def test_explain_shows_a_person_which_guard_stopped_the_bounce() -> None:
    text = text_of("explain", EVENTS / "null-sender.json")
    assert "suppressed by null-sender (RFC 5321" in text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--size", "30000000"], "too-large"),
        (["--size", "100"], "accept"),
        (["--now", "2099-01-01T12:00:00"], "accept"),
    ],
)
def test_explain_takes_facts_from_its_options(options: list[str], reason: str) -> None:
    explained = printed_json("explain", EVENTS / "accepted.json", *options)
    assert explained["recipients"][0]["reason"] == reason


@pytest.mark.parametrize(
    ("now", "suppressed"),
    [
        ("2099-01-02T11:00:00", None),
        ("2099-01-02T11:00:00Z", None),
        ("2099-01-02T13:30:00+02:00", None),
        ("2099-01-02T11:30:00-02:00", "window-closed"),
        ("2099-01-03", "window-closed"),
    ],
)
def test_explain_pretends_that_it_is_then(now: str, suppressed: str | None) -> None:
    event = EVENTS / "unknown-recipient.json"
    assert printed_json("explain", event, "--now", now)["suppressed"] == suppressed


@pytest.mark.parametrize(
    "command",
    [
        ["explain", "event.json", "--now"],
        ["replay", "event.json", "--now"],
        ["mailbox", "disable", ALICE, "--until"],
        ["send-bounce", "--received-at"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("text", ["noon", "2026-13-01", "21.11.2026"])
def test_a_time_that_is_none_is_refused_with_how_to_write_it(command: list[str], text: str) -> None:
    complaint = error_of(*command, text, code=2)
    assert f"'{text}' is not ISO 8601" in complaint
    assert command[-1] in complaint


def test_explain_uses_the_stacks_bounce_sender() -> None:
    explained = printed_json(
        "explain", EVENTS / "unknown-recipient.json", "--bounce-sender", "bounces@example.org"
    )
    assert explained["send_bounce"]["BounceSender"] == "bounces@example.org"


def test_explain_takes_another_policy_and_other_mailboxes(tmp_path: Path) -> None:
    explained = printed_json(
        "explain",
        EVENTS / "unknown-recipient.json",
        "--policy",
        file(tmp_path, "policy.toml", DROPS),
        "--mailboxes",
        file(tmp_path, "mailboxes.json", [{"address": ALICE}]),
    )
    assert explained["recipients"][0]["outcome"] == "drop"


def test_explain_asks_a_table(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, NOBODY)
    event = EVENTS / "unknown-recipient.json"
    explained = printed_json("explain", event, "--table", MAILBOXES)
    assert explained["recipients"][0]["outcome"] == "accept"


def test_explain_says_when_nobody_told_it_a_mailbox_or_the_size(tmp_path: Path) -> None:
    event = file(tmp_path, "event.json", ses_event(ALICE))
    assert "every recipient is unknown" in bouncer("explain", event).stderr
    boxes = file(tmp_path, "boxes.json", [{"address": ALICE}])
    hint = bouncer("explain", event, "--mailboxes", boxes).stderr
    assert "The size is not in an event" in hint


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("event.json", "not JSON", "is not JSON"),
        ("event.json", {"Records": []}, "not an SES receipt event"),
        ("event.json", [1, 2], "not an SES receipt event"),
        ("event.json", {"Records": [{"ses": {"mail": {}}}]}, "missing required field"),
    ],
)
@pytest.mark.parametrize("command", ["explain", "preview"])
def test_an_event_that_cannot_be_read_is_named(
    tmp_path: Path, command: str, name: str, content: Any, complaint: str
) -> None:
    assert complaint in error_of(command, file(tmp_path, name, content))


@pytest.mark.parametrize("command", ["explain", "preview", "replay"])
def test_a_file_that_is_not_there_is_named(command: str) -> None:
    assert "nowhere.json" in error_of(command, "nowhere.json")


@pytest.mark.parametrize("command", ["explain", "preview", "replay"])
def test_a_bad_policy_is_named(tmp_path: Path, command: str) -> None:
    policy = file(tmp_path, "bad.toml", "version = 7")
    event = EVENTS / "accepted.json"
    assert "bad.toml" in error_of(command, event, "--policy", policy)


@pytest.mark.parametrize("command", ["explain", "preview", "replay"])
def test_a_policy_that_is_not_utf_8_is_named(tmp_path: Path, command: str) -> None:
    policy = file(tmp_path, "bad.toml", LATIN_1)
    complaint = error_of(command, EVENTS / "accepted.json", "--policy", policy)
    assert f"{policy} is not UTF-8: save it as UTF-8" in complaint


@pytest.mark.parametrize("command", ["explain", "preview", "replay"])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("address,quota\na@example.com,5\n", "entry 1: no field is called quota"),
        ("address\nalice\n", "entry 1: address"),
        (b"address\ncaf\xe9@example.com\n", "is not UTF-8"),
    ],
)
def test_mailboxes_that_are_wrong_are_named(
    tmp_path: Path, command: str, content: str | bytes, complaint: str
) -> None:
    boxes = file(tmp_path, "boxes.csv", content)
    told = error_of(command, EVENTS / "unknown-recipient.json", "--mailboxes", boxes)
    assert str(boxes) in told
    assert complaint in told


@pytest.mark.parametrize("command", ["explain", "preview"])
def test_a_bounce_that_ses_would_refuse_is_named(command: str) -> None:
    event = EVENTS / "unknown-recipient.json"
    complaint = error_of(command, event, "--bounce-sender", "bänce@example.com")
    assert "bounce_sender" in complaint


def test_the_malformed_story_is_told_what_it_lacks() -> None:
    assert "receipt" in error_of("explain", EVENTS / "malformed.json")


def test_preview_prints_the_dsn_as_the_sender_gets_it() -> None:
    dsn = message_from_string(bouncer("preview", EVENTS / "several-recipients.json").stdout)
    assert dsn.get_content_type() == "multipart/report"
    assert "pat@sender.example" in dsn["To"]
    (status,) = [
        part for part in dsn.walk() if part.get_content_type() == "message/delivery-status"
    ]
    blocks: Any = status.get_payload()
    assert [block["Status"] for block in blocks[1:]] == ["5.1.1", "5.2.2"]


@pytest.mark.parametrize(
    ("story", "why"), [("accepted", "none decided"), ("null-sender", "null-sender")]
)
def test_preview_of_what_sends_nothing_says_so(story: str, why: str) -> None:
    assert f"no bounce is sent ({why})" in error_of("preview", EVENTS / f"{story}.json")


def test_replay_sums_up_by_reason(tmp_path: Path) -> None:
    file(tmp_path, "one.json", ses_event(NOBODY, ALICE))
    file(tmp_path, "two.json", ses_event(NOBODY, sender="<>"))
    file(tmp_path, "mailboxes.csv", f"address\n{ALICE}\n")
    report = printed_json("replay", tmp_path)
    counted = {"outcome": "bounce", "reason": "unknown-recipient"}
    assert report == {
        "mails": 2,
        "unreadable": [],
        "recipients": [
            {"outcome": "accept", "reason": "accept", "suppressed": None, "count": 1},
            {**counted, "suppressed": None, "count": 1},
            {**counted, "suppressed": "null-sender", "count": 1},
        ],
        "changes": None,
    }


def test_replay_against_another_policy_shows_whose_outcome_changes(tmp_path: Path) -> None:
    event = file(tmp_path, "one.json", ses_event(NOBODY, ALICE))
    report = printed_json(
        "replay",
        event,
        "--policy",
        file(tmp_path, "old.toml", POLICY),
        "--against",
        file(tmp_path, "new.toml", DROPS),
        "--mailboxes",
        file(tmp_path, "boxes.json", [{"address": ALICE}]),
    )
    assert report["changes"] == [
        {
            "file": str(event),
            "recipient": NOBODY,
            "was": "bounce unknown-recipient",
            "becomes": "drop unknown-recipient",
        }
    ]


def test_replay_of_the_same_policy_changes_nobody() -> None:
    report = printed_json("replay", EVENTS, "--against", SHIPPED)
    assert report["changes"] == []


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "JSON"])
def test_replay_of_nothing_readable_fails_and_says_why(tmp_path: Path, options: list[str]) -> None:
    file(tmp_path, "one.json", "not JSON")
    file(tmp_path, "two.eml", "Subject: nobody's\r\n\r\n")
    printed = bouncer("replay", tmp_path, *options, code=1).stdout
    for part in ("one.json is not JSON", "two.eml names nobody in To or Cc"):
        assert part in printed


def test_replay_goes_on_past_what_cannot_be_read() -> None:
    report = printed_json("replay", EVENTS)
    assert report["mails"] == len(STORIES)
    (unreadable,) = report["unreadable"]
    assert unreadable["file"].endswith("malformed.json")


# --- policy ----------------------------------------------------------------------------------


def test_the_shipped_policy_is_good() -> None:
    assert printed_json("policy", "check") == {"ok": True, "errors": [], "warnings": []}
    assert "is a good policy" in text_of("policy", "check")


def test_a_bad_policy_is_refused_with_every_mistake(tmp_path: Path) -> None:
    bad = POLICY.replace('"DoesNotExist"', '"DoesNotExist"\nexplanation = "{recepient}"').replace(
        '"accept"\naction', '"accept"\nwhen.spam = "MAYBE"\naction'
    )
    path = file(tmp_path, "policy.toml", bad)
    report = printed_json("policy", "check", path, code=1)
    assert (report["ok"], report["warnings"]) == (False, [])
    assert len(report["errors"]) >= 2
    assert all(str(path) in each for each in report["errors"])
    complaint = error_of("policy", "check", path)
    assert "{recepient}" in complaint


@pytest.mark.parametrize(
    ("content", "mend"),
    [
        ("version = ", "cannot be read"),
        (POLICY.replace("when.mailbox", "when.mailbx"), "did you mean `mailbox`?"),
        (POLICY.replace("when.mailbox", "wen.mailbox"), "did you mean `when`?"),
    ],
)
def test_a_mistake_comes_with_its_mend(tmp_path: Path, content: str, mend: str) -> None:
    assert mend in error_of("policy", "check", file(tmp_path, "policy.toml", content))


def test_what_can_hardly_be_meant_is_a_warning_and_no_error(tmp_path: Path) -> None:
    twice = POLICY.replace('name = "accept"', 'name = "accept-known"\nwhen.mailbox = "unknown"')
    last = '\n[[rules]]\nname = "accept"\naction = "accept"\n'
    path = file(tmp_path, "policy.toml", twice + last)
    report = printed_json("policy", "check", path)
    assert report["ok"]
    (warning,) = report["warnings"]
    assert "never decides" in warning
    assert "warning:" in bouncer("policy", "check", path).stdout


def test_a_policy_to_check_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path, "policy.toml", LATIN_1)
    report = printed_json("policy", "check", path, code=1)
    assert report["errors"] == [f"{path} is not UTF-8: save it as UTF-8"]


def test_a_policy_that_is_not_there_is_named() -> None:
    assert "nowhere.toml" in error_of("policy", "check", "nowhere.toml")


def test_the_schema_takes_the_shipped_policy_and_refuses_another_version() -> None:
    schema = json.loads(bouncer("policy", "schema").stdout)
    policy = tomllib.loads(SHIPPED.read_text())
    jsonschema.validate(policy, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**policy, "version": 2}, schema)


def test_the_validators_schema_is_one_line() -> None:
    (line,) = bouncer("policy", "schema", "--validator").stdout.splitlines()
    assert json.loads(line) == validator_schema()


# --- A deployed stack ------------------------------------------------------------------------


class Lambda:
    """Lambda's client: it notes what a function was invoked with, and answers as told."""

    def __init__(self) -> None:
        self.invoked: list[tuple[str, Any]] = []
        self.error: str | None = None
        self.answer = '{"disposition":"STOP_RULE_SET"}'

    def invoke(self, FunctionName: str, Payload: str) -> dict[str, Any]:  # noqa: N803  (boto3's)
        self.invoked.append((FunctionName, json.loads(Payload)))
        failed = {"FunctionError": self.error} if self.error else {}
        return {"Payload": BytesIO(self.answer.encode()), **failed}


class Stack:
    """The stack as CloudFormation tells of it."""

    def __init__(self, dead_letters: str, events: str, bounces: str) -> None:
        self.bounce_queue = bounces
        self.dead_letters = dead_letters
        self.events = events
        self.lambda_ = Lambda()
        self.hooks: list[tuple[str, str, Callable[..., Any]]] = []
        """Service, event and handler, for the clients that a command makes."""
        self.outputs = {
            "InboundFunction": "arn:function",
            "MailboxTable": MAILBOXES,
            "BounceTable": BOUNCES,
            "MailBucket": BUCKET,
            "MailPrefix": PREFIX,
            "BounceQueue": bounces,
            "BounceDeadLetterQueue": dead_letters,
            "EventDeadLetterQueue": events,
            "ReceiptRuleSet": "inbound",
            "ReceiptRule": "ses-bouncer",
            "Usage": "managed",
        }
        self.parameters = {"SendIntervalSeconds": "1"}

    def describe_stacks(self, StackName: str) -> dict[str, Any]:  # noqa: N803  (boto3's)
        if StackName != STACK:
            message = f"Stack with id {StackName} does not exist"
            error: Any = {"Error": {"Code": "ValidationError", "Message": message}}
            raise ClientError(error, "DescribeStacks")
        outputs = [{"OutputKey": k, "OutputValue": v} for k, v in self.outputs.items()]
        given = [{"ParameterKey": k, "ParameterValue": v} for k, v in self.parameters.items()]
        return {"Stacks": [{"Outputs": outputs, "Parameters": given}]}


def _do_not_wait(params: dict[str, Any], **_: Any) -> None:
    params["WaitTimeSeconds"] = 0


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

    def client(service: str, region: str | None) -> Any:
        if service == "cloudformation":
            return site
        if service == "lambda":
            return site.lambda_
        made = real(service, region)
        for wanted, event, handler in site.hooks:
            if wanted == service:
                made.meta.events.register(event, handler)
        return made

    monkeypatch.setattr(deployment, "client", client)
    return site


NEED_A_STACK = [
    ["status", "msg1"],
    ["redrive"],
    ["policy", "push"],
    ["mailbox", "list"],
    ["mailbox", "recount"],
    ["rules", "sync"],
    [
        "send-bounce",
        "--original-message-id=msg1",
        f"--bounce-sender={BOUNCE_SENDER}",
        f"--bounced-recipient-info-list=Recipient={NOBODY},BounceType=DoesNotExist",
    ],
]


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
    assert "has no output" in error_of(*command)


def test_the_stack_may_be_named_by_the_environment(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOUNCER_STACK", "another")
    assert "Stack with id another" in error_of("mailbox", "list")


# --- policy push -----------------------------------------------------------------------------


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


def test_a_policy_is_stored_and_deployed(
    stack: Stack, deployed_policies: list[dict[str, Any]]
) -> None:
    assert "is version 1 of the policy of ses-bouncer" in text_of("policy", "push")
    (started,) = deployed_policies
    assert started["environment"] == "live-env"
    assert started["ConfigurationVersion"] == "1"
    stored = boto3.client("appconfig").get_hosted_configuration_version(
        ApplicationId=stack.outputs["PolicyApplication"],
        ConfigurationProfileId=stack.outputs["PolicyProfile"],
        VersionNumber=1,
    )
    content = json.loads(stored["Content"].read())
    assert stored["ContentType"] == "application/json"
    jsonschema.Draft4Validator(validator_schema()).validate(content)
    assert [rule["name"] for rule in content["rules"]][:2] == ["virus", "spam"]


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


# --- mailbox ---------------------------------------------------------------------------------


def mailbox(*arguments: str | Path, **options: Any) -> Result:
    return bouncer("mailbox", *arguments, "--table", MAILBOXES, **options)


def test_a_mailbox_is_added_and_shown(dynamodb: DynamoDBClient) -> None:
    mailbox("add", "Alice@Example.com", "--quota", "1 GB", "--size-limit", "20 MiB")
    shown = json.loads(mailbox("show", ALICE, "--json").stdout)
    assert (shown["address"], shown["quota_bytes"], shown["size_limit_bytes"]) == (
        ALICE,
        10**9,
        20 * 2**20,
    )
    assert "1000000000" in mailbox("show", ALICE).stdout


def test_a_domains_entry_has_a_catch_all_and_a_separator(dynamodb: DynamoDBClient) -> None:
    mailbox("add", "@example.com", "--no-catch-all", "--separator", "-")
    shown = json.loads(mailbox("show", "@example.com", "--json").stdout)
    assert (shown["catch_all"], shown["separator"]) == (False, "-")


def test_a_mailbox_of_the_stack_needs_no_table(stack: Stack, dynamodb: DynamoDBClient) -> None:
    bouncer("mailbox", "add", ALICE)
    assert mailbox_of(dynamodb)["address"] == ALICE


def test_an_entry_that_exists_is_left_as_it_is(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, quota_bytes=5)
    complaint = error_of("mailbox", "add", ALICE, "--quota", "1 GB", "--table", MAILBOXES)
    assert "has an entry already" in complaint
    assert mailbox_of(dynamodb)["quota_bytes"] == "5"


@pytest.mark.parametrize(
    ("options", "attribute", "value"),
    [
        (["--quota", "2 kB"], "quota_bytes", "2000"),
        (["--used", "7"], "used_bytes", "7"),
        (["--messages-per-day", "50"], "quota_messages_per_day", "50"),
        (["--alias-for", "bob@example.com"], "alias_for", "bob@example.com"),
        (["--moved-to", "alice@new.example", "--tell"], "tell_new_address", "True"),
        (["--status", "disabled"], "status", "disabled"),
    ],
)
def test_an_entry_is_changed_in_what_is_named(
    dynamodb: DynamoDBClient, options: list[str], attribute: str, value: str
) -> None:
    put_mailbox(dynamodb, size_limit_bytes=9)
    mailbox("set", ALICE, *options)
    assert mailbox_of(dynamodb)[attribute] == value
    assert mailbox_of(dynamodb)["size_limit_bytes"] == "9"


@pytest.mark.usefixtures("dynamodb")
def test_what_was_done_can_be_had_as_json() -> None:
    def done(*arguments: str) -> Any:
        return printed_json("mailbox", *arguments, "--table", MAILBOXES)

    assert done("add", "Alice@Example.com") == {"address": ALICE, "done": "added"}
    assert done("set", ALICE, "--quota", "1 GB") == {"address": ALICE, "done": "changed"}
    ends = "2099-01-31T00:00:00+00:00"
    assert done("disable", ALICE, "--until", ends) == {
        "address": ALICE,
        "done": "disabled",
        "until": "2099-01-31T00:00:00Z",
    }
    assert done("remove", ALICE) == {"address": ALICE, "done": "removed"}


def test_a_preview_can_be_had_as_json() -> None:
    shown = printed_json("preview", EVENTS / "unknown-recipient.json")
    assert shown["to"] == "pat@sender.example"
    assert message_from_string(shown["dsn"]).get_content_type() == "multipart/report"


def test_a_field_is_removed(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, quota_bytes=5, size_limit_bytes=9)
    mailbox("set", ALICE, "--unset", "quota_bytes", "--unset", "size_limit_bytes")
    assert set(mailbox_of(dynamodb)) == {"address"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "say what to change"),
        (["--unset", "quota"], "no field is called quota"),
        (["--quota", "a lot"], "'a lot' is not a size"),
        (["--separator", "#"], "separator"),
        (["--messages-per-day", "-1"], "Expected `int` >= 0"),
        (["--alias-for", "bob"], "alias_for 'bob': write user@domain"),
        (["--alias-for", "ALICE@example.com"], "is the address itself"),
        (["--moved-to", "@new.example"], "moved_to '@new.example': write user@domain"),
        (["--moved-to", ALICE], "is the address itself"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(
    dynamodb: DynamoDBClient, options: list[str], complaint: str
) -> None:
    put_mailbox(dynamodb)
    assert complaint in error_of("mailbox", "set", ALICE, *options, "--table", MAILBOXES)
    assert set(mailbox_of(dynamodb)) == {"address"}


@pytest.mark.parametrize(
    ("address", "options", "complaint"),
    [
        ("alice", [], "write user@domain, or @domain"),
        ("@localhost", [], "write user@domain, or @domain"),
        ("al ice@example.com", [], "write user@domain, or @domain"),
        (ALICE, ["--alias-for", "bob"], "alias_for 'bob': write user@domain"),
        (ALICE, ["--alias-for", ALICE], "is the address itself"),
        (ALICE, ["--moved-to", "Alice@Example.com"], "is the address itself"),
        (ALICE, ["--messages-per-day", "-1"], "Expected `int` >= 0"),
    ],
)
def test_an_entry_that_makes_no_sense_is_not_added(
    dynamodb: DynamoDBClient, address: str, options: list[str], complaint: str
) -> None:
    assert complaint in error_of("mailbox", "add", address, *options, "--table", MAILBOXES)
    assert json.loads(mailbox("list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("until", "kept"),
    [
        ("2099-12-01", "2099-12-01T00:00:00Z"),
        ("2099-12-01T08:00:00", "2099-12-01T08:00:00Z"),
        ("2099-12-01T08:00:00Z", "2099-12-01T08:00:00Z"),
        ("2099-12-01T08:00:00+02:00", "2099-12-01T06:00:00Z"),
    ],
)
def test_a_mailbox_is_disabled_until_a_time(
    dynamodb: DynamoDBClient, until: str, kept: str
) -> None:
    put_mailbox(dynamodb)
    mailbox("disable", ALICE, "--until", until)
    assert (mailbox_of(dynamodb)["status"], mailbox_of(dynamodb)["status_until"]) == (
        "disabled",
        kept,
    )


def test_a_mailbox_is_disabled_for_good(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, status="disabled", status_until="2099-12-01T08:00:00Z")
    mailbox("disable", ALICE)
    assert mailbox_of(dynamodb) == {"address": ALICE, "status": "disabled"}


def test_a_mailbox_is_not_disabled_until_a_time_that_has_passed(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb)
    options = ["--until", "2020-01-01", "--table", MAILBOXES]
    assert "has passed" in error_of("mailbox", "disable", ALICE, *options)
    assert mailbox_of(dynamodb) == {"address": ALICE}


def test_a_mailbox_is_removed(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb)
    mailbox("remove", ALICE)
    assert mailbox_of(dynamodb) == {}


@pytest.mark.parametrize(
    "command", [["show"], ["set", "--quota", "1"], ["disable"], ["remove"]], ids=lambda c: c[0]
)
def test_what_has_no_entry_is_named(dynamodb: DynamoDBClient, command: list[str]) -> None:
    name, *options = command
    complaint = error_of("mailbox", name, NOBODY, *options, "--table", MAILBOXES)
    assert f"{NOBODY} has no entry" in complaint


def test_a_table_that_is_not_there_is_named() -> None:
    assert "ResourceNotFoundException" in error_of("mailbox", "list", "--table", "nowhere")


def test_the_list_is_sorted(dynamodb: DynamoDBClient) -> None:
    for address in ("b@example.com", ALICE, "c@example.com"):
        put_mailbox(dynamodb, address, quota_bytes=5)
    listed = json.loads(mailbox("list", "--json").stdout)
    assert [each["address"] for each in listed] == [ALICE, "b@example.com", "c@example.com"]
    text = mailbox("list").stdout
    assert text.index(ALICE) < text.index("b@example.com") < text.index("c@example.com")


@pytest.mark.parametrize("command", ["list", "export"])
def test_an_entry_that_cannot_be_read_stops_nothing_and_is_named(
    dynamodb: DynamoDBClient, command: str
) -> None:
    put_mailbox(dynamodb, quota_bytes="much")
    put_mailbox(dynamodb, NOBODY, quota_bytes=5)
    result = mailbox(command)
    assert ALICE in result.stdout
    assert NOBODY in result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{ALICE}: ")
    assert "quota_bytes" in line


def test_the_stacks_own_table_is_used_under_its_own_names(
    stack: Stack, dynamodb: DynamoDBClient
) -> None:
    create_mailbox_table(dynamodb, "users", key="email")
    stack.outputs["MailboxTable"] = "users"
    stack.parameters["MailboxAttributes"] = "address=email,quota_bytes=quota"
    dynamodb.put_item(TableName="users", Item=item(email=NOBODY, quota=5))
    bouncer("mailbox", "add", ALICE, "--quota", "7")
    bouncer("mailbox", "set", NOBODY, "--quota", "6")
    listed = [(each["address"], each["quota_bytes"]) for each in printed_json("mailbox", "list")]
    assert listed == [(ALICE, 7), (NOBODY, 6)]
    assert stored(dynamodb, "users", email=ALICE) == {"email": ALICE, "quota": "7"}


# --- mailbox import and export ---------------------------------------------------------------


def thousand(quota: int) -> str:
    rows = (f"user{number:04d}@example.com,{quota}" for number in range(1000))
    return "\n".join(["address,quota_bytes", *rows])


def test_an_import_of_a_thousand_is_safe_to_repeat_and_never_touches_usage(
    tmp_path: Path, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, "user0007@example.com", used_bytes=77, messages_today=7)
    path = file(tmp_path, "boxes.csv", thousand(1000))
    counts = [
        json.loads(mailbox("import", path, "--json").stdout)["counts"],
        json.loads(mailbox("import", path, "--json").stdout)["counts"],
    ]
    assert counts == [{"added": 999, "changed": 1}, {"unchanged": 1000}]
    assert len(json.loads(mailbox("list", "--json").stdout)) == 1000
    kept = mailbox_of(dynamodb, "user0007@example.com")
    assert (kept["used_bytes"], kept["messages_today"], kept["quota_bytes"]) == ("77", "7", "1000")


def test_a_dry_run_shows_the_difference_and_changes_nothing(
    tmp_path: Path, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, quota_bytes=5)
    boxes = [{"address": ALICE, "quota_bytes": 6}, {"address": NOBODY}]
    path = file(tmp_path, "boxes.json", boxes)
    report = json.loads(mailbox("import", path, "--dry-run", "--json").stdout)
    assert report["dry_run"] is True
    assert report["counts"] == {"changed": 1, "added": 1}
    assert {each["address"]: each["difference"] for each in report["changes"]} == {
        ALICE: "quota_bytes: 5 -> 6",
        NOBODY: "",
    }
    assert "1 would be added, 1 would be changed" in mailbox("import", path, "--dry-run").stdout
    assert mailbox_of(dynamodb)["quota_bytes"] == "5"
    assert mailbox_of(dynamodb, NOBODY) == {}


def test_entries_that_a_file_does_not_name_stay(tmp_path: Path, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb)
    mailbox("import", file(tmp_path, "boxes.csv", f"address\n{NOBODY}\n"))
    assert mailbox_of(dynamodb)["address"] == ALICE


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("boxes.csv", "address,quota\na@example.com,5\n", "entry 1: no field is called quota"),
        ("boxes.csv", "address\na@example.com,5\n", "entry 1 has more cells than the header"),
        ("boxes.csv", "address\nalice\n", "entry 1: address 'alice': write user@domain"),
        ("boxes.csv", "address,quota_bytes\na@example.com,many\n", "entry 1: Expected `int"),
        ("boxes.json", '[{"address": "a@example.com"}, 5]', "entry 2 is not an object"),
        ("boxes.json", '[{"address": "a@example.com"', "is not JSON"),
        ("boxes.json", '[{"quota_bytes": 5}]', "missing required field `address`"),
        ("boxes.csv", "address,quota_bytes\na@example.com,-5\n", "entry 1: Expected `int` >= 0"),
        ("boxes.csv", "address\na@example.com\n@localhost\n", "entry 2: address '@localhost'"),
        (
            "boxes.json",
            [{"address": ALICE, "alias_for": "bob"}],
            "entry 1: alias_for 'bob': write user@domain",
        ),
        (
            "boxes.json",
            [{"address": ALICE, "moved_to": ALICE}],
            f"entry 1: moved_to '{ALICE}' is the address itself",
        ),
        ("boxes.csv", b"address\ncaf\xe9@example.com\n", "is not UTF-8: save it as UTF-8"),
        ("boxes.json", b'[{"address": "caf\xe9@example.com"}]', "boxes.json is not"),
        ("boxes.csv", 'address,moved_to\na@example.com,"b@c.example\n', "is not CSV"),
        ("boxes.csv", 'address\n"a@example.com"x\n', "is not CSV"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_the_entry(
    tmp_path: Path, dynamodb: DynamoDBClient, name: str, content: Any, complaint: str
) -> None:
    path = file(tmp_path, name, content)
    told = error_of("mailbox", "import", path, "--table", MAILBOXES)
    assert str(path) in told
    assert complaint in told


FULL_ENTRY: dict[str, Any] = {
    "quota_bytes": 5,
    "size_limit_bytes": 9,
    "status": "disabled",
    "moved_to": "alice@new.example",
    "used_bytes": 3,
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("boxes.csv", f"address,quota_bytes\n{ALICE},6\n"),
        ("boxes.json", [{"address": ALICE, "quota_bytes": 6}]),
        ("boxes.jsonl", {"address": ALICE, "quota_bytes": 6}),
    ],
)
def test_fields_that_a_file_does_not_name_stay(
    tmp_path: Path, dynamodb: DynamoDBClient, name: str, content: Any
) -> None:
    put_mailbox(dynamodb, **FULL_ENTRY)
    before = mailbox_of(dynamodb)
    mailbox("import", file(tmp_path, name, content))
    assert mailbox_of(dynamodb) == before | {"quota_bytes": "6"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("boxes.csv", f"address,quota_bytes,moved_to,status,used_bytes\n{ALICE},,,,\n"),
        (
            "boxes.json",
            [
                dict.fromkeys(("quota_bytes", "moved_to", "status", "used_bytes"))
                | {"address": ALICE}
            ],
        ),
    ],
)
def test_an_empty_cell_and_a_null_empty_a_field(
    tmp_path: Path, dynamodb: DynamoDBClient, name: str, content: Any
) -> None:
    put_mailbox(dynamodb, **FULL_ENTRY)
    mailbox("import", file(tmp_path, name, content))
    assert mailbox_of(dynamodb) == {"address": ALICE, "size_limit_bytes": "9", "used_bytes": "3"}


@pytest.mark.parametrize(
    ("cell", "kept"), [("none", ""), ("-", "-"), ("+", None), ("", None)], ids=repr
)
def test_a_separator_in_csv_is_one_or_none_or_the_default(
    tmp_path: Path, dynamodb: DynamoDBClient, cell: str, kept: str | None
) -> None:
    put_mailbox(dynamodb, "@example.com", separator="-")
    path = file(tmp_path, "boxes.csv", f"address,separator\n@example.com,{cell}\n")
    mailbox("import", path)
    assert mailbox_of(dynamodb, "@example.com").get("separator") == kept


@pytest.mark.parametrize(
    "content",
    [f' \n\t[{{"address": "{ALICE}"}}]', f'\n\n{{"address": "{ALICE}"}}\n'],
    ids=["list", "lines"],
)
def test_json_may_begin_with_white_space(
    tmp_path: Path, dynamodb: DynamoDBClient, content: str
) -> None:
    mailbox("import", file(tmp_path, "boxes.json", content))
    assert mailbox_of(dynamodb) == {"address": ALICE}


def test_a_status_until_in_a_file_may_be_a_date(tmp_path: Path, dynamodb: DynamoDBClient) -> None:
    rows = f"address,status,status_until\n{ALICE},disabled,2099-12-01\n"
    mailbox("import", file(tmp_path, "boxes.csv", rows))
    assert mailbox_of(dynamodb)["status_until"] == "2099-12-01T00:00:00Z"


WHOLE: list[dict[str, Any]] = [
    {"address": "@example.com", "catch_all": False, "separator": "-", "size_limit_bytes": 9},
    {"address": "@tagless.example", "separator": ""},
    {"address": ALICE, "quota_bytes": 5, "tell_new_address": True, "moved_to": "a@new.example"},
    {"address": "bob@example.com", "status": "disabled", "status_until": "2026-12-01T00:00:00Z"},
]


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_what_is_exported_is_imported_as_it_was(
    tmp_path: Path, dynamodb: DynamoDBClient, name: str
) -> None:
    for fields in WHOLE:
        put_mailbox(dynamodb, **fields)
    mailbox("export", tmp_path / name)
    report = json.loads(mailbox("import", tmp_path / name, "--json").stdout)
    assert report["counts"] == {"unchanged": len(WHOLE)}
    for fields in WHOLE:
        dynamodb.delete_item(TableName=MAILBOXES, Key={"address": {"S": fields["address"]}})
    mailbox("import", tmp_path / name)
    again = {each["address"]: each for each in json.loads(mailbox("list", "--json").stdout)}
    for fields in WHOLE:
        assert {k: again[fields["address"]][k] for k in fields} == fields


def test_an_export_without_a_file_is_printed_a_line_an_entry(dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb)
    put_mailbox(dynamodb, NOBODY)
    lines = [json.loads(line) for line in mailbox("export").stdout.splitlines()]
    assert {each["address"] for each in lines} == {ALICE, NOBODY}


# --- mailbox recount -------------------------------------------------------------------------


@pytest.fixture
def drifted(stack: Stack, dynamodb: DynamoDBClient, s3: S3Client) -> DynamoDBClient:
    """An hour ago a mailbox took mail of 100 and of 30 bytes; nobody heard of a deletion."""
    put_mailbox(dynamodb)
    usage = DynamoUsage(
        dynamodb, bounce_table=BOUNCES, mailbox_table=MAILBOXES, remember=timedelta(days=14)
    )
    for message_id, size in (("msg1", 100), ("msg2", 30)):
        moment = datetime.now(UTC) - timedelta(hours=1)
        usage.charge(Mailbox(address=ALICE), message_id, size, moment, enforce=True)
    put_mail(s3, "msg1", b"x" * 100)
    return dynamodb


def test_a_recount_reports_what_is_off_and_changes_nothing(drifted: DynamoDBClient) -> None:
    assert printed_json("mailbox", "recount") == {
        "drift": [{"address": ALICE, "used_bytes": 130, "stored_bytes": 100}],
        "deletions_missed": ["msg2"],
        "applied": False,
    }
    assert "1 mailboxes are off" in text_of("mailbox", "recount")
    assert mailbox_of(drifted)["used_bytes"] == "130"


def test_what_somebody_else_counts_is_not_recounted(stack: Stack, drifted: DynamoDBClient) -> None:
    stack.outputs["Usage"] = "external"
    assert "does not keep the mailboxes' usage" in error_of("mailbox", "recount", "--apply")
    assert mailbox_of(drifted)["used_bytes"] == "130"


def test_a_recount_sets_right_what_is_off(drifted: DynamoDBClient) -> None:
    assert printed_json("mailbox", "recount", "--apply")["applied"] is True
    assert mailbox_of(drifted)["used_bytes"] == "100"
    assert printed_json("mailbox", "recount") == {
        "drift": [],
        "deletions_missed": [],
        "applied": False,
    }


# --- status ----------------------------------------------------------------------------------


def settle(dynamodb: DynamoDBClient, state: BounceState, message_id: str = "msg1") -> None:
    ledger = DynamoLedger(dynamodb, BOUNCES, retention=timedelta(days=14))
    entry = LedgerEntry(
        message_id=message_id,
        recipient=NOBODY,
        state=state,
        reason="unknown-recipient",
        status="5.1.1",
        received_at=datetime.now(UTC) - timedelta(hours=1),
        bounce_id="bounce-1",
    )
    ledger.settle([entry])


def test_the_status_of_a_mail_is_its_recipients_lines(
    stack: Stack, dynamodb: DynamoDBClient
) -> None:
    settle(dynamodb, BounceState.SENT)
    (entry,) = printed_json("status", "msg1")
    assert {k: entry[k] for k in ("recipient", "state", "reason", "status", "bounce_id")} == {
        "recipient": NOBODY,
        "state": "sent",
        "reason": "unknown-recipient",
        "status": "5.1.1",
        "bounce_id": "bounce-1",
    }
    text = text_of("status", "msg1")
    for part in (NOBODY, "sent", "5.1.1", "bounce-1", "UTC"):
        assert part in text


def test_the_status_of_a_mail_that_nobody_knows_says_what_that_means(stack: Stack) -> None:
    assert printed_json("status", "msg1") == []
    assert "The ledger has nothing of this mail" in text_of("status", "msg1")


# --- redrive ---------------------------------------------------------------------------------


def dead_bounce(sqs: SQSClient, stack: Stack, message_id: str = "msg1", hours: float = 1) -> None:
    received_at = datetime.now(UTC) - timedelta(hours=hours)
    body = encode(bounce(message_id, received_at=received_at))
    sqs.send_message(QueueUrl=stack.dead_letters, MessageBody=body)


def dead_event(sqs: SQSClient, stack: Stack, message_id: str = "msg1", hours: float = 1) -> Any:
    received_at = datetime.now(UTC) - timedelta(hours=hours)
    event = ses_event(message_id=message_id, received_at=received_at)
    record = {
        "requestPayload": event,
        "responsePayload": {"errorType": "ClientError", "errorMessage": "no table"},
    }
    sqs.send_message(QueueUrl=stack.events, MessageBody=json.dumps(record))
    return event


def test_without_run_dead_letters_are_only_shown(stack: Stack, sqs: SQSClient) -> None:
    dead_bounce(sqs, stack)
    dead_event(sqs, stack, "msg2")
    report = printed_json("redrive")
    assert report["run"] is False
    assert [
        (each["kind"], each["message_id"], each["why"], each["verdict"], each["result"])
        for each in report["letters"]
    ] == [
        ("bounce", "msg1", "SES failed too often", "again", None),
        ("event", "msg2", "ClientError: no table", "again", None),
    ]
    assert "2 would be tried again" in text_of("redrive")
    assert stack.lambda_.invoked == []
    assert (len(bodies(sqs, stack.dead_letters)), len(bodies(sqs, stack.events))) == (1, 1)


def test_a_bounce_goes_back_to_the_queue_as_it_is(stack: Stack, sqs: SQSClient) -> None:
    dead_bounce(sqs, stack)
    (before,) = bodies(sqs, stack.dead_letters)
    sqs.purge_queue(QueueUrl=stack.dead_letters)
    sqs.send_message(QueueUrl=stack.dead_letters, MessageBody=json.dumps(before))
    (letter,) = printed_json("redrive", "--run")["letters"]
    assert letter["result"] == "queued"
    assert bodies(sqs, stack.bounce_queue) == [before]
    assert bodies(sqs, stack.dead_letters) == []


def test_an_event_goes_back_to_the_function(stack: Stack, sqs: SQSClient) -> None:
    event = dead_event(sqs, stack)
    (letter,) = printed_json("redrive", "--run")["letters"]
    assert stack.lambda_.invoked == [("arn:function", event)]
    assert letter["result"] == '{"disposition":"STOP_RULE_SET"}'
    assert bodies(sqs, stack.events) == []


def test_an_event_that_fails_again_stays(stack: Stack, sqs: SQSClient) -> None:
    dead_event(sqs, stack)
    stack.lambda_.error, stack.lambda_.answer = "Unhandled", '{"errorMessage": "still no table"}'
    (letter,) = printed_json("redrive", "--run")["letters"]
    assert "failed again" in letter["result"]
    assert number_in(sqs, stack.events) == 1


def number_in(sqs: SQSClient, queue: str) -> int:
    """Messages in a queue, with those that somebody is looking at."""
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)
    return sum(map(int, answer["Attributes"].values()))


@pytest.mark.parametrize("hours", [23.95, 30])
def test_what_is_too_old_for_ses_stays_where_it_is(
    stack: Stack, sqs: SQSClient, hours: float
) -> None:
    dead_bounce(sqs, stack, hours=hours)
    dead_event(sqs, stack, hours=hours)
    report = printed_json("redrive", "--run")
    assert [(each["verdict"], each["result"]) for each in report["letters"]] == [
        ("too old", None)
    ] * 2
    assert stack.lambda_.invoked == []
    assert bodies(sqs, stack.bounce_queue) == []
    assert (len(bodies(sqs, stack.dead_letters)), len(bodies(sqs, stack.events))) == (1, 1)


@pytest.mark.parametrize("body", ["not JSON", "{}", "[]", '{"requestPayload": {}}', "5"])
def test_what_cannot_be_read_stays_where_it_is(stack: Stack, sqs: SQSClient, body: str) -> None:
    sqs.send_message(QueueUrl=stack.dead_letters, MessageBody=body)
    sqs.send_message(QueueUrl=stack.events, MessageBody=body)
    report = printed_json("redrive", "--run")
    assert [each["verdict"] for each in report["letters"]] == ["unreadable"] * 2
    assert all(each["why"] for each in report["letters"])
    assert (len(bodies(sqs, stack.dead_letters)), len(bodies(sqs, stack.events))) == (1, 1)


def test_more_dead_letters_than_one_read_holds_are_all_seen(stack: Stack, sqs: SQSClient) -> None:
    for number in range(25):
        dead_bounce(sqs, stack, f"msg{number}")
    assert len(printed_json("redrive", "--run")["letters"]) == 25
    assert len(bodies(sqs, stack.bounce_queue)) == 25


@pytest.mark.parametrize(
    ("margin", "hours", "verdict"),
    [("60", 23.95, "again"), ("300", 23.95, "too old"), ("7200", 22.5, "too old")],
)
def test_how_old_is_too_old_is_the_stacks_margin(
    stack: Stack, sqs: SQSClient, margin: str, hours: float, verdict: str
) -> None:
    stack.parameters["WindowMarginSeconds"] = margin
    dead_bounce(sqs, stack, hours=hours)
    dead_event(sqs, stack, hours=hours)
    letters = printed_json("redrive")["letters"]
    assert [letter["verdict"] for letter in letters] == [verdict] * 2


def test_a_letter_that_comes_back_during_a_long_list_is_listed_once(
    stack: Stack, sqs: SQSClient
) -> None:
    def hide_nothing(params: dict[str, Any], **_: Any) -> None:
        params["VisibilityTimeout"] = 0

    stack.hooks.append(("sqs", "before-parameter-build.sqs.ReceiveMessage", hide_nothing))
    for number in range(3):
        dead_bounce(sqs, stack, f"msg{number}")
    letters = printed_json("redrive")["letters"]
    assert sorted(letter["message_id"] for letter in letters) == ["msg0", "msg1", "msg2"]


def test_a_letter_that_has_come_back_by_itself_is_listed_all_the_same(
    stack: Stack, sqs: SQSClient
) -> None:
    def expired(**_: Any) -> Any:
        error = {"Code": "InvalidParameterValue", "Message": "the receipt handle has expired"}
        metadata = {"HTTPStatusCode": 400, "HTTPHeaders": {}}
        answer = {"Error": error, "ResponseMetadata": metadata}
        return no_response(400), answer

    stack.hooks.append(("sqs", "before-call.sqs.ChangeMessageVisibility", expired))
    dead_bounce(sqs, stack)
    (letter,) = printed_json("redrive")["letters"]
    assert letter["verdict"] == "again"
    assert number_in(sqs, stack.dead_letters) == 1


# --- send-bounce -----------------------------------------------------------------------------

RECIPIENT = f"Recipient={NOBODY},BounceType=DoesNotExist"
BY_HAND = ["--original-message-id", "msg1", "--bounce-sender", BOUNCE_SENDER]


@pytest.fixture
def ses(stack: Stack, ses_server: SesServer, services: Services) -> SesServer:
    return ses_server


def just_now() -> list[str]:
    moment = datetime.now(UTC) - timedelta(minutes=1)
    return ["--received-at", moment.strftime("%Y-%m-%dT%H:%M:%S")]


def send_bounce(*options: str, code: int = 0) -> Any:
    return printed_json("send-bounce", *BY_HAND, *options, code=code)


def test_a_bounce_by_hand_is_sent_and_stands_in_the_ledger(
    ses: SesServer, dynamodb: DynamoDBClient
) -> None:
    (fate,) = send_bounce("--bounced-recipient-info-list", RECIPIENT, *just_now())
    assert (fate["state"], fate["bounce_id"]) == ("sent", "bounce-1")
    (call,) = ses.calls
    assert call.parameters["BouncedRecipientInfoList.member.1.BounceType"] == "DoesNotExist"
    entry = entry_of(dynamodb, "msg1", NOBODY)
    assert (entry["state"], entry["reason"]) == ("sent", "operator")


def test_a_bounce_by_hand_is_sent_once(ses: SesServer) -> None:
    options = ["--bounced-recipient-info-list", RECIPIENT, *just_now()]
    send_bounce(*options)
    complaint = error_of("send-bounce", *BY_HAND, *options)
    assert f"{NOBODY}: settled before" in complaint
    assert len(ses.calls) == 1


@pytest.mark.parametrize("bounce_type", sorted(BounceType))
def test_every_bounce_type_can_be_sent_by_hand(ses: SesServer, bounce_type: BounceType) -> None:
    recipient = f"Recipient={NOBODY},BounceType={bounce_type}"
    (fate,) = send_bounce("--bounced-recipient-info-list", recipient, *just_now())
    assert fate["status"] == STATUS[bounce_type]


WRITTEN_OUT: dict[str, Any] = {
    "Recipient": NOBODY,
    "RecipientDsnFields": {
        "Action": "failed",
        "Status": "5.7.1",
        "DiagnosticCode": "smtp; 550 5.7.1 no, thank you",
        "LastAttemptDate": "2026-11-21T10:00:00Z",
        "ExtensionFields": [{"Name": "X-Why", "Value": "policy, mostly"}],
    },
}
SHORTHAND = (
    f"Recipient={NOBODY},RecipientDsnFields={{Action=failed,Status=5.7.1,"
    "DiagnosticCode='smtp; 550 5.7.1 no, thank you',LastAttemptDate=2026-11-21T10:00:00Z,"
    "ExtensionFields=[{Name=X-Why,Value='policy, mostly'}]}"
)


@pytest.mark.parametrize(
    "given",
    [json.dumps(WRITTEN_OUT), json.dumps([WRITTEN_OUT]), SHORTHAND],
    ids=["JSON", "JSON list", "shorthand"],
)
def test_a_dsn_that_is_written_out_is_sent_as_it_is(ses: SesServer, given: str) -> None:
    send_bounce("--bounced-recipient-info-list", given, *just_now())
    (call,) = ses.calls
    prefix = "BouncedRecipientInfoList.member.1.RecipientDsnFields."
    fields = {
        name.removeprefix(prefix): value
        for name, value in call.parameters.items()
        if name.startswith(prefix)
    }
    assert fields == {
        "Action": "failed",
        "Status": "5.7.1",
        "DiagnosticCode": "smtp; 550 5.7.1 no, thank you",
        "LastAttemptDate": "2026-11-21T10:00:00Z",
        "ExtensionFields.member.1.Name": "X-Why",
        "ExtensionFields.member.1.Value": "policy, mostly",
    }


def test_everything_may_come_from_a_file_and_be_overruled(tmp_path: Path, ses: SesServer) -> None:
    request = {
        "OriginalMessageId": "msg1",
        "BounceSender": "file@example.com",
        "Explanation": "from the file",
        "MessageDsn": {"ReportingMta": "dns; mx.example.com"},
        "BouncedRecipientInfoList": [{"Recipient": NOBODY, "BounceType": "Undefined"}],
    }
    path = file(tmp_path, "request.json", request)
    bouncer(
        "send-bounce",
        "--cli-input-json",
        f"file://{path}",
        "--bounce-sender",
        BOUNCE_SENDER,
        *just_now(),
    )
    (call,) = ses.calls
    assert call.parameters["BounceSender"] == BOUNCE_SENDER
    assert call.parameters["Explanation"] == "from the file"
    assert call.parameters["MessageDsn.ReportingMta"] == "dns; mx.example.com"


FILLED: dict[str, Any] = {
    "OriginalMessageId": "msg1",
    "BounceSender": BOUNCE_SENDER,
    "Explanation": None,
    "MessageDsn": None,
    "BouncedRecipientInfoList": [
        {
            "Recipient": NOBODY,
            "RecipientArn": None,
            "BounceType": "DoesNotExist",
            "RecipientDsnFields": None,
        }
    ],
    "BounceSenderArn": None,
}
NULL_FIELDS: dict[str, Any] = {**WRITTEN_OUT["RecipientDsnFields"], "RemoteMta": None}


@pytest.mark.parametrize(
    "options",
    [
        ["--cli-input-json", json.dumps(FILLED)],
        [
            *BY_HAND,
            "--bounced-recipient-info-list",
            json.dumps(FILLED["BouncedRecipientInfoList"]),
        ],
        [
            *BY_HAND,
            "--bounced-recipient-info-list",
            json.dumps({"Recipient": NOBODY, "RecipientDsnFields": NULL_FIELDS}),
        ],
        [
            *BY_HAND,
            "--bounced-recipient-info-list",
            RECIPIENT,
            "--message-dsn",
            json.dumps({"ReportingMta": "dns; mx.example.com", "ArrivalDate": None}),
        ],
    ],
    ids=["the whole request", "a recipient", "a recipient's DSN fields", "the DSN"],
)
def test_a_member_that_is_null_is_one_that_is_not_given(ses: SesServer, options: list[str]) -> None:
    (fate,) = printed_json("send-bounce", *options, *just_now())
    assert fate["state"] == "sent"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (1795255200, "2026-11-21T10:00:00Z"),
        (1795255200.0, "2026-11-21T10:00:00Z"),
        ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"),
        ("2026-11-21T12:00:00+02:00", "2026-11-21T10:00:00Z"),
    ],
)
def test_a_time_of_a_dsn_may_be_iso_8601_or_epoch_seconds(
    ses: SesServer, given: Any, sent: str
) -> None:
    dsn = json.dumps({"ReportingMta": "dns; mx.example.com", "ArrivalDate": given})
    send_bounce("--bounced-recipient-info-list", RECIPIENT, "--message-dsn", dsn, *just_now())
    (call,) = ses.calls
    told = datetime.fromisoformat(call.parameters["MessageDsn.ArrivalDate"])
    assert told == datetime.fromisoformat(sent)


@pytest.mark.parametrize("hours", [0, 2, -8])
def test_when_the_mail_came_may_be_told_with_an_offset(
    ses: SesServer, dynamodb: DynamoDBClient, hours: int
) -> None:
    moment = datetime.now(timezone(timedelta(hours=hours))).replace(microsecond=0)
    options = ["--bounced-recipient-info-list", RECIPIENT, "--received-at", moment.isoformat()]
    (fate,) = send_bounce(*options)
    assert fate["state"] == "sent"
    assert float(entry_of(dynamodb, "msg1", NOBODY)["received_at"]) == moment.timestamp()


def test_an_explanation_of_five_hundred_characters_is_sent_whole(ses: SesServer) -> None:
    text = "x" * 500
    options = ["--bounced-recipient-info-list", RECIPIENT, "--explanation", text]
    send_bounce(*options, *just_now())
    assert ses.calls[0].parameters["Explanation"] == text


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["table", "JSON"])
def test_what_ses_refuses_fails_with_its_reason(ses: SesServer, as_json: list[str]) -> None:
    ses.answers = [(400, "MessageRejected", "Email address is not verified")]
    options = ["--bounced-recipient-info-list", RECIPIENT, *just_now(), *as_json]
    complaint = error_of("send-bounce", *BY_HAND, *options)
    assert "Email address is not verified" in complaint
    assert "not sent: " in complaint


def test_what_ses_refused_may_be_sent_when_the_cause_is_mended(ses: SesServer) -> None:
    ses.answers = [(400, "MessageRejected", "Email address is not verified")]
    options = ["--bounced-recipient-info-list", RECIPIENT, *just_now()]
    (refused,) = send_bounce(*options, code=1)
    (sent,) = send_bounce(*options)
    assert (refused["state"], sent["state"]) == ("rejected", "sent")


def test_the_skeleton_has_every_parameter_and_needs_no_stack() -> None:
    skeleton = json.loads(bouncer("send-bounce", "--generate-cli-skeleton").stdout)
    assert set(skeleton) == {
        "OriginalMessageId",
        "BounceSender",
        "Explanation",
        "MessageDsn",
        "BouncedRecipientInfoList",
        "BounceSenderArn",
    }


def test_when_the_mail_came_is_known_from_the_ledger(
    ses: SesServer, dynamodb: DynamoDBClient
) -> None:
    ledger = DynamoLedger(dynamodb, BOUNCES, retention=timedelta(days=14))
    other = LedgerEntry(
        message_id="msg1",
        recipient="other@example.com",
        state=BounceState.SENT,
        reason="unknown-recipient",
        received_at=datetime.now(UTC) - timedelta(hours=2),
    )
    ledger.settle([other])
    (fate,) = send_bounce("--bounced-recipient-info-list", RECIPIENT)
    assert fate["state"] == "sent"


def test_when_the_mail_came_is_known_from_the_bucket(ses: SesServer, s3: S3Client) -> None:
    put_mail(s3, "msg1")
    (fate,) = send_bounce("--bounced-recipient-info-list", RECIPIENT)
    assert fate["state"] == "sent"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "Missing required parameter"),
        (["--bounced-recipient-info-list", "[]"], "Missing required parameter"),
        (["--bounced-recipient-info-list", "nobody"], "write Name=value, or give JSON"),
        (["--bounced-recipient-info-list", "{nobody"], "is not JSON"),
        (["--bounced-recipient-info-list", f"Recipient={NOBODY}"], "exactly one of bounce_type"),
        (
            ["--bounced-recipient-info-list", f"Recipient={NOBODY},BounceType=Gone"],
            "'Gone' is none of DoesNotExist",
        ),
        (["--bounced-recipient-info-list", "BounceType=Undefined"], "Recipient"),
        (["--cli-input-json", "{"], "--cli-input-json is not JSON"),
        (["--cli-input-json", "[]"], "--cli-input-json is not an object"),
        (["--cli-input-json", "file://nowhere.json"], "nowhere.json"),
        (
            ["--cli-input-json", '{"Expl": "x"}', "--bounced-recipient-info-list", RECIPIENT],
            "SendBounce has no parameter Expl",
        ),
        (
            ["--bounced-recipient-info-list", RECIPIENT, "--message-dsn", "ArrivalDate=noon"],
            "'noon' is not an ISO 8601 time",
        ),
        (
            ["--bounced-recipient-info-list", RECIPIENT, "--message-dsn", "ReportingMta=mx"],
            "reporting_mta 'mx' lacks its type",
        ),
        (
            ["--bounced-recipient-info-list", RECIPIENT, "--explanation", "Grüße"],
            "printable 7-bit ASCII",
        ),
        (
            ["--bounced-recipient-info-list", RECIPIENT, "--explanation", "x" * 501],
            "Explanation has over 500 characters: shorten it",
        ),
        (["--cli-input-json", '{"BouncedRecipientInfoList": 5}'], "BouncedRecipientInfoList"),
        (
            ["--cli-input-json", '{"MessageDsn": 5}', "--bounced-recipient-info-list", RECIPIENT],
            "MessageDsn",
        ),
        (
            [
                "--bounced-recipient-info-list",
                RECIPIENT,
                "--message-dsn",
                '{"ReportingMta": "dns; mx.example.com", "ArrivalDate": 1e30}',
            ],
            "1e+30 is not an ISO 8601 time",
        ),
    ],
)
def test_a_parameter_that_is_wrong_is_named_and_nothing_is_sent(
    ses: SesServer, options: list[str], complaint: str
) -> None:
    assert complaint in error_of("send-bounce", *BY_HAND, *options, *just_now())
    assert ses.arrivals == []


def test_a_request_that_is_not_utf_8_is_named(tmp_path: Path, ses: SesServer) -> None:
    path = file(tmp_path, "request.json", b'{"Explanation": "caf\xe9"}')
    assert "UTF-8" in error_of("send-bounce", "--cli-input-json", f"file://{path}").upper()
    assert ses.arrivals == []


def test_a_mail_that_nobody_knows_needs_its_time(ses: SesServer) -> None:
    complaint = error_of("send-bounce", *BY_HAND, "--bounced-recipient-info-list", RECIPIENT)
    assert "nobody knows when msg1 was received: say it with --received-at" in complaint


def test_after_sess_24_hours_nothing_is_sent_by_hand(ses: SesServer) -> None:
    old = ["--received-at", "2020-01-01T00:00:00"]
    options = ["--bounced-recipient-info-list", RECIPIENT, *old]
    assert "was received over 24 hours ago" in error_of("send-bounce", *BY_HAND, *options)
    assert ses.arrivals == []


def test_a_person_reads_a_table(ses: SesServer) -> None:
    text = text_of("send-bounce", *BY_HAND, "--bounced-recipient-info-list", RECIPIENT, *just_now())
    for part in (NOBODY, "sent", "operator", "5.1.1", "bounce-1"):
        assert part in text


# --- rules -----------------------------------------------------------------------------------


@pytest.fixture
def rules(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> SESClient:
    """Two rule sets; in one of them is the deployed rule."""
    monkeypatch.setattr(receipt_rules, "_PAUSE_SECONDS", 0.0)
    client: SESClient = boto3.client("ses")
    for name in ("inbound", "other"):
        client.create_receipt_rule_set(RuleSetName=name)
    rule: Any = {"Name": "ses-bouncer", "Enabled": True, "Actions": [], "Recipients": []}
    client.create_receipt_rule(RuleSetName="inbound", Rule=rule)
    return client


def active(rules: SESClient) -> str | None:
    return rules.describe_active_receipt_rule_set().get("Metadata", {}).get("Name")


def test_a_rule_set_is_made_the_active_one(rules: SESClient) -> None:
    assert "inbound is the active rule set now." in text_of("rules", "activate", "inbound")
    assert active(rules) == "inbound"


def test_the_active_one_may_be_activated_again(rules: SESClient) -> None:
    bouncer("rules", "activate", "inbound")
    assert "already" in text_of("rules", "activate", "inbound")


def test_another_active_set_is_not_replaced(rules: SESClient) -> None:
    rules.set_active_receipt_rule_set(RuleSetName="other")
    complaint = error_of("rules", "activate", "inbound")
    assert "other is the active rule set, and its rules would stop working" in complaint
    assert "bouncer rules activate inbound --replace" in complaint
    assert active(rules) == "other"


def test_another_active_set_is_replaced_when_told_to(rules: SESClient) -> None:
    rules.set_active_receipt_rule_set(RuleSetName="other")
    assert "instead of other" in text_of("rules", "activate", "inbound", "--replace")
    assert active(rules) == "inbound"


def test_a_rule_set_that_is_not_there_is_named(rules: SESClient) -> None:
    assert "RuleSetDoesNotExist" in error_of("rules", "activate", "nowhere")
    assert active(rules) is None


def named(rules: SESClient) -> list[str]:
    (only,) = rules.describe_receipt_rule_set(RuleSetName="inbound")["Rules"]
    return sorted(only.get("Recipients", []))


def test_a_sync_shows_the_difference_first(rules: SESClient, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb)
    rules.set_active_receipt_rule_set(RuleSetName="inbound")
    report = printed_json("rules", "sync", "--dry-run")
    assert report == {
        "changes": [
            {
                "name": "ses-bouncer",
                "after": None,
                "recipients": [ALICE],
                "added": [ALICE],
                "removed": [],
                "new": False,
            }
        ],
        "hints": [],
        "dry_run": True,
    }
    assert f"+{ALICE}" in text_of("rules", "sync", "--dry-run")
    assert named(rules) == []


def test_a_sync_names_the_directorys_addresses(rules: SESClient, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb)
    put_mailbox(dynamodb, "bob@example.com")
    assert "2 recipients are named" in bouncer("rules", "sync", "--yes").stderr
    assert named(rules) == [ALICE, "bob@example.com"]
    assert "in step with the directory" in text_of("rules", "sync", "--yes")


def test_a_sync_with_json_prints_the_changes_and_makes_them(
    rules: SESClient, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb)
    report = printed_json("rules", "sync", "--yes")
    assert [change["added"] for change in report["changes"]] == [[ALICE]]
    assert named(rules) == [ALICE]


@pytest.mark.parametrize(("typed", "code", "changed"), [("y\n", 0, True), ("n\n", 1, False)])
def test_a_sync_asks_before_it_changes_anything(
    rules: SESClient, dynamodb: DynamoDBClient, typed: str, code: int, changed: bool
) -> None:
    put_mailbox(dynamodb)
    result = bouncer("rules", "sync", typed=typed, code=code)
    assert "Change 1 rules of inbound?" in result.stderr
    assert named(rules) == ([ALICE] if changed else [])


def test_a_sync_says_where_ses_cannot_refuse(rules: SESClient, dynamodb: DynamoDBClient) -> None:
    put_mailbox(dynamodb, "@example.com")
    rules.set_active_receipt_rule_set(RuleSetName="inbound")
    other: Any = {"Name": "other", "Enabled": True, "Actions": [], "Recipients": ["example.org"]}
    rules.create_receipt_rule(RuleSetName="inbound", Rule=other)
    hints = printed_json("rules", "sync", "--dry-run")["hints"]
    assert [re.split(r"[ ,]", hint)[0] for hint in hints] == ["example.com", "the"]
    assert "SES refuses nobody there" in hints[0]
    assert "the rule other" in hints[1]


@pytest.mark.parametrize("is_active", [None, "other"])
def test_a_sync_says_when_its_rule_set_is_not_the_active_one(
    rules: SESClient, dynamodb: DynamoDBClient, is_active: str | None
) -> None:
    put_mailbox(dynamodb)
    if is_active:
        rules.set_active_receipt_rule_set(RuleSetName=is_active)
    hint = (
        "inbound is not the active rule set: nothing happens before "
        "`bouncer rules activate inbound`"
    )
    assert printed_json("rules", "sync", "--dry-run")["hints"] == [hint]
    assert f"note: {hint}" in bouncer("rules", "sync", "--yes").stdout
    assert named(rules) == [ALICE]


def test_a_sync_names_a_mailbox_that_cannot_be_read(
    rules: SESClient, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, quota_bytes="much")
    assert f"{ALICE}: " in bouncer("rules", "sync", "--yes").stderr
    assert named(rules) == [ALICE]


def test_a_sync_of_an_empty_directory_is_refused(rules: SESClient) -> None:
    assert "the directory is empty" in error_of("rules", "sync", "--yes")
    assert named(rules) == []


def test_a_sync_without_the_deployed_rule_is_refused(
    rules: SESClient, stack: Stack, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb)
    stack.outputs["ReceiptRule"] = "another"
    assert "has no rule another: deploy it first" in error_of("rules", "sync", "--yes")


# --- The command itself ----------------------------------------------------------------------

COMMANDS = [
    ["explain"],
    ["preview"],
    ["replay"],
    ["status"],
    ["redrive"],
    ["send-bounce"],
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
    assert note.endswith("(see --mailboxes, --table).")


def test_the_json_of_every_state_can_be_read_back(stack: Stack, dynamodb: DynamoDBClient) -> None:
    for state in BounceState:
        settle(dynamodb, state, message_id=f"msg-{state}")
        (entry,) = printed_json("status", f"msg-{state}")
        assert msgspec.convert(entry, LedgerEntry).state is state
