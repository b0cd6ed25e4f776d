"""The page of an attack, and what helps."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer_console import ip_filters
from bouncer_console.policy_in_force import InForce
from bouncer_console.web.text import link
from tests.fakes.bounces import NOBODY
from tests.integration.builders import PAT
from tests.integration.console.builders import POLICY, Stack
from tests.integration.console.test_ip_filters import Ses
from tests.unit.web.builders import Answer, Browser

EVIL = '"><img src=x onerror=alert(1)>@evil.example'


def flood(stack: Stack, number: int = 30, sender: str = PAT, **fields: object) -> None:
    for each in range(number):
        refused = {
            "recipient": f"guess{each}@example.com",
            "outcome": "bounce",
            "reason": "unknown-recipient",
            "dry_run": False,
            "state": "suppressed" if fields else "sent",
        }
        line = {
            "message": "mail handled",
            "ses_message_id": f"{sender[:3]}{each}",
            "sender": sender,
            "client": f"198.51.100.{each % 4}",
            "disposition": "STOP_RULE",
            "recipients": [refused],
            **fields,
        }
        stack.logs.add(datetime.now(UTC) - timedelta(minutes=each), json.dumps(line))


def shown(browser: Browser, since: str = "24h") -> Answer:
    """The page, once the log is read and the plots are drawn."""
    for _ in range(200):
        page = browser.get("/attack", since=since)
        if "Still asking" not in page.text:
            return page
        time.sleep(0.2)
    raise AssertionError(page.text)


def test_it_shows_who_is_refused_who_writes_and_what_is_held_back(
    browser: Browser, stack: Stack
) -> None:
    flood(stack)
    flood(stack, 5, "else@other.example", suppressed="client-budget")
    page = shown(browser)
    for part in (PAT, "sender.example", "198.51.100.0/24", "198.51.100.1", "client-budget"):
        assert part in page.text
    assert page.html.count("data:image/svg+xml;base64,") == 6
    assert "sender=pat%40sender.example" in page.html
    assert "/attack/mend?kind=Host" in page.html
    assert "else@other.example" in page.text


def test_nothing_happened_is_shown_too(browser: Browser) -> None:
    for since in ("1h", "24h", "7d", "nonsense"):
        assert "No guard and no budget" in shown(browser, since).text


def test_what_a_mail_says_is_text(browser: Browser, stack: Stack) -> None:
    flood(stack, 3, EVIL)
    page = shown(browser)
    assert "<img src=x" not in page.html
    assert EVIL in page.text
    mend = browser.get(link("/attack/mend", kind="Sender", name=EVIL))
    assert "<img src=x" not in mend.html


def test_a_sender_is_denied_by_a_rule_that_can_be_tried(browser: Browser) -> None:
    page = browser.get("/attack/mend?kind=Domain&name=sender.example")
    assert 'when.sender = "@sender.example"' in page.text
    assert "/policy/compare?draft=" in page.html


def test_a_hash_has_no_rule_and_no_filter(browser: Browser) -> None:
    for kind in ("Sender", "Host", "Network"):
        assert "a hash" in browser.get(f"/attack/mend?kind={kind}&name=0123456789abcdef01").text


def test_an_unknown_recipient_s_mend_is_the_rules(
    browser: Browser, stack: Stack, dynamodb: DynamoDBClient
) -> None:
    page = browser.get(link("/attack/mend", kind="Recipient", name=NOBODY))
    assert "bouncer rules sync" in page.text
    assert "/attack/sync" in page.html


def test_a_host_is_blocked_after_a_question(browser: Browser) -> None:
    page = browser.get("/attack/mend?kind=Host&name=198.51.100.7")
    assert "bouncer rules filter add 198.51.100.7" in page.text
    asked = browser.post("/attack/block", {"address": "198.51.100.7"})
    assert "Block 198.51.100.7?" in asked.text
    assert "no address" in browser.post("/attack/block", {"address": "; rm -rf /"}).text


def test_what_is_blocked_is_listed_and_removed_after_a_question(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ip_filters, "_PAUSE_SECONDS", 0)
    ses = browser.site._clients["ses"] = Ses()
    assert "There are none" in browser.get("/attack/filters").text
    page = browser.post("/attack/block", {"address": "203.0.113.9/24", "sure": "yes"})
    assert "203.0.113.0/24 is blocked now" in page.text
    assert "1 of 100" in page.text
    (blocked,) = ses.filters.all()
    asked = browser.post("/attack/unblock", {"name": blocked.name})
    assert f"Remove the IP filter {blocked.name}?" in asked.text
    assert ses.filters.all() == [blocked]
    gone = browser.post("/attack/unblock", {"name": blocked.name, "sure": "yes"})
    assert "The filter for 203.0.113.0/24 is gone" in gone.text
    assert ses.filters.all() == []
    again = browser.post("/attack/unblock", {"name": "<b>", "sure": "yes"})
    assert "there is no filter" in again.text


def test_the_command_of_a_rule_is_that_of_the_stack(browser: Browser, stack: Stack) -> None:
    there = "/attack/mend?kind=Domain&name=sender.example"
    assert "sam deploy" in browser.get(there).text
    stack.parameters["PolicySource"] = "appconfig"
    browser.site.forget()
    browser.site.jobs.forget(("policy",))
    browser.site.jobs.ask(
        ("policy", "ses-bouncer"), lambda _: InForce(text=POLICY, source="AppConfig")
    )
    assert "bouncer policy push policy.toml" in browser.get(there).text
