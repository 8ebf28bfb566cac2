"""Presence is not captured any more. A process numbers its writes in a table of its own, and a crash
of the database may empty both tables: processes write their members anew then.
"""

import django.db.models.manager
from django.db import migrations, models

from realtime.wal.vendor import supports, vendor_of

_TABLES = ("realtime_presence", "realtime_presence_number")


def _execute(schema_editor, statements):
    for table in _TABLES:
        for statement in statements(table):
            schema_editor.execute(statement)


def forget(apps, schema_editor):
    if supports(schema_editor.connection):
        _execute(schema_editor, vendor_of(schema_editor.connection).forgets_in_a_crash)


def keep(apps, schema_editor):
    if supports(schema_editor.connection):
        _execute(schema_editor, vendor_of(schema_editor.connection).outlives_a_crash)


class Migration(migrations.Migration):
    dependencies = [("realtime", "0013_table_of_entries")]

    operations = [
        migrations.CreateModel(
            name="PresenceNumber",
            fields=[
                (
                    "process",
                    models.CharField(max_length=64, primary_key=True, serialize=False),
                ),
                ("number", models.BigIntegerField()),
            ],
            options={
                "verbose_name": "number of presence writes",
                "verbose_name_plural": "numbers of presence writes",
                "db_table": "realtime_presence_number",
                "default_permissions": (),
            },
            managers=[("in_fixtures", django.db.models.manager.Manager())],
        ),
        migrations.RunPython(forget, keep),
    ]
