"""Bounds of partitions as PostgreSQL prints them."""

from __future__ import annotations

from realtime.wal.partitions import Partition
from realtime.wal.postgresql.partitions import parse


def test_bounds_are_read_with_and_without_quotes() -> None:
    assert parse("a", "FOR VALUES FROM ('100') TO ('200')") == Partition("a", 100, 200)
    assert parse("a", "FOR VALUES FROM (-100) TO (200)") == Partition("a", -100, 200)
    assert parse('s."A"', "FOR VALUES FROM (MINVALUE) TO ('200')") == Partition('s."A"', None, 200)


def test_the_default_partition_is_none() -> None:
    assert parse("a", "DEFAULT") is None
