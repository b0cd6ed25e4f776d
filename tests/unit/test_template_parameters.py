"""What parameters mean together, which of them contradict each other, and what each takes."""

import re

import pytest

from bouncer.mailboxes import Mailbox
from bouncer.receipt_rules import RULES_A_SET, rule_name
from tests.unit.template import PARAMETERS, deployable, environment, evaluate, template

OWN_TABLE = {"MailboxTableName": "users"}


@pytest.mark.parametrize(
    ("given", "managed"),
    [
        ({}, True),
        ({"StoreMail": "none"}, False),
        ({"Usage": "external"}, False),
        ({"Usage": "managed"}, True),
        ({"Usage": "managed", "StoreMail": "none"}, False),
        (OWN_TABLE, False),
        (OWN_TABLE | {"Usage": "managed"}, True),
        (OWN_TABLE | {"Usage": "managed", "StoreMail": "none"}, False),
    ],
    ids=str,
)
def test_usage_is_managed_where_the_mail_is_stored_and_the_table_is_ours_or_it_is_said(
    given: dict[str, str], managed: bool
) -> None:
    assert evaluate({"Condition": "ManageUsage"}, given) is managed


def test_what_manages_usage_is_all_of_it_made_on_one_condition() -> None:
    made = {
        name: resource.get("Condition")
        for name, resource in template()["Resources"].items()
        if name.startswith("Usage")
    }
    assert {"UsageFunction", "UsageRole", "UsageLogGroup"} <= made.keys()
    assert set(made.values()) == {"ManageUsage"}
    usage = environment("InboundFunction")["USAGE"]["Fn::If"]
    assert usage == ["ManageUsage", "managed", "external"]


RENAMED = {"MailboxAttributes": "address=email"}


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({}, True),
        ({"StoreMail": "none"}, True),
        (OWN_TABLE | RENAMED, True),
        (OWN_TABLE | {"Usage": "managed"}, True),
        ({"Usage": "managed", "StoreMail": "none"}, False),
        (OWN_TABLE | RENAMED | {"Usage": "managed"}, False),
        ({"StoreMail": "existing-bucket"}, False),
        ({"StoreMail": "existing-bucket", "MailBucketName": "bucket"}, True),
        ({"StoreMail": "own-bucket", "MailBucketName": "bucket"}, False),
        ({"StoreMail": "none", "MailBucketName": "bucket"}, False),
        ({"OtherBounceSenders": "a@example.net,b@example.net"}, False),
        ({"OtherBounceSenders": "a@example.net", "OtherBounceIdentityArns": "arn:x"}, True),
    ],
    ids=str,
)
def test_parameters_that_contradict_each_other_make_no_stack(
    given: dict[str, str], allowed: bool
) -> None:
    assert deployable(given) is allowed


def accepts(parameter: str, value: str) -> bool:
    return re.fullmatch(PARAMETERS[parameter]["AllowedPattern"], value) is not None


def test_the_attributes_that_may_be_renamed_are_a_mailboxs_fields() -> None:
    alternatives = re.findall(r"\(([a-z_|]+)\)=", PARAMETERS["MailboxAttributes"]["AllowedPattern"])
    assert [tuple(each.split("|")) for each in alternatives] == [Mailbox.__struct_fields__]


@pytest.mark.parametrize(
    ("pairs", "allowed"),
    [
        ("", True),
        ("address=email", True),
        ("address=email,quota_bytes=quota,used_bytes=used", True),
        (",".join(f"{field}=x-{field}" for field in Mailbox.__struct_fields__), True),
        ("quota=quota_bytes", False),
        ("address=email,quota=space", False),
        ("address", False),
        ("address=", False),
        ("address=email,", False),
        ("address=email quota_bytes=quota,", False),
    ],
)
def test_attributes_are_renamed_in_pairs_of_a_field_and_a_name(pairs: str, allowed: bool) -> None:
    assert accepts("MailboxAttributes", pairs) is allowed


@pytest.mark.parametrize(("length", "allowed"), [(1, True), (60, True), (61, False), (64, False)])
def test_a_rules_name_leaves_room_for_the_numbers_of_its_copies(length: int, allowed: bool) -> None:
    """docs.aws.amazon.com/ses/latest/APIReference/API_ReceiptRule.html: fewer than 65."""
    name = "r" * length
    assert accepts("ReceiptRuleName", name) is allowed
    assert not allowed or len(rule_name(name, RULES_A_SET)) <= 64
