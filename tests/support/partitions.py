"""A log in small partitions on PostgreSQL, and the log as `migrate` makes it again afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from django.db import connection

from realtime.wal.partitions import Spans
from realtime.wal.postgresql import partitioning
from realtime.wal.postgresql.partitions import PostgresqlPartitions
from realtime.wal.vendor import vendor_of
from tests.support.log import empty_log
from tests.support.postgresql_tables import another

SMALL = Spans(least=100, share=1_000, ahead=1, margin=50)


@contextmanager
def plain_log() -> Iterator[None]:
    """A log in one table, as before the migration; empty, with ids from 1 on."""
    empty_log()
    vendor_of(connection).unpartition_log(connection)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_serial_sequence('realtime_wal', 'id')")
        cursor.execute(f"ALTER SEQUENCE {cursor.fetchone()[0]} RESTART")
    empty_log()
    try:
        yield
    finally:
        if connection.in_atomic_block:
            connection.rollback()
        empty_log()
        vendor_of(connection).unpartition_log(connection)
        vendor_of(connection).partition_log(connection)


@contextmanager
def small_partitions() -> Iterator[PostgresqlPartitions]:
    """An empty log with ids from 1 on, in partitions of 100."""
    with plain_log():
        partitioning.partition(connection, SMALL)
        yield PostgresqlPartitions(connection, SMALL)


def ranges(partitions: PostgresqlPartitions) -> list[tuple[int | None, int]]:
    return [(p.first, p.end) for p in partitions.layout().partitions]


def notes(count: int) -> str:
    """A statement that writes so many rows."""
    rows = f"generate_series(1, {count})"
    return f"INSERT INTO zoo_note (title, body, is_public) SELECT 'n', '', false FROM {rows} AS n"


@contextmanager
def writers(count: int, rows: int, pause: float = 0.0) -> Iterator[list[int]]:
    """Programs that write so many rows at a time while the block runs, with a pause in between.

    The list gets the number of rows of each write. Raises what a write raises.
    """
    stop = threading.Event()
    written: list[int] = []

    def work() -> None:
        with another() as link:
            link.execute("SET lock_timeout = '2s'")
            while not stop.wait(pause):
                link.execute(notes(rows))
                written.append(rows)

    with ThreadPoolExecutor(count) as threads:
        working = [threads.submit(work) for _ in range(count)]
        try:
            yield written
        finally:
            stop.set()
        for one in working:
            one.result()
