"""A policy may list its mailboxes."""

from bouncer.mailboxes import Status
from tests.unit.builders import box, policy


def test_a_policy_may_list_its_mailboxes() -> None:
    rules = policy(
        end="""
        [mailboxes]
        "a@example.com" = { status = "disabled", quota = "1 GB", used = "5 kB", size_limit = 100 }
        "b@example.com" = { alias_for = "a@example.com" }
        "c@example.com" = { moved_to = "c@example.net", tell_new_address = true }
        "@example.org" = { catch_all = false, separator = "-" }
        "@example.net" = { status = "active", catch_all = true, separator = "" }
        "@example.edu" = { catch_all = true, separator = "+" }
        """
    )
    assert rules.mailboxes == (
        box(
            "a@example.com",
            status=Status.DISABLED,
            quota_bytes=10**9,
            used_bytes=5000,
            size_limit_bytes=100,
        ),
        box("b@example.com", alias_for="a@example.com"),
        box("c@example.com", moved_to="c@example.net", tell_new_address=True),
        box("@example.org", catch_all=False, separator="-"),
        box("@example.net", separator=""),
        box("@example.edu"),
    )


def test_a_policy_without_a_list_leaves_it_to_the_directory() -> None:
    assert policy().mailboxes is None
    assert policy(end="[mailboxes]").mailboxes == ()
