"""The directory, every one of them: the same entries give the same answer."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bouncer.aws.directory import DynamoDirectory
from bouncer.mailboxes import Directory, Mailbox, StaticDirectory, Status, as_imported
from tests.integration.builders import ALICE, MAILBOXES, put_mailbox


class Make:
    """A directory of these entries."""

    def __init__(self, dynamodb: Any) -> None:
        self._dynamodb = dynamodb

    def in_memory(self, entries: Iterable[Mailbox]) -> Directory:
        return StaticDirectory(entries)

    def in_dynamodb(self, entries: Iterable[Mailbox]) -> Directory:
        for each in self._dynamodb.scan(TableName=MAILBOXES)["Items"]:
            self._dynamodb.delete_item(TableName=MAILBOXES, Key={"address": each["address"]})
        for address, each in as_imported(entries).items():
            fields = {
                "status": each.status.value,
                "catch_all": each.catch_all,
                "separator": each.separator,
                "quota_bytes": each.quota_bytes,
                "alias_for": each.alias_for,
            }
            present = {name: value for name, value in fields.items() if value is not None}
            put_mailbox(self._dynamodb, address, **present)
        return DynamoDirectory(self._dynamodb, MAILBOXES, names={})


@pytest.fixture
def make(dynamodb: Any) -> Make:
    return Make(dynamodb)


def both(make: Make, *entries: Mailbox) -> tuple[Directory, Directory]:
    return make.in_memory(entries), make.in_dynamodb(entries)


@pytest.mark.parametrize(
    "recipient",
    [ALICE, "Alice@Example.COM", "alice+tag@example.com", "nobody@example.com", "x@other.example"],
)
def test_every_directory_says_the_same_of_a_recipient(make: Make, recipient: str) -> None:
    said = [
        each.look_up([recipient])
        for each in both(make, Mailbox(address=ALICE, quota_bytes=100, status=Status.DISABLED))
    ]
    assert said[0] == said[1]
    assert list(said[0]) == [recipient]


LOCALS = st.sampled_from(["alice", "bob", "alice+a", "bob-news", "carol"])
ENTRIES = st.dictionaries(
    LOCALS,
    st.fixed_dictionaries(
        {},
        optional={
            "alias_for": LOCALS.map(lambda local: f"{local}@example.com"),
            "status": st.sampled_from(Status),
            "quota_bytes": st.integers(1, 10),
        },
    ),
    max_size=4,
)
DOMAIN = st.none() | st.fixed_dictionaries(
    {"catch_all": st.booleans(), "separator": st.sampled_from(["+", "-", ""])}
)


ASKED = st.sampled_from(["alice", "bob+x", "bob-news-x", "alice+a", "dave"])


# Each example empties the table that they share.
@given(entries=ENTRIES, domain=DOMAIN, asked=st.lists(ASKED, min_size=1))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None
)
def test_whatever_the_entries_are_every_directory_says_the_same(
    make: Make, entries: dict[str, Any], domain: dict[str, Any] | None, asked: list[str]
) -> None:
    boxes = [Mailbox(address=f"{local}@example.com", **its) for local, its in entries.items()]
    assume(all(each.alias_for != each.address for each in boxes))  # an import refuses these
    if domain is not None:
        boxes.append(Mailbox(address="@example.com", **domain))
    recipients = [f"{local}@example.com" for local in asked]
    in_memory, in_dynamodb = both(make, *boxes)
    assert in_memory.look_up(recipients) == in_dynamodb.look_up(recipients)
