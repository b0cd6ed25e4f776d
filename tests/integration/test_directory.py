"""Mailboxes are found as mail finds them, in one read a mail, and a typo bounces nobody."""

from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws.directory import DynamoDirectory
from bouncer.mailboxes import DirectoryUnavailableError, Mailbox, Status
from tests.fakes.bounces import NOBODY
from tests.integration.builders import (
    ALICE,
    MAILBOXES,
    Answer,
    create_mailbox_table,
    fail,
    item,
    put_mailbox,
    requests_of,
)


@pytest.fixture
def directory(dynamodb: DynamoDBClient) -> DynamoDirectory:
    return DynamoDirectory(dynamodb, MAILBOXES, names={})


def found(directory: DynamoDirectory, recipient: str) -> Mailbox | None:
    return directory.look_up([recipient])[recipient].mailbox


def test_a_table_of_the_users_own_is_read_by_its_own_names(dynamodb: DynamoDBClient) -> None:
    create_mailbox_table(dynamodb, "users", key="email")
    dynamodb.put_item(
        TableName="users", Item=item(email=ALICE, space=1000, taken=400, address="12 High Street")
    )
    names = {"address": "email", "quota_bytes": "space", "used_bytes": "taken"}
    directory = DynamoDirectory(dynamodb, "users", names)
    assert found(directory, ALICE) == Mailbox(address=ALICE, quota_bytes=1000, used_bytes=400)


@pytest.mark.parametrize(
    "bad",
    [{"quota_bytes": "a lot"}, {"status": "sleeping"}, {"used_bytes": 1.5}, {"separator": "#"}],
    ids=str,
)
def test_an_item_that_cannot_be_read_is_an_active_mailbox_without_limits(
    dynamodb: DynamoDBClient, bad: dict[str, Any]
) -> None:
    put_mailbox(dynamodb, **bad)
    told: list[tuple[str, str]] = []
    directory = DynamoDirectory(
        dynamodb, MAILBOXES, {}, on_bad_item=lambda address, why: told.append((address, why))
    )
    assert found(directory, ALICE) == Mailbox(address=ALICE)
    ((address, why),) = told
    assert address == ALICE
    assert next(iter(bad)) in why


def test_a_bad_item_does_not_hide_the_good_ones(
    directory: DynamoDirectory, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb, "bad@example.com", status="sleeping")
    put_mailbox(dynamodb, status="disabled")
    mailbox = directory.look_up(["bad@example.com", ALICE])[ALICE].mailbox
    assert mailbox is not None
    assert mailbox.status is Status.DISABLED


def test_attributes_of_every_type_that_nobody_asked_for_do_no_harm(
    directory: DynamoDirectory, dynamodb: DynamoDBClient
) -> None:
    dynamodb.put_item(
        TableName=MAILBOXES,
        Item={
            "address": {"S": ALICE},
            "tags": {"L": [{"S": "a"}, {"N": "1"}]},
            "profile": {"M": {"name": {"S": "Alice"}, "old": {"NULL": True}}},
            "groups": {"SS": ["x", "y"]},
            "photo": {"B": b"\x00"},
            "quota_bytes": {"NULL": True},
        },
    )
    assert found(directory, ALICE) == Mailbox(address=ALICE)


@pytest.mark.parametrize(
    ("recipients", "requests"),
    [
        ([ALICE], 1),
        ([ALICE, NOBODY, "alice+news@example.com"], 1),
        ([f"user{n}@example.com" for n in range(99)], 1),
        ([f"user{n}@example.com" for n in range(100)], 2),
        ([f"user+{n}@example.com" for n in range(150)], 2),
    ],
    ids=["one recipient", "three", "100 keys", "101 keys", "152 keys"],
)
def test_a_mail_costs_one_read_for_every_hundred_keys(
    directory: DynamoDirectory,
    dynamodb: DynamoDBClient,
    recipients: list[str],
    requests: int,
) -> None:
    seen = requests_of(dynamodb)
    assert set(directory.look_up(recipients)) == set(recipients)
    assert seen == ["BatchGetItem"] * requests


def test_aliases_cost_one_read_more_however_many_there_are(
    directory: DynamoDirectory, dynamodb: DynamoDBClient
) -> None:
    put_mailbox(dynamodb)
    for name in ("one", "two"):
        put_mailbox(dynamodb, f"{name}@example.com", alias_for=ALICE)
    seen = requests_of(dynamodb)
    boxes = directory.look_up(["one@example.com", "two@example.com"])
    assert {said.mailbox.address for said in boxes.values() if said.mailbox} == {ALICE}
    assert seen == ["BatchGetItem"] * 2


def test_beyond_a_hundred_keys_everyone_is_found(
    directory: DynamoDirectory, dynamodb: DynamoDBClient
) -> None:
    recipients = [f"user{n}@example.com" for n in range(120)]
    for each in recipients:
        put_mailbox(dynamodb, each)
    assert all(said.mailbox for said in directory.look_up(recipients).values())


class Unprocessed:
    """DynamoDB leaves all but so many keys of each read for later."""

    def __init__(self, dynamodb: Any, at_a_time: int) -> None:
        self._at_a_time = at_a_time
        self._left: list[Any] = []
        dynamodb.meta.events.register("provide-client-params.dynamodb.BatchGetItem", self._cut)
        dynamodb.meta.events.register("after-call.dynamodb.BatchGetItem", self._tell)

    def _cut(self, params: dict[str, Any], **_: Any) -> dict[str, Any]:
        keys = params["RequestItems"][MAILBOXES]["Keys"]
        self._left = keys[self._at_a_time :]
        return {"RequestItems": {MAILBOXES: {"Keys": keys[: self._at_a_time] or keys[:1]}}}

    def _tell(self, parsed: dict[str, Any], **_: Any) -> None:
        if self._at_a_time == 0:
            parsed["Responses"] = {}
        if self._left:
            parsed["UnprocessedKeys"] = {MAILBOXES: {"Keys": self._left}}


def test_keys_that_were_left_unprocessed_are_read_again(
    directory: DynamoDirectory, dynamodb: DynamoDBClient
) -> None:
    recipients = ["a@example.com", "b@example.com", "c@example.com"]
    for each in recipients:
        put_mailbox(dynamodb, each)
    Unprocessed(dynamodb, at_a_time=2)
    assert all(said.mailbox for said in directory.look_up(recipients).values())


def test_nobody_is_unknown_because_a_key_was_never_read(
    directory: DynamoDirectory, dynamodb: DynamoDBClient
) -> None:
    Unprocessed(dynamodb, at_a_time=0)
    with pytest.raises(DirectoryUnavailableError, match="2 mailboxes were left unread"):
        directory.look_up([ALICE])


def test_nobody_is_unknown_because_the_table_did_not_answer(
    directory: DynamoDirectory, dynamodb: DynamoDBClient
) -> None:
    fail(dynamodb, "BatchGetItem", Answer(code="ProvisionedThroughputExceededException"))
    with pytest.raises(DirectoryUnavailableError):
        directory.look_up([ALICE])


def test_nothing_else_of_a_users_own_table_reaches_the_function(dynamodb: DynamoDBClient) -> None:
    read: list[str] = []

    def note(parsed: Any, **_: Any) -> None:
        read.extend(name for each in parsed["Responses"][MAILBOXES] for name in each)

    dynamodb.meta.events.register("after-call.dynamodb.BatchGetItem", note)
    entry: Any = {
        "address": {"S": ALICE},
        "quota": {"N": "1000"},
        "password_hash": {"S": "$2b$12$secret"},
    }
    dynamodb.put_item(TableName=MAILBOXES, Item=entry)
    directory = DynamoDirectory(dynamodb, MAILBOXES, names={"quota_bytes": "quota"})
    mailbox = found(directory, ALICE)
    assert mailbox is not None
    assert mailbox.quota_bytes == 1000
    assert sorted(read) == ["address", "quota"]


def test_two_fields_may_be_kept_in_one_attribute(dynamodb: DynamoDBClient) -> None:
    """DynamoDB refuses a projection that names an attribute twice."""
    put_mailbox(dynamodb, quota_bytes=7)
    names = {"used_bytes": "quota_bytes"}
    mailbox = found(DynamoDirectory(dynamodb, MAILBOXES, names=names), ALICE)
    assert mailbox is not None
    assert (mailbox.quota_bytes, mailbox.used_bytes) == (7, 7)
