"""Dead letters: what nobody could handle, why, and once more."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from starlette.responses import Response

from bouncer_console import dead_letters
from bouncer_console.dead_letters import Letter
from bouncer_console.web.site import Ask, Page, Standing, get, post

_KEY = "dead-letters"
_SHOWN = 200


def _look(deployment: Standing, says: Callable[[str], None]) -> list[Letter]:
    says(f"about {dead_letters.waiting(deployment):,} letters are read, ten at a time")
    return dead_letters.look(deployment)


def show(ask: Ask) -> Response:
    deployment = ask.deployment
    job = ask.job((_KEY,), lambda says: _look(deployment, says), fresh=5, wait=1.5)
    if not job.done:
        return ask.wait(job)
    letters = sorted(job.answer(), key=_when, reverse=True)
    return ask.show(
        "dead-letters.html",
        letters=letters[:_SHOWN],
        all=len(letters),
        again=sum(each.verdict == "again" for each in letters),
    )


def _when(letter: Letter) -> float:
    return letter.received_at.timestamp() if isinstance(letter.received_at, datetime) else 0.0


def redrive(ask: Ask) -> Response:
    """Try one mail's letters again, or all that can be."""
    message_id, kind = ask.form.get("message_id", ""), ask.form.get("kind", "")
    of_what = f"the {kind} of {message_id}" if message_id else "every dead letter that can be"
    if not ask.sure:
        return ask.question(
            f"Try {of_what} again?",
            yes="Try again",
            post="/dead-letters/redrive",
            fields={"message_id": message_id, "kind": kind},
            no="/dead-letters",
            detail=(
                "A bounce goes back to the queue, and is sent if SES's 24 hours are not over. "
                "An event or a notice goes to the audit, which decides what nobody has decided; "
                "nobody is told twice. A deletion goes to the mailbox's usage.\n"
            )
            + ("" if message_id else "\nbouncer redrive --run"),
        )
    deployment = ask.deployment

    def run(says: Any) -> str:
        return _redriven(deployment, message_id, kind, says)

    # The same button pressed twice is one redrive; a failure may be tried again.
    job = ask.job((_KEY, message_id, kind), run, fresh=0, wait=20)
    if not job.done:
        ask.fail(
            "It is still at it: there are many.",
            "Look at the list in a minute; what is gone from it was tried.",
            202,
        )
    ask.site.jobs.forget((_KEY,))
    return ask.done(job.answer(), "/dead-letters")


def _redriven(deployment: Standing, message_id: str, kind: str, says: Any) -> str:
    done = dead_letters.go_through(
        deployment,
        lambda each: not message_id or (each.message_id, each.kind) == (message_id, kind),
        lambda done, of: says(f"{done} of {of} given back"),
    )
    return f"{sum(bool(result) for _, result in done)} given back to be tried again."


PAGE = Page(
    path="/dead-letters",
    title="Dead letters",
    views=[get("", show), post("/redrive", redrive)],
)
