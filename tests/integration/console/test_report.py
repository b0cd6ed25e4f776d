"""`bouncer report`: the table, the JSON, and the file for a colleague."""

import base64
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bouncer.pseudonym import pseudonym
from bouncer_console import plots
from bouncer_console.facts.mails import MailFacts, merged, parse_line
from bouncer_console.facts.pseudonymous import pseudonymous
from bouncer_console.facts.totals import OverTime, Series, totals
from bouncer_console.report.page import page
from tests.fakes.bounces import NOBODY
from tests.integration.builders import PAT
from tests.integration.console.builders import Stack, bouncer, error_of, printed_json, text_of

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def line(message_id: str, *recipients: dict[str, Any], **fields: Any) -> str:
    return json.dumps(
        {
            "message": "mail handled",
            "ses_message_id": message_id,
            "sender": PAT,
            "client": "198.51.100.7",
            "disposition": "STOP_RULE",
            "recipients": recipients,
            **fields,
        }
    )


def to(address: str = NOBODY, **fields: Any) -> dict[str, Any]:
    return {
        "recipient": address,
        "outcome": "bounce",
        "reason": "unknown-recipient",
        "dry_run": False,
        "state": "sent",
        **fields,
    }


@pytest.fixture
def log(stack: Stack) -> Stack:
    accepted = to("alice@example.com", outcome="accept", reason="accept")
    would = to("would@example.com", dry_run=True, state="suppressed")
    lines = (
        line("msg1", to()),
        line("msg2", to(), to("bob@example.com", state="rejected", error_code="MessageRejected")),
        line("msg3", accepted),
        line("msg4", to(state="suppressed"), suppressed="spf-failed", sender="x@forged.example"),
        line("msg5", to(state="suppressed"), suppressed="client-budget"),
        line("msg6", would, suppressed="observe-mode", observed=True),
        line("msg7", to("late@example.com", dry_run=True, state=None, reason="new-rule")),
    )
    for number, each in enumerate(lines):
        stack.logs.add(datetime.now(UTC) - timedelta(minutes=10 + number), each)
    stack.logs.add(datetime.now(UTC) - timedelta(days=3), line("old", to()))
    return stack


def test_the_first_section_is_what_would_have_been_bounced(log: Stack) -> None:
    text = text_of("report")
    assert text.startswith("What would have been bounced in observe mode 1 recipients")
    assert text.index("would@example.com") < text.index("7 mails were decided")
    assert "new-rule" in text


def test_it_counts_every_mail_and_names_who_was_refused(log: Stack) -> None:
    sums = printed_json("report")
    assert (sums["mails"], sums["refused_mails"]) == (7, 6)
    assert {e["name"]: e["recipients"] for e in sums["ends"]["top"]} == {
        "sent": 2,
        "suppressed": 2,
        "rejected": 1,
    }
    assert sums["recipients"]["top"][0]["name"] == NOBODY
    assert [e["name"] for e in sums["errors"]["top"]] == ["MessageRejected"]
    assert {e["reason"]: e["budget"] for e in sums["held"]} == {
        "client-budget": True,
        "spf-failed": False,
    }
    assert [e["name"] for e in sums["networks"]["top"]] == ["198.51.100.0/24"]
    assert printed_json("report", "--since", "7d")["mails"] == 8
    assert printed_json("report", "--since", "1m")["mails"] == 0
    text = text_of("report")
    for part in ("spf-failed", "client-budget", "x@forged.example", "198.51.100.7", "msg5"):
        assert part in text


def test_who_must_not_be_named_is_not(log: Stack, tmp_path: Path) -> None:
    for output in (
        bouncer("report", "--hash-addresses").output,
        bouncer("report", "--hash-addresses", "--json").output,
        _written(tmp_path, "--hash-addresses"),
    ):
        assert "unknown-recipient" in output
        for personal in (NOBODY, PAT, "sender.example", "forged.example", "198.51.100"):
            assert personal not in output


def test_a_stack_that_logs_hashes_is_not_hashed_once_more(log: Stack) -> None:
    log.parameters["LogAddresses"] = "hash"
    assert PAT in bouncer("report", "--hash-addresses").output  # as if it were one


def test_nothing_at_all_is_a_report_too(stack: Stack, tmp_path: Path) -> None:
    assert "0 mails were decided" in text_of("report")
    assert printed_json("report")["held"] == []
    assert "Nothing was refused in observe mode" in _written(tmp_path)


def test_a_time_that_ends_before_it_begins_is_refused(stack: Stack) -> None:
    assert "--since" in error_of("report", "--since", "1h", "--until", "2h", code=2)


# --- The file --------------------------------------------------------------------------------


def _written(folder: Path, *options: str) -> str:
    file = folder / "report.html"
    bouncer("report", "--html", file, *options)
    return file.read_text("utf-8")


class Seen(HTMLParser):
    """Tags with their attributes, and text, as a browser reads them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.style = ""
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "style":
            self.style += data
        else:
            self.text += data


def test_the_file_needs_nothing_else_and_may_run_nothing(log: Stack, tmp_path: Path) -> None:
    seen = Seen(_written(tmp_path))
    (policy,) = [
        attributes["content"]
        for tag, attributes in seen.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    digest = base64.b64encode(hashlib.sha256(seen.style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert "url(" not in seen.style
    assert "prefers-color-scheme: dark" in seen.style
    for tag, attributes in seen.tags:
        assert tag not in ("script", "link", "iframe", "object", "form", "base")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert seen.text.index("would@example.com") < seen.text.index("bob@example.com")


def facts(sender: str, recipient: str, client: str = "198.51.100.7") -> MailFacts:
    text = line("msg1", to(recipient, state="suppressed"), sender=sender, client=client)
    found = parse_line(text, NOW)
    assert found is not None
    return found


HOSTILE = st.text(max_size=60) | st.sampled_from(
    [
        "<script>alert(1)</script>@evil.example",
        '"><img src=x onerror=alert(1)>@evil.example',
        "{{ 7 * 7 }}@evil.example",
        "\x1b]0;owned\x07@evil.example",
        "$\\frac{1}{0}$@$x_{$.example",
        "_hidden@_hidden.example",
        "\u202eelpmaxe.live@evil.example",
        "x" * 999,
    ]
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sender=HOSTILE, recipient=HOSTILE, client=HOSTILE)
def test_what_a_mail_says_is_text_in_the_file_and_bounded(
    sender: str, recipient: str, client: str
) -> None:
    plain = page(
        _sums(facts("a@b.example", "c@d.example")), stack="s", mode="enforce", hashed=False
    )
    evil = page(_sums(facts(sender, recipient, client)), stack="s", mode="enforce", hashed=False)
    allowed = {tag for tag, _ in Seen(plain).tags}
    for tag, attributes in Seen(evil).tags:
        assert tag in allowed
        assert not [name for name in attributes if name.startswith("on")]
    assert len(evil) < len(plain) + 40_000
    assert "\x1b" not in evil
    assert "\u202e" not in evil


def _sums(*mails: MailFacts) -> Any:
    return totals(merged(mails), NOW - timedelta(hours=1), NOW + timedelta(hours=1))


@settings(max_examples=10, deadline=None)
@given(names=st.lists(HOSTILE, min_size=1, max_size=9, unique=True))
def test_a_plot_can_be_drawn_of_any_name(names: list[str]) -> None:
    starts = tuple(NOW + timedelta(hours=each) for each in range(24))
    series = tuple(Series(name=each, counts=(1,) * 24) for each in names)
    over = OverTime(starts=starts, width=timedelta(hours=1), series=series)
    plot = plots.columns(over, title="Refused")
    for address in (plot.light, plot.dark):
        svg = base64.b64decode(address.partition(",")[2]).decode()
        assert svg.lstrip().startswith("<?xml")
        assert "<script" not in svg
        assert not re.search(r"<image|href=\"http", svg)
    assert plot.light != plot.dark


def test_a_mail_without_names_tells_as_much_as_with_them() -> None:
    key = b"k" * 32
    mail = pseudonymous(facts(PAT, NOBODY), key)
    assert (mail.sender, mail.recipients[0].recipient) == (
        pseudonym(PAT, key),
        pseudonym(NOBODY, key),
    )
    assert pseudonymous(facts("<>", NOBODY), key).sender == "<>"
