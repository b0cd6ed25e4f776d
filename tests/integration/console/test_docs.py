"""What the docs show of a command's output is what it prints."""

from pathlib import Path

import pytest

from tests.integration.console.builders import error_of
from tests.pages import Block, all_blocks
from tests.unit.builders import SHIPPED_POLICY


@pytest.mark.parametrize("block", all_blocks("console"), ids=str)
def test_the_checker_says_of_a_misspelt_condition_what_the_page_of_policies_shows(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Path("functions/inbound/policy.toml")
    monkeypatch.chdir(tmp_path)
    policy.parent.mkdir(parents=True)
    policy.write_text(SHIPPED_POLICY.read_text().replace("when.virus", "when.virsu"))
    typed, said = block.text.split("\n", 1)
    assert typed == "$ bouncer policy check"
    assert error_of("policy", "check", policy) == said.strip()
