"""What the folder of a command says, which may be a checkout, a release, or neither."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec

_POLICY = Path("functions/inbound/policy.toml")


class Samconfig(msgspec.Struct, frozen=True):
    """Where `sam deploy` deploys from here; None where the file does not say."""

    stack: str | None = None
    region: str | None = None


def samconfig(folder: Path) -> Samconfig:
    """Stack and Region from a checkout's samconfig.toml; nothing anywhere else.

    `sam deploy --guided` writes both. A broken file says nothing: SAM names what is wrong in it.
    """
    try:
        if (
            "ses-bouncer"
            not in (folder / "template.yaml").read_text("utf-8").partition("Metadata")[0]
        ):
            return Samconfig()
        default = tomllib.loads((folder / "samconfig.toml").read_text("utf-8")).get("default", {})
    except (OSError, ValueError):
        return Samconfig()
    found = _parameters(default, "global") | _parameters(default, "deploy")
    return Samconfig(stack=_text(found.get("stack_name")), region=_text(found.get("region")))


def _parameters(default: Any, command: str) -> dict[str, Any]:
    section = default.get(command) if isinstance(default, dict) else None
    parameters = section.get("parameters") if isinstance(section, dict) else None
    return parameters if isinstance(parameters, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def shipped_policy(folder: Path) -> Path:
    """The checkout's policy in a checkout; elsewhere the one that the package carries."""
    if (folder / _POLICY).is_file():
        return _POLICY
    packaged = Path(__file__).with_name("policy.toml")
    if packaged.is_file():
        return packaged
    return Path(__file__).parents[2] / _POLICY  # an editable install carries none of its own


HERE = samconfig(Path())
"""Of the folder that the command was started in."""
DEFAULT_POLICY = shipped_policy(Path())
