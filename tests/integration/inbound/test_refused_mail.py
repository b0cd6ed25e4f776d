"""Refused mail may be marked, so that it expires early."""

from typing import Any

import pytest

from tests.fakes.bounces import NOBODY
from tests.integration.builders import BUCKET, PREFIX, Answer, fail, put_mail
from tests.integration.inbound.site import Site


def tags(site: Site, message_id: str = "msg1") -> list[Any]:
    found: Any = site.s3.get_object_tagging(Bucket=BUCKET, Key=PREFIX + message_id)["TagSet"]
    return list(found)


@pytest.mark.parametrize(
    ("scope", "recipients", "verdicts", "tagged"),
    [
        ("rule-set", [NOBODY], {}, True),
        ("rule-set", [NOBODY], {"virus": "FAIL"}, True),
        ("rule-set", [NOBODY, "postmaster@example.com"], {}, False),
        ("rule", [NOBODY], {}, False),
    ],
)
def test_only_a_mail_that_nobody_gets_is_marked_as_refused(
    site: Site, scope: str, recipients: list[str], verdicts: dict[str, str], tagged: bool
) -> None:
    site.configure(MARK_REFUSED_MAIL="true", REFUSED_MAIL_STOPS=scope)
    put_mail(site.s3, "msg1")
    site.mail(*recipients, **verdicts)
    assert tags(site) == ([{"Key": "ses-bouncer", "Value": "refused"}] if tagged else [])


def test_refused_mail_stays_unless_it_is_to_expire(site: Site) -> None:
    put_mail(site.s3, "msg1")
    site.mail(NOBODY)
    assert tags(site) == []


def test_a_mail_that_could_not_be_marked_is_refused_all_the_same(site: Site) -> None:
    site.configure(MARK_REFUSED_MAIL="true")
    put_mail(site.s3, "msg1")
    fail(site.s3, "PutObjectTagging", Answer(code="AccessDenied", status=403))
    assert site.mail(NOBODY) == "STOP_RULE_SET"
    assert site.printed.counts["RefusedMailNotMarked"] == 1
