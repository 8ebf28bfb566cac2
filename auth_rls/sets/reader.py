"""Members: the sets behind bound selects, read from the database.

Many that differ in one value alone are read by one query and told apart by it. Everything here
queries the database that it is told; it keeps nothing, and whose sets they are it does not know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from functools import cache
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from auth_rls.predicates.bind import member
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import FALSE, Predicate, Select
from auth_rls.predicates.simplify import simplify
from auth_rls.sets.grouping import Group, group_selects
from auth_rls.sql.columns import Column, columns_of, model_named
from auth_rls.sql.compile import condition
from auth_rls.sql.rows import canonical

Counts = dict[object, int]

# Keys in one query, well below SQLite's bound on parameters.
_BATCH = 500
_ROWS = 2_000
# Fields whose values come from the database as they are there: what is equal to it is equal here,
# and the other way round. A subclass may translate, so it is none of them.
_PLAIN_FIELDS = frozenset(
    {
        models.AutoField,
        models.BigAutoField,
        models.BigIntegerField,
        models.CharField,
        models.EmailField,
        models.IntegerField,
        models.PositiveBigIntegerField,
        models.PositiveIntegerField,
        models.PositiveSmallIntegerField,
        models.SlugField,
        models.SmallAutoField,
        models.SmallIntegerField,
        models.TextField,
        models.URLField,
        models.UUIDField,
    }
)
_RELATIONS = frozenset({models.ForeignKey, models.OneToOneField})
_REFUSED = (ValidationError, ValueError, TypeError, ArithmeticError)
_UNKNOWN: Any = object()


def read_members(select: Select, using: str) -> Counts:
    """How many rows behind a bound select give each value, as the outer column is compared with
    it. Counted here and not by the database, to whose collation two texts may be one."""
    column = _column(select.model, select.column)
    rows = _rows(select.model, select.where).using(using).values_list(column.attname, flat=True)
    found = (_member(select, column, value) for value in rows.iterator(_ROWS))
    return Counter(value for value in found if value is not None)


def read_many(selects: Iterable[Select], using: str) -> dict[Select, Counts]:
    """`read_members` of each, in fewer queries where that gives the same."""
    groups, alone = group_selects(selects, cache(_is_key), _BATCH)
    found: dict[Select, Counts] = {}
    for group in groups:
        try:
            found |= _read_group(group, using)
        except _Ungroupable:
            alone.extend(group.selects)
    return found | {select: read_members(select, using) for select in alone}


def read_set(select: Select) -> frozenset[object]:
    """The values of a bound select's column, NULL among them, in that column's own kind."""
    column = _column(select.model, select.column)
    rows = _rows(select.model, select.where).values_list(column.attname, flat=True).distinct()
    return frozenset(_canonical(column, rows.iterator(_ROWS)))


class _Ungroupable(Exception):
    """The database found a row by a key that is none of those asked for."""


def _read_group(group: Group, using: str) -> dict[Select, Counts]:
    shape = group.shape
    key, column = _column(shape.model, shape.key), _column(shape.model, shape.column)
    rows = _rows(shape.model, group.where).using(using).values_list(key.attname, column.attname)
    like = next(group.selects)
    counts: dict[object, Counts] = {value: {} for value in group.of}
    # What a value means is found out once: the same ones come by for many keys.
    of_key: dict[object, Counts] = {}
    members: dict[object, object] = {}
    for raw, value in rows.iterator(_ROWS):
        into = of_key.get(raw)
        if into is None:
            into = of_key[raw] = counts[_key(key, raw, counts)]
        # To a dict 1, 1.0 and True are one; as texts they are not.
        plain = type(value) in (int, str)
        known = members.get(value, _UNKNOWN) if plain else _UNKNOWN
        if known is _UNKNOWN:
            known = _member(like, column, value)
            if plain:
                members[value] = known
        if known is not None:
            into[known] = into.get(known, 0) + 1
    return {select: counts[value] for value, found in group.of.items() for select in found}


def _key(column: Column, raw: object, known: Container[object]) -> object:
    try:
        value = canonical(column, raw)
    except _REFUSED:
        raise _Ungroupable from None
    if value not in known:
        raise _Ungroupable
    return value


def _rows(label: str, where: Predicate) -> models.QuerySet[Any]:
    model = model_named(label)
    # No manager: one that hides rows would make this door differ from the others.
    rows: models.QuerySet[Any] = models.QuerySet(model=model)
    where = simplify(where)
    return rows.none() if where == FALSE else rows.filter(condition(where, model))


def _member(select: Select, column: Column, value: object) -> object:
    """What stands in the set for a value as Django read it; None for what equals nothing."""
    try:
        found = canonical(column, value)
    except _REFUSED:
        return None
    return None if found is None else member(select, found)


def _canonical(column: Column, values: Iterable[object]) -> Iterator[object]:
    for value in values:
        try:
            yield canonical(column, value)
        except _REFUSED:
            continue  # A value that is none of its column's kind equals nothing.


def _column(label: str, name: str) -> Column:
    return columns_of(model_named(label))[name]


def _is_key(label: str, name: str) -> bool:
    """Whether rows may be told apart by this column as the database tells them apart."""
    column = columns_of(model_named(label)).get(name)
    if column is None or column.collated or column.kind not in (Kind.INT, Kind.TEXT, Kind.UUID):
        return False
    field: Any = column.field
    while type(field) in _RELATIONS:
        field = field.target_field
    return type(field) in _PLAIN_FIELDS
