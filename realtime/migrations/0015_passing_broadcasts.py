"""A table for broadcasts of processes that no channel layer connects with the servers. What is in it
may be lost in a crash of the database.
"""

import django.db.models.functions.datetime
import django.db.models.manager
from django.db import migrations, models

from realtime.wal.vendor import supports, vendor_of


def forget(apps, schema_editor):
    if supports(schema_editor.connection):
        for statement in vendor_of(schema_editor.connection).forgets_in_a_crash("realtime_passing"):
            schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("realtime", "0014_presence_leaves_the_log")]

    operations = [
        migrations.CreateModel(
            name="PassingBroadcast",
            fields=[
                ("number", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "mark",
                    models.CharField(
                        help_text="By which servers know that they have had it", max_length=32
                    ),
                ),
                ("topic", models.TextField()),
                ("private", models.BooleanField()),
                ("event", models.TextField()),
                ("payload", models.BinaryField()),
                ("encoding", models.SmallIntegerField(help_text="1 for JSON, 0 for bytes")),
                ("user_id", models.TextField(blank=True)),
                (
                    "sent_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
            ],
            options={
                "verbose_name": "passing broadcast",
                "db_table": "realtime_passing",
                "default_permissions": (),
            },
            managers=[("in_fixtures", django.db.models.manager.Manager())],
        ),
        migrations.RunPython(forget, migrations.RunPython.noop),
    ]
