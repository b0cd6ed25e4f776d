"""What the doctor reads of AWS."""

from typing import Any

import boto3
import pytest

from bouncer_console.doctor.dns import Resolver
from bouncer_console.doctor.reader import Reader

REGIONS = ["us-east-1", "eu-west-1", "eu-central-1"]


@pytest.mark.parametrize("region", REGIONS)
def test_a_bucket_of_another_region_is_nothing_that_was_left_over(region: str) -> None:
    """A stack of the same name may be using it there."""
    for each in REGIONS:
        bucket: Any = {"Bucket": f"ses-bouncer-mailbucket-{each}"}
        if each != "us-east-1":
            bucket["CreateBucketConfiguration"] = {"LocationConstraint": each}
        boto3.client("s3", region_name=each).create_bucket(**bucket)
    reader = Reader(stack="ses-bouncer", region=region, dns=Resolver(), command_version="1")
    assert reader._kept(None) == (f"ses-bouncer-mailbucket-{region}",)
