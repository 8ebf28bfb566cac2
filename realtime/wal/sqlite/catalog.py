"""The capture triggers of a SQLite database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal.capture import Capture
from realtime.wal.catalog import State, Trigger
from realtime.wal.sqlite import triggers

_TABLES = (
    "SELECT m.name, x.name FROM sqlite_master AS m, pragma_table_xinfo(m.name) AS x"
    " WHERE m.type = 'table'"
)


_OURS = f"substr({{}}.name, 1, {len(triggers.PREFIX)}) = '{triggers.PREFIX}'"
# SQLite fires the triggers of a table from the newest to the oldest. What a trigger newer than ours
# writes would be in the log before the change that fired it.
_TRIGGERS = (
    "SELECT m.name, m.tbl_name, m.sql, EXISTS (SELECT 1 FROM sqlite_master AS other"
    " WHERE other.type = 'trigger' AND other.tbl_name = m.tbl_name COLLATE NOCASE"
    f" AND other.rowid > m.rowid AND NOT ({_OURS.format('other')})) FROM sqlite_master AS m"
    f" WHERE m.type = 'trigger' AND {_OURS.format('m')}"
)
_MARKS = (
    "SELECT m.tbl_name, m.name FROM sqlite_master AS m"
    f" WHERE m.type = 'trigger' AND {_OURS.format('m')}"
)
_KINDS = "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')"


class SqliteCatalog:
    """Triggers by their full text in sqlite_master. Changes are one transaction."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection

    def marks(self) -> frozenset[object]:
        with self._connection.cursor() as cursor:
            cursor.execute(_MARKS)
            return frozenset(cursor.fetchall())

    def columns(self, tables: Collection[str]) -> Mapping[str, Collection[str]]:
        found: dict[str, set[str]] = {}
        with self._connection.cursor() as cursor:
            cursor.execute(_TABLES)
            for table, column in cursor.fetchall():
                found.setdefault(table, set()).add(column)
        return found

    def kinds(self, tables: Collection[str]) -> Mapping[str, str]:
        with self._connection.cursor() as cursor:
            cursor.execute(_KINDS)
            known = {name.lower(): kind for name, kind in cursor.fetchall()}
        return {name: known[name.lower()] for name in tables if name.lower() in known}

    def ahead(self, captures: Iterable[Capture]) -> list[tuple[str, str]]:
        # None: ours are made again, so that they are the newest.
        return []

    def exclusive(self) -> AbstractContextManager[object]:
        return transaction.atomic(using=self._connection.alias)

    def compare(self, captures: Iterable[Capture]) -> list[Trigger]:
        found = self._installed()
        compared = []
        for capture in captures:
            table = capture.relation.table
            rendered = triggers.triggers(
                capture.relation, scales=capture.scales, whole=capture.whole, ops=capture.ops
            )
            for name, sql in rendered.items():
                if name not in found:
                    compared.append(Trigger(name, table, State.MISSING, (sql,)))
                else:
                    same = found.pop(name) == (table, sql, False)
                    state = State.INSTALLED if same else State.STALE
                    compared.append(Trigger(name, table, state, (sql,), _drop(name)))
        compared += [
            Trigger(name, table, State.ORPHAN, drop=_drop(name))
            for name, (table, _, _) in found.items()
        ]
        return sorted(compared, key=lambda trigger: (trigger.table, trigger.name))

    def apply(self, changes: Iterable[Trigger]) -> None:
        with self._connection.cursor() as cursor:
            for trigger in changes:
                for statement in (*trigger.drop, *trigger.create):
                    cursor.execute(statement)

    def remove(self) -> list[str]:
        installed = sorted(self._installed())
        if installed:
            with self.exclusive(), self._connection.cursor() as cursor:
                for name in installed:
                    cursor.execute(*_drop(name))
        return installed

    def _installed(self) -> dict[str, tuple[str, str, bool]]:
        """By trigger name: the table, the text, and whether a foreign trigger fires before it."""
        with self._connection.cursor() as cursor:
            cursor.execute(_TRIGGERS)
            return {name: (table, sql, bool(late)) for name, table, sql, late in cursor.fetchall()}


def _drop(name: str) -> tuple[str]:
    return (f"DROP TRIGGER IF EXISTS {triggers.quote_name(name)}",)
