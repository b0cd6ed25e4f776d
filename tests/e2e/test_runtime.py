"""The built function under AWS's own runtime interface client and emulator, without Docker."""

import json
import os
import platform
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import samcli

from local import stack
from local.aws.server import free_port
from local.demo import until
from local.stack import STATE
from local.stories import STORIES, event_of
from tests.e2e.conftest import Site

_ARCH = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), "")
_RIE = Path(samcli.__file__).parent / "local" / "rapid" / f"aws-lambda-rie-{_ARCH}"

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or not _RIE.exists(),
    reason="AWS's runtime interface emulator runs on Linux",
)


@pytest.fixture(scope="module")
def invoke(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Calls the function through the emulator, as Lambda's service would."""
    build = STATE / "build"
    port = free_port()
    emulator = tmp_path_factory.mktemp("rie") / "aws-lambda-rie"
    emulator.write_bytes(_RIE.read_bytes())
    emulator.chmod(0o755)
    environment = site.aws.environment() | stack.function_environment(site.aws, "InboundFunction")
    environment |= {
        "AWS_LAMBDA_FUNCTION_NAME": "inbound",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "25",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "LAMBDA_TASK_ROOT": str(build / "InboundFunction"),
        "PYTHONPATH": os.pathsep.join(
            [str(build / "InboundFunction"), str(build / "BouncerLayer" / "python")]
        ),
    }
    process = subprocess.Popen(
        [
            str(emulator),
            "--runtime-interface-emulator-address", f"127.0.0.1:{port}",
            "--runtime-api-address", f"127.0.0.1:{free_port()}",
            sys.executable, "-m", "awslambdaric", "app.handler",
        ],
        env=environment,
        cwd=build / "InboundFunction",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"

    def call(event: Any) -> Any:
        def attempt() -> Any:
            try:
                with urllib.request.urlopen(url, json.dumps(event).encode(), timeout=60) as answer:
                    return json.load(answer)
            except OSError:
                return None

        return until(attempt, "the emulator did not start", seconds=20)

    yield call
    os.killpg(process.pid, 9)
    process.wait(10)
    if process.stdout is not None:
        process.stdout.close()


@pytest.mark.parametrize("name", ["unknown-recipient", "accepted", "several-recipients"])
def test_the_function_decides_as_told(site: Site, invoke: Any, name: str) -> None:
    story = next(each for each in STORIES if each.name == name)
    assert invoke(event_of(story)) == {"disposition": story.disposition}
    message_id = event_of(story)["Records"][0]["ses"]["mail"]["messageId"]
    assert bool(site.bounces(message_id)) is bool(story.bounced)


def test_a_malformed_event_lets_the_mail_go_on(invoke: Any) -> None:
    assert invoke({"Records": [{}]}) == {"disposition": "CONTINUE"}
