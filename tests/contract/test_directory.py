"""The directory, every one of them: the same entries give the same answer."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bouncer.aws.directory import DynamoDirectory
from bouncer.mailboxes import Directory, Mailbox, StaticDirectory, Status, as_imported
from tests.fakes.bounces import NOBODY
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
                "used_bytes": each.used_bytes,
                "size_limit_bytes": each.size_limit_bytes,
                "alias_for": each.alias_for,
                "moved_to": each.moved_to,
            }
            present = {name: value for name, value in fields.items() if value is not None}
            put_mailbox(self._dynamodb, address, **present)
        return DynamoDirectory(self._dynamodb, MAILBOXES, names={})


@pytest.fixture
def make(dynamodb: Any) -> Make:
    return Make(dynamodb)


@pytest.fixture(params=["in memory", "in DynamoDB"])
def directory(make: Make, request: pytest.FixtureRequest) -> Callable[..., Directory]:
    """Either directory, of the entries that it is given."""
    made = make.in_memory if request.param == "in memory" else make.in_dynamodb
    return lambda *entries: made(entries)


def found(directory: Directory, recipient: str) -> Mailbox | None:
    said = directory.look_up([recipient])
    assert list(said) == [recipient]
    return said[recipient].mailbox


@pytest.mark.parametrize(
    ("entries", "recipient", "answers"),
    [
        ([ALICE], ALICE, ALICE),
        ([ALICE], "Alice@EXAMPLE.com", ALICE),
        ([ALICE], NOBODY, None),
        ([ALICE], "alice@other.example", None),
        ([ALICE], "alice+news@example.com", ALICE),
        ([ALICE, "alice+news@example.com"], "alice+news@example.com", "alice+news@example.com"),
        ([ALICE], "alice-news@example.com", None),
        ([ALICE], "+news@example.com", None),
        (["@example.com"], NOBODY, "@example.com"),
        (["@example.com", ALICE], ALICE, ALICE),
        (["@example.com"], "nobody@other.example", None),
        (["@example.com"], "nobody@sub.example.com", None),
        (["bob@xn--bcher-kva.example"], "bob@bücher.example", "bob@xn--bcher-kva.example"),
    ],
)
def test_who_answers_for_a_recipient(
    directory: Callable[..., Directory], entries: list[str], recipient: str, answers: str | None
) -> None:
    mailbox = found(directory(*(Mailbox(address=each) for each in entries)), recipient)
    assert (mailbox.address if mailbox else None) == answers


LOCALS = st.sampled_from(["alice", "bob", "alice+a", "bob-news", "carol"])
ENTRIES = st.dictionaries(
    LOCALS,
    st.fixed_dictionaries(
        {},
        optional={
            "alias_for": (LOCALS | st.just("alice+tag")).map("{}@example.com".format)
            | st.just("somebody@elsewhere.example"),
            "moved_to": st.just("new@example.net"),
            "status": st.sampled_from(Status),
            "quota_bytes": st.integers(1, 10),
        },
    ),
    max_size=4,
)
DOMAIN = st.none() | st.fixed_dictionaries(
    {"catch_all": st.booleans(), "separator": st.sampled_from(["+", "-", ""])},
    optional={"quota_bytes": st.integers(1, 10), "size_limit_bytes": st.integers(1, 10)},
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
    in_memory, in_dynamodb = make.in_memory(boxes), make.in_dynamodb(boxes)
    assert in_memory.look_up(recipients) == in_dynamodb.look_up(recipients)
