"""A new user who does everything wrongly, on an account that already receives mail.

The doctor names each mistake with its mend, and whatever he does, nobody who writes to a mailbox
that exists is told anything. One stack, one mistake after the other.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from local import stack
from local.stack import RULE_SET
from tests.e2e.conftest import Site
from tests.e2e.test_operation import run

SENDER = "mailer-daemon@elsewhere.example"
EXISTING = ("alice@example.com", "bob@example.com", "whatever@shop.example.com")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Steps 2 and 4 of the README before 1 and 3, with the wrong sender, set and prefix."""
    with stack.running(outbox=tmp_path_factory.mktemp("outbox")) as aws:
        stack.prepare_account(aws)
        ses = aws.client("ses")
        ses.create_receipt_rule_set(RuleSetName="in-use")
        delivers = {"AddHeaderAction": {"HeaderName": "X-Delivered", "HeaderValue": "yes"}}
        rule = {"Name": "deliver", "Enabled": True, "Actions": [delivers]}
        for rule_set in ("in-use", RULE_SET):
            ses.create_receipt_rule(RuleSetName=rule_set, Rule=rule)
        ses.set_active_receipt_rule_set(RuleSetName="in-use")
        outputs = stack.deploy(
            aws, stack.build(aws), BounceSender=SENDER, MailPrefix="inbox", RefusedMailDays="1"
        )
        yield Site(aws=aws, outputs=outputs)


def checks(site: Site, *options: str) -> dict[str, dict[str, Any]]:
    found = json.loads(run(site, "doctor", "--json", *options).stdout)["checks"]
    return {each["name"]: each for each in found}


def everybody_gets_his_mail(site: Site) -> None:
    for address in EXISTING:
        trace = site.trace(site.mail(address))
        results = [step["result"] for step in trace["steps"]]
        assert trace["steps"][-1]["action"] == "AddHeaderAction", results
    assert told(site) & {*EXISTING} == set()


def told(site: Site) -> set[str]:
    """Of whom a bounce was asked for, whether SES sent it or not."""
    return {
        each["Recipient"]
        for call in site.aws.listing("bounces")
        for each in call["request"]["BouncedRecipientInfoList"]
    }


def test_before_anything_is_deployed_the_doctor_names_the_wrong_sender_and_set(site: Site) -> None:
    found = checks(
        site,
        *("--stack", "not-there", "--bounce-sender", SENDER, "--rule-set", "made-up"),
        *("--after-rule", "nowhere", "--recipients", "example.org"),
    )
    wrong = {name for name, each in found.items() if each["state"] == "wrong"}
    assert {"identity", "rule-set", "recipients-verified"} <= wrong, found
    assert all(found[name]["mend"] for name in wrong)


def test_deployed_beside_the_active_set_it_does_nothing(site: Site) -> None:
    everybody_gets_his_mail(site)
    found = checks(site)
    assert found["rule-set"]["state"] == "warning"
    assert "bouncer rules activate" in found["rule-set"]["mend"]
    refused = run(site, "rules", "activate", RULE_SET)
    assert (refused.returncode, "--replace" in refused.stderr) == (1, True)
    everybody_gets_his_mail(site)


def test_active_with_an_empty_directory_it_observes_and_going_live_is_refused(site: Site) -> None:
    assert run(site, "rules", "activate", RULE_SET, "--replace").returncode == 0
    everybody_gets_his_mail(site)
    refused = run(site, "mode", "enforce", "--json")
    assert refused.returncode == 1
    wrong = {each["name"]: each for each in json.loads(refused.stdout)["checks"]}
    assert {"identity", "directory"} <= wrong.keys()
    assert all(each["mend"] for each in wrong.values())
    everybody_gets_his_mail(site)


def test_live_against_the_doctors_word_an_empty_directory_bounces_nobody(site: Site) -> None:
    refused = run(site, "mode", "enforce", "--json")
    names = [each["name"] for each in json.loads(refused.stdout)["checks"]]
    despite = [part for name in names for part in ("--despite", name)]
    live = run(site, "mode", "enforce", *despite)
    assert live.returncode == 0, live.stderr
    everybody_gets_his_mail(site)
    assert told(site) == set()


def test_filled_while_live_with_a_sender_of_another_domain(site: Site) -> None:
    """Nobody can be told; the doctor says why, and the mail of nobody is not lost silently."""
    done = run(site, "mailbox", "import", str(stack.MAILBOXES), "--new-domains")
    assert done.returncode == 0, done.stderr
    everybody_gets_his_mail(site)
    message_id = site.mail("nobody@example.com")
    (decided,) = site.decided(message_id)["recipients"]
    assert (decided["outcome"], decided["state"]) == ("bounce", "rejected")
    assert site.bounces(message_id) == []
    assert checks(site)["identity"]["state"] == "wrong"


def test_a_prefix_without_a_slash_finds_the_mail_and_its_mark(site: Site) -> None:
    assert checks(site)["prefix"]["state"] == "right"
    s3, bucket = site.client("s3"), site.outputs["MailBucket"]
    large = site.mail("small@example.com", body="x\n" * 4000)
    assert site.decided(large)["recipients"][0]["reason"] == "too-large"
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"inbox/{large}")
    assert listed["KeyCount"] == 1


def test_the_directory_emptied_while_live_in_any_order(site: Site) -> None:
    items = site.client("dynamodb").scan(TableName=site.outputs["MailboxTable"])["Items"]
    keys = sorted(each["address"]["S"] for each in items)
    domains = [each for each in keys if each.startswith("@")]
    for domain in domains:
        assert run(site, "mailbox", "remove", domain).returncode == 0
    everybody_gets_his_mail(site)
    for address in set(keys) - {*domains}:
        assert run(site, "mailbox", "remove", address).returncode == 0
    everybody_gets_his_mail(site)
    assert checks(site)["directory"]["state"] == "wrong"


def test_once_all_is_mended_as_the_doctor_says_it_bounces_whom_it_has_to(site: Site) -> None:
    mended = site.switch(BounceSender=stack.BOUNCE_SENDER, Mode="observe")
    assert run(mended, "mailbox", "import", str(stack.MAILBOXES)).returncode == 0
    live = run(mended, "mode", "enforce")
    assert live.returncode == 0, live.stderr + live.stdout
    everybody_gets_his_mail(mended)
    message_id = mended.mail("nobody@example.com")
    assert mended.decided(message_id)["recipients"][0]["state"] == "sent"
    assert len(mended.bounces(message_id)) == 1
