"""The receipt rules of ours in SES: read, and brought to what the directory needs."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from bouncer.receipt_rules import RuleChange, SyncError, is_ours

if TYPE_CHECKING:
    from mypy_boto3_ses import SESClient


class ReceiptRules:
    """The rules named after the deployed one; no other rule is ever touched."""

    def __init__(self, client: "SESClient", rule_set: str, base: str) -> None:
        """
        Args:
            client: a paced one: SES takes one call a second of its control operations.
            base: the deployed rule's name.
        """
        self._client = client
        self._rule_set = rule_set
        self._base = base

    def read(self) -> tuple[dict[str, list[str]], int]:
        """Our rules' recipients, in order, and how many rules of the set are not ours.

        Raises:
            SyncError: the deployed rule is not in the set.
        """
        rules = self._rules()
        ours = {r["Name"]: list(r.get("Recipients", [])) for r in rules if self._is_ours(r)}
        if self._base not in ours:
            raise SyncError(
                f"the rule set {self._rule_set} has no rule {self._base}: deploy it first, with "
                "CreateReceiptRule=yes or by hand"
            )
        return ours, len(rules) - len(ours)

    def stale_copies(self) -> frozenset[str]:
        """Copies that differ from the deployed rule in more than their recipients."""
        rules = {rule["Name"]: rule for rule in self._rules() if self._is_ours(rule)}
        wanted = _settings(rules.get(self._base, {}))
        return frozenset(name for name, rule in rules.items() if _settings(rule) != wanted)

    def taking_whole_domains(self) -> list[str]:
        """Rules of others that take mail for whole domains: SES refuses nobody there."""
        return [
            rule["Name"]
            for rule in self._rules()
            if not self._is_ours(rule)
            and rule.get("Enabled")
            and (not rule.get("Recipients") or any("@" not in r for r in rule["Recipients"]))
        ]

    def apply(self, changes: Iterable[RuleChange], done: Callable[[], None]) -> None:
        """Make the changes; after an interruption, begin anew.

        Args:
            done: called after each change.
        """
        pattern = next(r for r in self._rules() if r["Name"] == self._base)
        for change in changes:
            self._apply(change, pattern)
            done()

    def _apply(self, change: RuleChange, pattern: dict[str, Any]) -> None:
        if not change.recipients:
            self._client.delete_receipt_rule(RuleSetName=self._rule_set, RuleName=change.name)
            return
        rule: Any = {**pattern, "Name": change.name, "Recipients": list(change.recipients)}
        if change.new:
            self._client.create_receipt_rule(
                RuleSetName=self._rule_set, Rule=rule, After=change.after or self._base
            )
        else:
            self._client.update_receipt_rule(RuleSetName=self._rule_set, Rule=rule)

    def _rules(self) -> list[Any]:
        answer = self._client.describe_receipt_rule_set(RuleSetName=self._rule_set)
        return list(answer["Rules"])

    def _is_ours(self, rule: Any) -> bool:
        return is_ours(self._base, rule["Name"])


def _settings(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule without what is its own: name and recipients."""
    return {name: value for name, value in rule.items() if name not in ("Name", "Recipients")}
