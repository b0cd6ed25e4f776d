"""Our receipt rules in SES: brought in step with the directory, and nobody else's touched."""

from collections.abc import Callable
from typing import Any

import boto3
import pytest
from mypy_boto3_s3 import S3Client
from mypy_boto3_ses import SESClient

from bouncer.aws.receipt_rules import ReceiptRules
from bouncer.receipt_rules import SyncError, changes
from tests.integration.builders import BUCKET, PREFIX, requests_of

SET = "inbound"
BASE = "ses-bouncer"


def rule(name: str, *recipients: str, enabled: bool = True) -> Any:
    return {
        "Name": name,
        "Enabled": enabled,
        "ScanEnabled": True,
        "TlsPolicy": "Optional",
        "Recipients": list(recipients),
        "Actions": [
            {"S3Action": {"BucketName": BUCKET, "ObjectKeyPrefix": PREFIX}},
            {"AddHeaderAction": {"HeaderName": "X-Seen", "HeaderValue": "yes"}},
        ],
    }


class Site:
    """A rule set, and how often it was asked or changed."""

    def __init__(self, client: SESClient) -> None:
        self.client = client
        self.rules = ReceiptRules(client, SET, BASE)
        client.create_receipt_rule_set(RuleSetName=SET)

    def has(self, *rules: Any) -> None:
        for each in rules:
            self.client.create_receipt_rule(RuleSetName=SET, Rule=each)

    @property
    def names(self) -> list[str]:
        return [each["Name"] for each in self._rules()]

    def rule(self, name: str) -> Any:
        return next(each for each in self._rules() if each["Name"] == name)

    def _rules(self) -> list[Any]:
        return list(self.client.describe_receipt_rule_set(RuleSetName=SET)["Rules"])

    def sync(self, *recipients: str, done: Callable[[], None] = lambda: None) -> None:
        ours, others = self.rules.read()
        self.rules.apply(changes(ours, BASE, frozenset(recipients), others), done)


@pytest.fixture
def site(s3: S3Client) -> Site:
    return Site(boto3.client("ses"))


def many(number: int, prefix: str = "user") -> list[str]:
    return [f"{prefix}{each:04d}@example.com" for each in range(number)]


def test_our_rules_are_the_deployed_one_and_its_numbered_copies(site: Site) -> None:
    site.has(
        rule("other", "x@example.com"),
        rule(BASE, "a@example.com"),
        rule(f"{BASE}-002", "b@example.com"),
        rule(f"{BASE}-staging", "c@example.com"),
        rule(f"my-{BASE}", "d@example.com"),
    )
    ours, others = site.rules.read()
    assert ours == {BASE: ["a@example.com"], f"{BASE}-002": ["b@example.com"]}
    assert others == 3


def test_without_the_deployed_rule_there_is_nothing_to_copy(site: Site) -> None:
    site.has(rule("other"), rule(f"{BASE}-002"))
    with pytest.raises(SyncError, match=f"has no rule {BASE}: deploy it first"):
        site.rules.read()


@pytest.mark.parametrize(
    ("other", "takes"),
    [
        (rule("other"), True),
        (rule("other", "example.com"), True),
        (rule("other", "a@example.com", ".example.com"), True),
        (rule("other", "a@example.com"), False),
        (rule("other", enabled=False), False),
    ],
    ids=["no recipients", "a domain", "subdomains", "an address", "switched off"],
)
def test_others_rules_that_take_whole_domains_are_found(
    site: Site, other: Any, takes: bool
) -> None:
    site.has(rule(BASE), other)
    assert site.rules.taking_whole_domains() == (["other"] if takes else [])


def test_our_own_rule_may_take_everything(site: Site) -> None:
    site.has(rule(BASE))
    assert site.rules.taking_whole_domains() == []


def test_the_deployed_rule_gets_the_recipients(site: Site) -> None:
    site.has(rule(BASE))
    site.sync("a@example.com", "b@example.com")
    assert sorted(site.rule(BASE)["Recipients"]) == ["a@example.com", "b@example.com"]


def test_a_rule_keeps_everything_but_its_recipients(site: Site) -> None:
    site.has(rule(BASE, "old@example.com"))
    before = site.rule(BASE)
    site.sync("new@example.com")
    assert {**site.rule(BASE), "Recipients": []} == {**before, "Recipients": []}


def test_what_does_not_fit_goes_into_copies_of_the_deployed_rule(site: Site) -> None:
    site.has(rule("first", "x@example.com"), rule(BASE), rule("last", "y@example.com"))
    site.sync(*many(1200))
    assert sorted(site.names) == sorted(["first", BASE, f"{BASE}-002", f"{BASE}-003", "last"])
    ours = [site.rule(name) for name in (BASE, f"{BASE}-002", f"{BASE}-003")]
    assert sum(len(each["Recipients"]) for each in ours) == 1200
    assert max(len(each["Recipients"]) for each in ours) == 500
    assert all(each["Actions"] == ours[0]["Actions"] for each in ours)
    assert all(each["Enabled"] for each in ours)


def test_others_rules_are_left_alone(site: Site) -> None:
    others = [rule("first", "x@example.com"), rule(f"{BASE}-staging", "y@example.com")]
    site.has(*others, rule(BASE))
    before = [site.rule("first"), site.rule(f"{BASE}-staging")]
    site.sync(*many(600))
    assert [site.rule("first"), site.rule(f"{BASE}-staging")] == before


def test_what_is_in_step_costs_no_change(site: Site) -> None:
    site.has(rule(BASE))
    site.sync(*many(600))
    seen = requests_of(site.client)
    site.sync(*many(600))
    assert set(seen) == {"DescribeReceiptRuleSet"}


def test_after_an_interruption_the_next_run_does_the_rest(site: Site) -> None:
    site.has(rule(BASE))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        site.sync(*many(1200), done=interrupt)
    site.sync(*many(1200))
    ours, _ = site.rules.read()
    assert sorted(each for its in ours.values() for each in its) == many(1200)


def test_each_change_is_told_when_it_is_done(site: Site) -> None:
    site.has(rule(BASE))
    done: list[int] = []
    site.sync(*many(1200), done=lambda: done.append(len(site.names)))
    assert done == [2, 3, 3], "two copies, then the rule that was for everyone"


@pytest.mark.parametrize(
    "changed",
    [
        {"TlsPolicy": "Require"},
        {"ScanEnabled": False},
        {"Actions": [{"S3Action": {"BucketName": BUCKET, "ObjectKeyPrefix": "elsewhere/"}}]},
    ],
    ids=["tls", "scan", "prefix"],
)
def test_a_copy_follows_the_deployed_rule_in_everything(
    site: Site, changed: dict[str, Any]
) -> None:
    """After a deployment with another prefix, say: mail stored by the copy would not be found."""
    site.has(rule(BASE), rule(f"{BASE}-002", "b@example.com") | changed)
    stale = site.rules.stale_copies()
    assert stale == {f"{BASE}-002"}
    ours, others = {BASE: ["a@example.com"], f"{BASE}-002": ["b@example.com"]}, 0
    todo = changes(ours, BASE, frozenset({"a@example.com", "b@example.com"}), others, stale)
    site.rules.apply(todo, done=lambda: None)
    expected = rule(f"{BASE}-002", "b@example.com")
    found = site.rule(f"{BASE}-002")
    assert {name: found[name] for name in changed} == {name: expected[name] for name in changed}
    assert found["Recipients"] == ["b@example.com"]
    assert site.rules.stale_copies() == set()


def test_a_copy_that_nobody_is_in_any_more_is_deleted(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.has(rule(BASE, "a@example.com"), rule(f"{BASE}-002", "b@example.com"))
    deleted: list[Any] = []
    monkeypatch.setattr(
        site.client, "delete_receipt_rule", lambda **given: deleted.append(given), raising=False
    )
    site.sync("a@example.com")
    assert deleted == [{"RuleSetName": SET, "RuleName": f"{BASE}-002"}]
