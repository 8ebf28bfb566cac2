"""Writes the presence of this process's channels, many rows at a time.

Only the last meta that a channel tracked is written; earlier ones that were not written yet are
skipped. The rows reference the row of the process: they are written once it exists, and again after
it was lost.
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
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread, passes
from realtime.util.outage_log import OutageLog

logger = logging.getLogger("realtime.presence")

# How long changes are collected for one write, beside the time that the write before took.
_COLLECT_SECONDS = 0.005
_RETRY_FIRST = 0.1
_RETRY_MOST = 5.0
_MOST = 1_000

Done = Callable[[str | None], None]


@dataclass(eq=False, slots=True)
class _Calls:
    """The calls that wait for one version of a channel's row; None: until the row is gone."""

    version: int | None
    done: list[Done]


@dataclass(slots=True)
class _Tracked:
    """A channel that is present, or was (`row` is None)."""

    id: str
    row: PresenceRow | None = None
    # The row in the table; None after the lease of the process expired.
    written: PresenceRow | None = None
    # In the order they came.
    waiting: list[_Calls] = field(default_factory=list)


class PresenceWriter:
    """One per server process; all methods are called on its event loop.

    A `done` callback is called with None once all listeners in this process were sent the change,
    or with the reason why it cannot be stored.
    """

    def __init__(
        self, alias: str, process: str, tracker: PresenceTracker, most: int | None = None
    ) -> None:
        """`most`: members that a topic may have, over all processes."""
        self._most = most
        self._alias = alias
        self._process = process
        self._tracker = tracker
        self._channels: dict[str, _Tracked] = {}
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._registered = asyncio.Event()
        self._generation = 0
        # One counter for all channels: an id that is used again never repeats a version.
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
        return sum(tracked.row is not None for tracked in self._channels.values())

    def track(self, row: PresenceRow, done: Done) -> None:
        """Make a channel present with this row, in place of a former one. The version is set
        here."""
        id_ = row.entry.id
        tracked = self._channels.setdefault(id_, _Tracked(id_))
        if (
            tracked.row is not None
            and tracked.row.entry.meta == row.entry.meta
            and tracked.row.user_id == row.user_id
        ):
            # Nothing changes. The call that made it so is answered first; its change may be here
            # already, and come no second time.
            if tracked.waiting:
                tracked.waiting[-1].done.append(done)
            else:
                done(None)
            return
        tracked.row = _at(row, next(self._versions))
        self._expect(tracked, done)
        self._mark(tracked)

    def assign(self, id_: str, user_id: str | None) -> None:
        """The channel has another user from here on; does nothing unless it is present."""
        tracked = self._channels.get(id_)
        if tracked is None or tracked.row is None or tracked.row.user_id == user_id:
            return
        row = msgspec.structs.replace(tracked.row, user_id=user_id)
        tracked.row = _at(row, next(self._versions))
        self._mark(tracked)

    def untrack(self, id_: str, done: Done | None = None) -> None:
        """End the presence of a channel."""
        tracked = self._channels.get(id_)
        if tracked is None or tracked.row is None:
            if done is not None:
                done(None)
            return
        tracked.row = None
        if done is not None:
            self._expect(tracked, done)
        self._mark(tracked)

    def registered(self) -> None:
        """Called when the process has a new row, to which no presence row belongs yet."""
        self._generation += 1
        for tracked in self._channels.values():
            tracked.written = None
            if tracked.row is not None:
                # A new version: deletions of the former rows must not remove these.
                tracked.row = _at(tracked.row, next(self._versions))
                self._mark(tracked)
        self._registered.set()

    async def run(self) -> None:
        """Write until cancelled."""
        backoff = Backoff(_RETRY_FIRST, _RETRY_MOST)
        while True:
            await self._wake.wait()
            await self._registered.wait()
            await asyncio.sleep(_COLLECT_SECONDS)
            batch = [self._channels[id_] for id_ in list(self._dirty)[:_MOST]]
            for tracked in batch:
                del self._dirty[tracked.id]
            if not self._dirty:
                self._wake.clear()
            try:
                await self._write(batch)
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
        # Of one channel: if it fails, its row may be another one by then.
        row = batch[0].row
        try:
            await self._store(batch)
        except Exception as error:
            if not _is_refusal(error):
                raise
            # The database refuses a value, such as a NUL, and does not say of which row.
            if len(batch) == 1:
                self._refuse(batch[0], row, error)
                return
            for tracked in batch:
                await self._write([tracked])

    async def _store(self, batch: list[_Tracked]) -> None:
        wanted = {tracked.id: tracked.row for tracked in batch}
        new = [one.row for one in batch if one.row is not None and one.written is None]
        changed = [
            one.row
            for one in batch
            if one.row is not None and one.written is not None and one.row != one.written
        ]
        gone = [one.id for one in batch if one.row is None and one.written is not None]
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
        for tracked in batch:
            if tracked.id in refused:
                full = ValueError(f"the topic has {self._most} members already")
                self._refuse(tracked, wanted[tracked.id], full)
                continue
            was_written = tracked.written is not None
            tracked.written = wanted[tracked.id]
            if tracked.row is None and tracked.written is None:
                if not was_written:
                    # Tracked and untracked before it was written.
                    self._answer(tracked)
                if tracked.id not in self._dirty:
                    self._channels.pop(tracked.id, None)

    def _refuse(self, tracked: _Tracked, row: PresenceRow | None, error: Exception) -> None:
        """This row of a channel cannot be stored. Calls that came after it are not concerned."""
        logger.info("presence refused: %s", error, extra={"action": "presence_refused"})
        answered, tracked.waiting = _up_to(tracked.waiting, row)
        self._tracker.forget(tracked.id)
        for calls in tracked.waiting:
            self._expect_in_log(tracked, calls)
        if row is not None and tracked.row is row:
            tracked.row = tracked.written
            self._dirty.pop(tracked.id, None)
            if tracked.row is None:
                self._channels.pop(tracked.id, None)
        _call(answered, public_reason(error))

    def _expect(self, tracked: _Tracked, done: Done) -> None:
        calls = _Calls(None if tracked.row is None else tracked.row.entry.version, [done])
        tracked.waiting.append(calls)
        self._expect_in_log(tracked, calls)

    def _expect_in_log(self, tracked: _Tracked, calls: _Calls) -> None:
        def then() -> None:
            if calls in tracked.waiting:
                tracked.waiting.remove(calls)
                _call([calls], None)

        self._tracker.expect(tracked.id, calls.version, then)

    def _answer(self, tracked: _Tracked) -> None:
        """Answer all calls of a channel that was never written and is not present any more."""
        self._tracker.forget(tracked.id)
        waiting, tracked.waiting = tracked.waiting, []
        _call(waiting, None)

    def _mark(self, tracked: _Tracked) -> None:
        self._dirty[tracked.id] = None
        self._wake.set()

    def _again(self, batch: list[_Tracked]) -> None:
        for tracked in batch:
            # Others of the batch may have been refused or deleted before it failed.
            if self._channels.get(tracked.id) is tracked:
                self._mark(tracked)


def _is_refusal(error: Exception) -> bool:
    """Whether a row can never be written as it is. That is any error but one that passes, such as
    that of a database which does not answer: a row that cannot be written for a reason of its own
    must not keep the writer from the others."""
    return isinstance(error, DataError) or not (isinstance(error, ProcessExpired) or passes(error))


def _up_to(waiting: list[_Calls], row: PresenceRow | None) -> tuple[list[_Calls], list[_Calls]]:
    """The calls up to the last one that waits for this row or an earlier one, and the others."""
    version = None if row is None else row.entry.version
    count = 0
    for number, calls in enumerate(waiting, start=1):
        if version is None or (calls.version is not None and calls.version <= version):
            count = number
    return waiting[:count], waiting[count:]


def _call(waiting: list[_Calls], problem: str | None) -> None:
    for calls in waiting:
        for done in calls.done:
            done(problem)


def _at(row: PresenceRow, version: int) -> PresenceRow:
    entry = msgspec.structs.replace(row.entry, version=version)
    return msgspec.structs.replace(row, entry=entry)
