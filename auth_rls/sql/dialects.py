"""Dialects: one comparison as SQL text, for SQLite and for PostgreSQL.

Each says in its database's words exactly what evaluate.py does: text by code point, letters
folded as ASCII does, NULL unknown to everything but the null tests. Django's own lookups are not
used, since they differ between vendors (LIKE on SQLite ignores case) and make exceptions of
their own (`exact` of an empty text, of a bool, of a large integer).

Text and parameters only: nothing here talks to a database. A value of a captured column is
expected as Django stores it.

Pure: no Django, no I/O.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import TYPE_CHECKING, Any

from auth_rls.predicates import patterns
from auth_rls.predicates.kinds import INT_MAX, INT_MIN, Kind

if TYPE_CHECKING:
    from auth_rls.sql.columns import Column

Sql = tuple[str, list[Any]]

TRUE, FALSE, UNKNOWN = "(1 = 1)", "(1 = 0)", "(NULL = 1)"

# Beyond these a list of parameters meets the database's limit.
_LONG_LIST = 2_000

_SIGNS = {"exact": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
# Which way a literal that falls between two storable values goes; None: it equals neither.
_ROUNDING = {"exact": None, "gt": False, "gte": True, "lt": True, "lte": False}


class Dialect(ABC):
    """How a database writes comparisons. Every method returns text with %s and its parameters;
    the column's own SQL, `sql`, has no parameters of its own."""

    def compare(self, column: Column, op: str, value: Any, sql: str) -> Sql:
        """One test of a column with a bound value. Raises ValueError for an operator that SQL
        cannot say as evaluate.py does."""
        if op == "isnull":
            return self.is_null(column, value, sql), []
        if op == "is":
            return self.is_bool(sql, value), []
        if op == "isdistinct" and value is None:
            return f"{sql} IS NOT NULL", []
        operand = self.operand(column, sql, ordered=op not in ("exact", "in", "isdistinct"))
        if op == "isdistinct":
            place, params = self.literal(column, value, up=None)
            return f"{operand} {self.distinct} {place}", params
        if op in _SIGNS:
            place, params = self.literal(column, value, up=_ROUNDING[op])
            return f"{operand} {_SIGNS[op]} {place}", params
        if op == "range":
            low, high = value
            low_place, low_params = self.literal(column, low, up=True)
            high_place, high_params = self.literal(column, high)
            return f"{operand} BETWEEN {low_place} AND {high_place}", [*low_params, *high_params]
        if op == "in":
            return self.in_list(column, value, operand) if value else (FALSE, [])
        return self.text(op, value, sql)

    def is_null(self, column: Column, value: bool, sql: str) -> str:
        """Whether the column is NULL, or (`value` False) is not."""
        return f"{self.nullable(column, sql)} IS {'' if value else 'NOT '}NULL"

    def text(self, op: str, value: str, sql: str) -> Sql:
        """The operators on text alone."""
        if op in ("iexact", "icontains", "istartswith", "iendswith", "ilike"):
            # Folding the column's side once leaves the case-sensitive operator to do.
            folded = self.folded(sql)
            value = patterns.fold(value)
            if op == "iexact":
                return f"{folded} = %s", [value]
            return self.text(op[1:], value, folded)
        if op == "contains":
            return self.contains(sql, value)
        if op == "startswith":
            return self.startswith(sql, value)
        if op == "endswith":
            return self.endswith(sql, value)
        if op == "like":
            return self.like(sql, value)
        raise ValueError(f"operator {op!r} has no exact SQL")

    distinct: str

    @abstractmethod
    def nullable(self, column: Column, sql: str) -> str: ...

    @abstractmethod
    def is_bool(self, sql: str, value: bool | None) -> str: ...

    @abstractmethod
    def operand(self, column: Column, sql: str, *, ordered: bool) -> str: ...

    @abstractmethod
    def literal(self, column: Column, value: Any, *, up: bool | None = False) -> Sql:
        """The value as the other side of a comparison. `up` as in _ROUNDING."""

    @abstractmethod
    def in_list(self, column: Column, values: Iterable[Any], operand: str) -> Sql: ...

    @abstractmethod
    def member(self, outer: Column, inner: Column, prefix: str, sql: str) -> Sql:
        """A value of the inner column as it is compared with the outer one."""

    @abstractmethod
    def folded(self, sql: str) -> str: ...

    @abstractmethod
    def contains(self, sql: str, value: str) -> Sql: ...

    @abstractmethod
    def startswith(self, sql: str, value: str) -> Sql: ...

    @abstractmethod
    def endswith(self, sql: str, value: str) -> Sql: ...

    @abstractmethod
    def like(self, sql: str, pattern: str) -> Sql: ...


class Sqlite(Dialect):
    distinct = "IS NOT"

    def nullable(self, column: Column, sql: str) -> str:
        # A captured row cannot tell JSON's null from SQL's, so neither does a predicate.
        return f"NULLIF({sql}, 'null')" if column.kind is Kind.JSON else sql

    def is_bool(self, sql: str, value: bool | None) -> str:
        return f"{sql} IS {'NULL' if value is None else int(value)}"

    def operand(self, column: Column, sql: str, *, ordered: bool) -> str:
        if column.kind is Kind.TEXT:
            return f"{sql} COLLATE BINARY"
        if column.kind is Kind.DECIMAL:
            return f"ROUND({sql}, {column.scale})"
        return sql

    def literal(self, column: Column, value: Any, *, up: bool | None = False) -> Sql:
        if column.kind is Kind.DECIMAL:
            # The same function on both sides, so that both arrive at the same double.
            return f"ROUND(%s, {column.scale})", [_rounded(value, column.scale or 0, up)]
        return "%s", [_stored(column.kind, value)]

    def in_list(self, column: Column, values: Iterable[Any], operand: str) -> Sql:
        literals = [self.literal(column, value, up=None) for value in values]
        place = literals[0][0]
        params = [param for _, found in literals for param in found]
        if len(params) <= _LONG_LIST or column.kind is Kind.FLOAT:
            return f"{operand} IN ({', '.join([place] * len(params))})", params
        values_of = f"SELECT {place.replace('%s', 'value')} FROM json_each(%s)"
        return f"{operand} IN ({values_of})", [f"[{', '.join(map(_json, params))}]"]

    def member(self, outer: Column, inner: Column, prefix: str, sql: str) -> Sql:
        if outer.kind is not Kind.TEXT:
            return self.operand(inner, sql, ordered=False), []
        if inner.kind is Kind.UUID:
            pieces = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
            sql = " || '-' || ".join(f"substr({sql}, {at}, {size})" for at, size in pieces)
        if inner.kind is Kind.TEXT and not prefix:
            return sql, []
        return f"(%s || CAST({sql} AS TEXT))", [prefix]

    def folded(self, sql: str) -> str:
        return f"lower({sql})"

    def contains(self, sql: str, value: str) -> Sql:
        return f"instr({sql}, %s) > 0", [value]

    def startswith(self, sql: str, value: str) -> Sql:
        return f"substr({sql}, 1, {len(value)}) = %s COLLATE BINARY", [value]

    def endswith(self, sql: str, value: str) -> Sql:
        if not value:
            return f"length({sql}) >= 0", []
        return f"substr({sql}, -{len(value)}) = %s COLLATE BINARY", [value]

    def like(self, sql: str, pattern: str) -> Sql:
        # GLOB: SQLite's own LIKE ignores case.
        pieces = []
        for part in patterns.like_parts(pattern):
            if part is None:
                pieces.append("*")
            elif not part:
                pieces.append("?")
            else:
                pieces.append("".join(f"[{char}]" if char in "*?[" else char for char in part))
        return f"{sql} GLOB %s", ["".join(pieces)]


class Postgresql(Dialect):
    distinct = "IS DISTINCT FROM"

    def nullable(self, column: Column, sql: str) -> str:
        return f"NULLIF({sql}, 'null'::jsonb)" if column.kind is Kind.JSON else sql

    def is_null(self, column: Column, value: bool, sql: str) -> str:
        plain = super().is_null(column, value, sql)
        if column.kind in (Kind.FLOAT, Kind.DECIMAL):
            # The row is read without a NaN, and what is not there is unknown to this test too.
            return f"CASE WHEN {sql} = 'NaN' THEN NULL ELSE {plain} END"
        return plain

    def is_bool(self, sql: str, value: bool | None) -> str:
        return f"{sql} IS {'NULL' if value is None else str(value).upper()}"

    def operand(self, column: Column, sql: str, *, ordered: bool) -> str:
        if column.kind is Kind.TEXT and (ordered or column.collated):
            # Equality needs no collation but where the column has one that blurs it; leaving
            # it out there keeps the column's index in use.
            return f'{sql} COLLATE "C"'
        if column.kind in (Kind.FLOAT, Kind.DECIMAL):
            # NaN is no value here: the row is read without it.
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
        text = sql if inner.kind is Kind.TEXT else f"{sql}::text"
        if inner.collated or outer.collated:
            # Two columns with collations of their own have none in common.
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


DIALECTS: dict[str, Dialect] = {"sqlite": Sqlite(), "postgresql": Postgresql()}

_POSTGRESQL_TYPES = {
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
    return _POSTGRESQL_TYPES[kind]


_EXACT_DIGITS = Decimal(10) ** 15
_WIDE = Context(prec=200)


def _rounded(value: Decimal, scale: int, up: bool | None) -> float:
    """The literal on the column's grid, so that comparing doubles decides as decimals would:
    upwards, downwards, or (None) infinite when no stored value can equal it."""
    if abs(value) >= _EXACT_DIGITS:
        return float(value)
    grid = Decimal(1).scaleb(-scale)
    rounded = value.quantize(grid, ROUND_CEILING if up else ROUND_FLOOR, _WIDE)
    if up is None and rounded != value:
        return math.inf
    return float(rounded)


def _stored(kind: Kind, value: Any) -> Any:
    """The value as Django writes it into SQLite."""
    if kind is Kind.BOOL:
        return int(value)
    if kind is Kind.UUID:
        return value.replace("-", "")
    if kind is Kind.DATETIME:
        return str(value.replace(tzinfo=None))
    if kind in (Kind.DATE, Kind.TIME):
        return str(value)
    if kind is Kind.INTERVAL:
        span = value // timedelta(microseconds=1)
        # What no column can hold is passed as a double, which still compares as it should.
        return span if INT_MIN <= span <= INT_MAX else float(span)
    return value


def _json(param: Any) -> str:
    """A parameter as JSON. Infinity is not in the standard; SQLite reads it from this."""
    if isinstance(param, float) and math.isinf(param):
        return "9e999" if param > 0 else "-9e999"
    return json.dumps(param)


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
