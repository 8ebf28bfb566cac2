"""The log of the test database."""

from __future__ import annotations

from django.db import connection

from realtime.event_log import sequencer
from realtime.wal.head import read_head


def empty_log() -> None:
    """Leaves the log as a new database has it: no entry, a new epoch."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM realtime_wal")
        cursor.execute("DELETE FROM realtime_head")
    read_head(connection)


def number_all() -> None:
    """Numbers every entry that has no number yet."""
    while sequencer.number(connection):
        pass
