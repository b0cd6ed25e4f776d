"""What a resource policy lets SES do, as far as a policy can be judged from outside."""

import fnmatch
import json
from collections.abc import Mapping
from typing import Any


def allows(policy: str, action: str, rule: str) -> bool:
    """Whether a resource policy lets SES do something for the rule whose ARN ends so.

    Only Allow statements count, and only the conditions that SES's own examples use; a
    policy with others is for its author to judge.
    """
    statements = json.loads(policy).get("Statement", [])
    for each in statements if isinstance(statements, list) else [statements]:
        principal = each.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, dict) else [principal]
        actions = each.get("Action", [])
        if (
            each.get("Effect") == "Allow"
            and {"ses.amazonaws.com", "*"} & {*_listed(services)}
            and {action, "*", f"{action.partition(':')[0]}:*"} & {*_listed(actions)}
            and _from_rule(_source_arns(each.get("Condition", {})), rule)
        ):
            return True
    return False


def _from_rule(source_arns: list[str], rule: str) -> bool:
    """Whether the patterns of aws:SourceArn let the rule in; without any, everything may."""
    return not source_arns or any(
        fnmatch.fnmatchcase(rule, pattern[max(pattern.find(":receipt-rule-set/"), 0) :])
        for pattern in source_arns
    )


def _source_arns(conditions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        value
        for keys in conditions.values()
        for key, values in keys.items()
        if key.lower() == "aws:sourcearn"
        for value in _listed(values)
    ]


def _listed(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]
