"""What is generated into template.yaml: found by its head, written with its indentation."""

import re
import textwrap

from local.stack import ROOT


def write(head: str, body: str) -> None:
    """Put a body below its head, which stands in the template once.

    Args:
        head: a line of YAML that ends in a block, such as `Content: |-`.
        body: lines of text, without indentation.

    Raises:
        SystemExit: the head stands there never, or more often.
    """
    path = ROOT / "template.yaml"
    block = re.compile(rf"(?m)^( +){re.escape(head)}\n(?:\1  .*\n)+")

    def written(found: re.Match[str]) -> str:
        indent = found[1]
        return f"{indent}{head}\n{textwrap.indent(body, f'{indent}  ')}\n"

    text, number = block.subn(written, path.read_text("utf-8"))
    if number != 1:
        raise SystemExit(f"{path}: {number} blocks `{head}`, not one")
    path.write_text(text, "utf-8")
