"""Prepares and checks the log for benchmarks: empties it, fills it with captured changes, and
checks their numbers. Measures nothing; the database is the one that Django is set up for.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator

from django.core.management import CommandError

IMAGE = json.dumps({"id": 1, "title": "a title", "body": "x" * 160, "is_public": False})
PER_TRANSACTION = 4
_INSERT = "INSERT INTO realtime_wal (op, pk_text, new, relation_id, txid, captured_us)"
BENCHMARK = "benchmark"


def empty(really: bool) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM realtime_wal WHERE relation_id <> %s", [BENCHMARK])
        if cursor.fetchone()[0] and not really:
            raise CommandError("The log holds entries of others; --really deletes them.")
        truncate = "TRUNCATE realtime_wal" if on_postgresql() else "DELETE FROM realtime_wal"
        cursor.execute(truncate)
        cursor.execute("DELETE FROM realtime_head")


def on_postgresql() -> bool:
    from django.db import connection

    return connection.vendor == "postgresql"


def fill(count: int, start: int = 0) -> None:
    """Captured changes of concurrent writers: the ids of two transactions interleave."""
    from django.db import connection

    series = (
        "SELECT n FROM generate_series(%s::int, %s) AS n"
        if on_postgresql()
        else "WITH RECURSIVE s(n) AS (VALUES (%s) UNION ALL SELECT n + 1 FROM s WHERE n < %s)"
        " SELECT n FROM s"
    )
    # The ids of transactions that ended long ago, below those of any running transaction.
    pair = 2 * PER_TRANSACTION
    tx = f"2 * (n / {pair}) + MOD(n, 2) - 1000000000" if on_postgresql() else "NULL"
    with connection.cursor() as cursor:
        cursor.execute(
            f"{_INSERT} SELECT 'INSERT', CAST(n AS VARCHAR(20)), %s, %s, {tx},"
            f" 1000000 + n FROM ({series}) AS numbers ORDER BY n",
            [IMAGE, BENCHMARK, start, start + count - 1],
        )


def commit(count: int, start: int) -> None:
    """Captured changes of real transactions, one after the other."""
    from django.db import connection

    if not on_postgresql():
        fill(count, start)
        return
    with connection.cursor() as cursor:
        cursor.execute(
            f"DO $do$ BEGIN FOR t IN 1..{count // PER_TRANSACTION} LOOP"
            f" {_INSERT} SELECT 'INSERT', n, '{IMAGE}', '{BENCHMARK}',"
            " pg_current_xact_id()::text::bigint, 1000000 + n"
            f" FROM generate_series(1, {PER_TRANSACTION}) AS n; COMMIT; END LOOP; END $do$"
        )


def vacuum() -> None:
    from django.db import connection

    if on_postgresql():
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE realtime_wal")


def check(count: int) -> None:
    """Raises AssertionError unless the numbers have no gap and the order is right."""
    from django.db import connection

    from realtime.models import LogHead

    assert LogHead.objects.get().seq == count
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT w.id, w.txid FROM realtime_wal AS w"
            " JOIN realtime_wal_number AS n ON n.entry_id = w.id ORDER BY n.seq"
        )
        rows = cursor.fetchall()
        cursor.execute("SELECT COUNT(DISTINCT seq), MIN(seq), MAX(seq) FROM realtime_wal_number")
        assert cursor.fetchone() == (count, 1, count)
        cursor.execute(
            "SELECT COUNT(*) FROM realtime_wal AS w JOIN realtime_wal_number AS n"
            " ON n.entry_id = w.id WHERE n.commit_us < w.captured_us"
        )
        assert cursor.fetchone() == (0,)
    if not on_postgresql():
        assert [id_ for id_, _ in rows] == sorted(id_ for id_, _ in rows)
        return
    last: dict[int, int] = {}
    order = []
    for id_, tx in rows:
        if tx not in last:
            order.append(tx)
        last[tx] = max(id_, last.get(tx, 0))
    assert order == sorted(order, key=lambda tx: last[tx])
    changes = sum(before != tx for (_, before), (_, tx) in itertools.pairwise(rows))
    assert changes == len(order) - 1


@contextlib.contextmanager
def open_transaction(wanted: bool) -> Iterator[None]:
    """A transaction of another session that has written and stays open."""
    if not (wanted and on_postgresql()):
        yield
        return
    from django.db import connection

    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()")
        yield
    finally:
        other.rollback()
        other.close()
