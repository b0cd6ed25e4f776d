"""What `pipx install` gives: the command, with what its package declares and nothing else."""

import os
import signal
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement

from bouncer_console.checkout import samconfig
from local.stack import ROOT, running
from tests.integration.builders import create_mailbox_table


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def _declared(requires: list[str]) -> set[str]:
    """The distributions that these requirements bring, extras apart, and those that they need."""
    found: set[str] = set()
    waiting = list(requires)
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name in found:
            continue
        installed = distribution(requirement.name)
        assert requirement.specifier.contains(installed.version), requirement
        found.add(requirement.name)
        waiting += installed.requires or []
    return found


def _requires(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("/METADATA"))
        metadata = archive.read(name).decode()
    return [
        line.removeprefix("Requires-Dist: ")
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist: ")
    ]


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it declares, as it is installed here already."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in _declared(_requires(wheel)):
        for file in distribution(name).files or ():
            source = Path(str(distribution(name).locate_file(file.parts[0])))
            target = packages / file.parts[0]
            if file.parts[0] != ".." and source.exists() and not target.exists():
                target.symlink_to(source)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", folder, wheel],
        check=True,
    )
    return folder


class Installed:
    """The installed command, in a folder that knows nothing of this project."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self._environment = environment
        self.folder = folder

    def __call__(
        self, *arguments: str, status: int = 0, environment: dict[str, str] | None = None
    ) -> str:
        """What it prints, on either stream."""
        inherited = environment or {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        done = subprocess.run(
            [self._environment / "bin" / "bouncer", *arguments],
            cwd=self.folder,
            env=inherited | {"AWS_EC2_METADATA_DISABLED": "true", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def bouncer(elsewhere: Path, tmp_path: Path) -> Installed:
    return Installed(elsewhere, tmp_path)


MAIL = b"""\
From: Pat <pat@sender.example>
To: nobody@example.com
Subject: Hello
Message-ID: <1@sender.example>
Date: Tue, 24 Nov 2026 10:00:00 +0000

Hello
"""


def test_the_wheel_holds_the_command_and_the_core_and_nothing_of_the_test_stand(
    wheel: Path,
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"bouncer", "bouncer_console"}


def test_the_wheel_holds_what_the_page_shows(wheel: Path) -> None:
    here = ROOT / "console" / "bouncer_console" / "web"
    shown = {
        str(path.relative_to(here.parents[1]))
        for folder in ("templates", "static")
        for path in (here / folder).iterdir()
    }
    with zipfile.ZipFile(wheel) as archive:
        assert shown <= {*archive.namelist()}
    assert {
        "bouncer_console/web/templates/layout.html",
        "bouncer_console/web/static/style.css",
    } <= shown


def test_the_page_is_served_and_ends_quietly(elsewhere: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [elsewhere / "bin" / "bouncer", "web", "--no-browser"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AWS_REGION": "us-east-1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with httpx.Client(trust_env=False) as browser:
            bare = browser.get(address.partition("?")[0])
            assert (bare.status_code, bare.content) == (403, b"")
            browser.get(address)
            css = browser.get(address.partition("?")[0] + "static/style.css")
            assert "color-scheme" in css.text
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (process.returncode, printed, said.strip()) == (0, "", "Ctrl-C ends it.")


def test_it_says_which_version_it_is(bouncer: Installed, wheel: Path) -> None:
    assert bouncer("--version").strip() == f"ses-bouncer {wheel.name.split('-')[1]}"


def test_a_mail_is_explained_and_its_dsn_shown(bouncer: Installed) -> None:
    (bouncer.folder / "mail.eml").write_bytes(MAIL)
    (bouncer.folder / "mailboxes.csv").write_text("address\n@example.com\nalice@example.com\n")
    envelope = ("--mail-from", "pat@sender.example", "--rcpt-to", "alice@example.com")
    assert "accept" in bouncer("explain", "mail.eml", *envelope)
    policy = bouncer.folder / "strict.toml"
    policy.write_text(
        """version = 1
[[rules]]
name = "closed"
action = "bounce"
when.mailbox = "known"
bounce_type = "DoesNotExist"
[[rules]]
name = "accept"
action = "accept"
"""
    )
    shown = bouncer("preview", "mail.eml", *envelope, "--policy", policy.name)
    assert "multipart/report" in shown
    assert "alice@example.com" in shown


def test_the_shipped_policy_is_at_hand(bouncer: Installed) -> None:
    assert "is a good policy" in bouncer("policy", "check")


def test_a_file_of_mailboxes_is_compared_with_a_table(bouncer: Installed, tmp_path: Path) -> None:
    (bouncer.folder / "boxes.csv").write_text("address,quota_bytes\nalice@example.com,1000\n")
    with running(outbox=tmp_path) as aws:
        create_mailbox_table(aws.client("dynamodb"), "boxes")
        shown = bouncer(
            *("mailbox", "import", "boxes.csv", "--dry-run", "--table", "boxes"),
            environment=aws.environment(),
        )
        assert aws.client("dynamodb").scan(TableName="boxes")["Items"] == []
    assert "alice@example.com" in shown


def test_without_an_account_a_file_of_mailboxes_is_compared_with_nothing(
    bouncer: Installed,
) -> None:
    (bouncer.folder / "boxes.csv").write_text("address,quota_bytes\nalice@example.com,1000\n")
    shown = bouncer("mailbox", "import", "boxes.csv", "--dry-run")
    assert "compared with an empty directory" in shown
    assert "1 would be added" in shown
    (bouncer.folder / "wrong.csv").write_text("address\n*@example.com\n")
    assert "wrong.csv: line 2:" in bouncer("mailbox", "import", "wrong.csv", "--dry-run", status=1)
    # What was named is not left out silently, and nothing is written to nowhere.
    assert "--region" in bouncer(
        "mailbox", "import", "boxes.csv", "--dry-run", "--stack", "mine", status=1
    )
    assert "--region" in bouncer("mailbox", "import", "boxes.csv", status=1)


def test_without_a_region_it_says_which_option_names_one(bouncer: Installed) -> None:
    assert "--region" in bouncer("status", "m-1", status=1)


@pytest.mark.parametrize(
    ("samconfig_text", "stack", "region"),
    [
        ('[default.global.parameters]\nstack_name = "mine"\n', "mine", None),
        ('[default.deploy.parameters]\nstack_name = "a"\nregion = "b"\n', "a", "b"),
        ("[default]\ndeploy = 1\n", None, None),
        ("not toml", None, None),
    ],
)
def test_stack_and_region_stand_in_the_checkouts_samconfig(
    tmp_path: Path, samconfig_text: str, stack: str | None, region: str | None
) -> None:
    (tmp_path / "samconfig.toml").write_text(samconfig_text)
    (tmp_path / "template.yaml").write_text("Description: ses-bouncer 1: x\nMetadata: {}\n")
    found = samconfig(tmp_path)
    assert (found.stack, found.region) == (stack, region)


def test_another_applications_samconfig_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "samconfig.toml").write_text('[default.global.parameters]\nstack_name = "x"\n')
    (tmp_path / "template.yaml").write_text("Description: a shop\nMetadata: {}\n")
    assert samconfig(tmp_path).stack is None
