"""What `make release` makes: a zip that `sam deploy` deploys, and the command's packages."""

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from samcli.yamlhelper import yaml_parse

from local import stack
from local.release import CHECKSUMS, release
from local.stack import Aws, running
from tests.e2e.conftest import Site

VERSION = version("ses-bouncer")


@pytest.fixture(scope="module")
def dist(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "dist"
    release(built, folder)
    return folder


@pytest.fixture(scope="module")
def unpacked(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(dist / f"ses-bouncer-{VERSION}.zip") as archive:
        archive.extractall(folder)
    (only,) = folder.iterdir()
    return only


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    with running(outbox=tmp_path / "outbox") as aws:
        stack.prepare_account(aws)
        yield aws


def test_a_release_is_wheel_sdist_and_application_with_their_checksums(dist: Path) -> None:
    lines = (dist / CHECKSUMS).read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert set(sums) == {
        f"ses_bouncer-{VERSION}-py3-none-any.whl",
        f"ses_bouncer-{VERSION}.tar.gz",
        f"ses-bouncer-{VERSION}.zip",
    }
    assert {file.name for file in dist.iterdir()} == {*sums, CHECKSUMS}
    for name, digest in sums.items():
        assert hashlib.sha256((dist / name).read_bytes()).hexdigest() == digest


def test_a_second_release_of_the_same_build_is_the_same_byte_for_byte(
    built: Path, dist: Path, tmp_path: Path
) -> None:
    release(built, tmp_path / "again")
    assert (tmp_path / "again" / CHECKSUMS).read_text() == (dist / CHECKSUMS).read_text()


def test_the_zip_has_one_policy_and_every_folder_that_its_template_names(unpacked: Path) -> None:
    template = yaml_parse((unpacked / "template.yaml").read_text())
    named = {
        properties.get("CodeUri") or properties.get("ContentUri")
        for properties in (each.get("Properties", {}) for each in template["Resources"].values())
        if "CodeUri" in properties or "ContentUri" in properties
    }
    assert named == {path.name for path in unpacked.iterdir() if path.is_dir()} - {"docs"}
    (policy,) = unpacked.rglob("policy.toml")
    assert policy.parent.name == "InboundFunction"
    assert f"ses-bouncer {VERSION}:" in template["Description"]


def test_the_zip_s_settings_speak_of_nothing_that_is_not_in_it(unpacked: Path) -> None:
    text = (unpacked / "samconfig.toml").read_text()
    assert "make" not in text
    assert ".local" not in text
    settings = tomllib.loads(text)
    assert set(settings) == {"version", "default"}
    assert set(settings["default"]) == {"global", "deploy"}
    assert settings["default"]["global"]["parameters"] == {"stack_name": "ses-bouncer"}


def test_sam_deploy_alone_deploys_the_zip_and_its_functions_run(unpacked: Path, aws: Aws) -> None:
    """In the unpacked folder, with neither the checkout nor its Python on the path."""
    sam = Path(sys.executable).with_name("sam")
    before = _files(unpacked)
    done = subprocess.run(
        [
            sam,
            "deploy",
            "--no-confirm-changeset",
            "--parameter-overrides",
            f"BounceSender={stack.BOUNCE_SENDER}",
            f"ReceiptRuleSetName={stack.RULE_SET}",
            f"Architecture={stack.architecture()}",
        ],
        cwd=unpacked,
        env=aws.environment() | {"PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert _files(unpacked) == before
    site = Site(aws=aws, outputs=stack.outputs(aws))
    stack.import_mailboxes(aws)
    stack.activate(aws)
    line = site.decided(site.mail("nobody@example.com"))
    assert line["recipients"][0]["reason"] == "unknown-recipient"
    for name in ("AuditFunction", "SendFunction", "UsageFunction"):
        answer = site.client("lambda").invoke(
            FunctionName=site.physical_id(name), Payload=json.dumps({"Records": []})
        )
        assert json.loads(answer["Payload"].read()) == {"batchItemFailures": []}, name


def _files(root: Path) -> set[Path]:
    """What a build would add to; the SAM CLI's own notes go first."""
    shutil.rmtree(root / ".aws-sam", ignore_errors=True)
    return set(root.rglob("*"))
