"""The page that writes a mail, for AWS on this machine only."""

from email import message_from_bytes

import pytest

from bouncer_console.web.pages import PAGES, write
from tests.integration.console.builders import Stack
from tests.unit.web.builders import Browser, LocalMail

FIELDS = {
    "mail_from": "pat@sender.example",
    "recipients": "nobody@example.com, alice@example.com",
    "subject": "Hello\r\nBcc: you@example.com",
    "text": "Hi",
    "size": "100 kB",
    "headers": "List-Id: <list.sender.example>\nX-More: 1",
} | dict.fromkeys(write.CHECKS, "PASS")


@pytest.fixture
def local() -> LocalMail:
    return LocalMail()


@pytest.fixture
def here(stack: Stack, local: LocalMail) -> Browser:
    return Browser(local=local)


def test_for_a_deployed_stack_there_is_no_such_page(browser: Browser) -> None:
    assert "Write a mail" not in browser.get("/dead-letters").html
    assert browser.get("/write").status == 404
    assert browser.post("/write/send", FIELDS).status == 404
    assert write.PAGE in PAGES


def test_a_mail_is_written_sent_and_watched(here: Browser, local: LocalMail) -> None:
    assert "Write a mail" in here.get("/write").text
    watched = here.post("/write/send", FIELDS | {"spf": "FAIL"})
    ((mail_from, recipients, data),) = local.sent
    mail = message_from_bytes(data)
    assert mail_from == "pat@sender.example"
    assert recipients == ("nobody@example.com", "alice@example.com")
    assert (mail["X-Local-SPF"], mail["X-Local-DKIM"]) == ("FAIL", "PASS")
    assert (mail["List-Id"], mail["Bcc"]) == ("<list.sender.example>", None)
    assert 100_000 <= len(data) < 101_000
    assert "Under way" in watched.text
    assert 'http-equiv="refresh"' in watched.html
    step = {"rule": "<b>r</b>", "action": "Lambda", "result": "STOP_RULE_SET"}
    local.trace = {"done": True, "steps": [step]}
    done = here.get("/write/sent", id="mail1")
    assert "STOP_RULE_SET" in done.text
    assert "&lt;b&gt;r" in done.html
    assert 'http-equiv="refresh"' not in done.html


def test_the_null_sender_can_be_written(here: Browser, local: LocalMail) -> None:
    here.post("/write/send", FIELDS | {"mail_from": "<>", "size": ""})
    assert local.sent[0][0] == ""


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("recipients", "", "1 to 50 recipients"),
        ("recipients", "a@example.com " * 51, "1 to 50 recipients"),
        ("recipients", "refused@example.net", "550"),
        ("size", "41 MB", "at most 40 MB"),
        ("size", "large", "large"),
        ("spf", "MAYBE", "no verdict"),
    ],
)
def test_what_cannot_be_sent_is_said(
    here: Browser, local: LocalMail, field: str, value: str, said: str
) -> None:
    page = here.post("/write/send", FIELDS | {field: value})
    assert (page.status, said in page.text) == (400, True), page.text
    assert not local.sent
