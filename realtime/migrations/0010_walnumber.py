import django.db.models.deletion
import django.db.models.manager
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("realtime", "0009_names_in_the_admin")]

    operations = [
        migrations.CreateModel(
            name="WalNumber",
            fields=[
                ("seq", models.BigIntegerField(primary_key=True, serialize=False)),
                (
                    "commit_us",
                    models.BigIntegerField(
                        help_text="Microseconds since 1970, unique and rising with seq"
                    ),
                ),
                (
                    "entry",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="number",
                        to="realtime.walentry",
                    ),
                ),
            ],
            options={
                "verbose_name": "number of a WAL entry",
                "verbose_name_plural": "numbers of WAL entries",
                # Sequencers find the table only when 0012 has copied the last number: without the
                # old numbers they would number all entries again.
                "db_table": "realtime_wal_number_copy",
            },
            managers=[("in_fixtures", django.db.models.manager.Manager())],
        ),
        migrations.AddField(
            model_name="loghead",
            name="seen",
            field=models.TextField(
                blank=True,
                db_default="",
                help_text="A snapshot of the database all of whose entries have numbers, or nothing",
            ),
        ),
    ]
