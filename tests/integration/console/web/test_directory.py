"""The page of the directory."""

from typing import Any

import msgspec
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from bouncer.aws.mailbox_table import MailboxEntry, MailboxTable
from bouncer.mailboxes import Mailbox, Status
from bouncer_console.web.pages.directory import SHOWN, Found, Search
from tests.integration.builders import MAILBOXES
from tests.integration.console.builders import Stack, own_table
from tests.unit.web.builders import Browser

ALICE = "alice@example.com"


def put(dynamodb: DynamoDBClient, *boxes: Mailbox) -> None:
    table = MailboxTable(dynamodb, MAILBOXES)
    for start in range(0, len(boxes), 100):
        some = boxes[start : start + 100]
        table.put([MailboxEntry(mailbox=each, named=frozenset()) for each in some])


def entry(dynamodb: DynamoDBClient, address: str) -> Mailbox:
    return MailboxTable(dynamodb, MAILBOXES).get([address])[address]


DOMAIN = Mailbox(address="@example.com", catch_all=False, size_limit_bytes=10_000_000)
BOX = Mailbox(address=ALICE, quota_bytes=1000, used_bytes=900)


def test_the_list_shows_usage_against_the_quota(browser: Browser, dynamodb: DynamoDBClient) -> None:
    put(dynamodb, DOMAIN, BOX, Mailbox(address="sales@example.com", alias_for=ALICE))
    page = browser.get("/directory")
    assert page.status == 200
    assert "900 bytes of 1 kB" in page.text
    assert 'max="1000" value="900"' in page.html
    assert "alias" in page.text


@pytest.mark.parametrize(
    ("find", "there"),
    [
        ("us", {"user1@example.com", "user2@other.example"}),
        ("user1@ex", {"user1@example.com"}),
        ("USER1@EX", {"user1@example.com"}),
        ("@other.example", {"@other.example", "user2@other.example"}),
        ("@oth", {"@other.example"}),
        ("nothing", set()),
    ],
)
def test_what_is_typed_finds(
    browser: Browser, dynamodb: DynamoDBClient, find: str, there: set[str]
) -> None:
    addresses = {"user1@example.com", "user2@other.example", "@other.example", "zoe@example.com"}
    put(dynamodb, *(Mailbox(address=each) for each in addresses))
    page = browser.get("/directory", find=find)
    assert {each for each in addresses if f">{each}</a>" in page.html} == there


def test_a_whole_address_is_shown_at_once(browser: Browser, dynamodb: DynamoDBClient) -> None:
    put(dynamodb, DOMAIN, BOX)
    page = browser.get("/directory", find="Alice@Example.com")
    assert "900 bytes of 1 kB, 90 %" in page.text
    assert "10 MB" in page.text, "inherited from the domain"


def test_an_address_without_an_entry_says_who_answers(
    browser: Browser, dynamodb: DynamoDBClient
) -> None:
    put(dynamodb, DOMAIN, BOX)
    assert "has no entry of its own" in browser.get("/directory", find="alice+tag@example.com").text
    assert "is bounced as unknown" in browser.get("/directory", find="bob@example.com").text
    assert "its mail goes on" in browser.get("/directory", find="bob@other.example").text


def test_an_entry_is_changed_and_only_where_it_differs(
    browser: Browser, dynamodb: DynamoDBClient
) -> None:
    put(dynamodb, DOMAIN, BOX)
    fields = {
        "address": ALICE,
        "quota_bytes": "2 MB",
        "size_limit_bytes": "",
        "quota_messages_per_day": "",
        "status": "active",
    }
    page = browser.post("/directory/save", fields)
    assert "is changed: quota_bytes" in page.text
    assert entry(dynamodb, ALICE) == Mailbox(address=ALICE, quota_bytes=2_000_000, used_bytes=900)
    assert "nothing was changed" in browser.post("/directory/save", fields).text
    fields["quota_bytes"] = ""
    browser.post("/directory/save", fields)
    assert entry(dynamodb, ALICE).quota_bytes is None


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("quota_bytes", "many", "many"),
        ("quota_bytes", "0", "0 would refuse every mail"),
        ("quota_messages_per_day", "-1", "no number"),
        ("alias_for", "x", "write user@domain"),
        ("alias_for", "nobody@example.com", "leads nowhere"),
        ("status_until", "soon", "ISO 8601"),
        ("status", "asleep", "asleep"),
        ("quota_bytes", "9" * 5000, ""),
    ],
)
def test_what_nobody_can_mean_is_refused_in_words(
    browser: Browser, dynamodb: DynamoDBClient, field: str, value: str, said: str
) -> None:
    put(dynamodb, DOMAIN, BOX)
    fields = {"address": ALICE, "quota_bytes": "1 kB", "status": "active"}
    page = browser.post("/directory/save", fields | {field: value})
    assert (page.status, said in page.text) == (400, True), page.text
    assert "Back to Directory" in page.text
    assert entry(dynamodb, ALICE) == BOX


def test_disabling_asks_first(browser: Browser, dynamodb: DynamoDBClient) -> None:
    put(dynamodb, DOMAIN, BOX)
    asked = browser.post("/directory/disable", {"address": ALICE})
    assert f"Let {ALICE} take no mail?" in asked.text
    assert entry(dynamodb, ALICE).status is Status.ACTIVE
    page = browser.post("/directory/disable", {"address": ALICE, "sure": "yes"})
    assert "is disabled: it takes no mail" in page.text
    assert entry(dynamodb, ALICE).status is Status.DISABLED
    assert "takes mail again" in browser.post("/directory/enable", {"address": ALICE}).text
    assert entry(dynamodb, ALICE).status is Status.ACTIVE


def test_while_it_is_live_a_domains_addresses_are_unknown_only_after_a_question(
    browser: Browser, stack: Stack, dynamodb: DynamoDBClient
) -> None:
    stack.parameters["Mode"] = "enforce"
    put(dynamodb, msgspec.structs.replace(DOMAIN, catch_all=True))
    form = {"address": DOMAIN.address, "size_limit_bytes": "7 MB", "separator": "-"}
    asked = browser.post("/directory/save", form | {"status": "active"})
    assert "without an entry be unknown?" in asked.text
    assert entry(dynamodb, DOMAIN.address).catch_all
    assert 'name="size_limit_bytes" value="7 MB"' in asked.html
    browser.post("/directory/save", form | {"status": "active", "sure": "yes"})
    done = entry(dynamodb, DOMAIN.address)
    assert (done.catch_all, done.size_limit_bytes, done.separator) == (False, 7_000_000, "-")


@pytest.mark.parametrize("path", ["save", "disable", "enable"])
def test_a_table_of_ones_own_is_only_read(
    browser: Browser, stack: Stack, dynamodb: DynamoDBClient, path: str
) -> None:
    own_table(stack, dynamodb)
    item = {"email": {"S": ALICE}, "quota": {"N": "1000"}}
    dynamodb.put_item(TableName="users", Item=item)
    shown = browser.get("/directory/entry", address=ALICE)
    assert "1 kB" in shown.text
    assert "/directory/disable" not in shown.html
    fields = {"address": ALICE, "quota_bytes": "2 kB", "sure": "yes"}
    assert browser.post(f"/directory/{path}", fields).status == 409
    assert dynamodb.scan(TableName="users")["Items"] == [item]


class Crowd:
    """A client of a table of a million addresses, which counts what is read."""

    def __init__(self, addresses: int) -> None:
        self.addresses = addresses
        self.read = 0
        self.calls = 0

    def scan(self, **asked: Any) -> dict[str, Any]:
        after = asked.get("ExclusiveStartKey")
        start = int(after["address"]["S"][4:11]) + 1 if after else 0
        end = min(start + asked["Limit"], self.addresses)
        self.calls += 1
        self.read += end - start
        beginning = asked.get("ExpressionAttributeValues", {}).get(":begins_with", {"S": ""})["S"]
        found = (f"user{number:07d}@example.com" for number in range(start, end))
        items = [{"address": {"S": each}} for each in found if each.startswith(beginning)]
        last = {"LastEvaluatedKey": {"address": {"S": f"user{end - 1:07d}@example.com"}}}
        return {"Items": items, "ScannedCount": end - start} | (
            last if end < self.addresses else {}
        )


def run(search: Search, crowd: Any) -> Found:
    return search.run(MailboxTable(crowd, MAILBOXES), lambda _: None)


def test_the_first_page_of_a_million_reads_one_page() -> None:
    crowd = Crowd(1_000_000)
    found = run(Search(), crowd)
    assert (len(found.boxes), crowd.read, crowd.calls) == (SHOWN, SHOWN, 1)


def test_a_search_among_a_million_rests_and_goes_on() -> None:
    crowd = Crowd(1_000_000)
    search = Search(beginning="user09999")
    found = run(search, crowd)
    rests = 0
    boxes = list(found.boxes)
    while found.next is not None:
        rests += 1
        found = run(Search(beginning="user09999", after=found.next), crowd)
        boxes += found.boxes
    assert [each.address for each in boxes] == [
        f"user{number:07d}@example.com" for number in range(999_900, 1_000_000)
    ]
    assert rests
    assert crowd.read <= 1_000_000 + SHOWN * 110


def test_pages_follow_each_other_without_gap_or_repetition() -> None:
    crowd = Crowd(12_345)
    seen: list[str] = []
    after = None
    while True:
        found = run(Search(suspicious=False, beginning="user", after=after), crowd)
        seen += [each.address for each in found.boxes]
        after = found.next
        if after is None:
            break
    assert seen == [f"user{number:07d}@example.com" for number in range(12_345)]


def test_the_list_says_what_it_could_not_reach(browser: Browser, stack: Stack) -> None:
    stack.outputs["MailboxTable"] = "gone"
    page = browser.get("/directory")
    assert page.status == 502
    assert "deploy the stack again" in page.text
    assert "Traceback" not in page.html


def test_the_whole_is_counted_when_somebody_asks_for_it(
    browser: Browser, dynamodb: DynamoDBClient
) -> None:
    put(dynamodb, DOMAIN, BOX, Mailbox(address="full@<b>.example", quota_bytes=1, used_bytes=2))
    assert "The directory as a whole" in browser.get("/directory").text
    for _ in range(100):
        page = browser.get("/directory/whole")
        if "Still asking" not in page.text:
            break
    for part in ("entries 3", "domains 2", "without room 1", "<b>.example 1", "902 bytes are used"):
        assert part in page.text
    assert "data:image/svg+xml" in page.html
    assert "/directory?find=%40example.com" in page.html
    put(dynamodb, Mailbox(address="new@example.com"))
    assert "entries 4" in browser.post("/directory/whole").text


def test_an_empty_directory_is_a_whole_too(browser: Browser) -> None:
    page = browser.get("/directory/whole")
    assert page.status == 200
