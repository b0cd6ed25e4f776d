"""The report as one file that needs nothing else and runs nothing."""

import base64
import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from bouncer_console import plots, web
from bouncer_console.facts.mails import MailFacts
from bouncer_console.facts.totals import Totals, lists
from bouncer_console.web.text import environment

_STYLE = Path(web.__file__).with_name("static") / "style.css"
_ELSEWHERE = re.compile(r"^[^\n]*url\([^\n]*\n", re.MULTILINE)


def page(sums: Totals, *, stack: str, mode: str, hashed: bool) -> str:
    """The HTML, with its style and pictures inside."""
    style = _ELSEWHERE.sub("", _STYLE.read_text("utf-8")).strip()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    csp = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    made = environment()
    made.globals.update(first_rule=first_rule, also_objecting=also_objecting)
    return made.get_template("report.html").render(
        sums=sums,
        stack=stack,
        mode=mode,
        hashed=hashed,
        made=datetime.now(UTC),
        csp=Markup(csp),  # noqa: S704  (ours, and nothing of a mail)
        style=Markup(style),  # noqa: S704  (likewise)
        lists=lists(sums),
        plot=plots.columns(sums.over_time, title="Refused recipients")
        if sums.over_time.series
        else None,
    )


def first_rule(mail: MailFacts) -> str:
    return mail.refused[0].reason if mail.refused else ""


def also_objecting(mail: MailFacts) -> str:
    return ", ".join(each for each in mail.objections if each != mail.suppressed)
