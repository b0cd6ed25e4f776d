"""Whatever a policy file holds, it is read or refused, and soon."""

import pytest

from bouncer.policy.conditions import PolicyError
from bouncer.policy.file import read

DEEP = {
    "a key of many parts": "x." * 100_000 + "x = 1",
    "of quoted parts": '"x" . ' * 50_000 + "x = 1",
    "a table of many parts": "[" + "x." * 100_000 + "x]",
    "inside a table": "x = {" + "x." * 50_000 + "x = 1}",
}
ENDLESS = {
    "arrays": "x = " + "[" * 100_000,
    "inline tables": "x = " + "{x = " * 50_000,
    "a number": "x = " + "9" * 100_000,
    "a word": "x" * 1_000_000,
    "dots": "x = " + "." * 1_000_000,
    "quotes": "x = " + "'" * 100_001,
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_a_key_of_any_depth_is_refused_before_it_takes_minutes(text: str) -> None:
    with pytest.raises(PolicyError, match=r"policy\.toml:2: .*so many dots"):
        read(f"version = 1\n{text}\n", "policy.toml")


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_a_text_without_end_is_refused(text: str) -> None:
    with pytest.raises(PolicyError):
        read(f"version = 1\n{text}\n", "policy.toml")


def test_addresses_and_words_with_dots_are_no_keys() -> None:
    domains = ", ".join(f'"a.b.host-{number}.sender.example"' for number in range(300))
    text = f"version = 1\nrules = []\n[guards]\nown_domains = [{domains}]\n"
    assert read(text, "policy.toml")[0].guards.own_domains
