"""What a directory adds up to."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from bouncer.mailboxes import Mailbox, Status
from bouncer_console.census import STEPS, Census

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def census(*boxes: Mailbox) -> Census:
    found = Census(now=NOW)
    for each in boxes:
        found.add(each)
    return found


def test_every_kind_is_counted() -> None:
    found = census(
        Mailbox(address="@a.example", catch_all=False, quota_bytes=10),
        Mailbox(address="full@a.example", quota_bytes=10, used_bytes=12),
        Mailbox(address="half@a.example", quota_bytes=10, used_bytes=5, status=Status.DISABLED),
        Mailbox(address="none@a.example", used_bytes=-7),
        Mailbox(address="sales@b.example", alias_for="half@a.example"),
        Mailbox(address="gone@b.example", moved_to="x@c.example"),
    )
    assert found.entries == 6
    assert found.kinds == {
        "domain entries": 1, "mailboxes": 3, "aliases": 1, "moved": 1, "disabled": 1,
    }  # fmt: skip
    assert (found.used_bytes, found.quota_bytes, found.odd) == (17, 20, 1)
    assert found.fullness == {"full": 1, "50": 1}
    (first, its), (second, _) = found.largest(5)
    assert (first, its.entries, its.full, its.disabled) == ("a.example", 4, 1, 1)
    assert second == "b.example"
    assert len(found.largest(1)) == 1


@given(st.integers(0, 2**63), st.integers(1, 2**63))
def test_a_mailbox_is_as_full_as_it_is(used: int, quota: int) -> None:
    found = census(Mailbox(address="a@b.example", quota_bytes=quota, used_bytes=used))
    (step,) = found.fullness
    assert step in STEPS
    assert (step == "full") is (used >= quota)
    if step != "full":
        assert (
            int(step) <= 100 * used / quota < int(step) + 10
            or used * 10 // quota == int(step) // 10
        )
