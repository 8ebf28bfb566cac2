"""The log in partitions: no write ever fails or waits for long, and nothing is overlooked."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from realtime.event_log.sequencer import Sequencer
from realtime.event_log.table import backlog, read_rows
from realtime.process.partition_upkeep import PartitionUpkeep
from realtime.wal.partitions import Busy
from realtime.wal.postgresql.partitions import PostgresqlPartitions
from tests.support.log import number_all
from tests.support.partitions import SMALL, notes, ranges, small_partitions
from tests.support.postgresql_tables import another, sql
from tests.support.threads import at_once
from tests.support.vendors import on_postgresql
from tests.support.waiting import until

pytestmark = [on_postgresql, pytest.mark.usefixtures("wal")]


@pytest.fixture
def partitions(wal: None) -> Iterator[PostgresqlPartitions]:
    with small_partitions() as found:
        yield found


def write(count: int) -> None:
    sql(notes(count))


def strays(partitions: PostgresqlPartitions) -> int:
    return partitions.strays(1_000_000)


def test_the_log_begins_with_room_ahead(partitions: PostgresqlPartitions) -> None:
    assert ranges(partitions) == [(None, 100), (100, 200)]
    assert partitions.make_missing() == 0


def test_partitions_are_made_before_they_are_needed(partitions: PostgresqlPartitions) -> None:
    write(120)
    assert partitions.make_missing() == 1
    assert ranges(partitions)[-1] == (200, 300)
    write(100)
    assert strays(partitions) == 0
    number_all()
    assert [row.seq for row in read_rows("default", 0, 500)] == list(range(1, 221))


def test_no_write_fails_where_nobody_made_a_partition(partitions: PostgresqlPartitions) -> None:
    write(250)
    write(50)
    assert strays(partitions) == 101
    number_all()
    assert [row.seq for row in read_rows("default", 0, 500)] == list(range(1, 301))
    # The next one begins behind those.
    assert partitions.make_missing() == 1
    assert ranges(partitions)[-1] == (400, 500)
    write(150)
    assert strays(partitions) == 200
    number_all()
    assert backlog(connection) == 0


def test_a_large_default_partition_is_not_read_while_writers_wait_for_it(
    partitions: PostgresqlPartitions,
) -> None:
    write(250)
    write(50)
    told: list[str] = []
    connection.connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
    large = PostgresqlPartitions(connection, SMALL, small_bytes=0)
    sql("SET client_min_messages TO debug1")
    try:
        assert large.make_missing() == 1
    finally:
        sql("RESET client_min_messages")
    implied = 'updated partition constraint for default partition "realtime_wal_default" is implied'
    assert any(text.startswith(implied) for text in told)
    # Further away than otherwise, because changes may come while it is read.
    assert ranges(partitions)[-1] == (500, 600)
    write(250)
    assert ranges(large)[-1] == (500, 600)
    assert large.make_missing() == 1
    assert ranges(partitions)[-1] == (600, 700)
    write(149)
    assert strays(partitions) == 300
    number_all()
    assert [row.seq for row in read_rows("default", 0, 800)] == list(range(1, 700))


def test_an_attempt_on_a_large_default_partition_that_was_killed_refuses_no_entry(
    partitions: PostgresqlPartitions,
) -> None:
    sql(
        "ALTER TABLE realtime_wal_default ADD CONSTRAINT realtime_wal_default_ids"
        " CHECK (id < 300 OR id >= 400) NOT VALID"
    )
    partitions.make_missing()
    write(450)
    assert strays(partitions) > 0


def test_a_statement_that_is_writing_very_much_is_not_disturbed(
    partitions: PostgresqlPartitions,
) -> None:
    """It knows the partitions that there were when it began. Another one for its next ids would
    make PostgreSQL refuse them."""
    sql(
        "CREATE FUNCTION slow(n int) RETURNS text LANGUAGE plpgsql AS 'BEGIN"
        " IF n = 130 THEN PERFORM pg_advisory_xact_lock(4711); END IF; RETURN n; END'"
    )
    columns = "op, pk_text, relation_id, txid, captured_us"
    statement = (
        f"INSERT INTO realtime_wal ({columns}) SELECT 'INSERT', slow(n), 'r',"
        " pg_current_xact_id()::text::bigint, 1 FROM generate_series(1, 400) AS n"
    )
    failed: list[Exception] = []

    def run() -> None:
        try:
            with another() as link:
                link.execute(statement)
        except psycopg.Error as error:
            failed.append(error)

    writer = threading.Thread(target=run)
    try:
        sql("SELECT pg_advisory_lock(4711)")
        writer.start()
        until(
            lambda: sql(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'"
                " AND query_start < clock_timestamp() - interval '1 second'"
            ),
            "the statement is in the middle of its work",
        )
        with pytest.raises(Busy, match="very many changes"):
            partitions.make_missing()
    finally:
        sql("SELECT pg_advisory_unlock(4711)")
        writer.join()
        sql("DROP FUNCTION slow")
    assert not failed
    assert sql("SELECT COUNT(*) FROM realtime_wal") == [(400,)]
    assert partitions.make_missing() > 0


def test_a_new_partition_does_not_wait_for_writers_nor_they_for_it(
    partitions: PostgresqlPartitions,
) -> None:
    with another() as writer, writer.transaction():
        writer.execute(notes(120))
        with another() as other:
            other.execute("SET lock_timeout = '2s'")
            assert partitions.make_missing() == 1
            other.execute(notes(60))
    number_all()
    assert len(read_rows("default", 0, 500)) == 180


def test_two_that_make_partitions_at_once_make_each_once(
    partitions: PostgresqlPartitions,
) -> None:
    write(450)

    def make() -> None:
        PartitionUpkeep("default").look()
        assert PostgresqlPartitions(connections["default"]).layout().partitions

    at_once(3, make)
    found = ranges(partitions)
    assert len(found) == len(set(found))


def test_that_changes_are_in_the_default_partition_is_logged_once(
    partitions: PostgresqlPartitions, caplog: pytest.LogCaptureFixture
) -> None:
    write(250)
    upkeep = PartitionUpkeep("default")
    upkeep.look()
    upkeep.look()
    assert [r.action for r in caplog.records if r.action == "partition_late"] == ["partition_late"]


def test_what_cannot_be_made_is_logged_once_and_no_write_fails(
    partitions: PostgresqlPartitions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "realtime.upkeep")
    upkeep = PartitionUpkeep("default")
    write(150)
    with another() as reader, reader.transaction():
        # A reader of the default partition keeps others from being made.
        reader.execute("SELECT COUNT(*) FROM realtime_wal_default")
        upkeep.look()
        upkeep.look()
        write(200)
    upkeep.look()
    actions = [r.action for r in caplog.records if r.action.startswith("partition_")]
    assert actions == ["partition_failed", "partition_works", "partition_late"]


def test_nobody_else_reads_the_log_by_its_partitions(partitions: PostgresqlPartitions) -> None:
    sql("CREATE ROLE rowcast_curious")
    try:
        sql("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO rowcast_curious")
        write(120)
        partitions.make_missing()
        with another() as link:
            link.execute("SET ROLE rowcast_curious")
            for partition in partitions.layout().partitions:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    link.execute(f"SELECT * FROM {partition.name}")
    finally:
        sql("DROP OWNED BY rowcast_curious CASCADE")
        sql("DROP ROLE rowcast_curious")


# --- reading --------------------------------------------------------------------------------------


def opened(statement: str) -> set[str]:
    """The partitions that a statement looks into."""
    plan = "\n".join(line for (line,) in sql(f"EXPLAIN {statement}"))
    return {
        name
        for (name,) in sql(
            "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = 'realtime_wal'::regclass"
        )
        if f" on {name} " in plan
    }


def filled(partitions: PostgresqlPartitions, count: int) -> None:
    for _ in range(count):
        write(100)
        partitions.make_missing()
    number_all()


def test_a_look_opens_only_the_newest_partitions(partitions: PostgresqlPartitions) -> None:
    working = Sequencer()
    for _ in range(20):
        write(100)
        partitions.make_missing()
        while working.look(connection).waiting:
            working.number(connection)
    assert len(partitions.layout().partitions) > 20

    def opens_few() -> bool:
        write(1)
        while working.look(connection).waiting:
            working.number(connection)
        with CaptureQueriesContext(connection) as captured:
            working.look(connection)
        return len(opened(captured[-1]["sql"])) < 10

    # The limit stands where the oldest transaction began: vacuum's, or that of another test.
    until(opens_few, "the limit of a look")
    write(3)
    with CaptureQueriesContext(connection) as captured:
        assert working.look(connection).waiting
        assert working.number(connection) == 3
    inserts = [q["sql"] for q in captured if q["sql"].lstrip().startswith("INSERT")]
    assert len(inserts) == 1
    assert len(opened(inserts[0])) < 10


def test_reading_some_entries_opens_only_their_partitions(
    partitions: PostgresqlPartitions,
) -> None:
    filled(partitions, 12)
    with CaptureQueriesContext(connection) as captured:
        assert len(read_rows("default", 300, 320)) == 20
    reads = [q["sql"] for q in captured if "JOIN realtime_wal" in q["sql"]]
    assert reads
    for statement in reads:
        assert len(opened(statement)) <= 3


def test_a_transaction_that_wrote_long_ago_is_numbered_when_it_commits(
    partitions: PostgresqlPartitions,
) -> None:
    working = Sequencer()
    with another() as writer, writer.transaction():
        writer.execute(notes(5))
        for _ in range(12):
            write(100)
            partitions.make_missing()
            while working.look(connection).waiting:
                working.number(connection)
            # Others that run meanwhile, and a sequencer that takes over.
            assert not working.look(connection).waiting
        assert not Sequencer().look(connection).waiting
    assert Sequencer().look(connection).waiting
    assert working.look(connection).waiting
    assert working.number(connection) == 5
    assert backlog(connection) == 0


def test_a_log_that_was_emptied_with_its_sequence_is_numbered_on(
    partitions: PostgresqlPartitions,
) -> None:
    working = Sequencer()
    write(150)
    while working.look(connection).waiting:
        working.number(connection)
    assert not working.look(connection).waiting
    epoch = working.look(connection).head.epoch
    sql("TRUNCATE realtime_wal RESTART IDENTITY")
    write(2)
    assert working.look(connection).waiting
    assert working.look(connection).head.epoch != epoch
    assert working.number(connection) == 2


def test_ids_that_are_taken_are_passed_over_in_every_partition(
    partitions: PostgresqlPartitions,
) -> None:
    from realtime.wal.vendor import vendor_of

    write(130)
    assert not vendor_of(connection).ids_behind(connection)
    sql("SELECT setval(pg_get_serial_sequence('realtime_wal', 'id'), 40)")
    assert vendor_of(connection).ids_behind(connection)
    vendor_of(connection).pass_taken_ids(connection)
    write(1)
    assert sql("SELECT MAX(id) FROM realtime_wal") == [(131,)]
