"""Comparisons as PostgreSQL writes them.

Pure: text and parameters. Nothing here talks to a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from auth_rls.predicates import patterns
from auth_rls.predicates.fit import Fit
from auth_rls.predicates.kinds import Kind
from auth_rls.sql.dialects import postgresql_types
from auth_rls.sql.dialects.base import Dialect, Sql, StoredType

if TYPE_CHECKING:
    from auth_rls.sql.columns import Column


class Postgresql(Dialect):
    distinct = "IS DISTINCT FROM"
    exports_policies = True

    def stored_types(self, tables: Mapping[str, str]) -> Sql | None:
        return postgresql_types.QUERY, [list(tables), list(tables.values())]

    def fit_of(self, column: Column, stored: StoredType) -> Fit:
        return postgresql_types.fit_of(column, stored)

    def as_text(self, column: Column, sql: str) -> str:
        # The column may be an enum, a citext or a char(n): as text all of them compare as the
        # stream reads them. A text or varchar is one already, and keeps its index in use.
        return f"{sql}::text"

    def nullable(self, column: Column, sql: str) -> str:
        return f"NULLIF({sql}, 'null'::jsonb)" if column.kind is Kind.JSON else sql

    def is_null(self, column: Column, value: bool, sql: str) -> str:
        plain = super().is_null(column, value, sql)
        if column.kind in (Kind.FLOAT, Kind.DECIMAL):
            # A NaN is left out of the row, so this test is unknown for it too.
            return f"CASE WHEN {sql} = 'NaN' THEN NULL ELSE {plain} END"
        return plain

    def is_bool(self, column: Column, sql: str, value: bool) -> str:
        return f"{sql} IS {str(value).upper()}"

    def operand(self, column: Column, sql: str, *, ordered: bool) -> str:
        if column.kind is Kind.TEXT:
            # Equality needs no collation but where the column has one that blurs it; leaving
            # it out there keeps the column's index in use.
            text = self.as_text(column, sql)
            return f'{text} COLLATE "C"' if ordered or column.collated else text
        if column.kind in (Kind.FLOAT, Kind.DECIMAL):
            # NaN is no value: it is left out of the row.
            return f"NULLIF({sql}, 'NaN'::{type_name(column.kind)})"
        return sql

    def literal(self, column: Column, value: Any, *, up: bool | None = False) -> Sql:
        return f"%s::{type_name(column.kind)}", [_printed(column.kind, value)]

    def in_list(self, column: Column, values: Iterable[Any], operand: str) -> Sql:
        printed = [_printed(column.kind, value) for value in values]
        return f"{operand} = ANY(%s::{type_name(column.kind)}[])", [printed]

    def member(self, outer: Column, inner: Column, prefix: str, sql: str) -> Sql:
        if outer.kind is not Kind.TEXT:
            return self.operand(inner, sql, ordered=False), []
        text = f"{sql}::text"
        if inner.collated or outer.collated:
            # Two columns with their own collations need a common one.
            text = f'{text} COLLATE "C"'
        return (f"(%s::text || {text})", [prefix]) if prefix else (text, [])

    def folded(self, sql: str) -> str:
        return f'lower({sql} COLLATE "C")'

    def contains(self, sql: str, value: str) -> Sql:
        return f'strpos({sql} COLLATE "C", %s::text) > 0', [value]

    def startswith(self, sql: str, value: str) -> Sql:
        return f'starts_with({sql} COLLATE "C", %s::text)', [value]

    def endswith(self, sql: str, value: str) -> Sql:
        return f'right({sql} COLLATE "C", {len(value)}) = %s::text', [value]

    def like(self, sql: str, pattern: str) -> Sql:
        pieces = []
        for part in patterns.like_parts(pattern):
            if part is None:
                pieces.append("%")
            elif not part:
                pieces.append("_")
            else:
                pieces.append("".join(f"\\{char}" if char in "\\%_" else char for char in part))
        return f"{sql} COLLATE \"C\" LIKE %s::text ESCAPE '\\'", ["".join(pieces)]


_TYPES = {
    Kind.BOOL: "boolean",
    Kind.INT: "int8",
    Kind.FLOAT: "float8",
    Kind.DECIMAL: "numeric",
    Kind.TEXT: "text",
    Kind.UUID: "uuid",
    Kind.DATE: "date",
    Kind.TIME: "time",
    Kind.DATETIME: "timestamptz",
    Kind.INTERVAL: "interval",
    Kind.INET: "inet",
}


def type_name(kind: Kind) -> str:
    """PostgreSQL's type in which values of this kind are compared."""
    return _TYPES[kind]


def _printed(kind: Kind, value: Any) -> str:
    """The value as text that PostgreSQL reads."""
    if kind is Kind.BOOL:
        return "true" if value else "false"
    if kind is Kind.FLOAT:
        return repr(value)
    if kind is Kind.DATETIME:
        return str(value.isoformat())
    if kind is Kind.INTERVAL:
        seconds = value.seconds
        return f"{value.days} days {seconds} seconds {value.microseconds} microseconds"
    return str(value)
