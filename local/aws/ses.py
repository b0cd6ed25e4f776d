"""What ministack's SES lacks, laid over it: SendBounce, the missing rule calls, and grants.

ministack is extended, not forked: its request handler and two of its IAM functions are
wrapped here, two CloudFormation types are added, and everything else is used as it is.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import botocore.session
from botocore.serialize import create_serializer
from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id, get_region
from ministack.services import lambda_svc
from ministack.services import s3 as s3_service
from ministack.services import ses as base
from ministack.services import sns as sns_service
from ministack.services.cloudformation import provisioners

from local.aws import environments
from local.aws.ip_filters import IpFilters
from local.aws.outgoing import Outgoing
from local.aws.send_bounce import SendBounce, SesError, identity_of

type Properties = dict[str, Any]
type Response = tuple[int, dict[str, str], bytes]

_MODEL = botocore.session.get_session().get_service_model("ses")
_SERIALIZER = create_serializer("query")

arrived: ContextVar[float] = ContextVar("arrived")
"""When the current request reached the server, in epoch seconds; server.py sets it."""

caller: ContextVar[int] = ContextVar("caller")
"""The port that the current request came from; server.py sets it."""


def install(send_bounce: SendBounce, outgoing: Outgoing, filters: IpFilters) -> None:
    """Lay it all over ministack, once, before the server starts."""
    plain = base.handle_request
    extra: dict[str, Callable[[Mapping[str, str]], Response]] = {
        "SendBounce": lambda parameters: _send_bounce(send_bounce, parameters),
        "CreateReceiptRule": _create_receipt_rule,
        "UpdateReceiptRule": _update_receipt_rule,
        "CreateReceiptFilter": lambda parameters: _create_receipt_filter(filters, parameters),
        "DeleteReceiptFilter": lambda parameters: _delete_receipt_filter(filters, parameters),
        "ListReceiptFilters": lambda _: _list_receipt_filters(filters),
    }

    async def handle_request(
        method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, list[str]]
    ) -> Response:
        parameters = _flat(body, query)
        handler = extra.get(parameters.get("Action", ""))
        if handler is not None:
            return handler(parameters)
        if parameters.get("Action") == "SendRawEmail":  # delivering it calls this same server
            return await asyncio.to_thread(_send_raw_email, outgoing, parameters)
        response: Response = await plain(method, path, headers, body, query)
        return response

    base.handle_request = handle_request
    _enforce_sending()
    _count_loopback_as_tls()
    _add_resource_types()


def _count_loopback_as_tls() -> None:
    """`aws:SecureTransport` holds here: AWS on this machine has no certificate, and no network."""
    resolve = iam_evaluator._resolve_condition_key

    def resolved(key: str, context: Any) -> Any:
        return "true" if key.lower() == "aws:securetransport" else resolve(key, context)

    iam_evaluator._resolve_condition_key = resolved


def may(action: str, resource: str, rule_name: str) -> bool:
    """Whether a resource's own policy lets SES act on it from a receipt rule.

    Args:
        rule_name: as in an ARN, `receipt-rule-set/SET:receipt-rule/RULE`.
    """
    account, region = get_account_id(), get_region()
    if action.startswith("lambda:"):
        found = lambda_svc.function_policy_for_arn(resource)
        policy = found[0] if found else None
    elif action.startswith("sns:"):
        topic = sns_service._topics.get(resource) or {}
        policy = topic.get("attributes", {}).get("Policy")
        policy = json.loads(policy) if isinstance(policy, str) else policy
    else:
        bucket = resource.removeprefix("arn:aws:s3:::").partition("/")[0]
        policy = s3_service._bucket_policies.get(bucket)
    context = iam_evaluator.EvalContext(
        principal_arn="ses.amazonaws.com",
        principal_type="Service",
        principal_account="",
        action=action,
        resource_arn=resource,
        region=region,
        service_context={
            "aws:sourceaccount": account,
            "aws:sourcearn": f"arn:aws:ses:{region}:{account}:{rule_name}",
        },
    )
    result = iam_evaluator.evaluate_resource_policy(policy, context, service="ses.amazonaws.com")
    return bool(result.decision == "Allow")


def verified() -> list[str]:
    """The identities that may send and receive, in the account and Region of the request."""
    identities = base._identities
    return [n for n in identities if identities[n].get("VerificationStatus") == "Success"]


# --- SendBounce ------------------------------------------------------------------------------


def _send_bounce(send_bounce: SendBounce, parameters: Mapping[str, str]) -> Response:
    members = {k: v for k, v in parameters.items() if k not in ("Action", "Version")}
    found = environments.behind(caller.get(0))
    try:
        message_id = send_bounce(
            members, arrived.get(time.time()), process=found[0] if found is not None else None
        )
    except SesError as error:
        return _error(error.code, error.message, error.status)
    result = f"<MessageId>{escape(message_id)}</MessageId>"
    return _xml("SendBounce", result)


def _send_raw_email(outgoing: Outgoing, parameters: Mapping[str, str]) -> Response:
    try:
        message_id = outgoing(parameters)
    except SesError as error:
        return _error(error.code, error.message, error.status)
    return _xml("SendRawEmail", f"<MessageId>{escape(message_id)}</MessageId>")


def _enforce_sending() -> None:
    """IAM sees SendBounce and SendRawEmail with the identity, and the key ses:FromAddress."""
    resource_arn = iam_actions.extract_resource_arn
    tag_context = iam_actions.request_tag_context

    def extract_resource_arn(service: str, *request: Any) -> str:
        _, _, _, _, parameters, region, account_id = request
        sender = _sender(service, parameters)
        if sender is None:
            found: str = resource_arn(service, *request)
            return found
        identity = identity_of(sender, verified()) or sender
        return f"arn:aws:ses:{region}:{account_id}:identity/{identity}"

    def request_tag_context(
        service: str, iam_action: str, body: bytes, params: dict[str, Any]
    ) -> dict[str, Any]:
        context: dict[str, Any] = tag_context(service, iam_action, body, params)
        sender = _sender(service, params)
        return context if sender is None else {**context, "ses:FromAddress": sender}

    iam_actions.extract_resource_arn = extract_resource_arn
    iam_actions.request_tag_context = request_tag_context


def _sender(service: str, parameters: Mapping[str, Any]) -> str | None:
    sender = {"SendBounce": "BounceSender", "SendRawEmail": "Source"}
    action = base._p(parameters, "Action") if service == "ses" else ""
    return str(base._p(parameters, sender[action])) if action in sender else None


# --- Receipt IP filters ----------------------------------------------------------------------


def _create_receipt_filter(filters: IpFilters, parameters: Mapping[str, str]) -> Response:
    try:
        filters.create(
            parameters.get("Filter.Name", ""),
            parameters.get("Filter.IpFilter.Policy", ""),
            parameters.get("Filter.IpFilter.Cidr", ""),
        )
    except SesError as error:
        return _error(error.code, error.message, error.status)
    return _xml("CreateReceiptFilter", "")


def _delete_receipt_filter(filters: IpFilters, parameters: Mapping[str, str]) -> Response:
    filters.delete(parameters.get("FilterName", ""))
    return _xml("DeleteReceiptFilter", "")


def _list_receipt_filters(filters: IpFilters) -> Response:
    members = "".join(
        f"<member><Name>{escape(each.name)}</Name><IpFilter><Policy>{each.policy}</Policy>"
        f"<Cidr>{escape(each.cidr)}</Cidr></IpFilter></member>"
        for each in filters.all()
    )
    return _xml("ListReceiptFilters", f"<Filters>{members}</Filters>")


# --- Receipt rules ---------------------------------------------------------------------------


def _create_receipt_rule(parameters: Mapping[str, str]) -> Response:
    refused = _grants_missing(parameters)
    if refused is not None:
        return refused
    response: Response = base._create_receipt_rule(dict(parameters))
    return response


def _update_receipt_rule(parameters: Mapping[str, str]) -> Response:
    refused = _grants_missing(parameters)
    if refused is not None:
        return refused
    rule = base._receipt_rule_from_params(parameters)
    invalid: Response | None = base._receipt_rule_error(rule)
    if invalid is not None:
        return invalid
    rule_set = base._receipt_rule_sets.get(parameters.get("RuleSetName", ""))
    if rule_set is None:
        return _error(
            "RuleSetDoesNotExist", f"Rule set does not exist: {parameters['RuleSetName']}"
        )
    for index, existing in enumerate(rule_set["Rules"]):
        if existing["Name"] == rule["Name"]:
            rule_set["Rules"][index] = rule
            return _xml("UpdateReceiptRule", "")
    return _error("RuleDoesNotExist", f"Rule does not exist: {rule['Name']}")


def _grants_missing(parameters: Mapping[str, str]) -> Response | None:
    """SES tries its grants when a rule is made, and so does this."""
    rule = base._receipt_rule_from_params(parameters)
    name = f"receipt-rule-set/{parameters.get('RuleSetName')}:receipt-rule/{rule['Name']}"
    for action in rule["Actions"]:
        if "LambdaAction" in action:
            function = action["LambdaAction"].get("FunctionArn", "")
            if not may("lambda:InvokeFunction", function, name):
                return _error(
                    "InvalidLambdaFunction", f"Could not invoke Lambda function: {function}"
                )
        topic = next(iter(action.values())).get("TopicArn", "")
        if topic and not may("sns:Publish", topic, name):
            return _error("InvalidSnsTopic", f"Could not publish to SNS topic: {topic}")
        if "S3Action" in action:
            bucket = action["S3Action"].get("BucketName", "")
            key = action["S3Action"].get("ObjectKeyPrefix", "") + "AMAZON_SES_SETUP_NOTIFICATION"
            if not may("s3:PutObject", f"arn:aws:s3:::{bucket}/{key}", name):
                return _error("InvalidS3Configuration", f"Could not write to bucket: {bucket}")
    return None


def _add_resource_types() -> None:
    """AWS::SES::ReceiptRuleSet and AWS::SES::ReceiptRule; both have their name as Ref."""

    def create_set(logical_id: str, properties: Properties, stack: str) -> tuple[str, Properties]:
        name = properties.get("RuleSetName") or f"{stack}-{logical_id}"
        _call("CreateReceiptRuleSet", base._create_receipt_rule_set, RuleSetName=name)
        return name, {}

    def delete_set(physical_id: str, _: Properties) -> None:
        _call("DeleteReceiptRuleSet", base._delete_receipt_rule_set, RuleSetName=physical_id)

    def create_rule(logical_id: str, properties: Properties, stack: str) -> tuple[str, Properties]:
        rule = _rule(properties, f"{stack}-{logical_id}")
        after = {"After": properties["After"]} if properties.get("After") else {}
        rule_set = properties["RuleSetName"]
        _call("CreateReceiptRule", _create_receipt_rule, RuleSetName=rule_set, Rule=rule, **after)
        return rule["Name"], {}

    def update_rule(
        physical_id: str, old: Properties, new: Properties, stack: str
    ) -> tuple[str, Properties]:
        rule = _rule(new, physical_id)
        if old["RuleSetName"] == new["RuleSetName"] and rule["Name"] == physical_id:
            rule_set = new["RuleSetName"]
            _call("UpdateReceiptRule", _update_receipt_rule, RuleSetName=rule_set, Rule=rule)
            return physical_id, {}
        created = create_rule("", new, stack)
        delete_rule(physical_id, old)
        return created

    def delete_rule(physical_id: str, properties: Properties) -> None:
        _call(
            "DeleteReceiptRule",
            base._delete_receipt_rule,
            RuleSetName=properties["RuleSetName"],
            RuleName=physical_id,
        )

    handlers = provisioners._RESOURCE_HANDLERS
    handlers["AWS::SES::ReceiptRuleSet"] = {"create": create_set, "delete": delete_set}
    handlers["AWS::SES::ReceiptRule"] = {
        "create": create_rule,
        "update": update_rule,
        "delete": delete_rule,
    }


def _call(
    operation: str, handler: Callable[[Mapping[str, str]], Response], **parameters: Any
) -> None:
    """Call an operation as a client would, without HTTP: templates are provisioned on the
    thread that serves it.
    """
    flat = _SERIALIZER.serialize_to_request(parameters, _MODEL.operation_model(operation))["body"]
    status, _, body = handler(flat)
    if status != 200:
        raise ValueError(body.decode())


def _rule(properties: Mapping[str, Any], default_name: str) -> dict[str, Any]:
    rule = dict(properties["Rule"])
    rule.setdefault("Name", default_name)
    for flag in ("Enabled", "ScanEnabled"):  # templates may carry booleans as text
        rule[flag] = str(rule.get(flag, False)).lower() == "true"
    return rule


# --- Answers ---------------------------------------------------------------------------------


def _flat(body: bytes, query: Mapping[str, list[str]]) -> dict[str, str]:
    parameters = {name: values[0] for name, values in query.items()}
    form = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return parameters | {name: values[0] for name, values in form.items()}


def _xml(action: str, result: str) -> Response:
    response: Response = base._xml(
        200, f"{action}Response", f"<{action}Result>{result}</{action}Result>"
    )
    return response


def _error(code: str, message: str, status: int = 400) -> Response:
    response: Response = base._error(code, message, status)
    return response
