"""The database's clock, the only one that several machines share."""

from __future__ import annotations

from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal import leadership


def now_us(connection: BaseDatabaseWrapper) -> int:
    """Microseconds since 1970, on the clock that entries are captured by."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {leadership.now_us(connection)}")
        return int(cursor.fetchone()[0])
