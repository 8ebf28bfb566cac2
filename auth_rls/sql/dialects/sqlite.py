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
from auth_rls.predicates.kinds import INT_MAX, INT_MIN, OPAQUE, Kind
from auth_rls.predicates.operators import operator_of
from auth_rls.sql.dialects.base import Dialect, Sql
from auth_rls.sql.dialects.sqlite_values import HUGE, is_interval, is_uuid, known

if TYPE_CHECKING:
    from auth_rls.sql.columns import Column

# A longer list is passed as one JSON parameter, since SQLite limits their number.
_LONG_LIST = 2_000


# Kinds whose values are stored in one form: a column that equals one holds one.
_ONE_FORM = frozenset({Kind.BOOL, Kind.DATE, Kind.INT, Kind.INTERVAL})
_WHOLE = frozenset({Kind.BOOL, Kind.INT, Kind.INTERVAL})


class Sqlite(Dialect):
    """A value that is not of its column's kind is unknown, as it is to the stream: see `known` in
    sqlite_values.py. Under no NOT the column itself is compared too, so that its index is used."""

    distinct = "IS NOT"

    def compare(
        self, column: Column, op: str, value: Any, sql: str, *, positive: bool = False
    ) -> Sql:
        if positive and op == "isnull" and value:
            return f"{self.nullable(column, sql)} IS NULL", []
        exact, params = super().compare(column, op, value, sql, positive=positive)
        if not positive:
            return exact, params
        coarse = self._coarse(column, op, value, sql)
        if coarse is None:
            return exact, params
        text, found = coarse
        if column.kind in _WHOLE:
            return f"({text} AND {_is_whole(column.kind, sql)})", found
        if column.kind is Kind.DATE and op in ("exact", "in"):
            return text, found
        return f"({text} AND {exact})", [*found, *params]

    def _coarse(self, column: Column, op: str, value: Any, sql: str) -> Sql | None:
        """A condition on the column itself that holds wherever the comparison is true."""
        kind, sign = column.kind, operator_of(op).sign
        if kind is Kind.UUID:
            return _either_case(sql, op, value)
        plain = f"{sql} COLLATE BINARY" if kind not in _WHOLE else sql
        if kind in _ONE_FORM:
            if sign:
                return f"{plain} {sign} %s", [_stored(kind, value)]
            if op == "range":
                return f"{plain} BETWEEN %s AND %s", [_stored(kind, end) for end in value]
            return self.in_list(column, value, plain) if op == "in" and value else None
        if kind is Kind.TEXT and op in ("exact", "in") and value:
            texts = [value] if op == "exact" else list(value)
            if any("\ufffd" in text for text in texts):
                return None  # invalid UTF-8 is read as this character
            forms = [form for text in texts for form in (text, _blob_of(text)) if form is not None]
            if len(forms) <= _LONG_LIST:
                return f"{plain} IN ({', '.join(['%s'] * len(forms))})", forms
        if kind is Kind.DATETIME and (sign or op == "range"):
            low, high = value if op == "range" else (value, value)
            first, last = str(low.replace(tzinfo=None))[:19], _stored(kind, high) + ":"
            if op in ("exact", "range"):
                return f"{plain} BETWEEN %s AND %s", [first, last]
            return (f"{plain} >= %s", [first]) if ">" in sign else (f"{plain} <= %s", [last])
        return None

    def membership(
        self, column: Column, sql: str, subquery: str, params: list[Any], *, positive: bool = False
    ) -> Sql:
        if positive and column.kind is Kind.UUID:
            both = "SELECT v FROM members UNION ALL SELECT upper(v) FROM members"
            return f"{sql} IN (WITH members(v) AS {subquery} {both})", params
        if positive and column.kind in _ONE_FORM:
            if column.kind in _WHOLE:
                return f"({sql} IN {subquery} AND {_is_whole(column.kind, sql)})", params
            return f"{sql} IN {subquery}", params
        return super().membership(column, sql, subquery, params)

    def nullable(self, column: Column, sql: str) -> str:
        # A captured row cannot tell JSON's null from SQL's, so neither does a predicate.
        return f"NULLIF({sql}, 'null')" if column.kind is Kind.JSON else sql

    def is_null(self, column: Column, value: bool, sql: str) -> str:
        if column.kind in OPAQUE:
            return super().is_null(column, value, sql)
        yes, no = ("1", "0") if value else ("0", "1")
        operand = known(column.kind, column.scale, sql)
        return f"CASE WHEN {sql} IS NULL THEN {yes} WHEN {operand} IS NOT NULL THEN {no} END"

    def is_bool(self, column: Column, sql: str, value: bool) -> str:
        operand = known(column.kind, column.scale, sql)
        return f"CASE WHEN {sql} IS NULL THEN 0 ELSE {operand} = {int(value)} END"

    def is_distinct(self, column: Column, sql: str, operand: str, literal: str) -> str:
        return f"CASE WHEN {sql} IS NULL THEN 1 ELSE {operand} <> {literal} END"

    def operand(self, column: Column, sql: str, *, ordered: bool) -> str:
        return f"{known(column.kind, column.scale, sql)} COLLATE BINARY"

    def as_text(self, column: Column, sql: str) -> str:
        return known(column.kind, column.scale, sql)

    def literal(self, column: Column, value: Any, *, up: bool | None = False) -> Sql:
        if column.kind is Kind.DECIMAL:
            return "%s", [_scaled(value, column.scale, up)]
        return "%s", [_stored(column.kind, value)]

    def in_list(self, column: Column, values: Iterable[Any], operand: str) -> Sql:
        params = [param for value in values for param in self.literal(column, value, up=None)[1]]
        if len(params) <= _LONG_LIST or column.kind is Kind.FLOAT:
            return f"{operand} IN ({', '.join(['%s'] * len(params))})", params
        return (
            f"{operand} IN (SELECT value FROM json_each(%s))",
            [f"[{', '.join(map(_json, params))}]"],
        )

    def member(self, outer: Column, inner: Column, prefix: str, sql: str) -> Sql:
        value = known(inner.kind, inner.scale, sql)
        if outer.kind is Kind.DECIMAL and outer.scale is not None and inner.scale is not None:
            return _rescaled(f"({value})", outer.scale - inner.scale), []
        if outer.kind is not Kind.TEXT:
            return value, []
        if inner.kind is Kind.UUID:
            pieces = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
            value = " || '-' || ".join(f"substr({sql}, {at}, {size})" for at, size in pieces)
            value = f"CASE WHEN {is_uuid(sql)} THEN lower({value}) END"
        if inner.kind is Kind.TEXT and not prefix:
            return value, []
        return f"(%s || CAST(({value}) AS TEXT))", [prefix]

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


def _is_whole(kind: Kind, sql: str) -> str:
    return is_interval(sql) if kind is Kind.INTERVAL else f"typeof({sql}) = 'integer'"


_WIDE = Context(prec=200)


def _scaled(value: Decimal, scale: int | None, up: bool | None) -> int | float:
    """The literal in the form of `known`: an integer of the column's scale, rounded up or down; for
    `up` None, infinite if no stored value can equal it."""
    if scale is None:
        return float(value)
    grid = value.scaleb(scale, _WIDE)
    if not INT_MIN <= grid <= INT_MAX:
        return max(min(float(grid), float(HUGE)), -float(HUGE))
    whole = grid.to_integral_value(ROUND_CEILING if up else ROUND_FLOOR, _WIDE)
    if up is None and whole != grid:
        return math.inf
    return int(whole)


def _rescaled(value: str, power: int) -> str:
    """A decimal of the inner column at the scale of the outer one; a text if it has more digits."""
    if power >= 0:
        return f"{value} * {10**power}"
    step = 10**-power
    return f"CASE WHEN {value} %% {step} = 0 THEN {value} / {step} ELSE 'none' || {value} END"


def _either_case(sql: str, op: str, value: Any) -> Sql | None:
    if op not in ("exact", "in") or not value:
        return None
    values = [value] if op == "exact" else list(value)
    forms = [
        form for v in values for form in (_stored(Kind.UUID, v), _stored(Kind.UUID, v).upper())
    ]
    if len(forms) > _LONG_LIST:
        return None
    return f"{sql} COLLATE BINARY IN ({', '.join(['%s'] * len(forms))})", forms


def _blob_of(text: str) -> bytes | None:
    """The bytes of a BLOB that reads as this text in a text column."""
    if len(text) % 2 or not text.isascii() or text != text.lower():
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _stored(kind: Kind, value: Any) -> Any:
    """The value in the form of `known`."""
    if kind is Kind.BOOL:
        return int(value)
    if kind is Kind.UUID:
        return value.replace("-", "")
    if kind is Kind.DATETIME:
        return value.replace(tzinfo=None).isoformat(" ", "microseconds")
    if kind is Kind.TIME:
        return value.isoformat("microseconds")
    if kind is Kind.DATE:
        return str(value)
    if kind is Kind.INTERVAL:
        span = value // timedelta(microseconds=1)
        # A number that no column can store is passed as a double, which compares correctly.
        return span if INT_MIN <= span <= INT_MAX else float(span)
    return value


def _json(param: Any) -> str:
    """A parameter as JSON. Infinity is not in the standard; SQLite reads it from this form."""
    if isinstance(param, float) and math.isinf(param):
        return "9e999" if param > 0 else "-9e999"
    return json.dumps(param)
