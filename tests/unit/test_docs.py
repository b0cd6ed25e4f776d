"""What README and docs/ name is there: commands, options, targets, modules, files, headings."""

import ast
import importlib
import json
import re
import shlex
import tomllib
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from ruamel.yaml import YAML
from samcli.cli.types import CfnParameterOverridesType

from bouncer.aws import ledger, mail_records, slots, stack_key, usage
from bouncer.budget import SHARE_SLICE, SLICES, slice_of
from bouncer.delivery.ledger import BounceState
from bouncer.guards import GUARDS
from bouncer.mailboxes import Mailbox, from_item, usable
from bouncer.policy.load import load
from local import commands
from tests.pages import KINDS, PAGES, Block, all_blocks
from tests.unit.builders import ROOT, SHIPPED_POLICY

COMMANDS: dict[str, Any] = {name: command for name, command, _ in commands.commands()}

_FENCE = re.compile(r"(?ms)^ *```[^\n]*\n(.*?)^ *```")
_SPAN = re.compile(r"(?s)`([^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_OTHERS = {"--guided", "--relay"}  # of sam deploy, and of python -m local.aws


class Named(NamedTuple):
    """A command line that a page shows."""

    page: str
    text: str


def _code(page: Path) -> list[Named]:
    """Every line of the page's code blocks, and every code span."""
    text = page.read_text("utf-8")
    blocks = "\n".join(_FENCE.findall(text)).replace("\\\n", " ").splitlines()
    spans = [" ".join(each.split()) for each in _SPAN.findall(_FENCE.sub("", text))]
    return [Named(page.name, each.strip().removeprefix("$ ")) for each in (*blocks, *spans)]


ALL = [each for page in PAGES for each in _code(page) if page != commands.PAGE]


def words(line: str) -> list[str]:
    """A command line's words, without its comment."""
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return line.partition("#")[0].split()


def options(command: Any) -> set[str]:
    return {each for p in command.params for each in (*p.opts, *p.secondary_opts)} | {"--help"}


def wrong_in(line: str) -> str:
    """What a line with the command `bouncer` names that there is not, or nothing."""
    name, *rest = words(line)
    while hasattr(COMMANDS[name], "commands") and rest and rest[0] not in ("…", "--version"):
        if f"{name} {rest[0]}" not in COMMANDS:
            return "" if rest[0] == "--help" else f"no command {name} {rest[0]}"
        name = f"{name} {rest.pop(0)}"
    asked = {each.partition("=")[0] for each in rest if re.match("--?[a-z]", each)}
    return ", ".join(f"{name} has no {each}" for each in sorted(asked - options(COMMANDS[name])))


def test_the_page_of_commands_is_the_commands_own_help() -> None:
    assert commands.PAGE.read_text("utf-8") == commands.page(), "`make commands` writes it"


def test_the_page_of_permissions_is_the_table_of_the_command() -> None:
    written = commands.PERMISSIONS_PAGE.read_text("utf-8")
    assert written == commands.permissions_page(), "`make commands` writes it"


GROUPS = [name for name, command in COMMANDS.items() if hasattr(command, "commands")]


@pytest.mark.parametrize("group", GROUPS)
def test_a_groups_help_tells_each_command_in_a_sentence_that_is_not_cut(group: str) -> None:
    context = typer.Context(COMMANDS[group], info_name=group, terminal_width=80)
    _, _, listed = COMMANDS[group].get_help(context).partition("\nCommands:")
    assert listed
    assert [line for line in listed.splitlines() if line.endswith("...")] == []


def test_no_value_is_called_by_what_it_is_in_python() -> None:
    """An option's number, address or path: `list[str]` and `int range` tell nobody anything."""
    text = commands.PAGE.read_text("utf-8")
    assert re.findall(r"(?m)^ +-.*<[^<>|\n]*(?:\[| range)[^<>|\n]*>", text) == []


def _named(*starts: str) -> list[Named]:
    found = {each for each in ALL if each.text.startswith(starts)}
    return sorted(found)


@pytest.mark.parametrize("named", _named("bouncer ", ".venv/bin/bouncer "))
def test_every_command_that_the_docs_name_is_there_with_its_options(named: Named) -> None:
    assert wrong_in(named.text.removeprefix(".venv/bin/")) == ""


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("bouncer mailbox recount --apply", ""),
        ("bouncer status MESSAGE_ID # the id --in the log", ""),
        ("bouncer … --help", ""),
        ("bouncer mailbox", ""),
        ("bouncer mailbox recont", "no command bouncer mailbox recont"),
        ("bouncer rules sync --yes-please", "bouncer rules sync has no --yes-please"),
    ],
)
def test_a_command_that_is_not_there_is_found(line: str, wrong: str) -> None:
    assert wrong_in(line) == wrong


_DEPLOYS = "sam deploy --parameter-overrides "


@pytest.mark.parametrize("named", _named(_DEPLOYS))
def test_what_the_docs_deploy_with_comes_through_the_shell_and_sam(named: Named) -> None:
    for word in words(named.text)[3:]:
        name, equals, value = word.partition("=")
        if equals:
            read = CfnParameterOverridesType().convert((word,), None, None)
            assert read == {name: value.strip('"')}


def test_every_option_that_the_docs_name_alone_is_some_commands() -> None:
    known = {each for command in COMMANDS.values() for each in options(command)}
    known |= _OTHERS
    named = {words(each.text)[0].partition("=")[0] for each in ALL if each.text.startswith("--")}
    assert "--despite" in named
    assert named - known == set()


def test_every_make_target_that_the_docs_name_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"(?m)^([a-z0-9-]+):", makefile))
    named = {words(each.text)[1] for each in _named("make ")}
    assert {"demo", "test"} <= named
    assert {each for each in named if "=" not in each} - targets == set()


def test_every_module_that_the_docs_start_is_there() -> None:
    started = {m for each in ALL for m in re.findall(r"python -m ([a-z_.]+)", each.text)}
    assert "local.aws" in started
    assert {each for each in started if find_spec(each) is None} == set()


def _steps() -> list[tuple[str, str]]:
    """The functions that the table of one mail's way names, with their files."""
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    table = page.partition("## One mail, followed")[2].partition("\n## ")[0]
    return re.findall(r"`([\w.]+)` in `([\w/]+\.py)`", table)


@pytest.mark.parametrize(("name", "file"), _steps())
def test_each_step_of_a_mails_way_is_where_the_page_says(name: str, file: str) -> None:
    path = ROOT / file if file.startswith("functions/") else ROOT / "layers/bouncer/bouncer" / file
    scope: Any = ast.parse(path.read_text("utf-8"))
    for each in name.split("."):
        (scope,) = [node for node in scope.body if getattr(node, "name", "") == each]


def test_a_mails_way_is_told_from_the_event_to_the_answer() -> None:
    assert len(_steps()) >= 14


def _headings(page: Path) -> set[str]:
    text = _FENCE.sub("", page.read_text("utf-8"))
    plain = (re.sub(r"[^\w\- ]", "", h.lower()) for h in re.findall(r"(?m)^#+ (.+)$", text))
    return {each.strip().replace(" ", "-") for each in plain}


def _broken(page: Path) -> list[str]:
    broken = []
    for link in _LINK.findall(_FENCE.sub("", page.read_text("utf-8"))):
        if link.startswith("https://"):
            continue
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (heading and heading not in _headings(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=[each.name for each in PAGES])
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert _broken(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `thing`\n[a](#one-thing) [b](#two) [c](gone.md) [d](page.md#one-thing)\n"
    )
    assert _broken(page) == ["#two", "gone.md"]


def test_every_block_of_code_says_what_it_is_and_so_which_test_looks_at_it() -> None:
    assert [str(block) for block in all_blocks() if block.kind not in KINDS] == []
    examples = [block.text for block in all_blocks("sh example")]
    assert [text for text in examples if "…" not in text and "OLD_" not in text] == []


@pytest.mark.parametrize("block", all_blocks("toml"), ids=str)
def test_every_policy_in_the_docs_is_one(block: Block) -> None:
    """A part of one is laid over the shipped policy."""
    written = tomllib.loads(block.text)
    whole = written if "version" in written else tomllib.loads(SHIPPED_POLICY.read_text()) | written
    load(json.dumps(whole))


@pytest.mark.parametrize("block", all_blocks("python"), ids=str)
def test_every_name_that_python_in_the_docs_imports_is_there(block: Block) -> None:
    imports = [n for n in ast.walk(ast.parse(block.text)) if isinstance(n, ast.ImportFrom)]
    for each in imports:
        module = importlib.import_module(each.module or "")
        assert {alias.name for alias in each.names} <= set(module.__all__)


def test_the_permission_to_join_a_pace_is_the_stacks_own() -> None:
    (block,) = all_blocks("yaml")
    (statement,) = YAML(typ="safe").load(block.text)
    assert statement["Action"] == "dynamodb:UpdateItem"
    keys = statement["Condition"]["ForAllValues:StringEquals"]["dynamodb:LeadingKeys"]
    assert keys == [slots.SLOTS_ITEM["pk"]["S"]]


@pytest.mark.parametrize("block", all_blocks("mermaid"), ids=str)
def test_every_sequence_speaks_of_its_participants_only(block: Block) -> None:
    names = set(re.findall(r"(?m)^ *participant (\w+)", block.text))
    used = {
        name for ends in re.findall(r"(?m)^ *(\w+)-{1,2}>>(\w+): ", block.text) for name in ends
    } | {
        name.strip()
        for over in re.findall(r"(?m)^ *Note over ([\w, ]+):", block.text)
        for name in over.split(",")
    }
    assert used == names
    opened = re.findall(r"(?m)^ *(?:alt|loop|opt)\b", block.text)
    assert len(opened) == len(re.findall(r"(?m)^ *end$", block.text))


def _items() -> list[dict[str, Any]]:
    return [json.loads(block.text) for block in all_blocks("json")]


def test_every_item_in_the_docs_is_read_below() -> None:
    assert {block.page for block in all_blocks("json")} == {"architecture.md"}
    read = {"mail", "recipient", "usage", "period", "send-bounce", "log"}
    assert {each["sk"].partition("#")[0] for each in _items() if "sk" in each} == read


def _stored(item: dict[str, Any]) -> dict[str, Any]:
    """An example as DynamoDB's client gives it; lists are string sets."""

    def value(each: Any) -> dict[str, Any]:
        if isinstance(each, str):
            return {"S": each}
        return {"SS": each} if isinstance(each, list) else {"N": str(each)}

    return {name: value(each) for name, each in item.items()}


def _of(prefix: str) -> dict[str, Any]:
    return next(each for each in _items() if each.get("sk", "").startswith(prefix))


def test_the_architectures_ledger_item_is_one_that_the_ledger_reads() -> None:
    item = _of("recipient#")
    entry = ledger._entry(_stored(item))
    assert (entry.message_id, entry.state) == ("0vq3k1c9", BounceState.SENT)
    assert ledger._key(entry.message_id, entry.recipient) == {
        name: {"S": item[name]} for name in ("pk", "sk")
    }
    assert {*ledger._facts(entry)} <= item.keys()


def test_the_architectures_mail_record_is_one_that_the_audit_reads() -> None:
    record = mail_records._record(_stored(_of("mail")))
    assert record.covers("alice@example.com")
    assert record.covers("nobody@example.com")


def test_the_architectures_usage_record_has_the_key_that_usage_asks_for() -> None:
    item = _of("usage#")
    key = usage._record_key(Mailbox(address=item["mailbox"]), "0vq3k1c9")
    assert key == {name: {"S": item[name]} for name in ("pk", "sk")}


def test_the_architectures_mailboxes_are_ones_that_the_directory_reads() -> None:
    read = [usable(from_item(each, {})) for each in _items() if "address" in each]
    assert [(box.address, problems) for box, problems in read] == [
        ("alice@example.com", []),
        ("@example.com", []),
    ]


def test_the_architectures_budget_item_has_the_slices_of_its_time() -> None:
    item = _of("period#")
    expires = item["expires_at"] - 2 * 86_400 - 2 * SHARE_SLICE
    now = datetime.fromtimestamp(expires, UTC)
    assert item[f"t{slice_of(now, 86_400 / SLICES)}"] == 4
    assert item[f"q{slice_of(now, SHARE_SLICE)}"] == 1


def test_the_architecture_shows_the_items_that_stand_alone() -> None:
    keys = [({"S": each["pk"]}, {"S": each["sk"]}) for each in _items() if "pk" in each]
    assert tuple(slots.SLOTS_ITEM.values()) in keys
    assert tuple(stack_key.ITEM.values()) in keys


def test_the_readme_and_the_page_of_guards_have_them_all() -> None:
    guards = [each.name.value for each in GUARDS]
    rows = re.findall(r"(?m)^\| `([a-z-]+)` \|", (ROOT / "docs" / "guards.md").read_text("utf-8"))
    assert rows[: len(guards)] == guards
    assert f"[{len(guards)} guards](docs/guards.md)" in (ROOT / "README.md").read_text("utf-8")
