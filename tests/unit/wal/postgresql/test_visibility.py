"""Snapshots of PostgreSQL, and what of a long one is kept."""

from __future__ import annotations

from realtime.wal.postgresql.visibility import Visibility, parse, shortened


def test_a_snapshot_with_few_running_transactions_stays_as_it_is() -> None:
    assert shortened("10:20:") == "10:20:"
    assert shortened("10:20:10,12") == "10:20:10,12"


def test_a_long_snapshot_ends_before_a_running_transaction_and_stays_true() -> None:
    running = range(100, 1000, 3)
    long = f"100:1001:{','.join(map(str, running))}"
    short = parse(shortened(long))
    assert len(shortened(long)) < 1_000
    assert short.next in running
    assert short.running == tuple(n for n in running if n < short.next)
    assert parse(long) == Visibility(1001, tuple(running))
