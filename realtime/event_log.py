"""The Event Log: the newest events in memory, all kept ones in the table behind them.

A ring of RING_SIZE events, contiguous in seq, fed by the dispatcher in order. Reading from a
position is served from the ring where it reaches and from the table otherwise; both give the same
events (RT-E1). Never numbers, never filters.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec
from django.db import connections

from realtime.event import DatabaseEvent, Relation, WalRow, to_event
from realtime.wal import sequencer
from realtime.wal.sequencer import Head

_MOST_SETS = 64
# Changes read at once beside the order of the log.
_MOST_LATER = 10_000
_decode_relation = msgspec.json.Decoder(Relation).decode


class Relations:
    """The relations a process has met, by id. A relation never changes, so none is dropped."""

    def __init__(self) -> None:
        self._known: dict[str, Relation] = {}

    def add(self, relations: Iterable[Relation]) -> None:
        for relation in relations:
            self._known.setdefault(relation.id, relation)

    def load(self, alias: str, ids: Iterable[str]) -> None:
        """Read those not known yet. In a database thread.

        Raises LookupError for an id that no relation has: the log cannot be read without it.
        """
        missing = sorted({id_ for id_ in ids if id_ not in self._known})
        found = sequencer.read_relations(connections[alias], missing)
        for id_ in missing:
            if id_ not in found:
                raise LookupError(f"WAL relation {id_} is missing from realtime_wal_relation")
            self._known[id_] = _decode_relation(found[id_])

    def __getitem__(self, id_: str) -> Relation:
        return self._known[id_]

    def events(self, rows: Iterable[WalRow]) -> list[DatabaseEvent]:
        return [to_event(row, self._known[row.relation_id]) for row in rows]


def read_rows(
    alias: str, relations: Relations, after: int, upto: int, limit: int = sequencer.BATCH
) -> list[WalRow]:
    """Numbered entries after `after`, their relations loaded. In a database thread."""
    rows = sequencer.read(connections[alias], after, upto, limit)
    relations.load(alias, {row.relation_id for row in rows})
    return rows


def _utf8(value: Any) -> bytes | None:
    # A text that is not valid UTF-8 must not stop the log.
    return None if value is None else bytes(value).decode(errors="replace").encode()


_LATER = """
SELECT seq, commit_us, relation_id, op, {old}, {new} FROM realtime_wal
WHERE table_name IN ({tables}) AND {which} ORDER BY {order} LIMIT %s
"""


def read_later(
    alias: str, relations: Relations, tables: Collection[str], after: int, limit: int = _MOST_LATER
) -> list[WalRow]:
    """The entries of these tables that do not stand at or before `after`, in the order of each
    row's history: the numbered ones, then with seq 0 those that have no number yet.

    Raises OverflowError for more than `limit`. In a database thread.
    """
    connection = connections[alias]
    as_bytes = "CAST({} AS BLOB)" if connection.vendor == "sqlite" else "CONVERT_TO({}, 'UTF8')"
    marks = ", ".join(["%s"] * len(tables))
    rows: list[WalRow] = []
    with connection.cursor() as cursor:
        # What is numbered between the two is read twice rather than not at all.
        for which, order, place in (("seq IS NULL", "id", []), ("seq > %s", "seq", [after])):
            sql = _LATER.format(
                old=as_bytes.format("old"),
                new=as_bytes.format("new"),
                tables=marks,
                which=which,
                order=order,
            )
            cursor.execute(sql, [*tables, *place, limit + 1])
            found = [
                WalRow(seq or 0, commit_us or 0, relation, op, _utf8(old), _utf8(new))
                for seq, commit_us, relation, op, old, new in cursor
            ]
            rows = found + rows
    if len(rows) > limit:
        raise OverflowError(f"more than {limit} changes to read at once")
    relations.load(alias, {row.relation_id for row in rows})
    return rows


class EventLog:
    """The ring, and the position of its newest event. On one event loop."""

    def __init__(self, size: int) -> None:
        self._ring: deque[DatabaseEvent] = deque(maxlen=size)
        self._moved = asyncio.Event()
        # By sets of tables: their events in the ring, and up to which seq these are all.
        self._of_tables: dict[frozenset[str], tuple[int, deque[DatabaseEvent]]] = {}
        self.epoch = ""
        self.seq = 0
        self.commit_us = 0

    def __len__(self) -> int:
        return len(self._ring)

    def start(self, head: Head) -> None:
        """Forget everything and stand at this head (start-up, or a new epoch)."""
        self._ring.clear()
        self._of_tables.clear()
        self.epoch, self.seq, self.commit_us = head.epoch, head.seq, head.commit_us
        self._moved.set()

    def append(self, event: DatabaseEvent) -> None:
        """Take the next event. Raises ValueError unless it is exactly the next one."""
        if event.seq != self.seq + 1:
            raise ValueError(f"event {event.seq} cannot follow {self.seq}")
        self._ring.append(event)
        self.seq, self.commit_us = event.seq, event.commit_us
        self._moved.set()

    async def beyond(self, seq: int, seconds: float) -> bool:
        """Wait until the newest event comes after `seq`, or another epoch begins; at most so
        long. Whether it happened."""
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
        return list(islice(self._ring, start, None if most is None else start + most))

    def on_tables(self, tables: frozenset[str], after: int) -> Sequence[DatabaseEvent] | None:
        """The events of these tables after this seq, or None if the ring does not reach back that
        far. Few sets of tables are asked for, and often."""
        first = self.seq - len(self._ring) + 1
        if after + 1 < first:
            return None
        upto, found = self._of_tables.get(tables, (first - 1, deque()))
        new = self.since(max(upto, first - 1)) or ()
        found.extend(event for event in new if event.relation.table in tables)
        while found and found[0].seq < first:
            found.popleft()
        if len(self._of_tables) >= _MOST_SETS:
            self._of_tables.clear()
        self._of_tables[tables] = self.seq, found
        return [event for event in found if event.seq > after]

    def seq_at(self, commit_us: int) -> int | None:
        """The seq of the last event committed at or before this time, or None if that is not
        known here: it is older than the ring, or may not have arrived yet."""
        if not self._ring or commit_us < self._ring[0].commit_us or commit_us > self.commit_us:
            return None
        place = bisect_right(self._ring, commit_us, key=lambda event: event.commit_us)
        return self._ring[place - 1].seq
