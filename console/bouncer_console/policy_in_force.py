"""The policy that a deployed stack decides by at present."""

import contextlib
import io
import json
import urllib.request
import zipfile
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from bouncer_console.checkout import DEFAULT_POLICY
from bouncer_console.deployment import Deployment

_CODE_LIMIT = 60_000_000
"""Bytes of a function's code; Lambda takes 50 MB."""
_POLICY_LIMIT = 4_000_000
_NAME = "policy.toml"


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """A policy's text, and where it is from."""

    text: str
    """TOML, or JSON where it comes from AppConfig."""
    source: str
    """In words."""
    sure: bool = True
    """Whether it is the stack's; else the one here, which may be another."""


def policy_in_force(deployment: Deployment) -> InForce:
    """As the functions read it: from AppConfig, or from the code that is deployed.

    Raises:
        ClientError, BotoCoreError: AppConfig cannot be asked.
        OSError: nothing can be read here either.
    """
    if deployment.parameters.get("PolicySource") == "appconfig":
        return _of_appconfig(deployment)
    try:
        text = _of_code(deployment)
    except (ClientError, BotoCoreError, OSError, KeyError, zipfile.BadZipFile) as error:
        return InForce(
            text=DEFAULT_POLICY.read_text("utf-8-sig"),
            source=f"This is {_NAME} as it is here; the deployed one cannot be read: {error}.",
            sure=False,
        )
    return InForce(text=text, source=f"{_NAME}, deployed with the function")


def _of_appconfig(deployment: Deployment) -> InForce:
    client = deployment.client("appconfigdata")
    session = client.start_configuration_session(
        ApplicationIdentifier=deployment.output("PolicyApplication"),
        EnvironmentIdentifier=deployment.output("PolicyEnvironment"),
        ConfigurationProfileIdentifier=deployment.output("PolicyProfile"),
    )
    answer = client.get_latest_configuration(
        ConfigurationToken=session["InitialConfigurationToken"]
    )
    text = answer["Configuration"].read().decode("utf-8", "replace")
    with contextlib.suppress(ValueError):  # it is shown as it is
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    version = answer.get("VersionLabel")
    return InForce(text=text, source=f"AppConfig{f', version {version}' if version else ''}")


def _of_code(deployment: Deployment) -> str:
    function = deployment.client("lambda").get_function(
        FunctionName=deployment.output("InboundFunction")
    )
    with zipfile.ZipFile(io.BytesIO(_fetched(function["Code"]["Location"]))) as archive:
        info = archive.getinfo(_NAME)
        if info.file_size > _POLICY_LIMIT:
            raise OSError(f"{_NAME} has {info.file_size:,} bytes")
        return archive.read(info).decode("utf-8-sig")


def _fetched(location: str) -> bytes:
    """What Lambda's answer leads to: an object in S3, by an address that is signed for minutes."""
    if not location.startswith(("https://", "http://127.0.0.1:")):
        raise OSError(f"the code is at no address that is read from here: {location[:60]}")
    with urllib.request.urlopen(location, timeout=10) as answer:  # noqa: S310  (checked above)
        data: Any = answer.read(_CODE_LIMIT + 1)
    if len(data) > _CODE_LIMIT:
        raise OSError("the function's code is too large to look into")
    return bytes(data)
