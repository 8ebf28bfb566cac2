"""The sets behind bound selects, read from the database.

Selects that differ in one value are read by one query. Keeps nothing and has no subjects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from functools import cache
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from auth_rls.predicates.bind import member
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import FALSE, All, Predicate, Select, Test
from auth_rls.predicates.simplify import simplify
from auth_rls.sets.grouping import Group, group_selects
from auth_rls.sql.columns import Column, columns_of, model_named
from auth_rls.sql.compile import condition
from auth_rls.sql.primary import primary
from auth_rls.sql.rows import canonical
from auth_rls.sql.stored_types import fit_of

Counts = dict[object, int]

# Keys in one query, well below SQLite's limit on parameters.
_KEYS_PER_QUERY = 500
_FETCHED_ROWS = 2_000
# Fields whose values are equal in Python exactly when they are equal in the database. Subclasses
# are not among them, because they may convert values.
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
    """How many rows behind a bound select give each value, in the form that the outer column is
    compared with. Counted in Python, since two texts may be equal by the database's collation."""
    column = _column(select.model, select.column)
    rows = _rows(select.model, select.where, column).using(using)
    rows = rows.values_list(column.attname, flat=True)
    read = _reader(select.model, column)
    found = (_member(select, read, value) for value in rows.iterator(_FETCHED_ROWS))
    return Counter(value for value in found if value is not None)


def read_many(selects: Iterable[Select], using: str) -> dict[Select, Counts]:
    """`read_members` of each select, in fewer queries where the result is the same."""
    groups, alone = group_selects(selects, cache(_is_key), _KEYS_PER_QUERY)
    found: dict[Select, Counts] = {}
    for group in groups:
        try:
            found |= _read_group(group, using)
        except _Ungroupable:
            alone.extend(group.selects)
    return found | {select: read_members(select, using) for select in alone}


def read_set(select: Select) -> frozenset[object]:
    """The values of a bound select's column, without NULL, in that column's own kind."""
    column = _column(select.model, select.column)
    using = primary(model_named(select.model))
    rows = _rows(select.model, select.where, column).using(using)
    rows = rows.values_list(column.attname, flat=True).distinct()
    return frozenset(_canonical(_reader(select.model, column), rows.iterator(_FETCHED_ROWS)))


class _Ungroupable(Exception):
    """A row's key equals none of the wanted keys in Python, although the database chose the row."""


def _read_group(group: Group, using: str) -> dict[Select, Counts]:
    shape = group.shape
    key, column = _column(shape.model, shape.key), _column(shape.model, shape.column)
    rows = _rows(shape.model, group.where, column).using(using)
    rows = rows.values_list(key.attname, column.attname)
    read = _reader(shape.model, column)
    like = next(group.selects)
    counts: dict[object, Counts] = {value: {} for value in group.of}
    # Each value is converted once: the same values come with many keys.
    of_key: dict[object, Counts] = {}
    members: dict[object, object] = {}
    for raw, value in rows.iterator(_FETCHED_ROWS):
        into = of_key.get(raw)
        if into is None:
            into = of_key[raw] = counts[_key(key, raw, counts)]
            # In a dict 1, 1.0 and True are one key, but their texts differ.
        plain = type(value) in (int, str)
        known = members.get(value, _UNKNOWN) if plain else _UNKNOWN
        if known is _UNKNOWN:
            known = _member(like, read, value)
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


def _rows(label: str, where: Predicate, column: Column) -> models.QuerySet[Any]:
    """The rows with a value of the column's kind in it. A column of SQLite may hold others, which
    to SQL are no member of any set."""
    model = model_named(label)
    # Not a manager's queryset: with a manager that hides rows the doors would differ.
    rows: models.QuerySet[Any] = models.QuerySet(model=model, using=primary(model))
    where = simplify(All((where, Test(column.name, "isnull", False))))
    return rows.none() if where == FALSE else rows.filter(condition(where, model))


def _reader(label: str, column: Column) -> Callable[[object], object]:
    """The canonical value of a value of this column as Django read it, as SQL compares it."""
    if not fit_of(model_named(label), column.name).padded:
        return lambda value: canonical(column, value)

    def unpadded(value: object) -> object:
        found = canonical(column, value)
        return found.rstrip(" ") if isinstance(found, str) else found

    return unpadded


def _member(select: Select, read: Callable[[object], object], value: object) -> object:
    """The member of the set for a value as Django read it; None if no value can equal it."""
    try:
        found = read(value)
    except _REFUSED:
        return None
    return None if found is None else member(select, found)


def _canonical(read: Callable[[object], object], values: Iterable[object]) -> Iterator[object]:
    for value in values:
        try:
            yield read(value)
        except _REFUSED:
            continue  # A value that is not of its column's kind equals nothing.


def _column(label: str, name: str) -> Column:
    return columns_of(model_named(label))[name]


def _is_key(label: str, name: str) -> bool:
    column = columns_of(model_named(label)).get(name)
    return column is not None and tells_rows_apart(column)


def tells_rows_apart(column: Column) -> bool:
    """Whether values of this column are equal in Python exactly when the database says so."""
    if column.collated or column.kind not in (Kind.INT, Kind.TEXT, Kind.UUID):
        return False
    field: Any = column.field
    while type(field) in _RELATIONS:
        field = field.target_field
    return type(field) in _PLAIN_FIELDS
