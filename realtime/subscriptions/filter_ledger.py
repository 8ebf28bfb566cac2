"""The filters of all clients of a process, bounded for each connection and for each subject.

A filter is judged on every row of its table, and kept as long as its channel. So the conditions,
patterns and bytes of all filters are counted for the connection, and for its user, or for its
address where there is no user. Equal filters of one owner count once, as they are judged once. A
filter beyond a bound is refused; filters that an owner has are never taken away.

Pure. Judges no row; what a filter may cost on one row is bounded in `judgement`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from auth_rls.predicates.operators import operator_of
from auth_rls.predicates.predicate import Predicate, tests

# Bytes of one condition without its value, and of one value of a list: the test, the function that
# compares, and their entries in the index.
_CONDITION_BYTES = 600
_ITEM_BYTES = 100


class FilterLoad(NamedTuple):
    """How much filters occupy. `bytes` is an estimate, rather too large than too small."""

    conditions: int = 0
    patterns: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the filters of one owner may occupy. `scope` is the kind of owner in the counters,
    `name` in the texts for clients."""

    scope: str
    name: str
    most: FilterLoad


CONNECTION = Bounds("connection", "a connection", FilterLoad(10_000, 200, 8 << 20))
USER = Bounds("subject", "a user", FilterLoad(20_000, 1_000, 32 << 20))
# Many people may use one address.
ADDRESS = Bounds("address", "an address", FilterLoad(100_000, 5_000, 128 << 20))


@dataclass(frozen=True, slots=True)
class Owner:
    """Who pays for filters: a connection, a user or an address."""

    key: Hashable
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class FilterUse:
    """One filter of a binding on one table. Equal keys of one owner are one filter."""

    binding: int
    key: Hashable
    load: FilterLoad


@dataclass(frozen=True, slots=True)
class Excess:
    """Why a filter is refused: there would be too much of this, a field of `FilterLoad`."""

    what: str
    bounds: Bounds

    def __str__(self) -> str:
        most: int = getattr(self.bounds.most, self.what)
        if self.what == "bytes":
            return f"filters too large. Maximum {most} bytes for all filters of {self.bounds.name}"
        return f"too many {self.what}. Maximum {most} for all filters of {self.bounds.name}"


def load_of(filter_: Predicate) -> FilterLoad:
    """How much a bound filter occupies once it is compiled."""
    conditions = count = size = 0
    for test in tests(filter_):
        conditions += 1
        size += _CONDITION_BYTES
        value = test.value
        language = operator_of(test.op).pattern
        if language is not None:
            count += 1
            size += language.memory(value)
        elif isinstance(value, frozenset | tuple):
            size += sum(_ITEM_BYTES + _length(item) for item in value)
        else:
            size += _length(value)
    return FilterLoad(conditions, count, size)


def _length(value: object) -> int:
    return 4 * len(value) if isinstance(value, str | bytes) else 0


@dataclass(slots=True)
class _Account:
    """The filters of one owner, each with the number of bindings that have it, and their sum."""

    uses: dict[Hashable, int] = field(default_factory=dict)
    conditions: int = 0
    patterns: int = 0
    bytes: int = 0

    def add(self, use: FilterUse) -> None:
        count = self.uses.get(use.key, 0)
        self.uses[use.key] = count + 1
        if not count:
            self._move(use.load, 1)

    def take_away(self, use: FilterUse) -> None:
        count = self.uses[use.key] - 1
        if count:
            self.uses[use.key] = count
        else:
            del self.uses[use.key]
            self._move(use.load, -1)

    def _move(self, load: FilterLoad, sign: int) -> None:
        self.conditions += sign * load.conditions
        self.patterns += sign * load.patterns
        self.bytes += sign * load.bytes

    def excess(self, more: Mapping[Hashable, FilterLoad], bounds: Bounds) -> Excess | None:
        """The bound that would be exceeded with these filters; None where they fit."""
        loads = [load for key, load in more.items() if key not in self.uses]
        for what in FilterLoad._fields:
            added = sum(getattr(load, what) for load in loads)
            if added and getattr(self, what) + added > getattr(bounds.most, what):
                return Excess(what, bounds)
        return None


class FilterLedger:
    """The filters of all channels of a process. A holder is a channel."""

    def __init__(self) -> None:
        self._accounts: dict[Hashable, _Account] = {}
        self._held: dict[object, tuple[Sequence[Owner], list[FilterUse]]] = {}

    def __len__(self) -> int:
        """The number of owners with filters."""
        return len(self._accounts)

    def charge(
        self, holder: object, owners: Sequence[Owner], uses: Iterable[FilterUse]
    ) -> dict[int, Excess]:
        """Charge the filters of a holder to its owners, in place of those that it had.

        Returns the bindings that are refused, each whole, and why.
        """
        self.release(holder)
        by_binding: dict[int, list[FilterUse]] = {}
        for use in uses:
            by_binding.setdefault(use.binding, []).append(use)
        held: list[FilterUse] = []
        self._held[holder] = owners, held
        refused: dict[int, Excess] = {}
        for binding, wanted in by_binding.items():
            excess = self._excess(owners, wanted)
            if excess is not None:
                refused[binding] = excess
                continue
            held += wanted
            for owner in owners:
                account = self._accounts.setdefault(owner.key, _Account())
                for use in wanted:
                    account.add(use)
        if not held:
            del self._held[holder]
        return refused

    def release(self, holder: object, bindings: Iterable[int] | None = None) -> None:
        """Remove the filters of these bindings of a holder, or all. Does nothing for a holder
        without filters."""
        found = self._held.pop(holder, None)
        if found is None:
            return
        owners, held = found
        gone = None if bindings is None else frozenset(bindings)
        kept = [] if gone is None else [use for use in held if use.binding not in gone]
        for owner in owners:
            account = self._accounts[owner.key]
            for use in held:
                if gone is None or use.binding in gone:
                    account.take_away(use)
            if not account.uses:
                del self._accounts[owner.key]
        if kept:
            self._held[holder] = owners, kept

    def _excess(self, owners: Sequence[Owner], wanted: Sequence[FilterUse]) -> Excess | None:
        more = {use.key: use.load for use in wanted}
        for owner in owners:
            account = self._accounts.get(owner.key, _NOTHING)
            excess = account.excess(more, owner.bounds)
            if excess is not None:
                return excess
        return None


_NOTHING = _Account()
