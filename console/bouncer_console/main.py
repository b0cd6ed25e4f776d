"""The console command `bouncer`."""

from importlib.metadata import version
from typing import Annotated

import typer

from bouncer_console import (
    adopt,
    dead_letters,
    find,
    live_check,
    mode,
    permissions,
    policy,
    queue,
    rules,
    send_bounce,
    status,
)
from bouncer_console.doctor.command import doctor
from bouncer_console.explain.command import explain
from bouncer_console.explain.preview import preview
from bouncer_console.explain.replay import replay
from bouncer_console.mailbox import command as mailbox
from bouncer_console.report.command import report
from bouncer_console.web.command import web

app = typer.Typer(
    name="bouncer",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ses-bouncer {version('ses-bouncer')}")
        raise typer.Exit


@app.callback()
def main(
    _version_asked: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Operate ses-bouncer: see what it does, fill its directory, check it, mend what failed."""


app.command()(explain)
app.command()(preview)
app.command()(replay)
app.command()(doctor)
app.command()(mode.mode)
app.command(name="try")(live_check.live_check)
app.command()(status.status)
app.command()(find.find)
app.command()(report)
app.command()(dead_letters.redrive)
app.command(name="send-bounce")(send_bounce.send_bounce)
app.command()(adopt.adopt)
app.command()(web)
app.command()(permissions.permissions)
app.add_typer(queue.app, name="queue")
app.add_typer(policy.app, name="policy")
app.add_typer(mailbox.app, name="mailbox")
app.add_typer(rules.app, name="rules")
