"""The pages of documentation, and the code blocks in them.

A block's words behind its fence say what it is, and so which test looks at it: `sh` is typed,
`sh example` would need what only its reader has, `console` is run and its output compared, `json`
and `toml` are read by the code that reads such things, `mermaid` is a picture that GitHub draws,
`text` a picture, or what something prints.
"""

import re
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "bench").glob("*.md")])
GENERATED = ROOT / "docs" / "commands.md"
KINDS = {"sh", "sh example", "console", "json", "toml", "mermaid", "python", "text", "yaml"}

_BLOCK = re.compile(r"(?ms)^( *)```([^\n]*)\n(.*?)^ *```")


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One code block of a page."""

    page: str
    line: int
    kind: str
    text: str
    """Without what its place in a list indents it by."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(
            page=page.name,
            line=text.count("\n", 0, found.start()) + 1,
            kind=found[2],
            text=re.sub(f"(?m)^{found[1]}", "", found[3]),
        )
        for found in _BLOCK.finditer(text)
    ]


def all_blocks(*kinds: str) -> list[Block]:
    """Of every page that is written by hand, in order."""
    found = [block for page in PAGES if page != GENERATED for block in blocks(page)]
    return [block for block in found if not kinds or block.kind in kinds]
