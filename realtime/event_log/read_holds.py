"""From which seq on this process still reads the log, so that those entries are not pruned.

State alone, safe from any thread. `realtime.process.heartbeat` writes the lowest hold into the row
of the process. If a range is pruned all the same, the reader notices it, and clients are sent
"resync required".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Hold:
    """The hold of one reader: entries after the seq `after` are still to be read; None holds
    nothing."""

    __slots__ = ("after",)

    def __init__(self, after: int) -> None:
        self.after: int | None = after

    def move(self, after: int) -> None:
        """Release the entries up to and including `after`, and hold those behind it."""
        self.after = after

    def let_go(self) -> None:
        """Hold nothing until the next `move`."""
        self.after = None


class ReadHolds:
    """Every hold of a process."""

    def __init__(self) -> None:
        self._held: set[Hold] = set()
        # The callbacks were called for every hold below this. It is made exact only when `lowest`
        # is read, which is seldom, because thousands of clients may resume at once.
        self._floor: int | None = None
        self._callbacks: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    @property
    def lowest(self) -> int | None:
        """The lowest seq that is still to be read; None if none is."""
        with self._lock:
            held = (hold.after + 1 for hold in self._held if hold.after is not None)
            self._floor = min(held, default=None)
            return self._floor

    @contextmanager
    def reading(self, after: int) -> Iterator[Hold]:
        """Hold the entries after this seq while the block runs. Callbacks of `on_lower` are called
        if it is the lowest hold."""
        hold = Hold(after)
        with self._lock:
            self._held.add(hold)
            lowers = self._floor is None or after + 1 < self._floor
            if lowers:
                self._floor = after + 1
            callbacks = tuple(self._callbacks) if lowers else ()
        for callback in callbacks:
            callback()
        try:
            yield hold
        finally:
            with self._lock:
                self._held.discard(hold)

    def on_lower(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback`, in the thread of the reader, when a hold becomes the lowest one. Returns
        a function that removes the callback."""
        with self._lock:
            self._callbacks.append(callback)

        def end() -> None:
            with self._lock:
                self._callbacks.remove(callback)

        return end


# The holds of this process.
holds = ReadHolds()
