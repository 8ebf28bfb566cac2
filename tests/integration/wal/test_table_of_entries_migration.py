"""A log whose entries had the name of their table in them: the name goes, and no write fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from realtime.event_log import sequencer
from realtime.event_log.table import read_rows
from realtime.models import WalEntry, WalRelation
from realtime.wal import triggers
from realtime.wal.head import read_head
from tests.support.captured_models import changes
from tests.support.vendors import on_postgresql
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")

OLD, NEW = ("realtime", "0012_entries_are_never_updated"), ("realtime", "0013_table_of_entries")


@pytest.fixture(autouse=True)
def newest(wal: None) -> Iterator[None]:
    yield
    call_command("migrate", "realtime", verbosity=0)


def names() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM realtime_wal ORDER BY id")
        return [name for (name,) in cursor.fetchall()]


# As the older version wrote its functions.
OLD_FUNCTION = """
CREATE OR REPLACE FUNCTION rowcast_zoo_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path TO pg_catalog, pg_temp AS $rowcast$
#variable_conflict use_column
<<rowcast>>
DECLARE
    op text := TG_OP;
    us bigint := extract(epoch from clock_timestamp()) * 1000000;
BEGIN
    IF TG_LEVEL = 'STATEMENT' THEN
        {insert} SELECT 'zoo_note', rowcast.op, r."id"::text, NULL, row_to_json(r)::text, {fixed}
        FROM rowcast_new AS r;
    ELSIF TG_OP = 'DELETE' THEN
        {insert} SELECT 'zoo_note', rowcast.op, OLD."id"::text, row_to_json(OLD), NULL, {fixed};
    ELSE
        {insert} SELECT  'zoo_note', rowcast.op, NEW."id"::text, row_to_json(OLD),
            row_to_json(NEW), {fixed};
    END IF;
    RETURN NULL;
END
$rowcast$
"""
INSERT = (
    'INSERT INTO public."realtime_wal"'
    " (table_name, op, pk_text, old, new, relation_id, txid, captured_us, actor)"
)


def write_names() -> None:
    """Has the trigger function of notes write the name, as that of the older version does."""
    relation = WalRelation.objects.filter(table_name="zoo_note").latest("installed_at")
    fixed = (
        f"'{relation.pk}', (SELECT pg_current_xact_id()::text::bigint), rowcast.us,"
        " (SELECT nullif(current_setting('rowcast.actor', true), ''))"
    )
    with connection.cursor() as cursor:
        cursor.execute(OLD_FUNCTION.format(insert=INSERT, fixed=fixed))


def test_entries_are_the_same_after_it_and_have_the_name_again_after_the_way_back() -> None:
    Note.objects.bulk_create([Note(title=str(n)) for n in range(3)])
    sequencer.number(connection)
    rows = read_rows("default", 0, 10)
    call_command("migrate", *OLD, verbosity=0)
    assert names() == ["zoo_note"] * 3
    call_command("migrate", "realtime", verbosity=0)
    assert read_rows("default", 0, 10) == rows
    assert list(WalEntry.objects.values_list("table_name", flat=True)) == ["zoo_note"] * 3
    Note.objects.create(title="after")
    assert changes("zoo_note")[-1].op == "INSERT"


@on_postgresql
def test_a_write_between_the_migration_and_the_new_triggers_is_captured() -> None:
    MigrationExecutor(connection).migrate([OLD])
    write_names()
    note = Note.objects.create(title="before")
    epoch = read_head(connection).epoch
    MigrationExecutor(connection).migrate([NEW])
    note.title = "between"
    note.save()
    Note.objects.bulk_create([Note(title="bulk")])
    Note.objects.filter(title="bulk").delete()
    assert [change.op for change in changes("zoo_note")] == ["INSERT", "UPDATE", "INSERT", "DELETE"]
    call_command("migrate", "realtime", verbosity=0)
    assert read_head(connection).epoch == epoch


@on_postgresql
def test_an_interrupted_migration_may_begin_again() -> None:
    MigrationExecutor(connection).migrate([OLD])
    write_names()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE realtime_wal ALTER COLUMN table_name DROP NOT NULL")
    Note.objects.create(title="before")
    call_command("migrate", "realtime", verbosity=0)
    Note.objects.create(title="after")
    assert [change.op for change in changes("zoo_note")] == ["INSERT", "INSERT"]


@on_postgresql
def test_triggers_are_not_replaced_while_the_column_needs_a_value() -> None:
    """As where a server of the new version starts before the migration."""
    MigrationExecutor(connection).migrate([OLD])
    write_names()
    assert triggers.reconcile() == []
    Note.objects.create(title="before")
    assert names() == ["zoo_note"]
