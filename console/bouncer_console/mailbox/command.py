"""The commands of `bouncer mailbox`, in the order in which its help names them."""

import typer

from bouncer_console.mailbox import edit, imports, look
from bouncer_console.mailbox.recount import recount

app = typer.Typer(
    help="The mailbox directory: look at it, fill it, change it.", no_args_is_help=True
)

app.command(name="list")(look.list_)
app.command()(look.show)
app.command()(look.check)
app.command()(edit.add)
app.command(name="set")(edit.set_)
app.command()(edit.disable)
app.command()(edit.enable)
app.command()(edit.remove)
app.command(name="import")(imports.import_)
app.command()(look.export)
app.command()(recount)
