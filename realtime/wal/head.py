"""The head row: how far the log is numbered, and in which epoch.

Never numbers; the sequencer moves the head in the transaction that numbers.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal import clock
from realtime.wal.vendor import vendor_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Head:
    """How far the log is numbered: `seq` and `commit_us` of the last entry. In a new epoch no
    earlier cursor is valid. `epoch_us` is when the epoch began, 0 for the first one. Times are
    those of the log, in microseconds since 1970."""

    epoch: str
    seq: int
    commit_us: int = 0
    epoch_us: int = 0


@dataclass(frozen=True, slots=True)
class HeadRow:
    """The head row with the marks of its writer: see `Vendor.stamp` and `Vendor.head_writer`.
    `seen`: a snapshot of the database all of whose entries have numbers, or ""; see `Numbering`."""

    head: Head
    stamp: str
    writer: str
    seen: str

    def known_snapshot(self, connection: BaseDatabaseWrapper) -> str:
        """`seen`, if it is certain that this log wrote the row; else ""."""
        return self.seen if self.seen and self.stamp and self.is_own(connection) else ""

    def is_own(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether clients' cursors can be trusted (see `Vendor.is_own`)."""
        head = self.head
        return vendor_of(connection).is_own(
            connection, head.epoch, head.seq, self.stamp, self.writer
        )


def find_row(connection: BaseDatabaseWrapper) -> HeadRow | None:
    """The head row as committed; None in a database that has none yet. Writes nothing."""
    writer = vendor_of(connection).head_writer
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT epoch, seq, commit_us, epoch_us, stamp, {writer}, seen"
            " FROM realtime_head WHERE id = 1"
        )
        row = cursor.fetchone()
    return None if row is None else HeadRow(Head(*row[:4]), *row[4:])


def find_head(connection: BaseDatabaseWrapper) -> Head | None:
    """The head as committed; None in a database that has none yet. Writes nothing."""
    row = find_row(connection)
    return None if row is None else row.head


def read_head(connection: BaseDatabaseWrapper) -> Head:
    """The head as committed. Creates its row in a database that has none yet, and begins a new
    epoch if this log did not write it (see `HeadRow.is_own`)."""
    row = find_row(connection)
    while row is None:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO realtime_head (id, epoch, seq, commit_us, term, leader,"
                " lease_until_us, epoch_us, stamp, seen) SELECT 1, %s, COALESCE(MAX(seq), 0),"
                " COALESCE(MAX(commit_us), 0), 0, '', 0, 0, '', ''"
                " FROM realtime_wal_number WHERE 1 = 1 ON CONFLICT (id) DO NOTHING",
                [uuid.uuid4().hex],
            )
        row = find_row(connection)
    return row.head if row.is_own(connection) else disown(connection, row.head)


def disown(connection: BaseDatabaseWrapper, seen: Head) -> Head:
    """Start a new epoch, unless the head has moved since `seen`: that one was not written by this
    log, or the log has gone back behind it. What a head is compared with is read after it, and may
    be that of a later one."""
    if _begin(connection, "AND epoch = %s AND seq = %s", [seen.epoch, seen.seq]):
        logger.warning(
            "the log is not the one that clients know (a restore, a copy or a fixture): "
            "a new epoch begins after seq %s",
            seen.seq,
            extra={"action": "epoch_changed"},
        )
    return _found(connection)


def renew_epoch(connection: BaseDatabaseWrapper, seen: Head) -> Head:
    """Start a new epoch if the log went back behind `seen` (a restored backup)."""
    _begin(connection, "AND epoch = %s AND seq < %s", [seen.epoch, seen.seq])
    return _found(connection)


def begin_epoch(connection: BaseDatabaseWrapper) -> Head:
    """Start a new epoch at the end of the log, because changes may be missing from it."""
    _begin(connection, "AND seq > 0", [])
    return _found(connection)


def _begin(connection: BaseDatabaseWrapper, where: str, parameters: list[Any]) -> bool:
    """Begin an epoch if the head row fulfils `where`. Returns whether it did. The epoch begins
    behind every entry: the head may come from elsewhere and be behind, and no number is given
    twice."""
    # Times in the log are by the database's clock; that of this machine may be another one.
    now_us = clock.now_us(connection)
    epoch = uuid.uuid4().hex
    # Later than every timestamp in the log, so that timestamps of older epochs lie before it.
    commit_us = (
        "(SELECT CASE WHEN m > %s THEN m ELSE %s END FROM (SELECT CASE WHEN realtime_head.commit_us"
        " > COALESCE(MAX(w.commit_us), 0) THEN realtime_head.commit_us"
        " ELSE COALESCE(MAX(w.commit_us), 0) END AS m FROM realtime_wal_number AS w) AS most)"
    )
    seq = (
        "(SELECT CASE WHEN realtime_head.seq >= COALESCE(MAX(w.seq), 0) THEN realtime_head.seq"
        " ELSE MAX(w.seq) END FROM realtime_wal_number AS w)"
    )
    vendor = vendor_of(connection)
    # Before the transaction: inside one, PostgreSQL cannot stamp the row.
    stamp = vendor.stamp(connection)
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE realtime_head SET epoch = %s, seq = {seq}, commit_us = {commit_us},"
            f" epoch_us = {commit_us}, stamp = {stamp}, seen = '' WHERE id = 1 {where}",
            [epoch, now_us, now_us, now_us, now_us, *parameters],
        )
        if not cursor.rowcount:
            return False
        head = find_head(connection)
        if head is not None:
            # Inside the transaction, so that no other process sees the one without the other and
            # begins an epoch too.
            vendor.remember(connection, head.epoch, head.seq)
    return True


def _found(connection: BaseDatabaseWrapper) -> Head:
    return find_head(connection) or read_head(connection)
