"""Writes the presence of this process's channels, many rows at a time.

Only what a channel tracked last is written; earlier calls that were not written yet are skipped.
The rows reference the row of the process: they are written once it exists, and again after it was
lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import msgspec
from django.db.utils import DataError, IntegrityError

from auth_rls.sql.failures import public_reason
from realtime.topics.presence.store import PresenceRow, ProcessExpired, write
from realtime.topics.presence.tracker import PresenceTracker
from realtime.util.backoff import Backoff
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread
from realtime.util.outage_log import OutageLog

logger = logging.getLogger("realtime.presence")

# How long changes are collected, beside the time that the write before them took.
_COLLECT_SECONDS = 0.005
_RETRY_FIRST = 0.1
_RETRY_MOST = 5.0
_MOST = 1_000

Done = Callable[[str | None], None]


@dataclass(slots=True)
class _Tracked:
    """A channel that is or was present. `row` is None when it is so no longer."""

    id: str
    row: PresenceRow | None = None
    # What the table has; None after the lease of the process expired.
    written: PresenceRow | None = None
    waiting: list[Done] = field(default_factory=list)


class PresenceWriter:
    """One per server process; all methods are called on its event loop.

    `done` callbacks get None when all listeners in this process were sent the change, or the reason
    why it cannot be stored.
    """

    def __init__(
        self, alias: str, process: str, rooms: PresenceTracker, most: int | None = None
    ) -> None:
        """`most`: members that a topic may have, over all processes."""
        self._most = most
        self._alias = alias
        self._process = process
        self._rooms = rooms
        self._members: dict[str, _Tracked] = {}
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._registered = asyncio.Event()
        self._generation = 0
        # One count for all: an id that is used again does not repeat a version.
        self._versions = count(1)
        self._outage = OutageLog(
            logger,
            failing="presence cannot be written: %s",
            failing_action="presence_failing",
            works="presence can be written again",
            works_action="presence_works",
        )

    def __len__(self) -> int:
        """The number of channels of this process that are present."""
        return sum(member.row is not None for member in self._members.values())

    def track(self, row: PresenceRow, done: Done) -> None:
        """Make a channel present with this row, in place of its former one. Sets the version."""
        id_ = row.entry.id
        member = self._members.setdefault(id_, _Tracked(id_))
        if (
            member.row is not None
            and member.row.entry.meta == row.entry.meta
            and member.row.user_id == row.user_id
        ):
            # Nothing changes, but an earlier call that is not finished comes first.
            if member.waiting:
                self._expect(member, done)
            else:
                done(None)
            return
        member.row = _at(row, next(self._versions))
        self._expect(member, done)
        self._mark(member)

    def assign(self, id_: str, user_id: str | None) -> None:
        """The channel has another user from here on; does nothing unless it is present."""
        member = self._members.get(id_)
        if member is None or member.row is None or member.row.user_id == user_id:
            return
        row = msgspec.structs.replace(member.row, user_id=user_id)
        member.row = _at(row, next(self._versions))
        self._mark(member)

    def untrack(self, id_: str, done: Done | None = None) -> None:
        """Make a channel present no longer."""
        member = self._members.get(id_)
        if member is None or member.row is None:
            if done is not None:
                done(None)
            return
        member.row = None
        if done is not None:
            self._expect(member, done)
        self._mark(member)

    def registered(self) -> None:
        """Called when the process has a new row, to which no presence row belongs yet."""
        self._generation += 1
        for member in self._members.values():
            member.written = None
            if member.row is not None:
                # A new version: deletions of the former rows must not remove these.
                member.row = _at(member.row, next(self._versions))
                self._mark(member)
        self._registered.set()

    async def run(self) -> None:
        """Write until cancelled."""
        backoff = Backoff(_RETRY_FIRST, _RETRY_MOST)
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
                # The lease expired. The next renewal makes a new row and calls `registered`.
                self._registered.clear()
                self._again(batch)
            except DATABASE_ERRORS as error:
                self._outage.failed(error)
                self._again(batch)
                await asyncio.sleep(backoff.next())
            else:
                self._outage.worked()
                backoff.reset()

    # --- writing --------------------------------------------------------------------------------

    async def _write(self, batch: list[_Tracked]) -> None:
        try:
            await self._store(batch)
        except (DataError, ValueError) as error:
            # The database refuses a value, such as a NUL, and does not say of which row.
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
        refused: list[str] = []
        if new or changed or gone:
            refused = await in_database_thread(
                write, self._alias, self._process, new, changed, gone, self._most
            )
        if generation != self._generation:
            # It is unknown whether the old row was deleted before or after this write.
            self._again(batch)
            return
        for member in batch:
            if member.id in refused:
                self._refuse(member, ValueError(f"the topic has {self._most} members already"))
                continue
            was_written = member.written is not None
            member.written = wanted[member.id]
            if member.row is None and member.written is None:
                if not was_written:
                    # Tracked and untracked before it was written.
                    self._answer(member, None)
                if member.id not in self._dirty:
                    self._members.pop(member.id, None)

    def _refuse(self, member: _Tracked, error: Exception) -> None:
        logger.info("presence refused: %s", error, extra={"action": "presence_refused"})
        member.row = member.written
        # A later call that waits already is answered by this refusal too.
        self._dirty.pop(member.id, None)
        self._answer(member, public_reason(error))
        if member.row is None:
            self._members.pop(member.id, None)

    def _expect(self, member: _Tracked, done: Done) -> None:
        member.waiting.append(done)
        version = None if member.row is None else member.row.entry.version

        def then() -> None:
            if done in member.waiting:
                member.waiting.remove(done)
                done(None)

        self._rooms.expect(member.id, version, then)

    def _answer(self, member: _Tracked, problem: str | None) -> None:
        self._rooms.forget(member.id)
        waiting, member.waiting = member.waiting, []
        for done in waiting:
            done(problem)

    def _mark(self, member: _Tracked) -> None:
        self._dirty[member.id] = None
        self._wake.set()

    def _again(self, batch: list[_Tracked]) -> None:
        for member in batch:
            self._mark(member)


def _at(row: PresenceRow, version: int) -> PresenceRow:
    entry = msgspec.structs.replace(row.entry, version=version)
    return msgspec.structs.replace(row, entry=entry)
