"""The stored mail: its size, its headers up to the blank line, and silence where it is not."""

from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from botocore.response import StreamingBody
from mypy_boto3_s3 import S3Client

from bouncer.aws.stored_mail import S3StoredMail
from bouncer.headers import Header
from tests.integration.builders import BUCKET, PREFIX, Answer, fail, put_mail, requests_of


class Store:
    """The mail store, and what it could not tell."""

    def __init__(self, s3: S3Client) -> None:
        self.failures: list[str | Exception] = []
        self.mail = S3StoredMail(s3, BUCKET, PREFIX, on_failure=self.failures.append)


@pytest.fixture
def store(s3: S3Client) -> Store:
    return Store(s3)


def headers_of(store: Store, s3: S3Client, data: bytes) -> list[tuple[str, str]]:
    put_mail(s3, "msg1", data)
    headers = store.mail.headers("msg1")
    assert headers is not None
    return [(each.name, each.value) for each in headers]


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_the_size_is_that_of_the_object(store: Store, s3: S3Client, size: int) -> None:
    put_mail(s3, "msg1", bytes(size))
    assert store.mail.size("msg1") == size


def test_the_size_costs_one_request_without_the_mail(store: Store, s3: S3Client) -> None:
    put_mail(s3, "msg1")
    seen = requests_of(s3)
    store.mail.size("msg1")
    assert seen == ["HeadObject"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"From: a@b.example\r\nTo: c@d.example\r\n\r\nBody", ["From", "To"]),
        (b"From: a@b.example\nTo: c@d.example\n\nBody", ["From", "To"]),
        (b"From: a@b.example\r\n\r\nTo: not a header", ["From"]),
        (b"Received: one\r\nReceived: two\r\n\r\n", ["Received", "Received"]),
        (b"From: a@b.example\r\n", ["From"]),
    ],
    ids=["crlf", "lf", "body", "repeated", "no blank line"],
)
def test_the_headers_are_read_up_to_the_blank_line(
    store: Store, s3: S3Client, data: bytes, expected: list[str]
) -> None:
    assert [name for name, _ in headers_of(store, s3, data)] == expected


@pytest.mark.parametrize("data", [b"", b"\r\nBody", b"\x00\x01 ciphertext"])
def test_what_does_not_begin_with_headers_tells_nothing_and_says_so(
    store: Store, s3: S3Client, data: bytes
) -> None:
    put_mail(s3, "msg1", data)
    assert store.mail.headers("msg1") is None
    assert len(store.failures) == 1


def test_a_mail_of_forty_megabytes_costs_one_request_for_its_beginning(
    store: Store, s3: S3Client
) -> None:
    put_mail(s3, "msg1", b"Subject: large\r\n\r\n" + bytes(40_000_000))
    asked: list[str] = []
    s3.meta.events.register(
        "before-parameter-build.s3.GetObject", lambda params, **_: asked.append(params["Range"])
    )
    assert store.mail.headers("msg1") == (Header("Subject", "large"),)
    assert asked == ["bytes=0-1048575"]


@pytest.mark.parametrize("chunk", range(65_530, 65_540))
def test_the_end_of_the_headers_is_found_wherever_a_read_cuts_it(
    store: Store, s3: S3Client, chunk: int
) -> None:
    filler = b"X-Filler: " + b"x" * (chunk - 10 - 4)
    headers = headers_of(store, s3, filler + b"\r\n\r\nAuto-Submitted: in-the-body\r\n")
    assert [name for name, _ in headers] == ["X-Filler"]


def test_a_folded_header_is_one(store: Store, s3: S3Client) -> None:
    ((name, value),) = headers_of(store, s3, b"Subject: one\r\n two\r\n\tthree\r\n\r\n")
    assert name == "Subject"
    assert value.split() == ["one", "two", "three"]


def test_a_header_in_raw_8_bit_is_read_all_the_same(store: Store, s3: S3Client) -> None:
    headers = headers_of(store, s3, "Subject: Grüße\r\nList-Id: <x>\r\n\r\n".encode("latin-1"))
    assert [name for name, _ in headers] == ["Subject", "List-Id"]


def test_headers_over_many_reads_are_whole(store: Store, s3: S3Client) -> None:
    """A line that is cut at the end of a chunk is put together again."""
    lines = [f"X-Header-{number}: {'v' * 90}\r\n" for number in range(2000)]
    headers = headers_of(store, s3, ("".join(lines) + "\r\nBody").encode())
    assert len(headers) == 2000
    assert {value for _, value in headers} == {"v" * 90}


def test_a_megabyte_of_headers_is_enough(store: Store, s3: S3Client) -> None:
    put_mail(s3, "msg1", b"X-Header: value\r\n" * 70_000 + b"\r\n")
    assert store.mail.headers("msg1") is None
    assert store.failures == ["the stored mail has over 1048576 bytes of headers"]


def test_a_mail_that_is_not_there_tells_nothing_and_says_so(store: Store) -> None:
    assert store.mail.size("msg1") is None
    assert store.mail.headers("msg1") is None
    assert len(store.failures) == 2


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(code="AccessDenied", status=403),
        Answer(code="SlowDown", status=503),
        EndpointConnectionError(endpoint_url="https://s3"),
    ],
    ids=lambda each: getattr(each, "code", type(each).__name__),
)
def test_a_bucket_that_does_not_answer_tells_nothing_and_says_so(
    store: Store, s3: S3Client, trouble: Answer | Exception
) -> None:
    put_mail(s3, "msg1")
    fail(s3, "HeadObject", trouble)
    fail(s3, "GetObject", trouble)
    assert store.mail.size("msg1") is None
    assert store.mail.headers("msg1") is None
    assert len(store.failures) == 2


class _BreaksOff:
    """A body that stops in the middle of the headers."""

    def __init__(self) -> None:
        self.closed = False

    def read(self, _: int) -> bytes:
        if self.closed:
            raise AssertionError
        raise ReadTimeoutError(endpoint_url="https://s3")

    def close(self) -> None:
        self.closed = True


def test_a_read_that_breaks_off_tells_nothing_and_closes_the_body(
    store: Store, s3: S3Client
) -> None:
    put_mail(s3, "msg1")
    raw: Any = _BreaksOff()

    def break_off(parsed: dict[str, Any], **_: Any) -> None:
        parsed["Body"] = StreamingBody(raw, 100)

    s3.meta.events.register("after-call.s3.GetObject", break_off)
    assert store.mail.headers("msg1") is None
    assert len(store.failures) == 1
    assert raw.closed


def test_headers_have_the_shape_of_those_in_an_event(store: Store, s3: S3Client) -> None:
    put_mail(s3, "msg1", b"Auto-Submitted: auto-replied\r\n\r\n")
    assert store.mail.headers("msg1") == (Header("Auto-Submitted", "auto-replied"),)
