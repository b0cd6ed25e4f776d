"""The application, deployed to AWS on this machine step by step, for who asks for it."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bouncer_console.output import screen
from local import stack
from local.aws.gate import folder
from local.stack import EVENTS, STATE, Aws


@contextlib.contextmanager
def deployed(
    *,
    port: int | None = None,
    smtp_port: int | None = None,
    credentials: Path | None = None,
    outbox: Path = STATE / "outbox",
) -> Iterator[tuple[Aws, dict[str, str]]]:
    """The application on AWS on this machine, filled and switched on; says what it does.

    Args:
        port, smtp_port: where it listens; None takes a free one.
        credentials: where the run's key stands meanwhile; None takes a file of its own.
        outbox: where DSNs are written; what is in it goes.
    """
    folder(STATE)
    shutil.rmtree(outbox, ignore_errors=True)
    options = ["--events", str(EVENTS)]
    with contextlib.ExitStack() as stack_of:

        def start() -> Aws:
            return stack_of.enter_context(
                stack.running(
                    port=port,
                    smtp_port=smtp_port,
                    outbox=outbox,
                    credentials=credentials,
                    options=options,
                )
            )

        aws = _step("AWS on this machine (ministack, SES, SMTP)", start)
        _step("an account: verified domains, a rule set", lambda: stack.prepare_account(aws))
        template = _step("sam build", lambda: stack.build(aws))
        outputs = _step("sam deploy", lambda: stack.deploy(aws, template))
        _step("bouncer mailbox import", lambda: stack.import_mailboxes(aws))
        _step("bouncer rules activate", lambda: stack.activate(aws))
        _step("bouncer mode enforce, after its checks", lambda: stack.enforce(aws))
        stack.store_mail_of_events(aws, outputs)
        yield aws, outputs


def _step[Result](what: str, do: Callable[[], Result]) -> Result:
    started = time.monotonic()
    with screen.status(f"{what} …"):
        result = do()
    screen.print(f"  [green]✓[/] {what} [dim]{time.monotonic() - started:.1f} s[/]", markup=True)
    return result
