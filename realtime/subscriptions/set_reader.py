"""Reads the sets behind selects as they were at a position in the log.

One database snapshot shows the rows and every captured change of them. Changes after the position
are undone by the images in the log, so that a set and the stream from that position on fit
together. Everything here runs in a database thread and keeps no set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from django.db import connections

from auth_rls.predicates.predicate import Select
from auth_rls.predicates.selects import direct_selects, resolve
from auth_rls.sets.live_set import Change, LiveSet, LiveSets
from auth_rls.sets.reader import read_many
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.position import Position
from realtime.event_log.table import read_later, relations
from realtime.subscriptions.access_watch import AccessWatch
from realtime.subscriptions.identity_tables import table_of
from realtime.wal.entry import Relation
from realtime.wal.head import find_head
from realtime.wal.snapshots import one_snapshot

# How often policies are read again until the columns of the selects are captured. A policy may have
# been deleted meanwhile.
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Found:
    """A set as read: how many rows give each value. `exact`: it is the set as of the position."""

    counts: Mapping[object, int]
    exact: bool


class SetReader:
    """Reads sets on one database. Keeps no rows."""

    def __init__(self, alias: str, watch: AccessWatch) -> None:
        self._alias = alias
        self._watch = watch

    def read(self, selects: Sequence[Select], at: Position) -> dict[Select, Found]:
        """The sets of these selects and of those inside them, inner ones first, as they were at the
        position."""
        levels = _levels(selects)
        for _ in range(_LOOKS):
            # A table must be captured before its rows are read, or a later change is missed.
            if all(map(self._watch.captures, (select for level in levels for select in level))):
                break
            self._watch.look()
        tables = {table_of(select.model) for level in levels for select in level}
        with one_snapshot(self._alias):
            head = find_head(connections[self._alias])
            changes: list[Change] | None = None
            if head is not None and head.epoch == at.epoch and head.seq >= at.seq:
                try:
                    later = read_later(self._alias, sorted(tables), at.seq)
                    changes = [change_of(event) for event in relations.events(later)]
                except OverflowError:
                    pass
            return _read_at(self._alias, levels, changes)


def read_before(
    alias: str, selects: Sequence[Select], changes: Sequence[Change]
) -> dict[Select, Found]:
    """These and the selects inside them, inner ones first, as they were before these changes, which
    the caller's transaction sees."""
    return _read_at(alias, _levels(selects), changes)


def _read_at(
    alias: str, levels: Sequence[Sequence[Select]], changes: Sequence[Change] | None
) -> dict[Select, Found]:
    world = LiveSets(table_of)
    undo = _Undo(changes)
    for level in levels:
        exact: list[LiveSet] = []
        flats = {select: _flat(select, world) for select in level}
        counts = read_many(flats.values(), alias)
        for select, flat in flats.items():
            live_set = world.add(select, counts[flat], False)
            if all(world[inner].exact for inner in live_set.nested) and undo.possible(live_set):
                live_set.exact = True
                exact.append(live_set)
        world.rewind(exact, changes or ())
    return {select: Found(world[select].counts, world[select].exact) for select in world}


def change_of(event: DatabaseEvent) -> Change:
    """The event as a change of live sets."""
    return Change(event.relation.table, _columns_of(event.relation), event.old, event.new)


@lru_cache(maxsize=1024)
def _columns_of(relation: Relation) -> frozenset[str]:
    return frozenset(column.name for column in relation.columns)


def _flat(select: Select, world: LiveSets) -> Select:
    """The select with values in place of the selects inside it."""
    where = resolve(select.where, lambda inner: world[inner].values)
    return Select(select.model, select.column, where, select.prefix, select.kind)


class _Undo:
    """Of which sets these changes can be undone. `changes` is None if they are not known."""

    def __init__(self, changes: Sequence[Change] | None) -> None:
        self._known = changes is not None
        self._emptied = {change.table for change in changes or () if change.empties}
        self._shown: dict[str, frozenset[str]] = {}
        for change in changes or ():
            shown = self._shown.get(change.table, change.columns)
            self._shown[change.table] = shown & change.columns

    def possible(self, live_set: LiveSet) -> bool:
        """Whether the images of the changes have all that the set is made of."""
        table = table_of(live_set.select.model)
        if not self._known or table in self._emptied:
            return False
        return table not in self._shown or live_set.needed <= self._shown[table]


def _levels(selects: Iterable[Select]) -> list[list[Select]]:
    """These selects and those inside them, each once, in levels: a select uses only selects of
    earlier levels."""
    depths: dict[Select, int] = {}

    def depth(select: Select) -> int:
        if select not in depths:
            inner = map(depth, direct_selects(select.where))
            depths[select] = max(inner, default=-1) + 1
        return depths[select]

    for select in selects:
        depth(select)
    levels: list[list[Select]] = [[] for _ in range(max(depths.values(), default=-1) + 1)]
    for select, level in depths.items():
        levels[level].append(select)
    return levels
