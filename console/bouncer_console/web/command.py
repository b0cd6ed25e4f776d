"""`bouncer web`."""

import contextlib
import html
import shutil
import tempfile
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from bouncer_console.deployment import DEFAULT_STACK, RegionOption, StackOption
from bouncer_console.output import note, plain_errors


def web(
    port: Annotated[int, typer.Option(help="Where it listens; 0 takes a free port.")] = 0,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    browser: Annotated[bool, typer.Option(help="Open it in the browser.")] = True,
) -> None:
    """Open the operator's page in the browser, until Ctrl-C.

    It is served on this machine only, and shows the stack through your own credentials. The address
    that is printed lets in whoever has it, so keep it to yourself.
    """
    # The page's libraries take a second to load; no other command waits for them.
    from bouncer_console.web.app import Server  # noqa: PLC0415  (a second)

    with plain_errors():
        server = Server(stack=stack, region=region, port=port)
    typer.echo(server.address)
    note("Ctrl-C ends it.")
    with opened(server.address) if browser else contextlib.nullcontext():
        server.run()


@contextlib.contextmanager
def opened(address: str) -> Iterator[None]:
    """Open an address in the browser by a file that leads there, for its owner only.

    A browser's command line, which holds what it is to open, can be seen by every user.
    """
    folder = Path(tempfile.mkdtemp(prefix="bouncer-"))  # 0700
    try:
        file = folder / "page.html"
        file.touch(mode=0o600)
        to = html.escape(address)
        file.write_text(
            f'<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
            f'<meta http-equiv="refresh" content="0; url={to}"><title>ses-bouncer</title>'
            f'<a href="{to}">ses-bouncer</a>\n'
        )
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(file.as_uri())
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
