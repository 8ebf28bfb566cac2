"""Whether a subject may send to private topics, for many requests at once.

Reading the policies for each request would cost too much: requests share one reading, and there are
pauses between readings. A reading is never older than the request that uses it. Topics are judged a
few at a time, so that no request occupies a database thread for long.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Iterable

from auth_rls.subjects.subject import Subject
from realtime.subscriptions.planner import Planner
from realtime.util.database_threads import in_database_thread

# Readings take at most one part in five of the time.
_PAUSES_PER_READING = 4
_LONGEST_PAUSE = 2.0
_TOPICS_AT_ONCE = 50


class SharedPlanner:
    """Planners for the requests of one event loop."""

    def __init__(self) -> None:
        self._next: asyncio.Task[Planner] | None = None
        self._lock = asyncio.Lock()
        self._not_before = 0.0

    async def get(self) -> Planner:
        """A planner that is read after this call. Raises what the database raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._read(), name="rowcast-planner")
            # If every request was cancelled, asyncio would log the exception.
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._next)

    async def _read(self) -> Planner:
        async with self._lock:
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            # From here on requests need a later reading.
            self._next = None
            began = time.monotonic()
            try:
                return await in_database_thread(Planner)
            finally:
                now = time.monotonic()
                pause = min((now - began) * _PAUSES_PER_READING, _LONGEST_PAUSE)
                self._not_before = now + pause


_planners: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, SharedPlanner] = (
    weakref.WeakKeyDictionary()
)


async def sendable(subject: Subject, topics: Iterable[str]) -> frozenset[str]:
    """Those of these private topics that the subject may send to. Raises what the database
    raises."""
    distinct = list(dict.fromkeys(topics))
    if not distinct or subject.bypasses_rls:
        return frozenset(distinct)
    planner = await _planners.setdefault(asyncio.get_running_loop(), SharedPlanner()).get()
    allowed: set[str] = set()
    for start in range(0, len(distinct), _TOPICS_AT_ONCE):
        some = distinct[start : start + _TOPICS_AT_ONCE]
        allowed |= await in_database_thread(_allowed, planner, subject, some)
    return frozenset(allowed)


def _allowed(planner: Planner, subject: Subject, topics: Iterable[str]) -> set[str]:
    return {topic for topic in topics if planner.rights(subject, topic).send}
