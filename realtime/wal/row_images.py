"""Row images made by a query: the bytes that the capture trigger would write for the row as it is.

Owns the choice of the expression; the expressions are those of `sqlite` and `postgresql`.
"""

from __future__ import annotations

from django.db import NotSupportedError, connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

from auth_rls.sql.columns import columns_of
from realtime.wal.entry import Relation
from realtime.wal.postgresql import triggers as postgresql
from realtime.wal.sqlite import triggers as sqlite

_TYPES = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
"""


def expression(alias: str, model: type[models.Model], relation: Relation) -> str:
    """An SQL expression without parameters for the image, as bytes, of a row of the model's table
    under its own name. In a database thread, after `prepare`.

    Raises NotSupportedError on a database that changes cannot be captured on.
    """
    connection = connections[alias]
    row = connection.ops.quote_name(model._meta.db_table)
    if connection.vendor == "sqlite":
        scales = {c.name: c.scale for c in columns_of(model).values() if c.scale is not None}
        return f"CAST({sqlite.image(relation, row, scales)} AS BLOB)"
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(_TYPES, [row])
            types = dict(cursor.fetchall())
        shape = postgresql.TriggerFunctionSql(
            relation=relation,
            types=types,
            whole=True,
            table=row,
            wal="",
            zone=connection.timezone_name,
        )
        return f"convert_to({shape.image(row)}, 'UTF8')"
    raise NotSupportedError(f"rows of {connection.display_name} have no image")


def prepare(connection: BaseDatabaseWrapper) -> None:
    """Make values print as they do in the capture triggers, for the rest of the transaction."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL TimeZone TO 'UTC'")
            cursor.execute("SET LOCAL extra_float_digits TO 1")
