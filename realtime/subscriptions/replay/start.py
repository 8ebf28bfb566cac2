"""Where a replay begins: the seq that a client's cursor stands for, and whether the rows that the
client has may have come into or out of its sight since.

Decides for one binding at a time; the replay decides what follows.
"""

from __future__ import annotations

from collections.abc import Sequence

from auth_rls.subjects.subject import Subject
from realtime.event_log.reader import LogReader
from realtime.event_log.ring import EventLog
from realtime.protocol.cursor import Cursor
from realtime.subscriptions.index import Subscription
from realtime.subscriptions.planners import Planners
from realtime.subscriptions.replay.bounds import ReplayBounds
from realtime.util.counters import Counters
from realtime.util.database_threads import in_database_thread

# Another server may have delivered to the client what this one has not read yet.
_BEHIND_SECONDS = 5.0
# Entries of presence and stored broadcasts that one replay may pass.
_MOST_OTHERS = 1_000_000
# Changes compared with what a verdict depends on without leaving the event loop.
_TOUCHED_AT_ONCE = 200


class ReplayStart:
    """One per process; on its event loop. Methods raise what the database raises."""

    def __init__(
        self,
        log: EventLog,
        reader: LogReader,
        planners: Planners,
        bounds: ReplayBounds,
        counters: Counters,
    ) -> None:
        self._log = log
        self._reader = reader
        self._planners = planners
        self._bounds = bounds
        self._counters = counters

    async def resolve_cursor(self, cursor: Cursor, epoch: str) -> int | None:
        """The seq after which a client with this cursor is served. None if the log of this epoch
        does not reach back so far, or if that would be more events than one replay may read."""
        log, reader = self._log, self._reader
        if cursor.epoch is not None and cursor.epoch != log.epoch:
            return None
        seq = cursor.seq
        if seq is None and cursor.commit_us is not None:
            if cursor.commit_us <= log.epoch_us:
                # The time lies in an older epoch, in which other changes may have followed.
                return None
            seq = await reader.seq_at(cursor.commit_us)
        if seq is None:
            return None
        if seq > log.seq:
            head = await reader.head()
            if head.epoch != log.epoch or head.seq < seq:
                return None
            if not await log.beyond(seq - 1, _BEHIND_SECONDS):
                return None
        if log.epoch != epoch:
            return None
        if await self._is_too_far(seq):
            self._counters.limits["replay_events/channel"] += 1
            return None
        # All events or none: a client that was sent a part could not find out what is missing.
        if not await reader.keeps(seq):
            return None
        return seq if log.epoch == epoch else None

    async def _is_too_far(self, seq: int) -> bool:
        """Whether more changes came since than a replay may read. Presence and stored broadcasts do
        not count, or clients that cause them could put every cursor out of reach."""
        limit, upto = self._bounds.events, self._log.seq
        if limit is None or upto - seq <= limit:
            return False
        if upto - seq > limit + _MOST_OTHERS:
            return True
        return await self._reader.distance(seq, upto) > limit

    async def access_changed_since(
        self, subject: Subject, subscriptions: Sequence[Subscription], after: int
    ) -> bool:
        """Whether what the subject may see by these subscriptions may have changed since this
        seq."""
        dependencies = await in_database_thread(
            lambda: self._planners.get().dependencies(subject, subscriptions)
        )
        # What changed at the cursor itself may have reached the client in part.
        try:
            since = await self._reader.on_tables(dependencies.tables, max(after - 1, 0))
        except OverflowError:
            return True
        if len(since) <= _TOUCHED_AT_ONCE:
            return dependencies.touched_by(since)
        return await in_database_thread(dependencies.touched_by, since)
