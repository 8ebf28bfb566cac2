"""The rows of the written table at any position of the log that somebody still asks for.

Pure. It follows the changes that the witness of a run saw, and keeps those after the oldest
position that is held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.soak.ledger import Change, Traits


class _Row(NamedTuple):
    title: str
    traits: Traits


class _Later(NamedTuple):
    seq: int
    change: Change
    traits: Traits


class Table:
    """The rows, moved along as no one holds an earlier position."""

    def __init__(self) -> None:
        self._rows: dict[int, _Row] = {}
        self._later: deque[_Later] = deque()
        self._held: dict[object, int] = {}

    def changed(self, seq: int, change: Change, traits: Traits) -> None:
        """The next change. Its traits are those of the row after it, or of the deleted row."""
        self._later.append(_Later(seq, change, traits))
        least = min(self._held.values(), default=seq)
        while self._later and self._later[0].seq <= least:
            _apply(self._rows, self._later.popleft())

    def hold(self, who: object, seq: int) -> None:
        """Keep what is needed for positions from this seq on."""
        self._held[who] = seq

    def release(self, who: object) -> None:
        self._held.pop(who, None)

    def at(self, seq: int, sees: Callable[[Traits], bool]) -> dict[int, str]:
        """The titles of the rows at this position, by key, that are seen. The position is held, and
        the changes up to it have come."""
        rows = dict(self._rows)
        for later in self._later:
            if later.seq > seq:
                break
            _apply(rows, later)
        return {key: row.title for key, row in rows.items() if sees(row.traits)}


def _apply(rows: dict[int, _Row], later: _Later) -> None:
    change = later.change
    if change.title is None:
        rows.pop(change.key, None)
    else:
        rows[change.key] = _Row(change.title, later.traits)
