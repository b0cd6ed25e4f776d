"""Usage that keeps itself: an accepted mail is charged to its mailbox once, and given back once.

The key that makes a charge safe to repeat is (message id, mailbox). Its record stays as long
as the stored mail does, for it says what a deletion gives back; a little longer, it keeps a
late replay from charging again.
"""

from collections.abc import Set
from datetime import datetime
from typing import Protocol

import msgspec

from bouncer.backend import BackendUnavailableError
from bouncer.mailboxes import Mailbox

NEAR_FULL = 0.9
"""The share of its quota from which on a mailbox is worth a warning."""


class Charged(msgspec.Struct, frozen=True, kw_only=True):
    """The mail counts, now or since before."""

    mailbox: Mailbox
    """As it is with the mail."""
    repeated: bool = False


class Full(msgspec.Struct, frozen=True, kw_only=True):
    """There is no room: others came between the look-up and the charge."""

    mailbox: Mailbox
    """As it is without the mail."""


class UsageUnavailableError(BackendUnavailableError):
    """The counters did not answer: nobody knows whether the mail counts."""


class UsageBusyError(UsageUnavailableError):
    """So many mails came for one mailbox that this one's turn did not come in time.

    Nothing is wrong and nothing was written: whoever finds the mail undecided counts it.
    """


class Usage(Protocol):
    def charge(
        self, mailbox: Mailbox, message_id: str, size: int, now: datetime, *, enforce: bool
    ) -> Charged | Full:
        """Count a mail in a mailbox: check and addition are one write.

        Args:
            mailbox: with its quotas, as the directory found it.
            enforce: False counts it even where it does not fit, for a policy that accepts it.

        Raises:
            UsageBusyError: it does not count yet; too many others were at the mailbox.
            UsageUnavailableError: it may or may not count; a retry settles it.
        """
        ...

    def give_back(self, message_ids: Set[str]) -> set[str]:
        """These stored mails are gone: uncount each wherever it was counted, and only once.

        Returns:
            The mails that were not, or not wholly, given back, for another try: what failed, and
            what there was no time for.
        """
        ...


def is_near_full(mailbox: Mailbox, size: int) -> bool:
    """Whether this mail is the one that took the mailbox past the mark."""
    if not mailbox.quota_bytes:
        return False
    mark = NEAR_FULL * mailbox.quota_bytes
    return mailbox.used_bytes - size < mark <= mailbox.used_bytes
