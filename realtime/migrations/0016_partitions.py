"""Keeps the log in partitions, where the database has any. The table that there is becomes the
first one, so nothing is copied, and writers go on.

Backwards, all entries are copied into one table, and writers wait meanwhile: prune first.
"""

from django.db import migrations

from realtime.wal.vendor import supports, vendor_of


def partition(apps, schema_editor):
    connection = schema_editor.connection
    if supports(connection):
        vendor_of(connection).partition_log(connection)


def unpartition(apps, schema_editor):
    connection = schema_editor.connection
    if supports(connection):
        vendor_of(connection).unpartition_log(connection)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("realtime", "0015_passing_broadcasts")]

    operations = [migrations.RunPython(partition, unpartition)]
