"""MailRecords in memory."""

from collections.abc import Callable, Collection
from datetime import datetime

import msgspec

from bouncer.backend import OutOfTimeError
from bouncer.mail_record import MailRecord, RecordsUnavailableError
from tests.fakes.patience import Fault, check_time, healthy


class MemoryMailRecords:
    """MailRecords."""

    def __init__(self, clock: Callable[[], datetime], *, fault: Fault = healthy) -> None:
        """
        Args:
            fault: told of each request, by its verb and message ids.
        """
        self._clock = clock
        self.fault = fault
        self.records: dict[str, MailRecord] = {}

    def add(self, record: MailRecord, *, until: datetime) -> None:
        self._request(f"add {record.message_id}", until)
        before = self.records.get(record.message_id, record)
        self.records[record.message_id] = msgspec.structs.replace(
            record,
            recipients=before.recipients | record.recipients,
            found_undecided=before.found_undecided or record.found_undecided,
        )

    def of(
        self, message_ids: Collection[str], *, until: datetime | None = None
    ) -> dict[str, MailRecord]:
        self._request(f"of {' '.join(message_ids)}", until)
        return {each: self.records[each] for each in message_ids if each in self.records}

    def _request(self, what: str, until: datetime | None) -> None:
        try:
            check_time(self._clock(), until)
        except OutOfTimeError as error:
            raise RecordsUnavailableError(str(error)) from error
        self.fault(what)
