"""Writes the presence of this process's channels, many rows at a time, and tells other processes.

Only the last meta that a channel tracked is written; earlier ones that were not written yet are
skipped. The rows reference the row of the process: they are written once it exists, and again after
it was lost, or after the table has lost them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import msgspec
from django.db.utils import DataError, IntegrityError

from auth_rls.sql.failures import public_reason
from realtime.topics.presence.changes import Gone, Key, PresenceChanges
from realtime.topics.presence.loaded_topic import Callback
from realtime.topics.presence.store import PresenceRow, RowsMissing, write
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
Publish = Callable[[PresenceChanges], Awaitable[None]]


@dataclass(slots=True)
class _Tracked:
    """A channel that is present, or was (`row` is None)."""

    id: str
    key: Key
    row: PresenceRow | None = None
    # The row in the table; None after the lease of the process expired.
    written: PresenceRow | None = None
    # A newer row that may be in the table: the attempt to write it failed without an answer.
    doubtful: PresenceRow | None = None
    # In the order they came: the calls that the next write answers, and those of the one that runs.
    waiting: list[Done] = field(default_factory=list)
    writing: list[Done] = field(default_factory=list)


class PresenceWriter:
    """One per server process; all methods are called on its event loop.

    A `done` callback is called with None once the change is stored and all listeners in this
    process were sent it, or with the reason why it cannot be stored.
    """

    def __init__(
        self,
        alias: str,
        process: str,
        tracker: PresenceTracker,
        most: int | None = None,
        publish: Publish | None = None,
    ) -> None:
        """`most`: members that a topic may have, over all processes. `publish` sends to the other
        processes."""
        self._most = most
        self._alias = alias
        self._process = process
        self._tracker = tracker
        self._publish = publish
        self._channels: dict[str, _Tracked] = {}
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._registered = asyncio.Event()
        self._generation = 0
        # Whether all rows are to be written, in place of what the table has of this process.
        self._whole = False
        # Of the last attempt to write. One that seemed to fail may have passed, so its number is
        # not used again; other processes then find that they lack it.
        self._number = 0
        # Of the last write that is known to have passed.
        self._passed_number = 0
        # One counter for all channels: an id that is used again never repeats a version.
        self._versions = count(1)
        self._outage = OutageLog(
            logger,
            failing="presence cannot be written: %s",
            failing_action="presence_failing",
            works="presence can be written again",
            works_action="presence_works",
        )
        tracker.has_members = lambda: bool(self._channels)
        tracker.lost = self.lost

    def __len__(self) -> int:
        """The number of channels of this process that are present."""
        return sum(tracked.row is not None for tracked in self._channels.values())

    def track(self, row: PresenceRow, done: Done) -> None:
        """Make a channel present with this row, in place of a former one. The version is set
        here."""
        id_ = row.entry.id
        tracked = self._channels.setdefault(id_, _Tracked(id_, (row.topic, row.private)))
        if (
            tracked.row is not None
            and tracked.row.entry.meta == row.entry.meta
            and tracked.row.user_id == row.user_id
        ):
            # Nothing changes. The call that made it so is answered first.
            if calls := tracked.waiting or tracked.writing:
                calls.append(done)
            else:
                self._tracker.after_sending(tracked.key, partial(done, None))
            return
        tracked.row = _at(row, next(self._versions))
        tracked.waiting.append(done)
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
            tracked.waiting.append(done)
        self._mark(tracked)

    def registered(self) -> None:
        """Called when the process has a new row, to which no presence row belongs yet."""
        self._generation += 1
        for tracked in self._channels.values():
            tracked.written = None
            if tracked.row is not None:
                # They were absent: who was told so is told that they come.
                tracked.row = _at(tracked.row, next(self._versions))
                self._mark(tracked)
        if self._number:
            self._whole = True
            self._wake.set()
        self._registered.set()

    def lost(self) -> None:
        """The table has not all rows of this process: it was emptied, or restored from a backup.
        They are written again as they are."""
        if not self._whole:
            logger.warning(
                "the table of presence has lost members of this process: they are written again",
                extra={"action": "presence_lost"},
            )
        self._whole = True
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        backoff = Backoff(_RETRY_FIRST, _RETRY_MOST)
        while True:
            await self._wake.wait()
            await self._registered.wait()
            await asyncio.sleep(_COLLECT_SECONDS)
            generation = self._generation
            whole, self._whole = self._whole, False
            ids = list(self._channels) if whole else list(self._dirty)[:_MOST]
            batch = [self._channels[id_] for id_ in ids]
            for tracked in batch:
                self._dirty.pop(tracked.id, None)
            if not self._dirty:
                self._wake.clear()
            try:
                await self._write(batch, whole)
            except IntegrityError:
                # The lease expired. The next renewal makes a new row and calls `registered`, unless
                # it has done so while this was being written.
                if generation == self._generation:
                    self._registered.clear()
                self._again(batch, whole)
            except RowsMissing:
                # With the lease of the process, which the next write finds out, or with the table.
                self._again(batch, True)
            except DATABASE_ERRORS as error:
                self._outage.failed(error)
                self._again(batch, whole)
                await asyncio.sleep(backoff.next())
            else:
                self._outage.worked()
                backoff.reset()

    # --- writing --------------------------------------------------------------------------------

    async def _write(self, batch: list[_Tracked], whole: bool = False) -> None:
        # Of one channel: if it fails, its row may be another one by then.
        row = batch[0].row if batch else None
        try:
            await self._store(batch, whole)
        except Exception as error:
            if not batch or not _is_refusal(error):
                raise
            # The database refuses a value, such as a NUL, and does not say of which row.
            if len(batch) == 1 and not whole:
                self._refuse(batch[0], row, error)
                return
            if whole:
                await self._store([], whole)
                for tracked in batch:
                    tracked.written = None
            for tracked in batch:
                await self._write([tracked])

    async def _store(self, batch: list[_Tracked], whole: bool) -> None:
        wanted = {tracked.id: tracked.row for tracked in batch}
        for tracked in batch:
            # Those that were being written when an attempt failed come first.
            tracked.writing += tracked.waiting
            tracked.waiting = []
        new, changed, gone = [], [], []
        for tracked in batch:
            row, written = tracked.row, tracked.written
            if row is not None and (whole or written is None):
                new.append(row)
            elif row is not None and row != written:
                changed.append(row)
            elif row is None and (last := tracked.doubtful or written) is not None:
                gone.append(last)
        generation = self._generation
        if not (new or changed or gone or whole):
            for key, answer in self._passed(batch, wanted, ()):
                self._tracker.after_sending(key, answer)
            return
        before = self._number
        self._number = number = before + 1
        try:
            outcome = await in_database_thread(
                write,
                self._alias,
                self._process,
                number,
                new,
                changed,
                gone,
                self._most,
                whole,
                self._passed_number,
            )
        except Exception as error:
            if not _is_certain(error):
                for tracked in batch:
                    tracked.doubtful = wanted[tracked.id] or tracked.doubtful
            raise
        self._passed_number = number
        if generation != self._generation:
            # It is unknown whether the old row was deleted before or after this write.
            self._again(batch, whole)
            return
        message = PresenceChanges(
            self._process,
            before,
            number,
            [row.present for row in (*new, *changed) if row.entry.id not in outcome.refused],
            [Gone(row.topic, row.private, row.entry.id, row.entry.version) for row in gone],
            whole,
            outcome.epoch,
            outcome.seq,
        )
        self._hand_over(message, self._passed(batch, wanted, outcome.refused))
        await self._tell(message)

    def _passed(
        self,
        batch: list[_Tracked],
        wanted: dict[str, PresenceRow | None],
        refused: Collection[str],
    ) -> list[tuple[Key, Callback]]:
        """These rows are in the table. Returns the calls that are to be answered."""
        answers: list[tuple[Key, Callback]] = []
        for tracked in batch:
            tracked.doubtful = None
            if tracked.id in refused:
                tracked.written = None
                full = ValueError(f"the topic has {self._most} members already")
                self._refuse(tracked, wanted[tracked.id], full)
                continue
            tracked.written = wanted[tracked.id]
            calls, tracked.writing = tracked.writing, []
            answers += [(tracked.key, partial(done, None)) for done in calls]
            if tracked.row is None and tracked.written is None and tracked.id not in self._dirty:
                self._channels.pop(tracked.id, None)
        return answers

    def _hand_over(self, message: PresenceChanges, answers: list[tuple[Key, Callback]]) -> None:
        try:
            self._tracker.wrote(message, answers)
        except Exception:
            logger.exception("a message failed", extra={"action": "message_failed"})
            self._tracker.reload()
            for _, answer in answers:
                answer()

    async def _tell(self, message: PresenceChanges) -> None:
        if self._publish is None:
            return
        try:
            await self._publish(message)
        except Exception as error:
            # The bus has logged the outage; other processes look at the table.
            logger.debug("presence not sent: %s", error, extra={"action": "presence_unsent"})

    def _refuse(self, tracked: _Tracked, row: PresenceRow | None, error: Exception) -> None:
        """This row of a channel cannot be stored. Calls that came after it are not concerned."""
        logger.info("presence refused: %s", error, extra={"action": "presence_refused"})
        calls, tracked.writing = tracked.writing, []
        if row is not None and tracked.row is row:
            tracked.row = tracked.written
            self._dirty.pop(tracked.id, None)
            if tracked.doubtful is not None:
                # In place of what an earlier attempt may have written.
                tracked.row = tracked.row and _at(tracked.row, next(self._versions))
                self._mark(tracked)
            elif tracked.row is None:
                self._channels.pop(tracked.id, None)
        for done in calls:
            done(public_reason(error))

    def _mark(self, tracked: _Tracked) -> None:
        self._dirty[tracked.id] = None
        self._wake.set()

    def _again(self, batch: list[_Tracked], whole: bool) -> None:
        for tracked in batch:
            # Others of the batch may have been refused or deleted before it failed.
            if self._channels.get(tracked.id) is tracked:
                self._mark(tracked)
        if whole:
            self._whole = True
            self._wake.set()


def _is_refusal(error: Exception) -> bool:
    """Whether a row can never be written as it is. That is any error but one that passes, such as
    that of a database which does not answer: a row that cannot be written for a reason of its own
    must not keep the writer from the others."""
    return isinstance(error, DataError) or not (isinstance(error, RowsMissing) or passes(error))


def _is_certain(error: Exception) -> bool:
    """Whether nothing was written. A connection that breaks may have committed before."""
    return isinstance(error, IntegrityError | RowsMissing) or _is_refusal(error)


def _at(row: PresenceRow, version: int) -> PresenceRow:
    entry = msgspec.structs.replace(row.entry, version=version)
    return msgspec.structs.replace(row, entry=entry)
