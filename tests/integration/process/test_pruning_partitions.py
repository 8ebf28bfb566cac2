"""Pruning drops whole partitions, and none that somebody still needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection

from realtime.event_log.read_holds import holds
from realtime.event_log.table import backlog, oldest_seq, read_rows
from realtime.models import Process, WalEntry, WalNumber
from realtime.process import pruning
from realtime.process.pruning import AnotherPrunes, Pruned
from realtime.process.registry import Registration, Report
from realtime.wal.postgresql.partitions import PostgresqlPartitions
from realtime.wal.postgresql.vendor import PRUNING_LOCK
from tests.support.log import number_all
from tests.support.partitions import notes, ranges, small_partitions, writers
from tests.support.postgresql_tables import another, sql
from tests.support.threads import at_once
from tests.support.vendors import on_postgresql

pytestmark = [on_postgresql, pytest.mark.usefixtures("wal")]


@pytest.fixture
def partitions(wal: None) -> Iterator[PostgresqlPartitions]:
    with small_partitions() as found:
        yield found


def write(partitions: PostgresqlPartitions, count: int) -> None:
    """Commit and number so many changes, some hundreds at most for each partition."""
    for _ in range(count // 50):
        sql(notes(50))
        partitions.make_missing()
    number_all()


def age(upto: int) -> None:
    """Let these entries be of 1970, and the others of now."""
    WalNumber.objects.filter(seq__lte=upto).update(commit_us=1)


def age_a_little(upto: int) -> None:
    """Let these entries be just beyond retention."""
    ago = "(extract(epoch FROM clock_timestamp()) - 73 * 3600)::bigint * 1000000"
    sql(f"UPDATE realtime_wal_number SET commit_us = {ago} + seq WHERE seq <= {upto}")


def prune() -> Pruned:
    """As a worker does."""
    *_, last = pruning.steps("default", whole_partitions=True)
    return last


def truncated(work: Callable[[], Any]) -> int:
    """How many partitions are emptied whole while this works, by their files."""

    def files() -> set[Any]:
        return set(
            sql(
                "SELECT pg_relation_filenode(inhrelid) FROM pg_inherits"
                " WHERE inhparent = 'realtime_wal'::regclass"
            )
        )

    before = files()
    work()
    return len(before - files())


def test_what_is_whole_beyond_retention_goes_at_once_and_its_partition_with_it(
    partitions: PostgresqlPartitions,
) -> None:
    write(partitions, 500)
    age_a_little(350)
    pruned = prune()
    # Ids begin with 1, so the first partition holds 99.
    assert pruned.entries == 299
    assert ranges(partitions)[0] == (300, 400)
    assert oldest_seq(connection) == 300
    assert WalNumber.objects.count() == WalEntry.objects.count() == 201
    assert [row.seq for row in read_rows("default", 299, 500)] == list(range(300, 501))


def test_a_run_by_hand_deletes_the_rest_too(partitions: PostgresqlPartitions) -> None:
    write(partitions, 500)
    age_a_little(350)
    assert pruning.prune().entries == 350
    assert oldest_seq(connection) == 351
    assert ranges(partitions)[0] == (300, 400)


def test_entries_that_wait_too_long_for_the_rest_of_their_partition_are_deleted(
    partitions: PostgresqlPartitions,
) -> None:
    write(partitions, 50)
    age_a_little(20)
    assert prune().entries == 0
    # Longer ago than retention and an eighth of it.
    age(10)
    assert prune().entries == 10
    assert oldest_seq(connection) == 11


def test_a_reader_keeps_its_partition_and_all_later_ones(
    partitions: PostgresqlPartitions,
) -> None:
    write(partitions, 500)
    age(500)
    with holds.reading(after=249):
        reader = Registration("default", "reader", Process.Kind.WORKER)
        reader.renew(Report())
        try:
            pruned = prune()
            assert pruned.held_at == 250
            assert [row.seq for row in read_rows("default", 249, 500)] == list(range(250, 501))
        finally:
            reader.leave()
    prune()
    assert WalNumber.objects.count() <= 2


def test_a_reader_that_begins_while_partitions_go_is_respected(
    partitions: PostgresqlPartitions,
) -> None:
    write(partitions, 500)
    age(500)
    steps = pruning.steps("default", whole_partitions=True)
    assert next(steps).entries == 99
    reader = Registration("default", "reader", Process.Kind.WORKER)
    with holds.reading(after=149):
        reader.renew(Report())
        list(steps)
        assert [row.seq for row in read_rows("default", 149, 500)] == list(range(150, 501))
    reader.leave()


def test_what_a_server_has_not_handed_on_keeps_its_partition(
    partitions: PostgresqlPartitions,
) -> None:
    write(partitions, 500)
    age(500)
    server = Registration("default", "server", Process.Kind.SERVER)
    server.renew(Report(position=220))
    try:
        prune()
        assert [row.seq for row in read_rows("default", 220, 500)] == list(range(221, 501))
    finally:
        server.leave()


def test_a_transaction_that_wrote_long_ago_and_is_still_open_loses_nothing(
    partitions: PostgresqlPartitions,
) -> None:
    with another() as writer, writer.transaction():
        writer.execute(notes(5))
        write(partitions, 500)
        age(500)
        assert truncated(prune) > 2
        assert ranges(partitions)[0] == (None, 100)
    assert backlog(connection) == 5
    number_all()
    assert [row.seq for row in read_rows("default", 500, 600)] == list(range(501, 506))
    # Now they are numbered, and young.
    prune()
    assert len(read_rows("default", 500, 600)) == 5
    age(505)
    prune()
    assert WalEntry.objects.count() < 100
    assert ranges(partitions)[0] != (None, 100)


def test_an_entry_without_a_number_keeps_its_partition(
    partitions: PostgresqlPartitions,
) -> None:
    write(partitions, 500)
    age(500)
    WalNumber.objects.filter(seq=120).delete()
    prune()
    # It is behind what was numbered, so nobody numbers it: realtime_repair says so.
    assert list(WalEntry.objects.filter(seq=None).values_list("pk", flat=True)) == [120]
    assert (100, 200) in ranges(partitions)


def test_writers_feel_nothing_while_partitions_go(partitions: PostgresqlPartitions) -> None:
    write(partitions, 500)
    age(500)
    # Between two writes nobody may hold the log, also where one processor has to do.
    with writers(3, rows=2, pause=0.005) as written:
        deadline = time.monotonic() + 30
        while ranges(partitions)[0][0] is None and time.monotonic() < deadline:
            prune()
    assert ranges(partitions)[0][0] is not None
    number_all()
    assert [row.seq for row in read_rows("default", 500, 10**6, 10**6)][-1] == 500 + sum(written)


def test_a_transaction_that_is_open_keeps_empty_partitions_and_waits_for_nothing(
    partitions: PostgresqlPartitions,
) -> None:
    write(partitions, 500)
    age(500)
    with another() as writer, writer.transaction():
        writer.execute(notes(1))
        prune()
        # Their entries are gone, and so is what they took on disk.
        assert ranges(partitions)[0] == (None, 100)
        assert sql("SELECT pg_table_size('realtime_wal_first')")[0][0] <= 8_192
    prune()
    assert ranges(partitions)[0] != (None, 100)


def test_two_pruners_at_once_prune_once(partitions: PostgresqlPartitions) -> None:
    write(partitions, 500)
    age(500)
    with another() as other, other.transaction():
        other.execute(f"SELECT pg_advisory_xact_lock({PRUNING_LOCK})")
        with pytest.raises(AnotherPrunes):
            prune()
    assert WalEntry.objects.count() == 500

    def run() -> None:
        with suppress(AnotherPrunes):
            pruning.prune()

    at_once(3, run)
    pruning.prune()
    assert WalEntry.objects.count() == WalNumber.objects.count() == 0


@pytest.mark.parametrize("after", range(1, 8))
def test_a_pruner_that_is_killed_leaves_nothing_behind_for_ever(
    partitions: PostgresqlPartitions, after: int
) -> None:
    write(partitions, 500)
    age(500)
    steps = pruning.steps("default", whole_partitions=True)
    for _ in range(after):
        next(steps, None)
    steps.close()
    prune()
    assert backlog(connection) == 0
    assert ranges(partitions)[0] == (500, 600)
    assert WalNumber.objects.count() == WalEntry.objects.count()
    left = sql("SELECT relname FROM pg_class WHERE relname ~ '^realtime_wal_(first|[0-9]+)$'")
    assert len(left) == len(partitions.layout().partitions)


def test_what_is_in_the_default_partition_is_deleted_in_time(
    partitions: PostgresqlPartitions,
) -> None:
    sql(notes(150))
    sql(notes(150))
    number_all()
    assert partitions.strays(1_000) == 101
    age(300)
    prune()
    assert partitions.strays(1_000) == 0
    assert WalNumber.objects.count() == 0


def test_a_dry_run_empties_nothing(partitions: PostgresqlPartitions) -> None:
    write(partitions, 300)
    age(300)
    assert pruning.prune(dry_run=True).entries == 300
    assert WalEntry.objects.count() == 300
