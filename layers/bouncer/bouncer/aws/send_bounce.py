"""SendBounce: one call, started on the turn, and what its failures mean."""

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import AWSRequest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from bouncer.delivery.bounce import Bounce, BounceError
from bouncer.delivery.send_bounce import RefusedError, ThrottledError, TryAgainError

if TYPE_CHECKING:
    from mypy_boto3_ses import SESClient

_THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"}
)
# Nothing reached SES when one of these was raised.
_NOT_SENT = (ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError, SSLError)

# An idle connection may be closed by the other end; after this long it is opened anew.
_STALE_AFTER_SECONDS = 10.0


class SesSendBounce:
    """A Sender. Sends bounces with a client whose own retries are off (see aws.clients.ses)."""

    def __init__(self, client: "SESClient") -> None:
        self._client = client
        self._turn: Callable[[], None] | None = None
        self._last_used = -_STALE_AFTER_SECONDS
        # botocore fires this when the request is built and signed and only has to be written
        # to the open connection: the last place to look at the clock.
        client.meta.events.register("before-send.ses.SendBounce", self._before_send)

    def _before_send(self, **_: Any) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn()

    def warm(self) -> None:
        """Open the connection, if it may not be open: TLS during the slot would make it late."""
        if monotonic() - self._last_used < _STALE_AFTER_SECONDS:
            return
        # There is no public way to open a connection. The request has no signature and no
        # action, so it is no call of the API: SES answers it with an error, unread here.
        endpoint = self._client._endpoint  # type: ignore[attr-defined]  # noqa: SLF001
        try:
            endpoint.http_session.send(AWSRequest("GET", self._client.meta.endpoint_url).prepare())
        except (ConnectTimeoutError, ReadTimeoutError) as error:
            # To try the call itself would take as long again, and then be too late for its slot.
            raise TryAgainError(str(error), answer_lost=False) from error
        except BotoCoreError:
            return  # the call itself will meet the same fault and say so
        self._last_used = monotonic()

    def send(self, bounce: Bounce, turn: Callable[[], None]) -> str:
        try:
            request = bounce.request()
        except BounceError as error:
            raise RefusedError("InvalidBounce", str(error)) from error
        self._turn = turn
        try:
            message_id = self._client.send_bounce(**request)["MessageId"]
        except ClientError as error:
            raise _classified(error) from error
        except NoCredentialsError as error:
            raise TryAgainError(str(error), answer_lost=False) from error
        except ResponseParserError as error:
            raise TryAgainError(f"unreadable answer: {error}", answer_lost=True) from error
        except BotoCoreError as error:
            lost = isinstance(error, HTTPClientError) and not isinstance(error, _NOT_SENT)
            if not lost and not isinstance(error, _NOT_SENT):
                raise RefusedError(type(error).__name__, str(error)) from error
            raise TryAgainError(str(error), answer_lost=lost) from error
        finally:
            self._turn = None
        self._last_used = monotonic()
        return message_id


def _classified(error: ClientError) -> Exception:
    code = error.response["Error"]["Code"]
    message = error.response["Error"].get("Message", code)
    if code in _THROTTLED:
        return ThrottledError(message)
    if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
        return TryAgainError(f"{code}: {message}", answer_lost=False)
    return RefusedError(code, message)
