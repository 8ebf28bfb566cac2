"""Numbers WAL entries: gapless, whole transactions together, every row's history in order.

Ids of the WAL table are drawn before their transaction commits, so they are not commit order and
cannot serve as a cursor. Here a single statement inserts the numbers of what one snapshot shows.
Transactions are ordered by their largest id: if one transaction waited for another (they wrote the
same row), it drew its last id after the other had committed, so its entries are numbered later.
Entries that become visible afterwards are numbered afterwards, and hold up no others.

The head row is locked first, so one sequencer numbers at a time; a second one waits and then sees
only what is left, since on PostgreSQL (READ COMMITTED) every statement has a snapshot of its own.
Never reads business tables; never deletes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.event_log import leadership, numbering_sql
from realtime.event_log.leadership import Deposed, Lead, LeaseState
from realtime.event_log.table import BATCH
from realtime.wal.clock import now_us_sql
from realtime.wal.head import Head, HeadRow, disown, find_head, find_row, read_head
from realtime.wal.vendor import Numbering, vendor_of


def number(connection: BaseDatabaseWrapper, limit: int = BATCH) -> int:
    """Number up to about `limit` entries, with or without the lead; how many were numbered."""
    return Sequencer().number(connection, limit)


@dataclass(frozen=True, slots=True)
class Look:
    """The state of the log at one moment: its head, the lease of its leader, whether entries
    wait for a number, and whether there are passing broadcasts beside the log."""

    head: Head
    lease: LeaseState
    waiting: bool
    passing: bool = False


class _HeadBehind(Exception):
    """Entries have higher numbers than the head."""


class Sequencer:
    """Reads the state of the log and numbers entries, on one database.

    `numbering` finds the entries; by default it is made by the vendor of the first connection that
    is used. It remembers a snapshot all of whose entries are numbered, and begins with that of the
    head row.
    """

    def __init__(self, numbering: Numbering | None = None) -> None:
        self._numbering = numbering
        self._epoch = ""
        # The snapshot of a head row that proved to be another server's.
        self._distrusted = ""

    def forget(self) -> None:
        """Begin at the next look with the snapshot in the head row. For a new connection, which
        may be to another server."""
        if self._numbering is not None:
            self._numbering.forget()

    def check_ids(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether looks have passed over entries because of their ids, such as those drawn after
        the sequence was set back. The next look finds them then. Costs what is new since the last
        call."""
        numbering = self._numbering_on(connection)
        hidden = numbering.hidden()
        if hidden is not None:
            expression, parameters = hidden
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT {expression}", parameters)
                if cursor.fetchone()[0]:
                    numbering.distrust_ids()
                    return True
        numbering.trust_ids()
        return False

    def look(self, connection: BaseDatabaseWrapper) -> Look:
        """The committed state of the log, read by one statement."""
        numbering = self._numbering_on(connection)
        if numbering.looks_at_everything:
            self._begin(connection, numbering)
        waiting, parameters = numbering.waiting()
        sql = numbering_sql.LOOK.format(
            now=now_us_sql(connection),
            snapshot=numbering.snapshot,
            waiting=waiting,
            writer=vendor_of(connection).head_writer,
        )
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            row = cursor.fetchone()
        if row is None:
            read_head(connection)
            return self.look(connection)
        found = HeadRow(Head(*row[:4]), *row[10:])
        if not found.is_own(connection):
            disown(connection, found.head)
            numbering.forget()
            return self.look(connection)
        if self._epoch not in ("", found.head.epoch):
            # The log may have been replaced, and another sequencer has noticed.
            numbering.forget()
            self._epoch = found.head.epoch
            return self.look(connection)
        self._epoch = found.head.epoch
        look = Look(found.head, LeaseState(Lead(row[4], row[5]), row[6]), *map(bool, row[8:10]))
        if row[7] is not None:
            if numbering.went_back(row[7]):
                numbering.forget()
                self._distrusted = found.seen
                return self.look(connection)
            if numbering.ids_went_back(row[7]):
                return self.look(connection)
            # It does not name the own transaction, which may go on to write.
            if not look.waiting and not connection.in_atomic_block:
                numbering.remember(row[7])
        return look

    def number(
        self, connection: BaseDatabaseWrapper, limit: int = BATCH, lead: Lead | None = None
    ) -> int:
        """Number up to about `limit` entries, whole transactions only; how many were numbered.

        All or nothing: a crash at any point leaves the entries without numbers and the head as it
        was. With a lead, renews its lease, or raises Deposed and does nothing if the lead is
        void. If entries have higher numbers than the head (a fixture or a restore brought an older
        head), a new epoch begins behind all of them.
        """
        while True:
            try:
                return self._number(connection, limit, lead)
            except _HeadBehind:
                head = find_head(connection)
                if head is not None:
                    disown(connection, head)

    def _number(self, connection: BaseDatabaseWrapper, limit: int, lead: Lead | None) -> int:
        mine: list[Any] = [] if lead is None else [lead.term, lead.leader]
        where = "" if lead is None else numbering_sql.MINE
        numbering = self._numbering_on(connection)
        vendor = vendor_of(connection)
        if lead is None:
            # A leader has just looked. Without a lead, the log may have been replaced since.
            head = read_head(connection)
            vendor.remember(connection, head.epoch, head.seq)
        if numbering.looks_at_everything:
            self._begin(connection, numbering)
        # Before the transaction: inside one, PostgreSQL cannot stamp the row.
        stamp = vendor.stamp(connection)
        inside = connection.in_atomic_block
        known: str | None = None
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            seq, commit_us, snapshot, most = self._lock(cursor, connection, where, mine)
            if most is not None and most > seq:
                raise _HeadBehind
            if snapshot is not None:
                numbering.ids_went_back(snapshot)
            ranked, parameters = numbering.ranked()
            sql = numbering_sql.NUMBER.format(ranked=ranked)
            cursor.execute(sql, [*parameters, limit, seq, commit_us, commit_us])
            count = int(cursor.rowcount)
            # A snapshot does not name the reader's own transaction, which may go on to write.
            if count < limit and not inside:
                known = snapshot
            if count:
                lease = "lease_until_us" if lead is None else leadership.renewal(connection)
                sql = numbering_sql.ADVANCE.format(lease=lease, stamp=stamp, mine=where)
                # A row without a stamp proves nothing, so no snapshot in it is kept, either.
                seen = "" if known is None else numbering.shortened(known)
                keep = known is None and not inside
                cursor.execute(sql, [count, keep, seen, count, *mine, count])
                if cursor.rowcount == 0:
                    raise OperationalError("entries were deleted while they were being numbered")
        if known is not None:
            numbering.remember(known)
        if count and not connection.in_atomic_block:
            now = find_head(connection)
            if now is not None:
                vendor.remember(connection, now.epoch, now.seq)
        return count

    def _begin(self, connection: BaseDatabaseWrapper, numbering: Numbering) -> None:
        """Remember the snapshot of the head row, if this log wrote it."""
        row = find_row(connection)
        seen = "" if row is None else row.known_snapshot(connection)
        if seen not in ("", self._distrusted):
            numbering.remember(seen)

    def _numbering_on(self, connection: BaseDatabaseWrapper) -> Numbering:
        if self._numbering is None:
            self._numbering = vendor_of(connection).numbering()
        return self._numbering

    def _lock(
        self, cursor: Any, connection: BaseDatabaseWrapper, where: str, mine: list[Any]
    ) -> tuple[int, int, str | None, int | None]:
        """Lock the head row. Returns its seq and commit_us; a database snapshot that is no newer
        than the numbering that follows, or None; and the largest number in the log. Raises
        Deposed."""
        for statement in self._numbering_on(connection).lock(where):
            cursor.execute(statement, mine)
        row: tuple[int, int, str | None, int | None] | None = cursor.fetchone()
        if row is not None:
            return row
        if mine:
            raise Deposed
        read_head(connection)
        return self._lock(cursor, connection, where, mine)
