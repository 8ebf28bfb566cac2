"""The low-water mark of changes that are done out of order. Pure."""

from __future__ import annotations

import heapq


class LowWater:
    """Which changes were begun and which of them are done. `mark` is the highest seq up to which
    everything is done; changes are begun in the order of their seqs."""

    def __init__(self, after: int) -> None:
        """Everything up to `after` is done."""
        self._passed = after
        self._open: list[int] = []
        self._done: set[int] = set()

    def begin(self, seq: int) -> None:
        """This change is to be done."""
        heapq.heappush(self._open, seq)
        self._passed = max(self._passed, seq)

    def done(self, seq: int) -> None:
        """A change that was begun is done."""
        self._done.add(seq)
        while self._open and self._open[0] in self._done:
            self._done.discard(heapq.heappop(self._open))

    def passed(self, seq: int) -> None:
        """Up to this seq every change that concerns the handler was begun."""
        self._passed = max(self._passed, seq)

    @property
    def mark(self) -> int:
        return self._open[0] - 1 if self._open else self._passed

    @property
    def open(self) -> int:
        """How many changes were begun, and they or earlier ones are not done."""
        return len(self._open)
