from django.db import migrations, models


def leave_seq_out_of_statistics(apps, schema_editor):
    # Whether entries without a number are many or none changes many times a second. A planner that
    # believes a moment's sample reads the whole log to find the next few.
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE realtime_wal ALTER COLUMN seq SET STATISTICS 0")


class Migration(migrations.Migration):
    dependencies = [
        ("realtime", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="loghead",
            name="term",
            field=models.BigIntegerField(default=0, help_text="Rises with every change of leader"),
        ),
        migrations.AddField(
            model_name="loghead",
            name="leader",
            field=models.CharField(
                blank=True,
                default="",
                help_text="Id of the leading tailer, or empty",
                max_length=64,
            ),
        ),
        migrations.AddField(
            model_name="loghead",
            name="lease_until_us",
            field=models.BigIntegerField(
                default=0, help_text="By the database's clock, microseconds since 1970"
            ),
        ),
        migrations.RemoveIndex(model_name="walentry", name="realtime_wal_backlog"),
        migrations.AddIndex(
            model_name="walentry",
            index=models.Index(
                condition=models.Q(("seq__isnull", True)),
                fields=["txid", "id"],
                name="realtime_wal_backlog",
            ),
        ),
        migrations.RunPython(leave_seq_out_of_statistics, migrations.RunPython.noop),
    ]
