"""What IAM on this machine is asked: recorded, and put as AWS puts it where ministack differs."""

import json
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from local.aws.requests import caller_of


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What IAM was asked about a caller, and how often."""

    caller: str
    """A function's name, or an IAM user's."""
    action: str
    resource: str
    allowed: bool
    count: int = 1


class Authorizations:
    """What IAM is asked from now on: it lays itself over ministack, once."""

    def __init__(self) -> None:
        from ministack.core import iam_evaluator

        _as_aws_asks()
        self._counts: Counter[Asked] = Counter()
        self._lock = threading.Lock()
        plain = iam_evaluator.enforce

        def enforce(
            key: str, action: str, service: str, region: str, resource_arn: str = "*", **more: Any
        ) -> Any:
            denied = plain(key, action, service, region, resource_arn=resource_arn, **more)
            asked = Asked(
                caller=caller_of(key or ""),
                action=action,
                resource=resource_arn,
                allowed=denied is None,
            )
            with self._lock:
                self._counts[asked] += 1
            return denied

        iam_evaluator.enforce = enforce

    def listed(self) -> list[Asked]:
        with self._lock:
            return [
                msgspec.structs.replace(asked, count=count)
                for asked, count in self._counts.items()
                if asked.caller
            ]


def _as_aws_asks() -> None:
    """Actions, resources and keys as the Service Authorization Reference has them."""
    from ministack.core import iam_actions

    plain_action = iam_actions.extract_iam_action
    plain_resource = iam_actions.extract_resource_arn
    plain_context = iam_actions.request_tag_context

    def extract_iam_action(service: str, *request: Any) -> str | None:
        method, path, _, _, params = request
        if service == "lambda" and method == "GET" and (action := _of_lambda(path, params)):
            return action
        found: str | None = plain_action(service, *request)
        # A batch asks for what each of its entries does.
        return found.removesuffix("Batch") if found and found.startswith("sqs:") else found

    def extract_resource_arn(service: str, *request: Any) -> str:
        _, _, headers, body, params, region, account = request
        if service == "lambda" and "find" in params:
            layer = params["Arn"]
            return str(layer if isinstance(layer, str) else layer[0])
        if service == "logs" and headers.get("x-amz-target", "").endswith(".StartQuery"):
            (name, *_) = json.loads(body).get("logGroupNames") or [""]
            if name:
                return f"arn:aws:logs:{region}:{account}:log-group:{name}"
        found: str = plain_resource(service, *request)
        return found

    def request_tag_context(service: str, action: str, body: bytes, params: Any) -> dict[str, Any]:
        context: dict[str, Any] = plain_context(service, action, body, params)
        if action == "cloudwatch:PutMetricData":
            return context | {"cloudwatch:namespace": json.loads(body).get("Namespace", "")}
        if action == "s3:PutObjectTagging":
            return context | _request_object_tags(body)
        return context

    iam_actions.extract_iam_action = extract_iam_action
    iam_actions.extract_resource_arn = extract_resource_arn
    iam_actions.request_tag_context = request_tag_context


def _request_object_tags(body: bytes) -> dict[str, Any]:
    """s3:RequestObjectTag/<key> and s3:RequestObjectTagKeys of what is to be tagged."""
    from ministack.services import s3

    try:
        tags: dict[str, str] = s3._parse_tags_xml(body)
    except (ValueError, SyntaxError):  # S3 refuses it
        return {}
    values = {f"s3:requestobjecttag/{key.lower()}": value for key, value in tags.items()}
    return {**values, "s3:requestobjecttagkeys": [*tags]}


def _of_lambda(path: str, params: Mapping[str, Any]) -> str | None:
    path = path.rstrip("/")
    if path.endswith("/concurrency"):
        return "lambda:GetFunctionConcurrency"
    if path.endswith("/account-settings"):
        return "lambda:GetAccountSettings"
    if path.endswith("/layers") and "find" in params:
        return "lambda:GetLayerVersion"
    return None
