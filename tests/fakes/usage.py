"""A Usage in memory."""

from collections.abc import Set
from datetime import datetime

import msgspec

from bouncer import timing
from bouncer.backend import OutOfTimeError
from bouncer.deadline import check_time_for
from bouncer.mailboxes import Mailbox, counting_day
from bouncer.usage import Charged, Full, UsageUnavailableError
from tests.fakes.patience import Fault, healthy


class MemoryUsage:
    """A Usage, on mailboxes that it holds itself."""

    def __init__(self, *, fault: Fault = healthy) -> None:
        """
        Args:
            fault: told of each request, by its verb and message id.
        """
        self.fault = fault
        self.mailboxes: dict[str, Mailbox] = {}
        self._sizes: dict[tuple[str, str], int] = {}
        """Of each mail in each mailbox that it was counted in."""
        self._returned: set[tuple[str, str]] = set()

    def charge(
        self, mailbox: Mailbox, message_id: str, size: int, now: datetime, *, enforce: bool
    ) -> Charged | Full:
        self._request(f"charge {message_id}")
        key = message_id, mailbox.address
        if key in self._sizes or mailbox.address not in self.mailboxes:
            return Charged(mailbox=mailbox, repeated=True)
        standing = _with_counters(mailbox, self.mailboxes[mailbox.address])
        if enforce and (standing.without_room(size) or standing.over_daily_quota(now)):
            return Full(mailbox=standing)
        today = counting_day(standing.messages_day, now)
        charged = msgspec.structs.replace(
            standing,
            used_bytes=max(standing.used_bytes, 0) + size,
            messages_day=today,
            messages_today=1 + (standing.messages_today if standing.messages_day == today else 0),
        )
        self._sizes[key] = size
        self._count(charged)
        return Charged(mailbox=charged)

    def give_back(self, message_ids: Set[str]) -> set[str]:
        failed: set[str] = set()
        for each in message_ids:
            try:
                self._give_back(each)
            except UsageUnavailableError:
                failed.add(each)
        return failed

    def _give_back(self, message_id: str) -> None:
        self._request(f"give_back {message_id}")
        for key in self._sizes.keys() - self._returned:
            if key[0] == message_id:
                self._returned.add(key)
                if box := self.mailboxes.get(key[1]):
                    left = box.used_bytes - self._sizes[key]
                    self._count(msgspec.structs.replace(box, used_bytes=left))

    def _count(self, counted: Mailbox) -> None:
        self.mailboxes[counted.address] = _with_counters(self.mailboxes[counted.address], counted)

    def _request(self, what: str) -> None:
        try:
            check_time_for(timing.ATTEMPT)
        except OutOfTimeError as error:
            raise UsageUnavailableError(str(error)) from error
        self.fault(what)


def _with_counters(mailbox: Mailbox, counters: Mailbox) -> Mailbox:
    """An entry as it is, with the counters of another."""
    return msgspec.structs.replace(
        mailbox,
        used_bytes=counters.used_bytes,
        messages_day=counters.messages_day,
        messages_today=counters.messages_today,
    )
