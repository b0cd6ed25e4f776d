"""The mail as the S3 action stored it: how large it is, and all of its headers."""

import contextlib
from collections.abc import Callable, Iterable
from email.parser import BytesHeaderParser
from email.policy import compat32
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from bouncer.message import Header

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_HEADERS_AT_MOST = 1_000_000
_CHUNK = 8192


class StoredMail:
    """Objects of the receipt rule's S3 action: their key is its prefix and the message id."""

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        prefix: str,
        on_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Args:
            on_failure: told why a look-up gave nothing; the mail then goes on its way.
        """
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._on_failure = on_failure

    def size(self, message_id: str) -> int | None:
        """Bytes, with the headers that SES adds; None when it cannot be had."""
        try:
            return self._client.head_object(Bucket=self._bucket, Key=self._prefix + message_id)[
                "ContentLength"
            ]
        except (ClientError, BotoCoreError) as error:
            self._on_failure(str(error))
            return None

    def headers(self, message_id: str) -> tuple[Header, ...] | None:
        """Every header, read up to the blank line; None when they cannot be had."""
        try:
            body = self._client.get_object(Bucket=self._bucket, Key=self._prefix + message_id)[
                "Body"
            ]
            with contextlib.closing(body):
                head = _until_blank_line(body.iter_lines(chunk_size=_CHUNK))
        except (ClientError, BotoCoreError) as error:
            self._on_failure(str(error))
            return None
        if head is None:
            self._on_failure(f"the stored mail has over {_HEADERS_AT_MOST} bytes of headers")
            return None
        parsed = BytesHeaderParser(policy=compat32).parsebytes(head)
        return tuple(Header(name, str(value)) for name, value in parsed.items())


def _until_blank_line(lines: Iterable[bytes]) -> bytes | None:
    head = bytearray()
    for line in lines:
        if not line:
            return bytes(head)
        head += line + b"\n"
        if len(head) > _HEADERS_AT_MOST:
            return None
    return bytes(head)
