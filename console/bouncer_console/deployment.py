"""The deployed stack that a command works on, found by its name."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import boto3
import msgspec
import typer
from botocore.config import Config
from botocore.exceptions import ClientError

from bouncer.aws.mailbox_table import MailboxTable
from bouncer.aws.pacing import LONGEST_WAIT, DynamoSlots, Limiter, NoSlotError, Pace, paced
from bouncer.aws.slots import SLOTS_ITEM
from bouncer.settings import attribute_names, domain_names
from bouncer_console.checkout import HERE
from bouncer_console.output import note

if TYPE_CHECKING:
    from collections.abc import Mapping

StackOption = Annotated[
    str, typer.Option("--stack", envvar="BOUNCER_STACK", help="The deployed stack.")
]
RegionOption = Annotated[
    str | None,
    typer.Option(
        "--region",
        help="The AWS Region; else that of samconfig.toml here, or as the AWS CLI finds it.",
    ),
]
DEFAULT_STACK = HERE.stack or "ses-bouncer"

# A person waits for these, so they may take their time.
_PATIENT = Config(retries={"total_max_attempts": 8, "mode": "adaptive"})


class DeploymentError(Exception):
    """The stack is not there, or lacks what is asked for."""


SOMEBODY_WAITS = 3.0
"""Seconds that a call waits for its turn while a person looks on."""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """One deployed stack."""

    stack: str
    region: str | None
    outputs: "Mapping[str, str]"
    parameters: "Mapping[str, str]"

    @classmethod
    def find(cls, stack: str, region: str | None, config: Config = _PATIENT) -> "Deployment":
        """
        Raises:
            DeploymentError: no such stack here.
        """
        try:
            described = client("cloudformation", region, config).describe_stacks(StackName=stack)
            found = described["Stacks"][0]
        except ClientError as error:
            raise DeploymentError(
                f"{error.response['Error'].get('Message', error)}; name yours with --stack, "
                "and its Region with --region"
            ) from error
        outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
        parameters = {
            each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])
        }
        return cls(stack=stack, region=region, outputs=outputs, parameters=parameters)

    def output(self, name: str) -> str:
        if name not in self.outputs:
            raise DeploymentError(f"the stack {self.stack} has no output {name}: deploy it again")
        return self.outputs[name]

    @property
    def interval(self) -> float:
        """Seconds between two SendBounce calls."""
        return float(self.parameters.get("SendIntervalSeconds", 1))

    @property
    def window_margin(self) -> timedelta:
        """A bounce is given up so long before SES's 24 hours end."""
        return timedelta(seconds=float(self.parameters.get("WindowMarginSeconds", 300)))

    def next_slot(self, dynamodb: Any) -> datetime | None:
        """When the next call that nobody has reserved may start; None before the first one."""
        answer = dynamodb.get_item(TableName=self.output("PaceTable"), Key=SLOTS_ITEM)
        slot = answer.get("Item", {}).get("next_slot")
        return datetime.fromtimestamp(float(slot["N"]), UTC) if slot else None

    def client(self, service: str) -> Any:
        return client(service, self.region)

    def paced_ses(self, *, max_wait: float = LONGEST_WAIT) -> Any:
        """SES's old API; each call takes its turn among the stack's bounces.

        Args:
            max_wait: seconds; with no turn so near, a call is made an interval later all the same.
        """
        slots = DynamoSlots(self.client("dynamodb"), self.output("PaceTable"))
        limiter = Limiter(slots, Pace(interval=self.interval))

        def without(_: NoSlotError) -> None:
            limiter.pause(limiter.pace.step)

        return paced(self.client("ses"), limiter, max_wait=max_wait, without=without)

    @property
    def own_mailbox_table(self) -> bool:
        """Whether the directory is a table of the user's own, which the stack only reads."""
        return bool(
            self.parameters.get("MailboxTableName") or self.parameters.get("MailboxAttributes")
        )

    @property
    def mailbox_domains(self) -> frozenset[str]:
        """Domains that the table speaks for without an `@domain` entry."""
        return domain_names(self.parameters.get("MailboxDomains", ""))

    def mailbox_table(self) -> MailboxTable:
        return MailboxTable(
            self.client("dynamodb"),
            self.output("MailboxTable"),
            names=attribute_names(self.parameters.get("MailboxAttributes", "")),
            on_bad_item=say_bad_item,
        )


def say_bad_item(address: str, error: str) -> None:
    note(f"{address}: {error}")


def client(service: str, region: str | None, config: Config = _PATIENT) -> Any:
    session: Any = boto3.session.Session(region_name=region or HERE.region)
    return session.client(service, config=config)
