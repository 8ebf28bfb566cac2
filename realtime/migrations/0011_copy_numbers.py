"""Copies the numbers of the log, in short transactions and beside writers and sequencers at work.

It may be interrupted and begun again. What is numbered meanwhile is copied by the next migration.
"""

from django.db import migrations

from realtime.wal.vendor import supports, vendor_of

# Numbers copied by one transaction.
_STEP = 20_000
_COPY = """
INSERT INTO realtime_wal_number_copy (seq, entry_id, commit_us)
SELECT seq, id, commit_us FROM realtime_wal WHERE seq > %s AND seq <= %s
ON CONFLICT DO NOTHING
"""


def copy(apps, schema_editor):
    connection = schema_editor.connection
    if not supports(connection):
        return
    with connection.cursor() as cursor:
        for statement in vendor_of(connection).index_log:
            cursor.execute(statement)
        cursor.execute("SELECT MIN(seq) - 1, MAX(seq) FROM realtime_wal")
        after, last = cursor.fetchone()
        while last is not None and after < last:
            cursor.execute(_COPY, [after, after + _STEP])
            after += _STEP


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("realtime", "0010_walnumber")]

    operations = [migrations.RunPython(copy, migrations.RunPython.noop)]
