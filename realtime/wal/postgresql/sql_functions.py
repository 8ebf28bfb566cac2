"""The functions for other programs' SQL in a PostgreSQL database, compared with those wanted.

Rowcast's have a comment with two digests: of the statement that made a function, and of
PostgreSQL's own text of it, so that a change by hand is found too. Functions without such a
comment, as in a database of Supabase's, are never touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from auth_rls.export.quoting import digest, literal
from realtime.wal.catalog import State
from realtime.wal.postgresql.message_functions import SCHEMA, Function, functions
from realtime.wal.postgresql.values import quote_name
from realtime.wal.sql_functions import NotOurs, SqlFunction

_MARK = "Rowcast "
# An advisory lock, so that two runs at once do not make the same function.
_ADVISORY_KEY = 0x726F_7763_6173_75

_TABLE = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(%s)
"""
_FOUND = """
SELECT coalesce(obj_description(p.oid, 'pg_proc'), ''), pg_get_functiondef(p.oid)
FROM pg_proc AS p WHERE p.oid = to_regprocedure(%s)
"""
_OURS = f"""
SELECT format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = '{SCHEMA}' AND starts_with(obj_description(p.oid, 'pg_proc'), '{_MARK}')
ORDER BY 1
"""
_SCHEMA = f"""
SELECT coalesce(obj_description(n.oid, 'pg_namespace'), ''), NOT EXISTS (
    SELECT FROM pg_depend AS d
    WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
)
FROM pg_namespace AS n WHERE n.nspname = '{SCHEMA}'
"""
_CALLERS = rf"""
SELECT format('%I.%I', n.nspname, p.proname)
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname NOT IN ('{SCHEMA}', 'pg_catalog', 'information_schema')
    AND p.prosrc ~* '\m{SCHEMA}"?\s*\.\s*"?(send|send_binary|broadcast_changes|topic)"?\s*\('
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class _Compared:
    function: Function
    state: State


class PostgresqlSqlFunctions:
    """See `realtime.wal.sql_functions.SqlFunctions`. `table` is Django's name of the table of
    messages; `longest_topic` and `longest_event` are lengths in characters."""

    def __init__(
        self, connection: BaseDatabaseWrapper, table: str, longest_topic: int, longest_event: int
    ) -> None:
        self._connection = connection
        self._table = table
        self._longest = {"longest_topic": longest_topic, "longest_event": longest_event}

    def compare(self) -> list[SqlFunction]:
        return [SqlFunction(item.function.signature, item.state) for item in self._compared()]

    def install(self) -> list[SqlFunction]:
        with transaction.atomic(using=self._connection.alias), self._connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_KEY])
            wrong = [item for item in self._compared() if item.state is not State.INSTALLED]
            if wrong:
                self._make_schema(cursor)
            for item in wrong:
                cursor.execute(item.function.sql)
                _, found = self._found(cursor, item.function)
                mark = literal(f"{_MARK}{digest(item.function.sql)}.{digest(found)}")
                cursor.execute(f"COMMENT ON FUNCTION {item.function.signature} IS {mark}")
        return [SqlFunction(item.function.signature, item.state) for item in wrong]

    def uninstall(self) -> list[str]:
        with transaction.atomic(using=self._connection.alias), self._connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_KEY])
            cursor.execute(_OURS)
            signatures = [signature for (signature,) in cursor.fetchall()]
            for signature in signatures:
                cursor.execute(f"DROP FUNCTION {signature}")
            cursor.execute(_SCHEMA)
            schema = cursor.fetchone()
            if schema is not None and schema[0].startswith(_MARK) and schema[1]:
                cursor.execute(f"DROP SCHEMA {SCHEMA}")
        return signatures

    def callers(self) -> list[str]:
        with self._connection.cursor() as cursor:
            cursor.execute(_CALLERS)
            return [name for (name,) in cursor.fetchall()]

    def _compared(self) -> list[_Compared]:
        with self._connection.cursor() as cursor:
            cursor.execute(_TABLE, [self._connection.ops.quote_name(self._table)])
            place = cursor.fetchone()
            if place is None:
                raise LookupError(f"The table {self._table} does not exist; run `migrate` first.")
            table = ".".join(map(quote_name, place))
            return [
                _Compared(function, self._state(cursor, function))
                for function in functions(table, **self._longest)
            ]

    def _state(self, cursor: Any, function: Function) -> State:
        comment, found = self._found(cursor, function)
        if not found:
            return State.MISSING
        if not comment.startswith(_MARK):
            raise NotOurs(
                f"{function.signature} is there and is not Rowcast's; a database of Supabase's has"
                " its own. Drop it first if it is to be replaced."
            )
        marked = f"{_MARK}{digest(function.sql)}.{digest(found)}"
        return State.INSTALLED if comment == marked else State.STALE

    def _found(self, cursor: Any, function: Function) -> tuple[str, str]:
        """Its comment, and PostgreSQL's text of it; two empty texts where it is not there."""
        cursor.execute(_FOUND, [function.signature])
        found: tuple[str, str] | None = cursor.fetchone()
        return found or ("", "")

    def _make_schema(self, cursor: Any) -> None:
        """Make the schema if there is none, and let every role use it: what the functions do is
        bounded by the caller's own rights. An existing schema keeps its grants."""
        cursor.execute(_SCHEMA)
        if cursor.fetchone() is None:
            cursor.execute(f"CREATE SCHEMA {SCHEMA}")
            cursor.execute(f"COMMENT ON SCHEMA {SCHEMA} IS {literal(f'{_MARK}functions')}")
            cursor.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC")
