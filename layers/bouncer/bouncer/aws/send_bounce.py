"""SendBounce: one call, started on the turn, and what its failures mean."""

import contextlib
import io
from collections.abc import Callable
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

from bouncer.aws.connections import Kept
from bouncer.delivery.bounce import Bounce, BounceError
from bouncer.delivery.send_bounce import RefusedError, ThrottledError, TryAgainError

if TYPE_CHECKING:
    from mypy_boto3_ses import SESClient

_THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"}
)
# Nothing reached SES when one of these was raised.
_NOT_SENT = (ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError, SSLError)


# Is built and signed, and goes nowhere.
_FIRST = {
    "OriginalMessageId": "-",
    "BounceSender": "mailer-daemon@example.com",
    "BouncedRecipientInfoList": [{"Recipient": "nobody@example.com", "BounceType": "DoesNotExist"}],
}


class _Body(io.BytesIO):
    """A request's body that knows whether all of it was handed to the connection."""

    def __init__(self, data: bytes, written: Callable[[], None]) -> None:
        super().__init__(data)
        self.sent = False
        self._written = written

    def read(self, size: int | None = -1) -> bytes:
        # urllib3 asks for more only when what it got before was written without an error.
        data = super().read(size)
        if not data and not self.sent:
            self.sent = True
            self._written()
        return data


class SesSendBounce:
    """A SendBounce, with a client whose own retries are off (see aws.clients.ses)."""

    def __init__(self, client: "SESClient", kept: Kept | None = None) -> None:
        self._client = client
        self._kept = kept or Kept()
        self._turn: tuple[Callable[[], None], Callable[[], None]] | None = None
        self._body: _Body | None = None
        self._built_one = False
        # botocore fires this when the request is built and signed and only has to be written
        # to the open connection: the last place to look at the clock.
        client.meta.events.register("before-send.ses.SendBounce", self._before_send)

    def _before_send(self, request: Any, **_: Any) -> None:
        its, self._turn = self._turn, None
        if its is None:
            return  # the client's other user is calling
        turn, written = its
        turn()
        body = request.body
        data = body.encode() if isinstance(body, str) else body
        request.body = self._body = _Body(data, written)

    def warm(self) -> None:
        """Whatever takes longer the first time, and the connection, if it may not be open."""
        if not self._built_one:
            # The SDK finds credentials, endpoint and signer with the first request that it makes.
            with contextlib.suppress(BotoCoreError):  # the call itself will say so
                self._client.generate_presigned_url("send_bounce", Params=_FIRST)
            self._built_one = True
        if not self._kept.may_be_dead:
            return
        self._client.close()
        # There is no public way to open a connection. The request has no signature and no
        # action, so it is no call of the API: SES answers it with an error, unread here.
        endpoint = self._client._endpoint  # type: ignore[attr-defined]  # noqa: SLF001  (no public way)
        try:
            endpoint.http_session.send(AWSRequest("GET", self._client.meta.endpoint_url).prepare())
        except (ConnectTimeoutError, ReadTimeoutError) as error:
            # To try the call itself would take as long again, and then be too late for its slot.
            raise TryAgainError(str(error), answer_lost=False) from error
        except BotoCoreError:
            return  # the call itself will meet the same fault and say so
        self._kept.use()

    def send(
        self,
        bounce: Bounce,
        turn: Callable[[], None],
        written: Callable[[], None] = lambda: None,
    ) -> str:
        try:
            request = bounce.request()
        except BounceError as error:
            raise RefusedError("InvalidBounce", str(error)) from error
        self._turn, self._body = (turn, written), None
        try:
            answer = self._client.send_bounce(**request)
        except ClientError as error:
            raise _classified(error) from error
        except NoCredentialsError as error:
            raise TryAgainError(str(error), answer_lost=False) from error
        except ResponseParserError as error:
            raise TryAgainError(f"unreadable answer: {error}", answer_lost=True) from error
        except BotoCoreError as error:
            if not isinstance(error, (HTTPClientError, *_NOT_SENT)):
                raise RefusedError(type(error).__name__, str(error)) from error
            # SES cannot act on a request of which it has not got the end.
            sent = self._body is None or self._body.sent
            lost = sent and not isinstance(error, _NOT_SENT)
            raise TryAgainError(str(error), answer_lost=lost) from error
        finally:
            self._turn = None
        self._kept.use()
        try:
            return answer["MessageId"]
        except KeyError as error:
            raise TryAgainError("unreadable answer: no MessageId", answer_lost=True) from error


def _classified(error: ClientError) -> Exception:
    code = error.response["Error"]["Code"]
    message = error.response["Error"].get("Message", code)
    if code in _THROTTLED:
        return ThrottledError(message)
    if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
        return TryAgainError(f"{code}: {message}", answer_lost=False)
    return RefusedError(code, message)
