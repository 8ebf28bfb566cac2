"""Live sets: the sets behind selects, kept current row by row from the changes in the log.

A live set counts the rows that give each value, so that a value stays while one row gives it. It is
exact for one position in the log: `apply` advances it by one change, and `rewind` takes values that
were just read from the database back to an earlier position. A change does not always suffice: when
an inner set changes, the change does not have the rows of the outer select, and an image can lack
columns that decide. The live set then becomes stale and keeps its values until new ones are read
from the database.

Pure: no Django, no I/O. Callers read the rows, pass the changes and decide which sets are needed.
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
    """One captured change of a row. `old` is None for an INSERT, `new` for a DELETE, both when
    the whole table was emptied. `columns` are the columns of the images."""

    table: str
    columns: frozenset[str]
    old: Row | None
    new: Row | None

    @property
    def empties(self) -> bool:
        return self.old is None and self.new is None


@dataclass(frozen=True, slots=True)
class SetDelta:
    """The values that a change added to a set and removed from it."""

    added: frozenset[object] = frozenset()
    removed: frozenset[object] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


_NONE = SetDelta()


@dataclass(slots=True)
class Shifts:
    """The effect of one change: the sets it changed, and the sets that must be read again."""

    of: dict[Select, SetDelta] = field(default_factory=dict)
    stale: list[Select] = field(default_factory=list)


class LiveSet:
    """The values behind one bound select.

    `counts` is how many rows give each value: one object for the life of the set, which callers may
    read and must not change. `exact` False: the values do not belong to the set's position in the
    log, so the next change of its rows makes it stale.
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
        """The present values, as an immutable set."""
        if self._frozen is None:
            self._frozen = frozenset(self.counts)
        return self._frozen

    def shift(self, old: Row | None, new: Row | None) -> SetDelta:
        """Apply a change of one row. If the old row was not counted, a change was missed, and the
        set is no longer exact."""
        before, after = self._value(old), self._value(new)
        if before == after:
            return _NONE
        self._frozen = None
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
        return SetDelta(
            frozenset((after,)) if added else frozenset(),
            frozenset((before,)) if removed else frozenset(),
        )

    def replace(self, counts: Mapping[object, int], exact: bool) -> SetDelta:
        """Replace all values. The difference is that from what is counted, also where an earlier
        call was broken off."""
        before = frozenset(self.counts)
        self._frozen = None
        self.counts.clear()
        self.counts.update(counts)
        self.exact = exact
        return SetDelta(self.values - before, before - self.values)

    def _value(self, row: Row | None) -> object:
        if row is None or self._judge(row) is not True:
            return None
        value = row.get(self.select.column)
        return None if value is None else member(self.select, value)


class _Table:
    """The live sets that read one table."""

    __slots__ = ("index", "live_sets", "needed")

    def __init__(self, members_of: MembersOf) -> None:
        self.live_sets: dict[LiveSet, None] = {}
        self.index: Index[LiveSet] = Index(members_of)
        # Never shrinks: with a column too many `apply` only looks at more sets.
        self.needed: frozenset[str] = frozenset()


class LiveSets:
    """All live sets of a process, at one position in the log. `table_of` returns the table of a
    model's label."""

    def __init__(self, table_of: Callable[[str], str]) -> None:
        self._table_of = table_of
        self._known: dict[Select, LiveSet] = {}
        self._tables: dict[str, _Table] = {}
        # By inner select, the live sets whose `where` uses it.
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
        """The current values, in a collection that changes with the set."""
        return self._known[select].counts

    def reads(self, table: str) -> bool:
        """Whether any live set reads this table."""
        return table in self._tables

    def add(self, select: Select, counts: Mapping[object, int], exact: bool) -> LiveSet:
        """Add a live set with these values. The live sets of selects inside its `where` must have
        been added."""
        live_set = LiveSet(select, self.members)
        live_set.replace(counts, exact)
        self._known[select] = live_set
        name = self._table_of(select.model)
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = _Table(self.members)
        table.live_sets[live_set] = None
        table.needed |= live_set.needed
        table.index.add(live_set, live_set.keys)
        for inner in live_set.nested:
            self._outer.setdefault(inner, {})[live_set] = None
        return live_set

    def discard(self, select: Select) -> None:
        """Remove a live set that no other live set uses."""
        live_set = self._known[select]
        name = self._table_of(select.model)
        table = self._tables[name]
        del table.live_sets[live_set]
        table.index.discard(live_set, live_set.keys)
        if not table.live_sets:
            del self._tables[name]
        for inner in live_set.nested:
            outer = self._outer[inner]
            del outer[live_set]
            if not outer:
                del self._outer[inner]
        del self._known[select]

    def apply(self, change: Change) -> Shifts:
        """Advance every live set by one change, the next one in the log."""
        shifts = Shifts()
        table = self._tables.get(change.table)
        if table is None:
            return shifts
        stale: dict[LiveSet, None] = {}
        affected: Iterable[LiveSet]
        if change.empties:
            affected = tuple(table.live_sets)
        elif table.needed <= change.columns:
            affected = table.index.candidates(change.old, change.new)
        else:
            stale.update((one, None) for one in table.live_sets if not one.needed <= change.columns)
            found = table.index.candidates(change.old, change.new)
            affected = [live_set for live_set in found if live_set not in stale]
        for live_set in affected:
            if not live_set.exact:
                stale[live_set] = None
                continue
            shift = (
                live_set.replace({}, True)
                if change.empties
                else live_set.shift(change.old, change.new)
            )
            if shift:
                shifts.of[live_set.select] = shift
            if not live_set.exact:
                stale[live_set] = None
        for select, shift in shifts.of.items():
            self._follow(select, shift)
            stale.update(self._outer.get(select, {}))
        shifts.stale = [live_set.select for live_set in self._with_outer(stale)]
        return shifts

    def replace(self, select: Select, counts: Mapping[object, int], exact: bool) -> SetDelta:
        """Give a live set values that were read for the position of all sets."""
        shift = self._known[select].replace(counts, exact)
        if shift:
            self._follow(select, shift)
        return shift

    def file_again(self) -> None:
        """Find the live sets by the present values of those that they select from: after an `apply`
        or a `replace` that was broken off."""
        for table in self._tables.values():
            table.index.file_again()

    def rewind(self, live_sets: Collection[LiveSet], changes: Sequence[Change]) -> None:
        """Undo changes that these sets' values include, given in log order. The sets that they
        select from must be at the earlier position already."""
        indexes: dict[str, Index[LiveSet]] = {}
        for live_set in live_sets:
            table = self._table_of(live_set.select.model)
            indexes.setdefault(table, Index(self.members)).add(live_set, live_set.keys)
        for change in reversed(changes):
            index = indexes.get(change.table)
            for live_set in () if index is None else index.candidates(change.old, change.new):
                live_set.shift(change.new, change.old)

    def _follow(self, select: Select, shift: SetDelta) -> None:
        for table in self._tables.values():
            table.index.follow(select, shift.added, shift.removed)

    def _with_outer(self, live_sets: Iterable[LiveSet]) -> dict[LiveSet, None]:
        """These sets and all that depend on them, directly or not."""
        found: dict[LiveSet, None] = {}
        pending = list(live_sets)
        while pending:
            live_set = pending.pop()
            if live_set not in found:
                found[live_set] = None
                pending.extend(self._outer.get(live_set.select, ()))
        return found
