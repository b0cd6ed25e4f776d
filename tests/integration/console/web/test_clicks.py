"""What changes something, clicked in Chromium as a person does: asked first, done, and seen."""

import re
from typing import Any

import pytest
from mypy_boto3_sqs import SQSClient
from playwright.sync_api import Browser, Page

from bouncer_console import ip_filters
from bouncer_console.policy_in_force import InForce
from bouncer_console.web.app import Server
from bouncer_console.web.pages import policy
from tests.integration.console.builders import (
    DROPS,
    POLICY,
    Stack,
    dead_bounce,
    number_in,
)
from tests.integration.console.test_ip_filters import Ses
from tests.integration.console.web.chromium import needs_chromium, opened

pytestmark = needs_chromium


def _go(page: Page, served: Server, path: str) -> None:
    page.goto(f"http://127.0.0.1:{served.port}{path}")
    page.wait_for_selector("main:not(:has(progress))", timeout=30_000)


def test_a_network_is_blocked_and_let_in_again(
    chromium: Browser, served: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ip_filters, "_PAUSE_SECONDS", 0)
    ses = served.site._clients["ses"] = Ses()
    with opened(chromium, served, "phone") as (page, trouble):
        _go(page, served, "/attack")
        page.get_by_role("link", name="IP filters").first.click()
        page.get_by_label("Block an address or a network").fill("203.0.113.9/24")
        page.get_by_role("button", name="Block …").click()
        page.get_by_role("link", name="Leave it").click()
        assert ses.filters.all() == []
        _go(page, served, "/attack/filters")
        page.get_by_label("Block an address or a network").fill("203.0.113.9/24")
        page.get_by_role("button", name="Block …").click()
        page.get_by_role("button", name=re.compile("^Block")).click()
        page.wait_for_selector("text=203.0.113.0/24 is blocked now")
        assert ses.filters.blocks("203.0.113.77")
        _go(page, served, "/attack/filters")
        page.get_by_role("button", name="Remove the filter for 203.0.113.0/24").click()
        page.get_by_role("button", name=re.compile("^Remove")).click()
        page.wait_for_selector("text=The filter for 203.0.113.0/24 is gone")
        assert ses.filters.all() == []
        page.wait_for_selector("text=There are none")
    assert trouble == []


def test_dead_letters_are_told_apart_and_tried_again(
    chromium: Browser, served: Server, stack: Stack, sqs: SQSClient
) -> None:
    dead_bounce(sqs, stack, "msg3", hours=30)
    sqs.send_message(QueueUrl=stack.outputs["AuditDeadLetterQueue"], MessageBody="{")
    with opened(chromium, served) as (page, trouble):
        _go(page, served, "/dead-letters")
        row = page.get_by_role("row")
        assert row.filter(has_text="msg1").get_by_text("can be tried again").count() == 1
        assert row.filter(has_text="msg3").get_by_text("too old").count() == 1
        assert row.filter(has_text="msg3").get_by_role("button").count() == 0
        assert row.filter(has_text="notice").get_by_text("unreadable").count() >= 1
        row.filter(has_text="msg1").get_by_role("button", name="Try again …").click()
        page.get_by_role("button", name="Try again").click()
        page.wait_for_selector("text=1 given back")
        assert number_in(sqs, stack.bounce_queue) == 1
        page.get_by_role("button", name="Try all 1 again …").click()
        page.get_by_role("button", name="Try again").click()
        page.wait_for_selector("text=1 given back")
        assert number_in(sqs, stack.dead_letters) == 1, "what is too old stays"
    assert trouble == []


def test_a_policy_is_compared_and_deployed(
    chromium: Browser,
    served: Server,
    stack: Stack,
    deployed_policies: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack.parameters["PolicySource"] = "appconfig"
    # moto deploys no policy, so none can be read.
    force = InForce(text=POLICY, source="AppConfig")
    monkeypatch.setattr(policy, "policy_in_force", lambda _: force)
    with opened(chromium, served) as (page, trouble):
        _go(page, served, "/policy")
        page.get_by_role("link", name="Compare with another policy").click()
        page.get_by_label("Your policy").fill(DROPS)
        page.get_by_role("button", name="Compare", exact=True).click()
        page.get_by_role("button", name="Deploy yours …").click()
        page.wait_for_selector("text=Deploy this policy to ses-bouncer?")
        page.get_by_role("link", name="Leave it").click()
        assert deployed_policies == []
        page.get_by_role("button", name="Deploy yours …").click()
        page.get_by_role("button", name="Deploy it").click()
        page.wait_for_selector("text=is being deployed: it holds within a minute")
        assert len(deployed_policies) == 1
    assert trouble == []
