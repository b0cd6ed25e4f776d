"""Each permission of the template is needed: taken away, something fails that worked before.

AWS on this machine enforces IAM, so what works with a permission and fails without it proves
the least privilege. Not provable here: what Lambda itself does in the function's name (its log,
polling the queue, the on-failure destination), for which no policy is asked on this machine.
"""

import contextlib
import copy
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from bouncer.aws.stack_key import stack_key
from bouncer.delivery.bounce import Bounce, BouncedRecipient, BounceType
from bouncer.delivery.queue import decode, encode
from tests.e2e.conftest import Site

_NOT_ENFORCED_HERE = {
    ("UsageRole", "TakeDeletionsFromTheQueue"),  # the queue is polled by AWS itself here
    ("InboundRole", "WriteItsLog"),
    ("InboundRole", "SeeWhatABurstHasCounted"),
    ("InboundRole", "SeeWhatABurstHasRecorded"),
    ("InboundRole", "TakeTurns"),
    ("SendRole", "WriteItsLog"),
    ("SendRole", "TakeTurns"),
    ("SendRole", "TakeBouncesFromTheQueue"),
    ("UsageRole", "WriteItsLog"),
}
"""What Lambda does, not the function; what only colliding transactions ask for; and the turns,
which are an UpdateItem of the same table as the ledger: no leading keys are asked for here."""
_SAME_HERE = {"ClaimAndCount": "TakeTurns", "ClaimInTheLedger": "TakeTurns"}
"""Statements that only leading keys tell apart, so that both are taken away."""


def _inline(site: Site, role: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A deployed role's own policies, by name."""
    iam, name = site.client("iam"), site.physical_id(role)
    for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        answer = iam.get_role_policy(RoleName=name, PolicyName=policy)
        yield policy, answer["PolicyDocument"]


def _shared(site: Site, role: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The policies that it shares with other roles, by ARN."""
    iam, name = site.client("iam"), site.physical_id(role)
    for each in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        arn = each["PolicyArn"]
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        answer = iam.get_policy_version(PolicyArn=arn, VersionId=version)
        yield arn, answer["PolicyVersion"]["Document"]


def _has(document: dict[str, Any], sid: str) -> bool:
    return any(statement["Sid"] == sid for statement in document["Statement"])


@contextlib.contextmanager
def without(site: Site, role: str, sid: str, action: str) -> Iterator[None]:
    """The deployed role without one action of one statement.

    A policy that it shares is taken off, and what is left of it put in its own for the time.
    """
    iam, name = site.client("iam"), site.physical_id(role)
    own = [(policy, document) for policy, document in _inline(site, role) if _has(document, sid)]
    shared = [(arn, document) for arn, document in _shared(site, role) if _has(document, sid)]
    ((policy, document),) = own or [(arn.rpartition("/")[2], document) for arn, document in shared]
    reduced = copy.deepcopy(document)
    for statement in reduced["Statement"]:
        if statement["Sid"] == sid:
            actions = _listed(statement["Action"])
            statement["Action"] = [each for each in actions if each != action] or ["sts:Nothing"]
    iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(reduced))
    for arn, _ in shared:
        iam.detach_role_policy(RoleName=name, PolicyArn=arn)
    try:
        yield
    finally:
        for arn, _ in shared:
            iam.attach_role_policy(RoleName=name, PolicyArn=arn)
            iam.delete_role_policy(RoleName=name, PolicyName=policy)
        if own:
            iam.put_role_policy(
                RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document)
            )


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _event_is_kept(site: Site, *recipients: str) -> None:
    """Without it the mail goes on undecided, and its event is kept."""
    message_id = site.mail(*recipients)
    assert site.result(message_id) == "CONTINUE"
    assert site.kept(message_id)
    assert site.bounces(message_id) == []


def _event_is_kept_for_unknown(site: Site) -> None:
    _event_is_kept(site, "nobody@example.com")


def _event_is_kept_for_known(site: Site) -> None:
    _event_is_kept(site, "alice@example.com")


def _no_bounce(site: Site) -> None:
    """SES refuses for good: rejected, and the mail goes on."""
    message_id = site.mail("nobody@example.com")
    decided = site.decided(message_id)
    (recipient,) = decided["recipients"]
    assert recipient["state"] == "rejected"
    assert recipient["error_code"] == "AccessDenied"
    assert decided["disposition"] == "CONTINUE"


def _no_queue(site: Site) -> None:
    """With the limiter far behind, a bounce has to be queued, and cannot be."""
    with _backlog(site):
        _event_is_kept(site, "nobody@example.com")


def _no_queue_length(site: Site) -> None:
    """The length is an estimate: without it the queue counts as empty, and a bounce that could
    not make its window in a longer one is queued instead of given up."""
    with _backlog(site):
        message_id = site.mail("nobody@example.com")
        (recipient,) = site.decided(message_id)["recipients"]
    assert recipient["state"] == "queued"


def _no_keeping(site: Site) -> None:
    """A malformed event cannot be kept: the function fails, which Lambda and SES see."""
    answer = site.client("lambda").invoke(
        FunctionName=site.outputs["InboundFunction"], Payload=json.dumps({"Records": []})
    )
    assert answer["FunctionError"] == "Unhandled"
    assert b"AccessDenied" in answer["Payload"].read()


def _no_stored_mail(site: Site) -> None:
    """Without the size, the size rule does not hold: the mail goes on."""
    message_id = site.mail("small@example.com", body="x\n" * 4000)
    (recipient,) = site.decided(message_id)["recipients"]
    assert recipient["reason"] == "accept"


@contextlib.contextmanager
def _backlog(site: Site) -> Iterator[None]:
    """The next slot is a minute away, and no container remembers otherwise."""
    dynamodb, table = site.client("dynamodb"), site.outputs["BounceTable"]
    key = {"pk": {"S": "limiter"}, "sk": {"S": "send-bounce"}}
    before = dynamodb.get_item(TableName=table, Key=key).get("Item")
    far = {"N": f"{time.time() + 60:.3f}"}
    dynamodb.put_item(TableName=table, Item={**key, "next_slot": far})
    _recycle(site)
    try:
        yield
    finally:
        dynamodb.put_item(TableName=table, Item=before or {**key, "next_slot": {"N": "0"}})
        _recycle(site)


def _recycle(site: Site) -> None:
    """New containers: the old ones remember the backlog, or their denied calls."""
    client, name = site.client("lambda"), site.outputs["InboundFunction"]
    configuration = client.get_function_configuration(FunctionName=name)
    client.update_function_configuration(
        FunctionName=name, Description=f"{configuration.get('Description', '')}."
    )


def _send(site: Site, body: str) -> dict[str, Any]:
    """Invoke the queue's worker as its event source mapping would."""
    record = {
        "messageId": "m-1",
        "body": body,
        "attributes": {"ApproximateReceiveCount": "1"},
        "eventSource": "aws:sqs",
    }
    answer = site.client("lambda").invoke(
        FunctionName=site.physical_id("SendFunction"), Payload=json.dumps({"Records": [record]})
    )
    result: dict[str, Any] = json.loads(answer["Payload"].read())
    return result


def _queued(site: Site, bounce_sender: str = "mailer-daemon@example.com") -> str:
    """The body of a queued bounce about a mail that SES has."""
    message_id = site.mail("alice@example.com")
    site.trace(message_id)
    return encode(
        Bounce(
            message_id=message_id,
            received_at=datetime.now(UTC),
            bounce_sender=bounce_sender,
            recipients=(
                BouncedRecipient(
                    recipient="alice@example.com",
                    reason="test",
                    bounce_type=BounceType.EXCEEDED_QUOTA,
                ),
            ),
        ),
        stack_key(site.client("dynamodb"), site.outputs["BounceTable"]),
    )


_HANDED_BACK = {"batchItemFailures": [{"itemIdentifier": "m-1"}]}
_DONE: dict[str, Any] = {"batchItemFailures": []}


def _worker_without_ledger(site: Site) -> None:
    assert _send(site, _queued(site)) == _HANDED_BACK


def _worker_without_bounce(site: Site) -> None:
    body = _queued(site)
    assert _send(site, body) == _DONE
    message_id = decode(body).message_id
    assert site.bounces(message_id) == []


def _worker_without_keeping(site: Site) -> None:
    assert _send(site, "no bounce at all") == _HANDED_BACK


def _deleted(site: Site) -> Any:
    """Tell the usage function of a deleted mail that was counted."""
    message_id = site.mail("alice@example.com")
    site.trace(message_id)
    body = json.dumps({"detail": {"object": {"key": f"mail/{message_id}"}}})
    answer = site.client("lambda").invoke(
        FunctionName=site.physical_id("UsageFunction"),
        Payload=json.dumps({"Records": [{"messageId": "deletion", "body": body}]}),
    )
    if answer.get("FunctionError"):
        return "failed"
    return json.loads(answer["Payload"].read())["batchItemFailures"] or None


def _nothing_given_back(site: Site) -> None:
    assert _deleted(site) is not None


_CASES: list[tuple[str, str, str, Callable[[Site], None]]] = [
    ("InboundRole", "LookMailboxesUp", "dynamodb:BatchGetItem", _event_is_kept_for_unknown),
    ("InboundRole", "ClaimAndCount", "dynamodb:UpdateItem", _event_is_kept_for_unknown),
    ("InboundRole", "CountMailInMailboxes", "dynamodb:UpdateItem", _event_is_kept_for_known),
    ("InboundRole", "RecordWhatWasCounted", "dynamodb:PutItem", _event_is_kept_for_known),
    ("InboundRole", "BounceAsTheBounceSender", "ses:SendBounce", _no_bounce),
    ("InboundRole", "QueueBouncesAndSeeHowManyWait", "sqs:SendMessage", _no_queue),
    ("InboundRole", "QueueBouncesAndSeeHowManyWait", "sqs:GetQueueAttributes", _no_queue_length),
    ("InboundRole", "KeepEventsThatFailed", "sqs:SendMessage", _no_keeping),
    ("InboundRole", "ReadSizeAndHeadersOfStoredMail", "s3:GetObject", _no_stored_mail),
    ("SendRole", "ClaimInTheLedger", "dynamodb:UpdateItem", _worker_without_ledger),
    ("SendRole", "BounceAsTheBounceSender", "ses:SendBounce", _worker_without_bounce),
    ("SendRole", "SetUnreadableMessagesAside", "sqs:SendMessage", _worker_without_keeping),
    ("UsageRole", "FindWhereTheMailWasCounted", "dynamodb:Query", _nothing_given_back),
    ("UsageRole", "MarkWhatWasGivenBack", "dynamodb:UpdateItem", _nothing_given_back),
    ("UsageRole", "GiveBack", "dynamodb:UpdateItem", _nothing_given_back),
]


@pytest.mark.parametrize(
    ("role", "sid", "action", "see"),
    _CASES,
    ids=[f"{role}-{sid}-{action.partition(':')[2]}" for role, sid, action, _ in _CASES],
)
def test_without_it_something_fails(
    site: Site, role: str, sid: str, action: str, see: Callable[[Site], None]
) -> None:
    with contextlib.ExitStack() as taken:
        taken.enter_context(without(site, role, sid, action))
        if sid in _SAME_HERE:
            taken.enter_context(without(site, role, _SAME_HERE[sid], action))
        see(site)


def test_with_all_of_them_the_same_things_work(site: Site) -> None:
    """The other half of the proof: what fails above works when nothing is taken away."""
    assert _send(site, _queued(site)) == _DONE
    assert _send(site, "no bounce at all") == _DONE
    assert _deleted(site) is None
    message_id = site.mail("small@example.com", body="x\n" * 4000)
    (recipient,) = site.decided(message_id)["recipients"]
    assert (recipient["reason"], recipient["state"]) == ("too-large", "sent")


def test_every_action_is_tried_or_said_to_be_beyond_this_machine(site: Site) -> None:
    tried = {(role, sid, action) for role, sid, action, _ in _CASES}
    for role in ("InboundRole", "SendRole", "UsageRole"):
        for _, document in (*_inline(site, role), *_shared(site, role)):
            for statement in document["Statement"]:
                for action in _listed(statement["Action"]):
                    known = (role, statement["Sid"]) in _NOT_ENFORCED_HERE
                    assert known or (role, statement["Sid"], action) in tried


def test_a_bounce_from_another_sender_is_refused(site: Site) -> None:
    """The condition on ses:FromAddress: the role may bounce as the bounce sender only."""
    message_id = site.mail("alice@example.com")
    site.trace(message_id)
    body = _queued(site, bounce_sender="ceo@example.com")
    assert _send(site, body) == _DONE
    assert site.bounces(decode(body).message_id) == []


def test_ses_may_invoke_only_with_the_functions_permission(site: Site) -> None:
    client, function = site.client("lambda"), site.outputs["InboundFunction"]
    policy = json.loads(client.get_policy(FunctionName=function)["Policy"])
    removed = [each for each in policy["Statement"] if not each_is_for_copies(each)]
    for statement in removed:
        client.remove_permission(FunctionName=function, StatementId=statement["Sid"])
    try:
        assert site.result(site.mail("alice@example.com")).startswith("failed: the function's")
    finally:
        for statement in removed:
            client.add_permission(
                FunctionName=function,
                StatementId=statement["Sid"],
                Action=statement["Action"],
                Principal=statement["Principal"]["Service"],
                SourceArn=statement["Condition"]["ArnLike"]["AWS:SourceArn"],
                SourceAccount=statement["Condition"]["StringEquals"]["AWS:SourceAccount"],
            )
    assert site.result(site.mail("alice@example.com")) == "CONTINUE"


def each_is_for_copies(statement: dict[str, Any]) -> bool:
    return bool(statement["Condition"]["ArnLike"]["AWS:SourceArn"].endswith("-*"))


def test_ses_may_store_only_with_the_bucket_policy(site: Site) -> None:
    s3, bucket = site.client("s3"), site.outputs["MailBucket"]
    policy = s3.get_bucket_policy(Bucket=bucket)["Policy"]
    s3.delete_bucket_policy(Bucket=bucket)
    try:
        trace = site.trace(site.mail("alice@example.com"))
        assert trace["steps"][0]["result"].startswith("failed: the bucket policy")
    finally:
        s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    assert site.trace(site.mail("alice@example.com"))["steps"][0]["result"].startswith("s3://")
