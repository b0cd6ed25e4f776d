"""When not to send a bounce: what stops each guard, what does not, and in which order."""

import msgspec
import pytest

from bouncer.guards import (
    DEFAULT_MAX_RECEIVED,
    GUARDS,
    MARKER,
    NOT_CONFIGURABLE,
    Circumstances,
    GuardName,
    OtherReason,
    objections,
)
from bouncer.message import InboundMessage, Verdicts
from tests.unit.builders import IDENTITY, PROVEN, SENDER, mail

NOTHING_ELSE = frozenset(GuardName)


def stopped_by(
    message: InboundMessage,
    *,
    off: frozenset[GuardName] = frozenset(),
    bounce_senders: frozenset[str] = frozenset({IDENTITY.bounce_sender}),
    own_domains: frozenset[str] = frozenset(),
    max_received: int = DEFAULT_MAX_RECEIVED,
) -> GuardName | OtherReason | None:
    found = objections(
        Circumstances(
            mail=message,
            bounce_senders=bounce_senders,
            own_domains=own_domains,
            max_received=max_received,
        ),
        off,
    )
    return found[0] if found else None


def verdicts(**given: str) -> Verdicts:
    return msgspec.structs.replace(PROVEN, **given)


def signed_by(*domains: str, sender: str = SENDER, **given: str) -> InboundMessage:
    """A mail for which DKIM alone speaks, with a signature of each domain."""
    signatures = [f"DKIM-Signature: v=1; a=rsa-sha256; d={each}; s=key; b=x" for each in domains]
    return mail(
        f"From: {sender}", *signatures, source=sender, verdicts=unproven(**{"dkim": "PASS"} | given)
    )


def unproven(**given: str) -> Verdicts:
    """SPF says nothing, and so does the rest unless given."""
    return verdicts(**({"spf": "GRAY", "dkim": "GRAY", "dmarc": "GRAY"} | given))


def received(count: int) -> list[str]:
    return [f"Received: from a.example by b.example; hop {number}" for number in range(count)]


def test_an_ordinary_mail_of_a_proven_sender_is_stopped_by_nothing() -> None:
    assert stopped_by(mail("From: pat@sender.example", "To: nobody@example.com")) is None


# --- What stops ------------------------------------------------------------------------------

STOPPED: list[tuple[GuardName, str, InboundMessage]] = [
    (GuardName.NULL_SENDER, "empty", mail(source="")),
    (GuardName.NULL_SENDER, "brackets", mail(source="<>")),
    (GuardName.NULL_SENDER, "Return-Path", mail("return-PATH: <>")),
    (GuardName.UNDELIVERABLE_SENDER, "address literal", mail(source="pat@[192.0.2.1]")),
    (GuardName.UNDELIVERABLE_SENDER, "no dot", mail(source="root@localhost")),
    (GuardName.UNDELIVERABLE_SENDER, "no domain", mail(source="MAILER-DAEMON")),
    (GuardName.UNDELIVERABLE_SENDER, "non-ASCII", mail(source="p\u00e4t@sender.example")),
    (GuardName.UNDELIVERABLE_SENDER, "injection", mail(source="pat@sender.example\r\nX: y")),
    (GuardName.VIRUS_FOUND, "FAIL", mail(verdicts=verdicts(virus="FAIL"))),
    (GuardName.SPAM_FOUND, "FAIL", mail(verdicts=verdicts(spam="FAIL"))),
    (GuardName.DMARC_FAILED, "FAIL", mail(verdicts=verdicts(dmarc="FAIL"))),
    (GuardName.SPF_FAILED, "FAIL", mail(verdicts=verdicts(spf="FAIL"))),
    (GuardName.OWN_ADDRESS, "bounce sender", mail(source="Mailer-Daemon@Example.com")),
    (GuardName.OWN_ADDRESS, "recipient", mail(source="NOBODY@example.com")),
    (
        GuardName.OWN_ADDRESS,
        "second recipient",
        mail(source="b@example.com", recipients=["a@example.com", "b@example.com"]),
    ),
    (
        GuardName.OWN_DOMAIN,
        "recipient's",
        mail(source="colleague@EXAMPLE.com", verdicts=unproven()),
    ),
    (
        GuardName.OWN_DOMAIN,
        "second recipient's",
        mail(
            source="x@shop.example",
            recipients=["a@example.com", "b@Shop.example"],
            verdicts=unproven(),
        ),
    ),
    (
        GuardName.OWN_DOMAIN,
        "bounce sender's",
        mail(source="x@example.com", recipients=["a@shop.example"], verdicts=unproven()),
    ),
    (GuardName.MAIL_LOOP, "our marker", mail(f"{MARKER}: auto-generated")),
    (GuardName.MAIL_LOOP, "our marker in other case", mail(f"{MARKER.upper()}: x")),
    (GuardName.MAIL_LOOP, "101 hops", mail(*received(101))),
    (GuardName.AUTO_SUBMITTED, "replied", mail("Auto-Submitted: auto-replied")),
    (GuardName.AUTO_SUBMITTED, "generated", mail("auto-submitted: Auto-Generated; type=x")),
    (GuardName.AUTO_SUBMITTED, "notified", mail('Auto-Submitted: auto-notified; owner-email="x"')),
    (GuardName.AUTO_SUBMITTED, "comment", mail("Auto-Submitted: auto-replied (vacation)")),
    (GuardName.AUTO_SUBMITTED, "yes", mail("Auto-Submitted: yes")),
    (
        GuardName.AUTO_SUBMITTED,
        "second occurrence",
        mail("Auto-Submitted: no", "AUTO-SUBMITTED: auto-replied"),
    ),
    (
        GuardName.REPORT,
        "multipart/report",
        mail("Content-Type: multipart/report; report-type=delivery-status; boundary=x"),
    ),
    (GuardName.REPORT, "in capitals", mail("CONTENT-TYPE: Multipart/Report;boundary=x")),
    (GuardName.REPORT, "feedback", mail("Content-Type: multipart/report ; report-type=feedback")),
    (GuardName.REPORT, "bare status", mail("Content-Type: message/delivery-status")),
    (
        GuardName.REPORT,
        "second type",
        mail("Content-Type: text/plain", "content-type: multipart/report"),
    ),
    (GuardName.REPORT, "Exim's header", mail("x-failed-recipients: a@b.example")),
    (GuardName.ROLE_SENDER, "daemon", mail(source="MAILER-DAEMON@sender.example")),
    (GuardName.ROLE_SENDER, "postmaster", mail(source="Postmaster@sender.example")),
    (GuardName.ROLE_SENDER, "noreply", mail(source="noreply@sender.example")),
    (GuardName.ROLE_SENDER, "no-reply", mail(source="No-Reply@sender.example")),
    (GuardName.ROLE_SENDER, "no_reply", mail(source="no_reply@sender.example")),
    *(
        (GuardName.ROLE_SENDER, local, mail(source=f"{local}@sender.example"))
        for local in (
            "no.reply",
            "noreply+order-17",
            "No-Reply+x",
            "do.not.reply",
            "do_not_reply",
            "Mailer-Daemon",
            "mailer.daemon",
            "MAILERDAEMON",
            "post-master",
            '"noreply"',
            "owner-list+x",
            "list-request+x",
        )
    ),
    (GuardName.ROLE_SENDER, "donotreply", mail(source="DoNotReply@sender.example")),
    (GuardName.ROLE_SENDER, "do-not-reply", mail(source="do-not-reply@sender.example")),
    (GuardName.ROLE_SENDER, "owner-", mail(source="owner-list@sender.example")),
    (GuardName.ROLE_SENDER, "-owner", mail(source="list-owner@sender.example")),
    (GuardName.ROLE_SENDER, "-request", mail(source="List-Request@sender.example")),
    (GuardName.ROLE_SENDER, "-bounces", mail(source="list-bounces@sender.example")),
    (
        GuardName.ROLE_SENDER,
        "-bounces with a tag",
        mail(source="list-bounces+nobody=example.com@sender.example"),
    ),
    (GuardName.LIST_MAIL, "List-Id", mail("List-Id: <l.sender.example>")),
    (GuardName.LIST_MAIL, "list-help", mail("list-help: <mailto:u@x.example>")),
    (GuardName.LIST_MAIL, "any List- header", mail("LIST-Something-New: x")),
    (GuardName.LIST_MAIL, "bulk", mail("Precedence: bulk")),
    (GuardName.LIST_MAIL, "junk", mail("precedence: Junk")),
    (GuardName.LIST_MAIL, "list", mail("PRECEDENCE: list (really)")),
    (GuardName.LIST_MAIL, "second", mail("Precedence: first-class", "Precedence: bulk")),
    (GuardName.RESPONSE_SUPPRESSED, "All", mail("X-Auto-Response-Suppress: All")),
    (GuardName.RESPONSE_SUPPRESSED, "NDR", mail("X-Auto-Response-Suppress: DR, NDR, OOF")),
    (GuardName.RESPONSE_SUPPRESSED, "in lower case", mail("x-auto-response-suppress: oof,ndr")),
    (
        GuardName.RESPONSE_SUPPRESSED,
        "second",
        mail("X-Auto-Response-Suppress: OOF", "X-Auto-Response-Suppress: NDR"),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "nothing passes",
        mail("From: pat@sender.example", verdicts=unproven()),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "no verdicts",
        mail("From: pat@sender.example", verdicts=Verdicts()),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "checks disabled",
        mail(
            "From: pat@sender.example",
            verdicts=unproven(spf="DISABLED", dkim="DISABLED", dmarc="DISABLED"),
        ),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "pass in lower case",
        mail("From: pat@sender.example", verdicts=unproven(spf="pass", dkim="Pass")),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "another domain in From",
        mail("From: pat@elsewhere.example", verdicts=unproven(dkim="PASS", dmarc="PASS")),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "a subdomain in From",
        mail("From: pat@mail.sender.example", verdicts=unproven(dmarc="PASS")),
    ),
    (GuardName.UNPROVEN_SENDER, "no From", mail(verdicts=unproven(dkim="PASS"))),
    (GuardName.UNPROVEN_SENDER, "empty From", mail("From: ", verdicts=unproven(dkim="PASS"))),
    (
        GuardName.UNPROVEN_SENDER,
        "two authors",
        mail("From: pat@sender.example, x@evil.example", verdicts=unproven(dkim="PASS")),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "two From headers",
        mail("From: pat@sender.example", "From: x@evil.example", verdicts=unproven(dmarc="PASS")),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "address in the display name",
        mail('From: "pat@sender.example" <x@evil.example>', verdicts=unproven(dkim="PASS")),
    ),
    (GuardName.UNPROVEN_SENDER, "a stranger's signature", signed_by("evil.example")),
    (
        GuardName.UNPROVEN_SENDER,
        "a stranger's signature beside the sender's",
        signed_by("sender.example", "evil.example"),
    ),
    (GuardName.UNPROVEN_SENDER, "signed by a subdomain", signed_by("mail.sender.example")),
    (GuardName.UNPROVEN_SENDER, "signed by a domain that ends alike", signed_by("der.example")),
    (GuardName.UNPROVEN_SENDER, "signed by nobody", signed_by("")),
    (GuardName.UNPROVEN_SENDER, "signature that failed", signed_by("sender.example", dkim="FAIL")),
    (
        GuardName.UNPROVEN_SENDER,
        "signature without a domain",
        mail("From: pat@sender.example", "DKIM-Signature: x", verdicts=unproven(dkim="PASS")),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "the sender's domain in another tag",
        mail(
            "From: pat@sender.example",
            "DKIM-Signature: i=@sender.example; bd=sender.example; d=evil.example",
            verdicts=unproven(dkim="PASS"),
        ),
    ),
    (GuardName.HEADERS_TRUNCATED, "truncated", mail(headers_truncated=True)),
]


@pytest.mark.parametrize(
    ("name", "message"),
    [pytest.param(name, message, id=f"{name}: {case}") for name, case, message in STOPPED],
)
def test_a_guard_stops(name: GuardName, message: InboundMessage) -> None:
    assert stopped_by(message, off=NOTHING_ELSE - {name}) is name


# --- What does not ---------------------------------------------------------------------------

PASSED: list[tuple[GuardName, str, InboundMessage]] = [
    (GuardName.NULL_SENDER, "a sender", mail(f"Return-Path: <{SENDER}>")),
    (GuardName.UNDELIVERABLE_SENDER, "a quoted one", mail(source='"pat x"@sender.example')),
    (GuardName.UNDELIVERABLE_SENDER, "Punycode", mail(source="pat@xn--bcher-kva.example")),
    (GuardName.VIRUS_FOUND, "not scanned", mail(verdicts=verdicts(virus="DISABLED"))),
    (GuardName.VIRUS_FOUND, "GRAY", mail(verdicts=verdicts(virus="GRAY"))),
    (GuardName.SPAM_FOUND, "GRAY", mail(verdicts=verdicts(spam="GRAY"))),
    (GuardName.SPAM_FOUND, "scan failed", mail(verdicts=verdicts(spam="PROCESSING_FAILED"))),
    (GuardName.DMARC_FAILED, "no policy", mail(verdicts=verdicts(dmarc="GRAY"))),
    (GuardName.SPF_FAILED, "softfail", mail(verdicts=verdicts(spf="GRAY"))),
    (GuardName.OWN_ADDRESS, "a colleague", mail(source="bob@example.com")),
    (GuardName.OWN_ADDRESS, "a tag", mail(source="nobody+x@example.com")),
    (GuardName.OWN_DOMAIN, "a subdomain", mail(source="x@sub.example.com")),
    (GuardName.OWN_DOMAIN, "a domain that ends alike", mail(source="x@notexample.com")),
    (GuardName.MAIL_LOOP, "100 hops", mail(*received(100))),
    (GuardName.AUTO_SUBMITTED, "no", mail("Auto-Submitted: no")),
    (GuardName.AUTO_SUBMITTED, "no, in capitals", mail("AUTO-SUBMITTED:  NO ")),
    (GuardName.AUTO_SUBMITTED, "no with parameter", mail("Auto-Submitted: no; x=auto-replied")),
    (GuardName.AUTO_SUBMITTED, "no with comment", mail("Auto-Submitted: no (a person)")),
    (GuardName.AUTO_SUBMITTED, "another header", mail("X-Auto-Submitted-By: cron")),
    (GuardName.REPORT, "mixed", mail("Content-Type: multipart/mixed; boundary=multipart/report")),
    (GuardName.REPORT, "a forwarded mail", mail("Content-Type: message/rfc822")),
    (GuardName.REPORT, "a name that ends alike", mail("Content-Type: multipart/reports")),
    (GuardName.ROLE_SENDER, "owner", mail(source="owner@bakery.example")),
    (GuardName.ROLE_SENDER, "request", mail(source="request@sender.example")),
    (GuardName.ROLE_SENDER, "in the domain", mail(source="pat@mailer-daemon.example")),
    (GuardName.ROLE_SENDER, "bouncer", mail(source="the-bouncer@club.example")),
    (GuardName.ROLE_SENDER, "a name with noreply in it", mail(source="anoreply@sender.example")),
    (GuardName.ROLE_SENDER, "a tag that says so", mail(source="pat+noreply@sender.example")),
    (GuardName.ROLE_SENDER, "a tag that ends so", mail(source="pat+a-request@sender.example")),
    (
        GuardName.LIST_MAIL,
        "a way out that one-to-one mail has to carry as well",
        mail("List-Unsubscribe: <mailto:u@x.example>", "List-Unsubscribe-Post: x"),
    ),
    (GuardName.LIST_MAIL, "first-class", mail("Precedence: first-class")),
    (GuardName.LIST_MAIL, "a header with list in it", mail("X-List-Id: x", "Listing: y")),
    (GuardName.LIST_MAIL, "a word that begins alike", mail("Precedence: listed")),
    (GuardName.RESPONSE_SUPPRESSED, "others", mail("X-Auto-Response-Suppress: DR, RN, NRN, OOF")),
    (GuardName.RESPONSE_SUPPRESSED, "None", mail("X-Auto-Response-Suppress: None")),
    (GuardName.RESPONSE_SUPPRESSED, "part of a word", mail("X-Auto-Response-Suppress: NDRs, Alls")),
    (GuardName.UNPROVEN_SENDER, "SPF", mail("From: x@y.example", verdicts=unproven(spf="PASS"))),
    (
        GuardName.UNPROVEN_SENDER,
        "DKIM with the same address but for case and tag",
        signed_by("sender.example", sender="PAT+tag@SENDER.example"),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "DMARC with the same address",
        mail("FROM: pat@sender.example", verdicts=unproven(dmarc="PASS")),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "DMARC with the same address beside a stranger's signature",
        signed_by("evil.example", dmarc="PASS"),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "SPF beside a stranger's signature",
        signed_by("evil.example", spf="PASS"),
    ),
    (GuardName.UNPROVEN_SENDER, "signed by its own domain", signed_by("Sender.Example")),
    (
        GuardName.UNPROVEN_SENDER,
        "signed by the domain above its own",
        signed_by("sender.example", sender="pat@office.sender.example"),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "signed twice by its own",
        signed_by("sender.example", "office.sender.example", sender="pat@office.sender.example"),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "signed by its own in U-labels",
        signed_by("b\u00fccher.example", sender="pat@xn--bcher-kva.example"),
    ),
    (
        GuardName.UNPROVEN_SENDER,
        "a signature over several lines",
        mail(
            "From: pat@sender.example",
            "dkim-signature: v=1;\r\n\td = sender.example ;\r\n\ts=key",
            verdicts=unproven(dkim="PASS"),
        ),
    ),
    (GuardName.HEADERS_TRUNCATED, "whole", mail(headers_truncated=False)),
]


@pytest.mark.parametrize(
    ("name", "message"),
    [pytest.param(name, message, id=f"{name}: {case}") for name, case, message in PASSED],
)
def test_a_guard_does_not_stop(name: GuardName, message: InboundMessage) -> None:
    assert stopped_by(message, off=NOTHING_ELSE - {name}) is None


@pytest.mark.parametrize("name", GuardName)
def test_each_guard_has_a_case_that_stops_and_one_that_does_not(name: GuardName) -> None:
    assert any(name is case[0] for case in STOPPED)
    assert any(name is case[0] for case in PASSED)


def test_a_domain_of_ours_that_only_the_policy_knows_is_ours() -> None:
    message = mail(source="x@Subsidiary.example", verdicts=unproven())
    assert stopped_by(message) is GuardName.UNPROVEN_SENDER
    ours = frozenset({"subsidiary.example"})
    assert stopped_by(message, own_domains=ours) is GuardName.OWN_DOMAIN


def test_the_bounce_sender_of_the_mails_own_domain_is_ours() -> None:
    message = mail(source="daemon@bounces.example")
    ours = frozenset({"Daemon@Bounces.example"})
    assert stopped_by(message, bounce_senders=ours) is GuardName.OWN_ADDRESS


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("daemon@A.example", GuardName.OWN_ADDRESS),
        ("daemon@b.example", GuardName.OWN_ADDRESS),
        ("pat@a.example", GuardName.OWN_DOMAIN),
        ("pat@b.example", GuardName.OWN_DOMAIN),
        ("pat@c.example", GuardName.UNPROVEN_SENDER),
    ],
)
def test_every_bounce_sender_of_the_deployment_is_ours(source: str, name: GuardName | None) -> None:
    ours = frozenset({"daemon@a.example", "daemon@b.example"})
    message = mail(source=source, verdicts=unproven())
    assert stopped_by(message, bounce_senders=ours) is name


@pytest.mark.parametrize(("hops", "name"), [(30, None), (31, GuardName.MAIL_LOOP)])
def test_the_number_of_hops_that_makes_a_loop_can_be_set(hops: int, name: GuardName | None) -> None:
    assert stopped_by(mail(*received(hops)), max_received=30) is name


def test_rfc_5321_allows_a_hundred_hops() -> None:
    assert DEFAULT_MAX_RECEIVED >= 100


# --- Order and switches ----------------------------------------------------------------------

ORDER = (
    GuardName.NULL_SENDER,
    GuardName.UNDELIVERABLE_SENDER,
    GuardName.VIRUS_FOUND,
    GuardName.SPAM_FOUND,
    GuardName.DMARC_FAILED,
    GuardName.SPF_FAILED,
    GuardName.OWN_ADDRESS,
    GuardName.OWN_DOMAIN,
    GuardName.MAIL_LOOP,
    GuardName.AUTO_SUBMITTED,
    GuardName.REPORT,
    GuardName.ROLE_SENDER,
    GuardName.LIST_MAIL,
    GuardName.RESPONSE_SUPPRESSED,
    GuardName.UNPROVEN_SENDER,
    GuardName.HEADERS_TRUNCATED,
)


def test_every_name_is_one_guard_and_says_its_source() -> None:
    assert tuple(guard.name for guard in GUARDS) == ORDER
    assert sorted(ORDER) == sorted(GuardName)
    assert all(guard.source for guard in GUARDS)


def test_the_first_guard_that_objects_gives_the_reason() -> None:
    # An address literal without a dot is undeliverable, and this one is ours, too.
    guilty = mail(
        f"{MARKER}: x",
        "Auto-Submitted: auto-replied",
        "Content-Type: multipart/report",
        "List-Id: x",
        "X-Auto-Response-Suppress: All",
        source="owner-list@example",
        recipients=["owner-list@example"],
        verdicts=Verdicts(spam="FAIL", virus="PASS", spf="FAIL", dkim="FAIL", dmarc="FAIL"),
        headers_truncated=True,
    )
    reasons: list[GuardName] = []
    while (reason := stopped_by(guilty, off=frozenset(reasons))) is not None:
        reasons.append(GuardName(reason))
    # SPF's FAIL has a guard of its own.
    others = NOT_CONFIGURABLE | {GuardName.UNPROVEN_SENDER}
    assert tuple(reasons) == tuple(name for name in ORDER if name not in others)


@pytest.mark.parametrize("name", sorted(set(GuardName) - NOT_CONFIGURABLE))
def test_each_configurable_guard_can_be_switched_off_alone(name: GuardName) -> None:
    message = next(message for guard, _, message in STOPPED if guard is name)
    assert stopped_by(message, off=NOTHING_ELSE) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (GuardName.NULL_SENDER, mail(source="<>")),
        (GuardName.VIRUS_FOUND, mail(verdicts=verdicts(virus="FAIL"))),
    ],
)
def test_a_null_sender_and_a_virus_are_never_answered_whatever_is_off(
    name: GuardName, message: InboundMessage
) -> None:
    assert name in NOT_CONFIGURABLE
    assert stopped_by(message, off=NOTHING_ELSE) is name


def test_every_guard_that_objects_is_told_and_the_first_is_the_reason() -> None:
    spam = verdicts(spam="FAIL", spf="FAIL", dmarc="FAIL")
    message = mail("List-Id: <a.example>", verdicts=spam)
    found = objections(Circumstances(mail=message, bounce_senders=frozenset()), frozenset())
    assert found[0] is GuardName.SPAM_FOUND
    assert {GuardName.SPAM_FOUND, GuardName.DMARC_FAILED, GuardName.LIST_MAIL} <= {*found}
