"""Mailboxes in DynamoDB: ours, or a table that the user keeps anyway."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from bouncer.address import normalise
from bouncer.aws.deadline import FAILURES
from bouncer.mailboxes import (
    Answer,
    DirectoryUnavailableError,
    Mailbox,
    answer,
    candidates,
    from_item,
    resolve,
    usable,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_KEYS_A_READ = 100  # BatchGetItem's limit
_KEY_LIMIT = 2048  # bytes of a partition key; DynamoDB refuses the whole read for a longer one
_ATTEMPTS = 4


class DynamoDirectory:
    """A Directory in one BatchGetItem for all recipients of a mail."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        names: Mapping[str, str],
        on_bad_item: Callable[[str, str], None] = lambda _address, _error: None,
        domains: Collection[str] = (),
    ) -> None:
        """
        Args:
            names: field of `Mailbox` to the table's attribute, where it has another name.
            on_bad_item: told of an item that cannot be read, or not all of it, and why; its
                address counts as an active mailbox without what is wrong, for a typo must not
                bounce anyone's mail.
            domains: domains that the table speaks for without an `@domain` entry.
        """
        self._domains = frozenset(domains)
        self._client = client
        self._table = table
        self._names = names
        self._key = names.get("address", "address")
        self._projection = projection(names)
        self._on_bad_item = on_bad_item

    def look_up(self, recipients: Iterable[str]) -> dict[str, Answer]:
        wanted = list(recipients)
        entries = self._read(key for each in wanted for key in candidates(each))
        found = [resolve(each, entries) for each in wanted]
        aliases = [box.alias_for for box in found if box and box.alias_for]
        if aliases:
            entries |= self._read(key for each in aliases for key in candidates(each))
        return {each: answer(each, entries, self._domains) for each in wanted}

    def _read(self, addresses: Iterable[str]) -> dict[str, Mailbox]:
        keys = [
            {self._key: {"S": each}}
            for each in dict.fromkeys(addresses)
            if len(each.encode("utf-8", "replace")) <= _KEY_LIMIT
        ]
        entries: dict[str, Mailbox] = {}
        for first in range(0, len(keys), _KEYS_A_READ):
            for item in self._read_chunk(keys[first : first + _KEYS_A_READ]):
                mailbox = read_item(item, self._names, self._on_bad_item)
                entries[mailbox.address] = mailbox
        return entries

    def _read_chunk(self, keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        for _ in range(_ATTEMPTS):
            asked: Any = {"Keys": keys, **self._projection}
            try:
                answer = self._client.batch_get_item(RequestItems={self._table: asked})
            except FAILURES as error:
                raise DirectoryUnavailableError(str(error)) from error
            items += answer["Responses"].get(self._table, [])
            keys = list(answer["UnprocessedKeys"].get(self._table, {"Keys": []})["Keys"])
            if not keys:
                return items
        raise DirectoryUnavailableError(f"{len(keys)} mailboxes were left unread")


def projection(names: Mapping[str, str]) -> dict[str, Any]:
    """A read's parameters that ask for a mailbox's fields and nothing beside them.

    A user's own table may hold what is none of ours, such as password hashes.
    """
    ours = [names.get(each.name, each.name) for each in msgspec.structs.fields(Mailbox)]
    attributes = {f"#a{number}": name for number, name in enumerate(dict.fromkeys(ours))}
    return {
        "ProjectionExpression": ", ".join(attributes),
        "ExpressionAttributeNames": attributes,
    }


def read_item(
    item: Mapping[str, Any], names: Mapping[str, str], on_bad_item: Callable[[str, str], None]
) -> Mailbox:
    """An item in DynamoDB's own notation as a mailbox; see DynamoDirectory for the arguments."""
    fields = {name: plain(value) for name, value in item.items()}
    try:
        mailbox, problems = usable(from_item(fields, names))
    except msgspec.ValidationError as error:
        address = str(fields.get(names.get("address", "address"), ""))
        on_bad_item(address, f"{error}; the mailbox counts as active, without limits")
        return Mailbox(address=address)
    if mailbox.address != normalise(mailbox.address):
        problems.append(f"no mail ever finds it: its key has to be {normalise(mailbox.address)!r}")
    for problem in problems:
        on_bad_item(mailbox.address, problem)
    return mailbox


def plain(value: Mapping[str, Any]) -> Any:
    """A DynamoDB value as Python's own; numbers stay text, which msgspec converts to the type."""
    (kind, content), *_ = value.items()
    if kind == "M":
        return {name: plain(inner) for name, inner in content.items()}
    if kind == "L":
        return [plain(inner) for inner in content]
    return None if kind == "NULL" else content
