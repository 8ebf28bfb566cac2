"""The database's clock, the only one that several machines share."""

from __future__ import annotations

from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal.vendor import vendor_of


def now_us(connection: BaseDatabaseWrapper) -> int:
    """Microseconds since 1970, on the clock that entries are captured by."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {now_us_sql(connection)}")
        return int(cursor.fetchone()[0])


def now_us_sql(connection: BaseDatabaseWrapper) -> str:
    """SQL for microseconds since 1970 by the database's clock."""
    return vendor_of(connection).now_us
