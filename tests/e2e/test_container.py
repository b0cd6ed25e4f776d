"""`make invoke`: sam local invoke, in Lambda's container, against AWS on this machine."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from local import docker
from local.deployment import deployed
from local.stack import EVENTS, ROOT, Aws
from local.stories import MALFORMED, STORIES, Story, event_of


def _engine() -> bool:
    if shutil.which("docker") is None:
        return False
    done = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=30)
    return done.returncode == 0


pytestmark = pytest.mark.skipif(not _engine(), reason="no Docker engine runs here")


@pytest.fixture(scope="module")
def aws(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    outbox = tmp_path_factory.mktemp("outbox")
    with deployed(credentials=docker.CREDENTIALS_FILE, outbox=outbox) as (aws, _):
        docker.write_files(aws)
        yield aws
        docker.UP_FILE.unlink()


def _invoke(event: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """What the function answered, and its log lines."""
    done = subprocess.run(
        [sys.executable, "-m", "local.docker", str(EVENTS / event)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith('{"level')]
    return answer, lines


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_each_event_prints_its_decision(aws: Aws, story: Story) -> None:
    answer, lines = _invoke(f"{story.name}.json")
    assert answer == {"disposition": story.disposition}
    (line,) = [each for each in lines if each["message"] == "mail handled"]
    decided = {each["recipient"]: each for each in line["recipients"]}
    for expected in story.expected:
        assert decided[expected.recipient]["outcome"] == expected.outcome
        assert decided[expected.recipient]["reason"] == expected.reason
    message_id = event_of(story)["Records"][0]["ses"]["mail"]["messageId"]
    sent = [
        call
        for call in aws.listing("bounces")
        if call["request"]["OriginalMessageId"] == message_id and not call["error"]
    ]
    assert bool(sent) is bool(story.bounced)


def test_a_malformed_event_is_kept(aws: Aws) -> None:
    answer, lines = _invoke(MALFORMED.name)
    assert answer == {"disposition": "CONTINUE"}
    assert any("receipt" in str(line.get("exception")) for line in lines)
