"""The database's clock, the only one that several machines share."""

from __future__ import annotations

from django.db.backends.base.base import BaseDatabaseWrapper


def now_us(connection: BaseDatabaseWrapper) -> int:
    """Microseconds since 1970, on the clock that entries are captured by."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {now_us_sql(connection)}")
        return int(cursor.fetchone()[0])


_NOW_US = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
}


def now_us_sql(connection: BaseDatabaseWrapper) -> str:
    """SQL for microseconds since 1970 by the database's clock."""
    return _NOW_US[connection.vendor]
