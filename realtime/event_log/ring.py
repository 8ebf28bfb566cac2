"""The Event Log: the newest events in memory, all kept ones in the table behind them.

A ring of at most RING_SIZE events and RING_BYTES, contiguous in seq, fed by the dispatcher in
order. Reading from a position is served from the ring where it reaches and from the table
otherwise; both give the same events (RT-E1). Never numbers, never filters.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import islice

from realtime.event_log.event import DatabaseEvent
from realtime.event_log.position import Position
from realtime.wal.head import Head

_MOST_SETS = 64
# Of images. Large rows leave the ring earlier; they are read from the table then.
RING_BYTES = 32 * 1024 * 1024


class EventLog:
    """The ring, and the position of its newest event. On one event loop."""

    def __init__(self, size: int, most_bytes: int = RING_BYTES) -> None:
        self._ring: deque[DatabaseEvent] = deque()
        self._most = size
        self._most_bytes = most_bytes
        self._bytes = 0
        self._moved = asyncio.Event()
        # For each set of tables, a seq and the events of these tables in the ring up to that seq.
        self._of_tables: dict[frozenset[str], tuple[int, deque[DatabaseEvent]]] = {}
        self.epoch = ""
        self.seq = 0
        self.commit_us = 0
        self.epoch_us = 0

    def __len__(self) -> int:
        return len(self._ring)

    @property
    def head(self) -> Head:
        """The end of the ring, as a head."""
        return Head(self.epoch, self.seq, self.commit_us, self.epoch_us)

    @property
    def position(self) -> Position:
        """The end of the ring, as a position."""
        return Position(self.epoch, self.seq)

    def start(self, head: Head) -> None:
        """Empty the ring and continue at this head (at start-up, or in a new epoch)."""
        self._ring.clear()
        self._bytes = 0
        self._of_tables.clear()
        self.epoch, self.seq, self.commit_us = head.epoch, head.seq, head.commit_us
        self.epoch_us = head.epoch_us
        self._moved.set()

    def append(self, event: DatabaseEvent) -> None:
        """Append the next event. Raises ValueError unless its seq is exactly the next one."""
        if event.seq != self.seq + 1:
            raise ValueError(f"event {event.seq} cannot follow {self.seq}")
        self._ring.append(event)
        self._bytes += event.size
        while self._ring and (len(self._ring) > self._most or self._bytes > self._most_bytes):
            self._bytes -= self._ring.popleft().size
        self.seq, self.commit_us = event.seq, event.commit_us
        self._moved.set()

    async def beyond(self, seq: int, seconds: float) -> bool:
        """Wait until an event after `seq` is here, or another epoch begins, for at most so many
        seconds. False if neither happened."""
        epoch = self.epoch
        try:
            async with asyncio.timeout(seconds):
                while self.seq <= seq and self.epoch == epoch:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def since(self, after: int, most: int | None = None) -> Sequence[DatabaseEvent] | None:
        """The events after this seq, at most so many, or None if the ring does not reach back
        that far."""
        if after >= self.seq:
            return ()
        first = self.seq - len(self._ring) + 1
        if after + 1 < first:
            return None
        start = after + 1 - first
        stop = len(self._ring) if most is None else min(start + most, len(self._ring))
        # From the nearer end: to reach an event, all between it and the end are passed.
        if start < len(self._ring) - stop:
            return list(islice(self._ring, start, stop))
        newest = islice(reversed(self._ring), len(self._ring) - stop, len(self._ring) - start)
        return list(newest)[::-1]

    def on_tables(self, tables: frozenset[str], after: int) -> Sequence[DatabaseEvent] | None:
        """The events of these tables after this seq, or None if the ring does not reach back that
        far. Made for few sets of tables that are read often."""
        first = self.seq - len(self._ring) + 1
        if after + 1 < first:
            return None
        upto, found = self._of_tables.get(tables, (first - 1, deque()))
        new = self.since(max(upto, first - 1)) or ()
        found.extend(event for event in new if event.relation.table in tables)
        if tables not in self._of_tables and len(self._of_tables) >= _MOST_SETS:
            self._of_tables.clear()
        self._of_tables[tables] = self.seq, found
        # Of every set, also of one that is not read again: what left the ring must leave memory.
        for _, kept in self._of_tables.values():
            while kept and kept[0].seq < first:
                kept.popleft()
        return [event for event in found if event.seq > after]

    def seq_at(self, commit_us: int) -> int | None:
        """The seq of the last event committed at or before this time (microseconds since 1970).
        None if the ring does not tell: the event is older, or may not have arrived yet."""
        if not self._ring or commit_us < self._ring[0].commit_us or commit_us > self.commit_us:
            return None
        index = bisect_right(self._ring, commit_us, key=lambda event: event.commit_us)
        return self._ring[index - 1].seq
