"""Comparisons as SQLite writes them.

Pure: text and parameters. Nothing here talks to a database.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import TYPE_CHECKING, Any

from auth_rls.predicates import patterns
from auth_rls.predicates.kinds import INT_MAX, INT_MIN, Kind
from auth_rls.sql.dialects.base import Dialect, Sql

if TYPE_CHECKING:
    from auth_rls.sql.columns import Column

# A longer list is passed as one JSON parameter, since SQLite limits their number.
_LONG_LIST = 2_000


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
