"""`make invoke`: the inbound function in Lambda's container, against AWS on this machine.

`python -m local.docker EVENT` uses the AWS that `make local` keeps up, or starts one for as
long as it takes.
"""

import json
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from local import stack
from local.aws.gate import Credentials
from local.deployment import deployed
from local.stack import STATE, Aws, StackError

ENV_FILE = STATE / "env.json"
"""The deployed functions' environment, for `sam local invoke --env-vars`."""
UP_FILE = STATE / "up.json"
"""Where the AWS of `make local` is, as long as it is up."""
CREDENTIALS_FILE = STATE / "credentials.json"
"""Its key, for its owner only."""

_NO_ENGINE = """\
No Docker engine answers, and `sam local invoke` runs the function in Lambda's container.
Start Docker and try again. Without it, `bouncer explain {event}` decides in the same code,
and `make local` runs the deployed function."""


def bridge() -> tuple[str, ...]:
    """The Docker bridge's address on this machine: where its containers find it, and only they."""
    answer = _docker("network", "inspect", "bridge", "--format", "{{json .IPAM.Config}}")
    if answer is None:
        return ()
    # Older engines leave the gateway out; it is the first address of the subnet.
    gateways = [
        each.get("Gateway") or str(next(ip_network(each["Subnet"]).hosts()))
        for each in json.loads(answer)
    ]
    return tuple(each for each in gateways if _is_ours(each))


def _is_ours(address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False  # Docker Desktop keeps the bridge in its own machine
    return True


def _docker(*arguments: str) -> str | None:
    """What docker prints; None when there is no engine."""
    program = shutil.which("docker")
    if program is None:
        return None
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    return done.stdout if done.returncode == 0 else None


def container_endpoint(aws: Aws) -> str:
    """The endpoint as a container reaches it."""
    host = next(iter(bridge()), "host.docker.internal")
    return f"http://{host}:{aws.port}"


def write_files(aws: Aws) -> None:
    """Note where this AWS is, and what the deployed functions have in their environment."""
    UP_FILE.write_bytes(msgspec.json.encode({"port": aws.port, "smtp_port": aws.smtp_port}))
    functions = ("InboundFunction", "SendFunction")
    variables = {name: stack.function_environment(aws, name) for name in functions}
    endpoint = {"AWS_ENDPOINT_URL": container_endpoint(aws)}
    for each in variables.values():
        each.update(endpoint)
        # The queues' addresses name loopback, which is the container itself in a container.
        each.update({k: _reachable(v, aws) for k, v in each.items() if k.endswith("_QUEUE_URL")})
    ENV_FILE.write_text(json.dumps(variables, indent=2))


def _reachable(url: str, aws: Aws) -> str:
    path = url.partition("://")[2].partition("/")[2]
    return f"{container_endpoint(aws)}/{path}"


def _kept_up() -> Aws | None:
    """The AWS of a running `make local`."""
    if not UP_FILE.exists():
        return None
    ports: dict[str, Any] = json.loads(UP_FILE.read_text())
    if not stack.listens(ports["port"]):
        return None
    try:
        key = Credentials.read(CREDENTIALS_FILE)
    except (OSError, msgspec.DecodeError):
        return None
    return Aws(
        port=ports["port"],
        smtp_port=ports["smtp_port"],
        outbox=STATE / "outbox",
        credentials=key,
    )


class _ToLoopback(socketserver.BaseRequestHandler):
    """One connection of a container, passed on to AWS on loopback."""

    def handle(self) -> None:
        port = self.request.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=30) as aws:
            aws.settimeout(None)
            back = threading.Thread(target=_pump, args=(aws, self.request), daemon=True)
            back.start()
            _pump(self.request, aws)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class _Door(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def door(port: int, addresses: tuple[str, ...]) -> Iterator[None]:
    """As long as this lasts, AWS is found at these addresses too, by whoever has the key.

    Args:
        port: AWS's, here and there.
        addresses: the bridge's; nothing else is opened.
    """
    with ExitStack() as doors:
        for address in addresses:
            server = doors.enter_context(_Door((address, port), _ToLoopback))
            threading.Thread(target=server.serve_forever, name="door", daemon=True).start()
            doors.callback(server.shutdown)
        yield


def invoke(aws: Aws, event: Path) -> int:
    """`sam local invoke`; its exit status."""
    command = [
        "sam",
        "local",
        "invoke",
        "InboundFunction",
        "--config-env",
        "local",
        "--event",
        str(event.resolve()),
        "--parameter-overrides",
        f"Architecture={stack.architecture()} AwsEndpointUrl={container_endpoint(aws)}",
    ]
    program = shutil.which("sam", path=aws.environment()["PATH"]) or "sam"
    with door(aws.port, bridge()):
        done = subprocess.run(
            [program, *command[1:]], cwd=stack.ROOT, env=aws.environment(), check=False
        )
    return done.returncode


def main(event: Annotated[Path, typer.Argument(help="An event file.", exists=True)]) -> None:
    """Run the inbound function on one event, in Lambda's container."""
    stack.end_on_signals()
    if _docker("info") is None:
        typer.echo(_NO_ENGINE.format(event=event), err=True)
        raise typer.Exit(1)
    try:
        with ExitStack() as context:
            aws = _kept_up()
            if aws is None:
                aws, _ = context.enter_context(deployed(credentials=CREDENTIALS_FILE))
            write_files(aws)  # Docker may have come up after AWS did
            raise typer.Exit(invoke(aws, event))
    except StackError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
