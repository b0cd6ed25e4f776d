"""The console command `bouncer`."""

import typer

from bouncer_console import explain, mailbox, mode, operate, policy, rules, send_bounce
from bouncer_console.doctor.command import doctor

app = typer.Typer(
    name="bouncer",
    help=__doc__,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(explain.explain)
app.command()(explain.preview)
app.command()(explain.replay)
app.command()(doctor)
app.command()(mode.mode)
app.command()(operate.status)
app.command()(operate.redrive)
app.command(name="send-bounce")(send_bounce.send_bounce)
app.add_typer(policy.app, name="policy")
app.add_typer(mailbox.app, name="mailbox")
app.add_typer(rules.app, name="rules")
