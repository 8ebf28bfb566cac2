"""Reads the log for a server process: from its ring where that reaches, else from the table.

The table is read in a database thread, and equal reads at the same time are made once. Never
numbers, never delivers.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from django.db import connections

from realtime.event_log.distance import Distances
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.ring import EventLog
from realtime.event_log.table import BATCH, READ_BYTES, oldest_seq, read_later, read_rows, seq_at
from realtime.event_log.table import relations as known_relations
from realtime.util.database_threads import in_database_thread
from realtime.util.fair_share import FairShare
from realtime.util.payer_queue import NOBODY, Payer
from realtime.wal.backlog import unnumbered
from realtime.wal.entry import Relation, WalRow
from realtime.wal.head import Head, read_head

T = TypeVar("T")
# Replays behind the ring are served in blocks that begin at multiples of this, so that clients with
# different cursors share them. The last few blocks are kept, for clients that all return within a
# few seconds.
_BLOCK = BATCH
_BLOCKS_KEPT = 8
_BLOCKS_BYTES = 2 * READ_BYTES
_MOST_COUNTED = 10_000
# One statement: two could both miss entries that are numbered between them.
_COMMITTED = """
SELECT seq + (SELECT COUNT(*) FROM (
    SELECT 1 FROM ({unnumbered}) AS w LIMIT %s
) AS waiting) FROM realtime_head WHERE id = 1
"""

Read = Callable[[int, int], Awaitable[list[DatabaseEvent]]]


class LogReader:
    """Reads for the Event Log of one process. Every method may raise DATABASE_ERRORS.

    `deep` reads ranges for replays. It is `from_table`, unless another reader replaces it.
    """

    def __init__(self, alias: str, log: EventLog) -> None:
        self.alias = alias
        self._log = log
        self.deep: Read = self.from_table
        self._distances = Distances(alias)
        # Charged in events. There are few database threads, and joins need them too; one address
        # leaves a slot to the others.
        self._reads = FairShare(2)
        self._running: dict[Hashable, asyncio.Task[Any]] = {}
        self._next: dict[Hashable, asyncio.Task[Any]] = {}
        self._blocks: OrderedDict[tuple[str, int], list[DatabaseEvent]] = OrderedDict()

    def learn(self, relations: Iterable[Relation]) -> None:
        """Keep relations that came with a batch, so that they need not be read."""
        known_relations.add(relations)

    def events(self, rows: Iterable[WalRow]) -> list[DatabaseEvent]:
        """Entries whose relations are known, as events."""
        return known_relations.events(rows)

    async def head(self) -> Head:
        """How far the log is numbered."""
        return await in_database_thread(lambda: read_head(connections[self.alias]))

    async def committed(self) -> int:
        """About the seq of the newest change that was committed before the call, numbered or
        not."""

        def read() -> int:
            connection = connections[self.alias]
            entries, parameters = unnumbered(connection, "1")
            with connection.cursor() as cursor:
                sql = _COMMITTED.format(unnumbered=entries)
                cursor.execute(sql, [*parameters, _MOST_COUNTED])
                row = cursor.fetchone()
                return 0 if row is None else int(row[0])

        return await self._afresh("committed", lambda: in_database_thread(read))

    async def from_table(self, after: int, upto: int) -> list[DatabaseEvent]:
        """Some events from `after` + 1 on; none if that event is not kept any more."""
        rows = await in_database_thread(read_rows, self.alias, after, upto)
        return self.events(rows) if rows and rows[0].seq == after + 1 else []

    async def since(
        self, after: int, most: int = _BLOCK, upto: int | None = None, payer: Payer = NOBODY
    ) -> Sequence[DatabaseEvent]:
        """Some events from `after` + 1 on, at most `most`, and up to `upto` or the position of the
        process; none if the first one is not kept any more. The read is charged to `payer`."""
        upto = self._log.seq if upto is None else min(upto, self._log.seq)
        most = min(most, upto - after)
        recent = self._log.since(after, most)
        if recent is not None:
            return recent
        block = await self._block(after - after % _BLOCK, payer)
        if not block or not block[0].seq - 1 <= after < block[-1].seq:
            # Pruned in the middle of the block, or the block was too large for one answer.
            block = await self._once(
                ("from", self._log.epoch, after, payer.account),
                lambda: self._read(after, upto, payer),
            )
            return block[:most]
        start = after + 1 - block[0].seq
        return block[start : start + most]

    async def keeps(self, after: int) -> bool:
        """Whether every event after `after` is kept. Blocks in memory prove nothing, because the
        events after them may have been pruned since. The database is only queried if there is such
        a block; without one the first read finds out."""
        in_memory = (self._log.epoch, after - after % _BLOCK) in self._blocks
        if not in_memory or self._log.since(after, 1) is not None:
            return True
        oldest = await self._once(
            ("oldest", self._log.epoch),
            lambda: in_database_thread(lambda: oldest_seq(connections[self.alias])),
        )
        return oldest is not None and oldest <= after + 1

    async def distance(self, after: int, upto: int) -> int:
        """How many changes lie between two positions, without presence and stored broadcasts."""
        return await self._distances.count(self._log.epoch, after, upto)

    async def seq_at(self, commit_us: int) -> int | None:
        """The seq of the last kept event committed at or before this time."""
        recent = self._log.seq_at(commit_us)
        if recent is not None:
            return recent
        return await self._once(
            ("at", commit_us),
            lambda: in_database_thread(lambda: seq_at(connections[self.alias], commit_us)),
        )

    async def on_tables(self, tables: Collection[str], after: int) -> list[DatabaseEvent]:
        """The committed changes of these tables after `after`, including those that have no number
        yet (their seq is 0) and those that this process has not delivered yet.

        Every change committed before the call is among them.
        """
        wanted = frozenset(tables)
        known = self._log.on_tables(wanted, after)
        read_from = after if known is None else self._log.seq
        rest = await self._afresh(
            ("tables", self._log.epoch, read_from, wanted),
            lambda: in_database_thread(self._read_tables, wanted, read_from),
        )
        return [*(known or ()), *rest]

    # --- reading once for many ------------------------------------------------------------------

    async def _block(self, start: int, payer: Payer) -> list[DatabaseEvent]:
        epoch, upto = self._log.epoch, self._log.seq
        known = self._blocks.get((epoch, start))
        if known is not None:
            self._blocks.move_to_end((epoch, start))
            return known
        found = await self._once(
            ("block", epoch, start, min(upto, start + _BLOCK), payer.account),
            lambda: self._read(start, upto, payer),
        )
        if len(found) >= _BLOCK and epoch == self._log.epoch:
            self._blocks[epoch, start] = found[:_BLOCK]
            sizes = {key: sum(event.size for event in kept) for key, kept in self._blocks.items()}
            while len(self._blocks) > _BLOCKS_KEPT or sum(sizes.values()) > _BLOCKS_BYTES:
                gone, _ = self._blocks.popitem(last=False)
                del sizes[gone]
        return found

    async def _read(self, after: int, upto: int, payer: Payer) -> list[DatabaseEvent]:
        async with self._reads.slot(payer) as slot:
            # Another payer may have read it while this one waited.
            known = self._blocks.get((self._log.epoch, after))
            found = await self.deep(after, upto) if known is None else known
            slot.charge(len(found))
        return found

    async def _once(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """The result of `read`. All callers with one key share a read that is running."""
        running: asyncio.Task[T] | None = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.ensure_future(_task(read))
            running.add_done_callback(lambda task: self._forget(self._running, key, task))
        return await asyncio.shield(running)

    async def _afresh(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """As `_once`, with a read that begins after the call."""
        coming: asyncio.Task[T] | None = self._next.get(key)
        if coming is None:
            before = self._running.get(key)

            async def run() -> T:
                if before is not None:
                    await asyncio.wait({before})
                self._running[key] = self._next.pop(key)
                return await read()

            coming = self._next[key] = asyncio.ensure_future(run())
            coming.add_done_callback(lambda task: self._forget(self._running, key, task))
        return await asyncio.shield(coming)

    @staticmethod
    def _forget(
        among: dict[Hashable, asyncio.Task[Any]], key: Hashable, task: asyncio.Task[Any]
    ) -> None:
        if among.get(key) is task:
            del among[key]
        if not task.cancelled():
            # The callers that wait get the exception. If none is left, asyncio would log it.
            task.exception()

    def _read_tables(self, tables: frozenset[str], after: int) -> list[DatabaseEvent]:
        return self.events(read_later(self.alias, tables, after))


async def _task(read: Callable[[], Awaitable[T]]) -> T:
    return await read()
