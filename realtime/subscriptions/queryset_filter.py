"""The filters of a queryset as a condition on rows.

A row is judged by itself, so only comparisons of the table's own
columns with plain values have a counterpart here. Everything else is refused. Reads no database.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NoReturn

from django.db import models
from django.db.models.expressions import Col
from django.db.models.fields.related_lookups import RelatedLookupMixin
from django.db.models.lookups import Lookup
from django.db.models.sql.where import NothingNode, WhereNode

from auth_rls.predicates.kinds import OPAQUE, Kind, from_python
from auth_rls.predicates.operators import OPERATORS, Form
from auth_rls.predicates.predicate import FALSE, TRUE, All, Any_, Not, Predicate, Test
from auth_rls.sql.columns import Column, columns_of, concrete
from realtime.wal import published

_BUILT_IN = ("django.db.models.lookups", "django.db.models.fields.related_lookups")
_ORDERED = frozenset({"gt", "gte", "lt", "lte", "range"})
_MOST_VALUES = 10_000
_MOST_CONDITIONS = 1_000


class NoCondition(ValueError):
    """A part of a queryset has no counterpart in a condition on rows: `part` names it, and `reason`
    says why."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"this queryset has no condition on single rows: {part}: {reason}")
        self.part = part
        self.reason = reason


def condition_of(queryset: models.QuerySet[Any]) -> Predicate:
    """The bound condition under which a row is in the queryset of a published model. `order_by`,
    `select_related`, `prefetch_related` and `select_for_update` say nothing of that and are passed
    over.

    Raises NoCondition.
    """
    _refuse_forms(queryset)
    query: Any = queryset.query
    # An unpublished column must not be compared: whether a row comes would tell its value.
    shown = published.published_columns(concrete(queryset.model)) or frozenset()
    return _Reader(queryset.model, shown, query.base_table).node(query.where)


def _refuse_forms(queryset: models.QuerySet[Any]) -> None:
    query: Any = queryset.query
    if query.combinator:
        raise NoCondition(f"{query.combinator}()", "rows of combined queries have no table")
    if query.is_sliced:
        raise NoCondition("a slice", "which rows are in it depends on all the others")
    if query.distinct:
        raise NoCondition("distinct()", "whether a row is in it depends on the others")
    for name in query.annotations:
        raise NoCondition(
            f"the annotation {name!r}", "an entry of the log has the columns of the table alone"
        )
    if query.group_by is not None:
        raise NoCondition("an aggregation", "a change is one row, and groups have none")
    if query.has_select_fields:
        raise NoCondition(
            "values() or values_list()", "changes come as Change; only() and defer() choose columns"
        )
    if query.extra or query.extra_tables:
        raise NoCondition("extra()", "SQL is not evaluated on changes")
    if queryset.db != queryset.using(None).db:
        raise NoCondition(
            f"using({queryset.db!r})", "the log is that of the database of REALTIME['DATABASE']"
        )


class _Reader:
    """Reads the condition of one query. Counts what it has read, which is evaluated for every
    change of the table."""

    def __init__(
        self, model: type[models.Model], shown: frozenset[str], base_table: str | None
    ) -> None:
        self._model = model
        self._columns = columns_of(model)
        self._shown = shown
        self._base_table = base_table
        self._conditions = 0
        self._values = 0

    def node(self, node: Any) -> Predicate:
        if isinstance(node, WhereNode):
            return self._connected(node)
        if isinstance(node, NothingNode):
            return FALSE
        if isinstance(node, Lookup):
            self._conditions += 1
            if self._conditions > _MOST_CONDITIONS:
                raise NoCondition("the filter", f"more than {_MOST_CONDITIONS} conditions")
            return self._lookup(node)
        raise NoCondition(
            f"the filter {_named(node)}", "only comparisons of columns with values are evaluated"
        )

    def _connected(self, node: WhereNode) -> Predicate:
        parts = tuple(self.node(child) for child in node.children)
        # A query without conditions has all rows, and Django takes its negation for the same.
        if not parts:
            return TRUE
        found: Predicate
        if len(parts) == 1:
            found = parts[0]
        elif node.connector == "AND":
            found = All(parts)
        elif node.connector == "OR":
            found = Any_(parts)
        else:
            raise NoCondition(
                f"conditions joined by {node.connector}", "write them with & and | instead of ^"
            )
        return Not(found) if node.negated else found

    def _lookup(self, lookup: Any) -> Predicate:
        column = self._column(lookup)
        name = lookup.lookup_name
        part = f"the filter {column.attname}__{name}"
        self._check_form(lookup, column, part)
        operator = OPERATORS.get(name)
        if operator is None or not operator.in_policies:
            hint = ""
            if name in ("regex", "iregex"):
                word = "match" if name == "regex" else "imatch"
                hint = f"; filter='{column.name}={word}.…' has a pattern of its own kind"
            raise NoCondition(part, f"no change is judged by {name!r}{hint}")
        if operator.form is Form.FLAG:
            return Test(column.name, name, bool(lookup.rhs))
        if column.kind in OPAQUE or column.kind not in operator.kinds:
            raise NoCondition(part, f"{name} does not apply to {column.kind} values in changes")
        if column.kind is Kind.TEXT and name in _ORDERED:
            raise NoCondition(
                part,
                "a database orders texts by its collation; "
                f"filter='{column.name}={'gte' if name == 'range' else name}.…' by code points",
            )
        if operator.form is Form.SET:
            values = frozenset(self._value(item, column, part) for item in self._items(lookup.rhs))
            # To SQL an empty list holds nothing, not even where the column is NULL.
            return Test(column.name, name, values) if values else FALSE
        if operator.form is Form.PAIR:
            low, high = (self._value(item, column, part) for item in lookup.rhs)
            return Test(column.name, name, (low, high))
        return Test(column.name, name, self._value(lookup.rhs, column, part))

    def _column(self, lookup: Any) -> Column:
        lhs = lookup.lhs
        if not isinstance(lhs, Col):
            raise NoCondition(
                f"the filter {_named(lhs)}",
                "only columns are compared, without functions, transforms and tuples",
            )
        field: Any = lhs.target
        if lhs.alias != self._base_table or field.column not in self._columns:
            raise NoCondition(
                f"the filter on {field.model._meta.label}.{field.name}",
                "it joins another table, and an entry of the log has one row of "
                f"{self._model._meta.db_table} alone. Compare a column of that table, or give the "
                "condition to a policy by select",
            )
        column = self._columns[field.column]
        if column.name not in self._shown:
            raise NoCondition(
                f"the filter on {field.name}",
                f"this column is not published; published are {', '.join(sorted(self._shown))}",
            )
        return column

    def _check_form(self, lookup: Any, column: Column, part: str) -> None:
        if type(lookup).__module__ not in _BUILT_IN:
            raise NoCondition(part, f"{type(lookup).__name__} is a lookup of its own meaning")
        if lookup.bilateral_transforms:
            raise NoCondition(part, "the field transforms both sides")
        values = lookup.rhs if isinstance(lookup.rhs, list | tuple | set) else [lookup.rhs]
        if any(
            hasattr(value, "as_sql") or hasattr(value, "resolve_expression") for value in values
        ):
            what = "a subquery" if hasattr(lookup.rhs, "get_compiler") else "an expression"
            raise NoCondition(part, f"it compares with {what}; only values are compared")
        if isinstance(lookup, RelatedLookupMixin) and any(isinstance(v, tuple) for v in values):
            _tuples(part)

    def _items(self, values: Iterable[Any]) -> Iterable[Any]:
        found = [value for value in values if value is not None]
        self._values += len(found)
        if self._values > _MOST_VALUES:
            raise NoCondition("the filter", f"more than {_MOST_VALUES} values in lists")
        return found

    def _value(self, value: Any, column: Column, part: str) -> object:
        if value is None:
            raise NoCondition(part, "NULL compares with nothing; use isnull")
        if isinstance(value, datetime.datetime) and column.kind is Kind.DATE:
            value = value.date()
        if _is_finer(value, column.scale):
            raise NoCondition(
                part, f"the column has {column.scale} decimal places, and {value} has more"
            )
        try:
            return from_python(column.kind, value)
        except ValueError as error:
            raise NoCondition(part, str(error)) from None


def _is_finer(value: Any, scale: int | None) -> bool:
    if scale is None or not isinstance(value, Decimal) or not value.is_finite():
        return False
    exponent = value.normalize().as_tuple().exponent
    return isinstance(exponent, int) and -exponent > scale


def _tuples(part: str) -> NoReturn:
    raise NoCondition(part, "keys of several columns are compared column by column")


def _named(part: Any) -> str:
    """A part of a query, for people."""
    if isinstance(part, Col):
        return str(part.target.name)
    name = getattr(part, "lookup_name", None) or getattr(part, "key_name", None)
    if name is None:
        return type(part).__name__
    inner = getattr(part, "lhs", None) or part.get_source_expressions()[0]
    return f"{_named(inner)}__{name}"
