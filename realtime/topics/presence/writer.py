"""Writes who of this process's channels is present, many at a time.

What a channel wants last is what is written; what it wanted in between nobody need see. The rows
hang on the row of the process, so they are written once that is there, and again when it was lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import msgspec
from django.db.utils import DataError, IntegrityError

from realtime.topics.presence.store import PresenceRow, ProcessExpired, write
from realtime.topics.presence.tracker import PresenceTracker
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread

logger = logging.getLogger("realtime.presence")

# How long changes are collected, beyond what the write before them took.
_COLLECT_SECONDS = 0.005
_RETRY_FIRST = 0.1
_RETRY_MOST = 5.0
_MOST = 1_000

Told = Callable[[str | None], None]


@dataclass(slots=True)
class _Tracked:
    """A channel that is, or was, present. `row` None: it is not any more."""

    id: str
    row: PresenceRow | None = None
    # What the table has: False after the process was taken for dead.
    written: PresenceRow | None = None
    waiting: list[Told] = field(default_factory=list)


class PresenceWriter:
    """One per server process; all methods are called on its event loop.

    `told` callbacks get None when everybody in this process knows, or why it cannot be stored.
    """

    def __init__(self, alias: str, process: str, rooms: PresenceTracker) -> None:
        self._alias = alias
        self._process = process
        self._rooms = rooms
        self._members: dict[str, _Tracked] = {}
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._registered = asyncio.Event()
        self._generation = 0
        # One count for all: a channel that comes again is not taken for what it was.
        self._versions = count(1)
        self._failing = False

    def __len__(self) -> int:
        """How many channels of this process are present."""
        return sum(member.row is not None for member in self._members.values())

    def track(self, row: PresenceRow, told: Told) -> None:
        """Be present as this row says, in place of what was there. Its version is given here."""
        id_ = row.entry.id
        member = self._members.setdefault(id_, _Tracked(id_))
        if member.row is not None and member.row.entry.meta == row.entry.meta:
            # Nothing changes; but what is on its way has to arrive first.
            if member.waiting:
                self._expect(member, told)
            else:
                told(None)
            return
        member.row = _at(row, next(self._versions))
        self._expect(member, told)
        self._mark(member)

    def untrack(self, id_: str, told: Told | None = None) -> None:
        """Be present no more."""
        member = self._members.get(id_)
        if member is None or member.row is None:
            if told is not None:
                told(None)
            return
        member.row = None
        if told is not None:
            self._expect(member, told)
        self._mark(member)

    def registered(self) -> None:
        """The process has a row, and it is a new one: nothing hangs on it yet."""
        self._generation += 1
        for member in self._members.values():
            member.written = None
            if member.row is not None:
                # Rows that were deleted with the old one are not to be taken for these.
                member.row = _at(member.row, next(self._versions))
                self._mark(member)
        self._registered.set()

    async def run(self) -> None:
        """Write until cancelled."""
        wait = _RETRY_FIRST
        while True:
            await self._wake.wait()
            await self._registered.wait()
            await asyncio.sleep(_COLLECT_SECONDS)
            batch = [self._members[id_] for id_ in list(self._dirty)[:_MOST]]
            for member in batch:
                del self._dirty[member.id]
            if not self._dirty:
                self._wake.clear()
            try:
                await self._write(batch)
            except asyncio.CancelledError:
                raise
            except (IntegrityError, ProcessExpired):
                # Taken for dead. The next renewal makes a new row and calls `registered`.
                self._registered.clear()
                self._again(batch)
            except DATABASE_ERRORS as error:
                self._note(error)
                self._again(batch)
                await asyncio.sleep(wait)
                wait = min(wait * 2, _RETRY_MOST)
            else:
                self._note(None)
                wait = _RETRY_FIRST

    # --- writing --------------------------------------------------------------------------------

    async def _write(self, batch: list[_Tracked]) -> None:
        try:
            await self._store(batch)
        except (DataError, ValueError) as error:
            # A value that the database does not take, such as a NUL: of whom, it does not say.
            if len(batch) == 1:
                self._refuse(batch[0], error)
                return
            for member in batch:
                await self._write([member])

    async def _store(self, batch: list[_Tracked]) -> None:
        wanted = {member.id: member.row for member in batch}
        new = [m.row for m in batch if m.row is not None and m.written is None]
        changed = [
            m.row
            for m in batch
            if m.row is not None and m.written is not None and m.row != m.written
        ]
        gone = [m.id for m in batch if m.row is None and m.written is not None]
        generation = self._generation
        if new or changed or gone:
            await in_database_thread(write, self._alias, self._process, new, changed, gone)
        if generation != self._generation:
            # Whether this was written before the old row went or after, nobody can say.
            self._again(batch)
            return
        for member in batch:
            was_written = member.written is not None
            member.written = wanted[member.id]
            if member.row is None and member.written is None:
                if not was_written:
                    # It came and went before anybody could see it.
                    self._tell(member, None)
                if member.id not in self._dirty:
                    self._members.pop(member.id, None)

    def _refuse(self, member: _Tracked, error: Exception) -> None:
        logger.info("presence refused: %s", error, extra={"action": "presence_refused"})
        member.row = member.written
        self._tell(member, str(error).partition("\n")[0])
        if member.row is None:
            self._members.pop(member.id, None)

    def _expect(self, member: _Tracked, told: Told) -> None:
        member.waiting.append(told)
        version = None if member.row is None else member.row.entry.version

        def then() -> None:
            if told in member.waiting:
                member.waiting.remove(told)
                told(None)

        self._rooms.expect(member.id, version, then)

    def _tell(self, member: _Tracked, problem: str | None) -> None:
        self._rooms.forget(member.id)
        waiting, member.waiting = member.waiting, []
        for told in waiting:
            told(problem)

    def _mark(self, member: _Tracked) -> None:
        self._dirty[member.id] = None
        self._wake.set()

    def _again(self, batch: list[_Tracked]) -> None:
        for member in batch:
            self._mark(member)

    def _note(self, error: Exception | None) -> None:
        # One line per change of state, however long an outage lasts.
        if error is not None and not self._failing:
            logger.warning(
                "presence cannot be written: %s", error, extra={"action": "presence_failing"}
            )
        elif error is None and self._failing:
            logger.info("presence can be written again", extra={"action": "presence_works"})
        self._failing = error is not None


def _at(row: PresenceRow, version: int) -> PresenceRow:
    entry = msgspec.structs.replace(row.entry, version=version)
    return msgspec.structs.replace(row, entry=entry)
