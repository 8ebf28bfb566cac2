"""Comparisons as PostgreSQL writes them.

Pure: text and parameters. Nothing here talks to a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from auth_rls.predicates import patterns
from auth_rls.predicates.fit import Fit
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.operators import operator_of
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

    def compare(
        self, column: Column, op: str, value: Any, sql: str, *, positive: bool = False
    ) -> Sql:
        plain = self._plain(column, op, value, sql) if positive else None
        return super().compare(column, op, value, sql) if plain is None else plain

    def _plain(self, column: Column, op: str, value: Any, sql: str) -> Sql | None:
        """The comparison with the column itself, so that its index is used, where values that are
        not known may make it false instead of unknown. Literals are known values, and so is what
        equals one."""
        known = is_known(column.kind, sql)
        if known is None:
            return None
        sign = operator_of(op).sign
        if sign:
            literal, params = self.literal(column, value)
            text = f"{sql} {sign} {literal}"
            return (text if sign == "=" else f"({text} AND {known})"), params
        if op == "range":
            (low, first), (high, second) = (self.literal(column, end) for end in value)
            return f"{sql} BETWEEN {low} AND {high}", [*first, *second]
        if op == "in" and value:
            return self.in_list(column, value, sql)
        return (f"{sql} IS NULL", []) if op == "isnull" and value else None

    def membership(
        self, column: Column, sql: str, subquery: str, params: list[Any], *, positive: bool = False
    ) -> Sql:
        if positive and is_known(column.kind, sql) is not None:
            return f"{sql} IN {subquery}", params
        return super().membership(column, sql, subquery, params)

    def is_null(self, column: Column, value: bool, sql: str) -> str:
        return _unless_unknown(column, sql, super().is_null(column, value, sql))

    def is_distinct(self, column: Column, sql: str, operand: str, literal: str) -> str:
        differs = super().is_distinct(column, sql, operand, literal)
        return _unless_unknown(column, sql, differs)

    def is_bool(self, column: Column, sql: str, value: bool) -> str:
        return f"{sql} IS {str(value).upper()}"

    def operand(self, column: Column, sql: str, *, ordered: bool) -> str:
        if column.kind is Kind.TEXT:
            # Equality needs no collation but where the column has one that blurs it; leaving
            # it out there keeps the column's index in use.
            text = self.as_text(column, sql)
            return f'{text} COLLATE "C"' if ordered or column.collated else text
        known = is_known(column.kind, sql)
        return sql if known is None else f"CASE WHEN {known} THEN {sql} END"

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


# The values that the stream reads. Others, such as an infinite date, have no form in Python; they
# are left out of the row, and every comparison with them is unknown.
_KNOWN = {
    Kind.FLOAT: "{0} <> 'NaN'",
    Kind.DECIMAL: "{0} <> 'NaN'",
    Kind.DATE: "{0} BETWEEN '0001-01-01' AND '9999-12-31'",
    Kind.TIME: "{0} < '24:00'",
    Kind.DATETIME: "{0} BETWEEN '0001-01-01 00:00Z' AND '9999-12-31 23:59:59.999999Z'",
    Kind.INTERVAL: "{0} BETWEEN '-999999999 days' AND '999999999 days 23:59:59.999999'",
    # An address with a mask names a network.
    Kind.INET: "masklen({0}) = CASE family({0}) WHEN 4 THEN 32 ELSE 128 END",
}


def is_known(kind: Kind, sql: str) -> str | None:
    """The condition that the column holds a value that the stream reads, NULL for NULL. None for a
    kind of which it reads every value."""
    template = _KNOWN.get(kind)
    return None if template is None else template.format(sql)


def _unless_unknown(column: Column, sql: str, test: str) -> str:
    """A test that decides about NULL, unknown for values that the stream does not read."""
    known = is_known(column.kind, sql)
    return test if known is None else f"CASE WHEN NOT {known} THEN NULL ELSE {test} END"


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
