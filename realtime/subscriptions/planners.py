"""The planner that joins share for a moment, so that many of them at once read policies once.

A change of permissions ends the sharing, and a planner that was being read meanwhile is not shared.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from realtime.subscriptions.planner import Planner
from realtime.util.database_threads import in_database_thread
from realtime.util.gathering import Gathering

_SHARED_SECONDS = 1.0
# Policies are read for refused joins at most once in this time.
_REFUSALS_SECONDS = 0.25
# Joins that wait for one reading.
_WAITING = 1_000


class Planners:
    """One per process that serves sockets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generation = 0
        # The last planner, the generation that it was read in, and when it began to read, in
        # monotonic seconds: as one value, because `forget` and `at_hand` are called while another
        # thread reads.
        self._shared: tuple[int, float, Planner] | None = None
        self._read_at = -_SHARED_SECONDS
        self._reads: Gathering[float, Planner] = Gathering(self._read, _WAITING)

    def at_hand(self, since: float = 0.0) -> Planner | None:
        """As `get`, if nothing has to be read for it; else None. In any thread."""
        shared = self._shared
        if shared is None:
            return None
        generation, read_at, planner = shared
        if generation != self._generation or since > read_at:
            return None
        return planner if read_at > time.monotonic() - _SHARED_SECONDS else None

    async def aget(self, since: float = 0.0) -> Planner:
        """As `get`, on an event loop. Those who wait at the same time share one reading."""
        return self.at_hand(since) or await self._reads.answer(since)

    async def _read(self, asked: Sequence[float]) -> Mapping[float, Planner]:
        return dict.fromkeys(asked, await in_database_thread(self.get, max(asked)))

    def get(self, since: float = 0.0) -> Planner:
        """A planner that no change known to this process has overtaken, and that began to read at
        `since` (monotonic seconds) or later. In a database thread."""
        with self._lock:
            found = self.at_hand(since)
            if found is not None:
                return found
            generation, now = self._generation, time.monotonic()
            planner = Planner()
            self._read_at = now
            # Never shared if a change has overtaken it meanwhile: the generation is another one.
            self._shared = generation, now, planner
            return planner

    def pause(self, since: float) -> float:
        """Seconds to wait before `get(since)`, so that those who wait share one reading."""
        shared = self._shared
        if shared is not None and shared[0] == self._generation and since <= shared[1]:
            return 0.0
        return max(self._read_at + _REFUSALS_SECONDS - time.monotonic(), 0.0)

    def forget(self) -> None:
        """Permissions may have changed. Called on the event loop, so it waits for no lock."""
        self._generation += 1
        self._shared = None
