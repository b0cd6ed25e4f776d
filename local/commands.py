"""`make commands`: docs/commands.md, which is the command's own help.

`python -m local.commands` writes it; a test says when that is due.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from bouncer_console.main import app
from local.stack import ROOT

PAGE = ROOT / "docs" / "commands.md"

_WIDTH = 92
_HEAD = """\
# The command `bouncer`

What `bouncer … --help` says, command by command; `make commands` writes this page. `make setup`
puts the command into `.venv/bin`, `pipx install .` everywhere. In a checkout it finds stack and
Region in `samconfig.toml`; elsewhere name them with `--stack` and `--region`.

"""


def commands() -> Iterator[tuple[str, Any, str]]:
    """Every command, the groups too: its name with its parents', itself, and its help."""
    yield from _below(get_command(app), "bouncer", None)


def _below(command: Any, name: str, parent: typer.Context | None) -> Iterator[tuple[str, Any, str]]:
    context = typer.Context(
        command, info_name=name, parent=parent, terminal_width=_WIDTH, max_content_width=_WIDTH
    )
    yield context.command_path, command, command.get_help(context).rstrip()
    for each, child in getattr(command, "commands", {}).items():
        yield from _below(child, each, context)


def page() -> str:
    """The whole page, in Markdown, as it is whatever this checkout's samconfig.toml says."""
    with tempfile.TemporaryDirectory() as folder:
        # A default is shown as the command finds it, from the folder that it is started in.
        policy = Path(folder) / "functions" / "inbound" / "policy.toml"
        policy.parent.mkdir(parents=True)
        policy.touch()
        return subprocess.run(
            [sys.executable, "-c", "from local.commands import _print; _print()"],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
            check=True,
            capture_output=True,
            encoding="utf-8",
        ).stdout


def _print() -> None:
    found = [*commands()]
    links = [
        f"- [`{name}`](#{name.replace(' ', '-')}): {command.get_short_help_str(200)}"
        for name, command, _ in found
        if not hasattr(command, "commands")
    ]
    texts = [f"## {name}\n\n```text\n{help_text}\n```\n" for name, _, help_text in found]
    sys.stdout.write(_HEAD + "\n".join(links) + "\n\n" + "\n".join(texts))


def main() -> None:
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
