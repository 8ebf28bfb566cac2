"""From where on this process still reads the log, so that what it needs is not pruned.

Pure state, safe from any thread. `realtime.processes` announces the lowest hold in the row of the
process; without the announcement a pruned range is still noticed, and clients are sent "resync
required".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Hold:
    """One reader's place: what comes after `after` is still to be read."""

    __slots__ = ("after",)

    def __init__(self, after: int) -> None:
        self.after = after

    def move(self, after: int) -> None:
        """No longer hold anything up to and including `after`."""
        self.after = after


class ReadHolds:
    """Every hold of a process."""

    def __init__(self) -> None:
        self._held: set[Hold] = set()
        # No hold is below this that the watchers have not been called for. Exact when `lowest` is
        # asked for, which is seldom: thousands may resume at once.
        self._floor: int | None = None
        self._watchers: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    @property
    def lowest(self) -> int | None:
        """The lowest seq that is still to be read; None if none is."""
        with self._lock:
            self._floor = min((hold.after + 1 for hold in self._held), default=None)
            return self._floor

    @contextmanager
    def reading(self, after: int) -> Iterator[Hold]:
        """Hold everything after this seq while the block runs. Watchers are called when the
        lowest hold sinks."""
        hold = Hold(after)
        with self._lock:
            self._held.add(hold)
            sinks = self._floor is None or after + 1 < self._floor
            if sinks:
                self._floor = after + 1
            watchers = tuple(self._watchers) if sinks else ()
        for watcher in watchers:
            watcher()
        try:
            yield hold
        finally:
            with self._lock:
                self._held.discard(hold)

    def watch(self, watcher: Callable[[], object]) -> Callable[[], None]:
        """Call `watcher`, from the reader's thread, when the lowest hold sinks. Returns a function
        that ends it."""
        with self._lock:
            self._watchers.append(watcher)

        def end() -> None:
            with self._lock:
                self._watchers.remove(watcher)

        return end


# The process's own.
holds = ReadHolds()
