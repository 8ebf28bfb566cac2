"""Index: under which values of a row a predicate has to be looked at at all.

Owns the keys of a predicate, and items filed under them. A key on the set behind a select is filed
once for all items that have it, so that a value which joins a big set costs one entry however many
items are filed there.

Pure: no Django, no I/O. It never evaluates a predicate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Generic, TypeVar

from auth_rls.predicates.predicate import All, Any_, Const, Not, Predicate, Ref, Select, Test

Item = TypeVar("Item")
Keys = frozenset[tuple[str, object]]

# How many values a set is taken to have when one of several conditions is chosen.
_SET_WEIGHT = 16


def index_keys(predicate: Predicate) -> Keys | None:
    """(column, value) pairs of which at least one holds on every row that the predicate is true
    of; a Select in place of a value means that the column is in its set. None: there is no such
    set of pairs, every row must be looked at. Empty: no row matches."""
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
    if isinstance(predicate, Not):
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
    """Whether the predicate is true of every row that has one of its keys, so that finding it by
    one is all the evaluation there is to do."""
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
    """The items that need a column to be in one set. One of these is itself and no other."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


class Index(Generic[Item]):
    """Items by the values that they need.

    `members_of` gives the values that a select's set has now. When they change, `follow` has to be
    told before anything else is asked of the index.
    """

    __slots__ = ("_by_member", "_by_value", "_followers", "_members_of", "_scanned")

    def __init__(self, members_of: Callable[[Select], Collection[object]]) -> None:
        self._members_of = members_of
        self._by_value: dict[str, dict[object, dict[Item, None]]] = {}
        self._followers: dict[Select, dict[str, _Followers[Item]]] = {}
        self._by_member: dict[str, dict[object, dict[_Followers[Item], None]]] = {}
        self._scanned: dict[Item, None] = {}

    def add(self, item: Item, keys: Keys | None) -> None:
        """File an item under its keys."""
        if keys is None:
            self._scanned[item] = None
            return
        for column, value in keys:
            if not isinstance(value, Select):
                _file(self._by_value, column, value, item)
                continue
            columns = self._followers.setdefault(value, {})
            followers = columns.get(column)
            if followers is None:
                followers = columns[column] = _Followers()
                for member in self._members_of(value):
                    _file(self._by_member, column, member, followers)
            followers[item] = None

    def discard(self, item: Item, keys: Keys | None) -> None:
        """Take out an item that was added with these keys."""
        if keys is None:
            del self._scanned[item]
            return
        for column, value in keys:
            if not isinstance(value, Select):
                _unfile(self._by_value, column, value, item)
                continue
            columns = self._followers[value]
            followers = columns[column]
            del followers[item]
            if followers:
                continue
            for member in self._members_of(value):
                _unfile(self._by_member, column, member, followers)
            del columns[column]
            if not columns:
                del self._followers[value]

    def follow(self, select: Select, added: Iterable[object], removed: Iterable[object]) -> None:
        """The set behind a select has changed."""
        for column, followers in self._followers.get(select, {}).items():
            for member in removed:
                _unfile(self._by_member, column, member, followers)
            for member in added:
                _file(self._by_member, column, member, followers)

    def candidates(self, *rows: Mapping[str, Any] | None) -> Iterable[Item]:
        """The items that may hold for any of these rows, each once."""
        found: dict[Item, None] = {}
        for column, values in self._by_value.items():
            for row in rows:
                value = None if row is None else row.get(column)
                if value is not None and value in values:
                    found.update(values[value])
        for column, members in self._by_member.items():
            for row in rows:
                value = None if row is None else row.get(column)
                if value is not None and value in members:
                    for followers in members[value]:
                        found.update(followers)
        # What is scanned may be much, and is in no other place: it is not put into a dict.
        return (*found, *self._scanned) if self._scanned else found


_T = TypeVar("_T")


def _file(
    shelf: dict[str, dict[object, dict[_T, None]]], column: str, value: object, item: _T
) -> None:
    shelf.setdefault(column, {}).setdefault(value, {})[item] = None


def _unfile(
    shelf: dict[str, dict[object, dict[_T, None]]], column: str, value: object, item: _T
) -> None:
    values = shelf[column]
    items = values[value]
    del items[item]
    if not items:
        del values[value]
        if not values:
            del shelf[column]
