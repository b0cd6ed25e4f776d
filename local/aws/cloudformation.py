"""What ministack's CloudFormation does otherwise than AWS's, laid over it."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import botocore.session
from botocore.serialize import create_serializer
from ministack.services import s3 as s3_service
from ministack.services.cloudformation import provisioners, stacks

_MODEL = botocore.session.get_session().get_service_model("s3")
_SERIALIZER = create_serializer("rest-xml")


def install() -> None:
    """Lay it all over ministack, once, before the server starts."""
    _draws_names()
    _takes_lifecycle_rules()


def _draws_names() -> None:
    """A resource without a name of its own gets one that no earlier stack's had.

    ministack makes the name of stack and logical id alone, so a stack that is made again would
    write over the tables that the one before it left. It does draw names for buckets, and for
    what an update replaces: the seed of those is given to every resource. It stays with the
    resource, so updates keep the name.
    """

    def provision(*args: Any) -> tuple[Any, str]:
        token = provisioners._NAME_SEED.set(uuid4().hex)
        try:
            return provisioners._provision_resource(*args), provisioners._NAME_SEED.get()
        finally:
            provisioners._NAME_SEED.reset(token)

    stacks._provision_keeping_seed = provision


def _takes_lifecycle_rules() -> None:
    """A bucket's LifecycleConfiguration, which ministack passes over."""
    known = provisioners._S3_BUCKET_CONFIGURATIONS
    provisioners._S3_BUCKET_CONFIGURATIONS = (
        *known,
        (
            "LifecycleConfiguration",
            _lifecycle_xml,
            s3_service._put_bucket_lifecycle,
            s3_service._delete_bucket_lifecycle,
        ),
    )


def _lifecycle_xml(properties: Mapping[str, Any]) -> bytes:
    """A template's LifecycleConfiguration as PutBucketLifecycleConfiguration's body.

    Raises:
        ValueError: a rule has what is not known here.
    """
    rules = [_lifecycle_rule(rule) for rule in properties["Rules"]]
    request = _SERIALIZER.serialize_to_request(
        {"Bucket": "any", "LifecycleConfiguration": {"Rules": rules}},
        _MODEL.operation_model("PutBucketLifecycleConfiguration"),
    )
    body: bytes = request["body"]
    return body


def _lifecycle_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    unknown = rule.keys() - {"Id", "Status", "Prefix", "TagFilters", "ExpirationInDays"}
    if unknown:
        raise ValueError(f"a lifecycle rule's {', '.join(sorted(unknown))} is not known here")
    if "ExpirationInDays" not in rule:
        raise ValueError("a lifecycle rule without ExpirationInDays is not known here")
    return {
        "ID": rule.get("Id", ""),
        "Status": rule["Status"],
        "Filter": {"And": {"Prefix": rule.get("Prefix", ""), "Tags": rule.get("TagFilters", [])}},
        "Expiration": {"Days": int(rule["ExpirationInDays"])},
    }
