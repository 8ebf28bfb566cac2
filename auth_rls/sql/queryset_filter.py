"""The filters of a queryset as a predicate on rows of its model.

Only what a predicate can say is translated: comparisons of the model's own columns with plain
values, joined by AND, OR and NOT. Everything else is refused with the reason, because a predicate
that means another thing than the queryset would show other rows. Makes no query.

One thing differs from a queryset on SQLite: `startswith`, `contains` and `endswith` respect the
case of letters, as on PostgreSQL and in policies.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.db.models.expressions import Col
from django.db.models.lookups import Lookup
from django.db.models.sql.where import AND, OR, NothingNode, WhereNode
from django.utils.duration import duration_iso_string

from auth_rls.predicates.parse import PredicateError, TableSchema, parse
from auth_rls.predicates.predicate import Predicate
from auth_rls.sql.columns import concrete
from auth_rls.sql.stored_types import schema_of


class NotAPredicate(ValueError):
    """The rows of the queryset are not those that a predicate on them tells. The text says why."""


def predicate_of(queryset: QuerySet[Any]) -> Predicate:
    """The condition on a row of the model under which the queryset has it. The order of its rows is
    ignored. Raises NotAPredicate."""
    query: Any = queryset.query
    for found, what in (
        (query.is_sliced, "it is sliced"),
        (query.combinator, f"it is a {query.combinator}"),
        (query.distinct, "it is distinct"),
        (query.annotations or query.group_by, "it has annotations"),
        (query.extra or getattr(query, "extra_tables", ()), "it uses extra()"),
        (getattr(queryset, "_fields", None) is not None, "it gives values, not instances"),
    ):
        if found:
            raise NotAPredicate(f"the queryset cannot become a condition on single rows: {what}")
    model = concrete(queryset.model)
    json = _node(query.where, query.get_initial_alias() and query.base_table, model)
    schema = schema_of(model)

    def resolve(label: str) -> TableSchema:
        raise PredicateError("a queryset's filter selects from no other table")

    try:
        return parse(json, schema, resolve)
    except PredicateError as error:
        raise NotAPredicate(f"the queryset's filter cannot become a condition: {error}") from None


def _node(node: Any, table: str | None, model: Any) -> Any:
    if isinstance(node, NothingNode):
        return False
    if isinstance(node, WhereNode):
        parts = [_node(child, table, model) for child in node.children]
        if node.connector not in (AND, OR):
            raise NotAPredicate(
                "filters joined by ^ have no such condition; write them with & and |"
            )
        if not parts:
            joined: Any = True
        elif len(parts) == 1:
            joined = parts[0]
        else:
            joined = {"all" if node.connector == AND else "any": parts}
        return {"not": joined} if node.negated else joined
    if not isinstance(node, Lookup) or not type(node).__module__.startswith("django.db.models."):
        raise NotAPredicate(f"{_words(node)} compares no column of the row with a value")
    return _comparison(node, table, model)


def _comparison(lookup: Any, table: str | None, model: Any) -> Any:
    column, name, value = lookup.lhs, lookup.lookup_name, lookup.rhs
    if not isinstance(column, Col) or column.alias != table:
        raise NotAPredicate(
            f"{_words(lookup)} looks into another table, or computes something of the column"
        )
    if column.target not in model._meta.local_concrete_fields:
        raise NotAPredicate(f"{column.target.name} is a column of another table")
    return {f"{column.target.column}__{name}": _literal(name, value)}


def _literal(name: str, value: Any) -> Any:
    match value:
        case Enum():
            return _literal(name, value.value)
        case str():
            return f"${value}" if value.startswith("$") else value
        case bool() | int() | float():
            return value
        case Decimal() | UUID() | IPv4Address() | IPv6Address():
            return str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return duration_iso_string(value)
        case list() | tuple() | set() | frozenset():
            return [_literal(name, item) for item in value if item is not None or name != "in"]
    if hasattr(value, "resolve_expression") or hasattr(value, "as_sql"):
        raise NotAPredicate(f"{name} compares with what the database computes; pass plain values")
    raise NotAPredicate(f"{name} compares with a {type(value).__name__}; pass a plain value")


def _words(node: Any) -> str:
    name = getattr(node, "lookup_name", None)
    return f"the lookup {name!r}" if name else type(node).__name__
