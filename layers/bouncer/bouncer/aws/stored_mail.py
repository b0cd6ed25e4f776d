"""The mail as the S3 action stored it: how large it is, and all of its headers."""

import contextlib
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from bouncer import timing
from bouncer.aws.deadline import FAILURES
from bouncer.deadline import check_time_for, deadline
from bouncer.headers import BLOCK_LIMIT, Header, block_ends_at, read_block

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import TagTypeDef

REFUSED: "TagTypeDef" = {"Key": "ses-bouncer", "Value": "refused"}
_CHUNK = 65_536
# An end of the block that straddles two chunks; a longer run of CR before its LF is nobody's.
_OVERLAP = 16


class S3StoredMail:
    """A StoredMail, as the rule's S3 action puts it: under its prefix and the message id."""

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        prefix: str,
        on_failure: Callable[[str | Exception], None] = lambda _: None,
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
            self._on_failure(error)
            return None

    def headers(self, message_id: str) -> tuple[Header, ...] | None:
        """Every header, read up to the blank line; None when they cannot be had.

        One request, for no more than headers may have, however large the mail or a line of it is.
        """
        try:
            answer = self._client.get_object(
                Bucket=self._bucket,
                Key=self._prefix + message_id,
                Range=f"bytes=0-{BLOCK_LIMIT - 1}",
            )
            with contextlib.closing(answer["Body"]) as body:
                head = _head(body.iter_chunks(_CHUNK))
        except (ClientError, BotoCoreError) as error:
            self._on_failure(error)
            return None
        block = read_block(head, to_the_end=len(head) < BLOCK_LIMIT)
        if not block.whole:
            self._on_failure(f"the stored mail has over {BLOCK_LIMIT} bytes of headers")
            return None
        if not block.headers:
            self._on_failure("the stored mail begins with no header: is it encrypted?")
            return None
        return block.headers

    def mark_refused(self, message_id: str, until: datetime) -> None:
        """Tag a mail that nobody is to get, for the bucket's lifecycle rule."""
        try:
            with deadline(until):
                check_time_for(timing.ATTEMPT)
                self._client.put_object_tagging(
                    Bucket=self._bucket,
                    Key=self._prefix + message_id,
                    Tagging={"TagSet": [REFUSED]},
                )
        except FAILURES as error:
            self._on_failure(error)


def _head(chunks: Iterable[bytes]) -> bytes:
    """The beginning of a mail, at least up to the end of its headers if that is there."""
    head = bytearray()
    for chunk in chunks:
        seen = max(len(head) - _OVERLAP, 0)
        head += chunk
        if block_ends_at(head, seen) is not None or len(head) >= BLOCK_LIMIT:
            break
    return bytes(head[:BLOCK_LIMIT])
