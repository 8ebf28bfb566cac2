"""Takes the name of the table out of the entries: their relation has it.

On PostgreSQL the table is not rewritten, and no write fails: first the column needs no value any
more, then the trigger functions give none, and then it goes. Each step may be taken again. Where
triggers do not survive a migration there are none meanwhile.

Backwards, the names are written into the entries again; there are no triggers meanwhile.
"""

import re
import time

from django.db import OperationalError, migrations, transaction

from realtime.wal.vendor import supports, vendor_of

_FUNCTIONS = """
SELECT pg_get_functiondef(p.oid) FROM pg_proc AS p
WHERE p.prorettype = 'trigger'::regtype AND starts_with(p.proname, 'rowcast_')
  AND p.pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'realtime_wal'::regclass)
"""
# Of every version: the columns, and the values that a query returns. The name is the first.
_INSERT = re.compile(r"\(table_name, (op, [a-z_, ]+\)\s+SELECT )\s*E?'(?:[^'\\]|''|\\.)*', ")
_LOCK_MS = 2_000
_ATTEMPTS = 30
_PAUSE = 0.5


def _triggers_are_there(connection):
    return supports(connection) and vendor_of(connection).triggers_survive_migrations


def _execute(schema_editor, *statements):
    with schema_editor.connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _patiently(schema_editor, statement):
    """A lock that comes late is asked for again, so that writers do not queue behind it for long."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with transaction.atomic(using=schema_editor.connection.alias):
                _execute(schema_editor, f"SET LOCAL lock_timeout = '{_LOCK_MS}ms'", statement)
            return
        except OperationalError:
            if attempt == _ATTEMPTS:
                raise
        time.sleep(_PAUSE)


def remove(apps, schema_editor):
    if not _triggers_are_there(schema_editor.connection):
        entry = apps.get_model("realtime", "WalEntry")
        schema_editor.remove_field(entry, entry._meta.get_field("table_name"))
        return
    _patiently(schema_editor, "ALTER TABLE realtime_wal ALTER COLUMN table_name DROP NOT NULL")
    with transaction.atomic(using=schema_editor.connection.alias):
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(_FUNCTIONS)
            texts = [text for (text,) in cursor.fetchall()]
        changed = [_INSERT.sub(r"(\1", text) for text in texts if _INSERT.search(text)]
        # psycopg reads no placeholders where there are no parameters.
        _execute(schema_editor, *changed)
    _patiently(schema_editor, "ALTER TABLE realtime_wal DROP COLUMN IF EXISTS table_name")


def restore(apps, schema_editor):
    _execute(
        schema_editor,
        "ALTER TABLE realtime_wal ADD COLUMN table_name varchar(255) NOT NULL DEFAULT ''",
        "UPDATE realtime_wal SET table_name = COALESCE((SELECT r.table_name"
        " FROM realtime_wal_relation AS r WHERE r.id = realtime_wal.relation_id), '')",
        # Older versions cannot read what is known of ids in it. A row with the stamp of another
        # writer would begin a new epoch.
        "UPDATE realtime_head SET seen = '', stamp = '' WHERE seen LIKE '%@%'",
    )
    if _triggers_are_there(schema_editor.connection):
        _execute(schema_editor, "ALTER TABLE realtime_wal ALTER COLUMN table_name DROP DEFAULT")


class Migration(migrations.Migration):
    # Each statement holds its lock by itself, and not together with the next one's.
    atomic = False

    dependencies = [("realtime", "0012_entries_are_never_updated")]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[migrations.RemoveField("walentry", "table_name")],
            database_operations=[migrations.RunPython(remove, restore)],
        )
    ]
