"""Django's `flush`, quick where it ends a test.

Most of what `flush` does after a test restores what the test has not changed: permissions, content
types, capture triggers. Where these are as the last whole `flush` left them, only the tables that
hold rows are emptied, and the log begins a new epoch. In any doubt the whole `flush` runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.core.management.commands import flush
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal.head import read_head

_HEAD = "realtime_head"
_ENTRIES = "realtime_wal"
_fresh: dict[str, Fresh] = {}


class Command(flush.Command):
    def handle(self, **options: Any) -> None:
        connection = connections[options["database"]]
        # Only the end of a test asks that sequences go on.
        if options.get("reset_sequences", True) or options["interactive"]:
            super().handle(**options)
            return
        fresh = _fresh.get(connection.alias)
        if fresh is None or not fresh.restore(connection):
            super().handle(**options)
            _fresh[connection.alias] = Fresh.of(connection)


@dataclass(frozen=True, slots=True)
class Fresh:
    """A database as a whole `flush` leaves it."""

    schema: object
    tables: tuple[str, ...]
    kept: dict[str, object]

    @classmethod
    def of(cls, connection: BaseDatabaseWrapper) -> Fresh:
        names = connection.introspection.django_table_names(only_existing=True, include_views=False)
        tables = tuple(sorted(names))
        kept = _filled(connection, tables) - {_HEAD, _ENTRIES}
        return cls(
            _schema(connection), tables, {table: _content(connection, table) for table in kept}
        )

    def restore(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether that sufficed; if not, nothing was changed."""
        if _schema(connection) != self.schema:
            return False
        if any(_content(connection, table) != was for table, was in self.kept.items()):
            return False
        filled = _filled(connection, self.tables) - self.kept.keys()
        _empty(connection, filled | {_HEAD})
        ContentType.objects.clear_cache()
        read_head(connection)
        return True


def _filled(connection: BaseDatabaseWrapper, tables: tuple[str, ...]) -> set[str]:
    """Those of the tables that hold a row."""
    quote = connection.ops.quote_name
    looks = [f"SELECT '{t}' WHERE EXISTS (SELECT 1 FROM {quote(t)})" for t in tables]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(looks))
        return {name for (name,) in cursor.fetchall()}


def _content(connection: BaseDatabaseWrapper, table: str) -> object:
    """Something that is equal when the table's rows are."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
        return frozenset(cursor.fetchall())


def _empty(connection: BaseDatabaseWrapper, tables: set[str]) -> None:
    quote = connection.ops.quote_name
    # Triggers write an entry for each row that goes, so the entries go last.
    ordered = [*sorted(tables - {_ENTRIES}), _ENTRIES]
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Neither triggers nor foreign keys have a say.
            cursor.execute("SET LOCAL session_replication_role = replica")
        for table in ordered:
            cursor.execute(f"DELETE FROM {quote(table)}")


def _schema(connection: BaseDatabaseWrapper) -> object:
    """Something that is equal when the schema, its triggers and its grants are."""
    with connection.cursor() as cursor:
        cursor.execute(_SCHEMA[connection.vendor])
        return cursor.fetchall()


_SCHEMA = {
    "sqlite": "PRAGMA schema_version",
    "postgresql": """
        SELECT 'trigger', oid, xmin::text, '' FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL
        SELECT 'function', oid, xmin::text, '' FROM pg_proc
        WHERE pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
        UNION ALL
        SELECT 'policy', oid, xmin::text, '' FROM pg_policy
        UNION ALL
        SELECT 'table', c.oid, c.relrowsecurity::text || c.relforcerowsecurity::text,
            coalesce(c.relacl::text, '') || (
                SELECT string_agg(a.xmin::text, ',' ORDER BY a.attnum)
                FROM pg_attribute a WHERE a.attrelid = c.oid
            )
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v')
            AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
            AND c.relpersistence <> 't'
        ORDER BY 1, 2
    """,
}
