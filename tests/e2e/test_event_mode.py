"""The receipt rule's other invocation type: Lambda retries, and keeps what fails for good."""

import contextlib
import json
import time
from collections.abc import Iterator

from local.demo import until
from tests.e2e.conftest import Site
from tests.e2e.test_permissions import without


@contextlib.contextmanager
def event_mode(site: Site) -> Iterator[None]:
    """The rule invokes with Event as long as this lasts."""
    ses = site.client("ses")
    rule = ses.describe_receipt_rule(RuleSetName="local", RuleName="ses-bouncer")["Rule"]

    def invoke_with(kind: str) -> None:
        for action in rule["Actions"]:
            if "LambdaAction" in action:
                action["LambdaAction"]["InvocationType"] = kind
        ses.update_receipt_rule(RuleSetName="local", Rule=rule)

    invoke_with("Event")
    try:
        yield
    finally:
        invoke_with("RequestResponse")


def test_a_mail_is_bounced_in_event_mode_too(site: Site) -> None:
    with event_mode(site):
        message_id = site.mail("nobody@example.com")
        assert site.result(message_id) == "invoked"
        assert site.decided(message_id)["recipients"][0]["state"] == "sent"
    assert len(site.bounces(message_id)) == 1


def test_a_failing_backend_is_tried_again_and_then_the_event_is_kept(site: Site) -> None:
    with event_mode(site):
        with without(site, "InboundRole", "LookMailboxesUp", "dynamodb:BatchGetItem"):
            message_id = site.mail("nobody@example.com")
            record = until(lambda: site.kept(message_id), "the event was not kept")
        assert record["requestContext"]["condition"] == "RetriesExhausted"
        payload = json.dumps(record["requestPayload"])
    # The audit has another role: it finds the mail undecided meanwhile, and tells the sender.
    assert len(site.bounces(message_id)) <= 1
    answer = site.client("lambda").invoke(
        FunctionName=site.outputs["InboundFunction"], Payload=payload
    )
    assert json.loads(answer["Payload"].read()) == {"disposition": "STOP_RULE_SET"}
    assert len(site.bounces(message_id)) == 1


def test_a_passing_failure_costs_no_bounce(site: Site) -> None:
    """Lambda's second try finds the backend back, and the bounce is sent once."""
    with event_mode(site):
        with without(site, "InboundRole", "LookMailboxesUp", "dynamodb:BatchGetItem"):
            message_id = site.mail("nobody@example.com")
            site.trace(message_id)
            time.sleep(0.5)
        assert site.decided(message_id)["recipients"][0]["state"] == "sent"
    assert len(site.bounces(message_id)) == 1
