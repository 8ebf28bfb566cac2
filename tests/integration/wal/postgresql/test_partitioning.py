"""A log in one table becomes one in partitions while writers go on, and the other way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from realtime.event_log.sequencer import Sequencer
from realtime.event_log.table import read_rows
from realtime.models import WalEntry
from realtime.wal.head import read_head
from realtime.wal.postgresql import partitioning
from realtime.wal.postgresql.partitions import PostgresqlPartitions, is_partitioned
from realtime.wal.vendor import vendor_of
from tests.support.log import number_all
from tests.support.partitions import SMALL, notes, plain_log, ranges, writers
from tests.support.postgresql_tables import another, sql
from tests.support.row_security import CLERK
from tests.support.vendors import on_postgresql

pytestmark = [on_postgresql, pytest.mark.usefixtures("wal")]


@pytest.fixture(autouse=True)
def plain(wal: None) -> Iterator[None]:
    with plain_log():
        yield


def write(count: int) -> None:
    sql(notes(count))


def test_what_there_is_stays_and_goes_on_under_its_numbers() -> None:
    write(30)
    number_all()
    write(3)
    rows, head = read_rows("default", 0, 100), read_head(connection)
    working = Sequencer()
    assert working.look(connection).waiting

    partitioning.partition(connection, SMALL)
    assert is_partitioned(connection)
    assert ranges(PostgresqlPartitions(connection, SMALL)) == [(None, 100), (100, 200)]
    assert read_rows("default", 0, 100) == rows
    assert read_head(connection).epoch == head.epoch
    # A sequencer that was at work goes on, and so does the sequence of ids.
    assert working.look(connection).waiting
    assert working.number(connection) == 3
    write(2)
    assert sql("SELECT MAX(id) FROM realtime_wal") == [(35,)]
    assert working.number(connection) == 2
    assert [row.seq for row in read_rows("default", 0, 100)] == list(range(1, 36))

    vendor_of(connection).unpartition_log(connection)
    assert not is_partitioned(connection)
    write(1)
    assert Sequencer().number(connection) == 1
    assert [row.seq for row in read_rows("default", 0, 100)] == list(range(1, 37))
    assert read_head(connection).epoch == head.epoch


def test_writers_go_on_meanwhile_and_none_fails() -> None:
    with writers(2, rows=3) as written:
        for _ in range(2):
            partitioning.partition(connection)
            number_all()
            partitioning.unpartition(connection)
            number_all()
    number_all()
    total = sum(written)
    assert WalEntry.objects.count() == total == read_head(connection).seq
    assert sql("SELECT COUNT(DISTINCT entry_id) FROM realtime_wal_number") == [(total,)]


def test_a_large_log_is_proven_and_not_read_under_the_lock() -> None:
    write(30)
    number_all()
    rows = read_rows("default", 0, 100)
    with CaptureQueriesContext(connection) as captured:
        partitioning.partition(connection, SMALL, small_bytes=0)
    order = [q["sql"] for q in captured if "VALIDATE" in q["sql"] or "ATTACH PART" in q["sql"]]
    assert "VALIDATE" in order[0]
    assert read_rows("default", 0, 100) == rows
    assert constraints() == []
    write(300)
    number_all()
    assert len(read_rows("default", 0, 500)) == 330


def constraints() -> list[object]:
    return sql(
        "SELECT conname FROM pg_constraint WHERE contype = 'c'"
        " AND conrelid::regclass::text LIKE 'realtime_wal%'"
    )


def test_an_attempt_that_finds_the_log_locked_leaves_it_as_it_was() -> None:
    write(5)
    with another() as writer, writer.transaction():
        writer.execute(notes(5))
        with pytest.raises(OperationalError, match="open for long, and run migrate again"):
            partitioning.partition(connection, SMALL, attempts=1)
    assert not is_partitioned(connection)
    assert constraints() == []
    write(200)
    partitioning.partition(connection, SMALL)
    number_all()
    assert len(read_rows("default", 0, 500)) == 210


def test_rights_and_row_security_are_those_of_before() -> None:
    sql(f"DROP ROLE IF EXISTS {CLERK}")
    sql(f"CREATE ROLE {CLERK}")
    try:
        sql(f"GRANT SELECT, DELETE ON realtime_wal TO {CLERK}")
        sql("ALTER TABLE realtime_wal ENABLE ROW LEVEL SECURITY")
        for change in (partitioning.partition, partitioning.unpartition):
            change(connection)
            write(1)
            assert sql(
                f"SELECT has_table_privilege('{CLERK}', 'realtime_wal', 'DELETE'),"
                " relrowsecurity FROM pg_class WHERE oid = 'realtime_wal'::regclass"
            ) == [(True, True)]
        sql("ALTER TABLE realtime_wal DISABLE ROW LEVEL SECURITY")
    finally:
        sql(f"DROP OWNED BY {CLERK} CASCADE")
        sql(f"DROP ROLE {CLERK}")


def test_the_migration_goes_both_ways() -> None:
    partitioning.partition(connection)
    write(4)
    number_all()
    rows = read_rows("default", 0, 10)
    call_command("migrate", "realtime", "0015", verbosity=0)
    assert not is_partitioned(connection)
    write(1)
    call_command("migrate", "realtime", verbosity=0)
    assert is_partitioned(connection)
    assert read_rows("default", 0, 4) == rows
    number_all()
    assert read_head(connection).seq == 5
    # A number still goes with its entry.
    WalEntry.objects.filter(seq=5).delete()
    assert sql("SELECT COUNT(*) FROM realtime_wal_number") == [(4,)]
