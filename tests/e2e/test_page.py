"""The page for AWS on this machine, as `make local` serves it."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from bouncer_console.web.site import ProblemError
from local.demo import until
from local.stack import DOMAINS, RULE_SET, Aws, prepare_account, running
from local.web import LocalMail, page


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """With a rule that stops every mail to the domain."""
    with running(outbox=tmp_path_factory.mktemp("outbox")) as started:
        prepare_account(started)
        ses = started.client("ses")
        rule = {
            "Name": "stop",
            "Enabled": True,
            "Recipients": [DOMAINS[0]],
            "Actions": [{"StopAction": {"Scope": "RuleSet"}}],
        }
        ses.create_receipt_rule(RuleSetName=RULE_SET, Rule=rule)
        ses.set_active_receipt_rule_set(RuleSetName=RULE_SET)
        yield started


def test_it_is_served_to_whoever_has_its_address(aws: Aws) -> None:
    with page(aws) as address, httpx.Client(trust_env=False) as browser:
        base = address.partition("?")[0]
        assert browser.get(base).status_code == 403
        assert browser.get(address).status_code == 303
        written = browser.get(base + "write")
        assert "Write a mail" in written.text
        assert "AWS on this machine" in written.text
        assert "does not exist" in browser.get(base + "directory").text, "no stack is deployed"
    with pytest.raises(httpx.ConnectError):
        httpx.get(base, trust_env=False)


def test_a_mail_that_is_written_there_goes_through_the_rules(aws: Aws) -> None:
    local = LocalMail(aws)
    message_id = local.send("", [f"nobody@{DOMAINS[0]}"], b"Subject: x\r\n\r\nx\r\n")

    def through() -> Mapping[str, Any] | None:
        found = local.steps(message_id)
        return found if found and found["done"] else None

    trace = until(through, "the rules did not end")
    assert [each["rule"] for each in trace["steps"]] == ["stop"]
    assert local.steps("made-up") is None


@pytest.mark.parametrize("to", ["nobody@other.example", "ä@example.com", "a b", "x" * 2000])
def test_a_mail_that_ses_refuses_is_said(aws: Aws, to: str) -> None:
    with pytest.raises(ProblemError):
        LocalMail(aws).send("pat@sender.example", [to], b"Subject: x\r\n\r\nx\r\n")
