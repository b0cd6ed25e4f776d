"""What stands in place of an address where people are not to be named: a keyed hash.

The same address has the same pseudonym throughout one stack, and only who can read the stack's
key (aws/stack_key.py) can tell which address it is, by trying.
"""

import hashlib

_BYTES = 9  # in a stack of a million addresses, two share one once in ten billion


def pseudonym(text: str, key: bytes) -> str:
    """
    Args:
        text: an address, a domain, a host or a Message-ID; its case does not count.
        key: up to 64 bytes.
    """
    return hashlib.blake2b(text.lower().encode(), digest_size=_BYTES, key=key).hexdigest()
