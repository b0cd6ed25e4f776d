"""Every page, whatever it is about."""

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from bouncer_console.web.pages import PAGES
from tests.integration.console.builders import Stack
from tests.unit.web.builders import Browser, LocalMail

SHOWN = [page.path + view.path for page in PAGES for view in page.views if view.method == "GET"]
EVIL = '"><script>alert(1)</script>\x1b[31m\u202e' + "W" * 2000
QUERY = ("find", "after", "address", "id", "said", "draft", "subject", "fuller", "status", "kind")


@pytest.fixture
def here(stack: Stack) -> Browser:
    return Browser(local=LocalMail())


@pytest.mark.parametrize("path", SHOWN)
def test_a_page_shows_something_and_never_a_fault(here: Browser, path: str) -> None:
    page = here.get(path)
    assert page.status < 500, page.text
    assert "<h1>" in page.html
    assert "is broken" not in page.text


@pytest.mark.parametrize("path", SHOWN)
def test_whatever_is_asked_for_is_text(here: Browser, path: str) -> None:
    page = here.get(path, None, **dict.fromkeys(QUERY, EVIL))
    assert "is broken" not in page.text
    assert "<script" not in page.html
    assert len(page.html) < 100_000


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": f"{code}: not <b>you</b>"}}, "Scan")


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (refused("AccessDeniedException"), "give them the permission that is named"),
        (refused("ExpiredTokenException"), "aws sso login"),
        (refused("ThrottlingException"), "load this page again"),
        (EndpointConnectionError(endpoint_url="https://dynamodb.example"), "Look at the network"),
        (NoCredentialsError(), "Log in"),
    ],
)
def test_what_aws_refuses_is_one_message_with_its_mend(
    browser: Browser, stack: Stack, error: Exception, mend: str
) -> None:
    def refuse(**_: Any) -> None:
        raise error

    stack.hooks.append(("dynamodb", "before-call.dynamodb.Scan", refuse))
    page = browser.get("/directory")
    assert (page.status, mend in page.text) == (502, True), page.text
    assert "Traceback" not in page.html
    assert "<b>you" not in page.html


def test_a_stack_that_is_not_there_is_said(browser: Browser) -> None:
    browser.site.stack = "another"
    page = browser.get("/directory")
    assert page.status == 502
    assert "name yours with --stack" in page.text


def test_a_fault_of_ours_says_nothing_of_the_session(
    browser: Browser, stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("\x1b[31mbroken")

    stack.hooks.append(("dynamodb", "before-call.dynamodb.Scan", fail))
    page = browser.get("/directory")
    assert page.status == 500
    assert "RuntimeError" not in page.html
    told = capsys.readouterr().err
    assert "\\x1b[31mbroken" in told
    assert browser.site.csrf not in told
    assert "the-token" not in told
