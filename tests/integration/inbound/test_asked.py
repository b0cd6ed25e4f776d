"""What is asked of the directory and the stored mail, what it costs, and what a bad answer does."""

from tests.integration.builders import ALICE, put_mail, put_mailbox, requests_of
from tests.integration.inbound.site import Site


def test_without_stored_mail_no_size_is_asked_for(site: Site) -> None:
    site.configure(MAIL_BUCKET="")
    put_mailbox(site.dynamodb, size_limit_bytes=1)
    seen = requests_of(site.s3)
    assert site.mail(ALICE) == "CONTINUE"
    assert seen == []


def test_a_size_that_cannot_be_had_lets_the_mail_go_on_and_is_noted(site: Site) -> None:
    put_mailbox(site.dynamodb, size_limit_bytes=1)
    assert site.mail(ALICE) == "CONTINUE"
    assert site.printed.counts["StoredMailUnavailable"] == 1


def test_a_bad_directory_item_lets_the_mail_go_on_and_is_noted(site: Site) -> None:
    put_mailbox(site.dynamodb, status="sleeping")
    put_mail(site.s3, "msg1")
    assert site.mail(ALICE) == "CONTINUE"
    assert site.printed.line("MailboxItemInvalid")["mailbox"] == ALICE
    assert site.printed.counts["MailboxItemInvalid"] == 1


def test_the_table_may_be_the_users_own(site: Site) -> None:
    site.configure(MAILBOX_ATTRIBUTES="quota_bytes=space,used_bytes=taken")
    put_mailbox(site.dynamodb, space=10, taken=10)
    site.mail(ALICE)
    assert site.printed.line("mail handled")["recipients"][0]["reason"] == "over-quota"
