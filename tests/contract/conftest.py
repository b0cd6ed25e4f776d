"""AWS inside the test process, for the adapters beside the fakes; and the simulator's AWS."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.config import Config

from sim.dynamodb import DynamoDB, DynamoDBClient, Table
from sim.faults import Swarm
from sim.kernel import Kernel
from sim.network import Network
from sim.sqs import Queue, SQSClient
from tests.integration.builders import BOUNCES, MAILBOXES
from tests.integration.conftest import _models_read_once, aws, dynamodb, queue, s3, sqs

__all__ = ["_models_read_once", "aws", "dynamodb", "queue", "s3", "sqs"]

_CONFIG: Any = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 2})


class _Undated(DynamoDB):
    """Its answers do not tell the time: the tests set their own clocks."""

    def _headers(self) -> dict[str, str]:
        return {}


class Simulated:
    """The simulator's services with no fault in them, at a moment that stands still."""

    def __init__(self, now: float) -> None:
        self._kernel = kernel = Kernel(0, now)
        self._faults = Swarm(chances={}, chance=kernel.chance, until=now)
        self._network = Network(kernel, self._faults, 350.0, silent=False)
        tables = (Table(BOUNCES, kernel, "pk", "sk"), Table(MAILBOXES, kernel, "address"))
        self.dynamodb: Any = DynamoDBClient(_Undated(kernel, tables), self._network, _CONFIG)

    def queue(self, name: str) -> tuple[Queue, Any]:
        """A queue, and a client that knows it."""
        made = Queue(name, self._kernel, self._faults)
        return made, SQSClient({made.url: made}, self._network, _CONFIG)


@pytest.fixture
def simulated() -> Callable[[float], Simulated]:
    return Simulated
