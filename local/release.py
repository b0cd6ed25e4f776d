"""`make release`: what a release is made of, from what `sam build` made.

A wheel and an sdist of the console command, the application as a zip that the SAM CLI deploys as
it is, and the checksums of the three. The same sources give the same bytes.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import tomlkit
from ruamel.yaml import YAML

from local.stack import ROOT

BUILT = ROOT / ".aws-sam" / "build"
DIST = ROOT / "dist"
CHECKSUMS = "SHA256SUMS"
# For a reader of the unpacked zip, who has no checkout.
_BESIDE = ("README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "docs")
_HEAD = "`sam deploy`, in this folder, uses what stands here; nothing has to be built."
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip's earliest date


class ReleaseError(Exception):
    """What was built is no release."""


def release(built: Path, target: Path) -> list[Path]:
    """Make the release's files.

    Args:
        built: the folder that `sam build` wrote.
        target: the folder to write to; what is in it goes.

    Returns:
        The wheel, the sdist, the application's zip and the checksums.

    Raises:
        ReleaseError: two functions that are one code and one policy were built differently.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(target)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    version = wheel.name.split("-")[1]
    application = target / f"ses-bouncer-{version}.zip"
    _pack(built, application, f"ses-bouncer-{version}")
    files = [wheel, sdist, application]
    checksums = target / CHECKSUMS
    checksums.write_text("".join(f"{_sha256(file)}  {file.name}\n" for file in files))
    return [*files, checksums]


def _pack(built: Path, archive: Path, folder: str) -> None:
    """Everything in one folder; no file's date, owner or order is of this machine."""
    template, code = _one_folder_for_one_code(built)
    files: dict[str, bytes] = {"template.yaml": template, "samconfig.toml": _samconfig()}
    roots = [*(built / name for name in code), *(ROOT / name for name in _BESIDE)]
    for root in roots:
        for path in [root] if root.is_file() else root.rglob("*"):
            if path.is_file():
                files[path.relative_to(root.parent).as_posix()] = path.read_bytes()
    with zipfile.ZipFile(archive, "w") as packed:
        for name in sorted(files):
            info = zipfile.ZipInfo(f"{folder}/{name}", _EPOCH)
            info.create_system = 3  # Unix, whose modes follow
            info.external_attr = 0o100644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, files[name])


def _one_folder_for_one_code(built: Path) -> tuple[bytes, list[str]]:
    """The built template, and the folders that it names.

    `sam build` gives each function a folder, though two of them share code and policy. Who
    changes the policy in an unpacked zip must find one.
    """
    source: dict[str, Any] = YAML().load((ROOT / "template.yaml").read_text("utf-8"))
    first: dict[str, str] = {}
    text = (built / "template.yaml").read_text("utf-8")
    for logical_id, resource in source["Resources"].items():
        properties = resource.get("Properties") or {}
        uri = properties.get("CodeUri") or properties.get("ContentUri")
        if uri is None:
            continue
        folder = first.setdefault(uri, logical_id)
        if folder == logical_id:
            continue
        if _contents(built / folder) != _contents(built / logical_id):
            raise ReleaseError(f"{logical_id} is not the same as {folder}, though both are {uri}")
        named = f"CodeUri: {logical_id}\n"
        if text.count(named) != 1:
            raise ReleaseError(f"the built template does not name {logical_id}'s folder once")
        text = text.replace(named, f"CodeUri: {folder}\n")
    return text.encode(), list(first.values())


def _contents(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): _sha256(path)
        for path in root.rglob("*")
        if path.is_file()
    }


def _samconfig() -> bytes:
    """The checkout's, without what is of a build or of this machine."""
    whole = tomlkit.parse((ROOT / "samconfig.toml").read_text("utf-8")).unwrap()
    default = whole["default"]
    kept = tomlkit.document()
    kept.add(tomlkit.comment(_HEAD))
    kept.update({"version": whole["version"]})
    kept.update({"default": {each: default[each] for each in ("global", "deploy")}})
    return tomlkit.dumps(kept).encode()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main() -> None:
    """Make a release of what `make build` built, and say what it is."""
    for file in release(BUILT, DIST):
        sys.stdout.write(f"{file.relative_to(ROOT)}  {file.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
