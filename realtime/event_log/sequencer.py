"""Numbers WAL entries: gapless, whole transactions together, every row's history in order.

Ids of the WAL table are drawn before their transaction commits, so they are not commit order and
cannot serve as a cursor. Here a single statement numbers what one snapshot shows. Transactions are
ordered by their largest id: if one transaction waited for another (they wrote the same row), it
drew its last id after the other had committed, so its entries are numbered later. Entries that
become visible afterwards are numbered afterwards, which holds up nobody else.

The head row is locked first. Whoever numbers, numbers alone; a second sequencer waits and then sees
only what is left, since on PostgreSQL (READ COMMITTED) every statement has a snapshot of its own.
Never reads business tables; never deletes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.event_log import leadership, numbering_sql, visibility
from realtime.event_log.leadership import Claim, Deposed, LeaseState
from realtime.event_log.table import BATCH
from realtime.event_log.visibility import Horizon
from realtime.wal.clock import now_us_sql
from realtime.wal.head import Head, read_head

# The horizon is a shortcut, so now and then everything is looked at, but for at most this part of
# the time.
_EVERYTHING_SECONDS = 10.0
_EVERYTHING_SHARE = 0.05


def number(connection: BaseDatabaseWrapper, limit: int = BATCH) -> int:
    """Number up to about `limit` entries, whoever leads; how many were numbered."""
    return Sequencer().number(connection, limit)


@dataclass(frozen=True, slots=True)
class Look:
    """One glance at the log: its head, who leads, and whether entries wait for a number."""

    head: Head
    standing: LeaseState
    waiting: bool


class Sequencer:
    """Looks and numbers. What it remembers is a shortcut and may be forgotten at any time."""

    def __init__(self) -> None:
        self._horizon: Horizon | None = None
        self._everything_at = 0.0

    def forget(self) -> None:
        """Look at everything next time. For a new connection: the server may be another one."""
        self._horizon = None

    def look(self, connection: BaseDatabaseWrapper) -> Look:
        """The log as committed, in one statement."""
        postgresql = connection.vendor == "postgresql"
        if time.monotonic() >= self._everything_at:
            self._horizon = None
        everything = self._horizon is None
        waiting, parameters = visibility.any_row(self._horizon)
        sql = numbering_sql.LOOK.format(
            now=now_us_sql(connection),
            snapshot=visibility.SNAPSHOT if postgresql else "NULL",
            waiting=waiting,
        )
        began = time.monotonic()
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            row = cursor.fetchone()
        if row is None:
            read_head(connection)
            return self.look(connection)
        if everything:
            ended = time.monotonic()
            pause = max(_EVERYTHING_SECONDS, (ended - began) / _EVERYTHING_SHARE)
            self._everything_at = ended + pause
        look = Look(Head(*row[:3]), LeaseState(Claim(row[3], row[4]), row[5]), bool(row[7]))
        if postgresql:
            seen = visibility.parse(row[6])
            if self._horizon is not None and seen.next < self._horizon.next:
                # Another server, with a past of its own, has taken over the address.
                self._horizon = None
                return self.look(connection)
            if not look.waiting:
                self._horizon = seen
        return look

    def number(
        self, connection: BaseDatabaseWrapper, limit: int = BATCH, claim: Claim | None = None
    ) -> int:
        """Number up to about `limit` entries, whole transactions only; how many were numbered.

        All or nothing: a crash at any point leaves entries unnumbered and the head where it was.
        With a claim, renews its lease, or raises Deposed and does nothing if it is void.
        """
        mine: list[Any] = [] if claim is None else [claim.term, claim.leader]
        where = "" if claim is None else numbering_sql.MINE
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            locked = self._lock(cursor, connection, where, mine)
            if locked is None:
                raise Deposed
            seq, commit_us, snapshot = locked
            placed, parameters = self._placed(connection)
            sql = numbering_sql.NUMBER.format(placed=placed)
            cursor.execute(sql, [seq, commit_us, commit_us, *parameters, limit])
            count = int(cursor.rowcount)
            if count:
                lease = "lease_until_us" if claim is None else leadership.renewal(connection)
                sql = numbering_sql.ADVANCE.format(lease=lease, mine=where)
                cursor.execute(sql, [count, count, *mine, count])
                if cursor.rowcount == 0:
                    raise OperationalError("entries were deleted while they were being numbered")
        if snapshot is not None and count < limit:
            self._horizon = visibility.parse(snapshot)
        return count

    def _placed(self, connection: BaseDatabaseWrapper) -> tuple[str, list[Any]]:
        if connection.vendor == "sqlite":
            return numbering_sql.PLACED_SQLITE, []
        backlog, parameters = visibility.rows(numbering_sql.COLUMNS, self._horizon)
        return numbering_sql.PLACED.format(backlog=backlog), parameters

    def _lock(
        self, cursor: Any, connection: BaseDatabaseWrapper, where: str, mine: list[Any]
    ) -> tuple[int, int, str | None] | None:
        """Take the lock that makes what follows one decision. Returns where the head stands and,
        on PostgreSQL, a snapshot no newer than what is numbered next; None if it is not ours."""
        if connection.vendor == "postgresql":
            # Without a new version of the row, of which an open transaction would keep every one.
            lock = numbering_sql.LOCK.format(snapshot=visibility.SNAPSHOT, mine=where)
        else:
            cursor.execute(f"UPDATE realtime_head SET seq = seq WHERE id = 1{where}", mine)
            lock = f"SELECT seq, commit_us, NULL FROM realtime_head WHERE id = 1{where}"
        cursor.execute(lock, mine)
        row: tuple[int, int, str | None] | None = cursor.fetchone()
        if row is None and not mine:
            read_head(connection)
            return self._lock(cursor, connection, where, mine)
        return row
