"""Index: finds the predicates that may be true on a row, by the row's values.

The keys of a predicate are (column, value) pairs, of which every row that it is true on has at
least one. The index finds items by these keys. A key can be the set behind a select: all items with
that key share one entry for each member of the set, so the cost of a new member does not depend on
the number of items.

Pure: no Django, no I/O. It never evaluates a predicate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Generic, TypeVar

from auth_rls.few import Few, Several, added, items, removed
from auth_rls.predicates.predicate import (
    All,
    Any_,
    Const,
    Not,
    Predicate,
    Ref,
    RefTest,
    Select,
    Test,
)

Item = TypeVar("Item")
Keys = frozenset[tuple[str, object]]

# The number of values that a select's set is assumed to have when keys are chosen.
_SET_WEIGHT = 16


def index_keys(predicate: Predicate) -> Keys | None:
    """(column, value) pairs of which every row that the predicate is true on has at least one. A
    Select in place of a value means that the column is in its set. None: there are no such pairs,
    so the predicate must be evaluated on every row. Empty: the predicate is true on no row."""
    if isinstance(predicate, Const):
        return None if predicate.value else frozenset()
    if isinstance(predicate, All):
        known = [keys for keys in map(index_keys, predicate.parts) if keys is not None]
        return min(known, key=_weight) if known else None
    if isinstance(predicate, Any_):
        union: set[tuple[str, object]] = set()
        for part in predicate.parts:
            keys = index_keys(part)
            if keys is None:
                return None
            union |= keys
        return frozenset(union)
    if isinstance(predicate, Not | RefTest):
        return None
    if isinstance(predicate.value, Ref | tuple):
        return None
    if predicate.op == "exact" or (predicate.op == "is" and predicate.value is not None):
        return frozenset({(predicate.column, predicate.value)})
    if predicate.op == "in":
        if isinstance(predicate.value, Select):
            return frozenset({(predicate.column, predicate.value)})
        return frozenset((predicate.column, value) for value in predicate.value)
    return None


def keys_decide(predicate: Predicate) -> bool:
    """Whether the predicate is true on every row with one of its keys, so that it need not be
    evaluated on a row by which the index finds it."""
    if isinstance(predicate, Any_):
        return all(map(keys_decide, predicate.parts))
    return (
        isinstance(predicate, Test)
        and predicate.op in ("exact", "in")
        and index_keys(predicate) is not None
    )


def _weight(keys: Keys) -> int:
    return sum(_SET_WEIGHT if isinstance(value, Select) else 1 for _, value in keys)


class _Followers(dict[Item, None]):
    """The items with one set as a key of a column. Compared by identity, unlike a dict."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


class Index(Generic[Item]):
    """Items by their keys.

    `members_of` returns the current values of a select's set. When they change, `follow` must be
    called before any other method.
    """

    __slots__ = ("_by_member", "_by_value", "_followers", "_members_of", "_scanned")

    def __init__(self, members_of: Callable[[Select], Collection[object]]) -> None:
        self._members_of = members_of
        self._by_value: dict[str, dict[object, Few[Item]]] = {}
        self._followers: dict[Select, dict[str, _Followers[Item]]] = {}
        self._by_member: dict[str, dict[object, Few[_Followers[Item]]]] = {}
        self._scanned: dict[Item, None] = {}

    def add(self, item: Item, keys: Keys | None) -> None:
        """Add an item under its keys."""
        if keys is None:
            self._scanned[item] = None
            return
        for column, value in keys:
            if not isinstance(value, Select):
                _insert(self._by_value, column, value, item)
                continue
            columns = self._followers.setdefault(value, {})
            followers = columns.get(column)
            if followers is None:
                followers = columns[column] = _Followers()
                for member in self._members_of(value):
                    _insert(self._by_member, column, member, followers)
            followers[item] = None

    def discard(self, item: Item, keys: Keys | None) -> None:
        """Remove an item that was added with these keys."""
        if keys is None:
            del self._scanned[item]
            return
        for column, value in keys:
            if not isinstance(value, Select):
                _remove(self._by_value, column, value, item)
                continue
            columns = self._followers[value]
            followers = columns[column]
            del followers[item]
            if followers:
                continue
            for member in self._members_of(value):
                _remove(self._by_member, column, member, followers)
            del columns[column]
            if not columns:
                del self._followers[value]

    def follow(self, select: Select, added: Iterable[object], removed: Iterable[object]) -> None:
        """Record that the set behind a select has gained and lost these members."""
        for column, followers in self._followers.get(select, {}).items():
            for member in removed:
                _remove(self._by_member, column, member, followers)
            for member in added:
                _insert(self._by_member, column, member, followers)

    def file_again(self) -> None:
        """File the items under the present members of their sets, whatever `follow` was told."""
        self._by_member = {}
        for select, columns in self._followers.items():
            for column, followers in columns.items():
                for member in self._members_of(select):
                    _insert(self._by_member, column, member, followers)

    def candidates(self, *rows: Mapping[str, Any] | None) -> Iterable[Item]:
        """The items whose predicates may be true on one of these rows, each once."""
        found: dict[Item, None] = {}
        for column, values in self._by_value.items():
            for row in rows:
                value = None if row is None else row.get(column)
                if value is None:
                    continue
                here = values.get(value)
                if isinstance(here, Several):
                    found.update(here)
                elif here is not None:
                    found[here] = None
        for column, members in self._by_member.items():
            for row in rows:
                value = None if row is None else row.get(column)
                if value is not None:
                    for followers in items(members.get(value)):
                        found.update(followers)
        # Items without keys are not in `found`. They may be many, so no dict is made of them.
        if not self._scanned:
            return found
        return (*found, *self._scanned) if found else tuple(self._scanned)


_T = TypeVar("_T")


def _insert(table: dict[str, dict[object, Few[_T]]], column: str, value: object, item: _T) -> None:
    values = table.setdefault(column, {})
    values[value] = added(values.get(value), item)


def _remove(table: dict[str, dict[object, Few[_T]]], column: str, value: object, item: _T) -> None:
    values = table[column]
    left = removed(values[value], item)
    if left is not None:
        values[value] = left
        return
    del values[value]
    if not values:
        del table[column]
