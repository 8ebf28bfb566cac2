"""Takes the numbers out of the entries. Sequencers wait meanwhile; those of an older version fail
then, and nothing is lost or numbered twice. Those of this version begin when it has ended, because
the table of numbers gets its name here.

Backwards, the numbers are written into the entries again.
"""

from django.db import migrations, models

from realtime.wal.vendor import supports, vendor_of

_COPY = """
INSERT INTO realtime_wal_number_copy (seq, entry_id, commit_us)
SELECT seq, id, commit_us FROM realtime_wal
WHERE seq > COALESCE((SELECT MAX(seq) FROM realtime_wal_number_copy), -1)
"""
_COPY_BACK = """
UPDATE realtime_wal SET seq = n.seq, commit_us = n.commit_us
FROM realtime_wal_number_copy AS n WHERE n.entry_id = realtime_wal.id
"""


def _lock(apps, schema_editor):
    # An update would not do: the row shows who wrote it, and clients would have to begin anew.
    head = apps.get_model("realtime", "LogHead")._base_manager
    head.using(schema_editor.connection.alias).select_for_update().first()


def _execute(schema_editor, statements):
    with schema_editor.connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def copy_rest(apps, schema_editor):
    _lock(apps, schema_editor)
    _execute(schema_editor, (_COPY,))


def copy_back(apps, schema_editor):
    _lock(apps, schema_editor)
    _execute(schema_editor, (_COPY_BACK,))


def bind(apps, schema_editor):
    if supports(schema_editor.connection):
        _execute(schema_editor, vendor_of(schema_editor.connection).bind_numbers)


def unbind(apps, schema_editor):
    if supports(schema_editor.connection):
        _execute(schema_editor, vendor_of(schema_editor.connection).unbind_numbers)


class Migration(migrations.Migration):
    dependencies = [("realtime", "0011_copy_numbers")]

    operations = [
        migrations.RunPython(copy_rest, copy_back),
        migrations.RemoveIndex(model_name="walentry", name="realtime_wal_backlog"),
        migrations.RemoveField(model_name="walentry", name="seq"),
        migrations.RemoveField(model_name="walentry", name="commit_us"),
        migrations.AlterModelTable(name="walnumber", table="realtime_wal_number"),
        migrations.RunPython(bind, unbind),
    ]
