"""Bytes that PostgreSQL writes to its own write-ahead log for each captured change.

By what happens to a change: its capture, its number, and its deletion, each with the vacuum that
cleans up after it. Full page images are in the figures as they come, checkpoints are kept away.
Prints nothing. The database is the one that Django is set up for, which must be PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from benchmarks.entries import check, commit, empty

CAPTURE, NUMBERING, PRUNING = "capture", "numbering", "pruning"
VACUUM = "vacuum after {}"
ALL = "all together"


def measure(rounds: int, count: int) -> dict[str, list[float]]:
    """Bytes for each change, by part: a figure per round. `count` is a multiple of 4,000."""
    from django.db import connection

    from realtime.event_log.sequencer import Sequencer
    from realtime.process import pruning

    found: dict[str, list[float]] = {}

    def number() -> None:
        sequencer = Sequencer()
        while sequencer.look(connection).waiting:
            sequencer.number(connection, 1_000)

    def prune() -> None:
        # `commit` writes times of 1970, so that every entry is old enough.
        assert pruning.prune(timedelta(0)).entries == count

    def vacuum() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT relname FROM pg_class WHERE relname LIKE 'realtime_wal%' AND relkind = 'r'"
            )
            for (table,) in cursor.fetchall():
                cursor.execute(f"VACUUM {table}")

    def add(part: str, work: Callable[[], None]) -> None:
        before = _position()
        work()
        found.setdefault(part, []).append((_position() - before) / count)

    for _ in range(rounds):
        empty(True)
        with connection.cursor() as cursor:
            cursor.execute("CHECKPOINT")
        add(CAPTURE, lambda: commit(count, 0))
        add(NUMBERING, number)
        check(count)
        add(VACUUM.format(NUMBERING), vacuum)
        add(PRUNING, prune)
        add(VACUUM.format(PRUNING), vacuum)
        empty(True)
    found[ALL] = [sum(parts) for parts in zip(*found.values(), strict=True)]
    return found


def _position() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return int(cursor.fetchone()[0])
