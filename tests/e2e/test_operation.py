"""The operator's commands on the deployed stack, run as a person runs them."""

import json
import smtplib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bouncer.aws.slots import SLOTS_ITEM
from local.demo import until
from tests.e2e.conftest import Site
from tests.e2e.test_permissions import without


def bouncer(site: Site, *arguments: str) -> Any:
    """Run the console command with --json; what it printed."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("bouncer")), *arguments, "--json"],
        env=site.aws.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run(site: Site, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(Path(sys.executable).with_name("bouncer")), *arguments],
        env=site.aws.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_status_tells_what_happened_to_each_recipient(site: Site) -> None:
    message_id = site.mail("nobody@example.com", "full@example.com", "alice@example.com")
    site.trace(message_id)
    entries = {each["recipient"]: each for each in bouncer(site, "status", message_id)["ledger"]}
    assert set(entries) == {"nobody@example.com", "full@example.com"}
    assert entries["full@example.com"]["state"] == "sent"
    (call,) = site.bounces(message_id)
    assert entries["full@example.com"]["reason"] == "over-quota"
    assert entries["full@example.com"]["bounce_id"] == call["message_id"]


def test_the_stack_at_a_glance_counts_what_the_functions_counted(site: Site) -> None:
    message_id = site.mail("nobody@example.com")
    site.trace(message_id)
    found = until(
        lambda: next((g for g in [bouncer(site, "status")] if g["last_hour"]["sent"]), None),
        "nothing was counted",
    )
    assert found["unread"] == {}
    assert found["mode"] == "enforce"
    assert len(found["dead_letters"]) == 4
    assert {each["state"] for each in found["alarms"]} <= {"OK", "ALARM", "INSUFFICIENT_DATA"}
    refused = run(site, "status", "never-existed")
    assert (refused.returncode, "No mail" in refused.stderr) == (1, True)


def test_an_attackers_bounces_are_taken_out_of_the_queue(site: Site) -> None:
    """No slot is near and no worker is there; once it is, it throws away what was taken out."""
    dynamodb, table = site.client("dynamodb"), site.outputs["BounceTable"]
    ahead = {"next_slot": {"N": f"{time.time() + 30:.6f}"}}
    dynamodb.put_item(TableName=table, Item=SLOTS_ITEM | ahead)
    lambda_ = site.client("lambda")
    (worker,) = lambda_.list_event_source_mappings(FunctionName=site.physical_id("SendFunction"))[
        "EventSourceMappings"
    ]
    lambda_.update_event_source_mapping(UUID=worker["UUID"], Enabled=False)
    eve = [site.mail(f"nobody{n}@example.com", sender="eve@evil.example") for n in range(2)]
    pat = site.mail("nobody@example.com", sender="kim@kind.example")
    for message_id in (*eve, pat):
        site.trace(message_id)

    waiting = bouncer(site, "queue")
    assert waiting["waiting"] >= 3
    assert {"name": "evil.example", "waiting": 2} in waiting["domains"]
    assert bouncer(site, "status", pat)["place"]["position"] >= 1
    done = bouncer(site, "queue", "drop", "--domain", "evil.example", "--run")
    assert {each["message_id"] for each in done["taken_out"]} == set(eve)

    lambda_.update_event_source_mapping(UUID=worker["UUID"], Enabled=True)
    until(lambda: site.bounces(pat) or None, "the queue was not drained", seconds=120)
    for message_id in eve:
        (entry,) = bouncer(site, "status", message_id)["ledger"]
        assert (entry["state"], entry["reason"]) == ("suppressed", "taken-out")
        assert site.bounces(message_id) == []


def test_a_blocked_address_may_not_send(site: Site) -> None:
    def send() -> tuple[int, bytes]:
        with smtplib.SMTP(
            "127.0.0.1", site.aws.smtp_port, timeout=60, source_address=("127.0.0.9", 0)
        ) as client:
            client.ehlo("mx.evil.example")
            client.mail("eve@evil.example")
            return client.rcpt("nobody@example.com")

    assert send()[0] == 250
    assert bouncer(site, "rules", "filter", "add", "127.0.0.9")["new"]
    code, text = send()
    assert (code, b"5.7.1" in text) == (550, True)
    site.mail("alice@example.com")  # from 127.0.0.1
    bouncer(site, "rules", "filter", "remove", "127.0.0.9")
    assert send()[0] == 250


def audit_failed(site: Site, message_id: str) -> bool | None:
    """Whether the audit says that it could not settle this mail."""
    found = site.client("logs").filter_log_events(
        logGroupName=site.outputs["InboundLogGroup"], filterPattern=message_id
    )
    return any('"AuditFailed"' in each["message"] for each in found["events"]) or None


def test_redrive_shows_first_and_then_gives_the_event_to_the_audit(site: Site) -> None:
    """Which could not decide the mail before, either."""
    with (
        without(site, "InboundRole", "LookMailboxesUp", "dynamodb:BatchGetItem"),
        without(site, "AuditRole", "LookMailboxesUp", "dynamodb:BatchGetItem"),
    ):
        message_id = site.mail("nobody@example.com")
        assert site.result(message_id) == "CONTINUE"
        until(lambda: audit_failed(site, message_id), "the audit did not look at the notice")

    def of_this_mail(report: Any) -> list[Any]:
        return [each for each in report["letters"] if each["message_id"] == message_id]

    (shown,) = of_this_mail(bouncer(site, "redrive"))
    assert shown["verdict"] == "again"
    assert shown["result"] is None
    assert site.bounces(message_id) == []

    (done,) = of_this_mail(bouncer(site, "redrive", "--run"))
    assert done["result"] == "queued"
    until(lambda: site.bounces(message_id) or None, "the audit did not decide it", seconds=60)
    assert len(site.bounces(message_id)) == 1
    assert of_this_mail(bouncer(site, "redrive")) == []


def test_redrive_gives_an_old_event_to_the_audit_too_which_bounces_nobody(site: Site) -> None:
    old = [("X-Local-Received-At", "2020-01-01T00:00:00+00:00")]
    with without(site, "InboundRole", "LookMailboxesUp", "dynamodb:BatchGetItem"):
        message_id = site.mail("nobody@example.com", headers=old)
        site.trace(message_id)
    report = bouncer(site, "redrive", "--run")
    (letter,) = [each for each in report["letters"] if each["message_id"] == message_id]
    assert (letter["verdict"], letter["result"]) == ("again", "queued")
    (entry,) = until(
        lambda: bouncer(site, "status", message_id)["ledger"] or None,
        "the audit did not end it",
        seconds=60,
    )
    assert (entry["state"], entry["reason"]) == ("expired", "window-closed")
    assert site.bounces(message_id) == []


def test_send_bounce_goes_through_ledger_and_limiter_once(site: Site) -> None:
    message_id = site.mail("alice@example.com", "bob@example.com")
    site.trace(message_id)
    arguments = [
        "send-bounce",
        "--original-message-id", message_id,
        "--bounce-sender", "mailer-daemon@example.com",
        "--explanation", "Alice has left.",
        "--bounced-recipient-info-list",
        "Recipient=alice@example.com,RecipientDsnFields={Action=failed,Status=5.1.6}",
    ]  # fmt: skip
    (fate,) = bouncer(site, *arguments)
    assert (fate["state"], fate["status"]) == ("sent", "5.1.6")
    (call,) = site.bounces(message_id)
    assert call["request"]["Explanation"] == "Alice has left."

    again = run(site, *arguments)
    assert again.returncode == 1
    assert "settled before" in again.stderr
    assert len(site.bounces(message_id)) == 1


def test_send_bounce_refuses_a_mail_of_yesterday(site: Site) -> None:
    request = {
        "OriginalMessageId": "some-id",
        "BounceSender": "mailer-daemon@example.com",
        "BouncedRecipientInfoList": [
            {"Recipient": "alice@example.com", "BounceType": "DoesNotExist"}
        ],
    }
    done = run(
        site, "send-bounce", "--cli-input-json", json.dumps(request),
        "--received-at", "2020-01-01T00:00:00",
    )  # fmt: skip
    assert done.returncode == 1
    assert "24 hours" in done.stderr


def test_activation_refuses_to_replace_another_active_set(site: Site) -> None:
    site.client("ses").create_receipt_rule_set(RuleSetName="other")
    refused = run(site, "rules", "activate", "other")
    assert refused.returncode == 1
    assert "local is the active rule set" in refused.stderr
    assert run(site, "rules", "activate", "other", "--replace").returncode == 0
    assert run(site, "rules", "activate", "local", "--replace").returncode == 0
    assert "already" in run(site, "rules", "activate", "local").stdout


def _used(site: Site, address: str) -> tuple[int, int]:
    shown = bouncer(site, "mailbox", "show", address)
    return shown["used_bytes"], shown["messages_today"]


def test_usage_is_counted_given_back_and_counted_again(site: Site) -> None:
    """Accept, delete, accept again; replays change nothing."""
    address = "counted@example.com"
    assert run(site, "mailbox", "add", address, "--quota", "1 MB").returncode == 0
    message_id = site.mail(address)
    site.trace(message_id)
    s3, bucket, key = site.client("s3"), site.outputs["MailBucket"], f"mail/{message_id}"
    size = s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
    assert _used(site, address) == (size, 1)

    event = {"detail": {"object": {"key": key}}}
    s3.delete_object(Bucket=bucket, Key=key)
    until(lambda: True if _used(site, address) == (0, 1) else None, "the bytes did not come back")
    for _ in range(2):  # EventBridge delivers at least once
        site.client("lambda").invoke(
            FunctionName=site.physical_id("UsageFunction"), Payload=json.dumps(event)
        )
    assert _used(site, address) == (0, 1)

    second = site.mail(address)
    site.trace(second)
    assert _used(site, address) == (size, 2)
    assert bouncer(site, "mailbox", "recount")["deletions_missed"] == []


def test_rules_sync_refuses_where_refused_mail_stops_for_everyone(site: Site) -> None:
    assert site.outputs["RefusedMailStops"] == "rule-set"
    refused = run(site, "rules", "sync", "--yes")
    assert refused.returncode == 1
    assert "StopScope=rule" in refused.stderr


def test_the_directory_goes_out_and_in_again(site: Site, tmp_path: Path) -> None:
    """Export, import dry: nothing differs. 2,000 new ones come in once."""
    file = tmp_path / "all.csv"
    assert run(site, "mailbox", "export", str(file)).returncode == 0
    counts = bouncer(site, "mailbox", "import", str(file), "--dry-run")["counts"]
    assert set(counts) == {"unchanged"}

    many = tmp_path / "many.csv"
    rows = "".join(f"user{n}@many.example.com,{n + 1}000\n" for n in range(2000))
    many.write_text("address,quota_bytes\n" + rows)
    assert "--new-domains" in run(site, "mailbox", "import", str(many)).stderr
    added = bouncer(site, "mailbox", "import", str(many), "--new-domains")["counts"]
    assert added == {"added": 2000}
    assert bouncer(site, "mailbox", "import", str(many))["counts"] == {"unchanged": 2000}
