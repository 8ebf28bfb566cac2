"""One database snapshot for several queries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections

from realtime.wal.vendor import vendor_of


@contextmanager
def one_snapshot(alias: str) -> Iterator[None]:
    """One database snapshot for the queries of the block, without a lock on writers. Raises
    UnknownVendor, and what the database raises.

    The statements are issued here, because `atomic` would begin a transaction as the project's
    settings say, which may be that of a writer.
    """
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute(vendor_of(connection).begin_snapshot)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK")
