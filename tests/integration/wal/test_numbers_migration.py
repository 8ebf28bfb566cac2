"""A log of the older shape, whose entries had their numbers in them, goes on under its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from realtime.event_log import sequencer
from realtime.event_log.table import backlog, read_rows
from realtime.wal.head import read_head
from realtime.wal.vendor import vendor_of
from tests.zoo.models import Note

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wal")]

POSTGRESQL = connection.vendor == "postgresql"
OLD = "0009_names_in_the_admin"


@pytest.fixture(autouse=True)
def newest(wal: None) -> Iterator[None]:
    yield
    migrate()


def migrate(*target: str) -> None:
    call_command("migrate", "realtime", *target, verbosity=0)


def make_old() -> None:
    """The tables as the older version left them, and its triggers, where they survive a change of
    the log's table."""
    if POSTGRESQL:
        MigrationExecutor(connection).migrate([("realtime", OLD)])
    else:
        migrate(OLD)


def old_numbers() -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT seq, commit_us, id FROM realtime_wal ORDER BY seq IS NULL, seq, id")
        return list(cursor.fetchall())


def test_numbers_and_moments_are_the_same_and_what_waits_is_numbered_next() -> None:
    Note.objects.bulk_create([Note(title=str(n)) for n in range(5)])
    sequencer.number(connection)
    Note.objects.create(title="waits")
    rows, head = read_rows("default", 0, 10), read_head(connection)

    make_old()
    *numbered, waiting = old_numbers()
    assert [(seq, commit_us) for seq, commit_us, _ in numbered] == [
        (row.seq, row.commit_us) for row in rows
    ]
    assert waiting[:2] == (None, None)

    migrate()
    assert read_rows("default", 0, 10) == rows
    assert backlog(connection) == 1
    assert sequencer.number(connection) == 1
    assert [row.seq for row in read_rows("default", 5, 10)] == [6]
    if POSTGRESQL:
        assert read_head(connection).epoch == head.epoch
        assert read_head(connection).seq == 6
    Note.objects.create(title="after")
    assert sequencer.number(connection) == 1


def test_a_copy_that_was_interrupted_is_begun_again_and_what_came_meanwhile_comes_too() -> None:
    Note.objects.bulk_create([Note(title=str(n)) for n in range(4)])
    sequencer.number(connection)
    rows = read_rows("default", 0, 10)
    make_old()
    migrate("0010_walnumber")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO realtime_wal_number_copy (seq, entry_id, commit_us)"
            " SELECT seq, id, commit_us FROM realtime_wal WHERE seq <= 2"
        )
    migrate("0011_copy_numbers")
    with connection.cursor() as cursor:
        # A sequencer of the older version is at work until the next migration.
        cursor.execute("DELETE FROM realtime_wal_number_copy WHERE seq = 4")
    migrate()
    assert read_rows("default", 0, 10) == rows


@pytest.mark.parametrize("stage", ["0010_walnumber", "0011_copy_numbers"])
def test_a_sequencer_that_starts_before_the_numbers_are_copied_numbers_nothing(stage: str) -> None:
    """As where servers of the new version start beside the migration."""
    Note.objects.bulk_create([Note(title=str(n)) for n in range(4)])
    sequencer.number(connection)
    rows = read_rows("default", 0, 10)
    make_old()
    migrate(stage)
    with pytest.raises(DatabaseError):
        sequencer.Sequencer().look(connection)
    with pytest.raises(DatabaseError):
        sequencer.number(connection)
    migrate()
    assert read_rows("default", 0, 10) == rows
    assert read_head(connection).seq == 4
    assert sequencer.number(connection) == 0


@pytest.mark.skipif(not POSTGRESQL, reason="SQLite needs no such index, and has one schema")
def test_the_index_of_another_log_further_down_the_search_path_stays() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA nearer")
        try:
            cursor.execute("CREATE TABLE nearer.realtime_wal (LIKE realtime_wal)")
            cursor.execute("SET search_path TO nearer, public")
            for statement in vendor_of(connection).index_log:
                cursor.execute(statement)
            # As an attempt that was interrupted leaves it.
            cursor.execute(
                "UPDATE pg_index SET indisvalid = false"
                " WHERE indexrelid = 'nearer.realtime_wal_txid'::regclass"
            )
            for statement in vendor_of(connection).index_log:
                cursor.execute(statement)
            cursor.execute(
                "SELECT n.nspname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
                " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE c.relname = 'realtime_wal_txid' AND i.indisvalid ORDER BY 1"
            )
            assert cursor.fetchall() == [("nearer",), ("public",)]
        finally:
            cursor.execute("SET search_path TO DEFAULT")
            cursor.execute("DROP SCHEMA nearer CASCADE")
