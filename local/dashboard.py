"""`make dashboard`: the CloudWatch dashboard, as the template holds it.

`python -m local.dashboard` writes it where it stands; a test says when that is due. The body is
one JSON text in an Fn::Sub: `${Name}` is a resource, a parameter, or one of the template's pieces.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from bouncer.aws.telemetry import (
    BY_OUTCOME,
    BY_STATE,
    DOMAIN_UNKNOWN,
    FOUND,
    MAIL_HANDLED,
    NAMESPACE,
    SENDER_NOT_TOLD,
)
from bouncer.delivery.fate import Incident
from bouncer.delivery.ledger import BounceState
from bouncer_console.policy import laid_out
from local import blocks

_HEAD = "- |- # make dashboard"
_TILDE = "~"
"""Where a piece of JSON from the template stands in a list: `"~Name"` becomes `${Name}`."""

STACK = "${AWS::StackName}"
FUNCTIONS = ("Inbound", "Send", "Audit")
"""Those that every stack has; the others come in pieces, under their conditions."""
DEAD_LETTERS = ("Bounce", "Event", "Audit")
SENT, SUPPRESSED = BY_STATE[BounceState.SENT], BY_STATE[BounceState.SUPPRESSED]
EXPIRED, REJECTED = BY_STATE[BounceState.EXPIRED], BY_STATE[BounceState.REJECTED]
INCIDENTS = tuple(each.value for each in Incident if each is not Incident.REPEAT_PREVENTED)

FIELDS = (
    "message",
    "sender",
    "sender_domain",
    "recipients.0.recipient",
    "recipients.0.outcome",
)
"""Of the function's line about a mail, as Logs Insights names them."""

# The language: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
# Lists are flattened to fields with a number in their name, of which AWS discovers 200 a line: the
# first recipient's are always among them, so who is refused is asked of the line as a text.
_REFUSED = f'filter message = "{MAIL_HANDLED}" and @message like /"outcome": ?"bounce"/'
QUERIES = {
    "Senders refused most": f"{_REFUSED} "
    "| stats count(*) as mails by sender | sort mails desc | limit 20",
    "Sender domains refused most": f"{_REFUSED} "
    "| stats count(*) as mails by sender_domain | sort mails desc | limit 20",
    "Recipients refused most (each mail's first)": f'filter message = "{MAIL_HANDLED}" '
    'and recipients.0.outcome = "bounce" '
    "| stats count(*) as mails by recipients.0.recipient as recipient "
    "| sort mails desc | limit 20",
}


class _Page:
    """Widgets in rows of 24 columns."""

    def __init__(self) -> None:
        self.widgets: list[dict[str, Any]] = []
        self._y = 0

    def row(self, height: int, *widgets: dict[str, Any]) -> None:
        width = 24 // len(widgets)
        for number, widget in enumerate(widgets):
            place = {"x": number * width, "y": self._y, "width": width, "height": height}
            self.widgets.append({"type": widget.pop("type"), **place, "properties": widget})
        self._y += height


def body() -> dict[str, Any]:
    """The dashboard's body, with `${…}` and pieces not yet filled in."""
    page = _Page()
    page.row(
        6,
        _plot("Recipients by outcome", _outcomes(), stacked=True),
        _plot("What became of bounces", _ours(BY_STATE.values())),
    )
    page.row(
        6,
        _plot("Bounces sent, by reason", [_search(SENT, "Reason")], stacked=True),
        _plot("Bounces sent, by type", [_search(SENT, "BounceType")], stacked=True),
        _plot("Bounces not sent, by reason", [_search(SUPPRESSED, "Reason")], stacked=True),
    )
    page.row(
        6,
        _plot("Recipients told a minute, and the calls that SES allows", _pace(), period=60),
        _plot("Bounces that wait", _waiting(), statistic="Maximum"),
        _plot(
            "Age of the oldest that waits, in seconds",
            [_of_queue("ApproximateAgeOfOldestMessage", "Bounce")],
            statistic="Maximum",
            lines={"given up": 86400, "alarm": 21600},
        ),
    )
    page.row(
        6,
        *(
            _plot(f"Functions: {title}", _of_functions(metric), statistic=statistic)
            for title, metric, statistic in (
                ("errors", "Errors", "Sum"),
                ("throttles", "Throttles", "Sum"),
                ("longest duration, ms", "Duration", "Maximum"),
            )
        ),
    )
    visible = "ApproximateNumberOfMessagesVisible"
    page.row(
        6,
        _plot(
            "Dead letters",
            [
                *(_of_queue(visible, f"{each}DeadLetter", label=each) for each in DEAD_LETTERS),
                f"{_TILDE}UsageDeadLetters",
            ],
            statistic="Maximum",
        ),
        _plot(
            "The audit",
            _ours((FOUND, "BounceWithheld", "AuditFailed", "NoticeUnreadable", "MailRecordFailed")),
        ),
        _plot(
            "Worth a look",
            _ours((SENDER_NOT_TOLD, DOMAIN_UNKNOWN, "EventKept", "RefusedMailWentOn", *INCIDENTS)),
        ),
    )
    page.row(8, *(_table(title, query) for title, query in QUERIES.items()))
    return {"start": "-PT24H", "periodOverride": "inherit", "widgets": page.widgets}


def _plot(
    title: str,
    metrics: Sequence[Any],
    *,
    stacked: bool = False,
    statistic: str = "Sum",
    period: int = 300,
    lines: dict[str, int] | None = None,
) -> dict[str, Any]:
    horizontal = [{"label": label, "value": value} for label, value in (lines or {}).items()]
    return {
        "type": "metric",
        "title": title,
        "view": "timeSeries",
        "stacked": stacked,
        "region": "${AWS::Region}",
        "stat": statistic,
        "period": period,
        "yAxis": {"left": {"min": 0, "showUnits": False}},
        **({"annotations": {"horizontal": horizontal}} if horizontal else {}),
        "metrics": list(metrics),
    }


def _table(title: str, query: str) -> dict[str, Any]:
    return {
        "type": "log",
        "title": title,
        "view": "table",
        "region": "${AWS::Region}",
        "query": f"SOURCE '${{InboundLogGroup}}' | {query}",
    }


def _ours(names: Iterable[str]) -> list[Any]:
    return [[NAMESPACE, name, "service", STACK] for name in names]


def _outcomes() -> list[Any]:
    """Nobody counts the refused as such: they are the sum of their ends."""
    ends = (SENT, SUPPRESSED, EXPIRED, REJECTED)
    hidden = [
        [NAMESPACE, name, "service", STACK, {"id": f"end{n}", "visible": False}]
        for n, name in enumerate(ends)
    ]
    total = " + ".join(f"FILL(end{n}, 0)" for n in range(len(ends)))
    return [
        *_ours((*BY_OUTCOME.values(), "RecipientDryRun")),
        *hidden,
        [{"expression": total, "label": "Refused", "id": "refused"}],
    ]


def _search(metric: str, by: str) -> list[Any]:
    names = ["service", "Reason"] + (["BounceType"] if by == "BounceType" else [])
    schema = ",".join((NAMESPACE, *names))
    expression = f"SEARCH('{{{schema}}} service=\"{STACK}\" MetricName=\"{metric}\"', 'Sum', 300)"
    return [{"expression": expression, "label": f"${{!PROP('Dim.{by}')}}", "id": "found"}]


def _pace() -> list[Any]:
    allowed = "TIME_SERIES(60) / ${SendIntervalSeconds}"
    return [*_ours((SENT,)), [{"expression": allowed, "label": "allowed", "id": "allowed"}]]


def _waiting() -> list[Any]:
    names = ("ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesNotVisible")
    return [_of_queue(name, "Bounce") for name in names]


def _of_queue(metric: str, name: str, label: str | None = None) -> list[Any]:
    found = ["AWS/SQS", metric, "QueueName", f"${{{name}Queue.QueueName}}"]
    return [*found, {"label": label}] if label else found


def _of_functions(metric: str) -> list[Any]:
    always = [
        ["AWS/Lambda", metric, "FunctionName", f"${{{name}Function}}", {"label": name}]
        for name in FUNCTIONS
    ]
    return [*always, f"{_TILDE}Usage{metric}", f"{_TILDE}Rules{metric}"]


def text() -> str:
    """The body as it stands in the template; a piece brings its own comma, or is nothing."""
    return re.sub(rf',\s*"{_TILDE}(\w+)"', r"${\1}", laid_out(body()))


def main() -> None:
    blocks.write(_HEAD, text())


if __name__ == "__main__":
    main()
