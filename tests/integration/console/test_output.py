"""What a mail says is shown, and does nothing to the screen."""

import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from bouncer_console import output
from tests.unit.builders import ROOT

CONSOLE = ROOT / "console" / "bouncer_console"
OUR_OWN = {
    "f\"ses-bouncer {version('ses-bouncer')}\"",
    "laid_out(validator_schema())",
    "server.address",
}

EVIL = (
    "\x1b]52;c;ZXZpbA==\x07",  # the clipboard
    "\x1b]0;title\x07",
    "\x1b[2J",
    "\x9b2J",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "\u200b",
    "[/x]",
    "[bold]x[/bold]",
    "a\rb\x08c",
)


@pytest.mark.parametrize("text", EVIL)
def test_nothing_that_a_mail_holds_is_done_by_the_terminal(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = output._Screen(width=160)
    screen.print(text)
    screen.print(Text(text))
    output.print_table(text, [text], [[text]])
    output.say(text)
    output.note(text)
    shown = "".join(capsys.readouterr())
    for each in shown:
        assert each.isprintable() or each == "\n", repr(each)
    if text.startswith("["):
        assert text in shown


@given(st.text())
def test_json_is_the_same_value_and_holds_no_control(text: str) -> None:
    shown = output._json_text(msgspec.json.encode({text: [text]}))
    assert json.loads(shown) == {text: [text]}
    assert shown.isprintable()


def test_a_question_is_shown_like_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(text: str, **_: object) -> bool:
        asked.append(text)
        return False

    monkeypatch.setattr(typer, "confirm", refuse)
    with pytest.raises(typer.Exit):
        output.ask("".join(EVIL) + "\nSure? [y/N]", yes=False)
    output.ask("never asked", yes=True)
    assert len(asked) == 1
    assert asked[0].isprintable()


def test_no_row_of_a_streamed_table_is_two(capsys: pytest.CaptureFixture[str]) -> None:
    output.stream_table([("a", 9)], [["x\ny"]])
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("path", sorted(CONSOLE.rglob("*.py")), ids=lambda each: each.stem)
def test_only_this_place_writes_to_the_terminal(path: Path) -> None:
    """Besides it, only what the program itself has made: a version, an address, a schema."""
    text = path.read_text("utf-8")
    assert not re.search(
        r"typer\.(confirm|prompt|secho)|(?<!screen\.)\bprint\(|\binput\(", text
    ) or (path.stem == "output")
    echoed = set(re.findall(r"typer\.echo\(([^\n]*)\)\n", text))
    assert path.stem == "output" or echoed <= OUR_OWN


@given(st.text())
def test_what_is_printable_holds_no_control(text: str) -> None:
    assert all(each.isprintable() or each == "\n" for each in output.printable(text))


# --- Files of people's addresses -----------------------------------------------------------------


def test_what_is_written_is_its_owners_alone_also_over_a_file_of_everybodys(tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    for text in ("first", "second"):
        with output.written(file) as out:
            out.write(text)
        assert file.read_text() == text
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        file.chmod(0o666)


def test_half_a_file_is_none_and_what_stood_there_stays(tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    file.write_text("whole")

    def interrupted() -> None:
        with output.written(file) as out:
            out.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"all.csv": "whole"}


def test_a_link_that_somebody_put_there_is_replaced_and_leads_nowhere(tmp_path: Path) -> None:
    precious, file = tmp_path / "precious", tmp_path / "all.csv"
    precious.write_text("mine")
    file.symlink_to(precious)
    with output.written(file) as out:
        out.write("addresses")
    assert (precious.read_text(), file.read_text()) == ("mine", "addresses")
    assert not file.is_symlink()


def test_what_is_no_file_is_written_to_as_it_is() -> None:
    with output.written(Path("/dev/null")) as out:
        out.write("gone")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_a_redirected_stdout_is_written_to_and_not_replaced(tmp_path: Path, name: str) -> None:
    """No file is made beside it, and without the means to, the machine's own link is safe here."""
    script = (
        "import pathlib, sys, tempfile\n"
        "from bouncer_console import output\n"
        "tempfile.mkstemp = None\n"
        "with output.written(pathlib.Path(sys.argv[1])) as out:\n"
        "    out.write('addresses')\n"
    )
    redirected = tmp_path / "f"
    redirected.write_text("before, ")
    with redirected.open("a") as stdout:
        subprocess.run([sys.executable, "-c", script, name], stdout=stdout, check=True)
    assert redirected.read_text() == "before, addresses"


@pytest.mark.parametrize(
    ("name", "is_so"),
    [
        ("/dev/stdout", True),
        ("/dev/../dev/stdout", True),
        ("/proc/self/fd/1", True),
        ("/dev/fd/1", True),
        ("/dev/below/all.csv", False),
        ("/devices/all.csv", False),
        ("all.csv", False),
    ],
)
def test_what_the_system_has_is_written_in_place(name: str, is_so: bool) -> None:
    assert output._in_place(Path(name)) is is_so


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), output.written(tmp_path / "no" / "all.csv"):
        pass
