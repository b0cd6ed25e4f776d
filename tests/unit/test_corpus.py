"""Whole mails, as they look in real life: what a machine sent is never answered, a person is."""

import re
from functools import cache
from pathlib import Path

import msgspec
import pytest

from bouncer.guards import NOT_CONFIGURABLE, GuardName
from bouncer.message import InboundMessage
from bouncer.plan import Plan
from bouncer.policy.decide import Outcome
from bouncer_console.explain.desk import Desk
from bouncer_console.explain.mails import read_mails
from tests.unit.builders import CORPUS, IDENTITY, NOBODY, SENDER, SHIPPED_POLICY

AUTOMATIC = {path.stem: path for path in sorted((CORPUS / "automatic").glob("*.eml"))}
PERSONAL = {path.stem: path for path in sorted((CORPUS / "personal").glob("*.eml"))}


class Stopped(msgspec.Struct, frozen=True):
    """What stops a mail."""

    by: GuardName | str
    """The guard, or the rule of the policy that drops it."""
    otherwise: GuardName | None = None
    """For a null sender: what stops the mail if the null sender were lost on its way."""


NULL = GuardName.NULL_SENDER
EXPECTED = {
    "dsn-with-ordinary-sender-from-mailer-daemon": Stopped(GuardName.REPORT),
    "dsn-with-ordinary-sender-from-nobody": Stopped(GuardName.REPORT),
    "dsn-with-ordinary-sender-from-postmaster": Stopped(GuardName.REPORT),
    "dsn-with-a-second-return-path": Stopped(GuardName.REPORT),
    "response-suppressed-with-semicolons": Stopped(GuardName.RESPONSE_SUPPRESSED),
    "forged-sender-signed-by-a-colleague-of-it": Stopped(GuardName.UNPROVEN_SENDER),
    "auto-notified-by-sieve": Stopped(GuardName.AUTO_SUBMITTED),
    "auto-replied-below-a-line-that-is-no-field": Stopped(GuardName.AUTO_SUBMITTED),
    "auto-reply-challenge-response": Stopped(GuardName.AUTO_SUBMITTED),
    "auto-reply-of-a-webform": Stopped(GuardName.AUTO_SUBMITTED),
    "bounce-qmail": Stopped(NULL),
    "bounce-qmail-double": Stopped(GuardName.UNDELIVERABLE_SENDER),
    "bounce-to-our-own-bounce-sender": Stopped(GuardName.OWN_ADDRESS),
    "calendar-notification": Stopped(GuardName.AUTO_SUBMITTED),
    "calendar-room-accepted": Stopped(NULL, GuardName.RESPONSE_SUPPRESSED),
    "cron-job": Stopped(GuardName.AUTO_SUBMITTED),
    "cron-job-of-a-host-without-a-name": Stopped(GuardName.UNDELIVERABLE_SENDER),
    "device-with-an-address-literal": Stopped(GuardName.UNDELIVERABLE_SENDER),
    "dmarc-aggregate-report": Stopped(GuardName.ROLE_SENDER),
    "dmarc-aggregate-report-auto-submitted": Stopped(GuardName.AUTO_SUBMITTED),
    "dmarc-failure-report": Stopped(GuardName.REPORT),
    "do-not-reply-fax-gateway": Stopped(GuardName.ROLE_SENDER),
    "dsn-amazon-ses": Stopped(NULL, GuardName.REPORT),
    "dsn-bare-delivery-status": Stopped(GuardName.REPORT),
    "dsn-courier": Stopped(NULL, GuardName.REPORT),
    "dsn-exchange-online": Stopped(NULL, GuardName.AUTO_SUBMITTED),
    "dsn-exim": Stopped(NULL, GuardName.AUTO_SUBMITTED),
    "dsn-exim-old-plain-text": Stopped(NULL, GuardName.REPORT),
    "dsn-forwarded-with-rewritten-sender": Stopped(GuardName.REPORT),
    "dsn-gmail": Stopped(NULL, GuardName.AUTO_SUBMITTED),
    "dsn-notes": Stopped(NULL, GuardName.REPORT),
    "dsn-of-a-hosted-appliance": Stopped(NULL, GuardName.AUTO_SUBMITTED),
    "dsn-of-mailer-daemon-with-address": Stopped(GuardName.REPORT),
    "dsn-postfix": Stopped(NULL, GuardName.AUTO_SUBMITTED),
    "dsn-postfix-delayed": Stopped(NULL, GuardName.AUTO_SUBMITTED),
    "dsn-postfix-success": Stopped(NULL, GuardName.AUTO_SUBMITTED),
    "dsn-sendmail": Stopped(NULL, GuardName.AUTO_SUBMITTED),
    "dsn-with-failed-recipients-only": Stopped(GuardName.REPORT),
    "feedback-report-arf": Stopped(GuardName.REPORT),
    "forged-author-dmarc-fails": Stopped(GuardName.DMARC_FAILED),
    "forged-colleague": Stopped(GuardName.OWN_DOMAIN),
    "forged-envelope-signed-by-another-domain": Stopped(GuardName.UNPROVEN_SENDER),
    "forged-own-address": Stopped(GuardName.OWN_ADDRESS),
    "forged-sender-signed-by-a-stranger": Stopped(GuardName.UNPROVEN_SENDER),
    "forged-sender-checks-failed-to-run": Stopped(GuardName.UNPROVEN_SENDER),
    "forged-sender-spf-fails": Stopped(GuardName.SPF_FAILED),
    "forged-sender-without-spf": Stopped(GuardName.UNPROVEN_SENDER),
    "list-ezmlm": Stopped(GuardName.LIST_MAIL),
    "list-google-groups": Stopped(GuardName.LIST_MAIL),
    "list-id-only": Stopped(GuardName.LIST_MAIL),
    "list-listserv": Stopped(GuardName.ROLE_SENDER),
    "list-mailman": Stopped(GuardName.ROLE_SENDER),
    "list-majordomo": Stopped(GuardName.ROLE_SENDER),
    "list-request-answer": Stopped(GuardName.ROLE_SENDER),
    "list-sympa": Stopped(GuardName.ROLE_SENDER),
    "list-verp-bounces": Stopped(GuardName.ROLE_SENDER),
    "mail-loop": Stopped(GuardName.MAIL_LOOP),
    "monitoring-alert": Stopped(GuardName.AUTO_SUBMITTED),
    "newsletter-list-help": Stopped(GuardName.LIST_MAIL),
    "newsletter-precedence-bulk": Stopped(GuardName.LIST_MAIL),
    "no-reply-order-confirmation": Stopped(GuardName.ROLE_SENDER),
    "noreply-account-notice": Stopped(GuardName.ROLE_SENDER),
    "out-of-office-suppressing-ndr": Stopped(GuardName.RESPONSE_SUPPRESSED),
    "own-bounce-come-back": Stopped(GuardName.MAIL_LOOP),
    "postmaster-notice": Stopped(GuardName.REPORT),
    "precedence-junk": Stopped(GuardName.LIST_MAIL),
    "precedence-list-in-capitals": Stopped(GuardName.LIST_MAIL),
    "read-receipt-null-sender": Stopped(NULL, GuardName.REPORT),
    "read-receipt-with-sender": Stopped(GuardName.REPORT),
    "spam": Stopped("spam"),
    "ticket-system-auto-generated": Stopped(GuardName.AUTO_SUBMITTED),
    "ticket-system-auto-replied": Stopped(GuardName.AUTO_SUBMITTED),
    "tls-report": Stopped(GuardName.REPORT),
    "vacation-exchange": Stopped(NULL, GuardName.AUTO_SUBMITTED),
    "vacation-gmail": Stopped(NULL, GuardName.AUTO_SUBMITTED),
    "vacation-sieve-cyrus": Stopped(GuardName.AUTO_SUBMITTED),
    "vacation-sieve-pigeonhole": Stopped(NULL, GuardName.AUTO_SUBMITTED),
    "vacation-unix": Stopped(GuardName.LIST_MAIL),
    "virus": Stopped("virus"),
}
HAD_A_NULL_SENDER = sorted(name for name, each in EXPECTED.items() if each.otherwise)


@cache
def desk(policy: Path = SHIPPED_POLICY) -> Desk:
    """The mails' recipient is unknown to it, in a domain that is known."""
    return Desk(
        policy=policy,
        mailboxes=CORPUS / "mailboxes.csv",
        bounce_sender=IDENTITY.bounce_sender,
        region="us-east-1",
    )


@cache
def received(path: Path) -> InboundMessage:
    """The mail as SES delivers it to an unknown recipient; its own Return-Path is the envelope."""
    first = path.read_bytes().split(b"\r\n", 1)[0].decode("ascii")
    name, _, mail_from = first.partition(": ")
    assert name.lower() == "return-path"
    (mail,) = read_mails(path, mail_from, [NOBODY])
    return mail


def planned(path: Path, policy: Path = SHIPPED_POLICY) -> Plan:
    return desk(policy).explain(received(path), path).plan


# --- What machines send ----------------------------------------------------------------------


@pytest.mark.parametrize("name", AUTOMATIC)
def test_an_automatic_mail_is_not_answered(name: str) -> None:
    plan = planned(AUTOMATIC[name])
    (decided,) = plan.decisions
    assert plan.to_send is None
    assert (plan.suppressed or decided.reason) == EXPECTED[name].by
    assert decided.outcome is (Outcome.BOUNCE if plan.suppressed else Outcome.DROP)


@pytest.mark.parametrize("name", HAD_A_NULL_SENDER)
def test_a_bounce_or_receipt_is_known_by_its_headers_even_if_its_null_sender_was_lost(
    name: str,
) -> None:
    path = AUTOMATIC[name]
    mail = received(path)
    headers = tuple(each for each in mail.headers if each.name.lower() != "return-path")
    lost = msgspec.structs.replace(mail, source=SENDER, return_path=SENDER, headers=headers)
    assert desk().explain(lost, path).plan.suppressed is EXPECTED[name].otherwise


# What these stop here is stopped by something else, too; test_guards.py has them alone.
SHADOWED_BY_OTHERS = {
    GuardName.OWN_ADDRESS: "an address of ours is in a domain of ours",
    GuardName.OWN_DOMAIN: "who is not proven is stopped as unproven",
    GuardName.SPAM_FOUND: "the shipped policy drops spam",
    GuardName.HEADERS_TRUNCATED: "no mail here has 50 KB of headers; see below",
}


@pytest.mark.parametrize(
    "guard", sorted(set(GuardName) - NOT_CONFIGURABLE - SHADOWED_BY_OTHERS.keys())
)
def test_without_one_guard_an_automatic_mail_is_answered(guard: GuardName, tmp_path: Path) -> None:
    shipped = SHIPPED_POLICY.read_text("utf-8")
    weaker = tmp_path / "policy.toml"
    weaker.write_text(shipped.replace("version = 1", f'version = 1\nguards.off = ["{guard}"]', 1))
    answered = [name for name, path in AUTOMATIC.items() if planned(path, weaker).to_send]
    assert answered
    assert all(EXPECTED[name].by == guard for name in answered)


def test_every_automatic_mail_has_its_expectation_and_there_are_enough() -> None:
    assert AUTOMATIC.keys() == EXPECTED.keys()
    assert len(AUTOMATIC) >= 30


# --- What people send ------------------------------------------------------------------------


@pytest.mark.parametrize("name", PERSONAL)
def test_a_person_is_told_that_the_mailbox_does_not_exist(name: str) -> None:
    plan = planned(PERSONAL[name])
    assert plan.suppressed is None
    assert plan.to_send is not None
    request = plan.to_send.request()
    assert request["BounceSender"] == IDENTITY.bounce_sender
    assert request["BouncedRecipientInfoList"] == [
        {"Recipient": NOBODY, "BounceType": "DoesNotExist"}
    ]
    assert request["Explanation"] == (
        "There is no mailbox nobody@example.com here. Please check the address and try again."
    )


def test_there_are_enough_personal_mails() -> None:
    assert len(PERSONAL) >= 12


def test_a_person_whose_mail_has_more_headers_than_an_event_holds_is_answered_by_the_stored_copy(
    tmp_path: Path,
) -> None:
    """Without the stored copy nobody can tell, and he is not."""
    long = tmp_path / "long.eml"
    plain = PERSONAL["plain"].read_bytes()
    fillers = b"".join(b"X-Filler-%d: %s\r\n" % (number, b"x" * 900) for number in range(60))
    long.write_bytes(plain.replace(b"MIME-Version: 1.0\r\n", fillers, 1))
    mail = received(long)
    assert mail.headers_truncated
    assert planned(long).suppressed is None
    alone = desk(SHIPPED_POLICY).explain(mail, tmp_path / "event.json").plan
    assert alone.suppressed is GuardName.HEADERS_TRUNCATED


# --- The mails themselves --------------------------------------------------------------------


@pytest.mark.parametrize("path", [*AUTOMATIC.values(), *PERSONAL.values()], ids=lambda p: p.stem)
def test_a_mail_of_the_corpus_has_crlf_line_ends_and_names_nobody_who_exists(path: Path) -> None:
    data = path.read_bytes()
    assert b"\n" not in data.replace(b"\r\n", b"")
    domains = {each.decode().lower() for each in re.findall(rb"@([\w-]+(?:\.[\w-]+)+)", data)}
    # RFC 2606 reserves these for examples.
    assert {each for each in domains if not each.endswith((".example", "example.com"))} == set()
