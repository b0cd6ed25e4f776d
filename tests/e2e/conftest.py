"""The application, built, deployed to AWS on this machine and filled: once a test process."""

import fcntl
import json
import smtplib
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.config import Config

from local import stack
from local.aws.gate import Credentials, folder
from local.demo import kept_events, log_line, trace_of, until
from local.deployment import deployed
from local.stack import STATE, Aws

NOWHERE = Aws(port=1, smtp_port=1, outbox=Path(), credentials=Credentials.new())
"""No AWS: for what needs none."""

# The files go to the processes one by one, in this order: a long one that comes last is waited
# for by everybody.
_LONG = ("test_weather.py", "test_variants.py", "test_permissions.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return _LONG.index(item.path.name) if item.path.name in _LONG else len(_LONG)

    items.sort(key=place)


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """What `make local` writes where everybody finds it, one run at a time may write."""
    with (folder(STATE) / "make-local.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What a test mails to, and looks at."""

    aws: Aws
    outputs: dict[str, str]

    def client(self, service: str, config: Config | None = None) -> Any:
        return self.aws.client(service, config)

    def mail(
        self,
        *recipients: str,
        sender: str = "pat@sender.example",
        headers: Sequence[tuple[str, str]] = (),
        body: str = "Hello\n",
    ) -> str:
        """Send a mail with a real SMTP client; the id that SES gives it."""
        message = EmailMessage()
        message["From"] = sender or "Mail Delivery <mailer@sender.example>"
        message["To"] = ", ".join(recipients)
        message["Subject"] = "A test"
        for name, value in headers:
            message[name] = value
        message.set_content(body)
        return self.mail_raw(message.as_bytes(policy=SMTP), sender, *recipients)

    def mail_raw(self, data: bytes, sender: str, *recipients: str) -> str:
        with smtplib.SMTP("127.0.0.1", self.aws.smtp_port, timeout=60) as client:
            client.ehlo("mx.sender.example")
            client.mail(sender)
            for recipient in recipients:
                code, answer = client.rcpt(recipient)
                if code != 250:
                    raise smtplib.SMTPRecipientsRefused({recipient: (code, answer)})
            code, answer = client.data(data)
        assert code == 250, answer
        return answer.decode().split()[-1]

    def trace(self, message_id: str) -> dict[str, Any]:
        """What the rules did with the mail."""
        return until(lambda: trace_of(self.aws, message_id), "the rules did not end")

    def result(self, message_id: str) -> str:
        """How the last action ended: a disposition, or a failure."""
        last: str = self.trace(message_id)["steps"][-1]["result"]
        return last

    def decided(self, message_id: str) -> dict[str, Any]:
        """The function's own line about the mail."""
        self.trace(message_id)
        return until(lambda: log_line(self.aws, self.outputs, message_id), "no line in the log")

    def kept(self, message_id: str) -> dict[str, Any] | None:
        """The record among the dead letters that speaks of the mail."""
        records = kept_events(self.aws, self.outputs)
        return next((each for each in records if message_id in json.dumps(each)), None)

    def bounces(self, message_id: str) -> list[dict[str, Any]]:
        """The SendBounce calls about the mail that SES took."""
        return [
            call
            for call in self.aws.listing("bounces")
            if call["request"].get("OriginalMessageId") == message_id and not call["error"]
        ]

    def switch(self, **parameters: str) -> "Site":
        """The stack with these parameters, and everything else as it is, by CloudFormation itself.

        Returns:
            The same with its new outputs.
        """
        client = self.client("cloudformation")
        present = client.describe_stacks(StackName=stack.STACK)["Stacks"][0]["Parameters"]
        names = {each["ParameterKey"] for each in present}
        assert parameters.keys() <= names
        client.update_stack(
            StackName=stack.STACK,
            UsePreviousTemplate=True,
            Parameters=[
                {"ParameterKey": name, "ParameterValue": parameters[name]}
                if name in parameters
                else {"ParameterKey": name, "UsePreviousValue": True}
                for name in sorted(names)
            ],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        client.get_waiter("stack_update_complete").wait(
            StackName=stack.STACK, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )
        return Site(aws=self.aws, outputs=stack.outputs(self.aws))

    def physical_id(self, logical_id: str) -> str:
        """The name of a resource of the template."""
        stack = self.client("cloudformation").describe_stack_resource(
            StackName="ses-bouncer", LogicalResourceId=logical_id
        )
        name: str = stack["StackResourceDetail"]["PhysicalResourceId"]
        return name


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    outbox: Path = tmp_path_factory.mktemp("outbox")
    with deployed(outbox=outbox) as (aws, outputs):
        yield Site(aws=aws, outputs=outputs)


@pytest.fixture(scope="session")
def built() -> Path:
    """What `sam build` makes of this checkout."""
    return stack.build(NOWHERE).parent
