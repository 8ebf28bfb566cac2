"""Compilation: a bound predicate as a condition that the database evaluates.

It has the truth value of `predicates/evaluate.py` on every row, unknown included. Connectives are
our own expression classes, because Django's ~Q is true where its operand is unknown. The dialects
write single comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.apps import apps
from django.db import models
from django.db.models import Q
from django.db.models.expressions import Expression, Subquery

from auth_rls.predicates.operators import operator_of
from auth_rls.predicates.predicate import (
    FALSE,
    TRUE,
    All,
    Any_,
    Const,
    Not,
    Predicate,
    RefTest,
    Select,
    Test,
    has_refs,
)
from auth_rls.predicates.simplify import simplify
from auth_rls.sql.columns import Column, columns_of
from auth_rls.sql.dialects import base
from auth_rls.sql.dialects.registry import dialect_of

# Conditions in a row before they are grouped.
_CHAIN = 8
# The weight of a subquery beside that of its WHERE.
_SUBQUERY = 10


def condition(predicate: Predicate, model: type[models.Model]) -> Q:
    """The rows of `model` on which `predicate` is true, for `filter()` on its querysets.

    References must be bound; selects become subqueries. Works beside joins and in subqueries,
    on SQLite and PostgreSQL. Raises ValueError for a predicate that is not bound, names no
    column of the model, or has an operator without SQL: see `widened`. Other databases
    raise NotSupportedError when the query runs.
    """
    return Q(_node(predicate, columns_of(model), True))


def shielded(policy: Predicate, filter_: Predicate, model: type[models.Model]) -> Q:
    """The rows of `model` on which both are true. `filter_` is only evaluated on rows on which
    `policy` is true: a database chooses the order of two conditions, and the time that a client's
    filter takes reveals something of the rows that it is evaluated on.

    Keys that the filter names are looked up by their index all the same, because that time does not
    depend on the other columns of a row. Raises as `condition` does.
    """
    columns = columns_of(model)
    if policy in (TRUE, FALSE) or filter_ in (TRUE, FALSE):
        return condition(simplify(All((policy, filter_))), model)
    keys = [_node(part, columns, True) for part in _parts(filter_) if _names_keys(part, columns)]
    shield = _Shield(*(_node(part, columns, True) for part in (policy, policy, filter_)))
    return Q(_Connective("AND", *keys, shield)) if keys else Q(shield)


def _parts(predicate: Predicate) -> tuple[Predicate, ...]:
    return predicate.parts if isinstance(predicate, All) else (predicate,)


def _names_keys(predicate: Predicate, columns: Mapping[str, Column]) -> bool:
    if not isinstance(predicate, Test) or predicate.op not in ("exact", "in"):
        return False
    column = columns.get(predicate.column)
    if column is None or isinstance(predicate.value, Select):
        return False
    return column.field.primary_key or column.field.remote_field is not None


def widened(predicate: Predicate) -> Predicate:
    """A predicate that has SQL and is true on every row on which this one is true: comparisons
    without SQL count as true. The caller must apply `evaluate.matcher` to the rows that it
    selects."""
    return _widened(predicate, TRUE)


def _widened(predicate: Predicate, generous: Const) -> Predicate:
    if isinstance(predicate, Not):
        return Not(_widened(predicate.part, FALSE if generous == TRUE else TRUE))
    if isinstance(predicate, All | Any_):
        return type(predicate)(tuple(_widened(part, generous) for part in predicate.parts))
    if isinstance(predicate, Test) and operator_of(predicate.op).sql is None:
        return generous
    return predicate


def _node(predicate: Predicate, columns: Mapping[str, Column], positive: bool) -> _Condition:
    """The expression of the predicate, or of its negation unless `positive`.

    A NOT is moved down to the comparisons: there it takes less of the parser's stack, and a
    comparison under no NOT may be unknown instead of false.
    """
    if isinstance(predicate, Const):
        value = predicate.value
        return _Constant(value if positive or value is None else not value)
    if isinstance(predicate, Not):
        return _node(predicate.part, columns, not positive)
    if isinstance(predicate, All | Any_):
        parts = [_node(part, columns, positive) for part in predicate.parts]
        every = isinstance(predicate, All) is positive
        return _Connective("AND" if every else "OR", *parts) if parts else _Constant(every)
    found = _comparison(predicate, columns, positive)
    return found if positive else _Negation(found)


def _comparison(
    predicate: Test | RefTest, columns: Mapping[str, Column], positive: bool
) -> _Condition:
    if isinstance(predicate, RefTest):
        raise ValueError("a comparison of a reference is not bound to a subject")
    column = columns.get(predicate.column)
    if column is None:
        raise ValueError(f"there is no column {predicate.column!r}")
    value = predicate.value
    if isinstance(value, Select):
        return _membership(column, value, positive)
    if has_refs(value):
        raise ValueError(f"{predicate.column}__{predicate.op} is not bound to a subject")
    if operator_of(predicate.op).sql is None:
        raise ValueError(f"operator {predicate.op!r} has no exact SQL")
    return _Comparison(_Cell(column.field), column, predicate.op, value, positive)


def _membership(column: Column, select: Select, positive: bool) -> _Condition:
    source = apps.get_model(select.model)
    columns = columns_of(source)
    try:
        inner = columns[select.column]
    except KeyError:
        raise ValueError(f"there is no column {select.column!r} in {select.model}") from None
    # A NULL in the set would make every "not in it" unknown.
    present = _Comparison(_Cell(inner.field), inner, "isnull", False, True)
    # Not a manager's queryset: with a manager that hides rows the doors would differ.
    rows: models.QuerySet[Any] = models.QuerySet(model=source).order_by()
    chosen = _Connective("AND", present, _node(select.where, columns, True))
    values = rows.filter(Q(chosen)).values_list(
        _Member(_Cell(inner.field), column, inner, select.prefix)
    )
    weight = chosen.weight + _SUBQUERY
    return _Membership(_Cell(column.field), column, Subquery(values), weight, positive)


class _Cell(Expression):
    """A column of the queryset's own table. Not F(), which prefers an annotation of the same name:
    a policy would judge what the annotation says, such as the greatest owner of many rows."""

    def __init__(self, field: models.Field[Any, Any]) -> None:
        super().__init__()
        self.stored = field

    def resolve_expression(self, query: Any = None, *args: Any, **kwargs: Any) -> Any:
        own = query.get_meta().concrete_model
        if own is not self.stored.model._meta.concrete_model:
            raise ValueError(f"{self.stored} is no column of the table of {own._meta.label}")
        return self.stored.get_col(query.get_initial_alias())


class _Condition(Expression):
    """A node of the condition. Its SQL may be used in AND, OR and NOT without parentheses.

    `weight` is about how many symbols a parser has on its stack at the deepest point: SQLite before
    3.46 fails beyond a hundred.
    """

    output_field = models.BooleanField()
    weight = 2

    def __init__(self, *children: Any) -> None:
        super().__init__()
        self.children = list(children)

    def get_source_expressions(self) -> list[Any]:
        return self.children

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        self.children = list(exprs)


class _Constant(_Condition):
    def __init__(self, value: bool | None) -> None:
        super().__init__()
        self.value = value

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        if self.value is None:
            return base.UNKNOWN, []
        return (base.TRUE if self.value else base.FALSE), []


class _Negation(_Condition):
    def __init__(self, part: _Condition) -> None:
        super().__init__(part)
        self.weight = part.weight + 1

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        sql, params = compiler.compile(self.children[0])
        return f"NOT {sql}", list(params)


class _Connective(_Condition):
    def __init__(self, word: str, *parts: _Condition) -> None:
        # The deepest part first, so that no earlier part is on the parser's stack then.
        heaviest, *rest = sorted(parts, key=lambda part: -part.weight)
        super().__init__(heaviest, *rest)
        self.word = word
        self.weight = max(heaviest.weight + 1, *(part.weight + 5 for part in rest[:1]), 0)

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        parts = []
        params: list[Any] = []
        for child in self.children:
            sql, found = compiler.compile(child)
            parts.append(sql)
            params.extend(found)
        return _joined(self.word, parts), params


class _Shield(_Condition):
    """The policy, and where it is true, the filter. CASE keeps the order, which AND does not. The
    policy is repeated beside the CASE, so that its indexes are used."""

    def __init__(self, policy: _Condition, again: _Condition, filter_: _Condition) -> None:
        super().__init__(policy, again, filter_)
        self.weight = max(part.weight for part in (policy, filter_)) + 6

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        (policy, first), (again, second), (filter_, third) = map(compiler.compile, self.children)
        sql = f"({policy} AND CASE WHEN {again} THEN {filter_} ELSE {base.FALSE} END)"
        return sql, [*first, *second, *third]


def _joined(word: str, parts: list[str]) -> str:
    """The parts in parentheses. Many parts are grouped: for SQLite a chain of n parts is an
    expression of depth n, and a thousand is too deep."""
    head, *rest = parts
    while len(rest) > _CHAIN:
        chunks = [rest[index : index + _CHAIN] for index in range(0, len(rest), _CHAIN)]
        rest = [_joined(word, chunk) for chunk in chunks]
    return f"({f' {word} '.join((head, *rest))})"


class _Comparison(_Condition):
    weight = 8

    def __init__(self, operand: _Cell, column: Column, op: str, value: Any, positive: bool) -> None:
        super().__init__(operand)
        self.positive = positive
        self.column = column
        self.op = op
        self.value = value

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        sql, _ = compiler.compile(self.children[0])
        text, params = dialect_of(connection).compare(
            self.column, self.op, self.value, sql, positive=self.positive
        )
        return text, params


class _Membership(_Condition):
    def __init__(
        self, operand: _Cell, column: Column, values: Subquery, weight: int, positive: bool
    ) -> None:
        super().__init__(operand, values)
        self.positive = positive
        self.column = column
        self.weight = weight

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        operand, values = self.children
        sql, _ = compiler.compile(operand)
        subquery, params = compiler.compile(values)
        text, found = dialect_of(connection).membership(
            self.column, sql, subquery, list(params), positive=self.positive
        )
        return text, found


class _Member(Expression):
    """The column that a subquery selects, in the form that the outer column is compared with."""

    # The value is never read by Python, so any output field serves.
    output_field = models.TextField()

    def __init__(self, value: _Cell, outer: Column, inner: Column, prefix: str) -> None:
        super().__init__()
        self.value = value
        self.outer = outer
        self.inner = inner
        self.prefix = prefix

    def get_source_expressions(self) -> list[Any]:
        return [self.value]

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        (self.value,) = exprs

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        sql, _ = compiler.compile(self.value)
        return dialect_of(connection).member(self.outer, self.inner, self.prefix, sql)
