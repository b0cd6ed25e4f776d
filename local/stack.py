"""The application on AWS on this machine: started, built, deployed and filled, step by step."""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import msgspec
from botocore.config import Config

from bouncer_console.mail import REGION
from local.aws.gate import Credentials, folder
from local.aws.server import free_port
from local.aws.weather import FORECAST

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".local"
EVENTS = ROOT / "events"
MAILBOXES = EVENTS / "mailboxes.csv"
"""The directory of the stories."""

STACK = "ses-bouncer"
RULE_SET = "local"
DOMAINS = ("example.com", "shop.example.com", "new.example.com")
BOUNCE_SENDER = "mailer-daemon@example.com"


class StackError(Exception):
    """A step failed; the text has what the tool printed."""


class Aws(msgspec.Struct, frozen=True, kw_only=True):
    """AWS on this machine, running."""

    port: int
    smtp_port: int
    outbox: Path
    credentials: Credentials
    """This run's key."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, service: str, config: Config | None = None) -> Any:
        """One for all who ask, but for those with a configuration of their own."""
        if config is None:
            return _client(service, self.endpoint, self.credentials)
        return _session(self.credentials).client(service, endpoint_url=self.endpoint, config=config)

    def environment(self) -> dict[str, str]:
        """For a program that must reach this AWS and no other."""
        return _inherited() | {
            "AWS_ENDPOINT_URL": self.endpoint,
            "BOUNCER_DNS_SERVER": f"127.0.0.1:{self.port}",  # UDP beside AWS's TCP
            "AWS_ACCESS_KEY_ID": self.credentials.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.credentials.secret_access_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "SAM_CLI_TELEMETRY": "0",
            "SAM_CLI_POLL_DELAY": "0.2",  # AWS is here, and answers at once; it waits 5 s else
            "__SAM_CLI_APP_DIR": str(STATE / "sam"),
            # `sam build` needs a python3.13 on the PATH: the one that runs this.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def weather(self, forecast: str) -> None:
        """Change the weather, `NAME` or `NAME:SEED`; see local/aws/weather.py."""
        (self.outbox / FORECAST).write_text(forecast)
        for _ in range(100):
            if self.listing("weather")[0]["forecast"] == forecast:
                return
            time.sleep(0.1)
        raise StackError(f"the weather did not turn to {forecast}")

    def listing(self, name: str) -> list[dict[str, Any]]:
        """`bounces` or `mails`, as the server lists them."""
        asked = urllib.request.Request(  # noqa: S310  (loopback)
            f"{self.endpoint}/_local/{name}", headers={"Authorization": self.credentials.basic}
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310  (loopback)
            listed: list[dict[str, Any]] = json.load(answer)
        return listed


# A session reads AWS's models anew, a tenth of a second each.
@cache
def _session(key: Credentials) -> Any:
    """A session, whose clients are of whatever service they are asked for."""
    return boto3.session.Session(
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        region_name=REGION,
    )


@cache
def _client(service: str, endpoint: str, key: Credentials) -> Any:
    return _session(key).client(service, endpoint_url=endpoint)


@contextlib.contextmanager
def running(
    *,
    port: int | None = None,
    smtp_port: int | None = None,
    outbox: Path | None = None,
    credentials: Path | None = None,
    options: Sequence[str] = (),
) -> Iterator[Aws]:
    """AWS on this machine for as long as the context lasts.

    Args:
        port, smtp_port: where it listens; None takes a free one.
        credentials: where the run's key stands meanwhile; None takes a file of its own.
        options: more of `python -m local.aws`.

    Raises:
        StackError: it did not start; a port may be taken.
    """
    port, smtp_port = port or free_port(), smtp_port or free_port()
    outbox = folder(outbox or folder(STATE) / "outbox")
    credentials = credentials or STATE / f"credentials-{port}.json"
    for taken in (port, smtp_port):
        if listens(taken):
            raise StackError(f"port {taken} is taken: end what listens there, or take another one")
    log = folder(STATE) / f"aws-{port}.log"
    command = [
        sys.executable,
        "-m",
        "local.aws",
        "--until-eof",
        "--aws-port",
        str(port),
        "--smtp-port",
        str(smtp_port),
        "--outbox",
        str(outbox),
        "--credentials",
        str(credentials),
        *options,
    ]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_inherited(),
            # It ends when this pipe closes, even if this process is killed.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,
        )
    try:
        if process.stdout is None or process.stdout.readline().strip() != "ready":
            raise StackError(f"AWS on this machine did not start:\n{log.read_text()[-2000:]}")
        yield Aws(
            port=port,
            smtp_port=smtp_port,
            outbox=outbox,
            credentials=Credentials.read(credentials),
        )
    finally:
        stop(process)
        credentials.unlink(missing_ok=True)


def _inherited() -> dict[str, str]:
    """This process's environment, without anything that leads to another AWS."""
    return {k: v for k, v in os.environ.items() if not k.startswith("AWS_")} | {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def end_on_signals() -> None:
    """SIGINT and SIGTERM raise KeyboardInterrupt, so that what was started is stopped.

    Set for SIGINT too: a shell starts what it puts into the background with SIGINT ignored.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.default_int_handler)


def listens(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def stop(process: "subprocess.Popen[str]") -> None:
    """End a process, and what it started."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)


def architecture() -> str:
    """This machine's, in Lambda's words: what is built here has to run here."""
    return "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"


@contextlib.contextmanager
def _lock(how: int) -> Iterator[None]:
    """On what is built in this checkout: fcntl.LOCK_EX to write it, LOCK_SH to read it."""
    with (folder(STATE) / "build.lock").open("w") as lock:
        fcntl.flock(lock, how)
        yield


def build(aws: Aws, target: Path = STATE, *, anew: bool = False) -> Path:
    """`sam build`, unless what stands there is of these very sources; the built template.

    Args:
        target: a folder with nobody else's `build`, `cache` and `build.toml` in it. The SAM CLI
            keeps the last beside what it built, and deletes from the cache what stands in no such
            file of its own: two builds that share one of them spoil each other's.
        anew: whatever stands there.
    """
    built, stamp = target / "build", target / "built-of"
    sources = _digest_of_sources()
    with _lock(fcntl.LOCK_EX):
        if anew or not stamp.exists() or stamp.read_text() != sources:
            stamp.unlink(missing_ok=True)
            _sam(
                aws,
                "build",
                *("--build-dir", str(built)),
                *("--cache-dir", str(target / "cache")),
                "--cached",
                *("--parameter-overrides", f"Architecture={architecture()}"),
            )
            stamp.write_text(sources)
    return built / "template.yaml"


def _digest_of_sources() -> str:
    """Of everything that a build depends on: sources, processor, Python."""
    digest = hashlib.sha256(f"{architecture()} {sys.version}".encode())
    roots = [ROOT / "template.yaml", *(ROOT / name for name in ("functions", "layers"))]
    for path in sorted(path for root in roots for path in (root, *root.rglob("*"))):
        if path.is_file() and path.parent.name != "__pycache__":
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(ROOT)} {content}\n".encode())
    return digest.hexdigest()


def prepare_account(aws: Aws) -> None:
    """What a user of SES has before a deployment: verified domains and an empty rule set."""
    ses = aws.client("ses")
    for domain in DOMAINS:
        ses.verify_domain_identity(Domain=domain)
    with contextlib.suppress(ses.exceptions.AlreadyExistsException):
        ses.create_receipt_rule_set(RuleSetName=RULE_SET)


def deploy(aws: Aws, template: Path, *, name: str = STACK, **parameters: str) -> dict[str, str]:
    """`sam deploy`; the stack's outputs."""
    overrides = {
        "BounceSender": BOUNCE_SENDER,
        "ReceiptRuleSetName": RULE_SET,
        "Architecture": architecture(),
        "AuditDelaySeconds": "5",
    } | parameters
    with _lock(fcntl.LOCK_SH):
        _sam(
            aws,
            "deploy",
            *("--template-file", str(template)),
            *("--stack-name", name),
            "--resolve-s3",
            *("--capabilities", "CAPABILITY_IAM"),
            "--no-confirm-changeset",
            "--no-fail-on-empty-changeset",
            "--parameter-overrides",
            *(f'{parameter}="{value}"' for parameter, value in overrides.items()),
        )
    return outputs(aws, name)


def outputs(aws: Aws, name: str = STACK) -> dict[str, str]:
    stack = aws.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    return {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}


def activate(aws: Aws) -> None:
    """By the command that the README gives."""
    _run(aws, "bouncer", "rules", "activate", RULE_SET)


def enforce(aws: Aws) -> None:
    """Go live by the command that the README gives, after its checks."""
    _run(aws, "bouncer", "mode", "enforce", "--stack", STACK)


def import_mailboxes(aws: Aws) -> None:
    """Fill the directory by the command that the README gives."""
    _run(aws, "bouncer", "mailbox", "import", str(MAILBOXES), "--stack", STACK)


def store_mail_of_events(aws: Aws, stack: dict[str, str]) -> None:
    """The stored mails of the event files, so that a replay finds their sizes."""
    s3 = aws.client("s3")
    for path in sorted(EVENTS.glob("*.eml")):
        event = json.loads(path.with_suffix(".json").read_text())
        message_id = event["Records"][0]["ses"]["mail"]["messageId"]
        s3.put_object(Bucket=stack["MailBucket"], Key=f"mail/{message_id}", Body=path.read_bytes())


def _sam(aws: Aws, *arguments: str) -> None:
    _run(aws, "sam", *arguments)


def _run(aws: Aws, *command: str) -> None:
    program = shutil.which(command[0], path=aws.environment()["PATH"]) or command[0]
    done = subprocess.run(
        [program, *command[1:]],
        cwd=ROOT,
        env=aws.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError(f"{' '.join(command[:2])} failed:\n{done.stdout}{done.stderr}"[-6000:])


def function_environment(aws: Aws, logical_id: str) -> dict[str, str]:
    """The deployed function's environment variables."""
    resource = aws.client("cloudformation").describe_stack_resource(
        StackName=STACK, LogicalResourceId=logical_id
    )
    name = resource["StackResourceDetail"]["PhysicalResourceId"]
    configuration = aws.client("lambda").get_function_configuration(FunctionName=name)
    variables: dict[str, str] = configuration["Environment"]["Variables"]
    return variables
