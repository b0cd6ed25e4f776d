"""SendBounce as it is called: one request, on its turn, and what each failure means."""

import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.httpsession import URLLib3Session
from botocore.stub import Stubber
from mypy_boto3_ses import SESClient

from bouncer.aws import clients
from bouncer.aws.connections import Kept
from bouncer.aws.send_bounce import SesSendBounce
from bouncer.delivery.bounce import Bounce, BouncedRecipient
from bouncer.delivery.send_bounce import RefusedError, ThrottledError, TryAgainError
from bouncer.limiter import SlotExpiredError
from tests.fakes.bounces import BOUNCE_SENDER, NOBODY, bounce
from tests.integration.builders import SesServer, fail, recipients_of


def at_once() -> None:
    """A turn that has come."""


# --- What each answer means ------------------------------------------------------------------


@pytest.fixture
def client() -> SESClient:
    return clients.ses()


@pytest.fixture
def stubber(client: SESClient) -> Iterator[Stubber]:
    with Stubber(client) as stubber:
        yield stubber


def test_the_request_is_the_bounce_as_it_is(client: SESClient, stubber: Stubber) -> None:
    stubber.add_response(
        "send_bounce",
        {"MessageId": "bounce-1"},
        {
            "OriginalMessageId": "msg1",
            "BounceSender": BOUNCE_SENDER,
            "Explanation": "No such mailbox.",
            "BouncedRecipientInfoList": [{"Recipient": NOBODY, "BounceType": "DoesNotExist"}],
        },
    )
    given = bounce(explanation="No such mailbox.")
    assert SesSendBounce(client).send(given, at_once) == "bounce-1"
    stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    "code",
    ["Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"],
)
@pytest.mark.parametrize("status", [400, 429, 503])
def test_a_throttle_is_told_apart_from_every_other_error(
    client: SESClient, stubber: Stubber, code: str, status: int
) -> None:
    stubber.add_client_error("send_bounce", code, "Maximum sending rate exceeded.", status)
    with pytest.raises(ThrottledError, match="Maximum sending rate"):
        SesSendBounce(client).send(bounce(), at_once)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_5xx_is_an_answer_and_sent_nothing(
    client: SESClient, stubber: Stubber, status: int
) -> None:
    stubber.add_client_error("send_bounce", "ServiceUnavailable", "later", status)
    with pytest.raises(TryAgainError, match="ServiceUnavailable: later") as caught:
        SesSendBounce(client).send(bounce(), at_once)
    assert not caught.value.answer_lost


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("MessageRejected", 400),
        ("InvalidParameterValue", 400),
        ("ValidationError", 400),
        ("AccessDenied", 403),
        ("AccessDeniedException", 403),
        ("SignatureDoesNotMatch", 403),
    ],
)
def test_any_other_error_is_final_and_keeps_its_code(
    client: SESClient, stubber: Stubber, code: str, status: int
) -> None:
    stubber.add_client_error("send_bounce", code, "no", status)
    with pytest.raises(RefusedError, match="no") as caught:
        SesSendBounce(client).send(bounce(), at_once)
    assert caught.value.code == code


_URL = "https://email.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("trouble", "answer_lost"),
    [
        (EndpointConnectionError(endpoint_url=_URL), False),
        (ConnectTimeoutError(endpoint_url=_URL), False),
        (ProxyConnectionError(proxy_url="http://proxy"), False),
        (SSLError(endpoint_url=_URL, error=OSError("handshake")), False),
        (NoCredentialsError(), False),
        (ReadTimeoutError(endpoint_url=_URL), True),
        (ConnectionClosedError(endpoint_url=_URL), True),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
def test_a_connection_that_fails_is_tried_again_and_says_whether_the_answer_is_lost(
    client: SESClient, trouble: BotoCoreError, answer_lost: bool
) -> None:
    fail(client, "SendBounce", trouble)
    with pytest.raises(TryAgainError) as caught:
        SesSendBounce(client).send(bounce(), at_once)
    assert caught.value.answer_lost is answer_lost


def test_a_request_that_botocore_refuses_is_final(client: SESClient) -> None:
    fail(client, "SendBounce", ParamValidationError(report="wrong"))
    with pytest.raises(RefusedError) as caught:
        SesSendBounce(client).send(bounce(), at_once)
    assert caught.value.code == "ParamValidationError"


@pytest.mark.parametrize(
    "bad",
    [
        BouncedRecipient(recipient=NOBODY, reason="unknown-recipient"),
        BouncedRecipient(recipient=NOBODY, reason="r", explanation="two\r\nlines"),
    ],
    ids=["neither type nor status", "line break"],
)
def test_a_bad_bounce_never_reaches_the_wire_and_takes_no_turn(
    ses_server: SesServer, bad: BouncedRecipient
) -> None:
    turns: list[int] = []
    given = Bounce(
        message_id="msg1",
        received_at=bounce().received_at,
        bounce_sender=BOUNCE_SENDER,
        recipients=(bad,),
    )
    with pytest.raises(RefusedError) as caught:
        SesSendBounce(clients.ses()).send(given, lambda: turns.append(1))
    assert caught.value.code == "InvalidBounce"
    assert turns == []
    assert ses_server.arrivals == []


# --- On the wire -----------------------------------------------------------------------------


@pytest.fixture
def sender(ses_server: SesServer) -> SesSendBounce:
    """With the client that the functions use."""
    return SesSendBounce(clients.ses())


def test_a_bounce_is_sent_in_one_request(sender: SesSendBounce, ses_server: SesServer) -> None:
    assert sender.send(bounce("msg1", "a@example.com", "b@example.com"), at_once) == "bounce-1"
    (call,) = ses_server.arrivals
    assert call.action == "SendBounce"
    assert call.parameters["OriginalMessageId"] == "msg1"
    assert recipients_of(call) == ["a@example.com", "b@example.com"]


def test_warming_opens_the_connection_that_the_call_then_uses(
    sender: SesSendBounce, ses_server: SesServer
) -> None:
    sender.warm()
    sender.send(bounce(), at_once)
    warmed, called = ses_server.arrivals
    assert (warmed.action, called.action) == ("", "SendBounce")
    assert warmed.connection == called.connection


def test_a_warm_connection_is_not_warmed_again(
    sender: SesSendBounce, ses_server: SesServer
) -> None:
    for number in range(3):
        sender.warm()
        sender.send(bounce(f"msg{number}"), at_once)
    assert [each.action for each in ses_server.arrivals] == ["", *["SendBounce"] * 3]
    assert len({each.connection for each in ses_server.arrivals}) == 1


def test_a_connection_that_was_only_warmed_is_warm(
    sender: SesSendBounce, ses_server: SesServer
) -> None:
    sender.warm()
    sender.warm()
    assert len(ses_server.arrivals) == 1


@pytest.mark.parametrize(
    ("wall", "running"),
    [(6.0, 6.0), (3600.0, 0.2), (1.0, 0.2), (-3600.0, 0.2), (0.2, 6.0)],
    ids=["idle", "frozen for long", "frozen briefly", "clock set back", "clock held back"],
)
def test_a_connection_that_may_have_died_meanwhile_is_opened_anew(
    ses_server: SesServer, wall: float, running: float
) -> None:
    """Lambda freezes the process between invocations, and its monotonic clock with it."""
    clocks = [1000.0, 50.0]
    kept = Kept(lambda: clocks[0], lambda: clocks[1])
    sender = SesSendBounce(clients.ses(), kept)
    sender.warm()
    clocks[0] += wall
    clocks[1] += running
    sender.warm()
    assert [each.action for each in ses_server.arrivals] == ["", ""]
    assert len({each.connection for each in ses_server.arrivals}) == 2


@pytest.mark.parametrize(
    "trouble", [ConnectTimeoutError(endpoint_url=_URL), ReadTimeoutError(endpoint_url=_URL)]
)
def test_an_ses_that_does_not_answer_to_warming_sent_nothing(
    sender: SesSendBounce, monkeypatch: pytest.MonkeyPatch, trouble: BotoCoreError
) -> None:
    break_connections(monkeypatch, trouble)
    with pytest.raises(TryAgainError) as caught:
        sender.warm()
    assert not caught.value.answer_lost


@pytest.mark.parametrize(
    "trouble",
    [
        EndpointConnectionError(endpoint_url=_URL),
        ConnectionClosedError(endpoint_url=_URL),
        ProxyConnectionError(proxy_url="http://proxy"),
        SSLError(endpoint_url=_URL, error=OSError("handshake")),
    ],
    ids=lambda each: type(each).__name__,
)
def test_any_other_fault_in_warming_is_left_for_the_call_to_say(
    sender: SesSendBounce,
    ses_server: SesServer,
    monkeypatch: pytest.MonkeyPatch,
    trouble: BotoCoreError,
) -> None:
    with monkeypatch.context() as patch:
        break_connections(patch, trouble)
        sender.warm()
    sender.warm()
    assert len(ses_server.arrivals) == 1


def break_connections(monkeypatch: pytest.MonkeyPatch, trouble: BotoCoreError) -> None:
    def send(*_: Any) -> Any:
        raise trouble

    monkeypatch.setattr(URLLib3Session, "send", send)


@pytest.mark.parametrize("status", [200, 429, 503])
def test_an_answer_that_cannot_be_read_may_have_been_a_yes(
    sender: SesSendBounce, ses_server: SesServer, status: int
) -> None:
    ses_server.answers = [(status, "Odd", "<<")]
    with pytest.raises(TryAgainError, match="unreadable answer") as caught:
        sender.send(bounce(), at_once)
    assert caught.value.answer_lost


def test_a_yes_without_an_id_may_have_been_a_yes(
    sender: SesSendBounce, ses_server: SesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = "<SendBounceResponse><SendBounceResult/></SendBounceResponse>"
    monkeypatch.setattr(ses_server, "_answer", lambda _: (200, empty))
    with pytest.raises(TryAgainError, match="no MessageId") as caught:
        sender.send(bounce(), at_once)
    assert caught.value.answer_lost


def test_the_turn_comes_when_only_the_bytes_have_to_go_out(
    sender: SesSendBounce, ses_server: SesServer
) -> None:
    signed: list[bool] = []
    arrived: list[int] = []
    sender._client.meta.events.register(
        "before-sign.ses.SendBounce", lambda **_: signed.append(True)
    )

    def turn() -> None:
        assert signed == [True]
        arrived.append(len(ses_server.arrivals))

    sender.send(bounce(), turn)
    assert arrived == [0]
    assert len(ses_server.calls) == 1


def test_every_call_takes_its_own_turn_once(sender: SesSendBounce) -> None:
    turns: list[str] = []
    for name in ("first", "second"):
        sender.send(bounce(name), partial(turns.append, name))
    assert turns == ["first", "second"]


def test_a_slot_that_expired_sends_nothing(sender: SesSendBounce, ses_server: SesServer) -> None:
    def too_late() -> None:
        raise SlotExpiredError

    with pytest.raises(SlotExpiredError):
        sender.send(bounce(), too_late)
    assert ses_server.arrivals == []


def test_after_an_expired_slot_the_next_call_works(
    sender: SesSendBounce, ses_server: SesServer
) -> None:
    def too_late() -> None:
        raise SlotExpiredError

    with pytest.raises(SlotExpiredError):
        sender.send(bounce(), too_late)
    assert sender.send(bounce(), at_once) == "bounce-1"


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (500, "InternalFailure", TryAgainError),
        (503, "ServiceUnavailable", TryAgainError),
        (400, "Throttling", ThrottledError),
        (503, "Throttling", ThrottledError),
        (400, "MessageRejected", RefusedError),
    ],
)
def test_the_sdk_never_calls_again_by_itself(
    sender: SesSendBounce,
    ses_server: SesServer,
    status: int,
    code: str,
    error: type[Exception],
) -> None:
    """A retry that nobody paced would be a call too many."""
    turns: list[int] = []
    ses_server.answers = [(status, code, "told so")] * 5
    with pytest.raises(error):
        sender.send(bounce(), lambda: turns.append(1))
    assert len(ses_server.arrivals) == 1
    assert turns == [1]


def test_the_answer_of_a_call_that_timed_out_is_lost(
    ses_server: SesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = clients._UNPACED_RETRIES_OFF.merge(Config(read_timeout=0.05))
    monkeypatch.setattr(clients, "_UNPACED_RETRIES_OFF", impatient)
    ses_server.silent_for = 5.0
    with pytest.raises(TryAgainError) as caught:
        SesSendBounce(clients.ses()).send(bounce(), at_once)
    assert caught.value.answer_lost
    assert len(ses_server.calls) == 1


def test_the_answer_of_a_connection_that_broke_is_lost(
    sender: SesSendBounce, ses_server: SesServer
) -> None:
    ses_server.hang_up = True
    with pytest.raises(TryAgainError) as caught:
        sender.send(bounce(), at_once)
    assert caught.value.answer_lost
    assert len(ses_server.calls) == 1


def test_a_connection_that_is_refused_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_SES", f"http://127.0.0.1:{closed.getsockname()[1]}")
        sender = SesSendBounce(clients.ses())
        with pytest.raises(TryAgainError) as caught:
            sender.send(bounce(), at_once)
    assert not caught.value.answer_lost


@pytest.mark.parametrize(
    ("make", "attempts"),
    [
        ("ses", 1),
        ("dynamodb", 3),
        ("s3", 3),
        ("sqs", 3),
        ("appconfigdata", 3),
        ("ses_rules", 8),
    ],
)
def test_how_often_each_client_may_try(make: str, attempts: int) -> None:
    client = getattr(clients, make)()
    assert client.meta.config.retries["total_max_attempts"] == attempts


def test_what_ses_answers_to_warming_does_not_matter() -> None:
    """A client whose server is another one than SES's is warmed all the same."""
    with SesServer().running() as server:
        client = boto3.client("ses", endpoint_url=server.url)
        SesSendBounce(client).warm()
        assert [each.action for each in server.arrivals] == [""]
