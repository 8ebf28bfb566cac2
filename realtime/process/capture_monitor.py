"""Notices that nothing comes of a published table any more, or that changes come again, while
sockets are subscribed to it.

A table may be dropped, get a namesake in another schema, or lose its triggers, and no change tells
of it. Looks, and reports the tables; refuses and tells nothing by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread
from realtime.wal import obstacles, triggers

logger = logging.getLogger("realtime.processes")


class CaptureMonitor:
    """One per server process. `changed` is called with the tables (by `db_table`) of which nothing
    comes any more, or something again; `wanted` says whether anybody is subscribed."""

    def __init__(
        self,
        alias: str,
        wanted: Callable[[], bool],
        changed: Callable[[Collection[str]], None],
    ) -> None:
        self._alias = alias
        self._wanted = wanted
        self._changed = changed
        self._obstructed: Mapping[str, str] = {}
        self._marks: frozenset[object] | None = None
        # Tables that lacked a trigger at the last look. On SQLite they do while a migration runs,
        # so it takes two looks to be sure.
        self._lacking: set[str] = set()

    async def look(self) -> None:
        """Look once. A failure of the database is logged elsewhere."""
        if not self._wanted() and not self._obstructed:
            return
        try:
            found = await in_database_thread(self._find)
        except DATABASE_ERRORS:
            return
        before, self._obstructed = self._obstructed, found
        changed = {table for table in {*before, *found} if before.get(table) != found.get(table)}
        for table in sorted(changed):
            if table in found:
                logger.error(
                    "nothing comes of %s any more: %s",
                    table,
                    found[table],
                    extra={"action": "capture_ended"},
                )
            else:
                logger.warning("changes of %s come again", table, extra={"action": "capture_works"})
        if changed:
            self._changed(changed)

    def _find(self) -> Mapping[str, str]:
        marks = triggers.marks(self._alias)
        unchanged = marks == self._marks and not self._lacking
        lacking = set() if unchanged else triggers.uncaptured(self._alias)
        found = obstacles.look(self._alias, lacking & self._lacking)
        # Kept only now: a look that failed half-way is to be made again as a whole.
        self._marks, self._lacking = marks, lacking
        return found
