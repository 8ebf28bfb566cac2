"""The capture triggers of a PostgreSQL database, compared with those that are wanted.

A trigger is compared by what pg_trigger says of it, its function by its full text. A function is
replaced without a lock on its table; making a trigger waits for the transactions that write to the
table, so each table is a transaction of its own, which gives up soon and tries again rather than
let writers queue behind it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal import capture as shapes
from realtime.wal.capture import Capture
from realtime.wal.catalog import AMBIGUOUS, State, Trigger
from realtime.wal.postgresql import triggers as postgresql
from realtime.wal.postgresql.triggers import Level, TriggerFunctionSql
from realtime.wal.postgresql.values import TYPE_NAME, quote_name

# lock_not_available, deadlock_detected
_RETRIED = ("55P03", "40P01")
# Of two processes that install at once, one waits. Any number that no other program uses.
_ADVISORY_KEY = 0x726F_7763_6173_74

# Which table each name stands for: `found` by the search_path, as queries find it, and the one
# that is captured. A search_path may be that of one tenant of many, whose tables have one name: the
# table in the log's own schema is captured, and another one only where it has no namesake.
_PLACES = r"""
SELECT w.name, f.oid AS found, CASE WHEN w.quoted LIKE '%%"."%%' OR log.place IS NULL THEN f.oid
    ELSE coalesce(own.oid, CASE WHEN NOT EXISTS (
        SELECT FROM pg_class AS other JOIN pg_namespace AS s ON s.oid = other.relnamespace
        WHERE other.relname = f.relname AND other.oid <> f.oid
            AND other.relkind IN ('r', 'p', 'v', 'm', 'f')
            AND s.nspname NOT LIKE 'pg\_%%' AND s.nspname <> 'information_schema'
    ) THEN f.oid END) END AS captured
FROM unnest(%s::text[], %s::text[]) AS w (name, quoted)
CROSS JOIN (
    SELECT (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('realtime_wal')) AS place
) AS log
LEFT JOIN pg_class AS f ON f.oid = to_regclass(w.quoted)
LEFT JOIN pg_class AS own ON own.relnamespace = log.place AND own.oid
    = to_regclass(CASE WHEN w.quoted NOT LIKE '%%"."%%' THEN quote_ident(
        (SELECT nspname FROM pg_namespace WHERE oid = log.place)) || '.' || w.quoted END)
"""
_TABLES = f"""
SELECT wanted.name, n.nspname, c.relname,
    c.relkind <> 'r' OR c.relispartition
    OR EXISTS (SELECT FROM pg_inherits AS i WHERE c.oid IN (i.inhrelid, i.inhparent))
    OR EXISTS (SELECT FROM pg_subscription_rel AS s WHERE s.srrelid = c.oid)
    OR EXISTS (
        SELECT FROM pg_trigger AS t
        -- AFTER: for each row, or for statements that delete or update; neither a foreign key's
        -- nor ours
        WHERE t.tgrelid = c.oid AND t.tgtype & 66 = 0 AND t.tgtype & 25 <> 0
        AND NOT t.tgisinternal
        AND NOT starts_with(t.tgname, '{postgresql.PREFIX}')
    ),
    ARRAY(SELECT a.attname::text FROM pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
    ARRAY(SELECT {TYPE_NAME} FROM pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
    ARRAY(SELECT CASE WHEN a.attgenerated = 'v' THEN pg_get_expr(d.adbin, d.adrelid) END
        FROM pg_attribute AS a
        LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
    CASE WHEN c.relkind = 'r' AND NOT c.relispartition
        AND NOT EXISTS (SELECT FROM pg_inherits AS i WHERE c.oid IN (i.inhrelid, i.inhparent))
        THEN c.relnatts + 1 END
FROM ({_PLACES}) AS wanted
JOIN pg_class AS c ON c.oid = wanted.captured AND c.relkind IN ('r', 'p')
JOIN pg_namespace AS n ON n.oid = c.relnamespace
"""
_KINDS = f"""
SELECT wanted.name, CASE WHEN wanted.captured IS DISTINCT FROM wanted.found THEN '{AMBIGUOUS}'
    WHEN c.relkind IN ('r', 'p') THEN 'table' WHEN c.relkind = 'f' THEN 'foreign table'
    WHEN c.relkind = 'm' THEN 'materialized view' ELSE 'view' END
FROM ({_PLACES}) AS wanted
JOIN pg_class AS c ON c.oid = wanted.found AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
# AFTER, not a foreign key's, not deferred, and sorted before ours. Names are compared by bytes.
# What is AFTER ROW makes our INSERT a row trigger, too.
_AHEAD = f"""
SELECT n.nspname, c.relname, t.tgname
FROM pg_trigger AS t
JOIN pg_class AS c ON c.oid = t.tgrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND t.tgtype & 66 = 0 AND NOT t.tginitdeferred AND t.tgenabled <> 'D'
    AND t.tgname::text COLLATE "C" < '{postgresql.PREFIX}'
ORDER BY 1, 2, 3
"""
# Copies that a partitioned table's triggers have on its parts go with them.
_TRIGGERS = f"""
SELECT n.nspname, c.relname, t.tgname, t.tgtype, t.tgenabled, p.proname
FROM pg_trigger AS t
JOIN pg_class AS c ON c.oid = t.tgrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_proc AS p ON p.oid = t.tgfoid
WHERE starts_with(t.tgname, '{postgresql.PREFIX}') AND t.tgparentid = 0
    AND p.pronamespace = to_regnamespace(%s)
"""
_MARKS = f"""
SELECT tgrelid::bigint, tgname, tgenabled::text FROM pg_trigger
WHERE starts_with(tgname, '{postgresql.PREFIX}') AND tgparentid = 0
"""
_FUNCTIONS = f"""
SELECT proname, prosrc, prosecdef, proconfig FROM pg_proc
WHERE pronamespace = to_regnamespace(%s) AND prorettype = 'trigger'::regtype
    AND starts_with(proname, '{postgresql.FUNCTION_PREFIX}')
"""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a change waits for its table: at most `lock_ms` milliseconds for the lock, so many
    `attempts`, with `pause` seconds between them."""

    lock_ms: int = 2_000
    attempts: int = 10
    pause: float = 0.5


@dataclass(frozen=True, slots=True)
class _Table:
    """A table as the database has it. `types`: columns and their types, in order; `virtual`:
    those that are computed when they are read, and how; `next_column`: see `TriggerFunctionSql`.
    """

    schema: str
    name: str
    level: Level
    types: Mapping[str, str]
    virtual: Mapping[str, str]
    next_column: int | None


@dataclass(frozen=True, slots=True)
class _Found:
    type: int
    always: bool
    function: str


class PostgresqlCatalog:
    """Triggers and functions beside the log: those of a log in another schema are not ours."""

    def __init__(self, connection: BaseDatabaseWrapper, patience: Patience | None = None) -> None:
        self._connection = connection
        self._patience = patience or Patience()
        self._tables: dict[str, _Table] = {}
        self._schema = "public"

    def columns(self, tables: Collection[str]) -> Mapping[str, Collection[str]]:
        quoted = [self._connection.ops.quote_name(table) for table in tables]
        with self._connection.cursor() as cursor:
            cursor.execute(_TABLES, [list(tables), quoted])
            for name, schema, table, by_row, columns, types, how, following in cursor.fetchall():
                level = Level.ROW if by_row else Level.STATEMENT
                known = dict(zip(columns, types, strict=True))
                virtual = {c: sql for c, sql in zip(columns, how, strict=True) if sql is not None}
                self._tables[name] = _Table(schema, table, level, known, virtual, following)
        return {name: table.types for name, table in self._tables.items()}

    def kinds(self, tables: Collection[str]) -> Mapping[str, str]:
        quoted = [self._connection.ops.quote_name(table) for table in tables]
        with self._connection.cursor() as cursor:
            cursor.execute(_KINDS, [list(tables), quoted])
            return dict(cursor.fetchall())

    def ahead(self, captures: Iterable[Capture]) -> list[tuple[str, str]]:
        with self._connection.cursor() as cursor:
            cursor.execute(_AHEAD)
            found = cursor.fetchall()
        ours = set()
        for capture in captures:
            table = self._tables[capture.model._meta.db_table]
            ours.add((table.schema, table.name))
        return [
            (shapes.label(schema, table), name)
            for schema, table, name in found
            if (schema, table) in ours
        ]

    def marks(self) -> frozenset[object]:
        with self._connection.cursor() as cursor:
            cursor.execute(_MARKS)
            return frozenset(cursor.fetchall())

    def exclusive(self) -> AbstractContextManager[object]:
        return nullcontext()

    def compare(self, captures: Iterable[Capture]) -> list[Trigger]:
        self._find_log()
        triggers, functions = self._installed()
        compared: list[Trigger] = []
        used: set[str] = set()
        for capture in captures:
            table = self._tables[capture.model._meta.db_table]
            shape = self._shape(capture, table)
            function = shape.function()
            used.add(function.name)
            current = (function.body, True, list(shape.settings))
            ready = functions.get(function.name) == current
            label = shapes.label(capture.relation.schema, capture.relation.table)
            for trigger in shape.triggers(capture.ops):
                found = triggers.pop((table.schema, table.name, trigger.name), None)
                right = found == _Found(trigger.type, True, function.name)
                state = State.STALE
                if found is None:
                    state = State.MISSING
                elif right and ready:
                    state = State.INSTALLED
                create = function.sql if right else (*function.sql, *trigger.sql)
                compared.append(Trigger(trigger.name, label, state, create))
        compared += [
            Trigger(
                name, shapes.label(schema, table), State.ORPHAN, drop=_drop(name, schema, table)
            )
            for schema, table, name in triggers
        ]
        compared += [
            Trigger(f"{name}()", "", State.ORPHAN, drop=self._drop_function(name))
            for name in functions
            if name not in used
        ]
        # What no table has, the functions, comes last: no trigger may need it then.
        return sorted(
            compared, key=lambda trigger: (not trigger.table, trigger.table, trigger.name)
        )

    def apply(self, changes: Iterable[Trigger]) -> None:
        ordered = sorted(changes, key=lambda trigger: not trigger.table)
        for _, group in itertools.groupby(ordered, key=lambda trigger: trigger.table):
            found = list(group)
            statements = [sql for trigger in found for sql in (*trigger.drop, *trigger.create)]
            # The function that the triggers of a table share is made once.
            self._run(list(dict.fromkeys(statements)))

    def remove(self) -> list[str]:
        self._find_log()
        triggers, functions = self._installed()
        for (schema, table), group in itertools.groupby(sorted(triggers), key=lambda key: key[:2]):
            self._run([sql for _, _, name in group for sql in _drop(name, schema, table)])
        self._run([sql for name in functions for sql in self._drop_function(name)])
        return sorted(f"{shapes.label(schema, table)} {name}" for schema, table, name in triggers)

    # --- what there is --------------------------------------------------------------------------

    def _find_log(self) -> None:
        from realtime.models import WalEntry

        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT relnamespace::regnamespace::text, current_schema() FROM pg_class"
                " RIGHT JOIN (SELECT 1) AS one ON oid = to_regclass(%s)",
                [self._connection.ops.quote_name(WalEntry._meta.db_table)],
            )
            found, current = cursor.fetchone()
        # As regnamespace prints it: quoted where it has to be.
        self._schema = found or quote_name(current or "public")

    def _installed(
        self,
    ) -> tuple[dict[tuple[str, str, str], _Found], dict[str, tuple[str, bool, list[str]]]]:
        with self._connection.cursor() as cursor:
            cursor.execute(_TRIGGERS, [self._schema])
            triggers = {
                (schema, table, name): _Found(type_, enabled == "A", function)
                for schema, table, name, type_, enabled, function in cursor.fetchall()
            }
            cursor.execute(_FUNCTIONS, [self._schema])
            functions = {
                name: (body, definer, settings or [])
                for name, body, definer, settings in cursor.fetchall()
            }
        return triggers, functions

    def _shape(self, capture: Capture, table: _Table) -> TriggerFunctionSql:
        from realtime.models import WalEntry

        _, log = shapes.table_name_of(WalEntry)
        return TriggerFunctionSql(
            relation=capture.relation,
            types=table.types,
            virtual=table.virtual,
            whole=capture.whole,
            table=f"{quote_name(table.schema)}.{quote_name(table.name)}",
            wal=f"{self._schema}.{quote_name(log)}",
            zone=self._connection.timezone_name,
            level=table.level,
            home=table.schema,
            next_column=table.next_column,
        )

    def _drop_function(self, name: str) -> tuple[str, ...]:
        return (f"DROP FUNCTION IF EXISTS {self._schema}.{quote_name(name)}()",)

    # --- changing it ----------------------------------------------------------------------------

    def _run(self, statements: list[str]) -> None:
        """In one transaction. Raises OperationalError when the table stays locked."""
        if not statements:
            return
        attempts = 1 if self._connection.in_atomic_block else self._patience.attempts
        for attempt in range(1, attempts + 1):
            try:
                with transaction.atomic(using=self._connection.alias):
                    self._execute(statements)
                return
            except OperationalError as error:
                if attempt == attempts or _sqlstate(error) not in _RETRIED:
                    raise
            time.sleep(self._patience.pause)

    def _execute(self, statements: list[str]) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_KEY])
            cursor.execute("SELECT current_setting('lock_timeout')")
            (before,) = cursor.fetchone()
            cursor.execute(
                "SELECT set_config('lock_timeout', %s, true)", [f"{self._patience.lock_ms}ms"]
            )
            for statement in statements:
                cursor.execute(statement)
            # The transaction may be the caller's.
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [before])


def _drop(trigger: str, schema: str, table: str) -> tuple[str, ...]:
    name = f"{quote_name(schema)}.{quote_name(table)}"
    return (f"DROP TRIGGER IF EXISTS {quote_name(trigger)} ON {name}",)


def _sqlstate(error: Exception) -> Any:
    return getattr(error.__cause__, "sqlstate", None)
