"""Whose head row it is, as PostgreSQL tells."""

from __future__ import annotations

from typing import Any

from django.db import connection

from realtime.wal.vendor import vendor_of
from tests.support.vendors import on_postgresql

pytestmark = on_postgresql


def own(stamp: str, writer: str) -> bool:
    return vendor_of(connection).is_own(connection, "epoch", 1, stamp, writer)


def test_a_timeline_that_some_connection_could_not_ask_for_is_no_restore(wal: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 'realtime_head'::regclass::oid::text || '.' || d.oid::text"
            " FROM pg_database AS d WHERE d.datname = current_database()"
        )
        (place,) = cursor.fetchone()
    assert own(f"7:{place}.", "7")
    assert own(f"7:{place}.1", "7")
    # Another writer, another database: whether the timeline is known or not.
    assert not own(f"7:{place}.", "8")
    assert not own(f"7:{place}0.", "7")
    assert not own(f"7:{place}0.1", "7")
