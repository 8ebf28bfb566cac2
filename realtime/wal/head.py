"""The head row: how far the log is numbered, and in which epoch.

Never numbers; the sequencer moves the head in the transaction that numbers.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper


@dataclass(frozen=True, slots=True)
class Head:
    """How far the log is numbered. A new epoch means: forget every cursor."""

    epoch: str
    seq: int
    commit_us: int = 0


def find_head(connection: BaseDatabaseWrapper) -> Head | None:
    """The head as committed; None in a database that has none yet. Writes nothing."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT epoch, seq, commit_us FROM realtime_head WHERE id = 1")
        row = cursor.fetchone()
    return None if row is None else Head(*row)


def read_head(connection: BaseDatabaseWrapper) -> Head:
    """The head as committed. Creates its row in a database that has none yet."""
    head = find_head(connection)
    while head is None:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO realtime_head "
                "(id, epoch, seq, commit_us, term, leader, lease_until_us) "
                "SELECT 1, %s, COALESCE(MAX(seq), 0), COALESCE(MAX(commit_us), 0), 0, '', 0 "
                "FROM realtime_wal WHERE 1 = 1 ON CONFLICT (id) DO NOTHING",
                [uuid.uuid4().hex],
            )
        head = find_head(connection)
    return head


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
