"""How a reverse-path is proven: by what, for whom, and what is no proof."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bouncer.headers import Header
from bouncer.message import Verdicts
from bouncer.proof import SAYS, Doubt, Proof, base_address, prove
from tests.unit.builders import SENDER, mail

SIGNED = "DKIM-Signature: v=1; d=sender.example; b=x"


def asked(
    *headers: str,
    spf: str = "GRAY",
    dkim: str = "GRAY",
    dmarc: str = "GRAY",
    policy: str = "",
    source: str = SENDER,
    cut: bool = False,
) -> Proof | Doubt:
    return prove(
        mail(
            *headers,
            source=source,
            verdicts=Verdicts(spf=spf, dkim=dkim, dmarc=dmarc),
            dmarc_policy=policy,
            headers_truncated=cut,
        )
    )


FROM = f"From: Pat <{SENDER}>"
OTHER = "From: other@sender.example"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (asked(spf="PASS"), Proof.SPF),
        (asked(OTHER, spf="PASS", dmarc="PASS"), Proof.SPF),
        (asked(spf="PASS", cut=True), Proof.SPF),
        (asked(spf="PASS", dmarc="FAIL", policy="none"), Proof.SPF_DESPITE_DMARC_NONE),
        (asked(spf="PASS", dmarc="FAIL", policy="None"), Proof.SPF_DESPITE_DMARC_NONE),
        (asked(spf="PASS", dmarc="FAIL", policy="quarantine"), Doubt.DMARC_FAILED),
        (asked(spf="PASS", dmarc="FAIL", policy="reject"), Doubt.DMARC_FAILED),
        (asked(spf="PASS", dmarc="FAIL"), Doubt.DMARC_FAILED),
        (asked(FROM, spf="GRAY", dmarc="FAIL", policy="none"), Doubt.NOTHING_PASSED),
        (asked(FROM, spf="FAIL", dmarc="PASS"), Proof.DMARC_ADDRESS),
        (asked(FROM, dmarc="PASS"), Proof.DMARC_ADDRESS),
        (asked(FROM, SIGNED, spf="FAIL", dkim="PASS"), Proof.DKIM_ADDRESS),
        (asked(OTHER, dmarc="PASS"), Doubt.OTHER_AUTHOR),
        (asked(OTHER, SIGNED, dkim="PASS"), Doubt.OTHER_AUTHOR),
        (asked(FROM, OTHER, dmarc="PASS"), Doubt.OTHER_AUTHOR),
        (asked(f"From: {SENDER}, other@sender.example", dmarc="PASS"), Doubt.OTHER_AUTHOR),
        (asked(f"From: {SENDER} (other@sender.example)", dmarc="PASS"), Doubt.OTHER_AUTHOR),
        (asked(dmarc="PASS"), Doubt.NO_AUTHOR),
        (asked("From: Pat", dmarc="PASS"), Doubt.NO_AUTHOR),
        (asked(FROM, dkim="PASS"), Doubt.UNKNOWN_SIGNER),
        (asked(FROM, SIGNED, "DKIM-Signature: d=evil.example", dkim="PASS"), Doubt.UNKNOWN_SIGNER),
        (asked(FROM, SIGNED, dkim="FAIL"), Doubt.NOTHING_PASSED),
        (asked(FROM, dmarc="PASS", cut=True), Doubt.HEADERS_CUT),
        (asked(FROM, SIGNED, dkim="PASS", cut=True), Doubt.HEADERS_CUT),
        (asked(OTHER, dmarc="PASS", cut=True), Doubt.OTHER_AUTHOR),
        (asked(FROM, SIGNED), Doubt.NOTHING_PASSED),
    ],
)
def test_a_reverse_path_is_proven_so_or_not(found: Proof | Doubt, expected: Proof | Doubt) -> None:
    assert found is expected
    assert SAYS[found]


def test_each_proof_and_each_doubt_is_said_in_words() -> None:
    assert SAYS.keys() == {*Proof, *Doubt}


@pytest.mark.parametrize(
    "path",
    [
        "pat+tag@sender.example",
        "PAT@Sender.Example",
        "pat+caf_=nobody=example.com@sender.example",
        "prvs=1234abcdef=pat@sender.example",
        "prvs=pat/1234abcdef@sender.example",
        "btv1==0123456789ab==pat@sender.example",
        "msprvs1=20771abcdefgh=pat@sender.example",
        "SRS0=HHH=TT=sender.example=pat@forwarder.example",
        "srs0+HHH=TT=sender.example=pat@forwarder.example",
        "SRS1=HHH=first.example==HHH=TT=sender.example=pat@second.example",
        "bounces+SRS=HHH=TT=sender.example=pat@forwarder.example",
    ],
)
def test_wrapping_does_not_make_another_address_of_it(path: str) -> None:
    assert base_address(path) == SENDER
    assert asked(f"From: {SENDER}", dmarc="PASS", source=path) is Proof.DMARC_ADDRESS


@pytest.mark.parametrize(
    "path", ["victim@sender.example", "prvs=1=victim@sender.example", "pat@mail.sender.example"]
)
def test_another_user_of_the_domain_is_another_address(path: str) -> None:
    assert asked(f"From: {SENDER}", SIGNED, dkim="PASS", dmarc="PASS", source=path) is (
        Doubt.OTHER_AUTHOR
    )


def test_the_stored_mail_can_prove_what_a_cut_event_cannot() -> None:
    cut = mail(FROM, verdicts=Verdicts(dmarc="PASS"), headers_truncated=True)
    stored = (Header("From", f"Pat <{SENDER}>"),)
    whole = msgspec.structs.replace(cut, stored=stored)
    assert (prove(cut), prove(whole)) == (Doubt.HEADERS_CUT, Proof.DMARC_ADDRESS)
    both = msgspec.structs.replace(cut, stored=(*stored, Header("From", "other@sender.example")))
    assert prove(both) is Doubt.OTHER_AUTHOR


statuses = st.sampled_from(["PASS", "FAIL", "GRAY", "PROCESSING_FAILED", "DISABLED", "", "pass"])


@given(statuses, statuses, statuses, st.sampled_from(["", "none", "quarantine", "reject"]))
def test_without_spf_nobody_but_the_author_is_proven(
    spf: str, dkim: str, dmarc: str, policy: str
) -> None:
    verdicts: dict[str, Any] = {"spf": spf, "dkim": dkim, "dmarc": dmarc, "policy": policy}
    assert isinstance(asked(OTHER, SIGNED, **verdicts), Doubt) or spf == "PASS"
    assert isinstance(asked(FROM, SIGNED, cut=True, **verdicts), Doubt) or spf == "PASS"
    if "PASS" not in (spf, dkim, dmarc) or (dmarc == "FAIL" and policy != "none"):
        assert isinstance(asked(FROM, SIGNED, **verdicts), Doubt)
