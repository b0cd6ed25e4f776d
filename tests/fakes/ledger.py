"""A Ledger in memory."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

import msgspec

from bouncer import timing
from bouncer.address import normalise
from bouncer.backend import OutOfTimeError
from bouncer.delivery.ledger import (
    CALLS_WITHOUT_ANSWER,
    OF_A_CALL,
    BounceState,
    Claims,
    LedgerEntry,
    LedgerUnavailableError,
)
from tests.fakes.patience import Fault, check_time, healthy

_WAITS = frozenset({BounceState.QUEUED, BounceState.DEAD_LETTERED})


class Line(msgspec.Struct):
    """One recipient's item."""

    entry: LedgerEntry
    owner: str
    expires_at: datetime


class MemoryLedger:
    """A Ledger."""

    def __init__(
        self,
        clock: Callable[[], datetime],
        *,
        retention: timedelta = timedelta(days=14),
        fault: Fault = healthy,
    ) -> None:
        """
        Args:
            fault: told of each request, by its verb and message id.
        """
        self._clock = clock
        self._retention = retention
        self.fault = fault
        self.lines: dict[tuple[str, str], Line] = {}

    # --- Verbs -------------------------------------------------------------------------------

    def claim(
        self,
        message_id: str,
        reasons: Mapping[str, str],
        *,
        owner: str,
        until: datetime,
        anew: bool = True,
    ) -> Claims:
        lease_until = until + timedelta(seconds=timing.LEASE_GRACE)
        mine: dict[str, int] = {}
        settled: dict[str, BounceState] = {}
        in_flight: dict[str, datetime] = {}
        for recipient, reason in reasons.items():
            self._request("claim", message_id, until)
            line = self._line(message_id, recipient)
            if line is None:
                entry = LedgerEntry(
                    message_id=message_id,
                    recipient=recipient,
                    state=BounceState.CLAIMED,
                    reason=reason,
                )
            elif self._is_held(line) and line.owner != owner:
                in_flight[recipient] = line.entry.lease_until or lease_until
                continue
            elif self._has_ended(line) or (not anew and line.entry.state is BounceState.REJECTED):
                settled[recipient] = line.entry.state
                continue
            else:
                entry = msgspec.structs.replace(
                    line.entry, recipient=recipient, state=BounceState.CLAIMED, reason=reason
                )
            mine[recipient] = entry.lost_answers
            self._put(msgspec.structs.replace(entry, lease_until=lease_until), owner)
        return Claims(mine=mine, settled=settled, in_flight=in_flight)

    def settle(
        self, entries: Iterable[LedgerEntry], *, owner: str, until: datetime
    ) -> dict[str, BounceState]:
        standing = {}
        for entry in entries:
            its_end = None if entry.state in OF_A_CALL else until
            self._request("settle", entry.message_id, its_end)
            line = self._line(entry.message_id, entry.recipient)
            if line is not None and _is_holder(line, owner):
                self._put(_merged(line.entry, entry), owner)
            elif line is not None:
                standing[entry.recipient] = line.entry.state
        return standing

    def note_lost_answers(
        self, message_id: str, lost_answers: Mapping[str, int], *, owner: str, until: datetime
    ) -> None:
        for recipient, lost in lost_answers.items():
            self._request("note_lost_answers", message_id, None)
            line = self._line(message_id, recipient)
            if line is not None and _is_holder(line, owner):
                self._put(msgspec.structs.replace(line.entry, lost_answers=lost), owner)

    def record(self, entries: Iterable[LedgerEntry], *, until: datetime) -> dict[str, BounceState]:
        return self._write_unheld("record", entries, until, over=frozenset())

    def give_up(self, entries: Iterable[LedgerEntry], *, until: datetime) -> dict[str, BounceState]:
        return self._write_unheld("give_up", entries, until, over=_WAITS)

    def history(self, message_id: str, *, until: datetime | None = None) -> list[LedgerEntry]:
        self._request("history", message_id, until)
        return [line.entry for (mail, _), line in sorted(self.lines.items()) if mail == message_id]

    def state(self, message_id: str, recipient: str) -> BounceState:
        """For tests, which look without asking."""
        return self.lines[message_id, normalise(recipient)].entry.state

    # --- Inside ------------------------------------------------------------------------------

    def _write_unheld(
        self,
        verb: str,
        entries: Iterable[LedgerEntry],
        until: datetime,
        over: frozenset[BounceState],
    ) -> dict[str, BounceState]:
        standing = {}
        for entry in entries:
            self._request(verb, entry.message_id, until)
            line = self._line(entry.message_id, entry.recipient)
            if line is None:
                self._put(entry, "")
            elif (
                self._is_held(line)
                or self._has_ended(line)
                or (line.entry.state in _WAITS and line.entry.state not in over)
            ):
                standing[entry.recipient] = line.entry.state
            else:
                merged = _merged(line.entry, entry)
                lost = line.entry.lost_answers
                self._put(msgspec.structs.replace(merged, lost_answers=lost), line.owner)
        return standing

    def _request(self, verb: str, message_id: str, until: datetime | None) -> None:
        try:
            check_time(self._clock(), until)
        except OutOfTimeError as error:
            raise LedgerUnavailableError(str(error)) from error
        self.fault(f"{verb} {message_id}")

    def _line(self, message_id: str, recipient: str) -> Line | None:
        line = self.lines.get((message_id, normalise(recipient)))
        return line if line is not None and line.expires_at > self._clock() else None

    def _is_held(self, line: Line) -> bool:
        lease = line.entry.lease_until
        held = line.entry.state is BounceState.CLAIMED
        return held and lease is not None and lease > self._clock()

    def _has_ended(self, line: Line) -> bool:
        if line.entry.state is BounceState.REJECTED:
            return line.entry.lost_answers >= CALLS_WITHOUT_ANSWER
        return line.entry.state not in _WAITS and line.entry.state is not BounceState.CLAIMED

    def _put(self, entry: LedgerEntry, owner: str) -> None:
        now = self._clock()
        self.lines[entry.message_id, normalise(entry.recipient)] = Line(
            entry=msgspec.structs.replace(entry, updated_at=now),
            owner=owner,
            expires_at=now + self._retention,
        )


def _is_holder(line: Line, owner: str) -> bool:
    return line.entry.state is BounceState.CLAIMED and line.owner == owner


def _merged(before: LedgerEntry, entry: LedgerEntry) -> LedgerEntry:
    """What the later entry does not say stays, but for an earlier end's words."""
    return msgspec.structs.replace(
        entry,
        status=entry.status or before.status,
        reverse_path=entry.reverse_path or before.reverse_path,
        received_at=entry.received_at or before.received_at,
        bounce_id=entry.bounce_id or before.bounce_id,
        lease_until=before.lease_until,
    )
