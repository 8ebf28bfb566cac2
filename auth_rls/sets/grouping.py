"""Grouping: selects that differ in one value only, and can share a query.

Two selects with `user == 7` and `user == 8`, and everything else equal, choose rows of one table by
one column. One query reads the rows of both, and that column shows to which select a row belongs.
This module decides which selects can share a query. The caller says which columns can distinguish
rows, which depends on the database.

Pure: no Django, no I/O. It reads nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import All, Predicate, Select, Test, selects, tests
from auth_rls.predicates.simplify import simplify

# The most values in the condition that selects share, because the query also has the keys.
_MAX_SHARED_VALUES = 200

IsKey = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Shape:
    """The common part of the selects of a group: everything but the value that `key` equals."""

    model: str
    column: str
    prefix: str
    kind: Kind
    key: str
    rest: Predicate


@dataclass(frozen=True, slots=True)
class Group:
    """Selects of one shape, by the value that the key equals. Equal selects share a value."""

    shape: Shape
    of: Mapping[object, tuple[Select, ...]]

    @property
    def where(self) -> Predicate:
        """The rows that at least one of the selects chooses."""
        return simplify(All((Test(self.shape.key, "in", frozenset(self.of)), self.shape.rest)))

    @property
    def selects(self) -> Iterator[Select]:
        return (select for found in self.of.values() for select in found)


def group_selects(
    wanted: Iterable[Select], is_key: IsKey, most: int
) -> tuple[list[Group], list[Select]]:
    """The selects in groups of at least two and at most `most` keys, and the selects that remain.

    A select with another select inside is never grouped. `is_key(model, column)` says whether two
    values of the column are equal in Python exactly when they are equal in the database.
    """
    shapes = {select: dict(_shapes(select, is_key)) for select in dict.fromkeys(wanted)}
    shared = Counter(shape for found in shapes.values() for shape in found)
    groups: dict[Shape, dict[object, tuple[Select, ...]]] = {}
    for select, found in shapes.items():
        # Of several possible shapes, take the one that most selects have.
        shape = max(found, key=shared.__getitem__, default=None)
        if shape is not None:
            of = groups.setdefault(shape, {})
            of[found[shape]] = (*of.get(found[shape], ()), select)
    together: list[Group] = []
    for shape, of in groups.items():
        items = iter(of.items())
        while some := dict(islice(items, most)):
            if len(some) > 1:
                together.append(Group(shape, some))
    grouped = {select for group in together for select in group.selects}
    return together, [select for select in shapes if select not in grouped]


def _shapes(select: Select, is_key: IsKey) -> Iterator[tuple[Shape, object]]:
    """Each shape of this select, with the value of the shape's key."""
    where = simplify(select.where)
    parts = where.parts if isinstance(where, All) else (where,)
    if any(selects(where)) or sum(map(_size, tests(where))) > _MAX_SHARED_VALUES:
        return
    for part in parts:
        if not isinstance(part, Test) or part.op != "exact" or part.column == select.column:
            continue
        if is_key(select.model, part.column):
            rest = simplify(All(tuple(other for other in parts if other is not part)))
            shape = Shape(
                select.model, select.column, select.prefix, select.kind, part.column, rest
            )
            yield shape, part.value


def _size(test: Test) -> int:
    return len(test.value) if isinstance(test.value, frozenset | tuple) else 1
