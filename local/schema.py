"""`make schema`: the policy's schema, as the template's AppConfig validator holds it.

`python -m local.schema` writes it where it stands; a test says when that is due.
"""

import re
import textwrap

from bouncer.policy.file import validator_schema
from bouncer_console.policy import laid_out
from local.stack import ROOT

_BLOCK = re.compile(r"(?m)^( +)Content: \|-\n(?:\1  .*\n)+")


def main() -> None:
    path = ROOT / "template.yaml"
    schema = laid_out(validator_schema()) + "\n"

    def block(found: re.Match[str]) -> str:
        indent = found[1]
        return f"{indent}Content: |-\n{textwrap.indent(schema, f'{indent}  ')}"

    text, written = _BLOCK.subn(block, path.read_text("utf-8"))
    if written != 1:
        raise SystemExit(f"{path}: {written} blocks `Content: |-` of JSON, not one")
    path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
