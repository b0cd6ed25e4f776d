"""`make commands`: docs/commands.md, the command's own help, and docs/permissions.md.

`python -m local.commands` writes them; a test says when that is due.
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
from bouncer_console.permissions import PERMISSIONS, May
from local.stack import ROOT

PAGE = ROOT / "docs" / "commands.md"
PERMISSIONS_PAGE = ROOT / "docs" / "permissions.md"

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


_PERMISSIONS_HEAD = """\
# What an operator's own user needs

What IAM has to allow whoever runs a command; `make commands` writes this page.
`bouncer permissions` prints it as a policy with the deployed stack's ARNs, for the commands that
you name:

```sh
bouncer permissions status find report > reader.json
bouncer permissions mailbox > keeper.json
```

Tests run every command as a user with its policy and no other, and see that it needs each action.
Without an option such as `--run` or `--apply` a command needs less: leave out the actions that
write.

`sam deploy` makes and changes everything in `template.yaml`, IAM roles included. Let an
administrator do it, or give CloudFormation a role of its own (`sam deploy --role-arn`).
`bouncer mode` updates the stack, too: the environment of two functions. For that, CloudFormation
uses the actions marked † in the caller's name, unless the stack has such a role; tests on this
machine cannot see that.

*stack* is the CloudFormation stack; *functions*, *queues*, *roles*, *dead letters* are its own;
*given back* are the queues that dead letters go back to; *mail* is what it stored below
`MailPrefix`; *policy* is its AppConfig application; a name such as `BounceTable` is an output of
the stack, and behind it, where there is one, stands what the keys of its items have to be like;
*anything* stands where IAM knows no resource.

*old BounceTable* is every table named *stack*`-BounceTable-…`: an earlier stack's of this name, and
this stack's own, too. If the old stack had another name, write the old table's ARN into the policy.

| command | may |
|---|---|
"""


def permissions_page() -> str:
    """The table of PERMISSIONS; commands that need the same share their row."""
    same: dict[tuple[May, ...], list[str]] = {}
    for name, needed in PERMISSIONS.items():
        same.setdefault(needed, []).append(f"`{name}`")
    rows = [
        f"| {', '.join(names)} | {'<br>'.join(_line(each) for each in needed)} |"
        for needed, names in same.items()
    ]
    return _PERMISSIONS_HEAD + "\n".join(rows) + "\n"


def _line(may: May) -> str:
    thing = "anything" if may.on == "*" else may.on
    mark = " †" if may.by_cloudformation else ""
    keys = f" (`{may.keys}`)" if may.keys else ""
    return f"{', '.join(may.actions)} on *{thing}*{keys}{mark}"


def main() -> None:
    PAGE.write_text(page(), "utf-8")
    PERMISSIONS_PAGE.write_text(permissions_page(), "utf-8")


if __name__ == "__main__":
    main()
