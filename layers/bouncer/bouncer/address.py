"""Mail addresses, compared the way SES and mail compare them."""

import re
from functools import lru_cache

# RFC 5321 §4.1.2 Mailbox with a Dot-string or Quoted-string local part and a domain of at
# least two labels. Address literals and non-ASCII local parts are left out on purpose: SES
# sends to 7-bit addresses with Punycode domains only.
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_QUOTED = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"'
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOT_STRING = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*")
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_DELIVERABLE = re.compile(rf"(?:{_DOT_STRING.pattern}|{_QUOTED})@{_DOMAIN.pattern}")

# RFC 5321 §4.5.3.1.3: a path has at most 256 octets with its angle brackets. The 64 of a local
# part (§4.5.3.1.1) are not held: SRS and VERP put a whole address into it, and it is delivered.
_ADDRESS_LIMIT = 254
_DOMAIN_LIMIT = 255


def split(address: str) -> tuple[str, str]:
    """Local part and domain, cut at the last `@`; the domain is empty when there is none."""
    local, at, domain = address.rpartition("@")
    return (local, domain) if at else (address, "")


def domain_of(address: str) -> str:
    """The domain as `normalise_domain` writes it."""
    return normalise_domain(split(address)[1])


def normalise_domain(domain: str) -> str:
    """Lower case, A-labels (RFC 5890), without a final dot.

    A domain that IDNA refuses is only lower-cased: it matches nothing that was normalised.
    """
    domain = domain.strip().rstrip(".").lower()
    if domain.isascii() or len(domain) > _DOMAIN_LIMIT:
        return domain
    import idna  # noqa: PLC0415  (3 ms that only a non-ASCII domain has to pay)

    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except UnicodeError:  # IDNAError is one
        return domain


@lru_cache(maxsize=1024)
def normalise(address: str) -> str:
    """The form under which an address is looked up and compared.

    RFC 5321 §2.4 leaves the case of a local part to the receiving host; SES matches
    recipients without regard to it, and so does this. Quotes that a local part does not need
    do not make another one of it (§4.1.2).
    """
    local, domain = split(address.strip())
    return f"{_unquoted(local).lower()}@{normalise_domain(domain)}"


def _unquoted(local: str) -> str:
    if len(local) < 2 or not (local[0] == local[-1] == '"'):
        return local
    plain = re.sub(r"\\(.)", r"\1", local[1:-1])
    return plain if _DOT_STRING.fullmatch(plain) else local


def is_domain(name: str) -> bool:
    """Whether it names a domain of at least two labels, in A-labels or U-labels."""
    return _DOMAIN.fullmatch(normalise_domain(name)) is not None


def is_deliverable(address: str) -> bool:
    """Whether SES can send to it: an ASCII `local@domain.tld` within RFC 5321's lengths."""
    return len(address) <= _ADDRESS_LIMIT and _DELIVERABLE.fullmatch(address) is not None
