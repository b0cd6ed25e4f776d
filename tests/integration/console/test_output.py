"""What a mail says is shown, and does nothing to the screen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from bouncer_console import output

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
def test_what_is_printable_holds_no_control(text: str) -> None:
    assert all(each.isprintable() or each == "\n" for each in output.printable(text))
