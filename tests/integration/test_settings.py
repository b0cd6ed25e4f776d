"""The environment as the functions read it: what is missing or wrong is named."""

from datetime import timedelta

import pytest

from bouncer.limiter import Pace
from bouncer.settings import (
    InboundSettings,
    LogAddresses,
    RulesSettings,
    SendSettings,
    SettingsError,
    UsageMode,
    UsageSettings,
    attribute_names,
)

SHARED = {
    "BOUNCE_TABLE": "bounces",
    "PACE_TABLE": "bounces",
    "BOUNCE_QUEUE_URL": "https://sqs/bounces",
}
INBOUND = {
    **SHARED,
    "AWS_REGION": "eu-west-1",
    "BOUNCE_SENDER": "mailer-daemon@example.com",
    "EVENT_DEAD_LETTER_QUEUE_URL": "https://sqs/events",
    "MAILBOX_TABLE": "mailboxes",
}
SEND = {
    **SHARED,
    "BOUNCE_DEAD_LETTER_QUEUE_URL": "https://sqs/dead",
    "BOUNCE_QUEUE_MAX_RECEIVES": "20",
}


def test_what_is_not_said_has_a_default() -> None:
    settings = InboundSettings.read(INBOUND)
    assert settings.pace == Pace()
    assert settings.terms.wait_budget == 3
    assert settings.terms.window_margin == timedelta(minutes=5)
    assert settings.ledger_retention == timedelta(days=14)
    assert settings.log_addresses is LogAddresses.FULL
    assert settings.usage is UsageMode.EXTERNAL
    assert (settings.mail_bucket, settings.policy_profile, settings.mailbox_attributes) == (
        "",
        "",
        "",
    )


def test_what_is_said_is_read_as_what_it_is() -> None:
    settings = InboundSettings.read(
        {
            **INBOUND,
            "SEND_INTERVAL_SECONDS": "2",
            "WAIT_BUDGET_SECONDS": "1.5",
            "WINDOW_MARGIN_SECONDS": "60",
            "LEDGER_RETENTION_DAYS": "30",
            "LOG_ADDRESSES": "hash",
            "USAGE": "managed",
        }
    )
    assert settings.pace == Pace(interval=2)
    assert settings.terms.wait_budget == 1.5
    assert settings.terms.window_margin == timedelta(minutes=1)
    assert settings.terms.penalty == 4
    assert settings.ledger_retention == timedelta(days=30)
    assert settings.log_addresses is LogAddresses.HASH
    assert settings.usage is UsageMode.MANAGED


def test_an_empty_variable_is_not_set() -> None:
    """So the template passes the parameters that nobody gave."""
    settings = InboundSettings.read({**INBOUND, "MAIL_BUCKET": "", "WAIT_BUDGET_SECONDS": ""})
    assert (settings.mail_bucket, settings.wait_budget_seconds) == ("", 3)


def test_what_is_not_ours_is_passed_over() -> None:
    more = {"PATH": "/bin", "AWS_LAMBDA_FUNCTION_NAME": "f"}
    assert InboundSettings.read({**INBOUND, **more}) == InboundSettings.read(INBOUND)


@pytest.mark.parametrize("name", INBOUND)
@pytest.mark.parametrize("value", [None, ""], ids=["absent", "empty"])
def test_a_variable_that_is_missing_is_named(name: str, value: str | None) -> None:
    environment = {k: v for k, v in INBOUND.items() if k != name}
    if value is not None:
        environment[name] = value
    with pytest.raises(SettingsError, match=name):
        InboundSettings.read(environment)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SEND_INTERVAL_SECONDS", "0"),
        ("SEND_INTERVAL_SECONDS", "-1"),
        ("SEND_INTERVAL_SECONDS", "soon"),
        ("WAIT_BUDGET_SECONDS", "-1"),
        ("WINDOW_MARGIN_SECONDS", "59"),
        ("LEDGER_RETENTION_DAYS", "2"),
        ("LEDGER_RETENTION_DAYS", "7.5"),
        ("LOG_ADDRESSES", "some"),
        ("USAGE", "auto"),
    ],
)
def test_a_variable_that_is_wrong_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        InboundSettings.read({**INBOUND, name: value})


@pytest.mark.parametrize("name", SEND)
def test_the_worker_needs_its_own(name: str) -> None:
    assert SendSettings.read(SEND).bounce_queue_max_receives == 20
    with pytest.raises(SettingsError, match=name):
        SendSettings.read({k: v for k, v in SEND.items() if k != name})


def test_the_smaller_functions_need_less() -> None:
    usage = UsageSettings.read({"BOUNCE_TABLE": "bounces", "MAILBOX_TABLE": "mailboxes"})
    assert (usage.mail_prefix, usage.ledger_retention) == ("", timedelta(days=14))
    rules = {
        "PACE_TABLE": "bounces",
        "MAILBOX_TABLE": "m",
        "RECEIPT_RULE_SET": "inbound",
        "RECEIPT_RULE": "ses-bouncer",
    }
    settings = RulesSettings.read(rules)
    assert (settings.receipt_rule, settings.mailbox_attributes) == ("ses-bouncer", "")


def test_the_function_of_the_rules_knows_a_tables_own_names() -> None:
    rules = {
        "PACE_TABLE": "bounces",
        "MAILBOX_TABLE": "m",
        "RECEIPT_RULE_SET": "inbound",
        "RECEIPT_RULE": "ses-bouncer",
    }
    settings = RulesSettings.read({**rules, "MAILBOX_ATTRIBUTES": "address=email"})
    assert attribute_names(settings.mailbox_attributes) == {"address": "email"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", {}),
        ("address=email", {"address": "email"}),
        (" address = email , quota_bytes=space", {"address": "email", "quota_bytes": "space"}),
        ("address=email,", {"address": "email"}),
        ("address=", {}),
        ("quota_bytes=a=b", {"quota_bytes": "a=b"}),
    ],
)
def test_attribute_names_are_pairs(text: str, names: dict[str, str]) -> None:
    assert attribute_names(text) == names
    settings = InboundSettings.read({**INBOUND, "MAILBOX_ATTRIBUTES": text})
    assert attribute_names(settings.mailbox_attributes) == names
