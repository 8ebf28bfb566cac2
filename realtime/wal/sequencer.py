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
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.event import WalRow
from realtime.wal import horizon, leadership, statements
from realtime.wal.horizon import Horizon
from realtime.wal.leadership import Claim, Deposed, Standing

BATCH = 1_000

# The horizon is a shortcut, so now and then everything is looked at, but for at most this part of
# the time.
_EVERYTHING_SECONDS = 10.0
_EVERYTHING_SHARE = 0.05

_READ = """
SELECT seq, commit_us, relation_id, op, {old}, {new}
FROM realtime_wal WHERE seq > %s AND seq <= %s ORDER BY seq LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Head:
    """How far the log is numbered. A new epoch means: forget every cursor."""

    epoch: str
    seq: int
    commit_us: int = 0


def read_head(connection: BaseDatabaseWrapper) -> Head:
    """The head as committed. Creates its row in a database that has none yet."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT epoch, seq, commit_us FROM realtime_head WHERE id = 1")
        row = cursor.fetchone()
        if row is None:
            cursor.execute(
                "INSERT INTO realtime_head "
                "(id, epoch, seq, commit_us, term, leader, lease_until_us) "
                "SELECT 1, %s, COALESCE(MAX(seq), 0), COALESCE(MAX(commit_us), 0), 0, '', 0 "
                "FROM realtime_wal WHERE 1 = 1 ON CONFLICT (id) DO NOTHING",
                [uuid.uuid4().hex],
            )
            cursor.execute("SELECT epoch, seq, commit_us FROM realtime_head WHERE id = 1")
            row = cursor.fetchone()
    return Head(*row)


def backlog(connection: BaseDatabaseWrapper) -> int:
    """How many committed entries are not numbered yet."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM realtime_wal WHERE seq IS NULL")
        return int(cursor.fetchone()[0])


def number(connection: BaseDatabaseWrapper, limit: int = BATCH) -> int:
    """Number up to about `limit` entries, whoever leads; how many were numbered."""
    return Sequencer().number(connection, limit)


@dataclass(frozen=True, slots=True)
class Look:
    """One glance at the log: its head, who leads, and whether entries wait for a number."""

    head: Head
    standing: Standing
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
        waiting, parameters = horizon.any_row(self._horizon)
        sql = statements.LOOK.format(
            now=leadership.now_us(connection),
            snapshot=horizon.SNAPSHOT if postgresql else "NULL",
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
        look = Look(Head(*row[:3]), Standing(Claim(row[3], row[4]), row[5]), bool(row[7]))
        if postgresql:
            seen = horizon.parse(row[6])
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
        where = "" if claim is None else statements.MINE
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            locked = self._lock(cursor, connection, where, mine)
            if locked is None:
                raise Deposed
            seq, commit_us, snapshot = locked
            placed, parameters = self._placed(connection)
            sql = statements.NUMBER.format(placed=placed)
            cursor.execute(sql, [seq, commit_us, commit_us, *parameters, limit])
            count = int(cursor.rowcount)
            if count:
                lease = "lease_until_us" if claim is None else leadership.renewal(connection)
                sql = statements.ADVANCE.format(lease=lease, mine=where)
                cursor.execute(sql, [count, count, *mine, count])
                if cursor.rowcount == 0:
                    raise OperationalError("entries were deleted while they were being numbered")
        if snapshot is not None and count < limit:
            self._horizon = horizon.parse(snapshot)
        return count

    def _placed(self, connection: BaseDatabaseWrapper) -> tuple[str, list[Any]]:
        if connection.vendor == "sqlite":
            return statements.PLACED_SQLITE, []
        backlog, parameters = horizon.rows(statements.COLUMNS, self._horizon)
        return statements.PLACED.format(backlog=backlog), parameters

    def _lock(
        self, cursor: Any, connection: BaseDatabaseWrapper, where: str, mine: list[Any]
    ) -> tuple[int, int, str | None] | None:
        """Take the lock that makes what follows one decision. Returns where the head stands and,
        on PostgreSQL, a snapshot no newer than what is numbered next; None if it is not ours."""
        if connection.vendor == "postgresql":
            # Without a new version of the row, of which an open transaction would keep every one.
            lock = statements.LOCK.format(snapshot=horizon.SNAPSHOT, mine=where)
        else:
            cursor.execute(f"UPDATE realtime_head SET seq = seq WHERE id = 1{where}", mine)
            lock = f"SELECT seq, commit_us, NULL FROM realtime_head WHERE id = 1{where}"
        cursor.execute(lock, mine)
        row: tuple[int, int, str | None] | None = cursor.fetchone()
        if row is None and not mine:
            read_head(connection)
            return self._lock(cursor, connection, where, mine)
        return row


def read(
    connection: BaseDatabaseWrapper, after: int, upto: int, limit: int = BATCH
) -> list[WalRow]:
    """Numbered entries with after < seq <= upto, in order, at most `limit` of them."""
    # As bytes: a text that is not valid UTF-8 must not stop the log.
    as_bytes = "CAST({} AS BLOB)" if connection.vendor == "sqlite" else "CONVERT_TO({}, 'UTF8')"
    sql = _READ.format(old=as_bytes.format("old"), new=as_bytes.format("new"))
    with connection.cursor() as cursor:
        cursor.execute(sql, [after, upto, limit])
        return [WalRow(*row[:4], _bytes(row[4]), _bytes(row[5])) for row in cursor]


def _bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    raw = bytes(value)
    try:
        raw.decode()
    except UnicodeDecodeError:
        raw = raw.decode(errors="replace").encode()
    return raw


def seq_at(connection: BaseDatabaseWrapper, commit_us: int) -> int | None:
    """The seq of the last kept entry committed at or before `commit_us`; None if none is.

    commit_us rises with seq, so the search halves the seq range instead of needing an index.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT MIN(seq), MAX(seq) FROM realtime_wal")
        low, high = cursor.fetchone()
        found = None
        while low is not None and low <= high:
            middle = (low + high) // 2
            cursor.execute("SELECT commit_us FROM realtime_wal WHERE seq = %s", [middle])
            row = cursor.fetchone()
            if row is not None and row[0] > commit_us:
                high = middle - 1
            else:
                found, low = middle if row is not None else found, middle + 1
    return found


def read_relations(connection: BaseDatabaseWrapper, ids: Sequence[str]) -> dict[str, str]:
    """The definitions (JSON) of these relations, by id."""
    if not ids:
        return {}
    marks = ", ".join(["%s"] * len(ids))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, definition FROM realtime_wal_relation WHERE id IN ({marks})", list(ids)
        )
        return dict(cursor.fetchall())


def renew_epoch(connection: BaseDatabaseWrapper, seen: Head) -> Head:
    """Start a new epoch if the log went back behind `seen` (a restored backup)."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE realtime_head SET epoch = %s, commit_us = CASE WHEN commit_us > %s "
            "THEN commit_us ELSE %s END WHERE id = 1 AND epoch = %s AND seq < %s",
            [uuid.uuid4().hex, _now_us(), _now_us(), seen.epoch, seen.seq],
        )
    return read_head(connection)


def begin_epoch(connection: BaseDatabaseWrapper) -> Head:
    """Start a new epoch where the log stands: what was written meanwhile is not in it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE realtime_head SET epoch = %s WHERE id = 1 AND seq > 0", [uuid.uuid4().hex]
        )
    return read_head(connection)


def _now_us() -> int:
    return time.time_ns() // 1_000
