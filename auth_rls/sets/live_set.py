"""Lookups: the sets behind selects, brought from one place in the log to the next row by row.

A lookup counts how many rows give each value, so that the second of two memberships may go without
the first. It is exact for one place in the log: `apply` takes it over one change, `rewind` back
from what a database shows now. What one change cannot tell (rows of an outer select when its inner
set changes, an image without the columns that decide) makes a lookup stale: it keeps its values
until whoever reads the database brings others.

Pure: no Django, no I/O. Where rows are read, who needs a set and when changes come is for callers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from auth_rls.predicates.bind import member
from auth_rls.predicates.evaluate import Matcher, MembersOf, matcher
from auth_rls.predicates.index import Index, index_keys
from auth_rls.predicates.predicate import Select, columns
from auth_rls.predicates.selects import direct_selects
from auth_rls.predicates.simplify import simplify

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One captured change of a row: `old` None for an INSERT, `new` None for a DELETE, both None
    when the whole table was emptied. `columns` are those that the images have."""

    table: str
    columns: frozenset[str]
    old: Row | None
    new: Row | None

    @property
    def empties(self) -> bool:
        return self.old is None and self.new is None


@dataclass(frozen=True, slots=True)
class SetDelta:
    """What joined a set and what left it."""

    added: frozenset[object] = frozenset()
    removed: frozenset[object] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


_NONE = SetDelta()


@dataclass(slots=True)
class Shifts:
    """What one change did: the sets it changed, and those that have to be read again."""

    of: dict[Select, SetDelta] = field(default_factory=dict)
    stale: list[Select] = field(default_factory=list)


class LiveSet:
    """The values behind one bound select.

    `counts` is how many rows give each value: the same object as long as the lookup lives, for
    others to look into and not to change. `exact` False: the values are not of the place where the
    lookup stands, so the next change that concerns it makes it stale.
    """

    __slots__ = ("_frozen", "_judge", "counts", "exact", "keys", "needed", "nested", "select")

    def __init__(self, select: Select, members_of: MembersOf) -> None:
        where = simplify(select.where)
        self.select = select
        self.exact = False
        self.keys = index_keys(where)
        self.needed = columns(where) | {select.column}
        self.nested = direct_selects(where)
        self._judge: Matcher = matcher(where, members_of)
        self.counts: dict[object, int] = {}
        self._frozen: frozenset[object] | None = None

    @property
    def values(self) -> frozenset[object]:
        """The set as it is now, as a value."""
        if self._frozen is None:
            self._frozen = frozenset(self.counts)
        return self._frozen

    def shift(self, old: Row | None, new: Row | None) -> SetDelta:
        """One row changed. A row that leaves and was never counted says that something was
        missed: the lookup is not exact any more."""
        before, after = self._value(old), self._value(new)
        if before == after:
            return _NONE
        added = removed = False
        if before is not None:
            left = self.counts.get(before, 0) - 1
            if left > 0:
                self.counts[before] = left
            elif left == 0:
                del self.counts[before]
                removed = True
            else:
                self.exact = False
        if after is not None:
            had = self.counts.get(after, 0)
            self.counts[after] = had + 1
            added = not had
        if not added and not removed:
            return _NONE
        self._frozen = None
        return SetDelta(
            frozenset((after,)) if added else frozenset(),
            frozenset((before,)) if removed else frozenset(),
        )

    def replace(self, counts: Mapping[object, int], exact: bool) -> SetDelta:
        """Take other values in place of those it has."""
        before = self.values
        self.counts.clear()
        self.counts.update(counts)
        self._frozen = None
        self.exact = exact
        return SetDelta(self.values - before, before - self.values)

    def _value(self, row: Row | None) -> object:
        if row is None or self._judge(row) is not True:
            return None
        value = row.get(self.select.column)
        return None if value is None else member(self.select, value)


class _Table:
    """The lookups that read one table."""

    __slots__ = ("index", "lookups", "needed")

    def __init__(self, members_of: MembersOf) -> None:
        self.lookups: dict[LiveSet, None] = {}
        self.index: Index[LiveSet] = Index(members_of)
        # Of all that ever were here: more than is needed does no harm.
        self.needed: frozenset[str] = frozenset()


class LiveSets:
    """Every lookup of a process, at one place in the log. `table_of` knows tables by model."""

    def __init__(self, table_of: Callable[[str], str]) -> None:
        self._table_of = table_of
        self._known: dict[Select, LiveSet] = {}
        self._shelves: dict[str, _Table] = {}
        # By select, the lookups whose rows are chosen by it.
        self._outer: dict[Select, dict[LiveSet, None]] = {}

    def __contains__(self, select: object) -> bool:
        return select in self._known

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Select]:
        return iter(self._known)

    def __getitem__(self, select: Select) -> LiveSet:
        return self._known[select]

    def members(self, select: Select) -> Collection[object]:
        """The live set, for who looks into it often."""
        return self._known[select].counts

    def reads(self, table: str) -> bool:
        """Whether any lookup reads this table."""
        return table in self._shelves

    def add(self, select: Select, counts: Mapping[object, int], exact: bool) -> LiveSet:
        """A lookup with these values. Those that its `where` names must be there already."""
        lookup = LiveSet(select, self.members)
        lookup.replace(counts, exact)
        self._known[select] = lookup
        table = self._table_of(select.model)
        shelf = self._shelves.get(table)
        if shelf is None:
            shelf = self._shelves[table] = _Table(self.members)
        shelf.lookups[lookup] = None
        shelf.needed |= lookup.needed
        shelf.index.add(lookup, lookup.keys)
        for inner in lookup.nested:
            self._outer.setdefault(inner, {})[lookup] = None
        return lookup

    def discard(self, select: Select) -> None:
        """Forget a lookup that no other one names."""
        lookup = self._known[select]
        table = self._table_of(select.model)
        shelf = self._shelves[table]
        del shelf.lookups[lookup]
        shelf.index.discard(lookup, lookup.keys)
        if not shelf.lookups:
            del self._shelves[table]
        for inner in lookup.nested:
            outer = self._outer[inner]
            del outer[lookup]
            if not outer:
                del self._outer[inner]
        del self._known[select]

    def apply(self, change: Change) -> Shifts:
        """Take every lookup over one change, the next one in the log."""
        shifts = Shifts()
        shelf = self._shelves.get(change.table)
        if shelf is None:
            return shifts
        stale: dict[LiveSet, None] = {}
        concerned: Iterable[LiveSet]
        if change.empties:
            concerned = tuple(shelf.lookups)
        elif shelf.needed <= change.columns:
            concerned = shelf.index.candidates(change.old, change.new)
        else:
            stale.update((one, None) for one in shelf.lookups if not one.needed <= change.columns)
            told = shelf.index.candidates(change.old, change.new)
            concerned = [lookup for lookup in told if lookup not in stale]
        for lookup in concerned:
            if not lookup.exact:
                stale[lookup] = None
                continue
            shift = (
                lookup.replace({}, True) if change.empties else lookup.shift(change.old, change.new)
            )
            if shift:
                shifts.of[lookup.select] = shift
            if not lookup.exact:
                stale[lookup] = None
        for select, shift in shifts.of.items():
            self._follow(select, shift)
            stale.update(self._outer.get(select, {}))
        shifts.stale = [lookup.select for lookup in self._with_outer(stale)]
        return shifts

    def replace(self, select: Select, counts: Mapping[object, int], exact: bool) -> SetDelta:
        """Bring a lookup the values that were read for where the others stand."""
        shift = self._known[select].replace(counts, exact)
        if shift:
            self._follow(select, shift)
        return shift

    def rewind(self, lookups: Collection[LiveSet], changes: Sequence[Change]) -> None:
        """Take these back over changes that their values have in them, given in log order. Those
        that they name must stand at the place already."""
        shelves: dict[str, Index[LiveSet]] = {}
        for lookup in lookups:
            table = self._table_of(lookup.select.model)
            shelves.setdefault(table, Index(self.members)).add(lookup, lookup.keys)
        for change in reversed(changes):
            index = shelves.get(change.table)
            for lookup in () if index is None else index.candidates(change.old, change.new):
                lookup.shift(change.new, change.old)

    def _follow(self, select: Select, shift: SetDelta) -> None:
        for shelf in self._shelves.values():
            shelf.index.follow(select, shift.added, shift.removed)

    def _with_outer(self, lookups: Iterable[LiveSet]) -> dict[LiveSet, None]:
        """These and all whose rows they choose, however indirectly."""
        found: dict[LiveSet, None] = {}
        ahead = list(lookups)
        while ahead:
            lookup = ahead.pop()
            if lookup not in found:
                found[lookup] = None
                ahead.extend(self._outer.get(lookup.select, ()))
        return found
