"""However a mail is made, no more than a bounded part of it is read, and it is decided."""

import json

import pytest

from bench.hostile import Bucket, decide, event, events, mails
from bouncer.headers import BLOCK_LIMIT

SIZE = 2 * 2**20
CUT = json.dumps(event([], cut=True)).encode()
MAILS = dict(mails(SIZE))


@pytest.mark.parametrize("name", MAILS)
def test_of_a_stored_mail_a_bounded_part_is_read(name: str) -> None:
    bucket = Bucket(MAILS[name])
    decide(CUT, bucket)
    assert 0 < bucket.read <= BLOCK_LIMIT


def test_an_event_of_the_largest_size_is_decided_without_a_second_look() -> None:
    seen = 0
    for _, raw in events():
        bucket = Bucket(b"From: pat@sender.example\r\n\r\n")
        decide(raw, bucket)
        assert bucket.read <= BLOCK_LIMIT
        seen += 1
    assert seen > 40
