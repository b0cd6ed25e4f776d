"""Write a mail: only where AWS is on this machine, and nobody gets it."""

from datetime import UTC, datetime
from email.utils import format_datetime, make_msgid

from starlette.responses import Response

from bouncer.policy.conditions import parse_size
from bouncer_console.mail import CONTROL_PREFIX
from bouncer_console.web.site import Ask, Page, ProblemError, get, post
from bouncer_console.web.text import link

_RECIPIENTS = 50
_SIZE = 40_000_000
VERDICTS = ("PASS", "FAIL", "GRAY", "PROCESSING_FAILED", "DISABLED")
CHECKS = ("spam", "virus", "spf", "dkim", "dmarc")
_DEFAULTS = {
    "mail_from": "you@sender.example",
    "recipients": "nobody@example.com",
    "subject": "A test",
    "size": "",
    "headers": "",
    "text": "Hello",
    **dict.fromkeys(CHECKS, "PASS"),
}


def form(ask: Ask) -> Response:
    values = {name: ask.query.get(name, value) for name, value in _DEFAULTS.items()}
    return ask.show("write.html", values=values, checks=CHECKS, verdicts=VERDICTS)


def send(ask: Ask) -> Response:
    values = {name: ask.form.get(name, "") for name in _DEFAULTS}
    mail_from = values["mail_from"].strip().strip("<>")
    recipients = values["recipients"].replace(",", " ").split()
    if not 0 < len(recipients) <= _RECIPIENTS:
        ask.fail(f"Write 1 to {_RECIPIENTS} recipients, as SES takes them.")
    if ask.site.local is None:
        ask.fail("There is no AWS on this machine.", status=404)
    mail = written(mail_from, recipients, values)
    message_id = ask.site.local.send(mail_from, recipients, mail)
    return ask.done(f"SES has it as {message_id}.", link("/write/sent", id=message_id))


def written(mail_from: str, recipients: list[str], values: dict[str, str]) -> bytes:
    """The mail of a form.

    Raises:
        ProblemError: one that nobody can send.
    """
    size = parse_size(values["size"]) if values["size"].strip() else 0
    if size > _SIZE:
        raise ProblemError("SES takes mails of at most 40 MB.")
    fields = [
        ("From", f"<{mail_from or 'mailer-daemon@sender.example'}>"),
        ("To", ", ".join(f"<{each}>" for each in recipients)),
        ("Subject", values["subject"]),
        ("Date", format_datetime(datetime.now(UTC))),
        ("Message-ID", make_msgid(domain="sender.example")),
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=utf-8"),
        *((f"{CONTROL_PREFIX}{check.upper()}", _verdict(values[check])) for check in CHECKS),
    ]
    lines = [f"{name}: {' '.join(value.split())}" for name, value in fields]
    lines += [each for each in values["headers"].replace("\r\n", "\n").split("\n") if each.strip()]
    head = "\r\n".join(lines).encode("utf-8", "replace") + b"\r\n\r\n"
    text = values["text"].replace("\r\n", "\n").replace("\n", "\r\n").encode("utf-8", "replace")
    missing = max(size - len(head) - len(text), 0)
    filler = (b"x" * 76 + b"\r\n") * (missing // 78) + b"x" * (missing % 78)
    return head + text + (b"\r\n" + filler if filler else b"") + b"\r\n"


def _verdict(text: str) -> str:
    if text not in VERDICTS:
        raise ProblemError(f"{text!r} is no verdict of SES's.")
    return text


def sent(ask: Ask) -> Response:
    """What the receipt rules did with it, until they are through."""
    message_id = ask.query.get("id", "")[:200]
    if ask.site.local is None:
        ask.fail("There is no AWS on this machine.", status=404)
    trace = ask.site.local.steps(message_id)
    done = bool(trace and trace.get("done"))
    return ask.show(
        "sent.html",
        message_id=message_id,
        trace=trace,
        refresh=None if done else 1,
        pages={each.path for each in ask.site.pages},
    )


PAGE = Page(
    path="/write",
    title="Write a mail",
    views=[get("", form), post("/send", send), get("/sent", sent)],
    only_local=True,
)
