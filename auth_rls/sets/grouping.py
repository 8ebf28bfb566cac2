"""Alike: selects that one query can answer, since they differ in one value alone.

`user == 7` and `user == 8`, all else the same, are rows of one table by one column: read together
and told apart by that column, they give what each would give by itself. Owns who belongs together;
which columns may tell rows apart is for the caller, who knows the database.

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

# Values in what selects have in common: beside them, the keys of many have to fit into a query.
_MOST_SHARED = 200

IsKey = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Shape:
    """What they have in common: all but the value that `key` equals."""

    model: str
    column: str
    prefix: str
    kind: Kind
    key: str
    rest: Predicate


@dataclass(frozen=True, slots=True)
class Group:
    """Selects of one shape, by the value that the key equals in each. Two may say the same."""

    shape: Shape
    of: Mapping[object, tuple[Select, ...]]

    @property
    def where(self) -> Predicate:
        """The rows of any of them."""
        return simplify(All((Test(self.shape.key, "in", frozenset(self.of)), self.shape.rest)))

    @property
    def selects(self) -> Iterator[Select]:
        return (select for found in self.of.values() for select in found)


def group_selects(
    wanted: Iterable[Select], is_key: IsKey, most: int
) -> tuple[list[Group], list[Select]]:
    """Groups of two or more that belong together, each of at most so many keys, and those that
    stand alone. Selects inside a select make it stand alone.

    `is_key` says of a model's column whether what it equals to the database it equals here.
    """
    shapes = {select: dict(_shapes(select, is_key)) for select in dict.fromkeys(wanted)}
    shared = Counter(shape for found in shapes.values() for shape in found)
    groups: dict[Shape, dict[object, tuple[Select, ...]]] = {}
    for select, found in shapes.items():
        # Where there is a choice, with the most.
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
    """Every shape that this select has, with its key's value."""
    where = simplify(select.where)
    parts = where.parts if isinstance(where, All) else (where,)
    if any(selects(where)) or sum(map(_size, tests(where))) > _MOST_SHARED:
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
