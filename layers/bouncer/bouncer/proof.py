"""How it is proven that a mail's reverse-path is its sender's own, or why it is not.

Anyone can write any reverse-path, so a bounce goes only where one of these says whose it is:

- SPF authenticates the domain of MAIL FROM itself (RFC 7208 §2.4). That holds although DMARC
  fails, where the author's domain asks for nothing (policy none): mail by way of a service or
  an SRS forwarder looks like this.
- DMARC and DKIM speak for the From header. They prove the reverse-path where From has its very
  address: the domain alone would let a replayed signature name another user of it. Plain
  forwarding, which SPF fails, looks like this.
"""

import re
from enum import StrEnum

from bouncer.address import domain_of, normalise, normalise_domain, split
from bouncer.headers import mentioned_addresses
from bouncer.message import InboundMessage


class Proof(StrEnum):
    """How a reverse-path is proven."""

    SPF = "spf"
    SPF_DESPITE_DMARC_NONE = "spf-despite-dmarc-none"
    DMARC_ADDRESS = "dmarc-address"
    DKIM_ADDRESS = "dkim-address"


class Doubt(StrEnum):
    """Why a reverse-path is not proven."""

    DMARC_FAILED = "dmarc-failed"
    NOTHING_PASSED = "nothing-passed"
    NO_AUTHOR = "no-author"
    OTHER_AUTHOR = "other-author"
    UNKNOWN_SIGNER = "unknown-signer"
    HEADERS_CUT = "headers-cut"


SAYS: dict[Proof | Doubt, str] = {
    Proof.SPF: "SPF passes for its domain",
    Proof.SPF_DESPITE_DMARC_NONE: (
        "SPF passes for its domain; DMARC fails for the author's, which asks for nothing"
    ),
    Proof.DMARC_ADDRESS: "DMARC passes, and From has this very address",
    Proof.DKIM_ADDRESS: "DKIM passes, of its own domain only, and From has this very address",
    Doubt.DMARC_FAILED: "DMARC fails, and the author's domain asks for quarantine or reject",
    Doubt.NOTHING_PASSED: "SPF, DKIM and DMARC: none of them passes",
    Doubt.NO_AUTHOR: "SPF does not pass, and there is no address in From to compare it with",
    Doubt.OTHER_AUTHOR: "SPF does not pass, and From names another address",
    Doubt.UNKNOWN_SIGNER: "DKIM passes, and nothing says that the signature is its domain's",
    Doubt.HEADERS_CUT: "SPF does not pass, and the headers that could prove it are cut",
}
"""Each in words, said of the reverse-path."""


def prove(mail: InboundMessage) -> Proof | Doubt:
    """How the reverse-path of a mail is proven, or why not. A null one never is."""
    verdicts = mail.verdicts
    if verdicts.dmarc == "FAIL":
        asks_for_nothing = mail.dmarc_policy.lower() == "none"
        if asks_for_nothing and verdicts.spf == "PASS":
            return Proof.SPF_DESPITE_DMARC_NONE
        return Doubt.NOTHING_PASSED if asks_for_nothing else Doubt.DMARC_FAILED
    if verdicts.spf == "PASS":
        return Proof.SPF
    if "PASS" not in (verdicts.dmarc, verdicts.dkim):
        return Doubt.NOTHING_PASSED
    return _proven_by_author(mail)


def _proven_by_author(mail: InboundMessage) -> Proof | Doubt:
    path = base_address(mail.reverse_path or "")
    authors = {
        base_address(address)
        for value in mail.header("From")
        for address in mentioned_addresses(value)
    }
    # What is visible may settle it for the worse although the rest is cut, never for the better.
    if authors - {path}:
        return Doubt.OTHER_AUTHOR
    if not mail.headers_whole:
        return Doubt.HEADERS_CUT
    if not authors:
        return Doubt.NO_AUTHOR
    if mail.verdicts.dmarc == "PASS":
        return Proof.DMARC_ADDRESS
    # DKIM's PASS does not say whose signature it was: no stranger's may be among them.
    signers = [_signer(each) for each in mail.header("DKIM-Signature")]
    own = bool(signers) and all(_is_within(domain_of(path), each) for each in signers)
    return Proof.DKIM_ADDRESS if own else Doubt.UNKNOWN_SIGNER


def is_proven(found: Proof | Doubt) -> bool:
    return isinstance(found, Proof)


# BATV (draft-levine-smtp-batv, and Barracuda's and Microsoft's own): a mark around the local part.
_BATV = re.compile(r"(?:prvs=[^=]+|msprvs1=[^=]+|btv1==[^=]+=)=(?P<local>.+)")
_BATV_OLD = re.compile(r"prvs=(?P<local>[^=/]+)/[^/]+")
# SRS (shevek's draft): hash, time, the original domain and local part; SRS1 wraps an SRS0.
_SRS = re.compile(
    r"(?:srs0[=+-]|srs1[=+-][^=]*=[^=]*==|[^=]*\+srs=)"
    r"[^=]+=[^=]+=(?P<domain>[^=]+)=(?P<local>.+)"
)


def base_address(address: str) -> str:
    """An address in its normal form, without tag, BATV or SRS wrapping."""
    local, domain = split(normalise(address))
    local, wrapped = unwrapped(local)
    return f"{_untagged(local)}@{normalise_domain(wrapped or domain)}"


def own_base_address(address: str) -> str:
    """The same in the domain that it stands in, whatever other domain SRS has written into it."""
    local, domain = split(normalise(address))
    local, _ = unwrapped(local.partition("+srs=")[0])  # a mailbox's own, before what it forwards
    return f"{_untagged(local)}@{domain}"


def unwrapped(local: str) -> tuple[str, str]:
    """What BATV and SRS have wrapped: a local part, and a domain where there is one in it."""
    domain = ""
    for wrapping in (_BATV, _BATV_OLD, _SRS):
        found = wrapping.fullmatch(local)
        if found is not None:
            local = found["local"]
            domain = found.groupdict().get("domain") or domain
    return local, domain


def _untagged(local: str) -> str:
    return local.partition("+")[0] or local


def _signer(signature: str) -> str:
    """The `d=` of a DKIM-Signature (RFC 6376 §3.5)."""
    tags = (tag.partition("=") for tag in signature.split(";"))
    return next((value.strip() for name, _, value in tags if name.strip() == "d"), "")


def _is_within(domain: str, parent: str) -> bool:
    parent = normalise_domain(parent)
    return domain == parent or (bool(parent) and domain.endswith(f".{parent}"))
