"""What the tests of AWS share: tables, mails, faults, and an SES that answers as it is told."""

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import msgspec
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_s3 import S3Client
from mypy_boto3_sqs import SQSClient
from urllib3 import HTTPResponse

from bouncer.aws import stack_key
from bouncer.aws.slots import SLOTS_ITEM
from tests.fakes.bounces import NOBODY

QUEUE_KEY = b"k" * 32
BOUNCES = "bounces"
MAILBOXES = "mailboxes"
BUCKET = "stored-mail"
PREFIX = "mail/"
PAT = "pat@sender.example"
ALICE = "alice@example.com"

type Item = dict[str, Any]


# --- What a stack has ------------------------------------------------------------------------


def create_bounce_table(client: DynamoDBClient, name: str = BOUNCES) -> None:
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
    )


def create_mailbox_table(
    client: DynamoDBClient, name: str = MAILBOXES, key: str = "address"
) -> None:
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
    )


def put_mailbox(client: DynamoDBClient, address: str = ALICE, **fields: Any) -> None:
    """An entry as any system may write it."""
    client.put_item(TableName=MAILBOXES, Item=item(address=address, **fields))


def know_domain(client: DynamoDBClient, domain: str = "example.com") -> None:
    """Let the directory speak for a domain: its other addresses are unknown then."""
    put_mailbox(client, f"@{domain}", catch_all=False)


def know_key(client: DynamoDBClient) -> None:
    """Give the stack the key that the tests' own messages are signed with."""
    key: Any = {**stack_key.ITEM, "secret": {"B": QUEUE_KEY}}
    client.put_item(TableName=BOUNCES, Item=key)


def reserve_until(client: DynamoDBClient, next_slot: float) -> None:
    """Let somebody have reserved every slot before this one (epoch seconds)."""
    client.put_item(TableName=BOUNCES, Item={**SLOTS_ITEM, "next_slot": {"N": f"{next_slot:.6f}"}})


def item(**fields: Any) -> Item:
    """Plain values as DynamoDB has them."""
    return {name: _attribute(value) for name, value in fields.items()}


def _attribute(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | float):
        return {"N": str(value)}
    return {"S": str(value)}


def stored(client: DynamoDBClient, table: str, **key: str) -> dict[str, str]:
    """An item's attributes as text; empty when there is none."""
    found: Any = client.get_item(TableName=table, Key=item(**key)).get("Item", {})
    return {name: str(next(iter(value.values()))) for name, value in found.items()}


def entry_of(client: DynamoDBClient, message_id: str, recipient: str) -> dict[str, str]:
    """One recipient's line in the ledger."""
    return stored(client, BOUNCES, pk=f"message#{message_id}", sk=f"recipient#{recipient}")


def mailbox_of(client: DynamoDBClient, address: str = ALICE) -> dict[str, str]:
    return stored(client, MAILBOXES, address=address)


def put_mail(
    client: S3Client, message_id: str, data: bytes = b"Subject: Hello\r\n\r\nBody"
) -> None:
    client.put_object(Bucket=BUCKET, Key=PREFIX + message_id, Body=data)


def bodies(client: SQSClient, queue_url: str) -> list[Any]:
    """What stands in a queue, decoded; it stays there."""
    found = []
    while messages := client.receive_message(
        QueueUrl=queue_url, MaxNumberOfMessages=10, VisibilityTimeout=30
    ).get("Messages"):
        for message in messages:
            try:
                found.append(json.loads(message["Body"]))
            except ValueError:
                found.append(message["Body"])
    return found


# --- Mails and bounces -----------------------------------------------------------------------


def ses_event(
    *recipients: str,
    message_id: str = "msg1",
    sender: str = PAT,
    invocation_type: str = "RequestResponse",
    received_at: datetime | None = None,
    headers: Iterable[tuple[str, str]] = (),
    headers_truncated: bool = False,
    **verdicts: str,
) -> dict[str, Any]:
    """The event of a mail that passed every check, unless a verdict says otherwise."""
    moment = received_at or datetime.now(UTC)
    receipt: dict[str, Any] = {
        f"{name}Verdict": {"status": verdicts.get(name, "PASS")}
        for name in ("spam", "virus", "spf", "dkim", "dmarc")
    }
    return {
        "Records": [
            {
                "eventSource": "aws:ses",
                "eventVersion": "1.0",
                "ses": {
                    "mail": {
                        "timestamp": moment.isoformat(timespec="milliseconds"),
                        "source": sender,
                        "messageId": message_id,
                        "headersTruncated": headers_truncated,
                        "headers": [
                            {"name": name, "value": value}
                            for name, value in (("From", sender), *headers)
                        ],
                    },
                    "receipt": {
                        "recipients": list(recipients or (NOBODY,)),
                        **receipt,
                        "action": {"type": "Lambda", "invocationType": invocation_type},
                    },
                },
            }
        ]
    }


class Context(LambdaContext):
    """What Lambda tells a function of its invocation."""

    def __init__(
        self, function_name: str = "ses-bouncer-inbound", *, seconds_left: float = 25.0
    ) -> None:
        self._function_name = function_name
        self._memory_limit_in_mb = 512
        self._invoked_function_arn = (
            "arn:aws:lambda:us-east-1:123456789012:function:ses-bouncer-inbound"
        )
        self._aws_request_id = "request-1"
        self._seconds_left = seconds_left

    def get_remaining_time_in_millis(self) -> int:  # type: ignore[override]  # is one in Lambda, too
        return int(self._seconds_left * 1000)


# --- Watching and disturbing a client --------------------------------------------------------


def requests_of(client: Any) -> list[str]:
    """The operations that a client is asked for from now on, in order."""
    seen: list[str] = []

    def note(model: Any, **_: Any) -> None:
        seen.append(model.name)

    client.meta.events.register_first(_hook("before-call", client), note)
    return seen


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An error of AWS's, as a client gets it."""

    code: str
    status: int = 400
    message: str = "told so by the test"
    more: dict[str, Any] = {}


def no_response(status: int) -> AWSResponse:
    """What a `before-call` handler returns beside its answer: nothing was sent."""
    return AWSResponse("https://nowhere.invalid", status, HTTPHeaders(), HTTPResponse())


def fail(client: Any, operation: str, *answers: Answer | Exception) -> None:
    """Let the next calls of an operation fail, one answer each; the service never sees them."""
    fail_with(client, operation, iter(answers))


def fail_with(client: Any, operation: str, answers: Iterator[Answer | Exception]) -> None:
    """The same, with answers that are asked for when they are needed."""

    def answer(model: Any, **_: Any) -> Any:
        if model.name != operation or (each := next(answers, None)) is None:
            return None
        if isinstance(each, Exception):
            raise each
        response = no_response(each.status)
        metadata = {"HTTPStatusCode": each.status, "HTTPHeaders": {}}
        error = {"Code": each.code, "Message": each.message}
        return response, {"Error": error, "ResponseMetadata": metadata, **each.more}

    client.meta.events.register(_hook("before-call", client), answer)


def set_date(client: Any, moment: float | None) -> None:
    """The Date header of every answer from now on: so many epoch seconds, or none."""

    def redate(parsed: dict[str, Any], **_: Any) -> None:
        headers = parsed["ResponseMetadata"]["HTTPHeaders"]
        headers.pop("date", None)
        if moment is not None:
            headers["date"] = formatdate(moment, usegmt=True)

    client.meta.events.register(_hook("after-call", client), redate)


def _hook(event: str, client: Any, operation: str = "") -> str:
    service = client.meta.service_model.service_id.hyphenize()
    return f"{event}.{service}.{operation}".rstrip(".")


# --- An SES on this machine ------------------------------------------------------------------


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request that reached the server."""

    action: str
    """The API's, or empty for a request that is no call."""
    parameters: dict[str, str]
    connection: int
    """The client's port: the same for requests on one connection."""
    at: float


class SesServer:
    """Answers SendBounce as it is told, in order, then with success."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.answers: list[tuple[int, str, str]] = []
        """HTTP status, error code and message of the next calls."""
        self.silent_for = 0.0
        """Seconds before each call is answered."""
        self.hang_up = False
        """Close the connection instead of answering a call."""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner._arrived(self.client_address[1], {})
                self._reply(404, "<html/>")

            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                fields = parse_qs(self.rfile.read(size).decode())
                parameters = {name: values[0] for name, values in fields.items()}
                number = owner._arrived(self.client_address[1], parameters)
                if owner.hang_up:
                    self.close_connection = True
                    return
                owner._closing.wait(owner.silent_for)
                self._reply(*owner._answer(number))

            def _reply(self, status: int, body: str) -> None:
                data = body.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (http.server's)
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                return  # a client that gave up waiting has closed its end

        self._closing = threading.Event()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def calls(self) -> list[Arrival]:
        """The API calls among what arrived."""
        return [each for each in self.arrivals if each.action]

    @contextmanager
    def running(self) -> Iterator["SesServer"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._closing.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def _arrived(self, connection: int, parameters: dict[str, str]) -> int:
        action = parameters.get("Action", "")
        arrival = Arrival(
            action=action, parameters=parameters, connection=connection, at=time.monotonic()
        )
        self.arrivals.append(arrival)
        return len(self.calls)

    def _answer(self, number: int) -> tuple[int, str]:
        if self.answers:
            status, code, message = self.answers.pop(0)
            error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
            return status, f"<ErrorResponse>{error}<RequestId>r</RequestId></ErrorResponse>"
        result = f"<SendBounceResult><MessageId>bounce-{number}</MessageId></SendBounceResult>"
        return 200, f"<SendBounceResponse>{result}</SendBounceResponse>"


def recipients_of(arrival: Arrival) -> list[str]:
    """Whom a SendBounce call was about, in order."""
    prefix = "BouncedRecipientInfoList.member."
    return [
        value
        for name, value in arrival.parameters.items()
        if name.startswith(prefix) and name.endswith(".Recipient")
    ]
